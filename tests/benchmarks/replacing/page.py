"""What bench_replace measured, as a figure and as the page of the documentation."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from peers.tables import machine
from probe.jobs.figure_file import save
from probe.plots import style
from probe.plots.layout import blank

WAYS = {
    "converted": ("#999999", "o"),
    "calibrated": ("#0072b2", "s"),
    "distilled, norms": ("#009e73", "^"),
    "distilled, all": ("#d55e00", "D"),
}
VIT = "bundled:vit_cifar10"
Tables = Mapping[str, pd.DataFrame]

PAGE = (Path(__file__).parent / "template.md").read_text(encoding="utf-8")


def page(tables: Tables, options: argparse.Namespace) -> str:
    import torch

    results, layers = tables["results"], tables["layers"]
    whole = results[results["test_images"] == 10_000] if len(results) else results
    part = results[results["test_images"] < 10_000] if len(results) else results
    return PAGE.format(
        machine=machine(),
        torch=torch.__version__,
        steps=options.steps,
        half=options.steps // 2,
        curve_steps=options.curve_steps,
        precision=options.precision,
        final=final_table(whole),
        curves=curve_table(part),
        layers=layer_table(layers),
        speed=speed_table(tables["speed"]) if "speed" in tables else "Not measured.",
        cv=ranks(layers, layers["sigma_cv"]),
        extreme=ranks(layers, layers["extreme"]),
        depth=ranks(layers, pd.Series(range(len(layers)))),
        left=ranks(layers, 1 - layers["r2"]),
    )


def ranks(layers: pd.DataFrame, cause: pd.Series) -> float:
    """Spearman's correlation with the KL."""
    ranked = (cause.rank().to_numpy(), layers["kl"].rank().to_numpy())
    return float(np.corrcoef(*ranked)[0, 1])


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def final_table(results: pd.DataFrame) -> str:
    header = ["network", "step", "updates", "top-1, %", "original", "lost, points", "seconds"]
    rows = [
        [
            *(row.network, row.way, str(row.steps) if row.steps else "-"),
            *(f"{row.top1:.2f}", f"{row.original:.2f}", f"{row.lost:.2f}", f"{row.seconds:.0f}"),
        ]
        for row in results.itertuples()
    ]
    return "All 10,000 test images; distilled on 10,000 training images.\n\n" + markdown(
        header, rows
    )


def curve_table(results: pd.DataFrame) -> str:
    """Top-1 by number of images and way."""
    if not len(results):
        return ""
    ways = [way for way in WAYS if way in set(results["way"])]
    rows = []
    for (data, images), part in results.groupby(["data", "images"], sort=False):
        top1 = part.set_index("way")["top1"]
        cells = [f"{top1[way]:.2f}" if way in top1 else "" for way in ways]
        rows.append([str(data), str(images), *cells])
    original = results["original"].iloc[0]
    return (
        f"The first 2,000 test images, of which the original gets {original:.2f} % right.\n\n"
        + markdown(["images of", "number", *ways], rows)
    )


def layer_table(layers: pd.DataFrame) -> str:
    header = ["layer", "alpha", "R2", "sigma_cv", "extreme", "output error", "KL", "same class, %"]
    rows = [
        [
            *(row.layer, f"{row.alpha:.3g}", f"{row.r2:.3f}", f"{row.sigma_cv:.3f}"),
            *(f"{row.extreme:.1f}", f"{row.rel_error:.3f}", f"{row.kl:.3g}"),
            f"{100 * row.agreement:.1f}",
        ]
        for row in layers.itertuples()
    ]
    return markdown(header, rows)


def speed_table(speeds: pd.DataFrame) -> str:
    header = ["change", "mode", "images", "before, ms", "after, ms", "times as fast", "result"]
    rows = []
    for row in speeds.itertuples():
        ratio = f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]" if row.pairs else row.note
        times = [f"{each:.1f}" if row.pairs else "" for each in (row.before_ms, row.after_ms)]
        rows.append([row.change, row.mode, str(row.batch), *times, ratio, row.verdict])
    where = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"On {where}; in brackets the quartiles over pairs.\n\n" + markdown(header, rows)


def draw(tables: Tables, folder: Path) -> list[Path]:
    """replacing.png and .svg: accuracy against the number of images; the cost of each layer."""
    results, layers = tables["results"], tables["layers"]
    with style.theme():
        figure = blank(8.4, 3.4)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.25, wspace=0.28)
        if len(results):
            accuracy_curves(left, results)
        spread_of_scale(right, layers)
        return save(figure, folder / "replacing", lambda path, data: _write(path, data))


def accuracy_curves(ax: Axes, results: pd.DataFrame) -> None:
    few = results[(results["test_images"] < 10_000) & (results["network"] == VIT)]
    for way, (colour, marker) in WAYS.items():
        rows = few[few["way"] == way]
        own, others = rows[rows["data"] == "CIFAR-10"], rows[rows["data"] != "CIFAR-10"]
        ax.plot(own["images"], own["top1"], color=colour, marker=marker, label=way)
        ax.plot(others["images"] * 1.15, others["top1"], marker, color=colour, mfc="none")
    if len(few):
        ax.axhline(few["original"].iloc[0], color="black", lw=0.8, ls="--", label="original")
    ax.set_xscale("log", base=2)
    ax.set_xticks([16, 64, 256, 800], ["16", "64", "256", "800"])
    ax.set_xlabel("images, without labels")
    ax.set_ylabel("top-1, %")
    photographs = " (hollow: photographs)" if (few["data"] != "CIFAR-10").any() else ""
    ax.set_title(f"ViT, all norms as DyT{photographs}")
    ax.legend(
        frameon=False,
        fontsize=7,
        ncol=5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        columnspacing=0.8,
        handletextpad=0.3,
        handlelength=1.5,
    )


def spread_of_scale(ax: Axes, layers: pd.DataFrame) -> None:
    ax.scatter(layers["sigma_cv"], layers["kl"], color="#0072b2", s=18)
    middle = layers["sigma_cv"].agg(["min", "max"]).mean()
    for row in layers.nlargest(4, "kl").itertuples():
        right = row.sigma_cv > middle  # of the panel, where there is room to the left
        ax.annotate(
            row.layer.removeprefix("blocks."),
            (row.sigma_cv, row.kl),
            fontsize=7,
            xytext=(-4 if right else 4, 2),
            ha="right" if right else "left",
            textcoords="offset points",
        )
    ax.set_yscale("log")
    ax.set_xlabel("spread of the tokens' scale (sigma_cv)")
    ax.set_ylabel("KL of the layer replaced alone, nats")
    ax.set_title("Which layers resist")


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
