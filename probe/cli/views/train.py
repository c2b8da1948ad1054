"""What a training tells people: plan and epochs on stderr while it runs, its table at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from probe.cli.progress import progress_bar
from probe.cli.terminal import note, print_json, print_lines, print_table
from probe.cli.views.grid import Column, Row
from probe.errors import UsageError
from probe.formatting import number, records, whole
from probe.training.choice import choose
from probe.training.recipe import Recipe
from probe.training.recipes import RECIPES

SHOWN = 12  # epochs of a table


def list_all(as_json: bool) -> None:
    """Every recipe: name, what it trains, its source and known flaws."""
    if as_json:
        print_json({"recipes": [choose(each, {}).as_dict()["recipe"] for each in RECIPES]})
        return
    for name, recipe in RECIPES.items():
        print_lines([name, *(f"  {line}" for line in said_of(recipe)), ""])


def said_of(recipe: Recipe) -> list[str]:
    lines = [
        f"{recipe.model}, norm {recipe.norm or 'its own'}, on {recipe.dataset}",
        f"{recipe.epochs} epochs, batches of {recipe.batch_size}, {recipe.opt}, learning rate "
        f"{recipe.lr:g}, {recipe.sched}, weight decay {recipe.weight_decay:g}",
        f"source: {recipe.source}",
    ]
    lines += [f"known of the source: {flaw}" for flaw in recipe.flaws]
    if recipe.as_published:
        changes = ", ".join(f"{key}={value}" for key, value in recipe.as_published.items())
        lines.append(f"--as-published: {changes}")
    return lines


def default_out(recipe: Recipe) -> str:
    """`trainings/MODEL-NORM`."""
    name = f"{recipe.model}-{recipe.norm or 'own'}"
    return f"trainings/{re.sub(r'[^A-Za-z0-9._-]+', '_', name).lstrip('.')}"


def run_training(fields: Mapping[str, Any], *, quiet: bool, as_json: bool, **options: Any) -> None:
    """The command behind its options."""
    if options["data"] is None:
        raise UsageError("--data D is missing: give a folder with train/ and val/; see --help")
    choice = choose(options["recipe"], fields, options["as_published"])
    options["out"] = options["out"] or default_out(choice.recipe)
    plan = options.pop("plan")
    first = not several_processes() or os.environ.get("RANK") == "0"  # the one that speaks
    quiet = quiet or not first
    heard = plan or not (quiet or as_json)
    with progress_bar(quiet or plan, message=choice.recipe.model) as progress:
        from probe.training.train import planned, train

        if plan:
            print_lines(planned(**_asked(options), **fields))
            return
        training = train(
            **_asked(options),
            **fields,
            progress=progress,
            say=(lambda line: note(line)) if heard else (lambda line: None),
        )
    if first:
        show(training, as_json)


def several_processes() -> bool:
    """Is this one of several processes of torchrun or `accelerate launch`?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _asked(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def columns() -> list[Column]:
    return [
        Column("epoch", lambda row: str(row["epoch"])),
        Column("learning rate", lambda row: number(row["learning_rate"]), rank=2),
        Column("loss", lambda row: number(row["train_loss"], 4)),
        Column("val. loss", lambda row: number(row["val_loss"], 4)),
        Column("top-1 %", lambda row: number(row["top1"], 4)),
        Column("top-5 %", lambda row: number(row["top5"], 4), rank=1),
        Column("seconds", lambda row: number(row["seconds"]), rank=3),
        Column("images/s", lambda row: whole(row["images_per_second"]), rank=3),
    ]


def show(training: Any, as_json: bool) -> None:
    rows: Sequence[Row] = records(training.epochs)
    if as_json:
        print_json({"path": str(training.path), **training.record, "epochs": rows})
        return
    lines = [f"trained: {training.path}"]
    if best := max((row for row in rows), key=lambda row: row["top1"], default=None):
        lines.append(f"best top-1: {best['top1']:.2f} % after epoch {best['epoch']}")
    lines.append(f"weights: {training.weights}; probe-norms --model {training.weights}")
    print_table(columns(), rows[-SHOWN:], lines)
