"""Sums over classes: the one scatter that the scores stand on.

torch-scatter (https://github.com/rusty1s/pytorch_scatter) is used where it is installed, `index_add_` where it is not.
Letters: n = entries, C = classes.
"""

import warnings

from torch import Tensor


def per_class_sum(values: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Add up the rows of `values` (n, ...) that share a class: returns (C, ...) of the same dtype.

    `index` (n,) int64 names each row's class, 0 .. `num_classes` - 1; a class without rows sums to 0. Integer sums are exact.
    """
    try:
        with warnings.catch_warnings():  # importing it uses torch.jit.script, which torch deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_scatter import scatter
    except ModuleNotFoundError as error:
        if error.name != "torch_scatter":  # it is installed, and something it needs is not
            raise
        return values.new_zeros((num_classes, *values.shape[1:])).index_add_(0, index, values)  # (C, ...)
    total: Tensor = scatter(values, index, dim=0, dim_size=num_classes, reduce="sum")  # (C, ...)
    return total
