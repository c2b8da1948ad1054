"""Opening and verifying runs of random content: the answer or one line, never another error.

Trials are drawn by fixed seeds, so that a failure comes again: its number is in the message.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from probe.errors import ProbeError
from probe.store import open_run, verify_run
from probe.store.files import entry_of
from support.manifests import change_manifest

ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e400,
    "",
    "\0",
    "../..",
    "/dev/zero",
    "\x1b[2J",
    [],
    {},
    [[]],
)
READERS: tuple[Callable[[Any], Any], ...] = (
    lambda run: run.layers,
    lambda run: run.moments(),
    lambda run: run.profile(),
    lambda run: run.rows(),
    lambda run: run.samples(),
    lambda run: run.fits(),
    lambda run: run.alphas(),
    repr,
    lambda run: run._repr_html_(),
)


def answer_or_line(job: Callable[[], Any], trial: object) -> None:
    try:
        job()
    except ProbeError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            pytest.fail(f"trial {trial}: {error}")
    except Exception as error:
        pytest.fail(f"trial {trial}: {type(error).__name__}: {error}")


def read_all(path: Path, trial: object) -> None:
    answer_or_line(lambda: verify_run(path), trial)
    for reader in READERS:
        answer_or_line(lambda reader=reader: reader(open_run(path)), trial)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out or doubled."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(changed) or 1)
        kind = chance.randrange(3)
        if kind == 0 and changed:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            del changed[place : place + chance.randint(1, 64)]
        else:
            changed[place:place] = changed[place : place + chance.randint(1, 64)]
    return bytes(changed)


def with_odd_value(record: Any, chance: random.Random) -> None:
    """One value of a nested record becomes another kind of thing, or goes."""
    while isinstance(record, dict | list) and record:
        keys = list(record) if isinstance(record, dict) else range(len(record))
        key = chance.choice(keys)
        if not isinstance(record[key], dict | list) or chance.random() < 0.3:
            if chance.random() < 0.2:
                del record[key]
            else:
                record[key] = chance.choice(ODD)
            return
        record = record[key]


@pytest.fixture
def fitted(run_path: Path, alphas: pd.DataFrame) -> Path:
    names = list(open_run(run_path).layers["layer"])
    open_run(run_path).save_fits({}, alphas.assign(layer=names))
    return run_path


@pytest.mark.parametrize("seed", range(8))
def test_a_manifest_of_random_values_is_read_or_refused(fitted: Path, seed: int) -> None:
    chance = random.Random(seed)
    original = (fitted / "manifest.json").read_bytes()
    for trial in range(12):
        change_manifest(fitted, lambda manifest: with_odd_value(manifest, chance))
        read_all(fitted, (seed, trial))
        if trial % 3 == 2:
            (fitted / "manifest.json").write_bytes(original)


@pytest.mark.parametrize("seed", range(4))
def test_a_manifest_of_random_bytes_is_refused(fitted: Path, seed: int) -> None:
    chance = random.Random(seed)
    original = (fitted / "manifest.json").read_bytes()
    for trial in range(50):
        data = mutated(original, chance)
        (fitted / "manifest.json").write_bytes(data)
        answer_or_line(lambda: open_run(fitted), (seed, trial))


@pytest.mark.parametrize("seed", range(6))
def test_a_table_of_random_bytes_whose_checksum_is_right_is_read_or_refused(
    fitted: Path, seed: int
) -> None:
    """A stranger may have made the list as well."""
    chance = random.Random(seed)
    names = list(json.loads((fitted / "manifest.json").read_bytes())["files"])
    for trial in range(8):
        name = chance.choice(names)
        kept = (fitted / name).read_bytes()
        put_listed(fitted, name, mutated(kept, chance))
        read_all(fitted, (seed, trial, name))
        put_listed(fitted, name, kept)


def put_listed(run: Path, name: str, data: bytes) -> None:
    (run / name).write_bytes(data)
    change_manifest(run, lambda manifest: manifest["files"][name].update(entry_of(data)))


def test_the_trials_begin_with_a_sound_run(fitted: Path, tmp_path: Path) -> None:
    assert verify_run(shutil.copytree(fitted, tmp_path / "copy")) == []
