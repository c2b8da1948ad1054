"""An interrupted capture goes on to the very run that it would have been, or is refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import probe
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.attention import attention_distance
from probe.store import checkpoint, open_run, verify_run
from support.captures import Everything, Tokens, token_batches
from support.interrupted import (
    BrokenOff,
    Restless,
    break_off,
    contents,
    job,
    state_after_each_batch,
    tokens,
    write_images,
)

KILLS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from support.interrupted import killed_in_a_child
images, out = map(Path, sys.argv[1:3])
for seed in range(60):
    status = killed_in_a_child(images, out, seed, resume=True)
    print(seed, status, flush=True)
    if status == 0:
        break
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("resume") / "images")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """What the capture gives that nobody interrupts."""
    return contents(job(images, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def stopped(images, tmp_path, monkeypatch):
    """The place of a capture that was broken off after some images."""
    state_after_each_batch(monkeypatch)
    with pytest.raises(BrokenOff):
        job(images, tmp_path / "run", progress=break_off(11))
    return tmp_path / "run"


def hidden(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("done", [1, 11, 20, 22])
def test_a_capture_that_was_broken_off_ends_with_the_same_bytes(
    done, images, whole, tmp_path, monkeypatch
):
    state_after_each_batch(monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(BrokenOff) as caught:
        job(images, out, progress=break_off(done))
    assert "images are done: --resume (resume=True) goes on" in caught.value.__notes__[0]
    assert not out.exists()
    assert contents(job(images, out, resume=True)) == whole
    assert hidden(tmp_path) == []
    assert verify_run(open_run(out)) == []


def test_a_model_in_train_mode_goes_on_from_where_it_was(images, tmp_path, monkeypatch):
    expected = contents(job(images, tmp_path / "whole", Restless()))
    state_after_each_batch(monkeypatch)
    for done in (5, 14):
        with pytest.raises(BrokenOff):
            job(images, tmp_path / "run", Restless(), resume=True, progress=break_off(done))
    module = Restless()
    before = module.batch_norm.running_mean.clone()
    assert contents(job(images, tmp_path / "run", module, resume=True)) == expected
    assert torch.equal(module.batch_norm.running_mean, before)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children of one process")
def test_killed_at_random_places_again_and_again_it_ends_with_the_same_bytes(
    images, whole, tmp_path
):
    here = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (Path(probe.__file__).parents[1], here)))
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(images), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    states = [line.split()[1] for line in done.stdout.splitlines()]
    assert states[-1] == "0", done.stdout
    assert states.count("9") == len(states) - 1 >= 3, done.stdout
    assert contents(open_run(tmp_path / "run")) == whole
    assert hidden(tmp_path) == []


def test_the_plain_repetition_says_what_it_found_and_goes_on(stopped, images, whole):
    seen = []
    with pytest.warns(UserWarning, match="goes on") as caught:
        run = job(images, stopped, progress=lambda *report: seen.append(report[:2]))
    assert [str(each.message) for each in caught] == [
        f"{stopped}: an interrupted capture is here, 11 of 26 images are done, and goes on; "
        "--overwrite (overwrite=True) starts anew"
    ]
    assert seen[0] == ("capture", 11)
    assert contents(run) == whole


def test_the_plain_repetition_of_another_job_is_refused_and_leaves_the_state(
    stopped, images, whole
):
    with pytest.raises(UsageError, match="run was captured with seed 0, not 4: give the same"):
        job(images, stopped, seed=4)
    assert contents(job(images, stopped, resume=True)) == whole


def test_overwrite_starts_anew(stopped, images, whole):
    seen = []
    with pytest.warns(UserWarning, match="starts anew, --resume .resume=True. goes on$"):
        run = job(images, stopped, overwrite=True, progress=lambda *report: seen.append(report[:2]))
    assert seen[0] == ("capture", 0)
    assert contents(run) == whole
    assert hidden(stopped.parent) == []


def test_a_state_stays_until_the_new_capture_has_one(stopped, images, whole, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 1e9)

    def broken(*_):
        raise BrokenOff

    module = Everything()
    module.norm.register_forward_hook(broken)  # in the midst of the first batch
    with pytest.warns(UserWarning, match="starts anew"), pytest.raises(BrokenOff):
        job(images, stopped, module, overwrite=True)
    assert contents(job(images, stopped, resume=True)) == whole


def test_going_on_over_an_older_run_replaces_it(images, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    old = job(images, out, seed=5)
    state_after_each_batch(monkeypatch)
    with pytest.raises(BrokenOff):
        job(images, out, overwrite=True, progress=break_off(11))
    assert open_run(out).manifest == old.manifest
    with pytest.raises(UsageError, match="would replace this run: --resume .* starts anew"):
        job(images, out)
    assert contents(job(images, out, resume=True)) == whole


def test_a_state_that_a_later_run_has_outlived_is_not_found(stopped, images, tmp_path):
    job(images, tmp_path / "later", seed=3)
    (tmp_path / "later").rename(stopped)
    with pytest.raises(UsageError, match="already holds a run"):
        job(images, stopped)
    assert hidden(tmp_path) == []


def test_a_finished_run_is_returned_as_it_is(images, tmp_path):
    before = job(images, tmp_path / "run").manifest
    assert job(images, tmp_path / "run", resume=True).manifest == before


def other_module() -> Everything:
    module = Everything()
    with torch.no_grad():
        module.head.weight += 1
    return module


OTHER = {
    "weights": (lambda: {"module": other_module()}, "fingerprint of the weights sha256:"),
    "model": (lambda: {"module": Tokens(), "attention": False}, "model Everything, not Tokens"),
    "train mode": (lambda: {"module": Everything().train()}, "train mode False, not True"),
    "seed": (lambda: {"seed": 4}, "seed 0, not 4"),
    "samples": (lambda: {"samples": 41}, "samples 40, not 41"),
    "tail": (lambda: {"tail": 90}, "tail 80, not 90"),
    "batch": (lambda: {"batch_size": 2}, "batch size 3, not 2"),
    "layers": (lambda: {"layers": "norm"}, "layers *, not norm"),
    "images": (lambda: {"num_images": 20}, "number of images 26, not 20; list of images"),
    "attention": (lambda: {"attention": False}, "attention {'prefix_tokens': 1"),
    "prefix": (lambda: {"prefix_tokens": 0}, "prefix tokens 1, not 0"),
    "transform": (lambda: {"transform": torch.nn.Identity()}, "transform= support.interrupted.tok"),
    "dtype": (lambda: {"dtype": "bfloat16"}, "dtype float32, not bfloat16"),
}


@pytest.mark.parametrize("what", OTHER)
def test_another_job_is_refused_with_the_difference(what, stopped, images):
    options, difference = OTHER[what]
    with pytest.raises(UsageError) as caught:
        job(images, stopped, resume=True, **options())
    assert f"{stopped} was captured with " in str(caught.value)
    assert difference in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hidden(stopped.parent) == [".run.checkpoint"]


def test_another_python_file_of_the_same_weights_is_refused(images, tmp_path, monkeypatch):
    file, out = tmp_path / "net.py", tmp_path / "run"
    code = "from support.captures import Everything\ndef make(): return Everything()"
    file.write_text(code)
    options = {"out": out, "batch_size": 3, "transform": tokens}
    state_after_each_batch(monkeypatch)
    with pytest.raises(BrokenOff):
        probe.capture(f"{file}:make", images, progress=break_off(5), **options)
    file.write_text(f"{code}  # edited")
    with pytest.raises(UsageError, match="captured with Python file of the model sha256:"):
        probe.capture(f"{file}:make", images, resume=True, **options)
    file.write_text(code)
    probe.capture(f"{file}:make", images, resume=True, **options)


def test_other_images_are_refused(stopped, images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "03.png").write_bytes(b"longer than it was" * 100)
    with pytest.raises(UsageError, match="list of images .SHA-256 of names and sizes. sha256:"):
        job(tmp_path / "images", stopped, resume=True)


def test_another_finished_run_is_refused_too(images, tmp_path):
    job(images, tmp_path / "run", seed=5)
    with pytest.raises(UsageError, match="was captured with seed 5, not 0"):
        job(images, tmp_path / "run", resume=True)


def test_batches_without_names_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"iterable of batches \(list\), whose images have no na"):
        probe.capture(Tokens(), token_batches(), out=tmp_path / "run", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_resume_and_overwrite_exclude_each_other(images, tmp_path):
    with pytest.raises(UsageError, match="give one of them"):
        job(images, tmp_path / "run", resume=True, overwrite=True)


def test_two_captures_of_one_place_are_refused(images, tmp_path):
    def second(stage, done, total, message=""):
        with pytest.raises(UsageError, match="is being captured by another process: wait for it"):
            job(images, tmp_path / "run")
        raise BrokenOff

    with pytest.raises(BrokenOff):
        job(images, tmp_path / "run", progress=second)
    assert list(tmp_path.iterdir()) == []


def test_attention_alone_does_not_take_the_place_of_an_interrupted_capture(stopped):
    with pytest.raises(UsageError, match="an interrupted capture is here"):
        attention_distance("bundled:vit_cifar10", num_images=1, out=stopped)


def flipped(state: Path) -> None:
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)


def with_pickle(state: Path) -> None:
    np.savez(state, facts=np.array([{"a": 1}], dtype=object))


def packed(state: Path) -> None:
    with np.load(state) as found:
        np.savez_compressed(state, **dict(found))


def other_arrays(state: Path) -> None:
    with np.load(state) as found:
        arrays = dict(found)
    del arrays["worker.0.moments.sums"]
    np.savez(state, **arrays)


DAMAGES = {
    "bit": flipped,
    "cut": lambda state: state.write_bytes(state.read_bytes()[:-100]),
    "empty": lambda state: state.write_bytes(b""),
    "pickle": with_pickle,
    "packed": packed,
    "arrays": other_arrays,
    "link": lambda state: (state.unlink(), state.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_never_gone_on_from(damage, stopped, images):
    state = stopped.parent / ".run.checkpoint" / "state.npz"
    DAMAGES[damage](state)
    with pytest.raises(ProbeError, match="of the interrupted capture cannot be used .*starts anew"):
        job(images, stopped, resume=True)
    assert not stopped.exists()
    with pytest.warns(UserWarning, match="starts anew"):
        job(images, stopped, overwrite=True)


def test_states_are_written_seldom_enough(images, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoint.Checkpoint, "write", lambda *_: written.append(1))
    job(images, tmp_path / "run")
    assert not written  # in less than half a minute
    place = checkpoint.Checkpoint(tmp_path / "place")
    place._saved, place._cost = checkpoint.time.monotonic() - 100, 1.0
    assert place.due()
    place._cost = 2.0  # a hundred seconds are less than 60 times what a state costs
    assert not place.due()
    assert place.due({"small": np.zeros(1000)})
    assert not place.due({"large": np.zeros(1)[:1].repeat(2 * int(checkpoint.SLOW) // 8)})
