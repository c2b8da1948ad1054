"""Which files are checkpoints, in which order, and what their numbers count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from probe.errors import UsageError
from probe.training.tracking.checkpoints import find_checkpoints

TENSOR = {"a": torch.zeros(1)}


def write(folder: Path, *names: str, **metadata: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(TENSOR, path, metadata=metadata or None)
        else:
            torch.save(TENSOR, path)
    return folder


def order(*given: Path) -> list[tuple[str, int, str]]:
    return [(each.name, each.epoch, each.unit) for each in find_checkpoints(list(given))]


def test_a_folder_is_sorted_by_the_number_in_the_name(tmp_path: Path) -> None:
    write(tmp_path, "epoch_10.pth", "epoch_2.pth", "epoch_1.pth")
    (tmp_path / "log.txt").write_text("no weights")
    expected = [("epoch_1", 1, "epoch"), ("epoch_2", 2, "epoch"), ("epoch_10", 10, "epoch")]
    assert order(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "epoch", "unit"),
    [
        ("vit_small_patch16_224-epoch7.pth", 7, "epoch"),
        ("epoch=3-step=1200.ckpt", 3, "epoch"),
        ("model_step_5000.pth", 5000, "step"),
        ("checkpoint-12.pth.tar", 12, "checkpoint"),
        ("vit_ep-4.pt", 4, "epoch"),
        ("resnet50_3.pth", 3, "checkpoint"),
    ],
)
def test_the_number_that_counts_is_found_in_the_name(
    name: str, epoch: int, unit: str, tmp_path: Path
) -> None:
    assert order(write(tmp_path, name) / name)[0][1:] == (epoch, unit)


def test_the_metadata_of_a_file_goes_before_its_name(tmp_path: Path) -> None:
    write(tmp_path, "epoch_9.safetensors", epoch="4")
    assert order(tmp_path) == [("epoch_9", 4, "epoch")]


def test_files_given_in_any_order_are_sorted_and_taken_once(tmp_path: Path) -> None:
    write(tmp_path, "a_2.pth", "a_1.pth")
    files = [tmp_path / "a_2.pth", tmp_path / "a_1.pth", tmp_path / "a_2.pth"]
    assert [name for name, *_ in order(*files)] == ["a_1", "a_2"]


def test_without_numbers_the_order_given_counts(tmp_path: Path) -> None:
    write(tmp_path, "start.pth", "middle.pth", "end.pth")
    files = [tmp_path / f"{name}.pth" for name in ("start", "middle", "end")]
    assert order(*files) == [
        ("start", 1, "checkpoint"),
        ("middle", 2, "checkpoint"),
        ("end", 3, "checkpoint"),
    ]


def test_two_of_one_number_are_counted_in_the_order_given(tmp_path: Path) -> None:
    write(tmp_path, "a/epoch_1.pth", "b/epoch_1.pth")
    found = order(tmp_path / "b" / "epoch_1.pth", tmp_path / "a" / "epoch_1.pth")
    assert [each[1:] for each in found] == [(1, "checkpoint"), (2, "checkpoint")]
    assert len({name for name, *_ in found}) == 2  # each has a run of its own


def test_a_folder_of_folders_has_one_checkpoint_in_each(tmp_path: Path) -> None:
    write(tmp_path, "checkpoint-500/model.safetensors", "checkpoint-1000/pytorch_model.bin")
    write(tmp_path, "checkpoint-1000/optimizer.pt", "checkpoint-500/scheduler.pt")
    assert [(name, number) for name, number, _ in order(tmp_path)] == [
        ("checkpoint-500", 500),
        ("checkpoint-1000", 1000),
    ]


def test_a_training_is_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    write(tmp_path, "model.safetensors", "checkpoints/epoch_002.safetensors")
    assert order(tmp_path) == [("epoch_002", 2, "epoch")]


def test_a_training_that_kept_none_says_what_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    write(tmp_path, "model.safetensors")
    with pytest.raises(UsageError, match="kept no checkpoints: train it with --keep-every K"):
        find_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.pth", "missing.pth does not exist; give a file or a folder"),
        ("notes.txt", "suffix '.txt' is unknown; accepted: .safetensors, .pth"),
        ("empty", "holds no checkpoint; accepted: files ending in .safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(
    name: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=words) as refused:
        find_checkpoints(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_no_path_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no checkpoint given"):
        find_checkpoints([])


def test_names_become_folders_that_any_file_system_takes(tmp_path: Path) -> None:
    write(tmp_path, "a b:1.pth", "A B:2.pth")
    names = [name for name, *_ in order(tmp_path)]
    assert len({name.lower() for name in names}) == 2
    assert all(set(name) <= set("abAB_123.-0") for name in names)
