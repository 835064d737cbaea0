"""Several processes ("ranks") as one run: how they meet, agree and share the work. One process alone pays nothing.

Under `torchrun` every rank holds the whole model, takes its slice of each global batch and averages its gradients with the
others' (`DistributedDataParallel`), so that a step is the same for any number of ranks; or it holds a part (see `sharding`).
Rank 0 alone logs and prints.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Meet the other ranks, where `torchrun` started this process, and yield the device of this one.

    "cuda" becomes the GPU of this rank. GPUs speak NCCL; what the CPUs agree on goes by gloo. Without torchrun, or where the
    ranks have met already, nothing happens.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device(device))
    else:
        dist.init_process_group("gloo")
    yield device
    dist.destroy_process_group()  # not after an error: the other ranks would have to take part, and may hang elsewhere


def world_size() -> int:
    """How many ranks there are; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def by_first(work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, which alone does it; every rank returns that, or raises its error."""
    if world_size() == 1:
        return work()
    found: list[Any] = [None, None]
    if rank() == 0:
        try:
            found[0] = work()
        except Exception as error:
            found[1] = error
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise found[1]
    result: T = found[0]
    return result


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank; the hosts wait for each other, the devices do not."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def on_all_ranks(flag: Tensor) -> Tensor:
    """Whether the boolean scalar `flag` is set on every rank, as such a scalar; a device waits for the others, no host does."""
    if world_size() == 1:
        return flag
    flags = flag.to(torch.int32)
    dist.all_reduce(flags, dist.ReduceOp.MIN)
    return flags.bool()


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` over the ranks, elementwise."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def from_all_ranks(values: list[int]) -> list[int]:
    """The values of all ranks, one rank's after the other's."""
    if world_size() == 1:
        return values
    found: list[list[int]] = [[] for _ in range(world_size())]
    dist.all_gather_object(found, values)
    return [value for part in found for value in part]


def share_buffers(model: torch.nn.Module) -> None:
    """Give every rank the buffers of rank 0, from which those of a batch norm that is not synchronised have moved away."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    """Wait until every rank has come here."""
    if world_size() > 1:
        dist.barrier()
