"""The operator's speed against what the machine could do, and against how others compute it: `vistalib bench op`.

For each workload, dtype and distribution of offsets all implementations get the same numbers. Their outputs and gradients
are compared with those of grid_sample before any time counts: what computes something else is left out, and the record says so.
Then they are timed in turns, so that every ratio comes from one and the same stretch of time; a ratio is taken round by round.
Times on a machine that others use, too, mean little; ratios taken so are what is claimed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vistalib.bench.baselines import Implementation, Operator, baselines, ours
from vistalib.bench.machine import Machine, load, measure_machine
from vistalib.bench.settings import DTYPES, OperatorSettings
from vistalib.bench.timing import Captured, Trial, interleave, seconds, spread
from vistalib.bench.workload import Direction, Offsets, Workload, draw
from vistalib.ops.backends import backend_status, choose_backend
from vistalib.progress import progress
from vistalib.provenance import provenance

REFERENCE = ("grid_sample", "eager")
AGREES = 0.05  # relative L2 distance: rounding to bfloat16 makes less than 0.005, a wrong order of points or pairs about 1
REASON = 300  # characters of why an implementation is left out
SHARE = {"forward": 1 / 3, "backward": 1.0, "both": 1.0}  # of the time of "both", with what is called but not timed
COMPILING = 20.0  # seconds for an operator, its backward among them
Label = tuple[str, str]  # implementation and mode
Record = dict[str, Any]


class Case(NamedTuple):
    """What all implementations are compared on."""

    work: Workload
    dtype: str
    offsets: str


class OperatorBench:
    """One run: `estimate` says how long it will take, `run` gives the record."""

    def __init__(self, settings: OperatorSettings) -> None:
        self.settings, self.device = settings, torch.device(settings.device)
        self.load = load()  # before this run makes its own
        others, self.left_out = baselines()
        self.versions = {one.name: _version(one.name) for one in others[1:]}
        every = [*(ours(choose_backend(name, self.device.type)) for name in settings.backends), *others]
        self.contestants: dict[Label, Implementation] = {(one.name, mode): one for one in every for mode in settings.modes}
        self.contestants.setdefault(REFERENCE, others[0])
        self._operators: dict[Label, Operator] = {}
        self._operators_for: tuple[Workload, str] | None = None

    def estimate(self) -> float:
        """About how many seconds `run` will take: what the smallest workload takes, scaled by the operations.

        A compiled operator is taken to be as slow as the eager one, and to take `COMPILING` to make.
        """
        settings = self.settings
        flops = [work.cost("both", torch.float32).flops for work in settings.workloads]
        case = Case(settings.workloads[flops.index(min(flops))], settings.dtypes[0], settings.offsets[0])
        eager = [label for label in self.contestants if label[1] == "eager"]
        with self._conditions():
            trials, _ = self._trials(case, *self._draw(case), "both", eager)
            again = sum(seconds(trial, self.device) for trial in trials.values())
        again *= len(self.contestants) / len(eager)
        calls = sum(SHARE[way] * (2 + settings.repeats * len(settings.caches)) for way in settings.directions)
        compiled = sum(mode == "compiled" for _, mode in self.contestants)
        each = again * sum(flops) / min(flops) * len(settings.offsets) * calls + COMPILING * compiled * len(flops)
        return len(settings.dtypes) * each

    def run(self) -> Record:
        """Measure everything."""
        began, settings = time.perf_counter(), self.settings
        works, dtypes = settings.workloads, settings.dtypes
        cases = [Case(work, dtype, offsets) for work in works for dtype in dtypes for offsets in settings.offsets]
        with self._conditions():
            machine = measure_machine(self.device, [DTYPES[dtype] for dtype in dtypes])
            rows = [row for case in progress(cases, "bench op") for row in self._measure(case, machine)]
            facts = provenance()
        return {
            "facts": facts,
            "settings": settings.to_json(),
            "machine": {"load_before": self.load, **asdict(machine)},
            "backends": {row.name: row.reason for row in backend_status() if (row.name, settings.modes[0]) in self.contestants},
            "baselines": self.versions,
            "left_out": self.left_out,
            "rows": rows,
            "seconds": time.perf_counter() - began,
        }

    def _measure(self, case: Case, machine: Machine) -> Iterator[Record]:
        """One row for each direction, cache and contestant."""
        tensors, gradient = self._draw(case)
        for direction in self.settings.directions:
            cost = case.work.cost(direction, DTYPES[case.dtype])
            floor, bound = machine.floor(cost, DTYPES[case.dtype])
            trials, errors = self._trials(case, tensors, gradient, direction, list(self.contestants))
            for cache in self.settings.caches:
                times = interleave(list(trials.values()), repeats=self.settings.repeats, device=self.device, cache=cache)
                of_label = dict(zip(trials, times, strict=True))
                for (name, mode), taken in of_label.items():
                    ratios = [theirs / own for theirs, own in zip(of_label[REFERENCE], taken, strict=True)]
                    yield {
                        **asdict(case.work),
                        "dtype": case.dtype,
                        "offsets": case.offsets,
                        "direction": direction,
                        "cache": cache,
                        "implementation": name,
                        "mode": mode,
                        "error": errors[name, mode],
                        **cost._asdict(),
                        "floor": floor,
                        "bound": bound,
                        "time": spread(taken),
                        "of_floor": floor / spread(taken)["median"],
                        "ratio": spread(ratios),
                        "seconds": taken,
                    }

    def _trials(
        self, case: Case, tensors: Sequence[Tensor], gradient: Tensor, direction: Direction, labels: Sequence[Label]
    ) -> tuple[dict[Label, Trial | Captured], dict[Label, float]]:
        """Those contestants that compute what grid_sample does, called once, and how far from it each is."""
        trials: dict[Label, Trial | Captured] = {}
        errors: dict[Label, float] = {}
        expected = self._results(case, REFERENCE, tensors, gradient, direction)
        for label in labels:
            try:
                found = self._results(case, label, tensors, gradient, direction)
                errors[label] = max(_distance(a, b) for a, b in zip(found, expected, strict=True))
                if not errors[label] <= AGREES:
                    raise ArithmeticError(f"it is {errors[label]:.2g} from grid_sample, more than {AGREES}")
                adapted = [tensor.detach().requires_grad_() for tensor in self.contestants[label].adapt(case.work, *tensors)]
                captured = label[1] == "graph"
                trial = Trial(self._operator(case, label), adapted, gradient, direction=direction, keep=captured)
                trials[label] = Captured(trial) if captured else trial
            except Exception as error:  # others' code may refuse a shape, dtype or machine in any way it likes
                where = f"{' '.join(label)}, {case.work.name} {case.work.crop or ''}, {case.dtype}, {direction}"
                self.left_out[where] = " ".join(f"{type(error).__name__}: {error}".split())[:REASON]
        return trials, errors

    def _results(
        self, case: Case, label: Label, tensors: Sequence[Tensor], gradient: Tensor, direction: Direction
    ) -> tuple[Tensor, ...]:
        """Output (N, H, W, C), or the gradients of value, offset and mask, whatever layout the contestant works in."""
        backward = direction != "forward"
        leaves = [tensor.detach().requires_grad_(backward) for tensor in tensors]
        with torch.set_grad_enabled(backward):
            output = self._operator(case, label)(*self.contestants[label].adapt(case.work, *leaves))
        return torch.autograd.grad(output, leaves, gradient) if backward else (output,)

    def _operator(self, case: Case, label: Label) -> Operator:
        """The contestant's operator, compiled where that is the mode; kept for as long as workload and dtype stay."""
        if self._operators_for != (case.work, case.dtype):
            if "compiled" in self.settings.modes:
                torch.compiler.reset()  # each shape is compiled by itself, however many there were before
            self._operators, self._operators_for = {}, (case.work, case.dtype)
        if label not in self._operators:
            run = self.contestants[label].bind(case.work, self.device)
            compiled = label[1] == "compiled"
            self._operators[label] = torch.compile(lambda *t: run(*t), fullgraph=True, dynamic=False) if compiled else run
        return self._operators[label]

    def _draw(self, case: Case) -> tuple[tuple[Tensor, ...], Tensor]:
        """Value, offset and mask; the gradient of the output."""
        *tensors, gradient = draw(
            case.work, Offsets(case.offsets), DTYPES[case.dtype], device=self.device, seed=self.settings.seed
        )
        return tuple(tensors), gradient

    @contextmanager
    def _conditions(self) -> Iterator[None]:
        """As many threads as asked for, and torch.compile not counting how often it was asked; as before afterwards."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.settings.threads or before)
        with torch._dynamo.config.patch(recompile_limit=1000) if "compiled" in self.settings.modes else nullcontext():
            try:
                yield
            finally:
                torch.set_num_threads(before)


def _distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # built in place
        return None
