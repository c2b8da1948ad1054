"""What a killed or starved command leaves: trials of every command that writes files.

    PYTHONPATH=.:tests python -m support.fault_trials [COMMAND ...]    # prints the tables

This process only imports; every job runs in a process that is forked off from it, so that none of
its threads is missing there.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PROBE_PROCESSES", "1")  # only this process writes files

from support import faults

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm1 = nn.Conv2d(3, 6, 8, stride=8), nn.LayerNorm(6)
        self.mix, self.norm2, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        x = x + self.mix(self.norm1(x * 3)).relu()
        return self.head(self.norm2(x).mean(1))


def make():
    from torchvision.transforms import CenterCrop, Compose, ToTensor

    return Net().eval(), Compose([CenterCrop(32), ToTensor()])
"""
CAPTURE = "--model net.py:make --num-images 8 --samples 32 --tail 8"
BEFORE = (
    f"capture {CAPTURE} --out run",
    "fit run --families linear",
    "export run --to run/alpha.safetensors",
    "plot run --kind extremes",
    "report run",
    "fit run --out out/copy --families linear",
    "plot run --kind extremes --out out --format png",
)
# Each works on the run `run`, or writes into `out`, where other files are.
COMMANDS = {
    "capture --overwrite": f"capture {CAPTURE} --seed 1 --out run --overwrite",
    "whole job --overwrite": f"{CAPTURE} --seed 1 --out run --overwrite --no-figures --no-report",
    "fit": "fit run",
    "fit --out": "fit run --out out/copy --overwrite",
    "export": "export run --to run/alpha.safetensors --scope layer",
    "plot": "plot run --kind extremes --layers norm1",
    "plot --out": "plot run --kind extremes --layers norm1 --out out",
    "report": "report run",  # of the fits that came after the old one
    "compare --out": "compare run run --out out",
    "convert": "convert run --to dyt --model net.py:make --out out/c.safetensors --overwrite",
    "fold": "fold --model bundled:resnet_cifar10 --num-images 2 --repeats 1 --overwrite "
    "--out out/f.safetensors",
}
OUTCOMES = ("old", "new", "neither")
RANDOM_KILLS = 20
REPEATED = 4  # after every so many kills the command is repeated, too
PREPARED = {"report": "fit run"}
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of what the command writes fits on the disk


class Trials:
    """A folder with a run and other files, and what one command makes of it."""

    def __init__(self, root: Path, kept: Path, name: str) -> None:
        self.root, self.kept, self.line = root, kept, COMMANDS[name]
        self.restore()
        if name in PREPARED:
            self.kept = kept.with_name(name)
            assert faults.run_forked(lambda: command(root, PREPARED[name])) == 0
            shutil.copytree(root, self.kept)
        self.before = contents(self.kept)
        import_what_is_used(root, self.line)
        self.restore()
        began = time.perf_counter()
        self.count = faults.operations(self.run, root)
        self.seconds = time.perf_counter() - began
        self.after = contents(root)

    def run(self) -> int:
        return command(self.root, self.line)

    def restore(self) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.kept, self.root, dirs_exist_ok=True)

    def outcome(self, repeat: bool) -> str:
        """What is there after a fault, once somebody opened it: the old files, the new ones, or
        anything else. repeat: the same command must then end as without a fault.
        """
        sound = faults.run_forked(self.opened) == 0
        now = contents(self.root)
        outcome = "new" if now == self.after else "old" if now == self.before else "neither"
        again = not repeat or (faults.run_forked(self.run) == 0 and self.is_as_without_fault())
        return outcome if sound and again else "neither"

    def is_as_without_fault(self) -> bool:
        """The new files, and nothing hidden beside them."""
        whole = faults.state(self.root).keys() == self.after.keys()
        return whole and contents(self.root) == self.after

    def opened(self) -> int:
        from probe.store import verify_run
        from probe.store.journal import settle

        settle(self.root / "out")
        settle(self.root)
        runs = [self.root / "run", self.root / "out" / "copy"]
        problems = [problem for run in runs for problem in verify_run(run)]
        # a new fit makes the figures older than itself
        return len([problem for problem in problems if ": older than " not in problem])

    def kills(self) -> Iterator[str]:
        """One at every operation on files."""
        for number in range(1, self.count + 1):
            self.restore()
            code = faults.run_forked(self.run, faults.killed_at(self.root, number))
            assert code == -signal.SIGKILL, (self.line, number, code)
            yield self.outcome(repeat=number % REPEATED == 0)

    def random_kills(self) -> Iterator[str]:
        for seconds in faults.random_times(self.seconds, RANDOM_KILLS, self.line):
            self.restore()
            faults.run_forked(self.run, seconds=seconds)
            yield self.outcome(repeat=True)

    def full_disks(self) -> Iterator[str]:
        """The folder is a small file system here, and some of what the command writes fits."""
        self.restore()
        assert faults.run_forked(self.run) == 0
        written = [name for name, sha in self.after.items() if self.before.get(name) != sha]
        size = sum((self.root / name).stat().st_size for name in written)
        for share in SHARES:
            self.restore()
            fill(self.root, int(size * share))
            code = faults.run_forked(self.run)
            (self.root / "ballast").unlink()
            outcome = self.outcome(repeat=True)
            yield outcome if (code, outcome) in ((0, "new"), (1, "old")) else "neither"


def contents(folder: Path) -> dict[str, str]:
    """Name -> checksum of every file that a user sees. A manifest holds the time of its capture;
    that it is the one of these files `verify` tells.
    """
    return {
        name: "" if name.endswith("manifest.json") else sha
        for name, sha in faults.state(folder).items()
        if not name.startswith(".") and "/." not in name
    }


def fill(root: Path, free: int) -> None:
    """Leaves so many bytes free."""
    with (root / "ballast").open("wb") as file:
        disk = os.statvfs(root)
        file.write(bytes(max(0, disk.f_bavail * disk.f_frsize - free - 4096)))


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system in memory of 24 MiB; None where this user cannot mount one."""
    with tempfile.TemporaryDirectory() as place:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "none", place],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            yield None
            return
        try:
            yield Path(place)
        finally:
            os.chdir("/")
            subprocess.run(["umount", place], check=True)


def make_kept(root: Path, kept: Path) -> None:
    (root / "net.py").write_text(NET)
    for line in BEFORE:
        import_what_is_used(root, line)
    shutil.copytree(root, kept)


def command(root: Path, line: str) -> int:
    from probe.cli.main import main

    os.chdir(root)
    return main(line.split())


def import_what_is_used(root: Path, line: str) -> None:
    """Imports what a command imports, so that no trial does so again."""
    listing = root / "modules"

    def run() -> int:
        code = command(root, line)
        listing.write_text("\n".join(sys.modules))
        return code

    assert faults.run_forked(run) == 0, line
    for name in listing.read_text().splitlines():
        with suppress(Exception):  # of a name that is made, not imported
            importlib.import_module(name)
    listing.unlink()


def tried(names: list[str], full: bool = True) -> dict[str, dict[str, Counter[str]]]:
    """Command -> way of trial -> how often each outcome."""
    results: dict[str, dict[str, Counter[str]]] = {}
    with small_disk() as disk, tempfile.TemporaryDirectory() as place:
        root = disk or Path(place) / "root"
        root.mkdir(exist_ok=True)
        kept = Path(place) / "kept"
        make_kept(root, kept)
        for name in names:
            trials = Trials(root, kept, name)
            ways: dict[str, Callable[[], Iterator[str]]] = {
                "every operation": trials.kills,
                "random times": trials.random_kills,
            }
            ways |= {"full disk": trials.full_disks} if disk and full else {}
            results[name] = {way: Counter(outcomes()) for way, outcomes in ways.items()}
            print(name, round(trials.seconds, 2), results[name], file=sys.stderr, flush=True)
    return results


def table(results: dict[str, dict[str, Counter[str]]]) -> str:
    """As the page shows it: trials, after which the old files were there, the new ones, neither."""
    ways = list(dict.fromkeys(way for of_command in results.values() for way in of_command))
    head = "| command | " + " | ".join(f"{way}: {', '.join(OUTCOMES)}" for way in ways) + " |"
    rows = [
        f"| {name} | "
        + " | ".join(", ".join(str(ended[way][each]) for each in OUTCOMES) for way in ways)
        + " |"
        for name, ended in results.items()
    ]
    counted = [way.total() for ended in results.values() for way in ended.values()]
    return "\n".join([head, "|---" * (len(ways) + 1) + "|", *rows, "", f"{sum(counted)} trials."])


if __name__ == "__main__":
    print(table(tried(sys.argv[1:] or list(COMMANDS))))
