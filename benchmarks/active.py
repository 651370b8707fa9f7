"""Cost of the active measures of the blocks: in backward passes of GPT-2-small, and against the dense way.

    python benchmarks/active.py [--rounds N] [--dense-rounds N] [--width W]

A backward-equivalent is the time of ``loss.backward()`` alone, after its forward pass, which is not
counted: gradients of all parameters, on the same model and batch, in the same round. The measures' own
forward passes, their choice of samples and all set-up are counted.

The dense way is `torch.func.jacrev` and a singular value decomposition: of the whole Jacobian of a batch,
as jacrev gives it, and, for larger batches too, of one sample after the other, by who knows that samples do
not mix. The estimator is told nothing, and its tests of J·v and of the samples are counted; it takes as many
steps as 1e-6 needs. Differences are from the five largest singular values in float64, of either way.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from environment import interleave, keep, ratio
from passive import make_case
from torch import nn

from unitygain._case import Case
from unitygain.measures.jacobian_sigma_max import jacobian_sigma_max
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.golub_kahan import golub_kahan
from unitygain.probe.golub_kahan_by_sample import golub_kahan_by_sample
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record
from unitygain.stats import absmax

ROUNDS, DENSE_ROUNDS, WIDTH, TOP, PROBES = 5, 2, 2048, 5, 8
WHOLE, SINGLY = (1, 4, 8), (1, 4, 16, 32)


def clock(run: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def backward(case: Case) -> float:
    """Return the seconds of the backward pass alone."""
    case.model.zero_grad(set_to_none=True)
    loss = case.compute_loss(case.batches[0])
    seconds = clock(loss.backward)
    case.model.zero_grad(set_to_none=True)
    return seconds


def whole_batch(record: Record) -> Record:
    """Return the record with the choice of samples made: all of them."""
    return Record(
        record.places,
        record.blocks,
        record.end,
        record.values,
        record.skipped,
        {
            **record.facts,
            "first samples of batch 0": 0.0,
        },
    )


def measure_blocks(rounds: int) -> dict[str, object]:
    """Time both measures on GPT-2-small, as `diagnose` runs them and on the whole batch."""
    with isolated(make_case()) as (case, _):
        record = observe(case, ["entry.rms"], probes=PROBES)
        whole = whole_batch(record)
        arms = {
            "backward": lambda: backward(case),
            "rms_gain": lambda: clock(lambda: rms_gain(case, record)),
            "sigma": lambda: clock(lambda: jacobian_sigma_max(case, record)),
            "sigma whole batch": lambda: clock(lambda: jacobian_sigma_max(case, whole)),
        }
        counted = interleave(arms, rounds)
    for name, sigma in (("together", "sigma"), ("together whole batch", "sigma whole batch")):
        counted[name] = [a + b for a, b in zip(counted["rms_gain"], counted[sigma], strict=True)]
    names = [name for name in counted if name != "backward"]
    return {
        "unit": "time of loss.backward() alone, GPT-2-small, 2 x 128 tokens",
        "seconds_backward": sorted(counted["backward"])[rounds // 2],
        "over_backward": {name: ratio(counted, name, "backward") for name in names},
    }


def dense_values(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the five largest singular values of jacrev's whole Jacobian."""
    jacobian = torch.func.jacrev(block)(x)
    assert isinstance(jacobian, torch.Tensor)
    return torch.linalg.svdvals(jacobian.detach().view(x.numel(), -1))[:TOP]


def dense_singly(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the five largest of all samples, each by its own Jacobian."""
    return torch.cat([dense_values(block, row[None]) for row in x]).sort(descending=True).values[:TOP]


def estimated_values(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the five largest as the measure finds them, with its tests of the operator."""
    entry = x.clone().requires_grad_()
    operator = JacobianOperator(block(entry), entry)
    assert operator.double_backward
    find = golub_kahan_by_sample if operator.samples() > 1 else golub_kahan
    return torch.tensor(find(operator, TOP, steps=300).values, dtype=torch.float64)


def compare_dense(
    dense: Callable[[nn.Module, torch.Tensor], torch.Tensor], rounds: int, width: int, samples: int
) -> dict[str, object]:
    """Time the five largest singular values of one block against a dense way; compare both with float64."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(width, width), nn.Tanh())
    x = torch.randn(samples, width)
    exact = dense_singly(copy.deepcopy(block).double(), x.double())
    found: dict[str, torch.Tensor] = {}

    def run(name: str, way: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> float:
        return clock(lambda: found.update({name: way(block, x)}))

    counted = interleave(
        {"dense": lambda: run("dense", dense), "ours": lambda: run("ours", estimated_values)}, rounds
    )
    return {
        "rows": samples * width,
        "seconds": {name: sorted(seconds)[rounds // 2] for name, seconds in counted.items()},
        "dense_over_ours": ratio(counted, "dense", "ours"),
        "largest_relative_difference_from_float64": {
            name: float(absmax(values.double() / exact - 1)) for name, values in found.items()
        },
    }


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dense-rounds", type=int, default=DENSE_ROUNDS)
    parser.add_argument("--width", type=int, default=WIDTH)
    given = parser.parse_args()
    rounds, width = given.dense_rounds, given.width
    whole = {str(n): compare_dense(dense_values, rounds, width, n) for n in WHOLE}
    singly = {str(n): compare_dense(dense_singly, rounds, width, n) for n in SINGLY}
    keep(
        "active",
        {
            "blocks": measure_blocks(given.rounds),
            "dense_whole_by_samples": whole,
            "dense_one_by_one_by_samples": singly,
        },
    )


if __name__ == "__main__":
    main()
