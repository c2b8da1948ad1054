"""Every operation below the level of functions is seen, and torch's compiler is not imported for
it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from probe.models.attention.dispatch import Operations
from probe.models.attention.functions import _Operators
from probe.models.attention.tracing.tracer import Tracer


class Names(Operations):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def operation(self, func: Any, args: tuple, kwargs: dict) -> Any:
        self.seen.append(func._schema.name)
        return func(*args, **kwargs)


def test_each_operation_is_seen_and_gives_its_own_result() -> None:
    with Names() as names:
        result = torch.add(torch.ones(2), torch.ones(2), alpha=3).sum()
    assert result == 8
    assert names.seen == ["aten::ones", "aten::ones", "aten::add", "aten::sum"]


@pytest.mark.parametrize("mode", [Names, Tracer, _Operators])
def test_no_operation_goes_through_the_compiler(mode: type[TorchDispatchMode]) -> None:
    owner = next(each for each in mode.__mro__ if "__torch_dispatch__" in vars(each))
    assert not issubclass(owner, TorchDispatchMode)  # torch wraps a handler in a mode's own class


@pytest.mark.slow
def test_a_compiled_part_of_the_model_does_not_get_the_handler_compiled_with_it() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")
    counters.clear()
    with Names() as names:
        for size in range(2, 6):
            compiled(torch.ones(size))
    assert "aten::sin" in names.seen
    assert counters["frames"]["total"] <= 1
    torch.compiler.reset()
