"""conv_operator_norm agrees with the dense map of every kind of convolution, and its certificate holds."""

import copy
import math

import pytest
import torch
from probe.trunks import naive_jacobian, recorded
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from unitygain._types import Profile
from unitygain.measures.conv_operator_norm import conv_operator_norm

KINDS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "circular": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 6, 5)),
    "circular, dilated": (nn.Conv1d(2, 3, 3, padding=2, dilation=2, padding_mode="circular"), (2, 9)),
    "circular, grouped": (nn.Conv2d(4, 4, 3, padding="same", groups=2, padding_mode="circular"), (4, 5, 5)),
    "circular, strided": (nn.Conv2d(2, 3, 3, padding=1, stride=2, padding_mode="circular"), (2, 6, 6)),
    "circular, as large as the map": (nn.Conv1d(2, 2, 5, padding=2, padding_mode="circular"), (2, 4)),
    "zeros": (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "zeros, unpadded": (nn.Conv2d(2, 3, 3), (2, 6, 6)),
    "zeros, strided": (nn.Conv2d(2, 3, 3, padding=1, stride=2), (2, 7, 7)),
    "zeros, dilated": (nn.Conv1d(2, 3, 3, padding=2, dilation=2), (2, 9)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 5, 5)),
    "reflect": (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 5, 5)),
    "replicate": (nn.Conv1d(2, 2, 3, padding=1, padding_mode="replicate"), (2, 7)),
    "three dimensions": (nn.Conv3d(2, 2, 2, padding=1), (2, 3, 4, 3)),
    "transposed": (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 4, 4)),
    "pointwise": (nn.Conv2d(3, 5, 1), (3, 4, 4)),
}


def measured(model: nn.Module, *shape: int) -> Profile:
    profile = conv_operator_norm(*recorded(model, torch.randn(2, *shape).to(next(model.parameters()).dtype)))
    assert profile is not None
    return profile


@pytest.mark.parametrize("kind", KINDS)
def test_norm_is_that_of_the_dense_map(kind):
    module, shape = KINDS[kind]
    module = copy.deepcopy(module).double()
    profile = measured(module, *shape)
    assert profile.error is not None
    x = torch.zeros(1, *shape).double()
    expected = float(torch.linalg.svdvals(naive_jacobian(module, x))[0])
    value, reshaped, certificate = profile.rows[0]
    assert value == profile.values[0]
    assert abs(value - expected) <= profile.error[0] + 1e-13 * expected
    kernel = module.weight.detach().reshape(module.weight.shape[0], -1)  # pyright: ignore
    assert reshaped == pytest.approx(float(torch.linalg.svdvals(kernel)[0]), rel=1e-12)
    if "zeros" in kind or kind in {"depthwise", "three dimensions", "transposed", "pointwise"}:
        assert expected <= certificate * (1 + 1e-12)
        # It is that of the circular convolution on a larger grid, which a stride only thins out.
        grown = math.prod((s + 2 * 2) / s for s in shape[1:]) ** 0.5
        assert certificate <= (2 if "strided" in kind or kind == "transposed" else grown) * expected
    elif kind.startswith("circular") and "strided" not in kind:
        assert profile.labels == ("circular, exact",)
        assert certificate == pytest.approx(expected, rel=1e-12)
    else:
        assert math.isnan(certificate)
        assert "no" in profile.note


@pytest.mark.parametrize("groups", [1, 4])
def test_larger_maps_are_within_their_error_bar(groups):
    torch.manual_seed(2)
    module = nn.Conv2d(4, 4, 3, padding=1, groups=groups).double()
    profile = measured(module, 4, 16, 16)
    assert profile.error is not None
    expected = float(torch.linalg.svdvals(naive_jacobian(module, torch.zeros(1, 4, 16, 16).double()))[0])
    value, _, certificate = profile.rows[0]
    assert 0 <= expected - value <= profile.error[0]
    assert profile.error[0] <= 1e-4 * expected
    assert expected <= certificate
    assert profile.labels == ("zeros, stride 1x1, at 16x16",)


def test_mean_filter_passes_a_constant_though_its_kernel_looks_small():
    blur = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    blur.weight.data.fill_(1 / 9)
    value, reshaped, _ = measured(blur, 1, 12, 12).rows[0]
    assert value == pytest.approx(1, rel=1e-6)
    assert reshaped == pytest.approx(1 / 3, rel=1e-6)


def test_spectral_normalisation_of_the_kernel_leaves_a_larger_operator():
    torch.manual_seed(0)
    module = spectral_norm(nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), n_power_iterations=30)
    case, record = recorded(module, torch.randn(1, 32, 12, 12))
    before = copy.deepcopy(module.state_dict())
    profile = conv_operator_norm(case, record)
    assert profile is not None
    value, reshaped, _ = profile.rows[0]
    assert reshaped == pytest.approx(1, rel=2e-2)
    assert 1.4 < value < 1.8
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_every_called_convolution_is_there_and_no_other():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(1, 2, 3, padding=1)
            self.unused = nn.Conv1d(2, 2, 3)
            self.second = nn.Conv1d(2, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert [str(site) for site in measured(Model(), 1, 8).sites] == ["first", "second"]


def test_a_map_too_large_to_hold_is_measured_on_a_part():
    profile = measured(nn.Conv2d(1, 2, 3, padding=1), 1, 1024, 768)
    assert "a lower estimate" in profile.labels[0]
    value, _, certificate = profile.rows[0]
    assert 0.9 * certificate < value <= certificate


def test_model_without_convolutions_has_no_profile():
    assert conv_operator_norm(*recorded(nn.Linear(3, 3), torch.randn(2, 3))) is None
