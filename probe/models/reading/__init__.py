"""Which modules of a model are normalization layers, and what they see while the model runs."""
