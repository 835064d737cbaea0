"""DCNv3 one number at a time: plain loops over Python floats, written from the description of the released CUDA kernels.

Slow, and shares no line with the package: what the other implementations are compared with on cases that nobody recorded.
Also the cases: `random_case(seed)` draws every setting, and offsets that lead anywhere, to whole pixels or to the borders.
"""

import random
from functools import cache
from math import exp, floor
from typing import Any

import torch
from ops_helpers import Inputs, random_inputs
from torch import Tensor

from vistalib.ops import output_size, sampling_locations

KINDS = ("anywhere", "whole", "border")


def random_case(seed: int) -> Inputs:
    """A small call with settings that nobody would choose together."""
    draw = random.Random(seed)
    while True:
        settings: dict[str, Any] = {
            "kernel_size": (draw.randint(1, 4), draw.randint(1, 4)),
            "stride": (draw.randint(1, 3), draw.randint(1, 3)),
            "padding": (draw.randint(0, 3), draw.randint(0, 3)),
            "dilation": (draw.randint(1, 3), draw.randint(1, 2)),
        }
        height, width = draw.randint(1, 6), draw.randint(1, 6)
        if min(output_size(height, width, **settings)) >= 1:
            break
    kind = KINDS[seed % 3]
    inputs = random_inputs(
        draw.randint(1, 2),
        height,
        width,
        groups=draw.randint(1, 3),
        group_channels=4,
        # Powers of two where locations are to be met exactly.
        offset_scale=draw.choice((0.5, 1.0, 2.0, -1.0)) if kind != "anywhere" else draw.uniform(0.3, 2.5),
        spread=draw.choice((0.5, 2.0, 20.0)),
        seed=seed,
        **settings,
    )
    if kind == "anywhere":
        return inputs
    undisturbed = sampling_locations(torch.zeros_like(inputs.offset), **inputs.settings)  # (N, P, Q, G, K, 2)
    target = torch.empty_like(undisturbed).flatten(0, -2)
    for point in target:
        for axis, size in enumerate((width, height)):
            point[axis] = draw.randint(-2, size + 1) if kind == "whole" else draw.choice((-1, 0, size - 1, size))
    move = (target.view_as(undisturbed) - undisturbed) / inputs.settings["offset_scale"]
    return inputs._replace(offset=move.flatten(-3))


@cache
def scalar_truth(seed: int, logits: bool) -> tuple[Inputs, dict[str, Tensor]]:
    """`random_case(seed)` with the output and the gradients of value, offset and mask, as `recorded` gives them."""
    inputs = random_case(seed)
    return inputs, scalar(inputs, logits=logits)


def scalar(inputs: Inputs, *, logits: bool) -> dict[str, Tensor]:
    """Output and gradients; with `logits` the mask goes through a softmax over the points first."""
    (kernel_h, kernel_w), (stride_h, stride_w) = inputs.settings["kernel_size"], inputs.settings["stride"]
    (pad_h, pad_w), (dilation_h, dilation_w) = inputs.settings["padding"], inputs.settings["dilation"]
    groups, scale = inputs.settings["groups"], inputs.settings["offset_scale"]
    images, height, width, channels = inputs.value.shape
    depth, points = channels // groups, kernel_h * kernel_w
    centre_h, centre_w = (dilation_h * (kernel_h - 1)) >> 1, (dilation_w * (kernel_w - 1)) >> 1
    value, offset, mask, top = (tensor.tolist() for tensor in (*inputs.tensors, inputs.grad_output))
    output, to_value = torch.zeros_like(inputs.grad_output).tolist(), torch.zeros_like(inputs.value).tolist()
    to_offset, to_mask = torch.zeros_like(inputs.offset).tolist(), torch.zeros_like(inputs.mask).tolist()

    for n in range(images):
        for row in range(len(mask[n])):
            for column in range(len(mask[n][row])):
                for g in range(groups):
                    weights = mask[n][row][column][g * points : (g + 1) * points]
                    if logits:
                        largest = max(weights)
                        powers = [exp(weight - largest) for weight in weights]
                        weights = [power / sum(powers) for power in powers]
                    slopes = [0.0] * points
                    for i in range(kernel_w):
                        for j in range(kernel_h):
                            k = i * kernel_h + j
                            at = (g * points + k) * 2
                            move_x, move_y = offset[n][row][column][at : at + 2]
                            x = column * stride_w - pad_w + centre_w - centre_w * scale + (i * dilation_w + move_x) * scale
                            y = row * stride_h - pad_h + centre_h - centre_h * scale + (j * dilation_h + move_y) * scale
                            if x <= -1 or y <= -1 or x >= width or y >= height:
                                continue
                            left, above = floor(x), floor(y)
                            beyond_x, beyond_y = x - left, y - above
                            for pixel_y, share_y, sign_y in ((above, 1 - beyond_y, -1), (above + 1, beyond_y, 1)):
                                for pixel_x, share_x, sign_x in ((left, 1 - beyond_x, -1), (left + 1, beyond_x, 1)):
                                    if not (0 <= pixel_x < width and 0 <= pixel_y < height):
                                        continue
                                    for d in range(g * depth, (g + 1) * depth):
                                        found, wanted = value[n][pixel_y][pixel_x][d], top[n][row][column][d]
                                        output[n][row][column][d] += weights[k] * share_x * share_y * found
                                        to_value[n][pixel_y][pixel_x][d] += weights[k] * share_x * share_y * wanted
                                        slopes[k] += share_x * share_y * found * wanted
                                        product = weights[k] * found * wanted * scale
                                        to_offset[n][row][column][at] += sign_x * share_y * product
                                        to_offset[n][row][column][at + 1] += sign_y * share_x * product
                    along = sum(weight * slope for weight, slope in zip(weights, slopes)) if logits else 0.0
                    for k in range(points):
                        to_mask[n][row][column][g * points + k] = weights[k] * (slopes[k] - along) if logits else slopes[k]
    results = {"output": output, "value": to_value, "offset": to_offset, "mask": to_mask}
    return {name: torch.tensor(result, dtype=torch.float64) for name, result in results.items()}
