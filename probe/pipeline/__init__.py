"""Jobs: read a run or a model, compute, write."""
