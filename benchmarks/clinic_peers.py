"""What other tools say of a program of the clinic while it trains; scored by the same key.

They are no dependency. In a folder of its own, with PYTHONPATH=src where unitygain is not installed:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 numpy scipy torchmortem==0.1.1 torch-audit==0.3.0
    peers/bin/pip install gradsnitch==0.1.0 stabilityguard==0.3.0
    peers/bin/python benchmarks/clinic.py peers fitted

A tool watches the first steps of a plain training. It flags a program where it says anything at its level of
a warning or above, style aside (TA2xx and TA4xx of torch-audit). Its first cause is right where its first
sentence names the root cause in any words: WORDS is meant to be generous.
"""

import itertools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from zoo.clinic.program import Program

from unitygain._case import Case

STEPS = 60
INIT = r"init|weight scale|gain|he\b|xavier|kaiming"
WORDS = {
    "default-init": INIT,
    "tiny-init": INIT,
    "loud-init": INIT,
    "zero-init": INIT + r"|zero weight",
    "equal-init": INIT + r"|symmetr",
    "loud-recurrence": INIT + r"|recurren",
    "sigmoid": r"sigmoid|activation",
    "inputs": r"input|normali[sz]e (the )?(data|features)|data scal",
    "targets": r"target|label",
    "bias": r"bias",
    "gate-bias": r"gate|bias",
    "branches": r"residual|branch|skip",
    "batchnorm-depth": r"skip|residual|batch ?norm",
    "vanilla-rnn": r"lstm|gru|gate|recurren|bptt",
    "post-ln": r"layer ?norm|pre-?norm|pre-?ln|warm-?up",
    "attention-scale": r"attention|softmax|sqrt",
    "rate-high": r"(learning rate|lr)\b.*(high|large|reduce|lower)|(reduce|lower).*(learning rate|lr)\b",
    "rate-low": r"(learning rate|lr)\b.*(low|small|increase|raise)|(increase|raise).*(learning rate|lr)\b",
    "loss-scale": r"loss.*(sum|reduction|scale)|reduction",
    "loss-small": r"loss.*(scale|small|reduction)",
    "clip": r"clip",
    "decay": r"decay",
    "double-softmax": r"softmax|sigmoid|logits",
    "frozen": r"frozen|requires_grad",
    "cut-off": r"detach|no gradient|unused|no_grad|grad is none",
    "not-held": r"optimizer.*(missing|not|hold)|not in (the )?optimizer",
    "dead-link": r"clamp|sign|round|zero grad",
    "underflow": r"underflow|fp16|float16|scaler|precision",
    "overflow": r"overflow|fp16|float16|scaler|precision",
    "head": r"head|output layer|logits",
    "saturated-game": r"discriminator|saturat",
    "low-noise": r"timestep|snr|noise",
    "stretched-flow": r"flow|jacobian|coupling",
}
NAN = r"\blog\b|sqrt|mask|division|divide"


def consult(program: Program, seed: int) -> dict[str, Any]:
    """Return what every tool says, as rows like those of a visit."""
    truth = program.truth
    row: dict[str, Any] = {"name": program.name, "seed": seed, "peers": {}}
    if truth is not None:
        row["cause"] = truth.cause
    for name, watch in PEERS.items():
        case = program.case(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                said, failed = watch(case, min(program.steps, STEPS)), ""
            except Exception as error:
                said, failed = [], f"{type(error).__name__}: {error}"[:200]
        words = WORDS.get(truth.cause, NAN) if truth is not None else ""
        found = {"alarms": said[:6], "seconds": 0.0, "flagged": bool(said), "detected": bool(said)}
        found["first_cause"] = bool(said and words and re.search(words, said[0], re.IGNORECASE))
        row["peers"][name] = found | ({"failed": failed} if failed else {})
    return row


def steps(case: Case, count: int, optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, Tensor]]:
    """Yield the loss of every step before its backward pass."""
    for index, batch in enumerate(itertools.islice(itertools.cycle(case.batches), count)):
        optimizer.zero_grad()
        yield index, case.compute_loss(batch)


def clip(case: Case) -> None:
    """Clip as the case declares."""
    if case.clip is not None:
        case.clip(case.model.parameters())


def torchmortem(case: Case, count: int) -> list[str]:
    """Attach an autopsy and read its report."""
    from torchmortem import Autopsy

    optimizer = case.build_optimizer()
    autopsy = Autopsy(case.model, optimizer=optimizer)
    autopsy.attach()
    for _, loss in steps(case, count, optimizer):
        loss.backward()
        clip(case)
        optimizer.step()
        autopsy.step(loss=float(loss.detach()))
    autopsy.detach()
    report = autopsy.get_report()
    grave = [f for f in report.findings if f.severity.name in {"WARNING", "ERROR", "CRITICAL"}]
    insights = [str(getattr(insight, "title", insight)) for insight in report.insights]
    return insights + [f"{f.title} {getattr(f, 'description', '')}" for f in grave] if grave else []


def torch_audit(case: Case, count: int) -> list[str]:
    """Train under its audit and read what is no matter of style."""
    from torch_audit import audit_dynamic

    optimizer = case.build_optimizer()
    with audit_dynamic(case.model, optimizer=optimizer, every_n_steps=1, reporters=[]) as audit:
        for _, loss in steps(case, count, optimizer):
            audit.backward(loss)
            clip(case)
            audit.optimizer_step()
        found = audit.finish(report=False).findings
    grave = [f for f in found if not re.match("TA[24]", f.rule_id) and "INFO" not in str(f.severity).upper()]
    return [f"{f.rule_id} {f.message}" for f in grave]


def gradsnitch(case: Case, count: int) -> list[str]:
    """Let it log the losses and gradients, and read its report."""
    import gradsnitch as tool

    optimizer = case.build_optimizer()
    monitor = tool.watch(case.model, optimizer, check_every=10)
    for index, loss in steps(case, count, optimizer):
        loss.backward()
        clip(case)
        monitor.log(index, float(loss.detach()))
        optimizer.step()
    return [str(finding) for finding in monitor.report()]


def stabilityguard(case: Case, count: int) -> list[str]:
    """Step through its guard and read what it skipped."""
    from stabilityguard import GuardedOptimizer

    optimizer = case.build_optimizer()
    with tempfile.TemporaryDirectory() as folder:
        guard = GuardedOptimizer(
            optimizer, case.model, spike_threshold=10.0, nan_action="skip", verbose=False, log_dir=folder
        )
        for _, loss in steps(case, count, optimizer):
            loss.backward()
            clip(case)
            guard.step()
        spikes, skips = guard.total_spikes, guard.total_skips
    return [f"{spikes} spikes, {skips} steps skipped"] if spikes or skips else []


PEERS: dict[str, Callable[[Case, int], list[str]]] = {
    "torchmortem 0.1.1": torchmortem,
    "torch-audit 0.3.0": torch_audit,
    "gradsnitch 0.1.0": gradsnitch,
    "stabilityguard 0.3.0": stabilityguard,
}
