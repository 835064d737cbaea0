"""The learning rate of each iteration: a polynomial fall whose first iterations are warmed up.

Source: the schedule of the released configurations ("poly" with linear warm-up), where the warm-up multiplies the rate that
has already begun to fall, so that nothing jumps at its end.
"""

from vistalib.train.settings import TrainSettings


def learning_rate(iteration: int, settings: TrainSettings, lr_scale: float = 1.0) -> float:
    """The rate that a parameter group of `lr_scale` uses for the 0-based `iteration`; `min_lr` is the same for all groups.

    Raises `ValueError` outside 0 .. iterations - 1.
    """
    if not 0 <= iteration < settings.iterations:
        raise ValueError(
            f"iteration must be between 0 and iterations - 1 = {settings.iterations - 1}, got {iteration}; count from 0"
        )
    fall = (1 - iteration / settings.iterations) ** settings.power
    rate: float = (settings.learning_rate * lr_scale - settings.min_lr) * fall + settings.min_lr
    if iteration < settings.warmup_iters:
        rate *= 1 - (1 - iteration / settings.warmup_iters) * (1 - settings.warmup_ratio)
    return rate
