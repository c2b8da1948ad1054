"""Follow where every token of a running model comes from in the image: tensors of places beside
tensors of values.
"""

from probe.models.attention.tracing.places import Origin, Places, TokenMap
from probe.models.attention.tracing.tracer import Tracer
from probe.models.attention.tracing.track import Track, constant_along

__all__ = ["Origin", "Places", "TokenMap", "Tracer", "Track", "constant_along"]
