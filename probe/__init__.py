"""probe: what function does each normalization layer of a vision model compute?

Everything is imported when it is first used, so that `import probe` costs nothing and needs no
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe import norms, plots
    from probe.errors import ProbeError, UsageError
    from probe.jobs.analyze import analyze
    from probe.jobs.capturing.attention import attention_distance
    from probe.jobs.capturing.capture import capture
    from probe.jobs.capturing.grid_check import check_attention_grid
    from probe.jobs.converting.convert import convert
    from probe.jobs.converting.converted_file import load_converted
    from probe.jobs.drawing.attention import draw_attention
    from probe.jobs.drawing.compare import compare
    from probe.jobs.drawing.draw import figure, plot
    from probe.jobs.fitting.fit import fit
    from probe.jobs.folding.fold_model import fold_model
    from probe.jobs.folding.folded_file import load_folded, save_folded
    from probe.jobs.replacing.export import export_alphas
    from probe.jobs.replacing.replace import replace_norms
    from probe.jobs.reporting.findings import findings
    from probe.jobs.reporting.report import report
    from probe.models.folding.fold import fold
    from probe.models.loading.load import load_model
    from probe.models.reading.layers import list_norm_layers
    from probe.models.reading.registration import register_norm, unregister_norm
    from probe.store.run import open_run
    from probe.training.comparing.compare import compare_norms
    from probe.training.distilling.distill import distill
    from probe.training.evaluate import evaluate
    from probe.training.result import open_training
    from probe.training.tracking.track import track
    from probe.training.train import train

__version__ = "0.1.0"

# Public name -> the module that defines it. No function may be called like a sub-package: the first
# import would replace it.
_HOME = {
    "ProbeError": "probe.errors",
    "UsageError": "probe.errors",
    "analyze": "probe.jobs.analyze",
    "attention_distance": "probe.jobs.capturing.attention",
    "capture": "probe.jobs.capturing.capture",
    "check_attention_grid": "probe.jobs.capturing.grid_check",
    "compare": "probe.jobs.drawing.compare",
    "compare_norms": "probe.training.comparing.compare",
    "convert": "probe.jobs.converting.convert",
    "distill": "probe.training.distilling.distill",
    "draw_attention": "probe.jobs.drawing.attention",
    "evaluate": "probe.training.evaluate",
    "export_alphas": "probe.jobs.replacing.export",
    "figure": "probe.jobs.drawing.draw",
    "findings": "probe.jobs.reporting.findings",
    "fit": "probe.jobs.fitting.fit",
    "fold": "probe.models.folding.fold",
    "fold_model": "probe.jobs.folding.fold_model",
    "list_norm_layers": "probe.models.reading.layers",
    "load_converted": "probe.jobs.converting.converted_file",
    "load_folded": "probe.jobs.folding.folded_file",
    "load_model": "probe.models.loading.load",
    "open_run": "probe.store.run",
    "open_training": "probe.training.result",
    "plot": "probe.jobs.drawing.draw",
    "register_norm": "probe.models.reading.registration",
    "replace_norms": "probe.jobs.replacing.replace",
    "report": "probe.jobs.reporting.report",
    "save_folded": "probe.jobs.folding.folded_file",
    "track": "probe.training.tracking.track",
    "train": "probe.training.train",
    "unregister_norm": "probe.models.reading.registration",
}

__all__ = [
    "ProbeError",
    "UsageError",
    "__version__",
    "analyze",
    "attention_distance",
    "capture",
    "check_attention_grid",
    "compare",
    "compare_norms",
    "convert",
    "distill",
    "draw_attention",
    "evaluate",
    "export_alphas",
    "figure",
    "findings",
    "fit",
    "fold",
    "fold_model",
    "list_norm_layers",
    "load_converted",
    "load_folded",
    "load_model",
    "norms",
    "open_run",
    "open_training",
    "plot",
    "plots",
    "register_norm",
    "replace_norms",
    "report",
    "save_folded",
    "track",
    "train",
    "unregister_norm",
]


def __getattr__(name: str) -> Any:
    """PEP 562: imports the home of a public name at its first use."""
    if name in ("norms", "plots"):
        return importlib.import_module(f"probe.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
