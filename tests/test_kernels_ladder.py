"""The ladder's record: of these sources, nothing claimed that was not measured, and instructions counted as loops run."""

import json
import sys
from bisect import bisect_left

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import ladder
import ladder_drawn

from vistalib.bench.workload import Offsets

RECORD = json.loads(ladder.RECORD.read_text(encoding="utf-8"))
STEPS = RECORD["steps"]

# A loop of two loads and an addition; a slow path with a call before it; more behind the end.
SASS = """
.section	.text.kernel,"ax",@progbits
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 BRA `(.L_x_1) ;
        /*0020*/                   MOV R2, 0x400 ;
        /*0030*/                   CALL.REL.NOINC `(divide) ;
.L_x_1:
        /*0040*/                   LDG.E.U16 R4, desc[UR14][R12.64] ;
        /*0050*/              @!P1 LDG.E.128 R8, desc[UR14][R16.64] ;
        /*0060*/                   REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU desc[UR14][R30.64], R4 ;
        /*0070*/                   NOP ;
        /*0080*/               @P2 BRA `(.L_x_1) ;
        /*0090*/                   EXIT ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2) ;
.section	.text.other,"ax",@progbits
        /*0000*/                   EXIT ;
"""


def test_the_record_is_of_these_sources() -> None:
    assert RECORD["sources"] == ladder.digest(), "kernels or steps have changed; run: python tools/ladder.py"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step['direction']}-{step['step']}")
def test_a_step_claims_nothing_that_is_not_known(step: dict[str, object]) -> None:
    assert step["hypothesis"]
    assert step["prediction"]
    assert step["instructions"]
    if step["measured"] is None:
        spills = "no local memory" in str(step["prediction"]) and step["local_bytes"]
        assert step["came_true"] is (False if spills else None)


def test_steps_that_failed_stay() -> None:
    assert [step["step"] for step in STEPS if step["came_true"] is False and not step["kept"]] == ["four blocks"]


@pytest.mark.parametrize(
    ("trip", "times", "a_thread"), [(9, 9, 9), (ladder.Strided(72), 0.75, 72 / 128)], ids=["turns", "strided"]
)
def test_instructions_count_as_often_as_their_loop_runs(trip: float | ladder.Strided, times: float, a_thread: float) -> None:
    code, loops = ladder.instructions_of(SASS, "kernel")
    assert loops == [(4, 8)]
    cost = ladder.cost_of(code, loops, [trip], units_of_a_warp=2)
    assert cost.instructions == (3 + 4 * times) / 2  # the slow path and what does nothing are left out
    assert cost.load_clocks == (1 + 4) * times / 2
    assert cost.load_bytes == 32 * (2 + 16) * a_thread / 2
    assert cost.atomic_bytes == 32 * 16 * a_thread / 2


def test_what_a_conditional_jump_passes_over_is_known() -> None:
    assert ladder.skips_of(SASS, "kernel") == [(2, 3)]


def test_products_of_tensor_cores_are_counted_by_their_size() -> None:
    cost = ladder.cost_of(["HMMA.16816.F32.BF16 R4, R8, R12, R4", "HMMA.1688.F32.BF16 R4, R8, R12, RZ"], [], [], 2)
    assert cost.product_clocks == 0.75


@pytest.mark.parametrize("offsets", ["normal:0.5", "uniform:4"])
def test_a_strip_has_the_points_that_touch_its_pixels(offsets: str) -> None:
    strips = ladder_drawn.sorted_by_strip(Offsets(offsets), tiles=1)
    *_, cell, near = ladder_drawn.cells(Offsets(offsets), scale=2.0, tiles=1)
    bins = sorted(15 * y + x // 4 + (x + 1) // 4 for x, y in cell[near].tolist())  # of the sorted points
    begin = [[bisect_left(bins, 15 * y + 2 * strip - 1) for strip in range(8)] for y in range(28)] + [[len(bins)] * 8]
    end = [[bisect_left(bins, 15 * y + 2 * strip + 2) for strip in range(8)] for y in range(28)]
    full = [(y, strip) for y in range(28) for strip in range(8) if begin[y][strip] < end[y][strip]]
    plain = {(y, strip) for y, strip in full if begin[y + 1][strip] - end[y][strip] >= 15}
    steps = {(y, strip): -(-(end[y][strip] - begin[y][strip]) // 16) for y, strip in full}
    assert (strips.rows, strips.plain_rows, strips.far) == (len(full), len(plain), 256 * 9 - len(bins))
    assert (strips.steps, strips.plain_steps) == (sum(steps.values()), sum(steps[key] for key in plain))


def test_the_turns_of_a_window_are_counted_by_their_farthest_point() -> None:
    assert ladder_drawn.reaching(Offsets("uniform:0.49")) == (1, 0, 0)
    assert ladder_drawn.reaching(Offsets("uniform:4")) == (0, 0, 1)
    near, wide, far = ladder_drawn.reaching(Offsets("normal:0.25"))  # 576 numbers of N(0, 0.5), in 4096 turns
    assert near == 0
    assert wide == pytest.approx((1 - 6.33e-5) ** 576, abs=0.01)
    assert wide + far == pytest.approx(1)


def test_costs_add_up() -> None:
    one, other = ladder.Cost(1, 2, 3, 4, 5), ladder.Cost(10, 20, 30, 40, 50)
    assert ladder.together((0.5, one), (2, other)) == ladder.Cost(20.5, 41, 61.5, 82, 102.5)


def test_a_loop_nobody_expected_is_an_error() -> None:
    with pytest.raises(AssertionError, match="look at the code again"):
        ladder.cost_of(*ladder.instructions_of(SASS, "kernel"), [], units_of_a_warp=2)
