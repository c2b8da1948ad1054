"""The process of a job is killed: its workers end with it, and the same command goes on to the same
bytes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import probe
from probe.cli.main import main
from probe.engines import ENGINES
from probe.store import open_run, verify_run
from support.interrupted import contents, write_images
from support.pools import here

NET = """
import time
from support.captures import Everything
from support.interrupted import tokens

class Slow(Everything):
    def forward(self, x):
        time.sleep({seconds})
        return super().forward(x)

class AsTokens:
    def __call__(self, image):
        return tokens(image)

    def __repr__(self):
        return "tokens"  # which the manifest holds

def make():
    return Slow(), AsTokens()
"""
# the command line, which writes its state after every share
COMMAND = """
import sys
from probe.cli.main import main
from probe.store import checkpoint
checkpoint.EVERY, checkpoint.SHARE = 0.0, 1e9
sys.exit(main(sys.argv[1:]))
"""
# in which all notice that nobody asks any more; Ray's workers at once, its agents within a minute
SECONDS = {"processes": 10.0, "ray": 120.0}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]


@pytest.fixture
def command(tmp_path):
    """The words of a capture to a folder by an engine."""
    images = write_images(tmp_path / "images")
    net = tmp_path / "net.py"
    net.write_text(NET.format(seconds=0.3))

    def words(out: str, engine: str) -> list[str]:
        data = f"--model {net}:make --data {images} --out {tmp_path / out} --batch-size 3"
        kept = "--num-images all --samples 40 --tail 80 --device cpu"
        return f"capture {data} {kept} --engine {engine} --workers 2".split()

    return words


def started(words: list[str]) -> subprocess.Popen[str]:
    tests, package = Path(__file__).parents[1], Path(probe.__file__).parents[1]
    path = os.pathsep.join(map(str, (package, tests)))
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def parents() -> dict[int, int]:
    """Process -> its parent, of all that run; what waits for its parent to notice does not."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def below(process: int) -> set[int]:
    """All that it started, and what these started."""
    of, known = parents(), {process}
    while more := {child for child, parent in of.items() if parent in known} - known:
        known |= more
    return known - {process}


def killed_midway(words: list[str], state: Path) -> set[int]:
    """Kills the process of the job once it has kept something. Returns its workers."""
    driver = started(words)
    try:
        while not state.exists():
            assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
            time.sleep(0.01)
        workers = below(driver.pid)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        if driver.stderr:
            driver.stderr.close()
    return workers


@pytest.mark.parametrize("engine", SECONDS)
def test_workers_end_with_their_job_which_goes_on_to_the_same_bytes(
    engine, command, tmp_path, monkeypatch
):
    if engine == "ray":
        pytest.importorskip("ray")
    workers = killed_midway(command("run", engine), tmp_path / ".run.checkpoint" / "state.npz")
    assert len(workers) >= 2
    until = time.monotonic() + SECONDS[engine]
    while left := workers & parents().keys():
        assert time.monotonic() < until, f"{len(left)} of {len(workers)} processes are left"
        time.sleep(0.1)
    assert not (tmp_path / "run").exists()

    again = started(command("run", engine))
    _, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    done = re.search(r"an interrupted capture is here, (\d+) of 26 images are done, and goes", said)
    assert done is not None, said
    assert 0 < int(done[1]) < 22

    monkeypatch.setitem(ENGINES, engine, here())
    assert main(command("whole", engine)) == 0
    run = open_run(tmp_path / "run")
    files, expected = contents(run), contents(open_run(tmp_path / "whole"))
    assert [name for name in expected if files[name] != expected[name]] == []
    assert files.keys() == expected.keys()
    assert verify_run(run) == []
