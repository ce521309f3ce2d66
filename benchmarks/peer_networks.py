"""Networks of peers, trained on sparse annotation in the usual way.

Both networks see the image with mean 0 and deviation 1. Patches are cubes laid at
random around labelled voxels, mirrored along every axis and turned by quarters in the
plane YX at random, with a little random contrast and brightness. Adam, a constant
learning rate, float32. The losses leave out unlabelled voxels: cross-entropy with an
ignored index for pytorch-3dunet, and for MONAI the sum of that and its masked Dice
loss. A volume is segmented in windows that overlap by half, blended with a Gaussian.

`SETTINGS` were chosen with `tune_peers.py` on nuclei_1135 and medulla. On a GPU the
networks compute under autocast.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.engine.device import choose_precision


@dataclass(frozen=True)
class Settings:
    """What was tuned of a peer."""

    base: int = 8
    learning_rate: float = 3e-3
    patch: int = 32
    batch: int = 4


SETTINGS = {"monai": Settings(), "pytorch-3dunet": Settings()}
ON_A_GPU = Settings(base=32, learning_rate=1e-3, patch=64)
"""Of both, with the widths of the paper; not tuned."""
WINDOW = 96


def build_peer(method: str, in_channels: int, n_classes: int, base: int):
    """Make a peer's network whose levels have 2, 4, 8 and 16 times `base` channels.

    Parameters
    ----------
    method : {"monai", "monai-dynunet", "pytorch-3dunet"}
        MONAI's UNet with two residual units and batch normalisation, as its tutorials
        use it; its DynUNet; pytorch-3dunet's UNet3D with its usual group
        normalisation, whose convolutions have the same channels as ours.
    in_channels, n_classes, base : int
        Channels of the image, classes, and half of the channels of the first level.
    """
    widths = [base * 2**level for level in range(1, 5)]
    if method == "monai":
        from monai.networks.nets import UNet

        return UNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=n_classes,
            channels=widths,
            strides=(2, 2, 2),
            num_res_units=2,
            norm="BATCH",
        )
    if method == "monai-dynunet":
        from monai.networks.nets import DynUNet

        return DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=n_classes,
            kernel_size=[3] * 4,
            strides=[1, 2, 2, 2],
            upsample_kernel_size=[2, 2, 2],
            filters=widths,
            norm_name="batch",
        )
    from pytorch3dunet.unet3d.model import UNet3D

    # Not being a "segmentation" only leaves out its softmax.
    return UNet3D(in_channels, n_classes, f_maps=widths, is_segmentation=False)


class PeerTraining:
    """The training of a peer's network on one sparsely annotated volume.

    Parameters
    ----------
    method : {"monai", "pytorch-3dunet"}
        Which network.
    image, labels : ndarray
        Axes Z, Y, X; the labels are classes 1..K, 0 where there is no annotation.
    seed : int
        Of weights and patches.
    settings : Settings, optional
        Others than `SETTINGS`.
    device : str
        Where to compute.
    """

    def __init__(
        self,
        method: str,
        image: np.ndarray,
        labels: np.ndarray,
        seed: int = 0,
        settings: Settings | None = None,
        device: str = "cpu",
    ) -> None:
        is_gpu = torch.device(device).type == "cuda"
        self.settings = settings or (ON_A_GPU if is_gpu else SETTINGS[method])
        self._autocast = partial(
            torch.autocast,
            torch.device(device).type,
            choose_precision(torch.device(device)),
            enabled=is_gpu,
        )
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        # As many pixels beyond the border as a patch that is larger than the volume.
        edges = [(0, max(0, self.settings.patch - n)) for n in image.shape]
        values = image.astype(np.float32)
        values = (values - values.mean()) / max(float(values.std()), 1e-6)
        self.shape = image.shape
        padded = np.pad(values, edges, mode="reflect")
        self._image = torch.from_numpy(padded).to(device)
        self._labels = torch.from_numpy(np.pad(labels, edges)).to(device)
        self._labelled = np.argwhere(labels)
        self._n_classes = int(labels.max())
        network = build_peer(method, 1, self._n_classes, self.settings.base)
        self.network = network.to(device)
        rate = self.settings.learning_rate
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
        self._has_dice = method == "monai"
        self.steps = 0

    def step(self) -> None:
        """Learn from one batch."""
        self.network.train()
        patches = [self._draw() for _ in range(self.settings.batch)]
        image, target = (torch.stack(part) for part in zip(*patches, strict=True))
        with self._autocast():
            logits = self.network(image[:, None])
        logits = logits.float()
        loss = functional.cross_entropy(logits, target, ignore_index=-1)
        if self._has_dice:
            loss = loss + self._masked_dice(logits, target)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.steps += 1

    def segment(self) -> np.ndarray:
        """Return the class 1..K of every voxel."""
        from monai.inferers import sliding_window_inference

        self.network.eval()
        z, y, x = self.shape
        # The networks halve three times.
        window = [min(WINDOW, -(-n // 8) * 8) for n in self.shape]
        with torch.no_grad(), self._autocast():
            logits = sliding_window_inference(
                self._image[None, None, :z, :y, :x],
                window,
                1,
                self.network,
                overlap=0.5,
                mode="gaussian",
            )
        return logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy() + 1

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Cut out and vary one patch: image, and classes from 0 with -1 elsewhere."""
        rng, size = self._rng, self.settings.patch
        centre = self._labelled[rng.integers(len(self._labelled))]
        low = np.clip(centre - rng.integers(size, size=3), 0, None)
        low = np.minimum(low, np.array(self._image.shape) - size)
        box = tuple(slice(int(a), int(a) + size) for a in low)
        image, labels = self._image[box], self._labels[box]
        axes = [axis for axis in range(3) if rng.integers(2)]
        turns = int(rng.integers(4))
        image, labels = (
            torch.rot90(part.flip(axes), turns, (1, 2)) for part in (image, labels)
        )
        contrast, brightness = rng.uniform(0.9, 1.1), rng.uniform(-0.1, 0.1)
        return image * contrast + brightness, labels.long() - 1

    def _masked_dice(self, logits: Tensor, target: Tensor) -> Tensor:
        from monai.losses import MaskedDiceLoss

        mask = target >= 0
        classes = functional.one_hot(target.clamp_min(0), self._n_classes)
        # The mask multiplies: it must meet probabilities, not logits.
        return MaskedDiceLoss()(
            logits.softmax(dim=1),
            classes.movedim(-1, 1).float(),
            mask[:, None].float(),
        )


def train_peer(
    training: PeerTraining, began: float, times: Sequence[float]
) -> Iterator[tuple[float, int]]:
    """Train until each of `times`, in seconds since `began`.

    Whatever is done between two of them does not count.

    Yields
    ------
    seconds : float
        Time trained, from `began` on.
    steps : int
        Steps until then.
    """
    paused = 0.0
    for wanted in sorted(times):
        while (seconds := time.perf_counter() - began - paused) < wanted:
            training.step()
        stopped = time.perf_counter()
        yield seconds, training.steps
        paused += time.perf_counter() - stopped
