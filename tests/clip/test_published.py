"""Adaptive clips against the numbers of their papers, written out; and where the published formulas break.

Every formula here is written from its paper, without guards, as the public versions have it: one gradient
that is not finite, or one that is zero, stays in what it remembers for good.
"""

import math

import numpy as np
import pytest
import torch
from clip.steps import with_gradients
from torch import nn

from unitygain import clip


def after(one: clip.Clip, *norms: float) -> list[float]:
    """Run one step with a tensor of each norm, and return the norms that stay."""
    parameters = with_gradients(*([norm, 0.0] for norm in norms))
    one(parameters)
    return [p.grad.double().norm().item() for p in parameters]


def autoclip(history: list[float], norm: float, p: float) -> float:
    """Norm after AutoClip, algorithm 1: the history takes the norm, its percentile is the threshold."""
    history.append(norm)
    bound = np.percentile(history, p)
    return norm * float(np.minimum(1.0, bound / norm))


class ZClip:
    """ZClip, algorithm 1, from a given mean and variance."""

    def __init__(self, mean: float, variance: float) -> None:
        self.mean, self.variance = mean, variance

    def step(self, norm: float, z: float = 2.5, alpha: float = 0.97) -> float:
        spread = math.sqrt(self.variance)
        score = (norm - self.mean) / (spread + 1e-6)
        kept = self.mean + z**2 / score * spread if score > z else norm
        self.mean = alpha * self.mean + (1 - alpha) * kept
        self.variance = alpha * self.variance + (1 - alpha) * (kept - self.mean) ** 2
        return kept


def adagc(gamma: np.ndarray, norms: np.ndarray, warming: bool) -> tuple[np.ndarray, np.ndarray]:
    """AdaGC, algorithm 1: (norms after, gamma after), with λ_rel = 1.05, λ_abs = 1, β = 0.98."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if warming:
            kept = norms * min(1.0, 1.0 / np.sqrt((norms**2).sum()))
            return kept, np.minimum(gamma, kept)
        kept = norms * np.minimum(1.0, 1.05 * gamma / norms)
    return kept, 0.98 * gamma + 0.02 * kept


def test_autoclip_by_hand():
    one = clip.percentile(10)
    assert [after(one, norm)[0] for norm in (1, 2, 3, 4, 20)] == pytest.approx([1, 1.1, 1.2, 1.3, 1.4])


def test_autoclip_is_the_paper_while_the_window_holds_all():
    one, history = clip.percentile(30, window=40), []
    for norm in np.random.default_rng(0).lognormal(0, 2, 40):
        assert after(one, norm)[0] == pytest.approx(autoclip(history, norm, 30), rel=1e-6)


def test_autoclip_forgets_what_left_the_window():
    one = clip.percentile(100, window=3)
    assert [after(one, norm)[0] for norm in (9, 1, 2, 3, 5)] == pytest.approx([9, 1, 2, 3, 5])
    assert [after(clip.percentile(50, window=2), norm)[0] for norm in (9, 9)] == pytest.approx([9, 9])


def test_zclip_by_hand():
    one = clip.zscore(warmup=4, warmup_norm=math.inf)
    assert [after(one, norm)[0] for norm in (1, 3, 1, 3)] == pytest.approx([1, 3, 1, 3])
    # Mean 2, deviation 1: a norm of 10 has a score of 8 and is cut to 2 + 2.5²/8 = 2.78125.
    assert after(one, 10)[0] == pytest.approx(2.78125, abs=1e-5)
    # Mean 0.97·2 + 0.03·2.78125 = 2.0234375, variance 0.97 + 0.03·0.7578125² = 0.98722839.
    # Deviation 0.9935936, so a norm of 5 has a score of 2.995754: 2.0234375 + 6.25·0.9935936/2.995754.
    assert after(one, 5)[0] == pytest.approx(4.096356, abs=1e-5)


def test_zclip_is_the_paper_over_many_steps():
    one = clip.zscore(warmup=4, warmup_norm=math.inf, least_spread=0)
    for norm in (1, 3, 1, 3):
        after(one, norm)
    published = ZClip(2.0, 1.0)
    norms = np.random.default_rng(0).lognormal(1, 1, 60)
    found = [after(one, norm)[0] for norm in norms]
    assert found == pytest.approx([published.step(norm) for norm in norms], rel=1e-6)
    assert sum(kept < norm * 0.999 for kept, norm in zip(found, norms, strict=True)) > 5


def test_zclip_cuts_at_a_norm_while_it_warms_up():
    one = clip.zscore(warmup=2)
    assert [after(one, norm)[0] for norm in (3.0, 0.5)] == pytest.approx([1.0, 0.5])


def test_norms_that_are_all_alike_make_no_outlier():
    published = ZClip(1.0, 0.0)
    assert published.step(1.00001) < 1.00001
    one = clip.zscore(warmup=3)
    for norm in (1.0, 1.0, 1.0):
        after(one, norm)
    report = one(with_gradients([1.00001]))
    assert not report.clipped
    assert one(with_gradients([1.1])).clipped


def test_adagc_by_hand():
    one = clip.ema(warmup=2)
    assert after(one, 3, 4) == pytest.approx([0.6, 0.8])
    assert after(one, 0.3, 0.4) == pytest.approx([0.3, 0.4])
    assert after(one, 0.9, 0.2) == pytest.approx([1.05 * 0.3, 0.2])
    # Means 0.98·0.3 + 0.02·0.315 = 0.3003 and 0.98·0.4 + 0.02·0.2 = 0.396.
    assert after(one, 0.3, 0.5) == pytest.approx([0.3, 1.05 * 0.396])


def test_adagc_is_the_paper_over_many_steps():
    one, gamma = clip.ema(warmup=10), np.full(3, np.inf)
    norms = np.random.default_rng(0).lognormal(-1, 1, (60, 3))
    for step, row in enumerate(norms):
        kept, gamma = adagc(gamma, row, warming=step < 10)
        assert after(one, *row) == pytest.approx(kept.tolist(), rel=1e-6)


def test_agc_by_hand():
    model = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 2, 2), nn.Linear(2, 1))
    linear, conv, head = model
    linear.weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]])
    linear.weight.grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.3, 0.4]])
    linear.bias.data, linear.bias.grad = torch.tensor([2.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 6.0])
    conv.weight.data = torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2).clone()
    conv.weight.grad = torch.full((2, 1, 2, 2), 0.1)
    conv.bias.grad = None
    head.weight.grad, head.bias.grad = torch.full((1, 2), 7.0), torch.tensor([7.0])
    report = clip.agc(0.01)(model)
    # Rows: 0.01·5 over 5; the least weight norm 1e-3, so 1e-5 over 0.5; 0.01·50 = 0.5, not above 0.5.
    expected = torch.tensor([[0.03, 0.04], [6e-6, 8e-6], [0.3, 0.4]])
    torch.testing.assert_close(linear.weight.grad, expected, rtol=1e-6, atol=0)
    # A vector is one unit: 0.01·3 over 6.
    torch.testing.assert_close(linear.bias.grad, torch.tensor([0.0, 0.0, 0.03]), rtol=1e-6, atol=0)
    # Filters of norm 2 and 20, gradients of norm 0.2: cut to 0.02, and left at 0.2.
    assert conv.weight.grad.flatten(1)[:, 0].tolist() == pytest.approx([0.01, 0.1], rel=1e-6)
    assert head.weight.grad.tolist() == [[7.0, 7.0]]
    assert head.bias.grad.tolist() == [7.0]
    assert report.cosine < 1


def test_agc_takes_units_and_exclusions_by_name():
    up = nn.ConvTranspose1d(1, 2, 1, bias=False)
    up.weight.data, up.weight.grad = torch.tensor([[[1.0], [10.0]]]), torch.tensor([[[1.0], [1.0]]])
    clip.agc(0.01, units={"weight": 1}, exclude=())(up)
    assert up.weight.grad.flatten().tolist() == pytest.approx([0.01, 0.1])
    clip.agc(1e-9, exclude=["wei*"])(up)
    assert up.weight.grad.flatten().tolist() == pytest.approx([0.01, 0.1])
    clip.agc(0.001, units={"weight": None}, exclude=())(up)
    assert up.weight.grad.norm().item() == pytest.approx(0.001 * 101**0.5, rel=1e-6)
    with pytest.raises(ValueError, match="agc chooses parameters by name"):
        clip.agc(exclude=["head.*"])(up.parameters())


def test_agc_without_names_leaves_the_last_weight_and_what_follows():
    parameters = with_gradients(torch.ones(2, 2), torch.ones(2), torch.ones(1, 2), torch.ones(1))
    clip.agc(0.01)(parameters)
    assert [torch.equal(p.grad, torch.ones_like(p)) for p in parameters] == [False, False, True, True]


def test_agc_refuses_a_sparse_gradient_by_name():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"agc cannot read parameter 'weight': a tensor of layout"):
        clip.agc(exclude=())(table)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_autoclip_is_poisoned_as_published_and_not_here(bad):
    history: list[float] = []
    one, clean = clip.percentile(50), clip.percentile(50)
    for norm in (1.0, 2.0):
        autoclip(history, norm, 50)
        after(one, norm)
        after(clean, norm)
    with np.errstate(invalid="ignore"):
        autoclip(history, bad, 50)
        published = [autoclip(history, 1.0, 50) for _ in range(9)]
    after(one, bad)
    # NaN makes every later gradient NaN; an infinity lifts the threshold of every later step.
    assert all(map(math.isnan, published)) if math.isnan(bad) else np.isinf(history).any()
    assert [after(one, norm) for norm in (1.0, 9.0)] == [after(clean, norm) for norm in (1.0, 9.0)]


def test_zclip_is_switched_off_by_a_nan_as_published_and_not_here():
    published = ZClip(2.0, 1.0)
    published.step(math.nan)
    assert published.step(1000.0) == 1000.0
    assert math.isnan(published.mean)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_zclip_goes_on_after_a_gradient_that_is_not_finite(bad):
    one = clip.zscore(warmup=4, warmup_norm=math.inf)
    for norm in (1, 3, 1, 3, bad):
        after(one, norm)
    assert after(one, 1000.0)[0] == pytest.approx(2.0 + 6.25 / 998, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_adagc_is_poisoned_as_published_and_not_here(bad):
    kept, gamma = adagc(np.array([0.3, 0.4]), np.array([bad, 0.4]), warming=False)
    kept, gamma = adagc(gamma, np.array([0.3, 0.4]), warming=False)
    assert math.isnan(kept[0])
    one = clip.ema(warmup=1)
    for norms in ((0.3, 0.4), (bad, 0.4)):
        after(one, *norms)
    assert after(one, 0.9, 0.4) == pytest.approx([1.05 * 0.3, 0.4])


def test_adagc_starves_a_tensor_that_starts_at_zero_as_published_and_not_here():
    gamma = np.full(2, np.inf)
    one = clip.ema(warmup=2)
    for step, norms in enumerate([(0.3, 0.0), (0.3, 0.2), (0.3, 0.2), (0.3, 0.2)]):
        kept, gamma = adagc(gamma, np.array(norms), warming=step < 2)
        found = after(one, *norms)
    assert kept[1] == 0.0
    assert found == pytest.approx([0.3, 0.2])


def test_a_gradient_that_comes_and_goes_keeps_its_own_mean():
    one = clip.ema(warmup=1)
    after(one, 0.3, 0.4)
    first, second = with_gradients(None, [8.0, 0.0])
    one([first, second])
    assert second.grad.norm().item() == pytest.approx(1.05 * 0.4)
    assert after(one, 9.0, 0.1) == pytest.approx([1.05 * 0.3, 0.1])


def test_a_changed_number_of_parameters_is_refused():
    one = clip.ema()
    after(one, 1.0, 2.0)
    with pytest.raises(ValueError, match="ema remembers 2 parameters and was given 3"):
        after(one, 1.0, 2.0, 3.0)


def test_by_update_rms_is_stable_adamw_by_hand():
    weight = nn.Parameter(torch.zeros(2))
    adam = torch.optim.AdamW([weight], betas=(0.9, 0.99))
    one = clip.by_update_rms(adam, d=0.5)
    weight.grad = torch.tensor([1.0, 2.0])
    assert not one([weight]).clipped
    adam.step()
    weight.grad = torch.tensor([3.0, 2.0])
    # v = (0.99·0.01·(1, 4) + 0.01·(9, 4))/(1 - 0.99²) = (0.0999, 0.0796)/0.0199, g²/v = (1.792793, 1).
    assert one([weight]).coefficient == pytest.approx(0.5 / math.sqrt((1.792793 + 1) / 2), rel=1e-6)


def test_by_update_rms_cuts_what_a_square_cannot_hold():
    weight = nn.Parameter(torch.zeros(2))
    adam = torch.optim.AdamW([weight], betas=(0.9, 0.99))
    one = clip.by_update_rms(adam)
    for entry in (1.0, 1e25):
        weight.grad = torch.full((2,), entry)
        report = one([weight])
        adam.step()
    # 1/√(1 - 0.99) over the bias: the largest that it can be.
    assert report.coefficient == pytest.approx(1 / (10 * (1 - 0.99**2) ** 0.5), rel=1e-6)
    with pytest.raises(ValueError, match="SGD keeps no second moment; give Adam or AdamW"):
        clip.by_update_rms(torch.optim.SGD([weight], 0.1))


def adaclip(mean: float, step: int, gradient: np.ndarray, gamma: float = 0.9) -> tuple[np.ndarray, float]:
    """AdaClip of Stable-SPAM: (gradient after, running mean after)."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(gradient).max()
        mean = gamma * mean + (1 - gamma) * largest
        bound = mean / (1 - gamma**step)
        return np.where(np.abs(gradient) > bound, gradient / largest * bound, gradient), mean


def test_adaclip_is_the_paper_over_many_steps():
    one, mean = clip.adaptive_value(0.9), 0.0
    for step, gradient in enumerate(np.random.default_rng(0).lognormal(0, 1, (40, 5)), 1):
        (parameter,) = with_gradients(torch.tensor(gradient))
        one([parameter])
        kept, mean = adaclip(mean, step, gradient)
        assert parameter.grad.tolist() == pytest.approx(kept.tolist(), rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_adaclip_is_poisoned_as_published_and_not_here(bad):
    kept, mean = adaclip(1.0, 9, np.array([bad, 1.0]))
    kept, mean = adaclip(mean, 10, np.array([1000.0, 1.0]))
    assert not math.isfinite(mean)
    # A NaN makes every comparison false, and an infinity lifts the bound for good: nothing is ever cut again.
    assert kept[0] == 1000.0
    one = clip.adaptive_value(0.9)
    for entry in (1.0, bad, 1000.0):
        (parameter,) = with_gradients([entry, 1.0])
        one([parameter])
    # T = (0.9·0.1·1 + 0.1·1000)/(1 - 0.9²).
    assert parameter.grad.tolist() == pytest.approx([100.09 / 0.19, 1.0])
