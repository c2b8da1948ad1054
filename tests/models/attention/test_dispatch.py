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
    handler = mode.__torch_dispatch__
    assert not hasattr(handler, "__wrapped__")  # torch wraps a handler in the mode's own class
