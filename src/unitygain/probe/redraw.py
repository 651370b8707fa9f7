"""The same trunk with its weights in other places: what chance does to its gains."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.hutchinson import rms_gain_of
from unitygain.probe.operators import generator
from unitygain.probe.record import Numbers, Record
from unitygain.probe.trace import NoGraph, Trace, trace
from unitygain.stats import mean, norm, rms

# With 99 the least p that ranks can give is exactly 0.01. Gains over random directions take a pass per probe.
DRAWS, RANDOM_DRAWS, LEAST = 99, 20, 20
# Multiplications that all draws together may take, and what the call of one module counts for: half a second.
BUDGET, CALL = 1.5e10, 1.5e6
POWER_STEPS = 12
# Entries of a weight that are looked at: of a larger one every so many rows, which are a draw if it is one.
LOOKED_AT = 1 << 18
TABLES = (nn.Embedding, nn.EmbeddingBag)
SIGNALS = ("redrawn.forward", "redrawn.backward", "redrawn.random")


def redraw(case: Case, record: Record, *, random_gains: bool = False) -> Record:
    """Return the record with the gains that every block has when the trunk's weights stand in other places.

    In each draw the rows and columns (output and input channels) of every weight of the trunk are permuted
    and change sign at random. Independent symmetric entries (Gaussian, uniform, truncated) and random
    orthogonal matrices are as likely in one such arrangement as in any other, so that a network at its
    initialisation is one more draw: its gains, and everything made from them, are exchangeable with those
    of the draws, at any width, depth and batch and without a limit. The scale and the singular values stay.

    Weights that are no such draw are told by a mean, a fourth moment or a largest singular value that
    chance does not give; then nothing is drawn, nor where `DRAWS` passes would take too long.

    Args:
        case: An isolated case.
        record: Its record, which names the blocks and the seed.
        random_gains: Whether to take the gain over random directions as well (`rms_gain`).

    Returns:
        The record with ``redrawn.forward`` and ``redrawn.backward`` (and ``redrawn.random``): per block one
        gain, not squared, for each draw. Facts: ``redraws``, their number; ``redraws_note``, why there are
        none; ``wide_variance``, the most that chance can add to the log squared gain of the trunk where the
        layers are wide and only too large to be drawn: 5/n for each weight with n inputs or outputs,
        whichever are fewer.

    Cost: at most 99 forward and backward passes, without the gradients of parameters; with `random_gains`
    in at most 20 of them ``record.facts["probes"]`` backward passes through the blocks.

    Side effects:
        None: the parameters are given other tensors meanwhile, and nothing is written into theirs.

    References:
        E. J. G. Pitman, "Significance tests which may be applied to samples from any populations", J. R.
        Stat. Soc. Suppl. 4 (1937), for tests by permutation.
    """
    values: dict[str, Mapping[Site, Numbers]] = {}
    facts: dict[str, float | str] = {"redraws": 0.0, "redraws_note": ""}
    try:
        weights, draws = _weights(case.model, record), _affordable(case.model, record)
        facts["redraws_note"] = note = _why_not(case.model, weights)
        if not note and draws < LEAST:
            facts["redraws_note"] = "the model is too large to be drawn again"
            facts["wide_variance"] = math.fsum(5 / min(_matrix(w).shape) for w in weights)
        elif not note:
            values = _draw_all(case, record, weights, draws, random_gains)
            facts["redraws"] = float(draws)
    except NoGraph as reason:
        facts["redraws_note"] = str(reason)
    except Exception as error:
        # A diagnosis goes on without p-values; strict runs show what broke.
        if os.environ.get("UNITYGAIN_STRICT"):
            raise
        facts["redraws_note"] = f"a draw failed: {type(error).__name__}: {error}"
    return replace(record, values={**record.values, **values}, facts={**record.facts, **facts})


def _weights(model: nn.Module, record: Record) -> list[nn.Parameter]:
    """The weights of the trunk that have rows and columns, each once."""
    modules = dict(model.named_modules())
    found: dict[int, nn.Parameter] = {}
    for path in dict.fromkeys(site.path for site in record.blocks):
        for module in modules[path].modules():
            own = () if isinstance(module, TABLES) else module.parameters(recurse=False)
            found |= {
                id(p): p for p in own if not is_lazy(p) and p.is_floating_point() and p.ndim > 1 and p.numel()
            }
    return list(found.values())


def _why_not(model: nn.Module, weights: list[nn.Parameter]) -> str:
    """Why the weights are no random draw; empty where they may be one."""
    if not weights:
        return "no trunk with weights was found"
    if any("parametrizations" in name or name.endswith("_orig") for name, _ in model.named_parameters()):
        return "the weights are made from others (a parametrisation)"
    odd = sum(not looks_random(weight.detach()) for weight in weights)
    if odd:
        return (
            f"{odd} of the trunk's {len(weights)} weights do not look like random draws, as after training: "
            "a mean, a fourth moment or a largest singular value that chance does not give"
        )
    return ""


def looks_random(weight: Tensor) -> bool:
    """Whether a weight may be a draw of independent symmetric entries or of a random orthogonal matrix.

    The mean must lie within five standard errors of 0, the fourth moment near or below a Gaussian's, and the
    largest singular value below the edge of a random matrix, (√n + √m)·rms, with room for its fluctuations.
    """
    matrix = _matrix(weight)
    matrix = matrix[:: 1 + matrix.numel() // LOOKED_AT]
    matrix = matrix.to(torch.promote_types(weight.dtype, torch.float32))
    size = float(rms(matrix))
    if size == 0 or not math.isfinite(size):
        return size == 0
    matrix = matrix / size
    count = matrix.numel()
    fourth = float(rms(matrix.square())) ** 2
    side = min(matrix.shape)
    edge = sum(math.sqrt(n) for n in matrix.shape) * (1 + 1.5 * side ** (-2 / 3))
    return (
        abs(float(mean(matrix))) <= 5 / math.sqrt(count)
        and fourth <= 5 + 5 * math.sqrt(24 / count)
        and _largest_singular_value(matrix) <= edge
    )


def _largest_singular_value(matrix: Tensor) -> float:
    """A lower estimate by a few steps of power iteration, enough for one that stands out."""
    v = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0)).to(matrix)
    for _ in range(POWER_STEPS):
        v = matrix.T @ (matrix @ (v / norm(v).to(v)))
    return math.sqrt(float(norm(v)))


def _matrix(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0], -1)


def _affordable(model: nn.Module, record: Record) -> int:
    """How many draws `BUDGET` pays for."""
    tables = {id(p) for m in model.modules() if isinstance(m, TABLES) for p in m.parameters()}
    numbers = sum(p.numel() for p in model.parameters() if not is_lazy(p) and id(p) not in tables)
    inside = set(record.blocks)
    shapes = [place.shape for place in record.of("entry") if place.site in inside and place.shape]
    rows = max((math.prod(s) // max(1, s[1 if len(s) > 3 else len(s) - 1]) for s in shapes), default=1)
    calls = sum(1 for _ in model.modules())
    return int(min(DRAWS, BUDGET // (3 * (numbers * rows + CALL * calls))))


def _draw_all(
    case: Case, record: Record, weights: list[nn.Parameter], draws: int, random_gains: bool
) -> dict[str, Mapping[Site, Numbers]]:
    seed = int(record.facts.get("seed", 0))
    # On the CPU, so that the draws do not depend on the device.
    source = generator(torch.device("cpu"), seed)
    seen: dict[str, dict[Site, list[float]]] = {name: {} for name in SIGNALS}
    for draw in range(draws):
        with _rearranged(weights, source), trace(case, record) as live:
            for name, gains in _gains(live, record, random_gains and draw < RANDOM_DRAWS).items():
                for site, gain in gains.items():
                    seen[name].setdefault(site, []).append(gain)
    return {name: {site: tuple(gains) for site, gains in found.items()} for name, found in seen.items()}


@contextmanager
def _rearranged(weights: list[nn.Parameter], source: torch.Generator) -> Iterator[None]:
    """Permute rows and columns of every weight and draw their signs; put the weights back at the end."""
    before = [weight.data for weight in weights]
    try:
        for weight in weights:
            moved = weight.data
            for axis in (0, 1):
                size = moved.shape[axis]
                order = torch.randperm(size, generator=source)
                signs = torch.randint(2, (size,), generator=source) * 2 - 1
                shape = [size if at == axis else 1 for at in range(moved.ndim)]
                moved = moved.index_select(axis, order.to(moved.device)) * signs.view(shape).to(moved)
            weight.data = moved
        yield
    finally:
        for weight, data in zip(weights, before, strict=True):
            weight.data = data


def _gains(live: Trace, record: Record, random_gains: bool) -> dict[str, dict[Site, float]]:
    blocks = live.require_blocks()
    ends = [*(block.entry for block in blocks), *(block.exit for block in blocks)]
    found = torch.autograd.grad(
        live.loss, [end.edge for end in ends], retain_graph=random_gains, allow_unused=True
    )
    sizes = [0.0 if gradient is None else float(norm(gradient)) for gradient in found]
    backward = zip(blocks, sizes[: len(blocks)], sizes[len(blocks) :], strict=True)
    gains = {
        "redrawn.forward": {
            b.site: _ratio(float(rms(b.exit.copy)), float(rms(b.entry.copy))) for b in blocks
        },
        "redrawn.backward": {block.site: _ratio(over, under) for block, over, under in backward},
    }
    if random_gains:
        probes, seed = int(record.facts.get("probes", 8)), int(record.facts.get("seed", 0))
        gains["redrawn.random"] = {
            block.site: rms_gain_of(block.jacobian(), probes, seed + index).value
            for index, block in enumerate(blocks)
        }
    return gains


def _ratio(over: float, under: float) -> float:
    return over / under if under else math.nan
