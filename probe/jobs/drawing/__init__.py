"""The figures of finished runs, of several runs side by side, and of the attention in one image."""
