"""Ways to deal batches out to workers and to merge what comes back, for the tests of properties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# few, and not made simpler where one fails: each takes a tenth of a second
EXAMPLES = settings(
    max_examples=8,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


def deals(batches: int, most: int = 5) -> st.SearchStrategy[list[list[int]]]:
    """Numbers of batches by worker, each worker's own ascending; workers in any order. Engines deal
    them out so: where equal values are at the edge of the tail, those of the first images stay.
    """
    owners = st.lists(st.integers(0, most - 1), min_size=batches, max_size=batches)
    return owners.map(
        lambda owner: [
            [batch for batch in range(batches) if owner[batch] == worker]
            for worker in dict.fromkeys(owner)
        ]
    ).flatmap(st.permutations)


def merged(parts: Sequence[Any], data: st.DataObject) -> Any:
    """Any two of the parts become one until one is left."""
    left = list(parts)
    while len(left) > 1:
        other = left.pop(data.draw(st.integers(0, len(left) - 1), label="merged"))
        data.draw(st.sampled_from(left), label="into").merge(other)
    return left[0]
