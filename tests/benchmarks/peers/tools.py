"""Which tools are measured and how each is used. Imports nothing that is large: the process that
starts the others must stay small, as they inherit its peak memory.
"""

from __future__ import annotations

from dataclasses import dataclass

BARE = "bare"  # the forward pass alone, which the others are compared with


@dataclass(frozen=True)
class Tool:
    """One row of the table. `adapter` names a function of `peers.adapters`."""

    name: str
    module: str  # what it is imported as, before the clock runs
    adapter: str
    use: str
    page: str = ""  # the documentation that this use follows

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


HOOKS = "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html"
TORCHVISION = "https://docs.pytorch.org/vision/stable/feature_extraction.html"
TORCHEXTRACTOR = "https://github.com/antoinebrl/torchextractor/blob/master/README.md"
TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_features.py"
NNSIGHT = "https://github.com/ndif-team/nnsight/blob/main/docs/usage"
THINGSVISION = "https://github.com/ViCCo-Group/thingsvision/blob/master/README.md"
BAUKIT = "https://github.com/davidbau/baukit/blob/main/baukit/nethook.py"
CAPTUM = "https://captum.ai/api/layer.html"

TOOLS = [
    Tool(
        "probe",
        "probe.jobs.capturing.capture",
        "probe",
        "`probe.capture(model, batches, samples=256, tail=2)`",
    ),
    Tool(
        "hooks, `detach()`",
        "torch",
        "hooks_detach",
        "forward hooks that keep `x.detach()` of every batch, pandas at the end",
        HOOKS,
    ),
    Tool(
        "hooks, `clone()`",
        "torch",
        "hooks_clone",
        "forward hooks that keep `x.clone()` of every batch, pandas at the end",
        HOOKS,
    ),
    Tool(
        "hooks, nothing kept",
        "torch",
        "hooks_streaming",
        "forward hooks that take statistics and rows there and then",
        HOOKS,
    ),
    Tool(
        "captum",
        "captum.attr",
        "captum",
        "`LayerActivation(model, layers).attribute(x)`, once for outputs, once with "
        "`attribute_to_layer_input=True`: two forward passes; it clones",
        CAPTUM,
    ),
    Tool(
        "nnsight, `cache`",
        "nnsight",
        "nnsight_cache",
        "`tracer.cache(modules=..., include_inputs=True)`",
        f"{NNSIGHT}/cache.md",
    ),
    Tool(
        "nnsight, `clone()`",
        "nnsight",
        "nnsight_clone",
        "`.input.clone()` and `.output.clone()` of each layer inside the trace",
        f"{NNSIGHT}/access-and-modify.md",
    ),
    Tool(
        "thingsvision",
        "thingsvision",
        "thingsvision",
        "`batch_extraction(module_names=...)`; it clones; it gives outputs only, so inputs are "
        "taken from the module before, where there is one",
        THINGSVISION,
    ),
    Tool(
        "torchvision",
        "torchvision.models.feature_extraction",
        "torchvision",
        "`create_feature_extractor(model, return_nodes)`",
        TORCHVISION,
    ),
    Tool(
        "torchvision, no in-place ReLU",
        "torchvision.models.feature_extraction",
        "torchvision_careful",
        "the same after `inplace = False` on every module that has it",
        TORCHVISION,
    ),
    Tool(
        "torchextractor",
        "torchextractor",
        "torchextractor",
        "`Extractor(model, names, capture_fn=...)` that keeps input and output",
        TORCHEXTRACTOR,
    ),
    Tool(
        "torchextractor, `clone()`",
        "torchextractor",
        "torchextractor_clone",
        "the same with clones",
        TORCHEXTRACTOR,
    ),
    Tool(
        "timm",
        "timm.models",
        "timm",
        "`FeatureHooks` of type `forward_pre` and `forward`",
        TIMM,
    ),
    Tool(
        "timm, no in-place ReLU",
        "timm.models",
        "timm_careful",
        "the same after `inplace = False` on every module that has it",
        TIMM,
    ),
    Tool(
        "baukit",
        "baukit.runningstats",
        "baukit",
        "`TraceDict(model, names, retain_input=True)` and `runningstats.Variance`",
        BAUKIT,
    ),
    Tool(
        "baukit, `clone=True`",
        "baukit.runningstats",
        "baukit_clone",
        "the same with `clone=True`",
        BAUKIT,
    ),
]
