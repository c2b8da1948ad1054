"""Frozen records that travel between the parts: no torch, no I/O."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

GROUPS = 16  # image groups of the jackknife
MIN_GROUPS = 8  # no interval under so many occupied ones
STRATA = ("uniform", "prefix", "tail")
FIGURE_FORMATS = ("png", "svg", "pdf")
TOKENS = ("patch", "prefix")  # index = the `tokens` code of profile cells


class Progress(Protocol):
    """What a job calls while it works: `done` of `total` units of a stage; None: not known yet."""

    def __call__(self, stage: str, done: int, total: int | None, message: str = "") -> None: ...


def silent(stage: str, done: int, total: int | None, message: str = "") -> None:
    """The progress of a job that nobody watches."""


def placed(report: Progress, where: str) -> Progress:
    """The progress of one of several jobs, which says which one it is."""

    def progress(stage: str, done: int, total: int | None, message: str = "") -> None:
        report(stage, done, total, ", ".join(part for part in (where, message) if part))

    return progress


class Status(StrEnum):
    """What is known of the map of a layer: the value stands in tables, `meaning` says it in words.

        Status("curved").shaped             # True: a curve is drawn, the row is printed bold
        row["status"] == Status.AFFINE      # a member equals the text that tables hold

    Tables, sentences, marks and colours ask these properties, so that a new status is one line
    here; a mark of its own in the figures, where it is to have one, is a second (plots/style.py).
    """

    meaning: str
    outcome: str  # see the properties

    def __new__(cls, value: str, meaning: str, outcome: str) -> Status:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.outcome = outcome
        return member

    CURVED = "curved", "S-shaped: a tanh is better than a line", "shaped"
    LINEAR = "linear", "shown to be straight: a tanh gains under 0.001 of R2 over a line", "fitted"
    AFFINE = "affine", "a line per channel by construction", "fitted"
    SUPERLINEAR = "superlinear", "bends, but not as a saturating curve does", "fitted"
    STEP = (
        "step",
        "bends more sharply than the search for alpha reaches, so alpha is a bound",
        "shaped",
    )
    MIXTURE = "mixture", "bends as a whole, as its channels are lines of different slope", "fitted"
    UNDETERMINED = (
        "undetermined",
        "not decided: too few images to tell a curve from a line",
        "fitted",
    )
    CONSTANT = "constant", "the input does not vary", "empty"
    TOO_FEW = "too_few", "too few elements to fit", "empty"
    NOT_FINITE = "not_finite", "infinities or NaN went through", "failed"
    NOT_CALLED = "not_called", "the model did not use it on these images", "empty"
    CAPTURED = "captured", "seen, not fitted yet", "waiting"

    @property
    def shaped(self) -> bool:
        """Is the map an S?"""
        return self.outcome == "shaped"

    @property
    def fitted(self) -> bool:
        """Is there a curve or a line?"""
        return self.outcome in ("shaped", "fitted")

    @property
    def failed(self) -> bool:
        """Did numbers break on their way through the model?"""
        return self.outcome == "failed"

    @property
    def empty(self) -> bool:
        """Is there nothing to fit, without anything being wrong?"""
        return self.outcome == "empty"

    @property
    def words(self) -> str:
        """For people: `too few`."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Layer:
    """One normalization layer: a norm module, or one of its calls where a forward pass calls it
    several times.
    """

    name: str  # module path; `path#1` .. `path#k` where one forward pass calls the module k times
    module: str  # module path
    depth: int  # execution order, from 0
    kind: (
        str  # layer_norm, batch_norm, rms_norm, group_norm, instance_norm, layer_norm_2d, dyt, ...
    )
    channels: int
    eps: float | None
    # affine per channel by construction (BatchNorm with running statistics, LearnableScaler, ...)
    affine: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What a capture keeps, and how the images are cut into batches. Engines deal the batches out,
    they never cut them.
    """

    images: int | None  # number of images; None for an iterable of unknown length
    samples: int = 512  # N uniform rows per layer
    tail: int = 1000  # M extreme elements per layer
    seed: int = 0
    batch_size: int = 8

    @property
    def prefix(self) -> int:
        """Extra rows of class, distillation and register tokens."""
        return self.samples // 8

    @property
    def tail_per_sign(self) -> int:
        return self.tail // 2

    @property
    def tail_per_channel(self) -> int:
        """Cap per channel and sign, so that one massive channel does not fill the tail."""
        return max(1, self.tail // 40)


@dataclass(frozen=True)
class Fit:
    """A family fitted to one map: `normalized ~ gamma * f(alpha * x + shift) + beta`.

    alpha is None where the search has no optimum between its bounds; beta and slope are then those
    of the line, else slope is that of the curve at its centre. The curve is established only where
    `status` is `curved`. Intervals are 95 % delete-one-group jackknife intervals, None under 8
    occupied groups.
    """

    family: str
    scope: str  # layer, channel
    weighting: str  # population, range
    status: str  # a Status
    tokens: str = "all"  # all, patch, prefix
    alpha: float | None = None
    shift: float | None = None  # only families with a shift
    gamma: float | None = None
    beta: float | None = None
    slope: float | None = None
    r2: float | None = None
    r2_ceiling: float | None = None
    linear_r2: float | None = None
    gain: float | None = None  # r2 - linear_r2
    gain_low: float | None = None
    gain_high: float | None = None
    rmse: float | None = None
    alpha_low: float | None = None
    alpha_high: float | None = None
    best: bool = False  # the family of highest R2
    tied: bool = False  # not told from it (paired jackknife on log(ceiling - R2))
    groups: int = 0  # occupied jackknife groups
    count: int = 0  # elements

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


MAIN_FIT = {"scope": "layer", "weighting": "population", "tokens": "all"}


def main_fits(fits: Any, **others: str) -> Any:
    """The fits that speak for their layers: scope `layer`, every element counted once, all tokens.

    fits: a list of Fit (a list is returned) or the table of fits (its rows are returned).
    others: values of further columns (family="tanh"), or another one in place of the main one
    (scope="channel").
    """
    wanted = MAIN_FIT | others
    if not hasattr(fits, "columns"):
        return [fit for fit in fits if all(getattr(fit, k) == v for k, v in wanted.items())]
    keep: Any = True
    for column, value in wanted.items():
        keep = keep & (fits[column].to_numpy() == value)
    return fits[keep]


def finite_or_none(value: float | None) -> float | None:
    """JSON has no NaN: null instead."""
    return value if value is not None and math.isfinite(value) else None
