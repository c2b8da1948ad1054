"""Dealing out work among threads inside of compiled code (numba). In Python a turn would wait for
the interpreter, which another thread may hold.

    turns = np.zeros(2, np.int64)  # how often a turn was taken, how many are finished

Each thread works as long as `next_turn(turns)` is below the number of turns and says
`finish_turn(turns)` after each; who needs all of them asks whether they `are_finished`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from probe.stats.compile_kernels import kernel, part

# Looks at a counter, some tenths of a millisecond: to sleep and wake takes a thread a good part of
# that, and it is not long where the others have no core.
_PATIENCE = 200_000


@intrinsic
def next_turn(typing_context: Any, turns: Any) -> Any:
    """The number of a turn that no other thread gets."""
    return types.int64(turns), _raised(0, "monotonic")


@intrinsic
def finish_turn(typing_context: Any, turns: Any) -> Any:
    """What was written before is seen by those who then see the turn as finished."""
    return types.int64(turns), _raised(1, "release")


@part
def next_image(deal: Any, mine: Any) -> Any:
    """The place in the batch of this thread's next image; -1 when all are dealt out.

    deal: turns, order (B,), starts (G + 1,), groups (G,): the images of groups[g] are
    order[starts[g]:starts[g + 1]], and g is a turn.
    mine (2,): the turn of this thread and the place in `order` of its next image; -1 before.
    """
    turns, order, starts, groups = deal
    while mine[0] < 0 or mine[1] == starts[mine[0] + 1]:
        if mine[0] >= 0:
            finish_turn(turns)  # type: ignore[call-arg]
        turn = next_turn(turns)  # type: ignore[call-arg,var-annotated]
        if turn >= groups.shape[0]:
            return -1
        mine[0], mine[1] = turn, starts[turn]
    mine[1] += 1
    return order[mine[1] - 1]


@kernel
def are_finished(turns: Any, number: Any) -> Any:
    """Are `number` turns? Looks for as long as it pays."""
    looks = 0
    while looks < _PATIENCE and _finished(turns) < number:  # type: ignore[call-arg]
        looks += 1
    return looks < _PATIENCE


@intrinsic
def _finished(typing_context: Any, turns: Any) -> Any:
    """How many turns are finished."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, arguments, 1), "acquire", 8)

    return types.int64(turns), generate


def _raised(counter: int, ordering: str) -> Any:
    """Raises a counter by one and returns what it was, in one step."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments, counter)
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), ordering)

    return generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any, counter: int) -> Any:
    """The address of a counter in an array without gaps."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [ir.Constant(ir.IntType(64), counter)])
