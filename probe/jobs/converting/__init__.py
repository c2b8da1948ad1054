"""Fitted curves in place of a model's normalization layers, without training, and what that
costs.
"""
