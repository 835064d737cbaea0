"""`vistalib bench`: how fast it is."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vistalib.cli.parts import Chosen, UsageError
from vistalib.files import check_writable, replacing, write_json


def bench_op(
    *,
    models: Chosen[tuple[str, ...]] = (),
    stages: Chosen[tuple[int, ...]] = (),
    crops: Chosen[tuple[str, ...]] = (),
    images: Chosen[int | None] = None,
    shape: Chosen[str | None] = None,
    groups: Chosen[int | None] = None,
    dtypes: Chosen[tuple[str, ...]] = (),
    backends: Chosen[tuple[str, ...]] = (),
    offsets: Chosen[tuple[str, ...]] = (),
    directions: Chosen[tuple[Literal["forward", "backward", "both"], ...]] = (),
    modes: Chosen[tuple[Literal["eager", "compiled", "graph"], ...]] = (),
    caches: Chosen[tuple[Literal["cold", "warm"], ...]] = (),
    repeats: Chosen[int | None] = None,
    threads: Chosen[int | None] = None,
    device: Chosen[str | None] = None,
    seed: int = 0,
    quick: bool = False,
    json: Path | None = None,
    figure: Path | None = None,
) -> None:
    """Time DCNv3 against the machine's floor and against how others compute it, in turns, in one run.

    Args:
        models: Sizes whose calls to time: t, s, b, l, xl, nano, micro (default: t on a CPU, t to xl on a GPU).
        stages: Stages of the backbone (default: 1 2 3 4).
        crops: HEIGHTxWIDTH of the images (default: 512x1024, on a GPU the whole 1024x2048, too).
        images: Images in a call (default: 1 on a CPU, 2 on a GPU).
        shape: NxHxWxC of one call instead of a model's, with --groups.
        groups: Groups of that call.
        dtypes: float32, bfloat16, float16, float64 (default: float32 on a CPU, the first three on a GPU).
        backends: Ours to time (default: all that run here; `vistalib doctor` lists them).
        offsets: normal:DEVIATION or uniform:REACH in pixels (default: normal:0.5 uniform:4).
        directions: Forward, backward, and both as in a training step (default: all).
        modes: Eager, by torch.compile, as a CUDA graph (default: eager on a CPU, all on a GPU).
        caches: Cold, the caches just overwritten; warm, the same call just made (default: cold on a CPU, both on a GPU).
        repeats: Rounds (default: 5 on a CPU, 20 on a GPU).
        threads: Threads on a CPU (default: as many as PyTorch takes).
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        seed: Seed of the tensors.
        quick: One stage and three rounds, to see whether all works; what is given besides holds.
        json: File for the record: every time taken, what it must cost, machine, versions and commit.
        figure: File (.svg, .png, .pdf) for times against floors and the roofline.
    """
    chosen = {name: value for name, value in locals().items() if name not in ("device", "quick", "json", "figure")}
    from vistalib.bench import OperatorBench, operator_settings, table
    from vistalib.viz import plot_bench

    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"the figure must be a .svg, .png or .pdf, got {figure}")
    try:
        settings = operator_settings(chosen, device=device, quick=quick)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for path in filter(None, (json, figure)):
        check_writable(path)
    run = OperatorBench(settings)
    print(f"vistalib: this will take about {run.estimate():.0f} s", file=sys.stderr)
    _warn_of_others(run.load)
    record = run.run()
    print(*table(record), sep="\n")
    if json is not None:
        write_json(json, record)
    if figure is not None:
        with replacing(figure) as beside:
            plot_bench(record).savefig(beside)


def bench_model(
    *,
    models: tuple[str, ...] = ("t",),
    crop: str = "512x1024",
    images: int = 1,
    directions: tuple[Literal["forward", "step"], ...] = ("forward", "step"),
    precision: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 3,
    threads: Chosen[int | None] = None,
    device: Chosen[str | None] = None,
    seed: int = 0,
    memory: bool = True,
    profile: bool = False,
    beside: bool = False,
    json: Path | None = None,
) -> None:
    """Time whole models against the same architecture as one writes it in PyTorch alone, in turns, in one run.

    Args:
        models: Names from `vistalib zoo`, or sizes: t stands for upernet_internimage_t.
        crop: HEIGHTxWIDTH of the images.
        images: Images in a batch.
        directions: Forward, and step: forward with the losses, backward, AdamW.
        precision: Float32, or bfloat16 by autocast.
        repeats: Rounds.
        threads: Threads on a CPU (default: as many as PyTorch takes).
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        seed: Seed of weights and images.
        memory: Measure the peak memory of each, too, in a fresh process.
        profile: Say where the time goes, by one more call of each.
        beside: Instead, time ours alone and beside another program that wants all cores.
        json: File for the record: every time taken, machine, versions and commit.
    """
    chosen = {name: value for name, value in locals().items() if name not in ("device", "beside", "json")}
    import torch

    from vistalib.bench import BesideBench, ModelBench, ModelSettings, beside_table, model_table

    try:
        usual = "cuda" if torch.cuda.is_available() and not beside else "cpu"
        settings = ModelSettings(device or usual, **chosen)
        run = BesideBench(settings) if beside else ModelBench(settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if json is not None:
        check_writable(json)
    _warn_of_others(run.load)
    record = run.run()
    print(*(beside_table if beside else model_table)(record), sep="\n")
    if json is not None:
        write_json(json, record)


def bench_data(
    *,
    forms: tuple[Literal["cityscapes", "vistas"], ...] = ("cityscapes", "vistas"),
    images: int = 4,
    seconds: float = 3.0,
    repeats: int = 5,
    workers: int = 2,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Time the loader against the released pipeline in its own order, in turns, in one run, and say what limits it.

    Args:
        forms: Files like those of cityscapes (PNG, 2048x1024) and of vistas (JPEG, 12 megapixels); synthetic streets.
        images: Files of each form.
        seconds: How long each is measured in a round.
        repeats: Rounds.
        workers: Processes that decode and crop; 0 is this one.
        seed: Seed of the streets and of the draws.
        json: File for the record: every speed taken, the time of every stage, machine, versions and commit.
    """
    chosen = {name: value for name, value in locals().items() if name != "json"}
    from vistalib.bench import DataBench, DataSettings, data_table

    try:
        settings = DataSettings(**chosen)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if json is not None:
        check_writable(json)
    run = DataBench(settings)
    _warn_of_others(run.load)
    record = run.run()
    print(*data_table(record), sep="\n")
    if json is not None:
        write_json(json, record)


def _warn_of_others(load: float | None) -> None:
    if load is not None and load > 0.5:
        print(
            f"vistalib: others use this machine (load {load:.1f}): times are too long, and ratios too uncertain to quote",
            file=sys.stderr,
        )


BenchCommand = (
    Annotated[None, tyro.conf.subcommand("op", constructor=bench_op)]
    | Annotated[None, tyro.conf.subcommand("model", constructor=bench_model)]
    | Annotated[None, tyro.conf.subcommand("data", constructor=bench_data)]
)


def bench(command: Annotated[BenchCommand, tyro.conf.arg(name="")]) -> None:
    """Measure how fast it is."""
