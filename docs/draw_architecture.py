"""Draw the network's architecture, from the network itself.

python docs/draw_architecture.py [docs/images/architecture.png]
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, Rectangle

from napari_unet3d.engine import UNet3D

BLUE, GREY, ORANGE, GREEN, RED = "#4477aa", "#999999", "#ee8866", "#228833", "#cc3311"


def draw(path: str) -> None:
    """Draw the paper's network with its numbers of channels."""
    network = UNet3D()
    figure, axes = pyplot.subplots(figsize=(9.6, 4.6), dpi=150)
    down, up = [], []
    for level, block in enumerate(network.encoder):
        first, second = block.first.conv, block.second.conv
        x = 2.0 * level
        down.append(
            _level(
                axes,
                x,
                level,
                [first.in_channels, first.out_channels, second.out_channels],
            )
        )
    depth = len(network.encoder)
    for level in reversed(range(depth - 1)):
        block = network.decoder[level]
        first, second = block.first.conv, block.second.conv
        x = 2.0 * (2 * depth - 2 - level) + 0.4
        up.insert(
            0,
            _level(
                axes,
                x,
                level,
                [first.in_channels, first.out_channels, second.out_channels],
            ),
        )
    for level in range(depth - 1):
        _arrow(axes, down[level][1], down[level + 1][0], RED)
        source = up[level + 1][1] if level + 1 < depth - 1 else down[-1][1]
        _arrow(axes, source, up[level][0], GREEN)
        start, end = down[level][1], up[level][0]
        axes.add_patch(
            FancyArrowPatch(
                (start[0] + 0.05, start[1]),
                (end[0] - 0.05, end[1]),
                arrowstyle="-|>",
                mutation_scale=9,
                color=GREY,
                linewidth=1,
            )
        )
        axes.text(
            (start[0] + end[0]) / 2, start[1] + 0.08, "copy", color=GREY,
            ha="center", fontsize=7,
        )  # fmt: skip
    right = up[0][1]
    axes.add_patch(
        Rectangle((right[0] + 0.35, right[1] - 0.35), 0.09, 0.7, color=ORANGE)
    )
    axes.annotate(
        "", (right[0] + 0.35, right[1]), right,
        arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 1.2},
    )  # fmt: skip
    axes.text(right[0] + 0.4, right[1] + 0.42, "K", ha="center", fontsize=8)
    axes.text(right[0] + 0.4, right[1] - 0.62, "logits", ha="center", fontsize=8)
    axes.text(down[0][0][0], down[0][0][1] - 0.62, "image", ha="center", fontsize=8)
    _legend(axes)
    axes.set_xlim(-0.4, right[0] + 0.9)
    axes.set_ylim(-6.3, 0.8)
    axes.set_axis_off()
    figure.savefig(path, bbox_inches="tight", facecolor="white")


def _level(axes, x: float, level: int, channels: list[int]):
    """Draw the feature maps of a level; return the points arrows start and end at."""
    y, height = -1.35 * level, 0.7 * 0.82**level
    for k, count in enumerate(channels):
        left = x + 0.5 * k
        width = 0.05 + 0.1 * (count / 512) ** 0.5
        axes.add_patch(Rectangle((left, y - height / 2), width, height, color=BLUE))
        axes.text(
            left + width / 2, y + height / 2 + 0.07, count, ha="center", fontsize=8
        )
        if k:
            before = left - 0.5 + 0.05 + 0.1 * (channels[k - 1] / 512) ** 0.5
            axes.annotate(
                "", (left, y), (before, y),
                arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 0.8},
            )  # fmt: skip
    return (x, y), (x + 1.0 + 0.05 + 0.1 * (channels[-1] / 512) ** 0.5, y)


def _arrow(axes, start, end, color) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=10, color=color, linewidth=1.4
        )
    )


def _legend(axes) -> None:
    entries = [
        ("black", "3×3×3 convolution, batch normalisation, ReLU"),
        (RED, "maximum pooling, at most 2×2×2, as the spacing asks"),
        (GREEN, "up-convolution"),
        (GREY, "skip connection"),
        (ORANGE, "1×1×1 convolution to the K classes"),
    ]
    for k, (color, text) in enumerate(entries):
        y = -4.75 - 0.34 * k
        axes.plot([-0.2, 0.15], [y, y], color=color, linewidth=1.6)
        axes.text(0.3, y, text, va="center", fontsize=8)


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else "docs/images/architecture.png")
