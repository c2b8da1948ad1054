"""docs/models_and_data.md names every origin of models and every form of a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

from probe.models.loading.load import split_name
from probe.models.loading.origins import ORIGINS
from probe.models.loading.weights import PICKLES

PAGE = (Path(__file__).parents[1] / "docs" / "models_and_data.md").read_text(encoding="utf-8")


def test_every_origin_of_models_stands_in_a_command_of_the_page() -> None:
    names = re.findall(r"--model (\S+)", PAGE)
    assert {split_name(name)[0] for name in names} == set(ORIGINS)


def test_the_suffixes_of_checkpoints_are_those_that_are_read() -> None:
    (told,) = re.findall(r"a pickle \((.*?)\)", PAGE)
    assert told == ", ".join(f"`{suffix}`" for suffix in PICKLES)
