"""DTensors on real gloo ranks: the value of the whole, the same bits on every rank, few collectives."""

import math
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing
from stats import ranks

from unitygain.stats import STATISTICS, gradient_stats

BY_ENTRY = ("rms", "norm", "absmax", "mean", "frac_zero", "frac_nonfinite", "frac_underflow", "exponents")

if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)


@pytest.fixture(scope="module", params=[2, 4])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """What every rank found: the cases, and per rank the values and the number of collectives."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.run, args=(world, str(folder)), nprocs=world)
    return ranks.CASES[world], [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("name", STATISTICS)
def test_every_rank_has_the_value_of_the_whole(outcome, name: str) -> None:
    cases, found = outcome
    for case, (shape, dtype, _) in cases.items():
        expected = STATISTICS[name](ranks.build(case, shape, dtype))
        values = [values[case][name] for values, *_ in found]
        # Two orders of float64 sums; a quick float32 norm of the whole and of its parts are 1e-6 off each.
        rtol = 2e-6 if case == "quick" and name in {"rms", "norm"} else 1e-12
        for value in values:
            torch.testing.assert_close(
                value,
                expected,
                rtol=rtol,
                atol=0.0,
                equal_nan=True,
                msg=lambda text, at=case: f"{at}: {text}",
            )
            assert value.numpy().tobytes() == values[0].numpy().tobytes(), case


def test_numbers_by_entry_take_one_collective_per_cut_or_summed_dimension(outcome) -> None:
    cases, found = outcome
    for case, (shape, _, places) in cases.items():
        if 0 in shape:
            continue  # Every rank knows without asking that the mean of nothing is NaN.
        expected = len([place for place in places.split() if place != "R"])
        for _, calls, *_ in found:
            assert {name: calls[case][name] for name in BY_ENTRY} == dict.fromkeys(BY_ENTRY, expected), case


def test_many_tensors_take_one_gathering_however_they_are_cut(outcome) -> None:
    cases, found = outcome
    whole = [
        *(ranks.build(case, shape, dtype) for case, (shape, dtype, _) in cases.items()),
        torch.full((4,), 2.0),
    ]
    expected = gradient_stats(whole, absmax=True)
    for _, _, (norms, tops, gatherings), _ in found:
        # The row that is long enough to be read in float32 is 1e-6 off, whole and in parts.
        torch.testing.assert_close(norms, expected.norm, rtol=2e-6, atol=0.0, equal_nan=True)
        torch.testing.assert_close(tops, expected.absmax, rtol=2**-52, atol=0.0, equal_nan=True)
        assert norms.numpy().tobytes() == found[0][2][0].numpy().tobytes()
        assert gatherings == 1


def test_ranks_agree_by_the_gathering_of_the_norms(outcome) -> None:
    _, found = outcome
    world = len(found)
    sizes = [ranks.build("", shape, torch.float32).double() for shape in ((8, 6), (5, 3))]
    wide, small = (float(size.norm()) for size in sizes)
    for rank, (*_, agreed) in enumerate(found):
        for scenario, (_, told, _, _, calls) in zip(ranks.AGREEMENTS, agreed, strict=True):
            # Of four ranks in two rows, the row that this one is in.
            row = range(rank // 2 * 2, rank // 2 * 2 + 2) if scenario == "some ranks" else range(world)
            assert told.tolist() == [[float(one), -float(one)] for one in row]
            # The tensor that not all ranks share the pieces of is asked for in a group of its own.
            assert calls == (2 if scenario == "spread" and world == 4 else 1)
        plain, spread, not_finite, nothing, some = agreed
        assert plain[0].item() == 2.0 * world  # the largest of all ranks, of which each keeps its own
        assert plain[2].item() == 2.0 * (rank + 1)
        assert spread[0].item() == pytest.approx(math.hypot(wide, small, 2.0 * world), rel=1e-12)
        assert spread[2].tolist() == pytest.approx([wide, 2.0 * (rank + 1), small], rel=1e-12)
        assert spread[3].tolist() == [sizes[0].abs().max(), rank + 1, sizes[1].abs().max()]
        assert not_finite[0].isnan()
        assert nothing[0] == 0.0
        assert some[0].item() == pytest.approx(small, rel=1e-12)
        for one, other in zip(agreed, found[0][3], strict=True):
            assert one[0].numpy().tobytes() == other[0].numpy().tobytes()


def test_plain_tensors_need_no_distributed_package() -> None:
    code = (
        "import sys, torch; from unitygain.stats import STATISTICS, gradient_stats\n"
        "for statistic in STATISTICS.values(): statistic(torch.ones(2, 3))\n"
        "gradient_stats([torch.ones(2, 3)])\n"
        "print('torch.distributed.tensor' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
