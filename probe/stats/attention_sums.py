"""From the scores of one attention call to sums over the query patches of each image and head, a
part that fits the cache at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.stats import attention_kernels
from probe.stats.attention import VALUES, Geometry, HeadSums
from probe.stats.attention_rows import row_statistics
from probe.stats.attention_scores import Scores
from probe.stats.crew import crew, one_core_each
from probe.stats.results import Arrays
from probe.stats.transfer import sent, to_device

# scores looked at together: on the CPU they stay in the cache, on a GPU they fill it; 2 and 16 MB
# of float32
CHUNK = {"cpu": 2**19}
LARGE_CHUNK = 2**22
PARTS = 16  # for as many threads; not as many as there are, so that their number changes no digit

# rows, heads, queries: those of equal rows and heads add to the same sums, one after the other
Part: TypeAlias = tuple[slice, slice, list[slice]]


def attention_sums(
    scores: Scores, geometry: Geometry, images: int, valid: NDArray[np.bool_] | None = None
) -> Tensor:
    """Sums (B, H, 5) float64 over query patches of one call: number of queries, then VALUES; on the
    device of the scores, which is not waited for. `valid` (B, patches) is False at padding.
    """
    rows, heads, _, _ = scores.shape
    prefix, device = geometry.prefix, scores.device
    real = _real(geometry, images, valid, device)
    distances = sent(torch.tensor(geometry.distances, dtype=scores.dtype), device)
    sums = torch.zeros(rows * heads, 1 + len(VALUES), dtype=torch.float64, device=device)

    def add(row: slice, head: slice, queries: list[slice]) -> None:
        of_rows = None if real is None else real[row].repeat_interleave(head.stop - head.start, 0)
        groups = slice(row.start * heads + head.start, (row.stop - 1) * heads + head.stop)
        for query in queries:
            _add_part(sums[groups], scores, (row, head, query), prefix, distances, of_rows)

    _deal(add, scores.shape, prefix, device)
    return sums.view(images, rows // images, heads, -1).sum(1)


class PendingHeads:
    """Sums of one call on a device, see `results.Pending`."""

    urgent = False

    def __init__(self, heads: HeadSums, sums: Tensor) -> None:
        self._heads, self.tensors = heads, {"sums": sums}

    def rest(self, arrays: Arrays) -> dict[str, Tensor]:
        return {}

    def keep(self) -> None: ...

    def count(self, arrays: Arrays) -> None:
        self._heads.update(arrays["sums"])


def _deal(
    add: Callable[..., None], shape: tuple[int, int, int, int], prefix: int, device: torch.device
) -> None:
    """Have all parts added; on the CPU by several threads, each of which computes scores and reads
    them on its own core. Between two steps that both divide their work, threads would have to wake
    each other eight times a layer.
    """
    if device.type != "cpu":
        for part in chunks(shape, prefix, CHUNK.get(device.type, LARGE_CHUNK)):
            add(*part)
        return
    with one_core_each() as threads:
        parts = chunks(shape, prefix, CHUNK["cpu"], at_least=PARTS)
        todo = iter(parts)

        def work() -> None:
            with torch.no_grad():  # which is a matter of each thread
                for part in todo:
                    add(*part)

        crew(min(threads, len(parts)) - 1).together(work)


def _add_part(
    sums: Tensor,
    scores: Scores,
    where: tuple[slice, slice, slice],
    prefix: int,
    distances: Tensor,
    real: Tensor | None,
) -> None:
    """Add to sums (G, 5) one chunk, whose scores are gone when the next one comes: it then takes
    their place in the cache. `real` (G, P) is False at padding.
    """
    row, head, query = where
    part, masked = scores.part(row, head, query, slice(0, scores.shape[3])), scores.masked
    patch_query = slice(query.start - prefix, query.stop - prefix)
    if real is not None:
        part, masked, prefix = _padding_apart(part, prefix, real, patch_query), True, 0
    if compiled_for(part):
        _add_compiled(sums, part, distances[patch_query], prefix)
    else:
        sums += row_statistics(part, distances[patch_query], prefix, masked)


def compiled_for(scores: Tensor) -> bool:
    """Is there a kernel for such scores?"""
    return scores.device.type == "cpu" and scores.dtype == torch.float32


def _add_compiled(sums: Tensor, scores: Tensor, distances: Tensor, prefix: int) -> None:
    """Add `row_statistics` by the kernel."""
    into, of_scores, of_pairs = (t.numpy() for t in (sums, scores.contiguous(), distances))
    attention_kernels.add_rows(of_scores, of_pairs, prefix, into)


def chunks(
    shape: tuple[int, int, int, int], prefix: int, limit: int, at_least: int = 1
) -> list[Part]:
    """Rows and heads, and the queries by which they are read, such that there are `limit` scores at
    a time at most, or a single query; prefix queries are left out. Where there are heads for it,
    `at_least` so many parts.
    """
    rows, heads, length, keys = shape
    limit = min(limit, max(length * keys, rows * heads * length * keys // at_least))
    queries = max(1, min(length, limit // keys))
    per_head = max(1, min(heads, limit // (queries * keys))) if queries == length else 1
    per_row = max(1, min(rows, limit // (heads * length * keys))) if per_head == heads else 1
    return [
        (
            slice(r, min(r + per_row, rows)),
            slice(h, min(h + per_head, heads)),
            [slice(q, min(q + queries, length)) for q in range(prefix, length, queries)],
        )
        for r in range(0, rows, per_row)
        for h in range(0, heads, per_head)
    ]


def _padding_apart(part: Tensor, prefix: int, real: Tensor, queries: slice) -> Tensor:
    """Scores (G, L, S) whose first keys are the patches, followed by the other tokens and the
    padding. Queries of padding see no patch.
    """
    patches = slice(prefix, prefix + real.shape[1])
    patch, before, after = part[:, :, patches], part[:, :, :prefix], part[:, :, patches.stop :]
    seen = patch.masked_fill(~(real[:, None] & real[:, queries, None]), -torch.inf)
    return torch.cat([seen, before, after, patch.masked_fill(real[:, None], -torch.inf)], 2)


def _real(
    geometry: Geometry, images: int, valid: NDArray[np.bool_] | None, device: torch.device
) -> Tensor | None:
    """(R, S) True at patches; None where all tokens are."""
    if geometry.outside is None and valid is None:
        return None
    real = np.ones((images, geometry.windows, geometry.distances.shape[1]), bool)
    if geometry.outside is not None:
        real &= ~geometry.outside
    if valid is not None:
        real &= valid.reshape(images, 1, -1)
    return to_device(real.reshape(-1, real.shape[2]), device)
