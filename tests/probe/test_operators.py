"""Jacobian operators agree with the dense Jacobian everywhere, say what they cannot do, and leave nothing."""

import copy

import numpy as np
import pytest
import torch
from probe.trunks import FAMILIES, Cube, Detached, Once, Trunk, family, naive_jacobians, recorded
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from unitygain._case import Case
from unitygain._diagnose import diagnose
from unitygain.probe.chain import chain_of
from unitygain.probe.golub_kahan import golub_kahan
from unitygain.probe.hutchinson import rms_gain_of
from unitygain.probe.operators import JacobianOperator, NoDoubleBackward
from unitygain.probe.trace import trace
from unitygain.probe.weights import MatrixOperator

# Products of float64 matrices with some hundred terms: 1e-12 is four digits above their rounding.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("name", FAMILIES)
def test_products_equal_those_of_the_dense_jacobian(name):
    case, record = family(name)
    dense = naive_jacobians(case)
    assert len(dense) == 3
    with trace(case, record) as live:
        assert not live.gaps
        for block, expected in zip(live.blocks, dense, strict=True):
            jacobian = block.jacobian()
            v, u = torch.randn(expected.shape[1]).double(), torch.randn(expected.shape[0]).double()
            assert jacobian.double_backward
            torch.testing.assert_close(jacobian.matvec(v), expected @ v, **EXACT)
            torch.testing.assert_close(jacobian.rmatvec(u), expected.T @ u, **EXACT)
            torch.testing.assert_close(jacobian.materialise(), expected, **EXACT)
            torch.testing.assert_close(jacobian.materialise([2, 5]), expected[[2, 5]], **EXACT)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_batch_normalisation_couples_the_batch(name):
    case, record = family(name)
    with trace(case, record) as live:
        assert [block.jacobian().coupled for block in live.blocks] == [name == "batch norm"] * 3


@pytest.mark.parametrize("silent", [(0,), (0, 5), (0, 1, 5)])
def test_samples_that_mix_are_seen_where_the_first_and_the_last_get_no_gradient(silent):
    """All of a batch is centred; behind it, units of some samples are dead."""
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    open_ = torch.ones(6, 1, dtype=torch.float64)
    open_[list(silent)] = 0
    assert JacobianOperator(open_ * (x - x.mean((0, 1), keepdim=True)), x).coupled
    assert JacobianOperator(open_ * (x - x.mean(1, keepdim=True)), x).sample_axis == 0
    assert JacobianOperator(open_ * (x - x.mean(0)), x).sample_axis == 1


def test_sample_axis_of_time_first_attention_is_the_second():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(5)

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = copy.deepcopy(layer)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, src_mask=mask)

    case, record = recorded(Trunk([Causal(), Causal()]), torch.randn(5, 2, 8))
    with trace(case, record) as live:
        assert [block.jacobian().sample_axis for block in live.blocks] == [1, 1]


@pytest.mark.parametrize("rule", [Once, Detached])
def test_missing_double_backward_is_found_by_trying(rule):
    case, record = recorded(Trunk([Cube(rule), Cube(rule)]).double(), torch.randn(2, 9).double())
    with trace(case, record) as live:
        jacobian = live.blocks[0].jacobian()
        assert not jacobian.double_backward
        dense = jacobian.materialise()
        u = torch.randn(18).double()
        torch.testing.assert_close(jacobian.rmatvec(u), dense.T @ u, **EXACT)


def test_product_without_double_backward_says_so():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(NoDoubleBackward, match="J·v cannot be had"):
        JacobianOperator(Once.apply(x), x).matvec(torch.ones(3))


def test_in_place_change_of_what_enters_is_not_taken_for_the_entry():
    torch.manual_seed(0)
    model = Trunk([nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6)) for _ in range(3)]).double()
    case, record = recorded(model, torch.randn(2, 6).double())
    plain = copy.deepcopy(case)
    for block in plain.model.blocks:  # pyright: ignore
        block[0].inplace = False
    with trace(case, record) as live:
        found = [block.jacobian().materialise() for block in live.blocks]
    torch.testing.assert_close(found, naive_jacobians(plain), **EXACT)


def test_every_trace_draws_the_same_masks():
    model = Trunk([nn.Sequential(nn.Linear(9, 9), nn.Dropout(0.5)) for _ in range(2)])
    case, record = recorded(model, torch.randn(4, 9))
    matrices = []
    for _ in range(2):
        torch.rand(3)
        with trace(case, record) as live:
            jacobian = live.blocks[1].jacobian()
            v = torch.ones(36)
            matrices.append((jacobian.materialise(), jacobian.matvec(v)))
    torch.testing.assert_close(matrices[0], matrices[1], rtol=0, atol=0)
    # J·v by double backward sees the mask of the same pass.
    torch.testing.assert_close(matrices[0][1].double(), matrices[0][0].sum(1), rtol=1e-5, atol=1e-6)


def test_trace_leaves_nothing_behind():
    blocks: list[nn.Module] = [
        nn.Sequential(spectral_norm(nn.Linear(7, 7)), nn.BatchNorm1d(7), nn.Dropout(0.1)) for _ in range(3)
    ]
    case, record = recorded(Trunk(blocks), torch.randn(5, 7))
    case.model.zero_grad()
    case.model.add_module("cell", nn.LSTM(2, 2))
    before = copy.deepcopy(case.model.state_dict())
    flags = (torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled)
    attention = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    state = torch.random.get_rng_state()
    with trace(case, record) as live:
        assert not torch.backends.mkldnn.enabled
        assert not torch.backends.cuda.flash_sdp_enabled()
        live.blocks[0].jacobian().matvec(torch.ones(35))
        live.anchor_gradient()
    assert live.blocks == []
    assert live.anchor is None
    torch.testing.assert_close(case.model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in case.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())
    assert flags == (torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled)
    assert attention == (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )
    assert torch.equal(torch.random.get_rng_state(), state)


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)  # pyright: ignore
        return x


def test_a_graph_that_is_not_there_is_a_gap_of_the_report_and_no_failure(monkeypatch):
    monkeypatch.setenv("UNITYGAIN_STRICT", "1")
    case = Case(Checkpointed(reentrant=True), lambda m, x: m(x).square().mean(), [torch.randn(2, 5)])
    gaps = {gap.what: gap.reason for gap in diagnose(case).skipped}
    assert "use_reentrant=False gives it one" in gaps["chain_gain"]
    assert "failed" not in gaps["grad_direction_stability"]


def test_reentrant_checkpointing_is_named():
    case, record = recorded(Checkpointed(reentrant=True), torch.randn(2, 5))
    with trace(case, record) as live, pytest.raises(RuntimeError, match="use_reentrant=False"):
        live.require_blocks()


def test_other_checkpointing_is_differentiated():
    case, record = recorded(Checkpointed(reentrant=False).double(), torch.randn(2, 5).double())
    plain = Trunk([copy.deepcopy(block) for block in case.model.blocks])  # pyright: ignore
    expected = naive_jacobians(recorded(plain, case.batches[0])[0])
    with trace(case, record) as live:
        assert len(live.blocks) == 3
        for block, dense in zip(live.blocks, expected, strict=True):
            jacobian = block.jacobian()
            v = torch.randn(10).double()
            torch.testing.assert_close(jacobian.materialise(), dense, **EXACT)
            torch.testing.assert_close(jacobian.matvec(v), dense @ v, **EXACT)


def test_a_detached_trunk_is_left_out_where_it_is_cut():
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    class Model(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return self.blocks[2](self.blocks[1](self.blocks[0](x)).detach())

    case, record = recorded(Model([Cut(), Cut(), Cut()]), torch.randn(2, 4))
    with trace(case, record) as live:
        assert [str(block.site) for block in live.blocks] == ["blocks.0", "blocks.2"]
        assert "blocks.1" in live.note
        assert "does not depend on it" in live.note


def test_junction_of_a_constant_is_refused():
    with pytest.raises(ValueError, match="requires no gradient"):
        JacobianOperator(torch.ones(2), torch.ones(2, requires_grad=True))
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    with pytest.raises(ValueError, match="complex64"):
        JacobianOperator(z * 2, z)


def test_golub_kahan_finds_repeated_values_when_the_space_is_exhausted():
    turn = torch.linalg.qr(torch.randn(12, 12).double()).Q
    found = golub_kahan(MatrixOperator(0.5 * turn), 5, steps=12)
    np.testing.assert_allclose(found.values, [0.5] * 5, rtol=1e-14)


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (5, 5), (1, 7)])
def test_golub_kahan_of_small_matrices_is_complete(shape):
    matrix = torch.randn(*shape).double()
    found = golub_kahan(MatrixOperator(matrix), 5, steps=100)
    expected = torch.linalg.svdvals(matrix)[:5].numpy()
    np.testing.assert_allclose(found.values, expected, rtol=1e-13)
    assert found.steps <= min(shape)


def test_golub_kahan_of_a_rank_deficient_and_of_a_zero_matrix():
    matrix = torch.outer(torch.randn(9).double(), torch.randn(9).double())
    found = golub_kahan(MatrixOperator(matrix), 3, steps=9)
    assert found.values[0] == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-13)
    assert max(found.values[1:]) <= found.errors[0] * 10
    assert golub_kahan(MatrixOperator(torch.zeros(4, 4)), 2, steps=4).values == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_error_bar_of_golub_kahan_holds_at_every_number_of_steps(dtype):
    matrix = torch.randn(80, 60).to(dtype)
    expected = torch.linalg.svdvals(matrix.double()).numpy()
    for steps in range(5, 60, 6):
        found = golub_kahan(MatrixOperator(matrix), 5, steps=steps, seed=steps)
        for value, error in zip(found.values, found.errors, strict=True):
            # The bound is on exact products; one rounding per product comes on top.
            slack = 10 * torch.finfo(dtype).eps * expected[0]
            assert np.min(np.abs(expected - value)) <= error + slack
        assert found.values[0] <= expected[0] * (1 + 10 * torch.finfo(dtype).eps)


def test_golub_kahan_reports_what_is_not_finite():
    found = golub_kahan(MatrixOperator(torch.full((4, 4), torch.nan)), 2, steps=4)
    assert np.isnan(found.values).all()
    assert np.isnan(found.errors).all()


@pytest.mark.parametrize("scale", [1e-35, 1e30])
def test_golub_kahan_at_the_ends_of_float32(scale):
    matrix = torch.randn(30, 30)
    expected = torch.linalg.svdvals(matrix.double()).numpy()[:3] * scale
    found = golub_kahan(MatrixOperator(matrix * scale), 3, steps=30)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)


def test_rms_gain_of_an_orthogonal_map_is_exact():
    turn = torch.linalg.qr(torch.randn(16, 16).double()).Q
    gain = rms_gain_of(MatrixOperator(3 * turn), 4, seed=0)
    assert gain.value == pytest.approx(3, rel=1e-14)
    assert gain.error <= 0.02 * gain.value


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_error_bar_of_the_rms_gain_covers(spread):
    # Singular values that fall off like k^-spread: many directions carry the gain, or about two.
    values = torch.arange(1, 65).double() ** -spread
    matrix = torch.linalg.qr(torch.randn(64, 64).double()).Q * values
    true = float(values.square().sum() / 64) ** 0.5
    gains = [rms_gain_of(MatrixOperator(matrix), 8, seed) for seed in range(400)]
    off = np.array([abs(gain.value - true) / gain.error for gain in gains])
    # Of 400 draws the share within two standard errors has a standard error of 1 %; the smaller sum of
    # eight skewed squares lies below its mean more often than a Gaussian, hence 85 % and not 95 %.
    assert np.mean(off < 2) >= 0.85
    actual = float(np.std([gain.value for gain in gains]))
    assert 0.7 * actual <= np.median([gain.error for gain in gains]) <= 2 * actual


def test_participation_is_that_of_the_matrix():
    values = torch.tensor([3.0, 2.0, 1.0, 0.5]).double()
    matrix = torch.linalg.qr(torch.randn(40, 40).double()).Q[:, :4] * values
    true = float(values.square().sum() ** 2 / (values**4).sum())
    found = np.mean([rms_gain_of(MatrixOperator(matrix), 64, seed).participation for seed in range(8)])
    # 8·64·63/2 pairs with a relative standard deviation of about 3 each: 2.4 %, taken four times.
    assert found == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_chain_leaves_no_range_however_deep(gain):
    width, depth = 6, 40
    blocks = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    for block in blocks:
        block.weight.data = gain * torch.linalg.qr(torch.randn(width, width)).Q
    case, record = recorded(Trunk(list(blocks)), torch.zeros(2, width))
    with trace(case, record) as live:
        chain = chain_of(live.blocks, seed=0)
        assert len(chain.factors) == depth
        typical = rms_gain_of(chain.operator, 4, seed=1)
        # 40 factors, each orthogonal to some eps of float32.
        assert chain.log10_scale + np.log10(typical.value) == pytest.approx(depth * np.log10(gain), abs=1e-4)


def test_a_path_around_the_blocks_is_seen():
    class Around(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            first = self.blocks[0](x)
            return self.blocks[2](self.blocks[1](first) + x)

    torch.manual_seed(1)
    case, record = recorded(
        Around([nn.Sequential(nn.Linear(5, 5)) for _ in range(3)]).double(), torch.randn(2, 5).double()
    )
    with trace(case, record) as live:
        chain = chain_of(live.blocks, seed=0)
        assert chain.factors == ()
        assert "around the blocks" in chain.note
        expected = torch.func.jacrev(case.model)(case.batches[0]).reshape(10, 10)
        u = torch.randn(10).double()
        torch.testing.assert_close(chain.operator.rmatvec(u), expected.T @ u, **EXACT)
