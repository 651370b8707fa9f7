"""One forward and backward pass of a Case under a Probe."""

import functools
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from torch.utils._python_dispatch import _disable_current_modes

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain.probe.capture import Probe
from unitygain.probe.loss_graph import read_graph
from unitygain.probe.record import Record
from unitygain.probe.sites import Select
from unitygain.probe.terms import Terms


class NoGradient(CaseFailure):
    """The loss depends on nothing that requires a gradient."""


def observe(
    case: Case,
    collect: Iterable[str],
    *,
    sites: Select = None,
    batch: int = 0,
    probes: int = 8,
    seed: int = 0,
) -> Record:
    """Run one forward and backward pass on a batch of `case` and return its Record.

    The model's floating inputs are made to require a gradient, so that the gradient there is seen. Where that
    alone lets a re-entrant checkpoint pass one to parameters, a second pass leaves them as they are.

    Args:
        case: The case; the gradients of its model's parameters are set to those of this pass alone.
        collect: What to reduce, as ``signal.statistic``.
        sites: Which modules to report.
        batch: Which of the case's batches.
        probes: Random vectors per estimate, stored with the record for the active measures.
        seed: Seed of dropout and the like, so that every pass draws the same; stored likewise.

    Raises:
        CaseFailure: If the user's model or loss raises (the message names the module), or if the loss
            cannot be differentiated.

    Side effects:
        Gradients and buffers of the case's model; work on an isolated case.
    """
    once = functools.partial(_pass, case, tuple(collect), sites, batch, probes, seed)
    record = once(inputs=True)
    if (1.0,) in record.values["call.reentrant"].values():
        return _without_lift(case, record, lambda: once(inputs=False))
    return record


def _without_lift(case: Case, lifted: Record, again: Callable[[], Record]) -> Record:
    """Return the record of the pass without inputs that require a gradient, where parameters lose theirs.

    A re-entrant checkpoint that is handed the data alone is asked for no gradient by the training. Where
    nothing would get one, backward itself says so, and the first record is kept.
    """
    parameters = list(case.model.parameters())
    gradients = [parameter.grad for parameter in parameters]
    try:
        with warnings.catch_warnings():
            # It is told by a finding.
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
            plain = again()
    except NoGradient:
        plain = lifted
    if all(p.grad is not None or g is None for p, g in zip(parameters, gradients, strict=True)):
        plain = lifted
    if plain is lifted:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
    return plain


def _pass(
    case: Case, collect: tuple[str, ...], sites: Select, batch: int, probes: int, seed: int, *, inputs: bool
) -> Record:
    """Run the pass; `inputs` makes those of the model require a gradient."""
    case.model.zero_grad(set_to_none=True)
    watch = Probe(case.model, collect, sites=sites, inputs=inputs)
    terms = Terms() if any(name.startswith("loss.") for name in collect) else None
    with random_states(), watch as probe:
        reseed(seed)
        try:
            with terms or nullcontext():
                loss = case.compute_loss(case.batches[batch])
        except CaseFailure:
            raise
        except Exception as error:
            raise CaseFailure.during(error, probe.innermost, batch) from error
        if not loss.requires_grad:
            if probe.cut:
                raise NoGradient(f"the model's output of {probe.cut}; give the loss what it was made from")
            raise NoGradient(
                "the loss has no gradient: it does not depend on any parameter that requires one; "
                "check for detach(), no_grad() or .item() in the model or the loss"
            )
        try:
            # The operation watch looks at the forward pass alone.
            with _disable_current_modes():
                probe.settle()
                probe.note(**read_graph(loss, probe.output_age))
                if terms is not None:
                    probe.note(**terms.read(loss))
                loss.backward()
        except Exception as error:
            raise CaseFailure.during(error, "", batch) from error
        probe.note(loss=loss.item(), batch=batch, probes=probes, seed=seed)
        record = probe.record()
        del loss
        probe.forget()
        return record
