"""How much top-1 the bundled networks keep when all their norms are replaced by DyT, label-free:
converted, calibrated, distilled. Run by hand, on a quiet machine; a quarter of an hour on two
cores.

    python tests/benchmarks/bench_replace.py CIFAR --photos PHOTOS --figures figures/replacing \\
        --markdown docs/replacing.md

CIFAR: CIFAR-10 as Parquet, splits train and test. PHOTOS: photographs of another kind, whatever
they show. Training images are used without their labels; the final numbers are of all test images,
those of the curves of the first 2,000. Prints a line per result; with --figures writes tables (CSV)
and a figure, with --markdown the page. Parts that are not asked for stay as the tables say.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import probe
from marked import write_measured
from probe.data import open_images
from probe.jobs.capturing.capture import capture
from probe.jobs.capturing.forward import forward
from probe.jobs.converting.eval_data import read_eval_data
from probe.jobs.converting.networks import logits_of
from probe.jobs.fitting.fit import fit
from probe.models.loading.load import Model, load_model
from replacing.page import draw, page

VIT, RESNET = "bundled:vit_cifar10", "bundled:resnet_cifar10"
IMAGES = (16, 64, 256, 800)
ABOUT = 128  # images of the table of layers
MANY = 10_000  # training images of the final distillations
FILES = {
    "results": "replacing.csv",
    "layers": "replacing_layers.csv",
    "speed": "replacing_speed.csv",
}
CASE = ("network", "way", "data", "images", "test_images")  # a row of the results


def nothing(*_: Any) -> None:
    """No progress."""


@dataclass
class Study:
    """What is asked for, the test images, and the rows so far."""

    options: argparse.Namespace
    place: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    test: list[tuple[Any, torch.Tensor]] = field(default_factory=list)
    top1: dict[tuple[str, int], float] = field(default_factory=dict)

    def read_test_images(self) -> None:
        """Both networks take the same transform, so the batches are read once."""
        source = open_images(f"{self.options.folder}?split=test", None)
        data = read_eval_data(
            load_model(VIT),
            source,
            None,
            num_images=None,
            batch_size=250,
            workers=0,
            seed=0,
            transform=None,
            progress=nothing,
        )
        assert data.labels is not None
        for batch in data.stream.batches:
            self.test.append((batch, torch.from_numpy(data.labels[batch.images])))

    def accuracy(self, model: Model, images: int) -> float:
        """Top-1 in per cent on the first so many test images."""
        right = seen = 0
        for batch, labels in self.test:
            if seen >= images:
                break
            right += int((logits_of(forward(model, batch)).argmax(1) == labels).sum())
            seen += len(labels)
        return 100 * right / seen

    def note(self, model: Model, network: str, way: str, began: float, **facts: Any) -> None:
        images = facts["test_images"]
        if (network, images) not in self.top1:
            self.top1[network, images] = self.accuracy(load_model(network), images)
        original, seconds = self.top1[network, images], time.perf_counter() - began
        top1 = self.accuracy(model, images)
        row = {"network": network, "way": way, "top1": top1, "original": original, **facts}
        self.rows.append({**row, "lost": original - top1, "seconds": seconds})
        print(
            f"{network:24s} {way:24s} {facts['data']:14s} {facts['images']:6d} images  "
            f"top-1 {top1:6.2f} of {original:6.2f}  {seconds:6.0f} s",
            flush=True,
        )

    def run(self, network: str, images: int, photos: bool = False) -> Any:
        """A fitted run of the network on training images, or on the photographs."""
        data = self.options.photos if photos else f"{self.options.folder}?split=train"
        out = self.place / f"{network.split(':')[1]}_{'photos' if photos else 'train'}_{images}"
        if out.exists():
            return probe.open_run(out)
        run = capture(load_model(network), data, out=out, num_images=images)
        fit(run)
        return run

    def replaced(
        self,
        network: str,
        images: int,
        way: str,
        *,
        steps: int = 0,
        train: str = "norms",
        learned: int | None = None,
        photos: bool = False,
        test_images: int = 2000,
    ) -> Any:
        """One row. steps: of a distillation on the images of the run, or on `learned` images."""
        run = self.run(network, images, photos)
        data = self.options.photos if photos else f"{self.options.folder}?split=train"
        began = time.perf_counter()
        # few images to measure convert's own table on: the numbers here are of the test images
        shared = {"num_images": 16, "calibrate": way != "converted"}
        if steps:
            done = probe.distill(
                run,
                data=data,
                out=self.place / f"{len(self.rows)}.safetensors",
                steps=steps,
                train=train,
                train_images=learned or images,
                precision=self.options.precision,
                **shared,
            )
        else:
            done = probe.convert(run, **shared)
        facts = {"images": learned or images, "test_images": test_images}
        where = "photographs" if photos else "CIFAR-10"
        self.note(done.model, network, way, began, steps=steps, data=where, **facts)
        return done


def final(study: Study) -> None:
    """The bundled networks with all images, on the whole test split."""
    steps, all_tests = study.options.steps, {"test_images": 10_000}
    for network, updates in ((VIT, steps), (RESNET, steps // 2)):
        for way in ("converted", "calibrated"):
            study.replaced(network, 256, way, **all_tests)
        for train in ("norms", "all"):
            way = f"distilled, {train}"
            study.replaced(network, 256, way, steps=updates, train=train, learned=MANY, **all_tests)


def curves(study: Study) -> None:
    """Accuracy against the number of images."""
    steps = study.options.curve_steps
    for images in IMAGES:
        study.replaced(VIT, images, "converted")
        study.replaced(VIT, images, "calibrated")
        for train in ("norms", "all"):
            study.replaced(VIT, images, f"distilled, {train}", steps=steps, train=train)
    if study.options.photos:
        study.replaced(VIT, IMAGES[-1], "converted", photos=True)
        study.replaced(VIT, IMAGES[-1], "calibrated", photos=True)
        for train in ("norms", "all"):
            way = f"distilled, {train}"
            study.replaced(VIT, IMAGES[-1], way, steps=steps, train=train, photos=True)


def layers(study: Study) -> pd.DataFrame:
    """What each layer of the ViT costs when replaced alone, beside the spread of its input."""
    run = study.run(VIT, 256)
    done = probe.convert(run, num_images=ABOUT)
    alphas = run.alphas().set_index("layer")
    alphas["extreme"] = alphas["max_abs_input"] / alphas["input_std"]
    about = alphas[["alpha", "r2", "r2_ceiling", "sigma_cv", "extreme"]]
    costs = done.table.set_index("layer")[["rel_error", "kl", "agreement"]]
    return about.join(costs).reset_index()


def speed(study: Study) -> pd.DataFrame:
    """Forward passes before and after: DyT in the ViT, folded BatchNorms in the ResNet."""
    done = probe.convert(study.run(VIT, 256), num_images=32, measure_speed=True)
    out = study.place / "folded.safetensors"
    folded = probe.fold_model(RESNET, out=out, num_images=32, measure_speed=True)
    rows = [
        {"change": change, **vars(each), "verdict": each.verdict}
        for change, speeds in (("DyT in the ViT", done.speed), ("ResNet folded", folded.speed))
        for each in speeds
    ]
    return pd.DataFrame(rows)


def measured_before(folder: Path | None) -> dict[str, pd.DataFrame]:
    """The tables that are there already."""
    files = {name: folder / file for name, file in FILES.items()} if folder else {}
    return {
        name: pd.read_csv(file, keep_default_na=False, na_values=[""])
        for name, file in files.items()
        if file.exists()
    }


def main() -> None:
    options = options_of_command_line()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        study = Study(options, Path(place))
        study.read_test_images()
        tables = measured_before(options.figures)
        if "layers" in options.parts:
            tables["layers"] = layers(study)
        if "speed" in options.parts:
            tables["speed"] = speed(study)
        if "final" in options.parts:
            final(study)
        if "curves" in options.parts:
            curves(study)
    before = [tables["results"]] if "results" in tables else []
    every = pd.concat([*before, pd.DataFrame(study.rows)])
    tables["results"] = every.drop_duplicates(subset=list(CASE), keep="last")
    minutes = (time.perf_counter() - began) / 60
    for table in tables.values():
        print(table.to_string(index=False))
    print(f"{minutes:.1f} minutes")
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = options.figures / FILES[name]
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        draw(tables, options.figures)
    if options.markdown:
        write_measured(options.markdown, page(tables, options))


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--photos", help="a folder of photographs")
    parser.add_argument("--steps", type=int, default=500, help="updates of the final distillations")
    parser.add_argument("--curve-steps", type=int, default=100, help="those of the curves")
    parser.add_argument("--precision", default="no", help="no or bf16, of the distillations")
    parser.add_argument("--parts", nargs="*", default=["layers", "speed", "final", "curves"])
    parser.add_argument("--figures", type=Path, help="folder for tables and the figure")
    parser.add_argument("--markdown", type=Path, help="write the page of the documentation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
