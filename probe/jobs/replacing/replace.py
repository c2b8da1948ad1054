"""Replace the normalization layers of a model by those of the zoo, started from fitted curves where
there are some.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import pandas as pd
from torch import nn

from probe.curves import StandIn
from probe.errors import UsageError, unknown
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.replacing.alpha_files import TABLES, file_stand_ins, read_table, table_stand_ins
from probe.jobs.replacing.stand_ins import ALPHA_FAMILY, SCOPES, Affines, StandIns, run_stand_ins
from probe.layer_names import Patterns
from probe.models.loading.load import Model
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import affine_of, list_norm_layers, norm_modules, unwrapped
from probe.models.replacing.curve_norms import NormChoice, fitted_family
from probe.models.replacing.spec import ReplacementSpec
from probe.models.replacing.swap import Swap, swap
from probe.paths import is_address, user_path
from probe.store import Run, open_run

Alphas: TypeAlias = Run | pd.DataFrame | Mapping[str, StandIn] | str | os.PathLike[str]


def replace_norms(
    module: nn.Module | Model,
    name: NormChoice,
    layers: Patterns = "*",
    init: str | None = None,
    alphas: Alphas | None = None,
    scope: str | None = None,
    **options: Any,
) -> Swap:
    """Replace the normalization layers of a model in place by the norm `name`; the answer has
    `.module`, `.report` and `.undo()`.

    name: of probe.norms.list_norms(), in the layout of each layer (`dyt` is `dyt_2d` on images), a
    class or a partial.
    layers: glob over module paths, several joined by commas.
    init: `default` (the norm's own), `match` (affine and running statistics of the old layer),
        `fitted` (the curves of `alphas`, with the layer's trained affine); None: fitted with
        alphas, else default.
    alphas: a run or its folder, a table or file of alphas (.csv, .json, .safetensors), or stand-ins
    by layer.
    scope: `channel` (one gamma and beta per channel) or `layer`; None: channel where the alphas
    have it (runs).
    options: for the norm (num_heads=, grid=, warmup=, ...).

    Layers that cannot be replaced are kept and reported with the reason. Raises UsageError where
    none can be, where none matches, and for alphas of another model.
    """
    inner = unwrapped(_module_of(module))
    init = init or ("default" if alphas is None else "fitted")
    stand_ins, left_out = None, None
    if alphas is not None:
        ReplacementSpec(name, init, {}, options=options)  # refused before anything is read
        stand_ins, left_out = _stand_ins(alphas, scope, name, _affines(inner, layers))
    elif scope is not None:
        raise UsageError("scope says how alphas are used; give alphas, or leave scope out")
    swapped = swap(
        inner, name, layers=layers, init=init, stand_ins=stand_ins, left_out=left_out, **options
    )
    if isinstance(module, Model):
        _sign(module, swapped)
    return swapped


def _module_of(module: Any) -> nn.Module:
    if isinstance(module, Model):
        return module.module
    if isinstance(module, nn.Module):
        return module
    raise UsageError(
        f"a {type(module).__name__} is no model; give an nn.Module or what load_model returns"
    )


def _affines(module: nn.Module, layers: Patterns) -> Affines:
    """Weight and bias of the layers that are asked for."""
    channels = {
        layer.name: layer.channels for layer in list_norm_layers(module, layers) if layer.channels
    }
    affines = {
        path: affine_of(child, channels[path])
        for path, child, _ in norm_modules(module)
        if path in channels
    }
    return {path: (weight.numpy(), bias.numpy()) for path, (weight, bias) in affines.items()}


def _stand_ins(alphas: Alphas, scope: str | None, norm: NormChoice, affines: Affines) -> StandIns:
    if scope not in (None, *SCOPES):
        raise unknown("scope", str(scope), SCOPES)
    if isinstance(alphas, Mapping):
        return dict(alphas), {}
    if isinstance(alphas, pd.DataFrame):
        return _of_table(alphas, scope, norm, affines)
    if isinstance(alphas, Run) or is_address(alphas):
        return _of_run(open_run(alphas), scope, norm, affines)
    if not isinstance(alphas, str | os.PathLike):
        raise UsageError(
            f"alphas of type {type(alphas).__name__}; accepted: a run, a table or a file (.csv, "
            ".json, .safetensors)"
        )
    path = user_path(alphas)
    if path.suffix in TABLES:
        return _of_table(read_table(path), scope, norm, affines)
    if path.suffix == ".safetensors":
        if scope is not None:
            raise UsageError(
                f"scope {scope!r} does not apply to {path.name}: a .safetensors file has one "
                "already"
            )
        return file_stand_ins(path)
    if path.is_file():
        raise UsageError(
            f"alphas {str(path)!r}: accepted: the folder of a run, or a file ending in .csv, "
            ".json or .safetensors"
        )
    return _of_run(open_run(path), scope, norm, affines)


def _of_run(run: Run, scope: str | None, norm: NormChoice, affines: Affines) -> StandIns:
    scope = scope or "channel"
    return run_stand_ins(ensure_fitted(run), scope, fitted_family(norm, scope), affines)


def _of_table(
    table: pd.DataFrame, scope: str | None, norm: NormChoice, affines: Affines
) -> StandIns:
    if scope == "channel":
        raise UsageError(
            "a table of alphas has no curve per channel: use scope 'layer', or give the run or "
            "its .safetensors"
        )
    family = fitted_family(norm, "layer")
    if family != ALPHA_FAMILY:
        raise UsageError(
            f"a table of alphas holds curves of {ALPHA_FAMILY}, for dyt; this norm is a curve of "
            f"{family}: give the run"
        )
    return table_stand_ins(table, affines)


def _sign(model: Model, swapped: Swap) -> None:
    """A model whose norms were replaced has other weights than those that were loaded, and says so
    until the swap is undone.
    """
    for name in ("fingerprint", "source"):
        swapped.after_undo(partial(setattr, model, name, getattr(model, name)))
    replaced = [outcome for outcome in swapped.outcomes if outcome.status == "replaced"]
    model.fingerprint = fingerprint(model.module)
    note = f"{len(replaced)} norms replaced by {replaced[0].new} ({replaced[0].init})"
    model.source = "; ".join(filter(None, (model.source, note)))
