"""One forward and backward pass of a Case under a Probe."""

from collections.abc import Iterable
from contextlib import nullcontext

from torch.utils._python_dispatch import _disable_current_modes

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain.probe.capture import Probe
from unitygain.probe.loss_graph import read_graph
from unitygain.probe.record import Record
from unitygain.probe.sites import Select
from unitygain.probe.terms import Terms


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
    case.model.zero_grad(set_to_none=True)
    collect = tuple(collect)
    watch = Probe(case.model, collect, sites=sites, inputs=True)
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
                raise CaseFailure(f"the model's output of {probe.cut}; give the loss what it was made from")
            raise CaseFailure(
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
