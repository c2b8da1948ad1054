"""Which recipe a training follows: a named one or the plain one, with what the user says
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from probe.errors import UsageError, unknown
from probe.training.recipe import Recipe
from probe.training.recipes import RECIPES

FIXED = ("name", "source", "dataset", "flaws", "as_published")  # what a recipe says of itself
PLAIN = Recipe(
    name="plain",
    source="no source: timm's usual settings for a small training",
    dataset="any",
    epochs=30,
    smoothing=0.1,
    warmup_epochs=1,
    step_per="update",
)


@dataclass(frozen=True)
class Choice:
    """The recipe as it is used, and what differs from the named one."""

    recipe: Recipe
    overridden: dict[str, Any]  # field -> value that the user gave
    as_published: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For training.json."""
        used = {name: _plain(value) for name, value in asdict(self.recipe).items()}
        return {
            "recipe": used,
            "overridden": sorted(self.overridden),
            "as_published": self.as_published,
        }


def settable() -> list[str]:
    """The fields of a recipe that a user may set, in their order."""
    return [field.name for field in fields(Recipe) if field.name not in FIXED]


def choose(
    recipe: str | Recipe | None, given: Mapping[str, Any], as_published: bool = False
) -> Choice:
    """The recipe by its name (None: the plain one) with the fields that are `given`; None leaves
    a field as the recipe has it.

    as_published: with the faults of the source. Raises UsageError for an unknown name or field,
    and for a recipe without a published form.
    """
    base = named_recipe(recipe)
    overridden = {name: value for name, value in given.items() if value is not None}
    for name in overridden:
        if name not in settable():
            raise unknown("field of a recipe", name, settable())
    if as_published and not base.as_published:
        raise UsageError(f"recipe {base.name!r} has no published form that differs from it")
    published = dict(base.as_published) if as_published else {}
    if overridden.get("norm", base.norm) != base.norm:
        published["norm_options"] = {}  # the recipe's are those of its own norm
    used = replace(base, **(published | overridden))
    if base is PLAIN and "model" not in overridden:
        raise UsageError(
            f"no model to train: give --model M, or --recipe R of {', '.join(RECIPES) or 'none'}"
        )
    _check(used)
    return Choice(used, overridden, as_published)


def named_recipe(recipe: str | Recipe | None) -> Recipe:
    """The recipe of that name; None: the plain one. Raises UsageError for an unknown name."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe in (None, PLAIN.name):
        return PLAIN
    if recipe not in RECIPES:
        raise unknown("recipe", str(recipe), [PLAIN.name, *RECIPES])
    return RECIPES[str(recipe)]


AT_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "lr": 0,
    "weight_decay": 0,
    "repeats": 0,
    "padding": 0,
    "warmup_epochs": 0,
    "cooldown_epochs": 0,
    "mixup": 0,
    "cutmix": 0,
}
SHARES = ("hflip", "reprob", "smoothing", "ema", "drop_path")
WORDS = {
    "crop": ("resized", "padded"),
    "precision": ("no", "bf16", "fp16"),
    "step_per": ("epoch", "update"),
}


def _check(recipe: Recipe) -> None:
    """Raises UsageError for a value that no training can have."""
    for name, least in AT_LEAST.items():
        value = getattr(recipe, name)
        if value < least:
            raise UsageError(f"{flag(name)} {value}: must be at least {least}")
    for name in SHARES:
        share = getattr(recipe, name)
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"{flag(name)} {share}: must be from 0 to 1")
    for name, words in WORDS.items():
        if getattr(recipe, name) not in words:
            raise unknown(flag(name), getattr(recipe, name), words)


def flag(field: str) -> str:
    """The option of a field: `--batch-size`."""
    return f"--{field.replace('_', '-')}"


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
