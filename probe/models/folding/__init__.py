"""How an affine map of a normalization layer moves into the linear layers around it, at evaluation
and exactly.

1. `graph`: torch.export's graph of the module, and which nodes of it are the call of which layer.
2. `affine_maps`: which maps a layer holds; `linear`: what a map before or after a linear layer does
   to its weights.
3. `propagate`: follows the channels of a layer through the graph to the linear layers that use
   them, or says which operation is in the way.
4. `plan`: decides on the graph alone which map goes where.
5. `trial`: applies the plan to a float64 copy and keeps what leaves the outputs as they are;
   `invariants` says which outputs these are.
6. `edits`: writes the result to the module, with undo.

The formulas are those of RepVGG (https://arxiv.org/abs/2101.03697) for a map after a linear layer,
and of any pre-norm transformer for one before it; each stands in the docstring of the function that
computes it.
"""
