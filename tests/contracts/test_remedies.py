"""What every remedy promises: it changes only what it names, and its undo is exact, bit for bit."""

import inspect
import itertools
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.tries import Try
from torch import nn
from zoo import PATIENTS
from zoo.diagnosis import diagnose
from zoo.patient import classify, seeded

import unitygain.remedies  # noqa: F401 (fills the table)
from unitygain._candidates import paste
from unitygain._case import Case
from unitygain._diagnose import judge, measure_all
from unitygain._registry import MEASURES, REMEDIES, RULES
from unitygain._types import Finding
from unitygain.probe.dropouts import module_rate
from unitygain.probe.isolate import isolated


def soft() -> Case:
    """A classifier with a softmax of its own, a frozen layer, an optimizer instance and a precision."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(-1))
    model[0].requires_grad_(False)
    data = [(torch.randn(5, 4), torch.randint(3, (5,)))]
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1, momentum=0.9)
    case = Case(model, classify, data, optimizer, precision="bfloat16")
    case.compute_loss(data[0]).backward()
    optimizer.step()
    optimizer.zero_grad()
    return case


HEADINGS = ("What it changes", "Why it helps", "When it does not help", "What it costs", "References")
CHANGES = {
    *("initial weights", "architecture", "parametrisation", "optimizer"),
    *("gradient", "loss", "data", "precision"),
}
PATIENT = {patient.name: patient for patient in PATIENTS}
BY_NAME = {name: patient.make_case for name, patient in PATIENT.items()} | {"soft": soft}
# Every file tries_NAME.py beside this one holds the tries of one family of remedies, and cases of its own.
FAMILIES = [
    import_module(f"contracts.{path.stem}") for path in sorted(Path(__file__).parent.glob("tries_*.py"))
]
TRIED: dict[str, tuple[Try, ...]] = {
    remedy: tries for family in FAMILIES for remedy, tries in family.TRIES.items()
}
for family in FAMILIES:
    BY_NAME |= {name: seeded(make) for name, make in getattr(family, "CASES", {}).items()}
CASES = [(remedy, one.patient, one.given) for remedy, tries in TRIED.items() for one in tries]
CURES = [(remedy, one) for remedy, tries in TRIED.items() for one in tries if one.cures]
# make check checks the first cure of every remedy, make nightly all.
FIRST = [next(iter(of)) for _, of in itertools.groupby(CURES, key=lambda cure: cure[0])]


def bits(case: Case) -> dict[str, tuple[int, object]]:
    """Return identity and bytes of every tensor, every module, and the settings of the case."""
    model: dict[str, tuple[int, object]] = {
        name: (id(tensor), tensor.detach().clone())
        for name, tensor in (*case.model.named_parameters(), *case.model.named_buffers())
    }
    modules = {
        f"module {name}": (id(module), (module.training, module_rate(module)))
        for name, module in case.model.named_modules()
    }
    hooks = {
        f"hooks of {name}": (0, [*map(id, (*m._forward_pre_hooks.values(), *m._forward_hooks.values()))])
        for name, m in case.model.named_modules()
    }
    leaves = torch.utils._pytree.tree_leaves(case.batches)
    batches = {f"batch {i}": (id(leaf), leaf.clone()) for i, leaf in enumerate(leaves)}
    settings = {f"case.{name}": (id(value), None) for name, value in vars(case).items()}
    flags = {f"{name} trains": (p.requires_grad, None) for name, p in case.model.named_parameters()}
    optimizer = optimizer_of(case)
    return model | modules | hooks | batches | settings | flags | optimizer


def optimizer_of(case: Case) -> dict[str, tuple[int, object]]:
    """Return the groups and the state of an optimizer instance; nothing for a factory."""
    groups = getattr(case.optimizer, "param_groups", ())
    state = getattr(case.optimizer, "state", {})
    settings = {
        f"group {i}.{key}": (0, [*map(id, value)] if key == "params" else value)
        for i, group in enumerate(groups)
        for key, value in group.items()
    }
    kept = {
        f"state of {id(parameter)}.{key}": (0, value.clone() if isinstance(value, torch.Tensor) else value)
        for parameter, entries in state.items()
        for key, value in entries.items()
    }
    return settings | kept


def differ(before: dict[str, tuple[int, object]], after: dict[str, tuple[int, object]]) -> list[str]:
    """Return what is not bitwise the same."""
    return [
        key
        for key in before.keys() | after.keys()
        if key not in before
        or key not in after
        or before[key][0] != after[key][0]
        or (
            not torch.equal(before[key][1], after[key][1])
            if isinstance(before[key][1], torch.Tensor)
            else before[key][1] != after[key][1]
        )
    ]


def test_every_remedy_is_tried():
    assert set(REMEDIES) <= set(TRIED), "add a patient for the new remedy to TRIED"


@pytest.mark.parametrize(("remedy", "patient", "given"), CASES, ids=[f"{r}-{p}" for r, p, _ in CASES])
def test_undo_is_exact(remedy, patient, given):
    case = BY_NAME[patient]()
    before, state = bits(case), torch.get_rng_state()
    # The code that a trial shows is what is applied; arguments that no code spells are its variables.
    scope: dict[str, Any] = {"case": case, **given}
    exec(paste([(remedy, given)]), scope)
    undo = scope["undo"]
    assert differ(before, bits(case)), "the remedy changed nothing"
    undo()
    assert not differ(before, bits(case))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("remedy", "patient", "given"), CASES, ids=[f"{r}-{p}" for r, p, _ in CASES])
def test_parameters_keep_their_identity(remedy, patient, given):
    """An optimizer that holds the parameters must hold the changed ones too, and those that are new."""
    case = BY_NAME[patient]()
    before = {id(parameter): parameter for parameter in case.model.parameters()}
    REMEDIES[remedy].apply(case, **given)
    new = [parameter for parameter in case.model.parameters() if id(parameter) not in before]
    if hasattr(case.optimizer, "param_groups"):
        held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
        assert {id(parameter) for parameter in new} <= held
    assert torch.isfinite(case.compute_loss(case.batches[0])).item() or "loud" in patient


@pytest.mark.parametrize(
    ("remedy", "one"),
    [
        pytest.param(
            *cure, id=f"{cure[0]}-{cure[1].patient}", marks=[] if cure in FIRST else pytest.mark.slow
        )
        for cure in CURES
    ],
)
@pytest.mark.cure
def test_what_it_claims_to_cure_is_gone_on_rediagnosis(remedy, one):
    case = BY_NAME[one.patient]()
    assert set(one.cures) <= set(REMEDIES[remedy].treats), "a cure is of a code that the remedy treats"
    known = diagnose(PATIENT[one.patient]).findings if one.patient in PATIENT else examine(case, one.cures)
    assert set(one.cures) <= grave(known), "the patient does not have what is to be cured"
    REMEDIES[remedy].apply(case, **one.given)
    assert not grave(examine(case, one.cures)) & set(one.cures)


def examine(case: Case, codes: tuple[str, ...]) -> tuple[Finding, ...]:
    """Return what these rules find; what they need has to be measured, since nothing else is a cure.

    Chance is not drawn: it can only take a finding back, and costs most passes.
    """
    rules = [RULES[code] for code in codes]
    needed = {name for rule in rules for name in rule.needs}
    read = needed | {name for rule in rules for name in rule.wants}
    with isolated(case, 0) as (subject, _):
        chosen = [item for name, item in MEASURES.items() if name in read]
        profiles, _, _ = measure_all(subject, None, 8, 0, lambda *_: None, chosen, chance=False)
    assert needed <= set(profiles), "what is not measured is not cured"
    return judge(profiles, rules)


def grave(findings: tuple[Finding, ...]) -> set[str]:
    """Return the codes of the findings that are a warning or worse."""
    return {finding.code for finding in findings if finding.severity != "info"}


@pytest.mark.parametrize("remedy", sorted(REMEDIES))
def test_page_has_its_headings_and_says_when_it_does_not_help(remedy):
    page = REMEDIES[remedy].page + "\n"
    before, *sections = re.split(r"^([A-Z][^\n:]*):\n", page, flags=re.MULTILINE)
    assert re.match(rf"{remedy}: \S[^\n]*(\n\S[^\n]*)*\.\n\n\S", before), "name: one sentence. A paragraph."
    assert tuple(sections[::2]) == HEADINGS
    assert all(len(body.split()) >= 3 for body in sections[1::2]), "a section says nothing"
    assert all(line.startswith("    ") for body in sections[1::2] for line in body.splitlines() if line)


@pytest.mark.parametrize("remedy", sorted(REMEDIES))
def test_what_it_changes_is_one_of_the_known_words(remedy):
    assert REMEDIES[remedy].changes in CHANGES


@pytest.mark.parametrize("remedy", sorted(name for name in REMEDIES if REMEDIES[name].instead_of))
def test_what_stands_in_for_another_needs_no_argument_and_names_remedies(remedy):
    assert set(REMEDIES[remedy].instead_of) <= set(REMEDIES)
    _, *given = inspect.signature(REMEDIES[remedy].apply).parameters.values()
    assert not [one.name for one in given if one.default is one.empty]


@pytest.mark.parametrize(
    ("remedy", "given", "message"),
    [
        ("rescale_weights", {"gain": 0.0}, "give a positive number"),
        ("rescale_weights", {"sites": "nowhere"}, "no weight of a linear map is chosen by sites='nowhere'"),
        ("zero_biases", {"sites": "nowhere"}, "has a bias"),
        ("scale_branch", {"sites": "0", "factor": float("nan")}, "factor is nan; give a finite number"),
        ("scale_branch", {"sites": "1", "factor": 0.5}, "holds a linear map"),
        ("scale_head", {"factor": 0.5, "site": "1"}, "no linear map at 1"),
        ("lower_dropout", {"p": 1.0}, "p is 1.0; give the share to drop, from 0 to below 1"),
        ("lower_dropout", {}, "no module is a dropout of more than 0.1"),
        ("swap_activation", {"of": "Sigmoid"}, "no module is a Sigmoid"),
        ("swap_activation", {"to": "Swoosh"}, "no activation 'Swoosh'"),
        ("bypass_norm", {}, "no module is a normalisation"),
        ("open_gates", {"bias": 1.0}, "is an nn.LSTM or nn.GRU with biases; of another gate give the path"),
        ("calm_attention", {"factor": 0.5}, "no query map"),
        ("swap_loss", {"variant": "other"}, r"no variant 'other' \(declared: none\); give Case"),
    ],
)
def test_what_cannot_be_done_says_so(remedy, given, message):
    case = Case(
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()), lambda model, batch: model(batch).sum(), [torch.ones(1, 2)]
    )
    with pytest.raises(ValueError, match=message):
        REMEDIES[remedy].apply(case, **given)


def test_inputs_that_the_loss_makes_are_refused():
    case = Case(nn.Linear(2, 2), lambda model, batch: model(batch / 255).sum(), [torch.ones(1, 2)])
    with pytest.raises(ValueError, match="scale it where the loss prepares it"):
        REMEDIES["unit_inputs"].apply(case)


def test_targets_are_not_touched():
    case = BY_NAME["generative-denoiser"]()
    noise = case.batches[0][2]
    REMEDIES["unit_inputs"].apply(case)
    assert case.batches[0][2] is noise
    assert case.batches[0][0] is not noise


def test_rescaled_weights_have_the_gain_that_was_asked_for():
    """A naive twin: the output's rms over the input's, for many inputs through one layer, is the gain."""
    for layer in (
        nn.Linear(256, 256, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular", bias=False),
    ):
        case = Case(layer, lambda m, x: m(x).sum(), [torch.ones(1)])
        REMEDIES["rescale_weights"].apply(case, gain=3.0)
        shape = (512, 256) if isinstance(layer, nn.Linear) else (64, 16, 12, 12)
        ratio = layer(torch.randn(shape)).square().mean().sqrt().item()
        # A mean of squares over n_out outputs of fan_in products: sd of the ratio is about 1/sqrt(2·512·256).
        assert ratio == pytest.approx(3.0, rel=0.03)


def test_transposed_convolution_counts_what_reaches_one_output():
    layer = nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1, bias=False)
    case = Case(layer, lambda m, x: m(x).sum(), [torch.ones(1)])
    REMEDIES["rescale_weights"].apply(case, gain=1.0)
    inside = layer(torch.randn(32, 32, 16, 16))[:, :, 2:-2, 2:-2]
    assert inside.square().mean().sqrt().item() == pytest.approx(1.0, rel=0.03)


def test_scaled_queries_scale_the_logits():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(3, 5, 8)
    case = Case(layer, lambda m, b: m(b, b, b)[0].sum(), [x])

    def logits() -> torch.Tensor:
        q, k, _ = nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
        return q @ k.mT

    before = logits()
    REMEDIES["calm_attention"].apply(case, factor=0.25)
    torch.testing.assert_close(logits(), 0.25 * before, atol=0, rtol=2e-4)
