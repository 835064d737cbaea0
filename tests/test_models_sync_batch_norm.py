"""Batch norm over two ranks of unequal batches against one rank with the whole batch."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vistalib.models import FCNHead, InternImage, Segmentor, SyncBatchNorm, UPerHead, synchronize_batch_norm

SHARES = {0: slice(0, 1), 1: slice(1, 3)}  # of three images, rank 0 has one: its pooled 1x1 map is a single value a channel
DTYPES = {"float64": (torch.float64, 1e-12), "float32": (torch.float32, 1e-5)}  # worst measured 6.1e-15 and 1.6e-6


class Loss(nn.Module):
    """A segmentor whose forward is its total loss, for DistributedDataParallel."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        backbone = InternImage(8, (1, 1, 1, 1), (1, 2, 4, 8))
        head = UPerHead(backbone.out_channels, channels=8, num_classes=5, dropout=0.0)
        model = Segmentor(backbone, head, FCNHead(32, channels=8, num_classes=5, dropout=0.0))
        self.model = model.to(dtype)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        losses = self.model.loss(image, label)
        return losses["decode.loss_ce"] + losses["aux.loss_ce"]


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 64, 96, generator=generator, dtype=torch.float64).to(dtype)
    return image, torch.randint(0, 5, (3, 64, 96), generator=generator)


def outcome(loss: Loss, value: Tensor) -> dict[str, Tensor]:
    """The loss, every gradient and every buffer."""
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in loss.named_parameters()}
    return {"loss": value.detach(), **gradients, **dict(loss.named_buffers())}


def _share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name, (dtype, _) in DTYPES.items():
        loss = Loss(dtype)
        synchronize_batch_norm(loss)
        parallel = DistributedDataParallel(loss)
        image, label = (tensor[SHARES[rank]] for tensor in batch(dtype))
        value = parallel(image, label) * (2 * len(image) / 3)  # the mean of the ranks, so weighted, is that of the images
        value.backward()
        torch.save(outcome(loss, value), f"{folder}/{name}_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_share, (str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", DTYPES)
def test_two_ranks_give_the_losses_gradients_and_statistics_of_the_whole_batch(shared: Path, name: str) -> None:
    dtype, bound = DTYPES[name]
    whole = Loss(dtype)
    value = whole(*batch(dtype))
    value.backward()
    expected = outcome(whole, value)
    ranks = [torch.load(shared / f"{name}_{rank}.pt") for rank in (0, 1)]
    assert torch.allclose(sum(rank.pop("loss") for rank in ranks) / 2, expected.pop("loss"), rtol=bound)
    for rank in ranks:
        assert rank.keys() == expected.keys()
        # relative in L2; some gradients vanish, since offsets start at zero
        scale = {key: max(float(value.double().norm()), 1e-3) for key, value in expected.items()}
        errors = {key: float((rank[key] - value).double().norm()) / scale[key] for key, value in expected.items()}
        assert max(errors.values()) < bound, max(errors, key=lambda key: errors[key])


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_one_rank_keeps_plain_batch_norm() -> None:
    model = synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(4)))
    assert type(model[0]) is nn.BatchNorm2d


def test_without_ranks_plain_batch_norm_is_kept() -> None:
    assert type(synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(4)))[0]) is nn.BatchNorm2d


def test_the_layer_holds_the_tensors_it_took_over_under_their_names_in_the_same_mode() -> None:
    norm = nn.BatchNorm2d(4, eps=1e-3, momentum=0.2).eval()
    layer = SyncBatchNorm.taking_over(norm)
    assert list(layer.state_dict()) == list(norm.state_dict())
    assert all(a is b for a, b in zip(layer.parameters(), norm.parameters(), strict=True))
    assert all(a is b for a, b in zip(layer.buffers(), norm.buffers(), strict=True))
    assert (layer.eps, layer.momentum, layer.training) == (1e-3, 0.2, False)


def test_in_evaluation_it_is_plain_batch_norm() -> None:
    norm = nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_()
    x = torch.randn(2, 4, 3, 5)
    assert torch.equal(SyncBatchNorm.taking_over(norm)(x), norm(x))
