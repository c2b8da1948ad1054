"""A training seen at its checkpoints: captured, fitted, tabled, drawn."""
