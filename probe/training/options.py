"""How a training is run: what is no part of its recipe and may differ when it is continued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probe.errors import UsageError


@dataclass(frozen=True)
class Options:
    """data, val_data: see probe.training.images. alphas: what `init fitted` starts from."""

    data: str
    out: str
    val_data: str | None = None
    train_images: int | None = None  # of the training part; None: all
    val_images: int | None = None  # of the validation part
    held_back: float | None = None  # share of them that is validated on, in place of val_data
    alphas: Any = None
    device: str | None = None
    workers: int = 0
    processes: int = 1
    micro_batch: int | None = None  # images of a forward pass; None: the share of the process
    keep_every: int | None = None  # epochs between kept checkpoints
    probe_every: int | None = None  # epochs between captures
    save_minutes: float = 5.0  # between saves within an epoch
    log: str | None = None  # a tracker of accelerate
    report: bool = True  # figures and report.html at the end
    offline: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        least = {"workers": 0, "processes": 1, "micro_batch": 1, "keep_every": 1, "probe_every": 1}
        least |= {"train_images": 1, "val_images": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value}: must be at least {minimum}")
        if self.held_back is not None and not 0 < self.held_back < 1:
            raise UsageError(f"--held-back {self.held_back}: must be between 0 and 1")
        if self.save_minutes <= 0:
            raise UsageError(f"--save-minutes {self.save_minutes}: must be above 0")

    def share(self, batch_size: int, processes: int) -> int:
        """Images of a forward pass: as asked, else all that a process has of a batch."""
        whole = -(-batch_size // processes)
        return min(self.micro_batch or whole, whole)
