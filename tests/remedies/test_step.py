"""The remedies that change what is done with a gradient: clip, warm-up, AdamW in the place of SGD."""

import copy
import math

import pytest
import torch
from torch import nn
from zoo import PATIENTS
from zoo.patient import classify

from unitygain._case import Case
from unitygain._rehearsal import rehearse
from unitygain.measures import update_ratio
from unitygain.probe.observe import observe
from unitygain.remedies import clip_gradients, use_adamw, warm_up

PATIENT = {patient.name: patient for patient in PATIENTS}


def quartic(rate: float = 0.1) -> Case:
    """Descend x⁴/4 from 10 in steps of 0.1, which overshoots without a clip."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 10.0)
    return Case(
        model,
        lambda m, x: m(x).pow(4).sum() / 4,
        [torch.ones(1, 1)],
        lambda parameters: torch.optim.SGD(parameters, rate),
    )


def test_the_clip_that_is_searched_for_trains_what_broke_without():
    case = quartic()
    assert math.isinf(rehearse(case, 20).final)
    undo = clip_gradients(case)
    assert rehearse(case, 20).final < 1e-2 * 10**4 / 4
    undo()
    assert math.isinf(rehearse(case, 20).final)


def test_a_growing_gradient_over_time_is_cut_to_the_threshold():
    case = PATIENT["rnn-relu-identity-1.2"].make_case()
    clip_gradients(case, threshold=0.5)
    case.compute_loss(case.batches[0]).backward()
    assert case.clip is not None
    report = case.clip(case.model.parameters())
    assert report.norm_before > 1e3
    assert report.norm_after == pytest.approx(0.5, rel=1e-6)


def test_a_clip_that_no_threshold_makes_train_is_refused():
    case = quartic()
    with pytest.raises(ValueError, match="the case declares no optimizer"):
        clip_gradients(Case(case.model, case.loss, case.batches))
    with pytest.raises(ValueError, match="c is 0"):
        clip_gradients(case, threshold=0.0)
    still = Case(case.model, lambda m, x: 1 + 0 * m(x).sum(), case.batches, case.optimizer)
    with pytest.raises(ValueError, match="case"):
        clip_gradients(still)


def test_the_rate_grows_linearly_and_the_own_schedule_follows():
    case = quartic(2.0)
    case.schedule = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    warm_up(case, steps=4, start=0.2)
    optimizer = case.build_optimizer()
    schedule = case.schedule(optimizer)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 1.0, 0.5])


def test_a_warm_up_trains_what_overshoots_at_the_start():
    """x⁴ bends less as x falls: near the end the whole rate is fine."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    case = Case(
        model, lambda m, x: m(x).pow(4).sum() / 4, [torch.ones(1, 1)], lambda p: torch.optim.SGD(p, 0.5)
    )
    assert math.isinf(rehearse(case, 60).final)
    warm_up(case, steps=50)
    assert rehearse(case, 60).final < 0.01 * 3**4 / 4


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({}, {}, "declares no optimizer"),
        ({"optimizer": torch.optim.SGD}, {"start": 0.0}, "start 0.0; give at least 1 step"),
        ({"optimizer": torch.optim.SGD}, {"steps": 0}, "steps is 0"),
        ({"optimizer": torch.optim.SGD, "step": lambda case, batch: 0.0}, {}, "steps its own schedule"),
    ],
)
def test_a_warm_up_without_what_it_needs_says_so(options, given, message):
    case = Case(nn.Linear(1, 1), lambda m, x: m(x).sum(), [torch.ones(1, 1)], **options)
    with pytest.raises(ValueError, match=message):
        warm_up(case, **given)


def test_a_schedule_that_is_none_of_torchs_is_named():
    case = quartic()
    case.schedule = lambda optimizer: object()
    warm_up(case)
    with pytest.raises(ValueError, match="schedule is a object, before which no warm-up"):
        case.schedule(case.build_optimizer())


def test_adamw_keeps_groups_ratios_and_decay_per_step():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [
        {"params": first.parameters(), "lr": 0.5, "weight_decay": 0.1},
        {"params": second.parameters(), "lr": 0.05},
    ]
    given = torch.optim.SGD(groups, 0.1, momentum=0.9)
    case = Case(nn.Sequential(first, second), lambda m, x: m(x).sum(), [torch.ones(1, 2)], given)
    state = copy.deepcopy(given.state_dict())
    undo = use_adamw(case, rate=0.01)
    new = case.optimizer
    assert isinstance(new, torch.optim.AdamW)
    assert [group["lr"] for group in new.param_groups] == pytest.approx([0.01, 0.001])
    shrunk = [group["lr"] * group["weight_decay"] for group in new.param_groups]
    # A decay in the gradient is built up by the momentum, one beside it is not.
    assert shrunk == pytest.approx([0.5 * 0.1 / (1 - 0.9), 0.0])
    held = [list(map(id, group["params"])) for group in new.param_groups]
    assert held == [list(map(id, module.parameters())) for module in (first, second)]
    undo()
    assert case.optimizer is given
    assert given.state_dict() == state


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.optim.Adam, "the optimizer is Adam, not SGD.*it has no weight decay to be taken out"),
        (torch.optim.AdamW, "the weight decay of AdamW stands beside the step already"),
        (
            lambda p: torch.optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
            "of NAdam stands beside",
        ),
        (torch.optim.Adagrad, "the optimizer is Adagrad; AdamW goes in the place of SGD, and of Adam"),
    ],
)
def test_an_optimizer_in_whose_place_adamw_is_no_remedy_stays(make, message):
    model = nn.Linear(1, 1)
    optimizer = make(model.parameters())
    case = Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 1)], optimizer)
    with pytest.raises(ValueError, match=message):
        use_adamw(case)
    assert case.optimizer is optimizer
    with pytest.raises(ValueError, match="rate is 0"):
        use_adamw(case, rate=0.0)
    with pytest.raises(ValueError, match="eps is nan"):
        use_adamw(case, eps=float("nan"))
    case.optimizer = None
    with pytest.raises(ValueError, match="declares no optimizer"):
        use_adamw(case)


def descend(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> list[torch.Tensor]:
    """Return where forty steps on a fixed sequence of gradients take a weight."""
    source, path = torch.Generator().manual_seed(5), []
    for _ in range(40):
        weight.grad = 1 + torch.randn(weight.shape, generator=source, dtype=torch.float64)
        optimizer.step()
        path.append(weight.detach().clone())
    return path


def optimized(make, instance: bool) -> tuple[Case, nn.Module]:
    """Return a case over one weight in float64, with an optimizer instance or a factory."""
    model = nn.Linear(4, 3, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    case = Case(model, lambda m, x: m(x).sum(), [], make(model.parameters()) if instance else make)
    return case, model


@pytest.mark.parametrize("instance", [True, False])
def test_a_coupled_decay_goes_beside_the_same_step(instance):
    """Metamorphic: Adam without decay, and each weight shrunk by rate times decay before each step."""
    options = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-5}
    case, model = optimized(lambda p: torch.optim.Adam(p, weight_decay=0.4, **options), instance)
    given = case.optimizer
    undo = use_adamw(case)
    found = descend(case.build_optimizer(), model.weight)
    undo()
    assert case.optimizer is given
    twin = nn.Parameter(torch.full((3, 4), 2.0, dtype=torch.float64))
    adam, source = torch.optim.Adam([twin], **options), torch.Generator().manual_seed(5)
    for one in found:
        with torch.no_grad():
            twin.mul_(1 - 0.05 * 0.4)
        twin.grad = 1 + torch.randn(twin.shape, generator=source, dtype=torch.float64)
        adam.step()
        torch.testing.assert_close(one, twin.detach(), atol=0, rtol=1e-12)


@pytest.mark.parametrize("make", [torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam])
def test_its_relatives_keep_rate_betas_eps_and_decay(make):
    case, _ = optimized(lambda p: make(p, lr=0.02, betas=(0.7, 0.9), eps=1e-6, weight_decay=0.3), True)
    use_adamw(case)
    (group,) = case.optimizer.param_groups
    kept = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
    assert kept == {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    use_adamw(optimized(lambda p: make(p, weight_decay=0.3), False)[0], rate=0.5)


def test_rmsprop_takes_steps_of_its_own_length_in_the_end():
    """Under a gradient that stays both go by rate / (1 - momentum) per step, decay aside."""
    case, model = optimized(lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=1e-9), False)
    optimizers = [case.build_optimizer()]
    use_adamw(case)
    optimizers.append(case.build_optimizer())
    assert optimizers[1].param_groups[0]["betas"] == (0.9, 0.99)
    for optimizer in optimizers:
        for _ in range(1500):
            before, model.weight.grad = model.weight.detach().clone(), torch.ones_like(model.weight)
            optimizer.step()
        assert (before - model.weight.detach()).mean().item() == pytest.approx(0.1, rel=1e-5)


def default_relu(depth: int) -> Case:
    """Return a ReLU chain with PyTorch's weights, whose gradient falls by about 2.4 per layer."""
    layers = [part for _ in range(depth) for part in (nn.Linear(32, 32), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    data = [(torch.randn(16, 32), torch.randint(4, (16,)))]
    return Case(model, classify, data, lambda parameters: torch.optim.SGD(parameters, 0.1))


def first_over_last(case: Case) -> float:
    """The first update over the weight: first layer against last."""
    profile = update_ratio(case, observe(case, ["parameter.rms", "parameter_grad.rms"]))
    assert profile is not None
    ratios = [value for site, value in profile.items() if site.path.endswith("weight")]
    return ratios[0] / ratios[-1]


def test_adamw_moves_the_layers_that_depth_hides_from_sgd():
    case = default_relu(10)
    assert first_over_last(case) < 1e-2
    use_adamw(case)
    assert 0.3 < first_over_last(case) < 3


def test_scale_freedom_ends_at_eps():
    """The warning of the page: 24 layers take the gradient below 1e-8, and there the step shrinks with it."""
    case = default_relu(24)
    use_adamw(case)()
    assert first_over_last(case) < 1e-6
    undo = use_adamw(case)
    assert first_over_last(case) < 1e-2
    undo()
    use_adamw(case, eps=1e-16)
    assert 0.3 < first_over_last(case) < 3
