"""Streaming statistics: tensors in, small arrays out. No model, no I/O."""
