"""How each tool is used: one function a tool, from a model and batches to files in `job.out`.

Each follows the documentation that `peers.tools` links to. Where a tool hands out tensors, its
statistics and rows are taken batch by batch with `Outcome`, which costs least memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from peers.outcome import SIDES, Outcome, Rows, as_rows, element_columns


@dataclass(frozen=True)
class Job:
    """The model, the names of its norm layers in execution order, and what goes through it."""

    model: nn.Module
    layers: list[str]
    batches: list[Tensor]  # (B, 3, H, W) each
    rows: Rows
    out: Path

    def numbered(self) -> Iterator[tuple[int, Tensor]]:
        """Each batch with the number of its first image."""
        first = 0
        for batch in self.batches:
            yield first, batch
            first += len(batch)


def bare(job: Job) -> None:
    with torch.no_grad():
        for batch in job.batches:
            job.model(batch)


def probe(job: Job) -> None:
    from probe import capture

    # beyond the outcome that is asked for, this keeps ranges, normalized values and the profile
    samples = max(len(rows) for rows in job.rows.values())
    capture(job.model, job.batches, out=job.out / "run", samples=samples, tail=2)


def keep_with_hooks(job: Job, keep: Callable[[Tensor], Tensor]) -> None:
    """What most people write: everything in lists, tables at the end."""
    kept: dict[tuple[str, str], list[Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def store(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept.setdefault((name, "input"), []).append(keep(inputs[0]))
            kept.setdefault((name, "output"), []).append(keep(output))

        return store

    handles = [
        job.model.get_submodule(name).register_forward_hook(hook(name)) for name in job.layers
    ]
    bare(job)
    for handle in handles:
        handle.remove()
    moments, samples = [], []
    for name in job.layers:
        of_layer, elements = tables_of(job, name, [kept.pop((name, side)) for side in SIDES])
        moments.append(of_layer)
        samples.append(elements)
    pd.concat(moments).to_parquet(job.out / "moments.parquet")
    pd.concat(samples).to_parquet(job.out / "samples.parquet")


def tables_of(job: Job, name: str, sides: list[list[Tensor]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Moments and elements of one layer, from all of its batches at once."""
    columns: dict[str, Any] = {"layer": name}
    values = {}
    for side, batches in zip(SIDES, sides, strict=True):
        rows = as_rows(torch.cat(batches))
        variance, mean = torch.var_mean(rows, (0, 1), correction=0)
        columns |= {f"mean_{side}": mean.numpy(), f"var_{side}": variance.numpy()}
        chosen = job.rows[rows.shape[1]]
        values[side] = rows[chosen[:, 0], chosen[:, 1]].numpy()
    where = element_columns(name, chosen, len(mean))
    elements = pd.DataFrame(
        {key: np.asarray(column) for key, column in where.items() if key != "layer"}
        | {side: array.ravel() for side, array in values.items()}
    )
    elements["layer"] = pd.Categorical([name], job.layers).repeat(len(elements))
    return pd.DataFrame(columns).rename_axis("channel").reset_index(), elements


def hooks_detach(job: Job) -> None:
    keep_with_hooks(job, Tensor.detach)


def hooks_clone(job: Job) -> None:
    keep_with_hooks(job, Tensor.clone)


def hooks_streaming(job: Job) -> None:
    outcome, first = Outcome(job.rows), 0

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outcome.add(name, "input", first, inputs[0])
            outcome.add(name, "output", first, output)

        return add

    handles = [
        job.model.get_submodule(name).register_forward_hook(hook(name)) for name in job.layers
    ]
    with torch.no_grad():
        for first, batch in job.numbered():  # noqa: B007 (the hooks read it)
            job.model(batch)
    for handle in handles:
        handle.remove()
    outcome.write(job.out)


def captum(job: Job) -> None:
    from captum.attr import LayerActivation

    activation = LayerActivation(job.model, [job.model.get_submodule(n) for n in job.layers])
    outcome = Outcome(job.rows)
    for first, batch in job.numbered():
        for side in SIDES:
            values = activation.attribute(batch, attribute_to_layer_input=side == "input")
            for name, x in zip(job.layers, values, strict=True):
                # inputs of a layer come as a tuple of its arguments
                outcome.add(name, side, first, x[0] if isinstance(x, tuple) else x)
    outcome.write(job.out)


def nnsight_cache(job: Job) -> None:
    from nnsight import NNsight

    model, outcome = NNsight(job.model), Outcome(job.rows)
    paths = [f"model.{name}" for name in job.layers]
    with torch.no_grad():
        for first, batch in job.numbered():
            with model.trace(batch) as tracer:
                cache = tracer.cache(modules=paths, include_inputs=True)
            for name, path in zip(job.layers, paths, strict=True):
                outcome.add(name, "input", first, cache[path].input)
                outcome.add(name, "output", first, cache[path].output)
    outcome.write(job.out)


def nnsight_clone(job: Job) -> None:
    import nnsight

    model, outcome = nnsight.NNsight(job.model), Outcome(job.rows)
    layers = [(name, model.get(name)) for name in job.layers]
    with torch.no_grad():
        for first, batch in job.numbered():
            with model.trace(batch):
                kept = nnsight.save([])
                for name, layer in layers:
                    kept.append((name, "input", layer.input.clone()))
                    kept.append((name, "output", layer.output.clone()))
            for name, side, x in kept:
                outcome.add(name, side, first, x)
    outcome.write(job.out)


def thingsvision(job: Job) -> None:
    from thingsvision import get_extractor_from_model

    extractor = get_extractor_from_model(model=job.model, device="cpu", backend="pt")
    before = modules_before(job)
    names = list(dict.fromkeys([*job.layers, *before.values()]))
    outcome = Outcome(job.rows)
    with extractor.batch_extraction(module_names=names, output_type="tensor") as extraction:
        for first, batch in job.numbered():
            values = extraction.extract_batch(batch=batch, flatten_acts=False)
            for name in job.layers:
                outcome.add(name, "output", first, values[name])
                if name in before:
                    outcome.add(name, "input", first, values[before[name]])
    outcome.write(job.out)


def modules_before(job: Job) -> dict[str, str]:
    """Layer -> the module whose output is the very tensor that enters the layer, where there is
    one. A user would read this in the source of the model.
    """
    made_by: dict[int, str] = {}
    alive, before = [], {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def look(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name in job.layers and id(inputs[0]) in made_by:
                before[name] = made_by[id(inputs[0])]
            if isinstance(output, Tensor):
                alive.append(output)  # so that no other tensor gets its id
                made_by[id(output)] = name

        return look

    handles = [m.register_forward_hook(hook(n)) for n, m in job.model.named_modules() if n]
    with torch.no_grad():
        job.model(job.batches[0][:1])
    for handle in handles:
        handle.remove()
    return before


def torchvision(job: Job) -> None:
    from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor

    norms = {type(job.model.get_submodule(name)) for name in job.layers}
    tracer = NodePathTracer(leaf_modules=list(norms))
    tracer.trace(job.model)
    names = tracer.node_to_qualname
    before = {str(node.target): names[node.args[0]] for node in names if node.target in job.layers}
    extractor = create_feature_extractor(
        job.model,
        list(dict.fromkeys([*job.layers, *before.values()])),
        tracer_kwargs={"leaf_modules": list(norms)},
    )
    outcome = Outcome(job.rows)
    with torch.no_grad():
        for first, batch in job.numbered():
            values = extractor(batch)
            for name in job.layers:
                outcome.add(name, "input", first, values[before[name]])
                outcome.add(name, "output", first, values[name])
    outcome.write(job.out)


def without_inplace(model: nn.Module) -> None:
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False


def torchvision_careful(job: Job) -> None:
    without_inplace(job.model)
    torchvision(job)


def extract(job: Job, keep: Callable[[Tensor], Tensor]) -> None:
    import torchextractor

    def capture(_: nn.Module, inputs: Any, output: Tensor, name: str, maps: dict[str, Any]) -> None:
        maps[name] = (keep(inputs[0]), keep(output))

    extractor = torchextractor.Extractor(job.model, job.layers, capture_fn=capture)
    outcome = Outcome(job.rows)
    with torch.no_grad():
        for first, batch in job.numbered():
            _, maps = extractor(batch)
            for name in job.layers:
                for side, x in zip(SIDES, maps[name], strict=True):
                    outcome.add(name, side, first, x)
    outcome.write(job.out)


def torchextractor(job: Job) -> None:
    extract(job, Tensor.detach)


def torchextractor_clone(job: Job) -> None:
    extract(job, Tensor.clone)


def timm(job: Job) -> None:
    from timm.models import FeatureHooks

    kinds = {"input": "forward_pre", "output": "forward"}
    keys = [(name, side) for name in job.layers for side in SIDES]
    hooks = FeatureHooks(
        [{"module": name, "hook_type": kinds[side]} for name, side in keys],
        list(job.model.named_modules()),
        out_map=[f"{name} {side}" for name, side in keys],
    )
    outcome = Outcome(job.rows)
    with torch.no_grad():
        for first, batch in job.numbered():
            job.model(batch)
            values = hooks.get_output(batch.device)
            for name, side in keys:
                outcome.add(name, side, first, values[f"{name} {side}"])
    outcome.write(job.out)


def timm_careful(job: Job) -> None:
    without_inplace(job.model)
    timm(job)


def trace_with_baukit(job: Job, clone: bool) -> None:
    from baukit import TraceDict
    from baukit.runningstats import Variance

    outcome = Outcome(job.rows)
    running = {(name, side): Variance() for name in job.layers for side in SIDES}
    with torch.no_grad():
        for first, batch in job.numbered():
            with TraceDict(job.model, job.layers, retain_input=True, clone=clone) as traces:
                job.model(batch)
            for name in job.layers:
                for side, x in zip(SIDES, (traces[name].input, traces[name].output), strict=True):
                    rows = as_rows(x)
                    running[name, side].add(rows.reshape(-1, rows.shape[-1]))
                    outcome.add_rows(name, side, first, x)
    for key, variance in running.items():
        mean, var = variance.mean(), variance.variance(unbiased=False)
        outcome.add_moments(*key, variance.size(), mean.double().numpy(), var.double().numpy())
    outcome.write(job.out)


def baukit(job: Job) -> None:
    trace_with_baukit(job, clone=False)


def baukit_clone(job: Job) -> None:
    trace_with_baukit(job, clone=True)
