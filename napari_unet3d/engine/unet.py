"""The 3D U-Net of Çiçek et al. 2016 (https://arxiv.org/abs/1606.06650)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .composition import composes, convolve_joined
from .layers import Convolution, Level, UpConvolution, pointwise
from .regions import (
    Range,
    Region,
    crop,
    crop_centre,
    cut,
    grow,
    in_multiples,
    paddings_between,
    take_voxels,
)


class UNet3D(nn.Module):
    """Map an image to one logit per class and voxel.

    ::

        x ─ 32 ─ 64 ───────────────────────── 64+128 ─ 64 ─ 64 ─ logits
                 └ pool ─ 64 ─ 128 ─── 128+256 ─ 128 ─ 128 ┘ up
                          └ pool ─ 128 ─ 256 ── 256+512 ─ 256 ─ 256 ┘ up
                                   └ pool ─ 256 ─ 512 ┘ up

    Channels double before the pooling, so that there is no bottleneck (section 2 of
    the paper); up-convolutions keep their channels.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    base_channels : int
        Channels of the first convolution; 32 in the paper.
    pooling : sequence of (int, int, int)
        Strides ZYX between the levels, one fewer than levels. The paper's network
        has three times (2, 2, 2).
    padding : {"same", "valid"}
        "same" pads every convolution with zeros and keeps the shape. "valid" pads
        nothing, as the paper: 132×132×116 voxels give 44×44×28. The weights fit both.
    normalization : {"batch", "none"}
        What stands between convolution and ReLU.
    shortcut : int
        Channels of a path of two 1×1×1 convolutions from the input to the head: what
        can be told from a voxel's own input is learned without waiting for the rest.
        0, as in the paper, for none.

    Examples
    --------
    >>> network = UNet3D(in_channels=3, n_classes=3)
    >>> norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    >>> sum(p.numel() for p in network.parameters()) - sum(
    ...     p.numel() for norm in norms for p in norm.parameters()
    ... )
    19069955
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 3,
        base_channels: int = 32,
        pooling: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
        padding: str = "same",
        normalization: str = "batch",
        shortcut: int = 0,
    ) -> None:
        super().__init__()
        self.pooling = tuple(tuple(stride) for stride in pooling)
        self.padding = padding
        widths = [base_channels * 2**level for level in range(len(self.pooling) + 1)]
        self.encoder = nn.ModuleList(
            Level(before, width, 2 * width, normalization)
            for before, width in zip(
                [in_channels, *(2 * width for width in widths)], widths, strict=False
            )
        )
        self.up = nn.ModuleList(
            UpConvolution(4 * width, stride)
            for width, stride in zip(widths, self.pooling, strict=False)
        )
        self.decoder = nn.ModuleList(
            Level(6 * width, 2 * width, 2 * width, normalization)
            for width in widths[:-1]
        )
        self.shortcut = nn.Sequential(
            *(
                Convolution(before, shortcut, normalization, kernel=1)
                for before in (in_channels, shortcut)
                if shortcut
            )
        )
        # One level without pooling has no decoder: its width is then the encoder's.
        self.head = nn.Conv3d(2 * base_channels + shortcut, n_classes, 1)
        self._initialize()

    @property
    def total_stride(self) -> tuple[int, int, int]:
        """Product of all pooling strides per axis, ZYX."""
        z = y = x = 1
        for stride in self.pooling:
            z, y, x = z * stride[0], y * stride[1], x * stride[2]
        return z, y, x

    def forward(
        self, x: Tensor, region: Region | None = None, chosen: Tensor | None = None
    ) -> Tensor:
        """Compute logits, of all voxels, of a region or of chosen voxels.

        Parameters
        ----------
        x : Tensor of shape (N, C, Z, Y, X)
            With "same" padding a multiple of `total_stride` along every axis.
        region : ((int, int), (int, int), (int, int)), optional
            The box of voxels whose logits are wanted; only with "same" padding. The
            decoder is then evaluated only where this box needs it: two voxels more
            per level. The logits equal those of the whole within rounding.
        chosen : Tensor of bool, shape (N, Z, Y, X), optional
            The voxels whose logits are wanted; of the region, or of what unpadded
            convolutions leave. Head and shortcut see no others.

        Returns
        -------
        Tensor of shape (N, n_classes, Z, Y, X)
            The shape of the image, or of the region, or what unpadded convolutions
            leave of the image. Of chosen voxels (1, n_classes, 1, 1, M), in order.
        """
        if chosen is None:
            return self._logits(self.decode(x, region))
        index = chosen.nonzero(as_tuple=True)
        logits = self._logits(self._decode(x, region, in_multiples(index)))
        return logits[..., : len(index[0])]

    def decode(
        self, x: Tensor, region: Region | None = None, chosen: Tensor | None = None
    ) -> Tensor:
        """Compute what the head turns into logits: (N, C, Z, Y, X), as `forward`."""
        index = None if chosen is None else chosen.nonzero(as_tuple=True)
        return self._decode(x, region, index)

    def _decode(
        self, x: Tensor, region: Region | None, index: tuple[Tensor, ...] | None
    ) -> Tensor:
        image, skips = x, []
        for level, block in enumerate(self.encoder):
            x = block(x, self._encoder_paddings())
            if level < len(self.pooling):
                skips.append(x)
                stride = self.pooling[level]
                x = functional.max_pool3d(x, stride, stride)
        if self.padding == "valid":
            x = self._decode_valid(x, skips)
            image = crop_centre(image, x)
        else:
            x = self._decode_region(x, skips, region)
            image = image if region is None else crop(image, region)
        if index is not None:
            x, image = take_voxels(x, index), take_voxels(image, index)
        return self._join(x, image)

    def classify(self, decoded: Tensor, image: Tensor) -> Tensor:
        """Compute logits from the decoder's output and the input of the same voxels."""
        return self._logits(self._join(decoded, image))

    def _logits(self, decoded: Tensor) -> Tensor:
        if isinstance(self.head, nn.Conv3d):
            return pointwise(decoded, self.head.weight, self.head.bias)
        logits: Tensor = self.head(decoded)
        return logits

    def _join(self, decoded: Tensor, image: Tensor) -> Tensor:
        if not len(self.shortcut):
            return decoded
        return torch.cat([decoded, self.shortcut(image)], dim=1)

    def _encoder_paddings(self) -> list[list[Range]]:
        side = 0 if self.padding == "valid" else 1
        return [[(side, side)] * 3] * 2

    def _decode_valid(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for up, block, skip in reversed(
            list(zip(self.up, self.decoder, skips, strict=True))
        ):
            x = up(x)
            skip = crop_centre(skip, x)
            x = block(torch.cat([skip, x], dim=1), self._encoder_paddings())
        return x

    def _decode_region(
        self, x: Tensor, skips: Sequence[Tensor], region: Region | None
    ) -> Tensor:
        depth, height, width = (skips or [x])[0].shape[2:]
        wanted: list[Region] = [region or ((0, depth), (0, height), (0, width))]
        inputs: list[Region] = []
        for stride, skip in zip(self.pooling, skips, strict=True):
            inputs.append(grow(wanted[-1], 2, skip.shape[2:]))
            across_z, across_y, across_x = (
                (low // s, -(-high // s))
                for (low, high), s in zip(inputs[-1], stride, strict=True)
            )
            wanted.append((across_z, across_y, across_x))
        x = crop(x, wanted[-1])
        for level in reversed(range(len(self.pooling))):
            origin = [
                low * s
                for (low, _), s in zip(
                    wanted[level + 1], self.pooling[level], strict=True
                )
            ]
            box, size = inputs[level], skips[level].shape[2:]
            middle = grow(wanted[level], 1, size)
            paddings = [
                paddings_between(a, b)
                for a, b in pairwise([box, middle, wanted[level]])
            ]
            block, up = self.decoder[level], self.up[level]
            assert isinstance(block, Level)
            assert isinstance(up, UpConvolution)
            skip = cut(skips[level], box)
            if composes(up, x, skip):
                inside = _relative(middle, origin)
                x = convolve_joined(block.first, skip, paddings[0], up, x, inside)
            else:
                joined = [skip, cut(up(x), _relative(box, origin))]
                x = block.first(torch.cat(joined, dim=1), paddings[0])
            x = block.second(x, paddings[1])
        return x

    def _initialize(self) -> None:
        if self.head.weight.is_meta:
            # Nothing to fill; torch would load its compiler for it: 100 MiB, a second.
            return
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, UpConvolution):
                # Each output voxel sums over the input channels of one voxel only.
                nn.init.normal_(module.weight, std=module.weight.shape[0] ** -0.5)
        nn.init.normal_(self.head.weight, std=0.01)


def _relative(box: Region, origin: Sequence[int]) -> list[Range]:
    return [(low - o, high - o) for (low, high), o in zip(box, origin, strict=True)]
