"""weight_spectral_norm agrees with the singular values of every matrix that multiplies a signal."""

import copy

import pytest
import torch
from probe.trunks import recorded
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from unitygain._types import Profile
from unitygain.measures.weight_spectral_norm import weight_spectral_norm


def measured(model: nn.Module, x: torch.Tensor) -> Profile:
    profile = weight_spectral_norm(*recorded(model, x))
    assert profile is not None
    return profile


@pytest.mark.parametrize("shape", [(7, 5), (200, 900), (300, 400), (600, 270)])
def test_norm_agrees_with_the_dense_singular_value(shape):
    layer = nn.Linear(shape[1], shape[0])
    profile = measured(layer, torch.randn(2, shape[1]))
    assert profile.error is not None
    expected = float(torch.linalg.svdvals(layer.weight.detach().double())[0])
    # The small ones are exact; the large ones are lower estimates with their bar, in float32.
    assert -1e-6 * expected <= expected - profile.values[0] <= profile.error[0] + 1e-6 * expected
    assert profile.error[0] <= 1.1e-3 * expected


def test_every_matrix_is_there_by_name_and_nothing_else():
    model = nn.ModuleDict({
        "embedding": nn.Embedding(5, 4),
        "linear": nn.Linear(4, 4),
        "norm": nn.LayerNorm([4, 4]),
        "attention": nn.MultiheadAttention(4, 2),
        "cell": nn.LSTM(4, 4),
        "conv": nn.Conv1d(4, 4, 3),
    })
    case, record = recorded(nn.Linear(2, 2), torch.randn(1, 2))
    case._model = model
    profile = weight_spectral_norm(case, record)
    assert profile is not None
    assert [str(site) for site in profile.sites] == [
        "linear",
        "attention.in_proj_weight",
        "attention.out_proj",
        "cell.weight_ih_l0",
        "cell.weight_hh_l0",
    ]


def test_parametrised_weights_are_taken_as_used_and_left_as_they_are():
    model = nn.Sequential(spectral_norm(nn.Linear(9, 9)), weight_norm(nn.Linear(9, 9)))
    case, record = recorded(model, torch.randn(2, 9))
    before = copy.deepcopy(model.state_dict())
    profile = weight_spectral_norm(case, record)
    assert profile is not None
    assert [str(site) for site in profile.sites] == ["0", "1"]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert profile.values[0] == pytest.approx(1, rel=0.1)
    expected = float(torch.linalg.svdvals(model[1].weight.detach())[0])
    assert profile.values[1] == pytest.approx(expected, rel=1e-6)


def test_old_weight_norm_is_taken_as_used():
    with pytest.warns(FutureWarning, match="deprecated"):
        layer = nn.utils.weight_norm(nn.Linear(6, 6))
    profile = measured(nn.Sequential(layer), torch.randn(2, 6))
    assert [str(site) for site in profile.sites] == ["0"]
    assert profile.values[0] == pytest.approx(float(torch.linalg.svdvals(layer.weight.detach())[0]), rel=1e-6)


def test_weights_that_are_not_finite_give_nan():
    layer = nn.Linear(3, 3)
    case, record = recorded(layer, torch.randn(2, 3))
    layer.weight.data[0, 0] = torch.inf
    profile = weight_spectral_norm(case, record)
    assert profile is not None
    assert profile.values[0] != profile.values[0]
    assert profile.note


def test_model_without_matrices_has_no_profile():
    assert weight_spectral_norm(*recorded(nn.Conv1d(2, 2, 3), torch.randn(1, 2, 5))) is None
