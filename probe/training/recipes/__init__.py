"""Named recipes: small files, each with its source's own numbers and what is wrong with them.

A new recipe is one more `Recipe` in a file here and its place in `FILES`; `python -m
probe.training.recipes` prints the page about all of them.
"""

from __future__ import annotations

from types import ModuleType

from probe.training.recipe import Recipe
from probe.training.recipes import (
    cifar_small,
    cifar_vits,
    derf_vit,
    dtn,
    dynamic_tanh_resnet50,
    dyt_vit,
    learnable_scaler_vit,
)

FILES: dict[ModuleType, tuple[Recipe, ...]] = {
    cifar_small: (cifar_small.RECIPE,),
    dyt_vit: (dyt_vit.RECIPE,),
    derf_vit: (derf_vit.RECIPE,),
    dtn: (dtn.VIT, dtn.PVT),
    learnable_scaler_vit: (learnable_scaler_vit.RECIPE,),
    cifar_vits: (cifar_vits.VIT, cifar_vits.T2T),
    dynamic_tanh_resnet50: (dynamic_tanh_resnet50.FINETUNE, dynamic_tanh_resnet50.SCRATCH),
}
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipes in FILES.values() for recipe in recipes
}
