"""Who executes the work: an engine deals batches out and merges what comes back."""
