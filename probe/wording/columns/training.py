"""epochs.csv and norms.csv of a training."""

from __future__ import annotations

from probe.formatting import whole
from probe.wording.columns.column import Column, shown_column
from probe.wording.columns.layers import DEPTH, KIND, LAYER


def two(value: object) -> str:
    """Accuracies as papers give them."""
    return "-" if value is None else f"{value:.2f}"


EPOCHS = (
    shown_column("epoch", "Epoch; 0 is before training.", "count", 0, format=whole),
    shown_column("step", "Updates of the weights so far.", "count", 4, format=whole),
    shown_column("learning_rate", "Learning rate of the last update of the epoch.", "ratio", 2),
    shown_column(
        "train_loss", "Mean loss over the images of the epoch, as they were augmented.", "nats"
    ),
    shown_column("val_loss", "Mean cross entropy over the validation images.", "nats"),
    shown_column("top1", "Validation images whose class is ranked first.", "%", 0, "top-1 %", two),
    shown_column(
        "top5", "Validation images whose class is among the first five.", "%", 1, "top-5 %", two
    ),
    shown_column("seconds", "Time of the training part.", "s", 3),
    shown_column("eval_seconds", "Time of the evaluation.", "s", 5, "evaluation s"),
    shown_column("images_per_second", "Training images per second.", "ratio", 3, "images/s"),
)

NORMS = (
    Column("epoch", "Epoch; 0 is before training.", "count"),
    Column(LAYER.name, LAYER.meaning, LAYER.unit),
    DEPTH,
    Column(KIND.name, KIND.meaning, KIND.unit),
    Column(
        "quantity",
        "alpha, shift: of a DyT or Derf layer; beta: of DyISRU; mean_share, var_share: share of "
        "the token's own statistics in DTN, index = head, and weights of SwitchNorm; "
        "position_weight: of DTN, index = 3 * head + number; "
        "gain_mean, gain_std, gain_negative_share: of the weights over channels; running_scale: "
        "mean over channels of the root of a running variance or second moment; input_std, "
        "inverse_std: of the layer's input on the same images after each epoch.",
        "text",
    ),
    Column("index", "Which of several values; 0 where there is one.", "count"),
    Column("value", "The value.", "ratio"),
)
