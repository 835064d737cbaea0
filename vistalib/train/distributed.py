"""Several processes ("ranks") as one run: how they meet, agree and share the work. One process alone pays nothing.

Under `torchrun` every rank holds the whole model, takes its slice of each global batch and averages its gradients with the
others' (`DistributedDataParallel`), so that a step is the same for any number of ranks; or it holds a part (see `sharding`).
Rank 0 alone logs and prints.
"""

import os
import time
import uuid
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
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device(device), **_meeting_place())
    else:
        dist.init_process_group("gloo", **_meeting_place())
    yield device
    dist.destroy_process_group()  # not after an error: the other ranks would have to take part, and may hang elsewhere


def _meeting_place() -> dict[str, Any]:
    """Where the ranks of this attempt meet, as `init_process_group` takes it: what earlier attempts wrote is not seen there.

    The store of `torchrun` outlives a restart, and with it the addresses of the dead, which gloo would call (torch 2.13). Nor
    does every node count restarts alike. So rank 0 answers each rank by a name that this alone has made up, until it is heard.
    """
    from torch.distributed.rendezvous import rendezvous

    store, own, ranks = next(rendezvous("env://"))
    name = uuid.uuid4().hex
    if own > 0:
        store.set(f"here/{own}", name)
        place = store.get(f"answer/{name}").decode()  # waits for it
        store.set(f"heard/{place}/{own}", "")
    else:
        place, until = name, time.monotonic() + store.timeout.total_seconds()
        for other in range(1, ranks):
            while not store.check([f"heard/{place}/{other}"]):
                if store.check([f"here/{other}"]):  # of this attempt, or still of one before
                    store.set(f"answer/{store.get(f'here/{other}').decode()}", place)
                if time.monotonic() > until:
                    raise TimeoutError(f"rank {other} of {ranks} did not come; see why in its own output, and start all again")
                time.sleep(0.01)
    corner = dist.PrefixStore(place, store)  # type: ignore[attr-defined]  # torch's stubs do not name it
    return {"store": corner, "rank": own, "world_size": ranks}


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
