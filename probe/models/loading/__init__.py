"""A network by name, with its weights and its own evaluation transform."""
