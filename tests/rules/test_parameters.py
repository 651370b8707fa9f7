"""UG603 and UG604: parameters that do not learn, and what the optimizer holds."""

import math
import time

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._registry import RULES
from unitygain._types import Profile, Site
from unitygain.rules._activation_causes import layers_per_block, most_common
from unitygain.rules._layers import read_layers
from unitygain.rules._parameters import list_names

LAYERS = [f"layers.{index}.weight" for index in range(5)]


def learning(trainable: dict[str, float], gradients: dict[str, float], *more):
    lonely = sum(bool(value) and name not in gradients for name, value in trainable.items())
    facts = {"without_gradient": float(lonely), "frozen": float(sum(not v for v in trainable.values()))}
    return judged(
        "UG603",
        profile("param_trainable", trainable, facts=facts),
        profile("param_grad_rms", gradients),
        *more,
    )


def test_all_with_a_gradient_is_healthy():
    assert learning(dict.fromkeys(LAYERS, 1.0), dict.fromkeys(LAYERS, 0.1)) == []


def test_no_gradient_names_the_module_and_whether_it_ran():
    ran = profile("act_rms", {"layers.0": 1.0, "layers.1": 1.0})
    [finding] = learning(dict.fromkeys(LAYERS[:3], 1.0), {LAYERS[0]: 0.1}, ran)
    assert finding.severity == "warning"
    assert finding.message == (
        "2 of 3 trainable parameters get no gradient at all (None): layers.1, layers.2"
    )
    assert [cause.text for cause in finding.causes] == [
        "the modules of 1 of them are not called in the forward pass",
        "the outputs of layers.1 do not reach the loss, or are detached on the way",
    ]


def relayed(idle: str, *busy: str):
    """The finding where modules ran in this order, of which one has no gradient."""
    order = [*busy, idle]
    weights = {f"{name}.weight": 1.0 for name in order}
    gradients = dict.fromkeys([f"{name}.weight" for name in busy], 0.1)
    return learning(weights, gradients, profile("act_rms", dict.fromkeys(order, 1.0)))


@pytest.mark.parametrize(
    ("idle", "busy"),
    [
        ("push.1", ("edge.0.0", "push.0", "edge.1.0")),
        ("back.2", ("block.0", "back.0", "block.1", "back.1", "block.2")),
        ("net.0.layers.1.push", ("net.0.layers.0.edge", "net.0.layers.0.push", "net.0.layers.1.edge")),
    ],
)
def test_the_last_of_a_series_that_blocks_hand_on_is_information(idle, busy):
    [finding] = relayed(idle, *busy)
    assert finding.severity == "info"
    assert finding.causes[0].text == f"end of a series: there is no next block to read what {idle} hands on"


@pytest.mark.parametrize(
    ("idle", "busy"),
    [
        ("heads.1", ("layers.0", "layers.1", "heads.0")),
        ("layers.2", ("layers.0", "layers.1")),
        ("push.2", ("edge.0", "push.0", "edge.1", "edge.2")),
    ],
    ids=["a forgotten head", "a block beside the way", "one was left out"],
)
def test_a_module_that_nobody_reads_is_a_warning(idle, busy):
    [finding] = relayed(idle, *busy)
    assert finding.severity == "warning"


def test_a_bias_that_cancels_is_information_and_a_weight_beside_it_is_not():
    names = dict.fromkeys(["body.weight", "energy.weight", "energy.bias"], 1.0)
    ran = profile("act_rms", {"body": 1.0, "energy": 1.0})
    [finding] = learning(names, {"body.weight": 0.1, "energy.weight": 0.1}, ran)
    assert finding.severity == "info"
    assert finding.causes[0].text.startswith("biases: the loss reads only differences or slopes")
    [finding] = learning(names, {"body.weight": 0.1}, ran)
    assert finding.severity == "warning"


def test_an_expert_that_was_not_chosen_is_information():
    names = {"experts.0.weight": 1.0, "experts.1.weight": 1.0, "head.weight": 1.0}
    [finding] = learning(names, {"experts.0.weight": 0.1, "head.weight": 0.1})
    assert finding.severity == "info"


def test_zero_gradient_is_a_warning():
    [finding] = learning(dict.fromkeys(LAYERS[:2], 1.0), {LAYERS[0]: 0.0, LAYERS[1]: 0.3})
    assert severities([finding]) == ["warning"]
    assert finding.message == "the gradient of 1 of 2 trainable parameters is exactly zero: layers.0"


@pytest.mark.parametrize(
    ("value", "kind", "fires"),
    [
        (1.609, "cross_entropy", True),
        (0.7, "cross_entropy", False),
        (1e-9, "cross_entropy", False),
        (0.0, "mse", False),
        (0.3, "mse", True),
    ],
)
def test_no_gradient_anywhere_is_a_satisfied_loss_or_a_dead_one(value, kind, fires):
    facts = {"kind": kind, "expected": 1.609, "row_mean": value}
    loss = profile("loss_value", {"": value}, facts=facts)
    found = learning(dict.fromkeys(LAYERS, 1.0), dict.fromkeys(LAYERS, 0.0), loss)
    assert [finding.evidence["zero gradient"] for finding in found] == [5] * fires


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (profile("act_frac_dead", {"act": 1.0}), "no unit of act is on for any input of the batch"),
        (
            profile("grad_rescaled", {"layers.0": -50.0}, labels=("float32",)),
            "the dtype cannot hold a gradient as small as that of layers.0",
        ),
        (
            profile("grad_rescaled", {"layers.0": -9.0}, labels=("float16",)),
            "the dtype cannot hold a gradient as small as that of layers.0",
        ),
    ],
)
def test_zero_gradient_that_another_finding_explains_is_information(more, text):
    [finding] = learning(dict.fromkeys(LAYERS[:2], 1.0), {LAYERS[0]: 0.0, LAYERS[1]: 0.3}, more)
    assert finding.severity == "info"
    assert finding.causes[0].text.startswith(text)


def test_zero_gradient_before_a_zero_weight_is_by_design():
    """A zeroed last layer, or LoRA's B, gets a gradient and gives none in the first step."""
    names = {"a.weight": 1.0, "b.weight": 1.0}
    sizes = profile("param_rms", {"a.weight": 0.3, "b.weight": 0.0})
    assert learning(names, {"a.weight": 0.0, "b.weight": 0.4}, sizes) == []
    # The other way round nothing excuses it.
    sizes = profile("param_rms", {"a.weight": 0.0, "b.weight": 0.3})
    assert severities(learning(names, {"a.weight": 0.2, "b.weight": 0.0}, sizes)) == ["warning"]


def test_zero_gradient_beside_a_gate_of_the_block_itself_is_by_design():
    """A block registers its gate before the modules whose output it multiplies."""
    names = ["2.gate", "2.map.weight", "2.net.0.weight", "3.weight"]
    sizes = profile("param_rms", dict.fromkeys(names, 0.3) | {"2.gate": 0.0})
    gradients = dict.fromkeys(names, 0.0) | {"2.gate": 0.2, "3.weight": 0.1}
    assert learning(dict.fromkeys(names, 1.0), gradients, sizes) == []
    # A gate of another block excuses nothing.
    sizes = profile("param_rms", {"1.gate": 0.0} | dict.fromkeys(names, 0.3))
    trainable = {"1.gate": 1.0} | dict.fromkeys(names, 1.0)
    [finding] = learning(trainable, gradients | {"1.gate": 0.2}, sizes)
    assert finding.evidence["zero gradient"] == 2


def delays(steps: dict[str, float], rows: tuple[tuple[float, float], ...]):
    return profile("param_grad_delay", steps, columns=("rms", "dimensions"), rows=rows)


def test_what_wakes_when_zeros_move_is_by_design_and_what_does_not_is_named():
    names = {"a.weight": 0.0, "b.weight": 0.0, "b.shift": 0.4}
    trainable = dict.fromkeys(names, 1.0)
    assert (
        learning(trainable, names, delays({"a.weight": 2.0, "b.weight": 1.0}, ((0.3, 2.0), (0.0, 2.0)))) == []
    )
    never = delays({"a.weight": math.inf, "b.weight": math.inf}, ((0.3, 2.0), (0.0, 2.0)))
    [finding] = learning(trainable, names, never)
    assert finding.severity == "warning"
    assert finding.sites == (Site("b.weight"), Site("a.weight"))
    first = finding.causes[0]
    assert first.text.startswith("initialisation: b starts at zero; ")
    assert (first.remedy, first.parameters) == ("activation_init", {"sites": ("b",)})


@pytest.mark.parametrize(
    ("optimizer", "longest", "expected"),
    [("SGD", 2.0, ["warning"]), ("SGD", 1.0, []), ("Adam", 2.0, ["info"]), ("", 2.0, ["info"])],
)
def test_three_weights_of_zeros_in_series_wake_one_after_the_other(optimizer, longest, expected):
    """A gate behind a zeroed head, and what it gates, is by design; one more is a product of three zeros."""
    names = {"a.weight": 0.0, "b.weight": 0.0, "lin.weight": 0.0, "c.weight": 0.3}
    steps = {"a.weight": longest, "b.weight": 1.0, "lin.weight": 3.0}
    sizes = profile("param_rms", {"a.weight": 0.0, "b.weight": 0.0, "lin.weight": 0.4, "c.weight": 0.0})
    late = delays(steps, ((0.0, 2.0), (0.0, 2.0), (0.4, 2.0)))
    update = profile("update_ratio", {"lin.weight": 0.0}, facts={"optimizer": optimizer})
    found = learning(dict.fromkeys(names, 1.0), names, sizes, late, *([update] if optimizer else []))
    assert severities(found) == expected
    for finding in found:
        assert finding.sites[0] == Site("a.weight")
        assert finding.causes[0].text.startswith("initialisation: a, b, c start at zero, 3 in series")
        assert finding.causes[0].parameters == {"sites": ("a", "b", "c")}


def test_a_parameter_with_a_name_of_its_own_that_starts_at_zero_is_named_without_a_remedy():
    names = {"W1": 0.0, "W2": 0.0, "offset": 0.4}
    rows = ((0.0, 2.0), (0.0, 2.0))
    [finding] = learning(
        dict.fromkeys(names, 1.0), names, delays(dict.fromkeys(("W1", "W2"), math.inf), rows)
    )
    assert finding.causes[0].text.startswith("initialisation: W1, W2 start at zero; ")
    assert finding.causes[0].remedy is None


def test_biases_that_stay_without_a_gradient_are_not_reported_alone():
    names = {"a.bias": 0.0, "b.weight": 0.4}
    assert learning(dict.fromkeys(names, 1.0), names, delays({"a.bias": math.inf}, ((0.0, 1.0),))) == []


def test_a_pass_that_is_not_finite_is_not_judged():
    broken = profile("act_frac_nonfinite", {"layers.0": 0.5})
    assert learning(dict.fromkeys(LAYERS[:2], 1.0), {LAYERS[0]: 0.0, LAYERS[1]: 0.3}, broken) == []


def test_one_frozen_layer_among_its_kind_is_a_warning():
    trainable = dict.fromkeys(LAYERS, 1.0) | {LAYERS[2]: 0.0}
    [finding] = learning(trainable, dict.fromkeys(LAYERS, 0.1))
    assert finding.severity == "warning"
    assert finding.message == (
        "1 of 5 parameters are frozen (20%): layers.2 among layers of the same kind that train"
    )
    assert finding.causes[0].parameters == {"names": "layers.2.weight"}
    assert finding.causes[0].predicted == (0.0, 0.0)


@pytest.mark.parametrize("frozen", [LAYERS[:1], LAYERS[:3], LAYERS[4:], LAYERS[:4], LAYERS[1:4]])
def test_a_frozen_beginning_end_or_majority_is_information(frozen):
    trainable = {name: float(name not in frozen) for name in LAYERS}
    found = learning(trainable, {name: 0.1 for name in LAYERS if name not in frozen})
    assert severities(found) == ["info"]


def still(drawn: tuple[float, ...], name: str = "body", *more, **facts: float):
    sites = {f"{name}.{k}.weight": value for k, value in enumerate(drawn)}
    known = {"share": 0.9, "features": 4.0, "inputs": 16.0} | facts
    trainable = dict.fromkeys(sites, 0.0) | {"head.weight": 1.0}
    return learning(trainable, {"head.weight": 0.1}, profile("frozen_drawn", sites, facts=known), *more)


def test_a_frozen_part_that_was_never_trained_and_loses_its_input_is_a_warning():
    [finding] = still((1.0, 1.0))
    assert finding.severity == "warning"
    assert finding.causes[0].text == (
        "frozen: requires_grad is False on body.0, body.1, on weights that were never trained: they look "
        "like a random draw, and what trains reads 0.25 numbers of theirs for each of the input"
    )
    assert finding.causes[0].parameters == {"names": "body.*"}
    assert finding.causes[0].predicted == (0.0, 0.0)


@pytest.mark.parametrize(
    "found",
    [
        lambda: still((1.0, 0.0)),
        lambda: still((1.0, 1.0), features=16.0),
        lambda: still((1.0, 1.0), features=math.nan),
        lambda: still((1.0, 1.0), share=0.3),
        lambda: still((1.0, 1.0), "random_features"),
        lambda: still((1.0, 1.0), "body", profile("fake_logit_grad", {"judge": 1.0})),
    ],
    ids=("trained", "wide", "behind", "small", "by name", "game"),
)
def test_a_frozen_part_that_is_trained_wide_small_meant_or_a_players_is_information(found):
    assert severities(found()) == ["info"]


def test_frozen_biases_are_no_odd_layers():
    names = [f"layers.{i}.bias" for i in range(5)]
    trainable = dict.fromkeys(names, 1.0) | {names[2]: 0.0}
    assert severities(learning(trainable, dict.fromkeys(names, 0.1))) == ["info"]


def test_unfreezing_is_predicted_by_count():
    names = ["layers.0.a", "layers.1.a", "layers.1.b", "layers.2.a", "embed.weight"]
    trainable = dict.fromkeys(names, 1.0) | {"layers.1.a": 0.0, "embed.weight": 0.0}
    [finding] = learning(trainable, dict.fromkeys(names, 0.1))
    assert finding.value == 2
    assert finding.causes[0].predicted == (1.0, 1.0)


def holding(entries: dict[str, tuple[float, str]]):
    missing = sum(bool(v) and label == "not in optimizer" for v, label in entries.values())
    idle = sum(not v and label == "in optimizer" for v, label in entries.values())
    return judged(
        "UG604",
        profile(
            "param_trainable",
            {name: value for name, (value, _) in entries.items()},
            labels=tuple(label for _, label in entries.values()),
            facts={"trainable_not_held": float(missing), "frozen_held": float(idle)},
        ),
    )


def test_a_part_that_is_not_held_is_a_warning():
    [finding] = holding({"body.weight": (1.0, "in optimizer"), "head.weight": (1.0, "not in optimizer")})
    assert finding.severity == "warning"
    assert finding.message == "the optimizer does not hold 1 of 2 trainable parameters: head"


def test_nothing_held_is_an_error():
    [finding] = holding({"body.weight": (1.0, "not in optimizer"), "head.weight": (0.0, "not in optimizer")})
    assert finding.severity == "error"
    assert (
        finding.message == "the optimizer holds none of the 1 trainable parameters: no step changes the model"
    )


def hidden(*labels: str):
    missing = [label != "in optimizer" for label in labels]
    sites = tuple(Site("encoder", leaf=f".layers[{k}].weight") for k in range(len(labels)))
    facts = {"not_held": float(sum(missing)), "containers": "encoder.layers" if any(missing) else ""}
    found = Profile("unregistered_grad_rms", "rms", sites, (0.1,) * len(labels), labels=labels, facts=facts)
    trainable = profile("param_trainable", {"head.weight": 1.0}, labels=("in optimizer",))
    return judged("UG604", trainable, found)


def test_layers_in_a_plain_list_are_not_registered():
    [finding] = hidden("in optimizer", "not in optimizer")
    assert finding.severity == "warning"
    assert finding.message == (
        "1 parameter takes part in the loss and is not registered in the model: encoder.layers[1].weight; "
        "model.parameters() leaves out what a plain container holds, and no step moves it"
    )
    assert finding.causes[0].text == (
        "a plain Python list, tuple or dict holds their modules (encoder.layers): not registered"
    )
    assert [f.severity for f in hidden("no optimizer")] == ["warning"]


def test_layers_in_a_plain_list_that_the_optimizer_was_given_train():
    assert hidden("in optimizer", "in optimizer") == []


def test_frozen_in_the_optimizer_is_information():
    [finding] = holding({"body.weight": (0.0, "in optimizer"), "head.weight": (1.0, "in optimizer")})
    assert finding.severity == "info"


def test_frozen_and_not_held_is_how_it_should_be():
    assert holding({"body.weight": (0.0, "not in optimizer"), "head.weight": (1.0, "in optimizer")}) == []


def test_without_an_optimizer_nothing_is_said():
    assert holding({"body.weight": (0.0, "no optimizer"), "head.weight": (1.0, "no optimizer")}) == []


def test_many_names_are_shortened():
    assert list_names([]) == ""
    assert list_names(["a", "b", "c", "d"]) == "a, b, c, d"
    assert list_names(["a", "b", "c", "d", "e"]) == "a, b, c, d and 1 more"


def test_layers_of_a_deep_model_are_found_in_its_blocks_without_comparing_all_with_all():
    count = 20_000
    blocks = tuple(Site(f"layers.{index}") for index in range(count))
    weights = Profile("weight_gain", "x", tuple(Site(f"{block}.linear") for block in blocks), (0.5,) * count)
    started = time.process_time()
    layers = read_layers({"weight_gain": weights}, blocks)
    assert layers_per_block(layers, blocks) == 1
    assert most_common(layers) == layers
    # Linear cost is a fifth of a second; comparing all with all is 4e8 comparisons, a minute and more.
    assert time.process_time() - started < 10


def test_zero_gradients_of_many_parameters_are_weighed_without_comparing_all_with_all():
    count = 20_000
    sites = tuple(Site(f"layers.{index}.linear.weight") for index in range(count))
    gradients = (*(0.0,) * (count - 1), 1.0)
    profiles = {
        "param_trainable": Profile("param_trainable", "1 or 0", sites, (1.0,) * count),
        "param_grad_rms": Profile("param_grad_rms", "rms", sites, gradients),
        "param_rms": Profile("param_rms", "rms", sites, (1.0,) * count),
        "act_frac_nonfinite": Profile("act_frac_nonfinite", "share", sites, (0.0,) * count),
    }
    started = time.process_time()
    (found,) = RULES["UG603"].judge(profiles)
    assert len(found.sites) == count - 1
    # Linear cost is a fifth of a second; comparing all with all is 4e8 comparisons, a minute and more.
    assert time.process_time() - started < 10


def test_a_bias_that_sums_to_zero_behind_a_weight_that_learns_is_no_dead_path():
    names = {LAYERS[0]: 0.1, "head.weight": 0.1, "head.bias": 0.0}
    assert learning(dict.fromkeys(names, 1.0), names) == []
    made = {LAYERS[0]: 0.1, "head.parametrizations.weight.original": 0.1, "head.bias": 0.0}
    assert learning(dict.fromkeys(made, 1.0), made) == []
    names["head.weight"] = 0.0
    [finding] = learning(dict.fromkeys(names, 1.0), names)
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    ("gradients", "silent"),
    [
        ({"enc.weight": 0.1, "enc.bias": 0.1, "dec.weight": 0.0, "dec.bias": 0.1}, True),
        ({"enc.weight": 0.0, "enc.bias": 0.0, "dec.weight": 0.0, "dec.bias": 0.1}, False),
        ({"enc.weight": 0.1, "enc.bias": 0.1, "dec.weight": 0.0, "dec.bias": 0.0}, False),
        ({"dec.weight": 0.0, "dec.bias": 0.1, "out.weight": 0.1}, False),
    ],
    ids=["will be given others", "nothing before learns", "nothing arrives", "nothing before"],
)
def test_a_weight_that_is_given_zeros_by_what_learns_waits(gradients, silent):
    ran = profile("act_rms", {"enc": 1.0, "dec": 1.0, "out": 1.0})
    assert (learning(dict.fromkeys(gradients, 1.0), gradients, ran) == []) == silent


@pytest.mark.parametrize(
    ("function", "first"), [("sign", "steps: "), ("", "the path to the loss multiplies")]
)
def test_a_function_of_steps_is_named_where_no_gradient_passes(function, first):
    facts = {"step_function": function}
    gradients = {"0.weight": 0.0, "0.bias": 0.0, "2.weight": 0.1}
    [finding] = learning(
        dict.fromkeys(gradients, 1.0), gradients, profile("loss_value", {"": 1.0}, facts=facts)
    )
    assert finding.causes[0].text.startswith(first)


def test_a_checkpoint_that_is_asked_for_no_gradient_is_the_first_cause():
    weights = dict.fromkeys(LAYERS, 1.0)
    facts = {"without_gradient": 4.0, "checkpointed": 4.0, "checkpoint": "body"}
    ran = profile("act_rms", {name.removesuffix(".weight"): 1.0 for name in LAYERS})
    (found,) = judged(
        "UG603",
        profile("param_trainable", weights, facts=facts),
        profile("param_grad_rms", {LAYERS[4]: 0.1}),
        ran,
    )
    assert found.severity == "warning"
    assert found.causes[0].text.startswith("checkpoint: the modules of 4 of them run under a re-entrant")
    assert " in body," in found.causes[0].text
    assert "use_reentrant=False" in found.fix


def test_a_loss_that_no_parameter_reaches_is_told_of_all_of_them():
    trainable = profile(
        "param_trainable", {"body.weight": 1.0, "head.weight": 1.0}, facts={"without_gradient": 2.0}
    )
    [finding] = judged("UG603", trainable, profile("act_rms", {"body": 1.0, "head": 1.0}))
    assert finding.value == 2.0
    assert "do not reach the loss, or are detached" in finding.causes[0].text
    assert judged("UG603", profile("param_trainable", {"body.weight": 0.0})) == []
