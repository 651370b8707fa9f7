"""What a case must be to be treated, asked before anything is measured: a clear sentence where it is not."""

import math

import torch

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain._job import fresh_subject
from unitygain.probe.draws import on_meta
from unitygain.probe.hooks import uncompiled

# Two equal calls on an accelerator may add in another order; on the CPU they give the same bits.
SAME = 1e-4


def require_treatable(case: Case, seed: int) -> None:
    """Refuse a case on whose copies nothing could be learnt.

    Args:
        case: The case; it is not changed.
        seed: The first seed.

    Raises:
        CaseFailure: If its parameters are on meta or lie on several devices, its factory builds nothing new,
            it cannot be copied, its copy does not run on its own parameters, or its loss differs from call to
            call under one seed.

    Cost: two copies, one after the other, two forward passes and one backward pass.
    """
    devices = sorted({str(parameter.device) for parameter in case.model.parameters()})
    if len(devices) > 1:
        raise CaseFailure(
            f"the model's parameters lie on {len(devices)} devices ({', '.join(devices)}); trials train "
            "copies on one: move the model to it, or give a smaller model of the same kind"
        )
    if on_meta(case.model):
        raise CaseFailure("the model is on meta: trials train it, which takes weights; build it on a device")
    _require_new_models(case, seed)
    losses = [_first_loss(case, seed, check=turn == 0) for turn in range(2)]
    near = SAME if devices and devices != ["cpu"] else 0.0
    if not _same(losses[0], losses[1], near):
        raise CaseFailure(
            f"the loss differs from call to call under one seed ({losses[0]:.6g}, then {losses[1]:.6g}), so "
            "that trials would compare chance; draw from torch, numpy or random, which are seeded for every "
            "trial, or put it into the batches"
        )


def _require_new_models(case: Case, seed: int) -> None:
    """Refuse a factory that hands out what it handed out before: training it would train the user's model."""
    if case.factory is None:
        return
    known = {id(parameter) for parameter in case.model.parameters()}
    if any(id(parameter) in known for parameter in case.build(seed + 1).parameters()):
        raise CaseFailure(
            "the model's factory returns the same parameters every time; build a new model in it, or "
            "give the model itself"
        )


def _same(one: float, other: float, near: float) -> bool:
    return math.isclose(one, other, rel_tol=near, abs_tol=0.0) or (math.isnan(one) and math.isnan(other))


def _first_loss(case: Case, seed: int, *, check: bool) -> float:
    """The loss of a fresh copy on the first batch."""
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        try:
            subject = fresh_subject(case, seed, 0)
        except Exception as error:
            raise CaseFailure(
                f"the case cannot be copied, so nothing can be tried on it: {type(error).__name__}: {error}; "
                "give a function that returns a new model, and keep open files and CUDA graphs out of it"
            ) from error
        reseed(seed)
        try:
            loss = subject.compute_loss(subject.batches[0])
        except CaseFailure:
            raise
        except Exception as error:
            raise CaseFailure.during(error, "", 0) from error
        if check:
            _require_own(subject, loss)
        return float(loss.detach())


def _require_own(subject: Case, loss: torch.Tensor) -> None:
    """Refuse a copy whose forward still runs on the original's parameters."""
    trainable = [parameter for parameter in subject.model.parameters() if parameter.requires_grad]
    if not loss.requires_grad or not trainable:
        return
    reached = torch.autograd.grad(loss, trainable, allow_unused=True)
    if all(gradient is None for gradient in reached):
        raise CaseFailure(
            "a copy of the model does not run on its own parameters: its forward is bound to the original, "
            "as by CUDA graphs or a patched forward; give a function that returns a new model without them"
        )
