"""The page about all recipes, in Markdown, from the recipes and the docstrings of their files."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from probe.training.recipe import Recipe
from probe.training.recipes import FILES

INTRO = """# Recipes

Made by `python -m probe.training.recipes > docs/recipes.md`.

```sh
probe-norms train --recipe dyt-vit --data imagenet/ --out trainings/dyt
probe-norms train --recipe vit-cifar --norm dtn --data cifar10/ --epochs 100 --out trainings/dtn
probe-norms train --recipe dtn-vit --as-published --data imagenet/ --out trainings/published
```

A recipe is one training said in full: network, norm, augmentation, losses, optimizer, schedule.
Every field is a flag of the command (`--lr`, `--batch-size`, ...) and an argument of
`probe.train`; what is not said here is the plain default. Where the source does something else than
it says, the recipe does what the source says, and `--as-published` does what it did. Learning rates
with a base batch are scaled to the batch: `lr * batch_size / lr_base_batch`. Epochs are all epochs:
warm-up and cooldown are among them. No accuracy of a source was measured again here.
"""
SAID = ("name", "source", "dataset", "flaws", "as_published")  # in words, above the table


def page() -> str:
    """docs/recipes.md."""
    return "\n".join([INTRO, *_table(), "", *(line for file in FILES for line in _section(file))])


def _table() -> Iterator[str]:
    yield "| recipe | network | norm | data | epochs |"
    yield "| --- | --- | --- | --- | --- |"
    for recipe in (recipe for recipes in FILES.values() for recipe in recipes):
        cells = (f"`{recipe.name}`", f"`{recipe.model}`", recipe.norm or "its own", recipe.dataset)
        yield f"| {' | '.join([*cells, str(recipe.epochs)])} |"


def _section(file: Any) -> Iterator[str]:
    recipes = FILES[file]
    yield f"## {', '.join(recipe.name for recipe in recipes)}"
    yield ""
    yield inspect.cleandoc(file.__doc__)
    for recipe in recipes:
        yield from _fields(recipe)
    yield ""


def _fields(recipe: Recipe) -> Iterator[str]:
    published = recipe.as_published
    yield ""
    yield f"### {recipe.name}"
    yield ""
    if recipe.flaws:
        yield "Known of the source:"
        yield ""
        yield from (f"- {flaw}" for flaw in recipe.flaws)
        yield ""
    yield f"| field | value |{' as published |' if published else ''}"
    yield f"| --- | --- |{' --- |' if published else ''}"
    for name in changed_fields(recipe):
        value = _said(getattr(recipe, name))
        cells = [f"`{name}`", value]
        if published:
            cells.append(_said(published[name]) if name in published else "")
        yield f"| {' | '.join(cells)} |"


def changed_fields(recipe: Recipe) -> list[str]:
    """Fields in which the recipe, or its published form, differs from the defaults."""
    return [
        field.name
        for field in fields(Recipe)
        if field.name not in SAID
        and (getattr(recipe, field.name) != _default(field) or field.name in recipe.as_published)
    ]


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _said(value: Any) -> str:
    """As a flag takes it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_said(each)}" for name, each in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(_said, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("*", r"\*")
