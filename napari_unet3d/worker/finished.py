"""A finished model made ready to predict slices of a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.preview import FittedNetwork
from napari_unet3d.engine.segmentation import Segmenter, recompute_statistics
from napari_unet3d.engine.sweep import fold_normalization

if TYPE_CHECKING:
    from napari_unet3d.engine.checkpoint import Checkpoint
    from napari_unet3d.engine.unet import UNet3D

    from .volumes import WatchedImage


class FinishedModel:
    """A model and a volume, made ready for each other little by little.

    Parameters
    ----------
    key : tuple of int
        Of the model's version and the volume.
    checkpoint : Checkpoint
        The model.
    image : WatchedImage
        The volume.
    device : str
        Where to compute.
    """

    def __init__(
        self,
        key: tuple[int, int],
        checkpoint: Checkpoint,
        image: WatchedImage,
        device: str,
    ) -> None:
        self.key = key
        self.image = image
        self.step = checkpoint.step
        config = SegmentationConfig(device=device, recompute_statistics=False)
        segmenter = Segmenter(checkpoint, image, config)
        self.features = segmenter.features
        self._network = checkpoint.network(config.weights).to(self.features.device)
        self._normalized = checkpoint.model.normalization == "batch"
        self._exact = None if self._normalized else segmenter.network
        self._quick: UNet3D | None = None

    def quick(self) -> UNet3D:
        """Return the network with roughly this volume's statistics."""
        if self._exact is not None:
            return self._exact
        if self._quick is None:
            fitted = FittedNetwork(self._network, self.features)
            fitted.fit()
            self._quick = fitted.folded()
        return self._quick

    def exact(self) -> UNet3D:
        """Return the network as a `Segmenter` has it."""
        if self._exact is None:
            recompute_statistics(self._network, self.features)
            self._exact = fold_normalization(self._network)
            self._exact.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return self._exact
