"""Which normalizer? The same training with each of several, by seed; see `comparing.compare`."""
