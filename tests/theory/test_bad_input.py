"""No function takes a number that means nothing and returns one: a sentence with the value, never a nan."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from unitygain import theory

# Every function of the mean field, of architectures and of bounds, with arguments that it takes.
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
]
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


def test_the_list_knows_its_arguments():
    for f, valid in VALID:
        assert set(valid) <= set(inspect.signature(f).parameters)
