"""One forward pass of shapes: the Record of a model on the meta device, with what its weights would be."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain._types import Site, Skipped
from unitygain.probe.capture import Probe
from unitygain.probe.draws import Draws, draw
from unitygain.probe.outline import on_shapes
from unitygain.probe.record import Record
from unitygain.probe.sites import Select

# Ratio of two mean squares above which the draws of a shared weight are not one draw's chance.
DIFFERENT = 2.0
NO_NUMBERS = ("meta tensor", "Meta tensor", "meta device", "data-dependent", "data-independent")


def survey(case: Case, collect: Iterable[str], *, sites: Select = None, seed: int = 0) -> Record:
    """Run one forward pass of `case` on the meta device and return its Record.

    Args:
        case: An isolated case, of which at least one parameter is on meta.
        collect: As for `observe`; places are recorded, statistics are not, but for those of parameters.
        sites: Which modules to report.
        seed: Seed of what the weights are drawn with.

    Returns:
        A record whose ``drawn.moments`` are the mean square and mean of every parameter and buffer, and
        whose ``parameter.rms`` is the root of the first.

    Raises:
        CaseFailure: If the model or loss raises, such as where it branches on a number.

    Side effects:
        None. Memory: one module at a time, of those on meta.
    """
    drawn = draw(case.model, seed)
    twin = on_shapes(case)
    watch = Probe(twin.model, collect, sites=sites, inputs=True)
    with random_states(), torch.enable_grad(), watch as probe:
        reseed(seed)
        try:
            loss = twin.compute_loss(twin.batches[0])
        except CaseFailure:
            raise
        except Exception as error:
            if any(word in str(error) for word in NO_NUMBERS):
                raise _without_numbers(probe.innermost) from None
            raise CaseFailure.during(error, probe.innermost, 0) from error
        if not loss.requires_grad:
            raise CaseFailure(
                "the loss has no gradient: it does not depend on any parameter that requires one"
            )
        probe.note(seed=seed)
        record = probe.record()
    return _with_draws(record, case.model, drawn)


def _without_numbers(module: str) -> CaseFailure:
    where = f"module {module!r}" if module else "the model or loss"
    return CaseFailure(
        f"{where} asks for a number of a tensor on meta, which has none (a branch on data, .item() or "
        "bool()); build the model on a device, or leave that branch out"
    )


def _with_draws(record: Record, model: nn.Module, drawn: Draws) -> Record:
    first = {id(parameter): name for name, parameter in reversed([*model.named_parameters()])}
    tied = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    moments = drawn.moments | {n: drawn.moments[one] for n, one in tied.items() if one in drawn.moments}
    values = {
        "drawn.moments": {Site(name): numbers for name, numbers in moments.items()},
        "parameter.rms": {
            Site(name): (drawn.moments[name][0] ** 0.5,)
            for name, _ in model.named_parameters()
            if name in drawn.moments
        },
    }
    missing = tuple(Skipped(f"weight {name}", f"not drawn: {why}") for name, why in drawn.missing.items())
    missing += tuple(_of_two_minds(tied, drawn))
    return dataclasses.replace(record, values={**record.values, **values}, skipped=record.skipped + missing)


def _of_two_minds(tied: Mapping[str, str], drawn: Draws) -> Iterator[Skipped]:
    """Say of a shared weight whose modules would draw it differently whose draw was taken."""
    for name, one in tied.items():
        own, taken = (drawn.moments.get(key, (math.nan,))[0] for key in (name, one))
        if max(own, taken) > DIFFERENT * min(own, taken):
            yield Skipped(
                f"weight {name}",
                f"shared with {one}, whose draw is taken, of rms {taken**0.5:.3g}; its own module would draw "
                f"{own**0.5:.3g}, which is right if the constructor keeps that one",
            )
