"""A model: its network, its filter stem and the state of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_unet3d import __version__

from .errors import EngineError
from .stem import FilterStem
from .unet import UNet3D

if TYPE_CHECKING:
    from .config import ModelConfig, TrainingConfig

Weights = dict[str, Tensor]


@dataclass
class Checkpoint:
    """A model with all that is needed to segment with it or to train it on.

    Parameters
    ----------
    model : ModelConfig
        With nothing left open.
    training : TrainingConfig
        As it was given.
    weights : dict
        State dicts of the network: "latest", "average" and "best".
    stem : dict
        State dict of the filter stem.
    class_names : tuple of str
        One per class.
    class_colors : tuple of str
        As "#rrggbb", one per class, or empty.
    unit : str
        Unit of the spacing; empty where unknown.
    step : int
        Steps trained.
    seconds : float
        Seconds trained.
    schedule : dict
        Where the learning rate's schedule stands.
    best : dict
        "step" of the best weights and "labels" that they were measured on; "iou" while
        these were held out, "learned" once not. Empty where nothing was measured.
    optimizer : dict
        State of the optimizer; empty in a model that is only meant to segment.
    history : list of dict
        What was logged: step, seconds, loss, learning_rate, iou, mean_iou.
    version : str
        Of the program that wrote the file.
    """

    model: ModelConfig
    training: TrainingConfig
    weights: dict[str, Weights]
    stem: Weights
    class_names: tuple[str, ...]
    class_colors: tuple[str, ...] = ()
    unit: str = ""
    step: int = 0
    seconds: float = 0.0
    schedule: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    version: str = __version__

    def network(self, weights: str = "best") -> UNet3D:
        """Build the network with some of its weights, in evaluation mode.

        "best" and "latest" fall back to "average" where there are none.

        Raises
        ------
        EngineError
            Where the weights do not fit the configuration.
        """
        chosen = self.weights.get(weights) or self.weights["average"]
        network = build_network(self.model)
        check_fit(chosen, network, "weights")
        network.load_state_dict(chosen)
        return network.eval()

    def filter_stem(self) -> FilterStem:
        """Build the stem with its statistics.

        Raises
        ------
        EngineError
            Where the statistics do not fit the configuration.
        """
        stem = build_stem(self.model)
        check_fit(self.stem, stem, "filter statistics")
        stem.load_state_dict(self.stem)
        return stem


def check_fit(state: Mapping[str, Any], module: nn.Module, what: str) -> None:
    """Refuse a state dict of other names, shapes or types than the module's."""
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ state.keys(), key=str):
        problem = "lack" if name in expected else "have an unexpected"
        raise EngineError(
            f"the {what} do not fit the model's configuration: they {problem} {name}"
        )
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            got = str(tuple(found.shape)) if isinstance(found, Tensor) else repr(found)
            raise EngineError(
                f"the {what} do not fit the model's configuration: {name} is "
                f"{got:.80}, not {tuple(tensor.shape)}"
            )
        dense = found.layout == torch.strided and not found.is_meta
        if not dense or found.dtype != tensor.dtype:
            raise EngineError(
                f"the {what} do not fit the model's configuration: {name} is "
                f"{found.dtype}, {found.layout} on {found.device}, not {tensor.dtype}"
            )


def check_numbers(checkpoint: Checkpoint) -> None:
    """Refuse weights and statistics that nothing can be computed with.

    Raises
    ------
    EngineError
        Naming the first of them.
    """
    weights = [("weights", state) for state in checkpoint.weights.values()]
    for what, state in (*weights, ("filter statistics", checkpoint.stem)):
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                problem = "not all finite numbers"
            elif name.endswith("running_var") and (tensor < 0).any():
                problem = "negative"
            elif name == "deviation" and (tensor <= 0).any():
                problem = "not all positive"
            else:
                continue
            raise EngineError(f"its {what} {name} are {problem}")


def build_stem(model: ModelConfig) -> FilterStem:
    """Make the filter stem of a configuration with nothing left open."""
    assert model.in_channels
    assert model.spacing
    scales = model.filter_scales if model.stem == "filters" else ()
    return FilterStem(model.in_channels, scales, model.spacing)


def build_network(model: ModelConfig) -> UNet3D:
    """Make the network of a configuration with nothing left open, untrained."""
    assert model.n_classes
    assert model.base_channels
    assert model.pooling is not None
    return UNet3D(
        in_channels=build_stem(model).out_channels,
        n_classes=model.n_classes,
        base_channels=model.base_channels,
        pooling=model.pooling,
        padding=model.padding,
        normalization=model.normalization,
        shortcut=model.shortcut if model.stem == "filters" else 0,
    )
