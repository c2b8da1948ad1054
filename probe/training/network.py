"""The network of a training: loaded, with a head for the classes of the data, with the recipe's
normalizers, tried on one batch before any work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probe.errors import UsageError, first_line
from probe.jobs.inputs import open_model, shown_name
from probe.jobs.replacing.replace import replace_norms
from probe.models.architectures import takes_norm
from probe.models.loading.load import Model, load_model, split_name
from probe.models.loading.trained import replace_head
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import list_norm_layers
from probe.norms.registry import norm_maker, norm_options
from probe.training.augment import Look, look_of
from probe.training.randomness import Stream, seeded
from probe.training.recipe import Recipe

# whose statistics in training are those of the batch, over images
OF_BATCHES = ("batch_norm", "switch_norm", "power_norm", "unified_norm", "rep_batch_norm")
WITH_CONSTRUCTORS = ("timm", "torchvision")  # whose constructors take num_classes


@dataclass(frozen=True)
class Network:
    """What is trained. constructor: options with which load_model builds it again."""

    model: Model
    look: Look
    constructor: dict[str, Any]
    replaced: tuple[str, ...]  # paths of the layers whose norm is the recipe's
    norm: str | None
    norm_options: dict[str, Any]
    notes: list[str] = field(default_factory=list)  # what people should know, one sentence each

    @property
    def module(self) -> nn.Module:
        return self.model.module

    @property
    def name(self) -> str:
        """As load_model takes it; a plain module by its class."""
        return shown_name(self.model)


def build_network(
    recipe: Recipe,
    classes: int,
    model: Model | nn.Module | None = None,
    alphas: Any = None,
    offline: bool = False,
) -> Network:
    """The recipe's network on the CPU; model: one that is there already, in place of the named one.

    Raises UsageError for what cannot be built, for classes that do not fit the data, for a norm
    that does not fit the network.
    """
    if recipe.norm is not None:
        norm_maker(recipe.norm)  # an unknown one, before anything is loaded
    notes: list[str] = []
    if model is None:
        loaded, constructor = _load(recipe, classes, offline)
    else:
        loaded, constructor = open_model(model), {}
    notes += _fit_head(loaded, classes, recipe.seed)
    replaced, options = _replace(loaded, recipe, alphas, notes)
    look = look_of(recipe, loaded)
    if recipe.norm or notes:
        loaded.fingerprint = fingerprint(loaded.module)
    network = Network(loaded, look, constructor, replaced, recipe.norm, options, notes)
    _try(network, recipe, classes)
    return network


def _load(recipe: Recipe, classes: int, offline: bool) -> tuple[Model, dict[str, Any]]:
    options = dict(recipe.model_options)
    origin = split_name(recipe.model)[0]
    asked = options.get("num_classes", classes)
    if asked != classes:
        raise UsageError(
            f"num_classes={asked} does not fit the data, which has {classes} classes: leave it out"
        )
    if recipe.drop_path is not None:
        options["drop_path_rate"] = recipe.drop_path
    if recipe.weights == "random" and origin in WITH_CONSTRUCTORS:
        options["num_classes"] = classes
    if takes_norm(recipe.model) and recipe.norm is not None:
        options |= {"norm": recipe.norm, "norm_options": dict(recipe.norm_options)}
    for sized in _with_size(recipe, options):
        try:
            loaded = load_model(
                recipe.model,
                weights=recipe.weights,
                device="cpu",
                seed=recipe.seed,
                offline=offline,
                **sized,
            )
        except UsageError as error:
            if "img_size" in str(error) and sized is not options:
                continue  # a network without a size of its own, as ResNets
            raise
        return loaded, sized
    raise AssertionError("the last attempt returns or raises")


def _with_size(recipe: Recipe, options: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The constructor is told the image size where it takes one."""
    if recipe.image_size is not None and "img_size" not in options:
        yield {**options, "img_size": recipe.image_size}
    yield options


def _fit_head(model: Model, classes: int, seed: int) -> list[str]:
    """A new last layer where that of the network has another number of classes."""
    head = classifier_of(model.module)
    if head is None:
        return []
    name, layer = head
    if layer.out_features == classes:
        return []
    with seeded(seed, Stream.HEAD):
        replace_head(model.module, name, classes)
    return [f"new head {name} of {classes} classes, as the data has; it had {layer.out_features}"]


def classifier_of(module: nn.Module) -> tuple[str, nn.Linear] | None:
    """The last linear layer, which gives the logits; None where there is none."""
    linear = [(name, each) for name, each in module.named_modules() if isinstance(each, nn.Linear)]
    heads = getattr(module, "pretrained_cfg", None) or {}
    named = heads.get("classifier") if isinstance(heads, dict) else None
    by_name = dict(linear)
    if isinstance(named, str) and named in by_name:
        return named, by_name[named]
    return linear[-1] if linear else None


def _replace(
    model: Model, recipe: Recipe, alphas: Any, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Paths of the replaced layers, and the options of their norm."""
    if recipe.norm is None:
        if alphas is not None:
            raise UsageError("--alphas start a norm that is swapped in: give --norm dyt")
        return (), {}
    if takes_norm(recipe.model):
        if alphas is not None or recipe.init is not None:
            raise UsageError(
                f"{recipe.model} makes its layers with {recipe.norm} itself, at its own start: "
                "leave --init and --alphas out"
            )
        notes.append(f"{recipe.norm} where the source has it, by the network's own constructor")
        return (), {}
    options = _norm_options(model.module, recipe, notes)
    with seeded(recipe.seed, Stream.NORMS):  # some norms draw their start
        swapped = replace_norms(
            model, recipe.norm, recipe.norm_layers, init=recipe.init, alphas=alphas, **options
        )
    kept = [each for each in swapped.outcomes if each.status == "kept"]
    replaced = [each.layer for each in swapped.outcomes if each.status == "replaced"]
    notes.append(f"{recipe.norm} in place of {len(replaced)} of {len(swapped.outcomes)} norms")
    if kept:
        notes.append(f"kept: {', '.join(each.layer for each in kept[:3])} ({kept[0].reason})")
    return tuple(replaced), options


def _norm_options(module: nn.Module, recipe: Recipe, notes: list[str]) -> dict[str, Any]:
    """The recipe's, and the number of heads of the network where the norm takes one."""
    assert recipe.norm is not None
    options = dict(recipe.norm_options)
    plain = recipe.norm.removesuffix("_2d")
    prefix = getattr(module, "num_prefix_tokens", 0)
    if plain == "dtn" and prefix and "prefix_tokens" not in options:
        raise UsageError(
            f"dtn: {recipe.model} has {prefix} class or register token in its blocks, which has no "
            "place on the grid; give --model-options class_token=false,global_pool=avg, a network "
            "where it joins late, or --norm-options "
            f"prefix_tokens={prefix} to normalize it by its own channels"
        )
    accepted = norm_options(recipe.norm) or ()
    heads = {each.num_heads for each in module.modules() if _counts_heads(each)}
    takes_heads = "num_heads" in accepted and plain == recipe.norm
    if takes_heads and "num_heads" not in options and len(heads) == 1:
        options["num_heads"] = heads.pop()
        notes.append(f"{recipe.norm} of {options['num_heads']} heads, as the attention has")
    return options


def _counts_heads(module: nn.Module) -> bool:
    return isinstance(getattr(module, "num_heads", None), int)


def of_batches(module: nn.Module) -> list[str]:
    """The layers whose statistics in training are those of a batch."""
    try:
        layers = list_norm_layers(module)
    except UsageError:  # no norm at all
        return []
    return [layer.name for layer in layers if layer.kind.removesuffix("_2d") in OF_BATCHES]


def _try(network: Network, recipe: Recipe, classes: int) -> None:
    """One forward pass in evaluation mode. Raises UsageError where the images do not fit."""
    images = torch.zeros(1, 3, *network.look.size)
    before = network.module.training
    network.module.eval()
    try:
        with torch.no_grad():
            logits = logits_of(network.module(images))
    except UsageError as error:
        raise UsageError(
            f"{recipe.norm or 'the norm'} does not fit {recipe.model}: {error}; choose the layers "
            "by --norm-layers, e.g. 'blocks.*', or give --norm-options"
        ) from error
    except Exception as error:  # networks raise many types for images of another size
        raise UsageError(
            f"{recipe.model} does not take images of {network.look.size[0]} x "
            f"{network.look.size[1]} pixels ({first_line(error)[:200]}): give --image-size N"
        ) from error
    finally:
        network.module.train(before)
    if logits.shape != (1, classes):
        raise UsageError(
            f"{recipe.model} gives {tuple(logits.shape[1:])} for an image; logits of {classes} "
            "classes are needed, and it has no linear head that could be replaced"
        )


def logits_of(output: Any) -> torch.Tensor:
    """Logits (B, K) of a tensor, a tuple that begins with one, or an object with `.logits`. Raises
    UsageError for any other output.
    """
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise UsageError(f"the network gives a {type(logits).__name__}; logits are needed")
    return logits
