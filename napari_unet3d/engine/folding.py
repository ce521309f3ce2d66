"""The network with its normalisation folded into the convolutions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from .layers import Convolution, folded
from .streamed import CHANNELS_LAST

if TYPE_CHECKING:
    from .unet import UNet3D


def fold_normalization(network: UNet3D) -> UNet3D:
    """Return a copy in which every batch normalisation is part of its convolution.

    With frozen statistics both are one affine map; the logits stay the same within
    rounding. The copy has its channels last in memory, as convolutions like them.
    """
    copied = copy.deepcopy(network).eval()
    for module in copied.modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm3d):
            conv = module.conv
            with torch.no_grad():
                weight, bias = folded(conv, module.norm)
                conv.weight.copy_(weight)
                assert conv.bias is not None
                conv.bias.copy_(bias)
            module.norm = nn.Identity()
    copied.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    return copied
