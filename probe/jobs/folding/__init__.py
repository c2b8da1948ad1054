"""Affine maps of normalization layers folded into the linear layers around them, and the file of a
folded model.
"""
