"""How much top-1 the bundled ViT keeps when all its norms are replaced without training. Run by hand; takes some minutes.

    python tests/benchmarks/bench_convert.py FOLDER        FOLDER: CIFAR-10 as Parquet, with the splits train and test

Fits come from training images and from the bundled photographs; every conversion is measured on the whole test split.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.models.load import Model, load_model
from probe.models.replace import swap
from probe.pipeline.capture import capture
from probe.pipeline.conversion_curves import conversion_curves
from probe.pipeline.eval_data import EvalData, read_eval_data
from probe.pipeline.evaluate_swap import Comparison
from probe.pipeline.fit_run import fit
from probe.store import Run

MODEL = "bundled:vit_cifar10"
FORMS = {"dyt": "tanh", "derf": "erf", "dyisru": "isru", "learnable_scaler": "line"}


def nothing(*_: Any) -> None:
    """No progress."""


def score(model: Model, data: EvalData, norm: str, **how: Any) -> tuple[str, int]:
    """The line of one conversion, and how many layers it replaced. The model is as before afterwards."""
    with swap(model.module, norm, **how) as done:
        replaced = sum(outcome.status == "replaced" for outcome in done.outcomes)
        places = {str(number): [place] for number, place in enumerate(done.places)}
        for place in done.places:
            place.parent._modules[place.key] = place.old
        comparison = Comparison(model, places, data)
        found = comparison.score(places)
        for place in done.places:
            place.parent._modules[place.key] = place.new
    assert found.accuracy is not None
    return f"top-1 {found.accuracy:7.2%}  same class {found.agreement:7.2%}  KL {found.kl:.4f}", replaced


def conversions(run: Run) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name of each conversion -> norm, options of swap."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    ways = [("channel", "established"), ("channel", "all"), ("layer", "established")]
    for norm, form in FORMS.items():
        for scope, curves in ways[: 3 if form == "tanh" else 2]:
            if form == "line" and curves == "all":
                continue
            stand_ins, _ = conversion_curves(run, form, scope=scope, curves=curves, progress=nothing)
            lines = sum(each.form == "line" for each in stand_ins.values())
            name = f"{form} per {scope}, {curves} curves ({len(stand_ins) - lines} curves, {lines} lines)"
            found[name] = norm, {"init": "fitted", "stand_ins": stand_ins}
    pooled, _ = conversion_curves(run, "line", scope="layer", progress=nothing)
    found["one line per layer"] = "learnable_scaler", {"init": "fitted", "stand_ins": pooled}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=64, help="training images of a fit")
    parser.add_argument("--test-images", type=int, default=None)
    options = parser.parse_args()
    model = load_model(MODEL)
    train, test = (f"hfds/{Path(options.folder).resolve()}?split={split}" for split in ("train", "test"))
    with tempfile.TemporaryDirectory() as place:
        sources = {
            f"{options.images} training images": (train, options.images),
            "64 bundled crops": (None, 64),
            "112 bundled crops": (None, None),
        }
        data: EvalData | None = None
        for name, (source, images) in sources.items():
            run = capture(model, source, out=Path(place) / name.replace(" ", "_"), num_images=images)
            fit(run)
            if data is None:
                data = read_eval_data(
                    model,
                    test,
                    run,
                    num_images=options.test_images,
                    batch_size=250,
                    workers=0,
                    seed=0,
                    transform=None,
                    progress=nothing,
                )
                accuracy = Comparison(model, {}, data).accuracy
                print(f"{MODEL}, {data.images} test images: top-1 of the original {accuracy:.2%}")
                for init in ("match", "default"):
                    print(f"  DyT, alpha 0.5, init {init}: {score(model, data, 'dyt', init=init)[0]}", flush=True)
            print(f"fits from {name}")
            for title, (norm, how) in conversions(run).items():
                line, replaced = score(model, data, norm, **how)
                print(f"  {title:55s} {line}  ({replaced} layers)", flush=True)


if __name__ == "__main__":
    main()
