"""diagnose(case): the main flow, from the Case to the Report."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch.utils import _pytree as pytree

import unitygain.measures  # noqa: F401 (importing these three rooms fills the registry)
import unitygain.remedies  # noqa: F401
import unitygain.rules  # noqa: F401
from unitygain._case import Case, CaseFailure
from unitygain._registry import MEASURES, RULES, Measure, Rule
from unitygain._removal import check_causes
from unitygain._static import measure_static, require_no_device, unjudged_static
from unitygain._types import NOT_JUDGED, Finding, Profile, Skipped
from unitygain.probe.draws import on_meta
from unitygain.probe.few import choose_samples
from unitygain.probe.hooks import takes_hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.record import Record
from unitygain.probe.redraw import redraw
from unitygain.probe.sites import Select
from unitygain.probe.trace import Gap
from unitygain.report import Report
from unitygain.rules._order import in_order

__all__ = ["diagnose"]


Progress = Callable[[int, int, str], None]
# The measures that put beside their values what chance alone gives.
GAINS = {"forward_gain", "backward_gain", "rms_gain"}


def diagnose(
    case: Case,
    *,
    sites: Select = None,
    probes: int = 8,
    seed: int = 0,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    removal: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Measure where the signal and the gradient of `case` grow or die, judge it, and test the causes.

    Of a model on the meta device nothing is measured. The report is static: what theory predicts of its
    operations, for weights as its modules would draw them, and what follows from that alone.

    Args:
        case: A model and one way to train it.
        sites: Patterns (``"encoder.layers.*"``) or a callable ``(path, module) -> bool`` that choose the
            modules to report and the trunk; found without help when left out.
        probes: Random vectors per block for the estimates that need them.
        seed: Seed of those vectors, and of dropout.
        only: Codes of the rules to run; all when empty.
        skip: Codes of the rules not to run. A single code may stand alone.
        dtype: Floating dtype in which to measure (``"float64"``); the model's own when left out.
        device: Where to measure; where the model is when left out.
        removal: Whether to check the first cause of each finding by taking it away on a copy.
        progress: Called with (done, total, what) between the steps.

    Returns:
        The Report: profiles, findings (most severe first), what was skipped, what it worked on.

    Raises:
        RuntimeError: If the user's model or loss raises (the message says where, the cause is that
            exception), or cannot be diagnosed.
        ValueError: If a code, `dtype` or `device` is unknown, or `probes` is below 1.

    Side effects:
        None on the case: parameters, gradients, buffers, random states, train flags and hooks are
        afterwards bitwise as they were. The data is drawn once into ``case.batches``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(32, 32), nn.ReLU())))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(16, 32)])
        >>> report = diagnose(case, only=["UG101"])
        >>> [finding.code for finding in report.findings]
        ['UG101']
    """
    if probes < 1:
        raise ValueError(f"probes is {probes}; use at least 1")
    judges = choose_rules(only, skip)
    started = time.perf_counter()
    require_trainable(case)
    require_samples(case)
    with isolated(case, seed) as (subject, worked_on):
        say = progress or (lambda done, total, what: None)
        static = on_meta(subject.model)
        if static:
            require_no_device(device)
        move(subject, dtype, device)
        if static:
            profiles, record, skipped = measure_static(subject, sites, seed, say)
        else:
            profiles, record, skipped = measure_all(subject, sites, probes, seed, say)
        findings = judge(profiles, judges, static=static)
        if removal and not static:
            # Each copy that is tested has gradients of its own.
            subject.model.zero_grad(set_to_none=True)
            findings = check_causes(subject, findings, record, sites, say)
        facts = describe(subject, record, worked_on, seed)
    skipped += unjudged_static(profiles, judges) if static else unjudged(profiles, judges, skipped)
    return Report(facts, profiles, findings, skipped, time.perf_counter() - started)


def choose_rules(only: str | Sequence[str], skip: str | Sequence[str]) -> list[Rule]:
    """Return the rules with the codes in `only` (all if empty) and not in `skip`; ValueError if unknown."""
    only, skip = ([codes] if isinstance(codes, str) else codes for codes in (only, skip))
    for code in (*only, *skip):
        if code not in RULES:
            raise ValueError(f"no rule has the code {code!r}; the codes are {', '.join(sorted(RULES))}")
    return [r for code, r in sorted(RULES.items()) if (not only or code in only) and code not in skip]


def require_trainable(case: Case) -> None:
    """Refuse a model in which nothing can be diagnosed."""
    script = next((path for path, module in case.model.named_modules() if not takes_hooks(module)), None)
    if script is not None:
        # Nor can it be copied: the parameters of the copy get no gradient.
        where = f"module {script!r}" if script else "the model"
        raise CaseFailure(f"{where} is TorchScript, which takes no hooks; give the module it was made from")
    parameters = list(case.model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise CaseFailure(f"nothing to diagnose: 0 of {len(parameters)} parameters require a gradient")


def require_samples(case: Case) -> None:
    """Refuse a batch without samples: its means are NaN, and no finding would be no news."""
    tensors = [leaf for leaf in pytree.tree_leaves(case.batches[0]) if isinstance(leaf, torch.Tensor)]
    if tensors and all(tensor.numel() == 0 for tensor in tensors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise CaseFailure(f"batch 0 is empty: its tensors have the shapes {shapes}; give one with samples")


def move(case: Case, dtype: str | torch.dtype | None, device: str | torch.device | None) -> None:
    """Cast and move the model and the batches of an isolated case; ValueError if one is unknown."""
    if dtype is not None or device is not None:
        case.move(_device(device), _dtype(dtype))


def _dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    kind = getattr(torch, name, None) if isinstance(name, str) else name
    if name is None or (isinstance(kind, torch.dtype) and kind.is_floating_point):
        return kind
    raise ValueError(
        f"dtype {name!r} is no floating dtype; use 'float32', 'float64', 'bfloat16' or 'float16'"
    )


def _device(name: str | torch.device | None) -> torch.device | None:
    try:
        return None if name is None else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown; use 'cpu', 'cuda', 'cuda:1' or 'mps'") from error


def measure_all(
    case: Case,
    sites: Select,
    probes: int,
    seed: int,
    say: Progress,
    chosen: Iterable[Measure] | None = None,
    *,
    chance: bool = True,
) -> tuple[dict[str, Profile], Record, tuple[Skipped, ...]]:
    """Run the passive pass, then every measure; a measure that fails is listed, not hidden.

    Without `chance` the gains are not measured with the weights in random places, which takes most passes.
    """
    wanted = list(MEASURES.values() if chosen is None else chosen)
    total = len(wanted) + 1
    say(0, total, "forward and backward")
    needs = dict.fromkeys(key for m in wanted for key in m.needs)
    record = observe(case, needs, sites=sites, probes=probes, seed=seed)
    if any(m.active for m in wanted):
        record = choose_samples(case, record)
    if chance and GAINS & {m.name for m in wanted}:
        record = redraw(case, record, random_gains="rms_gain" in {m.name for m in wanted})
    profiles: dict[str, Profile] = {}
    skipped = list(record.skipped)
    for index, item in enumerate(sorted(wanted, key=lambda m: m.active), start=1):
        say(index, total, item.name)
        try:
            profile = item.compute(case, record)
        except Gap as reason:
            skipped.append(Skipped(item.name, str(reason)))
            continue
        except Exception as error:
            if os.environ.get("UNITYGAIN_STRICT"):
                raise
            skipped.append(Skipped(item.name, f"the measurement failed: {type(error).__name__}: {error}"))
            continue
        if profile is not None:
            profiles[item.name] = profile
    say(total, total, "done")
    return profiles, record, tuple(skipped)


def judge(
    profiles: Mapping[str, Profile], judges: Iterable[Rule], *, static: bool = False
) -> tuple[Finding, ...]:
    """Return what the rules find, most severe first, causes before consequences; what a `static` one can."""
    able = [rule for rule in judges if rule.static] if static else judges
    found = [
        finding
        for rule in able
        if all(name in profiles for name in (rule.static if static else rule.needs))
        for finding in rule.judge(profiles)
    ]
    return in_order(found)


def unjudged(
    profiles: Mapping[str, Profile], judges: Iterable[Rule], skipped: Iterable[Skipped]
) -> tuple[Skipped, ...]:
    """Say which rules had nothing to judge: a silent rule that never looked is no good news."""
    failed = {note.what for note in skipped}
    notes = []
    for rule in judges:
        missing = [name for name in rule.needs if name not in profiles]
        if missing:
            gap = " and ".join(missing)
            why = f"{gap} could not be measured" if failed.intersection(missing) else f"no {gap} here"
            notes.append(Skipped(rule.code, f"{NOT_JUDGED}{why}"))
    return tuple(notes)


def describe(case: Case, record: Record, worked_on: str, seed: int) -> dict[str, str | float | int]:
    """Say what was diagnosed; the loss of a model on meta has no value."""
    parameters = list(case.model.parameters())
    loss = {"loss": record.facts["loss"]} if "loss" in record.facts else {}
    return {
        "name": case.name or type(case.model).__name__,
        "parameters": sum(p.numel() for p in parameters),
        **loss,
        "blocks": len(record.blocks),
        "block": next((p.type for p in record.of("entry")), ""),
        "mode": "train" if case.model.training else "eval",
        "initialisation": "drawn by the factory" if case.factory else "one initialisation",
        "optimizer": type(case.build_optimizer()).__name__ if case.optimizer else "none declared",
        "dtype": str(next(p.dtype for p in parameters)).removeprefix("torch."),
        "precision": case.precision or "as the model",
        "device": str(case.device),
        "seed": seed,
        "worked on": worked_on,
        "torch": torch.__version__,
    }
