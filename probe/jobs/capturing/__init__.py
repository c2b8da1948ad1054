"""One forward pass over images: what a run keeps of norm layers and of attention heads."""
