"""What stands in for each layer: exported as tables and weights, or put into a model."""
