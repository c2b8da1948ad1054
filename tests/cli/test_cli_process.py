"""The program as its own process: what it imports, its exit codes, and readers of stdout that leave
or have no room.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import probe

ROOT = Path(probe.__file__).parents[1]
TESTS = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "pandas",
    "numpy",
    "scipy",
    "matplotlib",
    "pyarrow",
    "rich",
)

# stands in for the jobs: the command line alone, with a run of many layers
FAKE = """
import sys
from types import ModuleType
from support.fake_runs import FakeRun, resnet_alphas
module = ModuleType("probe.jobs.analyze")
{}
sys.modules["probe.jobs.analyze"] = module
from probe.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))}
    given = {
        "capture_output": True,
        "text": True,
        "check": False,
        "timeout": 120,
        "env": environment,
        **options,
    }
    return subprocess.run([sys.executable, *arguments], **given)  # type: ignore[call-overload, no-any-return]


def fake(job: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return python("-c", FAKE.format(job), *arguments, **options)


@pytest.mark.parametrize("line", ["--help", "fit --help", "--samples 0", "nonsense"])
def test_help_and_wrong_usage_import_nothing_heavy(line: str) -> None:
    code = f"""
import sys
from probe.cli.main import main
main({line.split()!r})
print(",".join(sorted(name for name in {HEAVY!r} if name in sys.modules)), file=sys.stderr)
"""
    done = python("-c", code)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == ""


def test_exit_codes_reach_the_shell() -> None:
    assert python("-m", "probe.cli.main", "--help").returncode == 0
    wrong = python("-m", "probe.cli.main", "--samples", "0")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "probe-norms: error: --samples 0: must be at least 1\n"


RESULT = "module.analyze = lambda *a, **o: FakeRun(alphas=resnet_alphas())"


@pytest.mark.parametrize("line", ["-q", "-q --json", "--help", "fit --help"])
def test_a_reader_that_leaves_early_ends_the_program_quietly(line: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = fake(
            RESULT, *line.split(), stdout=writing, capture_output=False, stderr=subprocess.PIPE
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_pipe_of_a_worker_is_a_failure_not_a_reader_that_left() -> None:
    done = fake(
        "def module_job(*a, **o): raise BrokenPipeError(32, 'Broken pipe')\nmodule.analyze = "
        "module_job",
        "-q",
    )
    assert (done.returncode, done.stderr) == (1, "probe-norms: error: Broken pipe\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("line", ["-q", "-q --json", "--help"])
def test_results_that_find_no_room_are_a_failure(line: str) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = fake(
            RESULT, *line.split(), stdout=full, capture_output=False, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[0]
        == "probe-norms: error: the disk is full: free some space or choose another place with "
        "--out"
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_is_one_line(name: str) -> None:
    job = (
        f"import os, signal; module.analyze = lambda *a, **o: os.kill(os.getpid(), signal.{name}) "
        "or __import__('time').sleep(9)"
    )
    done = fake(job, "-q")
    assert done.returncode == 1
    assert done.stderr == "probe-norms: error: interrupted; nothing unfinished is kept\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(("line", "code"), [("--help", 0), ("-q", 0), ("nonsense", 2)])
def test_a_closed_output_leads_nowhere(closed: str, line: str, code: int) -> None:
    script = f'exec "$0" -c "$1" {line} {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, FAKE.format(RESULT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))},
    )
    assert (done.returncode, "unexpected" in done.stderr) == (code, False)
