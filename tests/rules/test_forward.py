"""Dead, saturated and collapsed: what is judged, what is left alone, and which place is named first."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from unitygain._types import Cause, Profile, Site
from unitygain.rules import ug203_dead_units as ug203
from unitygain.rules import ug204_saturation as ug204
from unitygain.rules import ug205_rank_collapse as ug205
from unitygain.rules import ug206_born_dead as ug206
from unitygain.rules import ug301_ill_conditioned as ug301
from unitygain.rules import ug701_attention_logits as ug701
from unitygain.rules import ug702_attention_collapsed as ug702
from unitygain.rules._fixes import suggest

SITES = tuple(Site(str(index)) for index in range(6))


def profile(name: str, *values: float, labels: tuple[str, ...] = (), sites=SITES) -> dict[str, Profile]:
    return {name: Profile(name, "unit", sites[: len(values)], values, labels=labels)}


def test_the_first_dead_activation_is_named_and_not_named_twice():
    dead = profile("act_frac_dead", 0.1, 0.9, 1.0, 1.0, math.nan)
    (born,) = ug206.judge(dead)
    assert [str(site) for site in born.sites] == ["2", "3"]
    (many,) = ug203.judge(dead)
    assert [str(site) for site in many.sites] == ["1"]


@pytest.mark.parametrize(("early", "severity"), [((0.0, 0.0), "error"), ((0.0, 1e-3), "warning")])
def test_a_dead_branch_is_milder_than_a_dead_network(early, severity):
    dead = profile("act_frac_dead", math.nan, math.nan, 1.0)
    (finding,) = ug206.judge(dead | profile("grad_rms", *early, 0.0, 1.0))
    assert finding.severity == severity


def test_half_of_the_units_off_is_no_disease():
    """Deep in a random ReLU network inputs are nearly parallel, and half of the units are off for all."""
    assert not list(ug203.judge(profile("act_frac_dead", 0.5, 0.62, 0.7)))


def test_saturation_leaves_the_output_the_gates_and_open_functions_alone():
    labels = ("tanh", "relu", "gelu", "sigmoid (output)", "sigmoid")
    values = profile("act_frac_saturated", 0.2, 0.99, 0.99, 0.99, 0.99, labels=labels)
    assert len(list(ug204.judge(values))) == 1
    assert not list(ug204.judge(values | profile("gate_mean", 0.5, sites=SITES[4:])))


@pytest.mark.parametrize(
    ("cosines", "fires"),
    [
        ((0.1, 0.5, 0.9, 0.99, 0.9999), True),
        ((0.9999, 0.9999, 0.9999, 0.9999, 0.99995), False),
        ((0.1, 0.15, 0.1, 0.1, 1.0), False),
        ((0.1, 0.1, 0.1, 0.5, 1.0), True),
        ((0.1, 0.5, 0.9, 0.95, 0.99), False),
        ((0.1, 0.9999), False),
        ((math.nan, 0.1, 0.5, 0.9, 0.99995), True),
        ((math.nan,) * 5, False),
    ],
    ids=["collapse", "inputs alike", "last alone", "late", "deep ReLU", "no trunk", "NaN first", "NaN"],
)
def test_rank_is_judged_by_its_fall(cosines, fires):
    assert bool(list(ug205.judge(profile("token_cosine", *cosines)))) is fires


def test_attention_that_averages_is_judged_earlier_and_blamed():
    cosine = profile("token_cosine", 0.1, 0.5, 0.8, 0.95, 0.996)
    inside = tuple(Site(f"{index}.attention", leaf=".(softmax)") for index in range(5))
    spread = profile("attention_entropy", *[0.99] * 5, sites=inside)
    sharp = profile("attention_entropy", *[0.5] * 5, sites=inside)
    assert not list(ug205.judge(cosine))
    assert not list(ug205.judge(cosine | sharp))
    (finding,) = ug205.judge(cosine | spread)
    first = finding.causes[0]
    assert first.remedy == "scale_branch"
    assert first.parameters["sites"] == tuple(f"{index}.attention" for index in range(5))
    assert first.predicted is not None
    assert 1 - first.predicted[1] == pytest.approx(math.sqrt(0.9 * 0.004))


def parts(skip: float, normalisation: float) -> dict[str, Profile]:
    """Blocks whose skip path has this gain beside this one of their norms."""
    columns = ("normalisation", "skip")
    rows = ((normalisation, skip),) * 5
    return {"gain_parts": Profile("gain_parts", "unit", SITES[:5], (1.0,) * 5, columns=columns, rows=rows)}


@pytest.mark.parametrize(
    ("skip", "normalisation", "remedy"),
    [
        (0.5, 0.5, "pre_norm"),
        (1.0, 0.5, "scale_branch"),
        (0.97, 0.97, "scale_branch"),
        (math.nan, 0.5, "add_residual"),
        (0.5, 1.0, "scale_branch"),
    ],
    ids=["Post-LN", "Pre-LN", "branches that are small", "no skip path", "a scaled skip path"],
)
def test_norms_that_the_skip_path_passes_through_are_blamed_before_attention(skip, normalisation, remedy):
    cosine = profile("token_cosine", 0.1, 0.5, 0.8, 0.95, 0.996)
    inside = tuple(Site(f"{index}.attention", leaf=".(softmax)") for index in range(5))
    spread = profile("attention_entropy", *[0.99] * 5, sites=inside)
    (finding,) = ug205.judge(cosine | spread | parts(skip, normalisation))
    assert finding.causes[0].remedy == remedy
    # A branch that is no branch is not scaled.
    assert ("scale_branch" in [cause.remedy for cause in finding.causes]) is (remedy != "add_residual")


def test_what_a_discriminator_finds_alike_is_no_collapse():
    names = ("generator.0", "generator.2", "generator.4", "generator.6", "critic.0", "critic.2")
    sites = tuple(map(Site, names))
    cosine = profile("token_cosine", 0.1, 0.4, 0.7, 0.5, 0.996, 0.9998, sites=sites)
    game = profile("fake_logit_grad", 1.9, sites=(Site("critic"),))
    assert list(ug205.judge(cosine))
    assert not list(ug205.judge(cosine | game))
    collapsed = profile("token_cosine", 0.1, 0.9, 0.99, 0.9998, 0.9998, 0.9998, sites=sites)
    (finding,) = ug205.judge(collapsed | game)
    assert [str(site) for site in finding.sites] == ["generator.6"]


def test_a_fall_that_rounding_hides_is_read_from_the_blocks_before():
    """0.1 to 1e-11 in five blocks, and rounding from then on: half of that fall over 19 is below rounding."""
    falling = [0.1 * 100.0**-index for index in range(6)]
    assert ug205.kept_per_block([*falling, *[1e-16] * 14]) == pytest.approx(0.01)
    assert ug205.kept_per_block(falling) == pytest.approx(0.01)
    cosines = [1 - value for value in [*falling, *[1e-16] * 14]]
    sites = tuple(Site(str(index)) for index in range(20))
    weights = profile("weight_gain", *[0.5] * 20, labels=("Linear→sigmoid",) * 20, sites=sites)
    (finding,) = ug205.judge(profile("token_cosine", *cosines, sites=sites) | weights)
    assert finding.causes[0].predicted == (-1.0, 1 - ug205.HIDDEN)


def spectrum(logs, dimension: int, condition: float, blocks: float = 10.0) -> dict[str, Profile]:
    facts = {"dimension": float(dimension), "blocks": blocks}
    site = (Site("", leaf=".(trunk)"),)
    return {
        "log_spectrum": Profile("log_spectrum", "log10", site, (condition,), rows=(tuple(logs),), facts=facts)
    }


@pytest.mark.parametrize(
    ("logs", "dimension", "condition", "fires"),
    [
        ([0.0, -4.0, *[-5.0] * 30], 32, 5.0, True),
        ([-0.05 * index for index in range(32)], 32, 1.6, False),
        ([0.0], 64, 0.0, True),
        ([0.0, -4.0], 8, 4.0, False),
        ([0.0] * 8, 4096, math.nan, False),
        ([0.0, -1.0, *[-4.0] * 6], 4096, math.nan, True),
        ([0.0, -4.0], 4096, math.nan, False),
        ([], 64, math.nan, False),
    ],
    ids=[
        "few open",
        "all open",
        "rank one",
        "small",
        "leading open",
        "leading few",
        "leading unknown",
        "zero",
    ],
)
def test_conditioning_is_judged_by_the_directions_that_pass(logs, dimension, condition, fires):
    assert bool(list(ug301.judge(spectrum(logs, dimension, condition)))) is fires


def test_the_three_numbers_are_kept_apart():
    sites = tuple(Site("", leaf=f".({name})") for name in ("bound", "typical", "worst"))
    chain = {"chain_gain": Profile("chain_gain", "log10", sites, (22.4, -0.01, 1.1))}
    (finding,) = ug301.judge(spectrum([0.0, -4.0, *[-5.0] * 30], 32, 5.0) | chain)
    assert "10^22.4" in finding.message
    assert "10^-0.01" in finding.message
    assert "10^1.1" in finding.message


def test_large_logits_of_an_open_attention_are_left_alone():
    logits = profile("attention_logit_absmax", 300.0, 20.0)
    assert not list(ug701.judge(logits | profile("attention_entropy", 0.8, 0.9)))
    assert not list(ug701.judge(logits | profile("attention_entropy", math.nan, 0.9)))
    assert len(list(ug701.judge(logits | profile("attention_entropy", 0.1, 0.9)))) == 1
    huge = profile("attention_logit_absmax", 2e4, 20.0)
    (finding,) = ug701.judge(huge | profile("attention_entropy", 0.8, 0.9))
    assert finding.severity == "error"


def test_infinite_logits_are_left_to_others():
    logits = profile("attention_logit_absmax", math.inf, math.nan)
    assert not list(ug701.judge(logits | profile("attention_entropy", math.nan, math.nan)))


def test_single_collapsed_attentions_are_left_alone():
    assert not list(ug702.judge(profile("attention_entropy", 0.01, 0.5, 0.5, 0.5, 0.5)))
    (finding,) = ug702.judge(profile("attention_entropy", 0.01, 0.02, 0.5, 0.5, 0.5))
    assert [str(site) for site in finding.sites] == ["0", "1"]


def test_the_fix_is_for_the_first_cause():
    """Every remedy that a cause may name has code to paste, with the cause's own numbers in it."""
    tries = {
        "rescale_weights": ({"sites": ("a.b",), "gain": 1.5}, "std=1.5 / module.weight[0].numel() ** 0.5"),
        "open_gates": ({"sites": ("rnn",), "bias": 4.0}, "[cell.hidden_size : 2 * cell.hidden_size] += 4"),
        "scale_branch": ({"sites": ("a",), "factor": 0.125}, "0.125 * branch(x)"),
        "zero_biases": ({"sites": ("a.b",)}, "nn.init.zeros_(model.get_submodule('a.b').bias)"),
        "bypass_norm": ({}, "x + block(x)"),
        "swap_activation": ({"of": "Sigmoid", "to": "Tanh"}, "nn.Tanh()  # in the place of nn.Sigmoid()"),
        "unit_inputs": ({}, "inputs.std()"),
    }
    for remedy, (parameters, code) in tries.items():
        assert code in suggest([Cause("why", remedy, parameters)])
    recurrent = {"sites": ("rnn",), "gain": 1.0, "only": "weight_hh*"}
    for cell in (nn.RNN(2, 3, num_layers=2), nn.RNNCell(2, 3)):
        model = nn.ModuleDict({"rnn": cell})
        exec(suggest([Cause("why", "rescale_weights", recurrent)]), {"model": model, "nn": nn})
        matrix = next(p for name, p in cell.named_parameters() if name.startswith("weight_hh"))
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), rtol=1e-5, atol=1e-6)
    for cell in (nn.LSTM(2, 3), nn.GRUCell(2, 3)):
        before = next(p for name, p in cell.named_parameters() if name.startswith("bias_ih")).detach().clone()
        model = nn.ModuleDict({"rnn": cell})
        code = suggest([Cause("why", "open_gates", {"sites": ("rnn",), "bias": 4.0})])
        exec(code, {"model": model, "torch": torch})
        after = next(p for name, p in cell.named_parameters() if name.startswith("bias_ih")).detach()
        assert (after - before).abs().nonzero().flatten().tolist() == [3, 4, 5]
    assert suggest([Cause("why")]) == suggest([]) == ""


def test_tokens_that_are_alike_where_the_loss_is_low_are_information():
    facts = {"kind": "cross_entropy", "expected": math.log(5), "row_mean": 0.3}
    loss = Profile("loss_value", "nats", (Site(""),), (0.3,), facts=facts)
    collapsed = profile("token_cosine", 0.1, 0.5, 0.9, 0.99, 0.9999)
    assert [found.severity for found in ug205.judge(collapsed)] == ["warning"]
    (finding,) = ug205.judge({**collapsed, "loss_value": loss})
    assert finding.severity == "info"
    assert "the loss is 0.3 per row" in finding.message
    stuck = dataclasses.replace(loss, facts=facts | {"row_mean": 1.6})
    assert [found.severity for found in ug205.judge({**collapsed, "loss_value": stuck})] == ["warning"]


def test_the_bias_right_before_a_dead_activation_is_blamed_and_not_a_larger_one_further_back():
    sites = tuple(Site(str(index)) for index in range(4))
    biases = Profile("param_rms", "rms", (Site("0.bias"), Site("2.bias")), (0.3, 0.1))
    outputs = profile("act_rms", 0.4, 0.2, 0.1, 0.0, sites=sites)
    (born,) = ug206.judge(profile("act_frac_dead", 1.0, sites=(sites[3],)) | outputs | {"param_rms": biases})
    assert born.causes[0].parameters == {"sites": ("2",)}


def test_units_that_are_starved_are_explained_where_the_dying_begins():
    sites = tuple(Site(str(index)) for index in range(4))
    biases = Profile("param_rms", "rms", (Site("0.bias"), Site("2.bias")), (30.0, 0.1))
    outputs = profile("act_rms", 31.0, 0.01, 0.1, 0.001, sites=sites)
    dead = profile("act_frac_dead", 0.85, 0.97, sites=(sites[1], sites[3]))
    (finding,) = ug203.judge(dead | outputs | {"param_rms": biases})
    assert str(finding.sites[0]) == "3"
    assert finding.causes[0].parameters == {"sites": ("0",)}


def test_what_was_judged_is_found_again_inside_of_what_took_its_place():
    cosine = {"token_cosine": Profile("token_cosine", "cosine", SITES, (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999))}
    [finding] = ug205.judge(cosine)
    [place] = finding.sites
    inside = Profile(
        "token_cosine", "cosine", (*SITES[:-1], Site(f"{place.path}.block")), (0.1,) * 5 + (0.3,)
    )
    assert finding.reread({"token_cosine": inside}) == 0.3
    several = tuple(Site(f"{place.path}.{name}") for name in ("a", "b"))
    with pytest.raises(KeyError, match="token_cosine was not observed at 5"):
        finding.reread({"token_cosine": Profile("token_cosine", "cosine", several, (0.1, 0.2))})


def test_a_layer_behind_dead_units_is_not_what_killed_them():
    """Behind them a layer puts out its bias alone; of the leaves around a function any may feed it."""
    leaves = tuple(map(Site, ("first", "second", "head")))
    dead = profile("act_frac_dead", 1.0, sites=(Site("", 2, ".(relu)"),))
    outputs = profile("act_rms", 1.5, 11.0, 0.0587, sites=leaves)
    biases = tuple(Site(f"{leaf}.bias") for leaf in leaves)
    (behind,) = ug206.judge(dead | outputs | profile("param_rms", 0.0, 0.0, 0.0587, sites=biases))
    assert behind.causes[0].text.startswith("weights: negative sums for every input")
    (heavy,) = ug206.judge(dead | outputs | profile("param_rms", 0.0, 10.9, 0.0587, sites=biases))
    assert heavy.causes[0].text.startswith("biases: rms 10.9 in second")


@pytest.mark.parametrize(("bias", "fires"), [(0.01, True), (0.1, False)])
def test_tokens_that_biases_make_alike_are_judged_as_late_as_without_attention(bias, fires):
    cosine = profile("token_cosine", 0.1, 0.5, 0.8, 0.95, 0.996)
    inside = tuple(Site(f"{index}.attention", leaf=".(softmax)") for index in range(5))
    maps = tuple(Site(f"{index}.{name}") for index in range(5) for name in ("in", "out"))
    gains = profile("weight_gain", *[0.3, 0.05] * 5, sites=maps, labels=("Linear",) * 10)
    biases = profile("param_rms", *[bias] * 10, sites=tuple(Site(f"{one}.bias") for one in maps))
    spread = profile("attention_entropy", *[0.99] * 5, sites=inside)
    assert bool(list(ug205.judge(cosine | spread | gains | biases))) is fires


@pytest.mark.parametrize(
    ("logits", "entropy", "fires"),
    [(51.0, 0.09, True), (49.0, 0.09, False), (99.0, 0.11, False), (101.0, 0.4, True)],
)
def test_an_attention_that_all_but_chooses_has_half_the_limit(logits, entropy, fires):
    sites = (Site("a.(softmax)"),)
    given = profile("attention_logit_absmax", logits, sites=sites)
    given |= profile("attention_entropy", entropy, sites=sites)
    assert bool(list(ug701.judge(given))) == fires


@pytest.mark.parametrize(
    ("last", "skip", "fires"), [(0.95, 0.5, True), (0.95, 1.0, False), (0.996, 1.0, True)]
)
def test_attention_that_averages_is_judged_earlier_where_norms_divide_the_sums(last, skip, fires):
    cosine = profile("token_cosine", 0.1, 0.5, 0.8, 0.9, last)
    inside = tuple(Site(f"{index}.attention", leaf=".(softmax)") for index in range(5))
    spread = profile("attention_entropy", *[0.99] * 5, sites=inside)
    assert bool(list(ug205.judge(cosine | spread | parts(skip, 0.5)))) == fires
