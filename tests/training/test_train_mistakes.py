"""What users get wrong is told in one line, before anything is trained."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import probe
from probe.cli.main import main
from probe.errors import UsageError
from support.tiny_training import ASKED, MODEL, VIT, colour_folders


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


WRONG = {
    "no model": ({"model": None}, "no model to train: give --model M, or --recipe R"),
    "recipe": ({"recipe": "plian"}, r"recipe 'plian' is unknown \(did you mean plain\?\)"),
    "norm": ({"norm": "dtt"}, r"norm 'dtt' is unknown \(did you mean dyt, dtn\?\)"),
    "field": ({"epoch": 3}, r"field of a recipe 'epoch' is unknown \(did you mean epochs"),
    "optimizer": ({"opt": "adamm"}, r"--opt 'adamm' is unknown \(did you mean adam"),
    "schedule": ({"sched": "cosin"}, r"sched 'cosin' is unknown \(did you mean cosine"),
    "crop": ({"crop": "random"}, r"--crop 'random' is unknown"),
    "augmentation": ({"auto_augment": "rnd-m9"}, "--auto-augment rnd-m9: no policy of timm"),
    "epochs": ({"epochs": 0}, "--epochs 0: must be at least 1"),
    "share": ({"smoothing": 1.5}, "--smoothing 1.5: must be from 0 to 1"),
    "no decay": ({"no_decay": "*.alfa"}, r"no parameter matches \*\.alfa"),
    "batch": ({"batch_size": 500}, "48 training images do not fill a batch of 500"),
    "classes": (
        {"model_options": VIT | {"num_classes": 5}},
        "num_classes=5 does not fit the data, which has 3 classes",
    ),
    "class token": ({"norm": "dtn"}, "dtn: vit_tiny_patch16_224 has 1 class or register token"),
    "grid": (
        {
            "norm": "dtn",
            "norm_options": {"grid": (3, 3)},
            "norm_layers": "blocks.*",
            "model_options": VIT | {"class_token": False, "global_pool": "avg"},
        },
        "dtn does not fit vit_tiny_patch16_224: DTN: input of shape .* grid=3x3 needs 9 tokens",
    ),
    "image size": (
        {"model_options": VIT | {"img_size": 20}, "image_size": 24},
        "does not take images of 24 x 24 pixels",
    ),
    "single images": (
        {"norm": "batch_norm", "micro_batch": 1},
        "one image per forward pass, but blocks.0.norm1 takes the statistics of a batch",
    ),
    "fitted": ({"norm": "dyt", "init": "fitted"}, "init 'fitted' needs fitted curves"),
    "alphas": ({"alphas": "runs/a"}, "--alphas start a norm that is swapped in: give --norm dyt"),
    "precision": ({"precision": "fp16"}, "--precision fp16 needs a GPU"),
    "device": ({"device": "tpu7"}, "--device 'tpu7'"),
    "save": ({"save_minutes": 0}, "--save-minutes 0: must be above 0"),
    "published": ({"as_published": True}, "recipe 'plain' has no published form"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_and_nothing_is_written(case, data, tmp_path):
    wrong, told = WRONG[case]
    with pytest.raises(UsageError, match=told) as error:
        probe.train(**{"model": MODEL, "data": data, "out": str(tmp_path / "t"), **ASKED, **wrong})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "t").exists()


def without(data, tmp_path, *names):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for name in names:
        shutil.rmtree(copy / name)
    return copy


def test_a_missing_validation_part_is_told(data, tmp_path):
    copy = without(data, tmp_path, "val")
    with pytest.raises(UsageError, match=r"has no folder validation or val or test .*--val-data D"):
        probe.train(MODEL, data=str(copy), out=str(tmp_path / "t"), **ASKED)
    done = probe.train(
        MODEL, data=str(copy), val_data=f"{data}/val", out=str(tmp_path / "t"), **ASKED
    )
    assert done.record["data"]["validation"]["chosen"] == 24


def test_an_empty_class_folder_is_told(data, tmp_path):
    copy = without(data, tmp_path, "train/class1")
    (copy / "train" / "class1").mkdir()
    with pytest.raises(UsageError, match="no image in class folder class1; fill or remove it"):
        probe.train(MODEL, data=str(copy), out=str(tmp_path / "t"), **ASKED)


def test_other_classes_in_validation_are_told(data, tmp_path):
    copy = without(data, tmp_path, "val/class2")
    with pytest.raises(UsageError, match="different classes: class2 only in .*train"):
        probe.train(MODEL, data=str(copy), out=str(tmp_path / "t"), **ASKED)


def test_images_without_classes_are_told(data, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(f"{data}/{split}/class0", tmp_path / "flat" / split)
    with pytest.raises(UsageError, match="has no labels; classes are needed"):
        probe.train(MODEL, data=str(tmp_path / "flat"), out=str(tmp_path / "t"), **ASKED)


def test_data_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="data 'nowhere' does not exist; accepted: a folder with"):
        probe.train(MODEL, data="nowhere", out=str(tmp_path / "t"), **ASKED)


def parquet(folder, split, labels):
    from io import BytesIO

    from PIL import Image

    rng = np.random.default_rng(0)
    cells = []
    for _ in labels:
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    folder.mkdir(exist_ok=True)
    table = pa.table({"image": cells, "label": labels})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_parquet_files_are_trained_on_by_their_splits(tmp_path):
    parquet(tmp_path / "d", "train", [0, 1, 2, 3] * 4)
    parquet(tmp_path / "d", "test", [0, 1, 2, 3])
    done = probe.train(MODEL, data=str(tmp_path / "d"), out=str(tmp_path / "t"), **ASKED)
    assert done.record["data"]["training"]["split"] == "train"
    assert done.record["data"]["validation"]["split"] == "test"
    assert done.record["model"]["classes"] == 4


def test_a_missing_split_is_told(tmp_path):
    parquet(tmp_path / "d", "train", [0, 1] * 8)
    with pytest.raises(UsageError, match="has no split validation or val or test: it has train"):
        probe.train(MODEL, data=str(tmp_path / "d"), out=str(tmp_path / "t"), **ASKED)


def test_a_broken_image_makes_way_for_the_next_one_and_is_told_once(data, tmp_path):
    copy = without(data, tmp_path)
    (copy / "train" / "class0" / "3.png").write_bytes(b"no image")
    lines: list[str] = []
    probe.train(MODEL, data=str(copy), out=str(tmp_path / "t"), say=lines.append, **ASKED)
    assert [line for line in lines if "left out" in line] == [
        "left out: class0/3.png: not an image, or of no format that can be read"
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--epochs", "many"], "--epochs many: must be a whole number"),
        (["--betas", "0.9"], "--betas 0.9: must be 2 numbers with commas between"),
        (["--norm-options", "heads"], "--norm-options heads: must be names and values"),
        (["--epoks", "3"], "option --epoks is unknown (did you mean --epochs"),
        (["--norm", "--json"], "--norm --json: needs a value"),
    ],
)
def test_an_option_of_a_field_is_checked_as_any_other(options, told, data, capsys):
    assert main(["train", "--model", MODEL, "--data", data, *options]) == 2
    assert told in capsys.readouterr().err


def test_without_data_the_command_says_so(capsys):
    assert main(["train", "--model", MODEL]) == 2
    assert "--data D is missing" in capsys.readouterr().err
