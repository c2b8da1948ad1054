"""Write the model card of a bundled network: what it was trained on, what it reaches, what its
normalization layers do.

    python -m probe.training.card vit_cifar10 --training runs/train_vit --command "python -m
    probe.training.bundled ..."

The layer table comes from a run on the bundled photographs, so that anyone can repeat it; without
--training and --command it alone is made anew. Trainings from before `probe.train` left a
log.jsonl, which --training takes, too.
"""

from __future__ import annotations

import argparse
import inspect
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from probe.formatting import number, r_squared
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.models.loading.bundled import ARCHITECTURES, weights_path
from probe.models.loading.load import Model, load_model
from probe.records import Status
from probe.training.result import open_training
from probe.wording.evidence import seen

GAIN = ("gain", "gain_low", "gain_high")

CARD = """# {name}

{architecture}
{parameters:,} parameters, 10 classes, input 32 x 32 RGB. \
Weights: `{file}` ({size:.1f} MB, {fingerprint}).

A stand-in for trying probe without a network connection. It is a toy: nothing measured on it says \
anything about large models.

## Training

- Command: `{command}`
- Data: CIFAR-10 (50,000 training images, re-encoded as JPEG), random crop with 4 pixels of \
padding, horizontal flip.
- Epochs: {epochs}{schedule}. One run, seed 0.
- Top-1 on the 10,000 test images: **{top1:.2f} %** (n = 1; no spread was measured). \
Last training loss {loss:.3f} (label smoothing 0.1).

{layers}"""

TITLE = "## Normalization layers"
LAYERS = (
    TITLE
    + """

{images}, all of the scikit-image wheel, `probe-norms --model bundled:{name}`.
{explanation}

{table}
"""
)

CURVES = """\
`gain` is R2 of the fitted tanh less R2 of a line over all elements, with its 95 % jackknife \
interval over photographs; `curved`:
a gain of 0.001 or more, at least 0.0005 at the lower end; `linear`: under 0.001 at the upper end; \
`undetermined`: neither."""
LINES = """\
Every channel is exactly a line (`affine`); `slope` is the median over channels of \
1/sqrt(var + eps), `cv` its coefficient of
variation."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """One record per epoch: epoch, epochs (planned), loss, top1; of a training's folder, or of a
    log.jsonl.
    """
    if path.is_file():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    training = open_training(path)
    table = training.epochs.query("epoch > 0").rename(columns={"train_loss": "loss"})
    return [
        {**row, "epochs": training.record["recipe"]["epochs"]}
        for row in table[["epoch", "loss", "top1"]].to_dict("records")
    ]


def schedule_of(log: list[dict[str, Any]]) -> str:
    """Says so where the run was continued with another planned length."""
    planned = [record["epochs"] for record in log]
    if len(set(planned)) == 1:
        return ""
    parts = [
        f"{planned.count(n)} epochs of a cosine schedule of {n}" for n in dict.fromkeys(planned)
    ]
    return (
        f" ({', then '.join(parts)}: the run was interrupted and continued with a shorter schedule)"
    )


def layer_table(alphas: pd.DataFrame) -> str:
    """One markdown row per layer."""
    if all_affine(alphas):
        rows = alphas[["layer", "channels", "status", "slope_median", "slope_cv"]].rename(
            columns={"slope_median": "slope", "slope_cv": "cv"}
        )
    else:
        rows = alphas[["layer", "status", "alpha", "slope", "linear_r2", *GAIN]]
    cells = [[_cell(*item) for item in row.items()] for row in rows.to_dict("records")]
    lines = ["| " + " | ".join(rows.columns) + " |", "|" + "---|" * len(rows.columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def all_affine(alphas: pd.DataFrame) -> bool:
    return bool((alphas["status"] == Status.AFFINE).all())


def _cell(column: Any, value: Any) -> str:
    """As the terminal shows it."""
    if not isinstance(value, float):
        return str(value)
    return r_squared(value) if column == "linear_r2" else number(value)


def card(model: Model, log: list[dict[str, Any]], command: str) -> str:
    """The whole card: what the network is, how it was trained, what its layers do."""
    path = weights_path(model.name)
    return CARD.format(
        name=model.name,
        architecture=inspect.getdoc(ARCHITECTURES[model.name]) or "",
        parameters=sum(p.numel() for p in model.module.parameters()),
        file=path.name,
        size=path.stat().st_size / 1e6,
        fingerprint=model.fingerprint,
        command=command,
        epochs=len(log),
        schedule=schedule_of(log),
        top1=log[-1]["top1"],
        loss=log[-1]["loss"],
        layers=layers_section(model),
    )


def layers_section(model: Model) -> str:
    """What the layers do on all bundled photographs."""
    with tempfile.TemporaryDirectory() as folder:
        run = capture(model, out=Path(folder) / "run")
        fit(run)
        alphas, images = run.alphas(), seen(run.manifest)
    return LAYERS.format(
        name=model.name,
        images=images,
        explanation=LINES if all_affine(alphas) else CURVES,
        table=layer_table(alphas),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(ARCHITECTURES))
    parser.add_argument("--training", type=Path, help="folder of the training, or its log.jsonl")
    parser.add_argument("--command", help="the command that trained it")
    options = parser.parse_args()
    if (options.training is None) != (options.command is None):
        parser.error(
            "--training and --command go together; without both only the layers are made anew"
        )
    model, path = load_model(f"bundled:{options.name}"), weights_path(options.name)
    page = path.with_suffix(".md")
    if options.training is None:
        before = page.read_text(encoding="utf-8").partition(TITLE)[0]
        page.write_text(before + layers_section(model), encoding="utf-8")
    else:
        log = read_log(options.training)
        page.write_text(card(model, log, options.command), encoding="utf-8")

    print(page)


if __name__ == "__main__":
    main()
