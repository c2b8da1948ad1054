"""A converted network learns from the original one, without labels."""
