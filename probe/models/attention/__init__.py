"""Attention distance of every head, whatever computes the attention, while the model keeps its
kernel and its output.
"""

from probe.models.attention.maps import AttentionMap, attention_maps
from probe.models.attention.probe import AttentionProbe

__all__ = ["AttentionMap", "AttentionProbe", "attention_maps"]
