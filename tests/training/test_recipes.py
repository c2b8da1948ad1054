"""Every recipe builds its network, says its plan and learns for two updates; its numbers are those
of its source.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import probe
from probe.errors import UsageError
from probe.norms.dtn import DTN
from probe.norms.dyt import DyT
from probe.training.choice import choose
from probe.training.network import build_network
from probe.training.optimizer import create_optimizer, undecayed
from probe.training.recipe import Recipe
from probe.training.recipes import RECIPES
from probe.training.recipes.page import changed_fields, page
from probe.training.schedules import learning_rate
from probe.training.train import planned
from support.tiny_training import colour_folders

# one epoch of two updates, on small networks of the same structure
QUICK = {"epochs": 1, "warmup_epochs": 0, "cooldown_epochs": 0, "batch_size": 20, "device": "cpu"}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3}
RESNET: dict[str, Any] = {"model": "torchvision:resnet18", "weights": "random", "image_size": 32}
SMALLER: dict[str, dict[str, Any]] = {
    "cifar-small": {},
    "dyt-vit": {"model_options": {"global_pool": "avg", **VIT}, "image_size": 32},
    "derf-vit": {"model_options": {"global_pool": "avg", **VIT}, "image_size": 32},
    "dtn-vit": {"model_options": {**VIT, "class_token_from": 1}, "image_size": 32, "repeats": 2},
    "dtn-pvt": {"model_options": {"depths": (1, 1, 1, 1)}, "image_size": 32, "repeats": 2},
    "learnable-scaler-vit": {"model_options": {"embed_dim": 24, "depth": 7}, "image_size": 32},
    "vit-cifar": {"model_options": VIT, "image_size": 32},
    "t2t-vit-cifar": {"model_options": VIT, "image_size": 32},
    "dynamic-tanh-resnet50-finetune": RESNET,
    "dynamic-tanh-resnet50-scratch": RESNET,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(colour_folders(tmp_path_factory.mktemp("data"), classes=10, images=4))


WHOLE = "dynamic-tanh-resnet50-scratch", "dynamic-tanh-resnet50-finetune"  # networks
EACH = [pytest.param(name, marks=pytest.mark.slow if name in WHOLE else ()) for name in RECIPES]


@pytest.mark.parametrize("name", EACH)
def test_a_recipe_says_its_plan_and_makes_two_updates(name: str, data: str, tmp_path) -> None:
    asked = {**QUICK, **SMALLER[name], "recipe": name, "data": data, "out": str(tmp_path / "out")}
    plan = "\n".join(planned(**asked))
    assert f"recipe {name}: {RECIPES[name].source}" in plan
    assert all(f"known of the source: {flaw}" in plan for flaw in RECIPES[name].flaws)
    training = probe.train(**asked)
    assert training.epochs["step"].tolist()[-1] >= 2
    assert training.epochs["train_loss"].notna().iloc[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, each in RECIPES.items() if each.as_published])
def test_a_recipe_as_published_makes_two_updates(name: str, data: str, tmp_path) -> None:
    smaller = dict(SMALLER[name])
    if "model_options" in RECIPES[name].as_published:
        smaller["model_options"] = {**smaller["model_options"], "as_published": True}
    asked = {**QUICK, **smaller, "recipe": name, "data": data, "out": str(tmp_path / "out")}
    training = probe.train(**asked, as_published=True)
    assert training.epochs["step"].tolist()[-1] >= 2


@pytest.mark.parametrize("norm", ["batch_norm", "unified_norm", "dtn"])
@pytest.mark.parametrize("name", ["vit-cifar", "t2t-vit-cifar"])
def test_the_published_norms_of_cifar_are_chosen_by_name(name: str, norm: str, data: str) -> None:
    for published in (False, True):
        choice = choose(name, {"norm": norm, "image_size": 32}, published)
        module = build_network(choice.recipe, 10).module
        assert norm in {probe.norms.registry.norm_name(each) for each in module.modules()}
        assert (module.class_token_from == 10) is (published and norm == "dtn")


def network(name: str, as_published: bool = False, **fields: Any) -> Any:
    recipe = choose(name, fields, as_published).recipe
    return build_network(recipe, 100).module, recipe


def test_resnet50_has_53_alphas_in_module_order() -> None:
    module, _ = network("dynamic-tanh-resnet50-scratch", image_size=32)
    layers = [path for path, each in module.named_modules() if isinstance(each, DyT)]
    assert len(layers) == 53
    assert layers[:5] == ["bn1", *(f"layer1.0.bn{i}" for i in (1, 2, 3)), "layer1.0.downsample.1"]
    assert layers[-1] == "layer4.2.bn3"
    assert {float(p.detach()) for n, p in module.named_parameters() if n.endswith("alpha")} == {1.0}


def groups(module: Any, recipe: Recipe) -> dict[float, int]:
    """Weight decay -> tensors."""
    optimizer = create_optimizer(module, recipe)
    return {g["weight_decay"]: len(g["params"]) for g in optimizer.param_groups}


def test_resnet50_decays_107_tensors_and_spares_107() -> None:
    module, recipe = network("dynamic-tanh-resnet50-scratch", image_size=32)
    assert groups(module, recipe) == {0.0: 107, 1e-4: 107}
    assert "fc.bias" in undecayed(module, recipe)


def test_dtn_spares_its_gates_and_positions_but_not_its_position_weights() -> None:
    with torch.device("meta"):
        module = timm.create_model("vit_norm_s")
    free = undecayed(module, RECIPES["dtn-vit"])
    assert {"cls_token", "pos_embed"} < free
    assert sum(name.endswith("norm_weight") for name in free) == 40
    decayed = {name for name, _ in module.named_parameters()} - free
    # four linear layers a block, patches, head; and DTN's position weights, as published
    assert len(decayed) == 12 * 4 + 2 + 20
    assert sum(name.endswith("pos_proj.weight") for name in decayed) == 20


def test_dyt_decays_the_matrices_alone_and_cifar_everything() -> None:
    module, recipe = network("dyt-vit", model_options={"depth": 2}, image_size=32)
    assert groups(module, recipe)[0.05] == 2 * 4 + 2
    module, recipe = network("vit-cifar", model_options={"depth": 2}, image_size=32)
    assert groups(module, recipe) == {5e-5: len(list(module.parameters()))}


def test_the_local_start_is_kept_and_as_published_lost() -> None:
    fields = {"model_options": {"depth": 2, "class_token_from": 1}, "image_size": 64}
    for published in (False, True):
        module, _ = network("dtn-vit", published, **fields)
        weights = [m.pos_proj.weight for m in module.modules() if isinstance(m, DTN)]
        assert len(weights) == 2
        assert all((w.detach().abs().max() < 0.1) == published for w in weights)


def rate(name: str, epoch: float, as_published: bool = False, steps: int = 100) -> float:
    return learning_rate(choose(name, {}, as_published).recipe, round(epoch * steps), steps)


def test_learning_rates_of_the_recipes_at_given_epochs() -> None:
    assert rate("dynamic-tanh-resnet50-scratch", 29) == pytest.approx(0.000137, abs=5e-7)
    assert rate("learnable-scaler-vit", 0) == pytest.approx(0.005 * 0.8)
    assert rate("learnable-scaler-vit", 198) == pytest.approx(0.005 * 0.2591, abs=1e-6)
    assert rate("dtn-vit", 0) == pytest.approx(1e-6)
    assert rate("dtn-vit", 150) == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2)
    assert [rate("dtn-vit", epoch) for epoch in (300, 309)] == [1e-5, 1e-5]
    assert rate("dyt-vit", 10) == pytest.approx(2e-3)
    assert rate("dyt-vit", 20) == pytest.approx(4e-3)
    assert rate("dyt-vit", 160) == pytest.approx(1e-6 + (4e-3 - 1e-6) / 2)
    assert rate("vit-cifar", 600) == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2)
    published = [rate("vit-cifar", t / 100, as_published=True) for t in (1200, 2400)]
    assert published == [pytest.approx(1e-5), pytest.approx(1e-3)]


def test_another_norm_leaves_the_options_of_the_recipes_own_behind() -> None:
    assert choose("dyt-vit", {}).recipe.norm_options == {"alpha_init": 0.5}
    assert choose("dyt-vit", {"norm": "layer_norm"}).recipe.norm_options == {}
    assert choose("dtn-vit", {"norm": "layer_norm"}, True).recipe.norm_options == {}
    given = {"norm": "dyt", "norm_options": {"alpha_init": 0.8}}
    assert choose("dtn-vit", given).recipe.norm_options == {"alpha_init": 0.8}


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean dtn-vit"):
        choose("dtn_vit", {})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_says_where_it_is_from_and_names_real_fields(recipe: Recipe) -> None:
    assert recipe.source
    assert recipe.dataset
    replace(recipe, **recipe.as_published)  # every override is a field
    assert set(recipe.as_published) <= set(changed_fields(recipe))


def test_the_page_of_recipes_is_that_of_the_code() -> None:
    stored = Path(probe.__file__).parents[1] / "docs" / "recipes.md"
    assert stored.read_text(encoding="utf-8") == page()


def test_the_losses_from_inside_of_the_network_are_trained_on(data: str, tmp_path) -> None:
    asked = {**QUICK, **SMALLER["learnable-scaler-vit"], "recipe": "learnable-scaler-vit"}
    weights = []
    for loss in (0.0, 100.0):
        out = str(tmp_path / f"{loss:g}")
        training = probe.train(**asked, data=data, out=out, attention_loss=loss)
        weights.append(dict(training.module.named_parameters())["blocks.0.attn.qkv.weight"])
    assert not torch.equal(*weights)
