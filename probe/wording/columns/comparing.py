"""comparison.csv, cells.csv, grid.csv and the rows of the runs of a comparison."""

from __future__ import annotations

from probe.formatting import thousands, whole
from probe.wording.columns.attention import HEADS
from probe.wording.columns.column import Column, any_has, shown_column
from probe.wording.columns.tracking import CHECKPOINT, EPOCH, TRACK
from probe.wording.columns.training import two
from probe.wording.phrases import Row

NORM = Column(
    "norm",
    "The norm as it was asked for: its name, own for the network's, with :start and +options.",
    "text",
    left=True,
    rank=0,
    page=True,
)
SEED = Column("seed", "Decides start, order and augmentation, the same for all norms.", "count")


def _signed(value: object) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _interval(row: Row) -> str:
    """`-1.20 [-2.00, -0.40]`; the reference has none."""
    if row.get("difference") is None:
        return "reference" if row.get("norm") == row.get("reference") else "-"
    if row.get("difference_low") is None:
        return f"{_signed(row['difference'])} (n = 1)"
    return (
        f"{_signed(row['difference'])} [{_signed(row['difference_low'])}, "
        f"{_signed(row['difference_high'])}]"
    )


COMPARISON = (
    NORM,
    shown_column(
        "n",
        "Seeds whose training came to its end.",
        "count",
        0,
        "n",
        whole,
    ),
    Column(
        "failed",
        "Seeds whose training did not.",
        "count",
        format=whole,
        rank=1,
        page=True,
        wanted=lambda rows: any(row["failed"] for row in rows),
    ),
    shown_column(
        "top1_mean",
        "Mean over seeds of top-1 after the last epoch.",
        "%",
        0,
        "top-1 %",
        two,
    ),
    shown_column(
        "top1_std",
        "Its standard deviation over seeds (n - 1).",
        "%",
        0,
        "std",
        two,
    ),
    Column("top1_min", "Lowest of the seeds.", "%"),
    Column("top1_max", "Highest of the seeds.", "%"),
    Column("reference", "The norm that the others are compared with.", "text"),
    Column("pairs", "Seeds that both have.", "count"),
    Column(
        "difference",
        "Mean over seeds of top-1 less that of the reference with the same seed; in brackets its "
        "95 % interval (Student's t of the paired differences).",
        "%",
        title="difference [95 %]",
        cell=_interval,
        rank=0,
        page=True,
        wanted=any_has("difference"),
    ),
    Column("difference_low", "Lower end of that interval; none for one pair.", "%"),
    Column("difference_high", "Upper end.", "%"),
    shown_column(
        "val_loss_mean",
        "Mean over seeds of the validation loss after the last epoch.",
        "nats",
        4,
        "val. loss",
    ),
    shown_column(
        "train_loss_mean",
        "Mean over seeds of the training loss of the last epoch.",
        "nats",
        4,
        "loss",
    ),
    shown_column(
        "seconds_per_epoch",
        "Median time of the training part of an epoch. It holds what else the machine did then.",
        "s",
        2,
        "s/epoch",
    ),
    shown_column(
        "parameters",
        "Parameters of the network.",
        "count",
        3,
        "parameters",
        thousands,
    ),
    shown_column(
        "forward_ms",
        "Median time of a forward pass in evaluation, networks in turns.",
        "s",
        3,
        "forward ms",
    ),
    shown_column(
        "forward_ratio",
        "The same over that of the reference, median of the turns.",
        "ratio",
        1,
        "forward/ref.",
    ),
    Column("forward_ratio_low", "Lower quartile of these ratios.", "ratio"),
    Column("forward_ratio_high", "Upper quartile.", "ratio"),
    shown_column(
        "attention_px_mean",
        "Attention distance of the final networks, mean over heads and layers, then over seeds.",
        "px",
        2,
        "attention px",
    ),
    Column("attention_px_std", "Its standard deviation over seeds.", "px"),
    shown_column(
        "lr",
        "Learning rate.",
        "ratio",
        3,
        "lr",
    ),
    Column("reason", "Why trainings failed.", "text"),
)

COMPARED_CELLS = (
    NORM,
    SEED,
    Column("status", "finished or failed.", "text"),
    Column("reason", "Why the training failed.", "text"),
    Column("lr", "Learning rate of the recipe, or as chosen from the grid.", "ratio"),
    Column("top1", "Validation images whose class is ranked first, after the last epoch.", "%"),
    Column("top5", "Among the first five.", "%"),
    Column("val_loss", "Validation loss after the last epoch.", "nats"),
    Column("train_loss", "Training loss of the last epoch.", "nats"),
    Column("epochs", "Epochs of the training.", "count"),
    Column("parameters", "Parameters of the network.", "count"),
    Column("seconds_per_epoch", "Median time of the training part of an epoch.", "s"),
    Column("attention_px", "Attention distance, mean over heads and layers.", "px"),
)

RATES = (
    NORM,
    Column("lr", "Learning rate that was tried.", "ratio"),
    Column("status", "finished or failed.", "text"),
    Column("reason", "Why the training failed.", "text"),
    Column("top1", "Top-1 on the training images held back.", "%"),
    Column("val_loss", "Loss on them.", "nats"),
    Column("chosen", "Is it the one that the norm is compared with?", "bool"),
)

_OF_TRACKING = {CHECKPOINT.name, EPOCH.name}
COMPARED_LAYERS = (NORM, SEED, *(each for each in TRACK if each.name not in _OF_TRACKING))
COMPARED_HEADS = (NORM, SEED, *HEADS)
