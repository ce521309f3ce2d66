"""Processes that train one model together, through torch.distributed."""

# torch looks at the types of a hook: they may not be text here.
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from napari_unet3d.engine.ranks import Ranks, Value
from napari_unet3d.engine.unet import UNet3D

from .batch_norm import share_batch_norm


class ProcessRanks(Ranks):
    """The processes of torch.distributed's default group, which has to be there."""

    _adding: distributed.ProcessGroup | None = None
    """The group in which numbers in main memory are added; the default one if none."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.count = distributed.get_world_size()

    def first(self, value: Value) -> Value:
        """Return the value that the first process has; it has to be picklable."""
        values = [value]
        distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def add(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of integers or floats over all processes."""
        # In main memory, so that no device has to be waited for.
        sums = torch.from_numpy(np.array(values))
        distributed.all_reduce(sums, group=self._adding)
        return sums.numpy()

    def total(self, sums: Tensor) -> Tensor:
        """Return sums over all processes; their gradient is that of this one's part."""
        total: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
        return total

    def parallel(self, network: UNet3D) -> Callable[..., Tensor]:
        """Return what to call in place of a network that learns in all processes."""
        share_batch_norm(network)
        # The statistics are the same everywhere anyway.
        names = inspect.signature(DistributedDataParallel).parameters
        new, old = "forward_sync_buffers", "broadcast_buffers"
        unsent: dict[str, Any] = {new if new in names else old: False}
        parallel = DistributedDataParallel(network, **unsent)
        # torch's own rule is the mean over the processes; here every process has its
        # part of the gradient.
        parallel.register_comm_hook(None, _sum_bucket)
        return parallel


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _sum_bucket(
    _: object, bucket: distributed.GradBucket
) -> torch.futures.Future[Tensor]:
    """Add up a part of the gradient while the rest is still computed."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    summed: torch.futures.Future[Tensor] = work.get_future().then(
        lambda done: done.value()[0]
    )
    return summed


def are_others_lost(error: RuntimeError) -> bool:
    """Tell whether an error means that another process cannot be reached any more."""
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or "gloo" in text or "nccl" in text
