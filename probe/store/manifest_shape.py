"""What the fields of a manifest must be, so that no reader meets another kind of value.

A field may be missing or null unless it is needed; fields that are not named here are not looked
at.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from probe.records import GROUPS, Status
from probe.store.files import is_inside

Check = Callable[[Any, str], Iterator[str]]  # value, its path -> problems

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 40
_DIGEST = frozenset("0123456789abcdef")


def wrong_shape(manifest: Mapping[str, Any]) -> str:
    """The first field that is not what it must be, as `layers[3].depth is 'x', not a whole number`;
    empty where all are.
    """
    return next(_MANIFEST(manifest, ""), "")


def shortened(value: Any) -> str:
    """A value of a stranger's file, short enough for one line and without control characters."""
    return _repr.repr(value).encode("ascii", "backslashreplace").decode()


def _is(accepted: Callable[[Any], bool], words: str) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not accepted(value):
            yield f"{path} is {shortened(value)}, not {words}"

    return check


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


TEXT = _is(lambda value: isinstance(value, str), "a text")
FLAG = _is(lambda value: isinstance(value, bool), "true or false")
COUNT = _is(_is_count, "a whole number from 0")
NUMBER = _is(_is_number, "a number")
GROUP = _is(lambda value: _is_count(value) and value < GROUPS, f"a number from 0 to {GROUPS - 1}")
DIGEST = _is(
    lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= _DIGEST,
    "a checksum of 64 hexadecimal digits",
)


def _fields(needed: Mapping[str, Check], others: Mapping[str, Check] | None = None) -> Check:
    """A mapping with these fields; `others` may be missing or null."""
    optional = others or {}

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path or 'it'} is {shortened(value)}, not a mapping"
            return
        for name, field in {**needed, **optional}.items():
            if name in needed and name not in value:
                yield f"{_at(path, name)} is missing"
            elif name in needed or value.get(name) is not None:
                yield from field(value[name], _at(path, name))

    return check


def _each(item: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} is {shortened(value)}, not a list"
            return
        for index, member in enumerate(value):
            yield from item(member, f"{path}[{index}]")

    return check


def _mapping_of(item: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} is {shortened(value)}, not a mapping"
            return
        for name, member in value.items():
            yield from item(member, f"{path}[{shortened(name)}]")

    return check


def _either(first: Check, second: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        problems = list(first(value, path))
        if problems and any(second(value, path)):
            yield problems[0]

    return check


def _names_inside(value: Any, path: str) -> Iterator[str]:
    for name in value if isinstance(value, dict) else ():
        if not is_inside(name):
            yield f"{path} names {shortened(name)}, which is no path inside of the run"


def _both(first: Check, second: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        yield from first(value, path)
        yield from second(value, path)

    return check


def _each_once(field: str) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        seen = set()
        for record in value if isinstance(value, list) else ():
            if isinstance(record, dict) and isinstance(record.get(field), (str, int)):
                if record[field] in seen:
                    yield f"{path} has {field} {shortened(record[field])} twice"
                seen.add(record[field])

    return check


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_STATUS = _is(
    lambda value: value in [member.value for member in Status],
    f"one of {', '.join(member.value for member in Status)}",
)
_JOB = _is(lambda value: value == "attention", "'attention'")
_COUNTS = dict.fromkeys(("positions", "prefix_tokens", "not_finite", "count"), COUNT)
_SCALES = ("eps", "inverse_sigma_mean", "sigma_mean", "sigma_cv", "affine_error")
_LAYER = _fields(
    {"layer": TEXT, "depth": COUNT},
    {
        **_COUNTS,
        **dict.fromkeys(_SCALES, NUMBER),
        **dict.fromkeys(("kind", "module"), TEXT),
        "channels": COUNT,
        "affine": FLAG,
        "status": _STATUS,
    },
)
_MODEL = _fields(
    {},
    {
        **dict.fromkeys(("name", "origin", "weights", "source", "fingerprint"), TEXT),
        **dict.fromkeys(("dtype", "device", "transform", "autocast"), TEXT),
        **dict.fromkeys(("prefix_tokens", "parameters"), COUNT),
        "input_size": _each(COUNT),
        "training": FLAG,
    },
)
_DATA = _fields(
    {},
    {
        **dict.fromkeys(("kind", "location", "identity"), TEXT),
        "images": _either(_each(TEXT), COUNT),
        "groups": _each(GROUP),
        "skipped": _each(_fields({"image": TEXT, "reason": TEXT})),
    },
)
_PLAN = _fields(
    {},
    {
        **dict.fromkeys(("images", "samples", "tail", "batch_size"), COUNT),
        "seed": _is(lambda value: type(value) is int and abs(value) < 2**64, "a whole number"),
        "layers": _either(TEXT, _each(TEXT)),
        "engine": TEXT,
    },
)
_FILE = _fields({"bytes": COUNT, "sha256": DIGEST}, {"rows": COUNT, "from": _mapping_of(DIGEST)})
_ATTENTION = _fields(
    {},
    {
        "status": TEXT,
        **dict.fromkeys(("layers", "heads"), COUNT),
        "unreadable": _mapping_of(TEXT),
        "given": _fields({}),
    },
)
_MANIFEST = _fields(
    {
        "files": _both(_mapping_of(_FILE), _names_inside),
    },
    {
        "layers": _both(_each(_LAYER), _both(_each_once("layer"), _each_once("depth"))),
        "model": _MODEL,
        "data": _DATA,
        "plan": _PLAN,
        "attention": _ATTENTION,
        "not_captured": _mapping_of(COUNT),
        "images_seen": COUNT,
        "versions": _mapping_of(_either(TEXT, COUNT)),
        "times": _fields({}, {"seconds": NUMBER, "images_per_second": NUMBER, "started": TEXT}),
        "job": _JOB,
    },
)
