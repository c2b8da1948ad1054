"""The fields of a recipe as options of the command line: how a text becomes the value of a field.
Derived from the dataclass, so that a new field has its flag.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from probe.training.choice import flag, settable
from probe.training.recipe import Recipe


@dataclass(frozen=True)
class Field:
    """name: of the field. kind: the type of a value, without None. help: one line for people.
    parse: from a text; raises ValueError with what is accepted.
    """

    name: str
    kind: Any
    help: str
    parse: Callable[[str], Any]

    @property
    def flag(self) -> str:
        return flag(self.name)

    @property
    def is_switch(self) -> bool:
        return self.kind is bool

    @property
    def metavar(self) -> str:
        if self.kind in (int, float):
            return "N" if self.kind is int else "X"
        return "NAME=VALUE,..." if self.is_mapping else "X,Y" if self.is_tuple else "TEXT"

    @property
    def is_mapping(self) -> bool:
        return typing.get_origin(self.kind) is Mapping

    @property
    def is_tuple(self) -> bool:
        return typing.get_origin(self.kind) is tuple


def recipe_fields() -> list[Field]:
    """Those that a user may set, in their order."""
    hints = typing.get_type_hints(Recipe, include_extras=True)
    return [_field(name, *typing.get_args(hints[name])) for name in settable()]


def _field(name: str, declared: Any, help: str) -> Field:
    kind = _without_none(declared)
    if typing.get_origin(kind) is Mapping:
        return Field(name, kind, help, pairs)
    if typing.get_origin(kind) is tuple:
        return Field(name, kind, help, _numbers(typing.get_args(kind)))
    return Field(name, kind, help, _READ.get(kind, str))


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(each for each in typing.get_args(kind) if each is not type(None))
    return kind


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


_READ: dict[Any, Callable[[str], Any]] = {int: _whole, float: _number, str: str}


def _numbers(kinds: tuple[Any, ...]) -> Callable[[str], tuple[float, ...]]:
    """A parser of numbers with commas between; of so many where the type says it."""
    length = None if Ellipsis in kinds else len(kinds)
    accepted = f"{length or 'some'} numbers with commas between, e.g. 0.9,0.95"

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(accepted) from None
        if length is not None and len(values) != length:
            raise ValueError(accepted)
        return values

    return parse


def pairs(text: str) -> dict[str, Any]:
    """`num_heads=6,grid=14x14,class_token=false`: values as JSON where they are some, RxC as two
    whole numbers, else text.
    """
    found = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError("names and values as num_heads=6,grid=14x14, with commas between")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    sides = text.split("x")
    if len(sides) == 2 and all(side.isdecimal() for side in sides):
        return tuple(map(int, sides))
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
