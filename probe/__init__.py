"""probe: what function does each normalization layer of a vision model compute?

Everything is imported when it is first used, so that `import probe` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe import norms, plots
    from probe.errors import ProbeError, UsageError
    from probe.models.fold import fold
    from probe.models.layers import list_norm_layers
    from probe.models.load import load_model
    from probe.pipeline.analyze import analyze
    from probe.pipeline.attention import attention_distance
    from probe.pipeline.attention_figures import draw_attention
    from probe.pipeline.capture import capture
    from probe.pipeline.compare_runs import compare
    from probe.pipeline.convert import convert
    from probe.pipeline.converted_file import load_converted
    from probe.pipeline.draw import figure, plot
    from probe.pipeline.export import export_alphas
    from probe.pipeline.fit_run import fit
    from probe.pipeline.fold_model import fold_model
    from probe.pipeline.folded_file import load_folded, save_folded
    from probe.pipeline.replace import replace_norms
    from probe.pipeline.report import report
    from probe.store.run import open_run

__version__ = "0.1.0"

# Public name -> the module that defines it. No function may be called like a sub-package: the first import would replace it.
_HOME = {
    "ProbeError": "probe.errors",
    "UsageError": "probe.errors",
    "analyze": "probe.pipeline.analyze",
    "attention_distance": "probe.pipeline.attention",
    "capture": "probe.pipeline.capture",
    "compare": "probe.pipeline.compare_runs",
    "convert": "probe.pipeline.convert",
    "draw_attention": "probe.pipeline.attention_figures",
    "export_alphas": "probe.pipeline.export",
    "figure": "probe.pipeline.draw",
    "fit": "probe.pipeline.fit_run",
    "fold": "probe.models.fold",
    "fold_model": "probe.pipeline.fold_model",
    "list_norm_layers": "probe.models.layers",
    "load_converted": "probe.pipeline.converted_file",
    "load_folded": "probe.pipeline.folded_file",
    "load_model": "probe.models.load",
    "open_run": "probe.store.run",
    "plot": "probe.pipeline.draw",
    "replace_norms": "probe.pipeline.replace",
    "report": "probe.pipeline.report",
    "save_folded": "probe.pipeline.folded_file",
}

__all__ = [
    "ProbeError",
    "UsageError",
    "__version__",
    "analyze",
    "attention_distance",
    "capture",
    "compare",
    "convert",
    "draw_attention",
    "export_alphas",
    "figure",
    "fit",
    "fold",
    "fold_model",
    "list_norm_layers",
    "load_converted",
    "load_folded",
    "load_model",
    "norms",
    "open_run",
    "plot",
    "plots",
    "replace_norms",
    "report",
    "save_folded",
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
