"""Sharded training: every rank keeps its rows of each weight, gradient and moment, and gathers a part of the model to use it.

Source: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (2023); here by `fully_shard` (FSDP2).
A step is that of `DistributedDataParallel`: weights are float32, autocast does the rest, ranks average their gradients.

What is trained is a twin of the model. Its forward pass is a meeting of all ranks, which an evaluation, where ranks have
different numbers of images, must not be; so an evaluation gets the model itself, whole again for as long as it lasts.

Checkpoints are those of any other run: the ranks write their parts side by side through `torch.distributed.checkpoint`, in
safetensors, and rank 0 joins them while the training goes on. So any number of ranks can go on from them.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vistalib.extras import missing
from vistalib.train.distributed import by_first, rank, world_size


class Divided(Protocol):
    """A model that knows its parts, as `vistalib.models.Segmentor` does."""

    def units(self) -> list[nn.Module]:
        """The parts whose weights are gathered together, in the order of the forward pass; the rest is one more."""
        ...


def shard(model: nn.Module) -> nn.Module:
    """A twin of `model` whose parameters are shared out among the ranks by their first dimension; its `loss` can be trained.

    `model` is `Divided`; without `units` it is gathered as a whole. Afterwards it has weights only where `whole` lends them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})  # no second copy of the weights
    mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
    divided: Any = twin
    for unit in divided.units() if hasattr(twin, "units") else ():
        fully_shard(unit, mesh=mesh)
    fully_shard(twin, mesh=mesh)
    register_fsdp_forward_method(twin, "loss")
    _empty(model)
    return twin


def is_sharded(model: nn.Module) -> bool:
    """Whether `model` is a twin that `shard` made."""
    return any(_is_part(parameter) for parameter in model.parameters())


def gather(trained: nn.Module, *, into: nn.Module) -> None:
    """Give `into` the weights of its twin `trained`, and the buffers of this rank; all ranks call it."""
    if trained is into:
        return
    for parameter, part in zip(into.parameters(), trained.parameters(), strict=True):
        parameter.data = joined(part.detach())
    for buffer, own in zip(into.buffers(), trained.buffers(), strict=True):
        buffer.copy_(own)


@contextmanager
def whole(model: nn.Module, trained: nn.Module) -> Iterator[nn.Module]:
    """`model` with its twin's weights, for as long as this is entered; all ranks enter together, and none waits inside."""
    gather(trained, into=model)
    yield model
    if trained is not model:
        _empty(model)


def joined(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is shared out among the ranks, on each of them, or `tensor`, if it is not."""
    value: Any = tensor
    return value.full_tensor() if _is_part(tensor) else value  # type: ignore[no-any-return]


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """The part of `value` that is this rank's, cut as `like` is; `value` itself where that is whole or of another shape."""
    if not _is_part(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    cut: Any = like
    return distribute_tensor(value, cut.device_mesh, cut.placements, src_data_rank=None)  # every rank has read all of it


def write_parts(parent: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write each rank's part of `tensors` into a new hidden folder of `parent`, synced, and return that on every rank.

    What is not shared out is rank 0's. Raises `OSError` on every rank when one of them cannot write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    except ModuleNotFoundError as error:
        raise missing("safetensors", "write checkpoints") from error
    folder = by_first(lambda: _new_folder(parent))
    mine = {name: tensor.detach() for name, tensor in tensors.items() if rank() == 0 or _is_part(tensor)}
    try:
        save(mine, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        if rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        raise _not_written(parent, "; ".join(f"rank {who}: {why}" for who, (why, _) in error.failures.items())) from error
    return folder


def read_parts(folder: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The whole tensors of the names and shapes in `shapes`, joined from what `write_parts` left in `folder`."""
    from safetensors import safe_open

    found: dict[str, list[tuple[list[int], Tensor]]] = {name: [] for name in shapes}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            places = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for name in found.keys() & file.keys():
                found[name].append((places[name]["saved_offsets"], file.get_tensor(name)))
    tensors = {}
    for name, parts in found.items():
        rows = [tensor for _, tensor in sorted(parts, key=lambda part: part[0])]
        tensors[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
        if tensors[name].shape != shapes[name]:
            raise OSError(f"{folder} holds {tuple(tensors[name].shape)} of {name}, not all of {tuple(shapes[name])}")
    return tensors


def _new_folder(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".parts.", dir=parent))
    except OSError as error:
        raise _not_written(parent, error.strerror or str(error)) from error


def _not_written(parent: Path, reason: str) -> OSError:
    return OSError(
        f"a checkpoint could not be written in {parent}: {reason}; make room or mend the folder, then resume the run"
    )


def _is_part(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor, told without importing those, which takes seconds."""
    return hasattr(tensor, "full_tensor")


def _empty(model: nn.Module) -> None:
    """Let go of the weights of `model`; its parameters stay the objects they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
