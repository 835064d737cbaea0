import sys

import pytest
import torch

from vistalib.sums import per_class_sum

INDEX = torch.tensor([2, 0, 2, 2, 4])


@pytest.fixture
def without_torch_scatter(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_scatter", None)


@pytest.mark.usefixtures("without_torch_scatter")
def test_rows_of_one_class_are_added_up():
    values = torch.tensor([1, 10, 100, 1000, 10000])
    assert per_class_sum(values, INDEX, 6).tolist() == [10, 0, 1101, 0, 10000, 0]


@pytest.mark.usefixtures("without_torch_scatter")
def test_further_dimensions_are_kept():
    values = torch.arange(10.0).view(5, 2)
    assert per_class_sum(values, INDEX, 5).tolist() == [[2, 3], [0, 0], [10, 13], [0, 0], [8, 9]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(0,), (4000,), (4000, 3)], ids=str)
def test_torch_scatter_and_index_add_give_the_same(dtype, shape, monkeypatch):
    pytest.importorskip("torch_scatter")
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(-1000, 1000, shape, generator=draw).to(dtype)
    index = torch.randint(0, 19, shape[:1], generator=draw)
    scattered = per_class_sum(values, index, 20)
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    torch.testing.assert_close(scattered, per_class_sum(values, index, 20), rtol=0, atol=0)


def test_a_broken_torch_scatter_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "torch_scatter.py").write_text("import something_it_needs\n")
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        per_class_sum(torch.ones(1), torch.zeros(1, dtype=torch.int64), 1)
