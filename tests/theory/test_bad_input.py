"""No function takes a number that means nothing and returns one: a sentence with the value, never a nan."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from unitygain import theory

EYE, KERNEL, SCHEDULE = np.eye(2), np.ones((1, 1, 3)), theory.linear_schedule(8)
# Every function that takes a number, with arguments that it takes.
VALID: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (theory.mean_field, {"phi": "tanh", "sigma_w2": 2.0, "sigma_b2": 0.1, "q": 1.0}),
    (theory.propagate, {"phi": "tanh", "sigma_w2": 2.0, "sigma_b2": 0.1, "q": 1.0, "c": 0.2, "depth": 2}),
    (theory.variance_map, {"phi": "tanh", "q": 1.0, "sigma_w2": 1.0, "sigma_b2": 0.1}),
    (theory.correlation_map, {"phi": "selu", "c": 0.3, "q": 1.0, "sigma_w2": 1.0, "sigma_b2": 0.1}),
    (theory.second_moment, {"phi": "tanh", "q": 1.0}),
    (theory.slope_moment, {"phi": "tanh", "q": 1.0, "power": 1}),
    (theory.critical, {"phi": "tanh", "sigma_b2": 0.1}),
    (theory.critical_line, {"phi": "tanh", "chi_1": 1.0}),
    (theory.leaky_relu, {"slope": 0.1}),
    (theory.residual, {"phi": "tanh", "sigma_w2": 1.0, "q": 1.0, "c": 0.1, "branch_scale": 1.0, "skip": 1.0}),
    (theory.residual_gain, {"branch_gain": 1.0, "branch_scale": 1.0, "skip": 1.0}),
    (theory.residual_depth_gain, {"branch_gain": 1.0, "depth": 3, "branch_scale": 0.5}),
    (theory.concatenation_gain, {"branch_gain": 1.0, "skip": 1.0}),
    (theory.layer_norm_rate, {"phi": "tanh", "sigma_w2": 1.0, "sigma_b2": 0.1, "gamma": 1.0}),
    (theory.batch_norm_rate, {"phi": "relu", "batch": 8}),
    (theory.pre_norm, {"phi": "relu", "sigma_in2": 1.0, "sigma_out2": 1.0, "q": 1.0, "c": 0.0, "depth": 2}),
    (theory.post_norm_rate, {"phi": "relu", "sigma_in2": 1.0, "sigma_out2": 1.0}),
    (
        theory.convolution_gain,
        {"weight_variance": 0.1, "channels_in": 4, "channels_out": 4, "kernel": (3, 3)},
    ),
    (
        theory.depthwise_separable_gain,
        {"depthwise_variance": 0.1, "pointwise_variance": 0.1, "channels": 4, "kernel": (3, 3)},
    ),
    (theory.residual_paths, {"blocks": 4}),
    (theory.residual_path_shares, {"blocks": 4, "branch_gain": 0.5}),
    (theory.dense_paths, {"layers": 4}),
    (theory.dense_connections, {"layers": 4}),
    (theory.unet_path_lengths, {"levels": 3, "blocks_per_level": 2}),
    (
        theory.attention_logits,
        {"head_width": 16, "tokens": 64, "query_variance": 1.0, "key_variance": 1.0},
    ),
    (theory.rank_collapse_floor, {"tokens": 8}),
    (theory.spectral_variance, {"phi": "tanh", "q": 1.0, "depth": 4, "orthogonal": False}),
    (theory.gaussian_product_edge, {"depth": 4}),
    (theory.gaussian_log_condition, {"width": 16}),
    (theory.rnn_growth, {"phi": "tanh", "sigma_w2": 1.5, "input_variance": 0.1}),
    (theory.combined_growth, {"keep": 0.5, "gain": 0.4, "scattered": 0.1}),
    (theory.lstm_growth_at_origin, {"sigma_w2": 1.0, "forget_bias": 1.0, "input_bias": 0.0}),
    (theory.gru_growth_at_origin, {"sigma_w2": 1.0, "update_bias": 1.0, "reset_bias": 0.0}),
    (theory.lstm_growth, {"sigma_w2": 1.0, "input_variance": 0.3, "forget_bias": 1.0}),
    (theory.gru_growth, {"sigma_w2": 1.0, "input_variance": 0.3, "update_bias": 1.0}),
    (theory.minimal_rnn_growth, {"sigma_w2": 1.0, "input_variance": 0.3, "gate_bias": 0.0}),
    (theory.gate_moments, {"bias": 0.0, "variance": 1.0}),
    (theory.layer_norm_bound, {"variance": 1.0, "width": 8, "gamma": 1.0, "eps": 1e-5}),
    (theory.rms_norm_bound, {"mean_square": 1.0, "width": 8, "gamma": 1.0, "eps": 1e-6}),
    (theory.softmax_bound, {"temperature": 1.0}),
    (theory.attention_gain_at, {"radius": 2.0, "width": 8}),
    (theory.decayed_radius, {"radius": 1.0, "learning_rate": 0.1, "weight_decay": 0.1, "steps": 5}),
    (theory.steps_to_radius, {"radius": 1.0, "target": 0.5, "learning_rate": 0.1, "weight_decay": 0.1}),
    (theory.least_sigma_max, {"log_det": 1.0, "dimension": 4}),
    (theory.least_condition, {"log_sigma_max": 2.0, "log_det": 1.0, "dimension": 4}),
    (theory.shear_norm, {"slope": 1.0}),
    (theory.critical_line, {"phi": "tanh", "points": 20}),
    (theory.phase_diagram, {"phi": "tanh", "sigma_w2": [1.0], "sigma_b2": [0.1], "q": 1.0}),
    (theory.fans, {"channels_in": 4, "channels_out": 4, "kernel": (3, 3), "groups": 2}),
    (theory.transformer_tokens, {"stack": theory.Transformer(4, 2), "q": 1.0, "p": 0.5}),
    (theory.Transformer, {"tokens": 4, "depth": 2, "sigma_ov2": 1.0, "sigma_qk2": 0.0, "sigma_mlp2": 1.0}),
    (theory.Transformer, {"tokens": 4, "depth": 2, "norm": "erf", "alpha": 1.0}),
    (theory.log_singular_values, {"factors": [EYE], "sweeps": 4, "tolerance": 1e-6, "precision": 1e-12}),
    (
        theory.lyapunov_spectrum,
        {"factors": [EYE] * 60, "start": EYE, "tolerance": 1e-6, "precision": 1e-12, "confidence": 0.9},
    ),
    (theory.lyapunov_spectrum, {"factors": [EYE] * 60, "start": EYE, "transient": 3}),
    (theory.transient_growth, {"matrix": EYE, "steps": 4}),
    (theory.numerical_radius, {"matrix": EYE, "angles": 8}),
    (theory.kreiss_constant, {"matrix": 0.5 * EYE, "angles": 4, "radii": 4}),
    (theory.gram_bound, {"kernel": KERNEL, "size": (8,), "steps": 2}),
    (theory.euler_growth, {"step": 0.1, "eigenvalues": [-1.0]}),
    (theory.relu_log_moments, {"width": 8}),
    (theory.relu_gain_law, {"widths": [8], "gain": 1.0}),
    (
        theory.simulate_relu_gain,
        {"widths": [16, 16], "gain": 1.0, "probes": 1, "batch": 1, "draws": 20},
    ),
    (theory.log_normal_p_value, {"gain": 1.0, "mean_log": 0.0, "variance_log": 1.0}),
    (theory.wide_law, {"variance_log": 1.0}),
    (theory.relu_gain_law([8]).interval, {"level": 0.9}),
    (theory.wide_law(1.0).log_interval, {"level": 0.9}),
    (theory.wide_law(1.0).p_of_log, {"log_gain": 0.3}),
    (theory.two_design_variance, {"qubits": 2}),
    (theory.global_cost_variance, {"qubits": 2}),
    (theory.local_cost_variance, {"qubits": 2}),
    (
        theory.sampled_variance,
        {"cost": lambda angles: math.sin(angles[0]), "angles": 2, "index": 0, "precision": 0.5},
    ),
    (theory.generator_gradient, {"logit": 1.0}),
    (theory.parallel_lines, {"theta": 1.0}),
    (theory.gaussian_divergences, {"theta": 1.0}),
    (theory.value_at_optimal_discriminator, {"jensen_shannon": 0.3}),
    (theory.linear_schedule, {"steps": 8, "first": 1e-4, "last": 0.02}),
    (theory.cosine_schedule, {"steps": 8, "offset": 0.008}),
    (theory.min_snr_weights, {"schedule": SCHEDULE, "gamma": 5.0}),
    (theory.mirrored_clip, {"clip": 1.0, "weights": [1.0, 2.0], "reference": 1.0}),
    (theory.layers_to_underflow, {"factor": 0.5, "dtype": "float16", "start": 1.0}),
    (theory.layers_to_overflow, {"factor": 2.0, "dtype": "float16", "start": 1.0}),
    (theory.underflow_share, {"rms": 1.0, "dtype": "float16"}),
    (
        theory.gradient_noise,
        {"small_batch": 4, "large_batch": 8, "small_square": 2.0, "large_square": 1.0},
    ),
]


def numeric(f: Callable[..., Any]) -> bool:
    """Whether a function says that it takes a number."""
    kinds = (int, float, int | None, float | None)
    return any(parameter.annotation in kinds for parameter in inspect.signature(f).parameters.values())


BAD = (math.nan, math.inf, -math.inf, -1.0)
ARGUMENTS = [
    pytest.param(f, valid, key, id=f"{f.__name__}-{key}")
    for f, valid in VALID
    for key, value in valid.items()
    if isinstance(value, (int, float)) and not isinstance(value, bool)
]


def numbers(value: Any) -> Iterator[float]:
    """Every number in an answer."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name))
    elif isinstance(value, (tuple, list, np.ndarray)):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, (int, float)):
        yield value


@pytest.mark.parametrize(("f", "valid"), [pytest.param(f, valid, id=f.__name__) for f, valid in VALID])
def test_what_is_valid_has_an_answer(f, valid):
    assert not any(math.isnan(number) for number in numbers(f(**valid)))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("f", "valid", "key"), ARGUMENTS)
def test_a_number_that_means_nothing_is_a_sentence(f, valid, key, bad):
    try:
        answer = f(**{**valid, key: bad})
    except (ValueError, TypeError) as error:
        # The value is said, or a value that follows from it.
        assert any(character.isdigit() for character in str(error)) or any(  # noqa: PT017
            word in str(error) for word in ("nan", "inf")
        )
        return
    # What is not refused must be a number for which the formula holds: -1 is a correlation, a bias, a slope.
    assert bad == -1.0
    assert not any(math.isnan(number) for number in numbers(answer))


@pytest.mark.parametrize(
    ("f", "valid", "key"), [given for given in ARGUMENTS if given.values[0] is not theory.leaky_relu]
)
def test_what_is_no_number_is_a_sentence(f, valid, key):
    for bad in ("2", 1j, torch.tensor(1.0)):
        with pytest.raises(TypeError, match="; give a real number"):
            f(**{**valid, key: bad})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.Schedule(np.array([])), r"beta has shape \(0,\); give one variance per step"),
        (lambda: theory.mirrored_clip(1.0, []), "weights is empty"),
        (lambda: theory.softmax_gain([]), r"probabilities have shape \(0,\)"),
        (lambda: theory.circular_norm(np.ones((0, 1, 3)), (8,)), r"kernel has shape \(0, 1, 3\)"),
        (lambda: theory.circular_norm(1j * KERNEL, (8,)), "the kernel is complex; give real weights"),
        (lambda: theory.circular_norm(KERNEL, (8.5,)), "size is 8.5; give a whole number"),  # pyright: ignore
        (lambda: theory.convolution_gain(1.0, 4, 4, (3, 3), stride=(1,)), "stride has 1 numbers for 2 dimen"),
        (lambda: theory.boundary_share((4, 4), (3,), (1, 1)), "kernel has 1 numbers for 2 dimensions"),
        (lambda: theory.phase_diagram("tanh", np.ones((2, 2)), [0.1]), "sigma_w2 has 2 dimensions"),
        (lambda: theory.log_singular_values([np.ones(3)]), r"factor 0 has shape \(3,\) and dtype float64"),
        (lambda: theory.log_singular_values([EYE, 1j * EYE]), "factor 1 has shape .* complex128; give real"),
        (lambda: theory.lyapunov_spectrum([1j * EYE] * 9, EYE), "factor 0 is or makes complex128; give real"),
        (lambda: theory.spectral_variance(lambda x: 0 * x, 1.0, 3, True), "slope of phi is zero everywhere"),
        (lambda: theory.layer_norm_rate(lambda x: 0 * x), "the variance behind phi is 0.0"),
        (
            lambda: theory.sampled_variance(lambda angles: math.nan, 2),
            "the cost is nan; give a finite number",
        ),
        (lambda: theory.critical("softplus", 0.1), r"no critical point .*; choose another sigma_b2"),
        (lambda: theory.residual_paths(10**400), "blocks is 1000.*; give a whole number"),
    ],
)
def test_what_fits_nothing_is_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_leaves_float64_upwards_is_infinite():
    assert theory.attention_gain_at(1e200, 4) == math.inf
    assert theory.least_sigma_max(1e6, 2) == math.inf


def test_the_list_knows_its_arguments():
    named = {f.__name__ for f, _ in VALID}
    takes = {name for name, f in vars(theory).items() if inspect.isfunction(f) and numeric(f)}
    assert takes <= named, f"give these arguments that they take: {sorted(takes - named)}"
    for f, valid in VALID:
        assert set(valid) <= set(inspect.signature(f).parameters)
