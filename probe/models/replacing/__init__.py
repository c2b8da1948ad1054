"""Other normalizers in place of a model's normalization layers, and back."""
