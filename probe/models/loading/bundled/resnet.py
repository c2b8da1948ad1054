"""The ResNet of basic blocks, with the names, the initialization and the operations of timm's
(https://github.com/huggingface/pytorch-image-models), of which it is the same network to the bit.

It stands here for the reason given in `vit`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3, without a bias, as a BatchNorm follows."""
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut, which has a convolution of its own where the shape
    changes.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        # drawn before the others, as timm does, and named after them
        downsample = None
        if stride != 1 or before != after:
            downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        self.conv1 = convolution(before, after, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = convolution(after, after)
        self.bn2 = nn.BatchNorm2d(after)
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        out: Tensor = self.act2(x)
        return out


class ResNet(nn.Module):
    """A stem of three convolutions, stages of one basic block, average, linear layer."""

    def __init__(self, *, channels: Sequence[int], stem_width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, channels[-1]
        before = 2 * stem_width
        self.conv1: nn.Module = nn.Sequential(
            convolution(3, stem_width, stride=2),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            convolution(stem_width, stem_width),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            convolution(stem_width, before),
        )
        self.bn1 = nn.BatchNorm2d(before)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stages = [f"layer{number}" for number in range(1, len(channels) + 1)]
        for name, after in zip(self.stages, channels, strict=True):
            block = BasicBlock(before, after, stride=1 if name == "layer1" else 2)
            self.add_module(name, nn.Sequential(block))
            before = after
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = nn.Linear(before, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """The last norm of a block at zero: each block starts as its shortcut."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(self.global_pool(x))
        return logits
