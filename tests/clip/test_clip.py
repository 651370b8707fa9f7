"""What every clip does whatever its rule: one reading, one writing, and none where nothing changes."""

import math

import pytest
import torch
from clip.steps import gradients, with_gradients
from torch import nn

from unitygain import clip
from unitygain.clip._apply import Application, multiply, multiply_unseen
from unitygain.clip._gradients import read
from unitygain.stats import gradient_stats


def test_a_step_that_is_not_clipped_writes_nothing():
    parameters = with_gradients([0.3, 0.4], torch.randn(3, 2) / 100)
    before = gradients(parameters)
    versions = [p.grad._version for p in parameters]
    report = clip.chain(clip.by_value(5.0), clip.by_tensor_norm(2.0), clip.by_global_norm(2.0))(parameters)
    assert not report.clipped
    assert report.coefficient == report.cosine == 1.0
    assert [p.grad._version for p in parameters] == versions
    assert all(map(torch.equal, gradients(parameters), before))


def test_only_tensors_that_change_are_written_to():
    large, small = with_gradients([3.0, 4.0], [0.1, 0.2])
    version = small.grad._version
    clip.by_tensor_norm(1.0)([large, small])
    assert small.grad._version == version
    torch.testing.assert_close(large.grad, torch.tensor([0.6, 0.8]), rtol=1e-7, atol=0)


def test_factors_are_multiplied_and_written_once():
    (parameter,) = with_gradients([3.0, 4.0])
    version = parameter.grad._version
    clip.chain(clip.by_tensor_norm(2.0), clip.by_global_norm(1.0))([parameter])
    assert parameter.grad._version == version + 1
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [clip.by_value, clip.by_tensor_norm, clip.by_global_norm])
def test_a_gradient_that_is_not_finite_stays_and_is_reported(make, bad):
    parameters = with_gradients([3.0, bad], [7.0, 8.0])
    before = gradients(parameters)
    report = make(1.0)(parameters)
    assert not report.finite
    assert not report.clipped
    assert report.steps == 0
    assert report.steps_not_finite == 1
    assert math.isnan(report.cosine)
    assert "nothing was changed" in str(report)
    for after, came in zip(gradients(parameters), before, strict=True):
        torch.testing.assert_close(after, came, rtol=0, atol=0, equal_nan=True)


def test_a_parameter_counts_once_and_none_not_at_all():
    weight, bare = with_gradients([3.0, 4.0], None)
    frozen = torch.ones(3)
    report = clip.by_global_norm(10.0)([weight, bare, frozen, weight])
    assert report.norm_before == 5.0
    assert report.names == ("#0",)


def test_tied_weights_of_a_model_count_once():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    report = clip.by_global_norm(1.0)(model)
    assert report.norm_before == 5.0
    assert report.shares == {"0.weight": (1.0, 1.0)}


def sharing(kept: float = 1.0) -> list[nn.Parameter]:
    """Two parameters with one gradient between them, which both move by, and a third with its own."""
    first, second, third = with_gradients([3.0, 4.0], None, [0.5, 0.5])
    second.data.mul_(kept)
    second.grad = first.grad
    return [first, third, second]


@pytest.mark.parametrize(
    "rule",
    [
        clip.by_global_norm(1.0),
        clip.by_global_norm(1.0, p=3),
        clip.by_tensor_norm(1.0),
        clip.by_value(1.0),
        clip.agc(ratio=0.1, exclude=()),
        clip.chain(clip.by_value(3.5), clip.by_tensor_norm(4.0), clip.by_global_norm(1.0)),
    ],
    ids=repr,
)
def test_a_gradient_that_two_parameters_share_is_as_two_that_are_equal(rule):
    shared, own = sharing(kept=2.0), sharing(kept=2.0)
    own[2].grad = own[2].grad.clone()
    expected = clip.chain(rule)(own)
    report = rule(shared)
    assert report.norm_before == expected.norm_before == pytest.approx(50.5**0.5)
    assert (report.norm_after, report.cosine) == (expected.norm_after, expected.cosine)
    assert all(map(torch.equal, gradients(shared), gradients(own)))


def test_a_shared_gradient_stays_shared_where_both_are_cut_alike():
    for c in (1.0, 100.0):
        first, third, second = sharing()
        clip.by_global_norm(c)([first, third, second])
        assert first.grad is second.grad


def test_factors_that_nobody_looks_at_are_written_once_to_a_shared_gradient():
    first, third, second = sharing()
    seen = read([first, third, second], absmax=False, step=0, timestep=None)
    application = Application(seen, bends=0)
    application._looks = False
    application.take(torch.tensor(0.5, dtype=torch.float64))
    application.write()
    assert first.grad is second.grad
    assert first.grad.tolist() == [1.5, 2.0]
    application.take(torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64))
    application.write()
    assert first.grad.tolist() == [0.75, 1.0]
    assert second.grad.tolist() == [0.375, 0.5]


@pytest.mark.parametrize("nothing", [[], with_gradients(None), nn.Identity()])
def test_nothing_to_clip_is_no_failure(nothing):
    for one in (clip.by_value(1.0), clip.by_tensor_norm(1.0), clip.by_global_norm(1.0, p=3)):
        report = one(nothing)
        assert (report.norm_before, report.norm_after, report.coefficient) == (0.0, 0.0, 1.0)
        assert report.finite


def test_zero_gradients_stay_zero():
    parameters = with_gradients([0.0, 0.0])
    report = clip.chain(clip.by_tensor_norm(1.0), clip.by_global_norm(1.0))(parameters)
    assert not report.clipped
    assert parameters[0].grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_every_dtype_comes_down_to_the_norm(dtype):
    parameters = with_gradients(torch.full((300,), 300.0, dtype=dtype), torch.ones(40, dtype=dtype))
    clip.by_global_norm(0.5)(parameters)
    norms = [p.grad.to(torch.complex128).norm() for p in parameters]
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-6)
    assert math.hypot(*norms) == pytest.approx(0.5, rel=tolerance)


@pytest.mark.parametrize("c", [1e-30, 1e-8, 1.0, 1e30])
def test_a_factor_outside_the_dtypes_range_is_no_zero(c):
    (parameter,) = with_gradients([3e35, 4e35])
    clip.by_global_norm(c)([parameter])
    torch.testing.assert_close(
        parameter.grad.double() / c, torch.tensor([0.6, 0.8]).double(), rtol=1e-6, atol=0
    )


def sparse(values: list[float]) -> torch.Tensor:
    index = torch.tensor([[0, 0, 2]])
    return torch.sparse_coo_tensor(index, torch.tensor(values), (4,), check_invariants=True)


def test_sparse_gradients_are_clipped_with_their_repeated_indices_summed():
    (parameter,) = with_gradients(torch.zeros(4))
    parameter.grad = sparse([1.0, 2.0, 4.0])
    assert clip.by_global_norm(1.0)([parameter]).norm_before == 5.0
    torch.testing.assert_close(
        parameter.grad.to_dense(), torch.tensor([0.6, 0.0, 0.8, 0.0]), rtol=1e-6, atol=0
    )
    parameter.grad = sparse([1.0, 1.5, 2.0])
    report = clip.by_value(2.0)([parameter])
    assert parameter.grad.to_dense().tolist() == [2.0, 0.0, 2.0, 0.0]
    assert report.cosine == pytest.approx(9 / math.hypot(2.5, 2) / math.hypot(2, 2))


def test_a_complex_entry_keeps_its_phase():
    (parameter,) = with_gradients(torch.tensor([3 + 4j, 0.1j]))
    report = clip.by_value(1.0)([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6 + 0.8j, 0.1j]), rtol=1e-6, atol=0)
    assert report.cosine < 1


def test_factors_that_nobody_looks_at_do_the_same():
    for dtype in (torch.float32, torch.float16, torch.complex64):
        given = [torch.randn(4, 3).to(dtype), torch.randn(5).to(dtype)]
        seen, unseen = [g.clone() for g in given], [g.clone() for g in given]
        multiply(seen, [0.25, 1.0])
        multiply_unseen(unseen, torch.tensor([0.25, 1.0], dtype=torch.float64))
        assert all(map(torch.equal, seen, unseen))
        multiply_unseen(unseen, torch.tensor(0.5, dtype=torch.float64))
        assert torch.equal(unseen[0], seen[0] * 0.5)


def test_the_norm_that_is_compared_is_that_of_the_whole_vector():
    given = [[1.0, -2.0], [3.0]]
    for p, expected in ((1.0, 6.0), (2.0, 14**0.5), (3.0, 36 ** (1 / 3)), (math.inf, 3.0)):
        parameters = with_gradients(*given)
        report = clip.by_global_norm(expected / 2, p=p)(parameters)
        assert report.coefficient == pytest.approx(0.5, rel=1e-12)
        assert report.cosine == pytest.approx(1.0)
        parameters = with_gradients(*given)
        clip.chain(clip.by_global_norm(expected / 2, p=p), clip.by_global_norm(expected / 4, p=p))(parameters)
        assert parameters[0].grad[1].item() == pytest.approx(-0.5, rel=1e-6)


def test_the_cosine_of_a_chain_is_that_to_the_gradient_that_came():
    given = torch.randn(50)
    (parameter,) = with_gradients(given.clone())
    report = clip.chain(clip.by_value(1.5), clip.by_global_norm(3.0), clip.by_value(0.4))([parameter])
    expected = torch.nn.functional.cosine_similarity(given.double(), parameter.grad.double(), dim=0)
    assert report.cosine == pytest.approx(expected.item(), rel=1e-6)
    assert report.norm_after == pytest.approx(parameter.grad.double().norm().item(), rel=1e-6)


def test_what_the_other_tensors_gain_is_in_the_shares():
    parameters = with_gradients([3.0, 4.0], [0.1])
    report = clip.by_tensor_norm(1.0)(parameters)
    assert report.cosine == pytest.approx(5.01 / math.sqrt(25.01 * 1.01), rel=1e-6)
    before, after = report.shares["#1"]
    assert after / before == pytest.approx(24.8, abs=0.05)


@pytest.mark.parametrize(("entries", "c", "cosine"), [((3, 0.4), 1, 0.9694), (range(1, 101), 10, 0.8932)])
def test_what_value_clipping_costs(entries, c, cosine):
    report = clip.by_value(c)(with_gradients(torch.tensor(list(entries), dtype=torch.float32)))
    assert report.cosine == pytest.approx(cosine, abs=5e-5)


def test_quantiles_and_the_fraction_of_clipped_steps_run_along():
    one = clip.by_global_norm(8.0)
    for norm in [*range(1, 11), math.nan]:
        report = one(with_gradients([float(norm), 0.0]))
    assert report.frac_clipped == pytest.approx(0.2)
    assert (report.steps, report.steps_not_finite) == (10, 1)
    assert report.quantiles[0.5] == pytest.approx(5.5)
    assert report.quantiles[0.95] == pytest.approx(9.55)


def test_a_report_stays_as_it_was():
    one = clip.by_global_norm(1.0)
    report = one(with_gradients([3.0, 4.0]))
    one(with_gradients([0.1, 0.1]))
    assert (report.steps, report.frac_clipped, report.quantiles[0.5]) == (1, 1.0, 5.0)


def test_splits_of_a_bound():
    parameters = with_gradients([30.0], [40.0, 0.0, 0.0])
    clip.by_tensor_norm(2.0, split="equal")(parameters)
    assert [p.grad[0].item() for p in parameters] == pytest.approx([2**0.5, 2**0.5], rel=1e-6)
    parameters = with_gradients([30.0], [40.0, 0.0, 0.0])
    clip.by_tensor_norm(2.0, split="size")(parameters)
    assert [p.grad[0].item() for p in parameters] == pytest.approx([1.0, 3**0.5], rel=1e-6)


def test_groups_take_the_first_pattern_that_matches():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    clip.by_group({"0.bias": 1.0, "0.*": 2.0})(model.named_parameters())
    assert model[0].bias.grad.item() == pytest.approx(1.0)
    assert model[0].weight.grad.norm().item() == pytest.approx(2.0)
    assert model[1].weight.grad.item() == 10.0
    with pytest.raises(ValueError, match=r"came without; pass the model or model\.named_parameters"):
        clip.by_group({"*": 1.0})(model.parameters())


def test_a_pattern_that_matches_nothing_is_no_silent_wish():
    model = nn.Sequential(nn.Linear(2, 1))
    message = r"no parameter matches 'encoder\.\*'; names are such as 0\.weight, 0\.bias"
    for one in (
        clip.by_group({"0.*": 1.0, "encoder.*": 1.0}),
        clip.agc(exclude=["encoder.*"]),
        clip.agc(units={"encoder.*": 1}, exclude=()),
    ):
        with pytest.raises(ValueError, match=message):
            one(model)


@pytest.mark.parametrize("c", [0.0, -1.0, math.nan])
def test_a_threshold_that_is_no_threshold_is_refused(c):
    for make in (clip.by_global_norm, clip.by_tensor_norm, clip.by_value):
        with pytest.raises(ValueError, match=r"c is (0.0|-1.0|nan); give a number above 0"):
            make(c)
    with pytest.raises(ValueError, match="c of 'a'"):
        clip.by_group({"a": c})


def test_other_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="split is 'half'; use one of 'each'"):
        clip.by_tensor_norm(1.0, split="half")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="groups is empty"):
        clip.by_group({})
    with pytest.raises(TypeError, match="chain\\(\\) got a float; give clips"):
        clip.chain(1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="is a float; give tensors"):
        clip.by_global_norm(1.0)([1.0])  # pyright: ignore[reportArgumentType]


def test_a_chain_prints_its_order():
    one = clip.chain(clip.by_value(5.0), clip.by_global_norm(1.0))
    assert repr(one) == "chain(by_value(c=5.0), by_global_norm(c=1.0, p=2.0))"
    assert str(one).splitlines()[0] == "1. by_value(c=5.0), which changes the direction"
    assert repr(clip.by_global_norm(1)) == "by_global_norm(c=1.0, p=2.0)"


def test_the_state_of_other_rules_is_refused():
    state = clip.by_global_norm(1.0).state_dict()
    with pytest.raises(ValueError, match=r"written by by_global_norm\(c=1.0, p=2.0\); this clip is"):
        clip.by_global_norm(2.0).load_state_dict(state)


@pytest.mark.parametrize("absmax", [False, True])
def test_what_was_read_is_not_read_again(monkeypatch, absmax):
    from unitygain.clip import _gradients

    rules = [clip.by_global_norm(1.0), *([clip.by_global_norm(0.5, p=math.inf)] if absmax else [])]
    both = [with_gradients([3.0, 4.0], None, [0.5, 0.1]) for _ in range(2)]
    expected = clip.chain(*rules)(both[0])
    stats = gradient_stats([p.grad for p in both[1] if p.grad is not None], absmax=absmax)
    monkeypatch.setattr(_gradients, "gradient_stats", None)
    report = clip.chain(*rules)(both[1], stats=stats)
    assert report.norm_after == expected.norm_after
    assert all(map(torch.equal, gradients(both[0]), gradients(both[1])))
    with pytest.raises(ValueError, match=r"stats are of 2 gradients, and the parameters hold 1; give what"):
        clip.by_global_norm(1.0)(both[1][:2], stats=stats)


def test_order_matters():
    first, second = with_gradients([4.0, 3.0]), with_gradients([4.0, 3.0])
    clip.chain(clip.by_value(1.0), clip.by_global_norm(1.0))(first)
    clip.chain(clip.by_global_norm(1.0), clip.by_value(1.0))(second)
    assert not torch.allclose(first[0].grad, second[0].grad)
