"""How much top-1 the bundled ViT keeps when all its norms are replaced without training. Run by
hand; takes some minutes.

    python tests/benchmarks/bench_convert.py FOLDER        FOLDER: CIFAR-10 as Parquet, with the
    splits train and test

Fits come from training images and from the bundled photographs; every conversion is measured on the
whole test split.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.curves import StandIn
from probe.jobs.capturing.capture import capture
from probe.jobs.converting.curves import conversion_curves
from probe.jobs.converting.eval_data import EvalData, read_eval_data
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.networks import activate
from probe.jobs.fitting.fit import fit
from probe.models.loading.load import Model, load_model
from probe.models.replacing.curve_norms import fitted_family
from probe.models.replacing.swap import swap
from probe.store import Run

MODEL = "bundled:vit_cifar10"
WAYS = (
    ("dyt", "channel", "established"),
    ("dyt", "channel", "all"),
    ("derf", "channel", "all"),
    ("dyisru", "channel", "all"),
    ("learnable_scaler", "channel", "established"),
    ("dyt", "layer", "established"),
    ("learnable_scaler", "layer", "established"),
)


def nothing(*_: Any) -> None:
    """No progress."""


def score(model: Model, data: EvalData, norm: str, **how: Any) -> str:
    """What one conversion keeps. The model is as before afterwards."""
    with swap(model.module, norm, **how) as done:
        assert all(outcome.status == "replaced" for outcome in done.outcomes)
        slots = {str(number): [slot] for number, slot in enumerate(done.slots)}
        found = Comparison(model, slots, data).score(slots)
        activate(slots, slots)
    assert found.accuracy is not None
    return f"top-1 {found.accuracy:7.2%}  same class {found.agreement:7.2%}  KL {found.kl:.4f}"


def conversions(run: Run) -> dict[str, tuple[str, Mapping[str, StandIn]]]:
    """Name of each conversion -> norm and stand-ins; what is the same twice is there once."""
    found: dict[str, tuple[str, Mapping[str, StandIn]]] = {}
    for norm, scope, curves in WAYS:
        stand_ins, _ = conversion_curves(
            run, fitted_family(norm, scope), scope=scope, curves=curves, progress=nothing
        )
        lines = sum(each.is_line for each in stand_ins.values())
        found.setdefault(
            f"{norm} per {scope}: {len(stand_ins) - lines} curves, {lines} lines", (norm, stand_ins)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=64, help="training images of a fit")
    parser.add_argument("--test-images", type=int, default=None)
    options = parser.parse_args()
    model = load_model(MODEL)
    train, test = (
        f"hfds/{Path(options.folder).resolve()}?split={split}" for split in ("train", "test")
    )
    with tempfile.TemporaryDirectory() as place:
        sources = {
            f"{options.images} training images": (train, options.images),
            "64 bundled crops": (None, 64),
            "112 bundled crops": (None, None),
        }
        data: EvalData | None = None
        for name, (source, images) in sources.items():
            run = capture(
                model, source, out=Path(place) / name.replace(" ", "_"), num_images=images
            )
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
                comparison = Comparison(model, {}, data)
                before = comparison.score(()).accuracy
                print(
                    f"{MODEL}, {comparison.images} test images: top-1 of the original {before:.2%}"
                )
                for init, what in (
                    ("match", "with the trained weights and biases"),
                    ("default", "with weights 1 and biases 0"),
                ):
                    print(
                        f"  DyT with alpha 0.5 {what}: {score(model, data, 'dyt', init=init)}",
                        flush=True,
                    )
            print(f"fits from {name}")
            for title, (norm, stand_ins) in conversions(run).items():
                found = score(model, data, norm, init="fitted", stand_ins=stand_ins)
                print(f"  {title:50s} {found}", flush=True)


if __name__ == "__main__":
    main()
