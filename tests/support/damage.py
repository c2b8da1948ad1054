"""Damage as disks, transfers and people do it to the files of a run."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

Damage = Callable[[Path, random.Random], None]


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut_off_a_part(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(1, path.stat().st_size)])


def cut_off_the_last_byte(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def zero_a_block(path: Path, chance: random.Random) -> None:
    """512 bytes, as a lost sector; the first bytes of it were no zeros."""
    data = bytearray(path.read_bytes())
    start = chance.randrange(max(1, len(data) - 512))
    while not any(data[start : start + 512]):
        start = chance.randrange(max(1, len(data) - 512))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def append(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def swap_from(other: Path, run: Path) -> Damage:
    """The file of the same name of another run."""

    def swap(path: Path, chance: random.Random) -> None:
        shutil.copyfile(other / path.relative_to(run), path)

    return swap


class Trial(NamedTuple):
    """One damage of one file of a run."""

    kind: str  # of file
    damage: str
    name: str
    number: int  # of the repetition

    def seed(self) -> str:
        return f"{self.name} {self.damage} {self.number}"


REPEATED = 4  # times that a random damage is done to each file
RANDOM = {"bit flipped": flip_a_bit, "cut off": cut_off_a_part, "sector zeroed": zero_a_block}
ONCE = {
    "last byte lost": cut_off_the_last_byte,
    "emptied": empty,
    "line appended": append,
    "deleted": delete,
}
SWAPPED = "of another run"


def trials(files: dict[str, str]) -> Iterator[Trial]:
    """Every damage of every file. files: name -> its kind."""
    for name, kind in files.items():
        for damage in RANDOM:
            yield from (Trial(kind, damage, name, number) for number in range(REPEATED))
        for damage in (*ONCE, SWAPPED):
            yield Trial(kind, damage, name, 0)


def do(trial: Trial, run: Path, other: Path) -> None:
    """The damage, to the file in `run`; `other`: another run with the same names of files."""
    damages = {**RANDOM, **ONCE, SWAPPED: swap_from(other, run)}
    damages[trial.damage](run / trial.name, random.Random(trial.seed()))
