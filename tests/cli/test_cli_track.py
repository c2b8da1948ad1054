"""`probe-norms track`: options reach the job, and its result is a table, a document and an exit
code.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from support.training_data import heads_table, tracked_table


def tracking(path: Path, failed: bool = False) -> SimpleNamespace:
    table = tracked_table(curved_from=[0, 2, None, *[None] * 10])
    if failed:
        row = {"checkpoint": "epoch_009", "epoch": 9, "status": "failed", "reason": "broken"}
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    return SimpleNamespace(
        path=path,
        table=table,
        attention=heads_table(),
        runs=dict.fromkeys(table["checkpoint"][table["layer"].notna()]),
        failed={"epoch_009": "broken"} if failed else {},
        captured=("epoch_001",),
        unit="epoch",
    )


def test_every_option_reaches_the_job(cli: Any, jobs: Any, tmp_path: Path) -> None:
    jobs.answers["track"] = tracking(tmp_path)
    line = (
        "a.pth b/ --model resnet50 --data photos --out o --norm dyt --norm-layers x.* --layers a* "
        "--attention --num-images all --batch-size 3 --workers 2 --samples 7 --tail 2 --seed 5 "
        "--device cpu --dtype bfloat16 --autocast float16 --no-figures --no-report --overwrite "
        "--offline --engine ray --address auto -q"
    )
    assert cli("track", *line.split()).code == 0
    call = jobs.last("track")
    assert call.args == (["a.pth", "b/"], "resnet50", "photos")
    expected = {"out": "o", "norm": "dyt", "norm_layers": "x.*", "layers": "a*", "attention": True}
    expected |= {"num_images": None, "batch_size": 3, "workers": 2, "samples": 7, "tail": 2}
    expected |= {"engine": "ray", "address": "auto"}
    expected |= {"seed": 5, "device": "cpu", "dtype": "bfloat16", "autocast": "float16"}
    expected |= {"figures": False, "report": False, "overwrite": True, "offline": True}
    assert {name: value for name, value in call.options.items() if name != "progress"} == expected


def test_the_table_says_since_when_each_layer_is_curved(
    cli: Any, jobs: Any, tmp_path: Path
) -> None:
    jobs.answers["track"] = tracking(tmp_path)
    lines = cli("track", "ckpt", "--out", "o", "-q").out.splitlines()
    assert lines[0].split()[:4] == ["layer", "curved", "since", "status"]
    rows = {line.split()[0]: line for line in lines if line.startswith("blocks.")}
    assert "0 (first)  curved" in rows["blocks.0.norm1"]
    assert "2  linear .. curved" in rows["blocks.0.norm2"]
    assert "-  linear" in rows["blocks.1.norm1"]
    assert "captured: 1 checkpoint, 5 found finished" in cli.out
    assert "From epoch 2 on: blocks.0.norm2 (linear at epoch 1)." in cli.out


def test_json_holds_the_tables_and_the_changes(cli: Any, jobs: Any, tmp_path: Path) -> None:
    jobs.answers["track"] = tracking(tmp_path)
    document = cli("track", "ckpt", "--out", "o", "--json", "-q").json
    assert len(document["layers"]) == 6 * 13
    assert len(document["attention"]) == 6 * 3 * 3
    assert document["changes"][1]["since"] == 2
    assert document["captured"] == ["epoch_001"]
    assert document["failed"] == {}


def test_a_checkpoint_that_failed_is_named_and_gives_exit_code_1(
    cli: Any, jobs: Any, tmp_path: Path
) -> None:
    jobs.answers["track"] = tracking(tmp_path, failed=True)
    assert cli("track", "ckpt", "--out", "o", "-q").code == 1
    assert "Could not be opened: epoch_009 (broken)." in cli.out
    assert cli("track", "ckpt", "--out", "o", "--json", "-q").code == 1
    assert cli.json["failed"] == {"epoch_009": "broken"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "CHECKPOINT... is missing"),
        (("ckpt",), "--out DIR is missing"),
        (("ckpt", "--out", "--json"), "--out --json: needs a value before --json"),
        (("ckpt", "--out", "o", "--num-images", "0"), "--num-images 0: must be at least 1"),
        (("ckpt", "--out", "o", "--norms", "dyt"), "option --norms is unknown (did you mean"),
    ],
)
def test_wrong_use_is_one_line(cli: Any, jobs: Any, arguments: tuple[str, ...], words: str) -> None:
    assert cli("track", *arguments).code == 2
    assert words in cli.err
    assert cli.err.count("\n") == 1
