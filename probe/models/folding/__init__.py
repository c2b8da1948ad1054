"""How an affine map of a normalization layer moves into the linear layers around it, at evaluation
and exactly.

1. `flow` records which operation makes and which read each tensor.
2. `spread` follows the channels of a layer from there to the linear layers that read them, or says
what is in the way.
3. `linear` says what a map before or after a linear layer does to its weights, `lines` which maps a
layer holds.
4. `plan` decides for each layer, `scratch` tries the plan on a float64 copy, `install` writes it to
the module, with undo.

The formulas are those of RepVGG (https://arxiv.org/abs/2101.03697) for a map after a linear layer,
and of any pre-norm transformer for one before it; each stands in the docstring of the function that
computes it.
"""
