"""The network with its normalisation folded into the convolutions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from .layers import Convolution
from .streamed import CHANNELS_LAST

if TYPE_CHECKING:
    from .unet import UNet3D


def fold_normalization(network: UNet3D) -> UNet3D:
    """Return a copy in which every batch normalisation is part of its convolution.

    With frozen statistics both are one affine map; the logits stay the same within
    rounding. The copy has its channels last in memory, as convolutions like them.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm3d):
            norm, conv = module.norm, module.conv
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert conv.bias is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            with torch.no_grad():
                conv.weight.mul_(scale.view(-1, 1, 1, 1, 1))
                conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
            module.norm = nn.Identity()
    folded.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    return folded
