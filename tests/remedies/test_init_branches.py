"""The initialisations of residual branches, against the blocks that they stand for, written out."""

import math

import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import (
    admin,
    deepnorm,
    fixup,
    gpt2_residual_scale,
    layer_scale,
    rezero,
    skip_init,
    t_fixup,
)
from unitygain.remedies._branches import find_branches
from unitygain.remedies.deepnorm import table as deepnorm_table
from unitygain.remedies.fixup import scale as fixup_scale
from unitygain.remedies.t_fixup import table as t_fixup_table


class Block(nn.Module):
    """LN(x + F(x)), x + F(LN(x)) or x + F(x)."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width, eps=0.0) if kind != "plain" else nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "post":
            return self.norm(x + self.branch(x))
        return x + self.branch(self.norm(x))


def stack(kind: str, depth: int = 6, width: int = 8) -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width, kind) for _ in range(depth)), nn.Linear(width, 3)).double()
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(16, width, dtype=torch.float64)])


def summed(case: Case) -> Tensor:
    return case.model(case.batches[0]).detach()


def attend(depth: int, **options: bool) -> Case:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, **options)
    model = nn.Sequential(nn.Embedding(5, 8), nn.TransformerEncoder(layer, depth, enable_nested_tensor=False))
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randint(5, (4, 6))])


class Projected(nn.Module):
    """A projected shortcut, a bias that is added, a product that gates, and two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short, self.gate = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.shift, self.layer_scale = nn.Parameter(torch.zeros(4, 1, 1)), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.long(x) + self.short(x)
        x = x + self.shift
        x = x + torch.sigmoid(self.gate(x)) * x
        x = x + torch.relu(self.norm(self.gate(x)))
        return x + self.layer_scale * self.last(x)


def test_what_counts_as_a_branch():
    case = Case(Projected(), lambda m, x: m(x).square().mean(), [torch.randn(2, 3, 4, 4)])
    found = find_branches(case)
    assert [branch.end for branch in found] == [("norm.weight", "norm.bias"), ("layer_scale",)]
    assert [(branch.bent, branch.normalised) for branch in found] == [(True, True), (False, False)]


def test_branches_of_torchs_encoder_are_found_with_their_maps():
    found = find_branches(attend(2))
    layer = "1.layers.1"
    assert [branch.end[0] for branch in found[2:]] == [
        f"{layer}.self_attn.out_proj.weight",
        f"{layer}.linear2.weight",
    ]
    assert [branch.maps for branch in found] == [2, 2, 2, 2]
    assert all(branch.post for branch in found)
    assert not any(branch.post for branch in find_branches(attend(2, norm_first=True))[:-1])


def test_each_branch_is_divided_by_the_root_of_their_number():
    case = stack("plain", depth=9)
    x = case.batches[0]
    before = case.model[0].branch(x)
    gpt2_residual_scale(case)
    torch.testing.assert_close(case.model[0].branch(x), before / 3, atol=0, rtol=1e-12)


def test_only_the_chosen_branches_change():
    case = stack("plain")
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    skip_init(case, sites=["[23]"])
    changed = {n for n, p in case.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {f"{block}.down.{name}" for block in (2, 3) for name in ("weight", "bias")}


@pytest.mark.parametrize("apply", [skip_init, fixup])
def test_every_block_starts_as_the_identity(apply):
    case = stack("plain")
    apply(case)
    assert torch.equal(summed(case), case.model[-1](case.batches[0]))


def test_a_learned_number_multiplies_each_branch():
    """A naive twin: x + alpha·F(x), and the gradients of alpha and of the weights."""
    case = stack("plain", depth=3)
    twins = [(block.up.weight.detach(), block.down.weight.detach()) for block in case.model[:-1]]
    rezero(case)
    scales = [block.down.parametrizations.weight[0].scale for block in case.model[:-1]]
    assert torch.equal(summed(case), case.model[-1](case.batches[0]))
    with torch.no_grad():
        for index, scale in enumerate(scales):
            scale.fill_(0.5 * (index + 1))
    x, alphas = case.batches[0], [0.5, 1.0, 1.5]
    for (ups, downs), alpha, block in zip(twins, alphas, case.model, strict=False):
        hidden = torch.relu(nn.functional.linear(x, ups, block.up.bias))
        bias = block.down.parametrizations.bias.original
        x = x + alpha * nn.functional.linear(hidden, downs, bias)
    torch.testing.assert_close(summed(case), case.model[-1](x), atol=0, rtol=1e-12)
    case.compute_loss(case.batches[0]).backward()
    assert all(scale.grad is not None and scale.grad.any() for scale in scales)


def test_every_output_has_its_own_scale_and_the_optimizer_holds_it():
    case = attend(2)
    case.optimizer = torch.optim.Adam(case.model.parameters())
    groups = len(case.optimizer.param_groups)
    names = list(case.model.state_dict())
    undo = layer_scale(case)
    scales = [p for n, p in case.model.named_parameters() if n.endswith("weight.0.scale")]
    assert [tuple(scale.shape) for scale in scales] == [(8,)] * 4
    assert all(scale.eq(0.1).all() for scale in scales)
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    assert {id(scale) for scale in scales} <= held
    undo()
    assert list(case.model.state_dict()) == names
    assert len(case.optimizer.param_groups) == groups


def test_fixup_scales_the_inner_maps_by_the_number_of_branches():
    case = stack("plain", depth=16)
    fixup(case, head=True)
    gains = [math.sqrt(8 * block.up.weight.square().mean().item()) for block in case.model[:-1]]
    assert gains == pytest.approx([math.sqrt(2) / 4] * 16)
    assert not summed(case).any()
    assert fixup_scale(50, 2) == pytest.approx(0.14142, abs=5e-6)


def test_deepnorms_table():
    """The numbers of the paper's table for N = 100, and for six layers on each side."""
    assert deepnorm_table(100, 0)["encoder"] == pytest.approx((3.7606, 0.18803), abs=5e-5)
    both = deepnorm_table(6, 6)
    assert both["encoder"] == pytest.approx((1.41794, 0.49699), abs=5e-6)
    assert both["decoder"] == pytest.approx((2.05977, 0.34329), abs=5e-6)


def test_deepnorms_stream_is_folded_into_the_last_map():
    """A naive twin: LN(alpha·x + F(x)) with Xavier's maps at gain beta."""
    case = stack("post")
    deepnorm(case)
    alpha, beta = deepnorm_table(6, 0)["encoder"]
    x = case.batches[0]
    for block in case.model[:-1]:
        ups, downs = block.up.weight, alpha * block.down.weight
        branch = nn.functional.linear(torch.relu(nn.functional.linear(x, ups)), downs)
        x = nn.functional.layer_norm(alpha * x + branch, (8,), eps=0.0)
    torch.testing.assert_close(summed(case), case.model[-1](x), atol=0, rtol=1e-9)
    size = torch.cat([block.up.weight.flatten() for block in case.model[:-1]])
    # 768 numbers of variance beta²·2/(8 + 16).
    assert size.std().item() == pytest.approx(beta * math.sqrt(2 / 24), rel=4 / math.sqrt(2 * 768))


def test_queries_and_keys_are_drawn_at_gain_1():
    case = attend(12)
    deepnorm(case)
    beta = deepnorm_table(12, 0)["encoder"][1]
    packed = torch.stack([layer.self_attn.in_proj_weight for layer in case.model[1].layers]).chunk(3, 1)
    for part, gain in zip(packed, (1.0, 1.0, beta), strict=True):
        assert part.std().item() == pytest.approx(gain * math.sqrt(2 / 16), rel=4 / math.sqrt(2 * 768))


def test_admin_is_its_own_block_written_out():
    """A naive twin: omega·x + F(x) behind the norm, each omega the deviation of the sum before."""
    case = stack("post")
    x, omega = case.batches[0], 1.0
    for block in case.model[:-1]:
        total = omega * x + block.branch(x)
        x, omega = block.norm(total), total.std(correction=0).item()
    expected = case.model[-1](x).detach()
    admin(case)
    torch.testing.assert_close(summed(case), expected, atol=0, rtol=1e-9)


def test_admin_weighs_the_stream_more_and_more():
    case = attend(8)
    before = [layer.linear2.weight.norm().item() for layer in case.model[1].layers]
    admin(case)
    after = [layer.linear2.weight.norm().item() for layer in case.model[1].layers]
    ratios = [b / a for b, a in zip(before, after, strict=True)]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 1.2


def test_t_fixups_table_and_what_is_left():
    assert t_fixup_table(6, 6) == pytest.approx({"encoder": 0.42809, "decoder": 0.36889}, abs=5e-6)
    case = attend(4)
    before = [id(module) for module in case.model.modules()]
    undo = t_fixup(case)
    assert not [module for module in case.model.modules() if isinstance(module, nn.LayerNorm)]
    with torch.no_grad():
        # torch's encoder layer has a faster way when it is not trained, which reads the norms.
        torch.testing.assert_close(summed(case), case.model.eval()(case.batches[0]))
    factor = t_fixup_table(4, 0)["encoder"]
    out = torch.stack([layer.self_attn.out_proj.weight for layer in case.model[1].layers])
    assert out.std().item() == pytest.approx(factor * math.sqrt(2 / 16), rel=4 / math.sqrt(2 * 256))
    undo()
    assert [id(module) for module in case.model.modules()] == before


@pytest.mark.parametrize(
    ("apply", "kind", "message"),
    [
        (fixup, "pre", "has a norm layer; Fixup is for residual networks without"),
        (fixup, "post", "has a norm layer; Fixup is for residual networks without"),
        (deepnorm, "pre", "DeepNorm is for Post-LN blocks"),
        (admin, "plain", "Admin is for Post-LN blocks"),
        (t_fixup, "plain", "no module is a norm layer here"),
        (lambda case: layer_scale(case, start=0.0), "plain", "start is 0.0; give a positive number"),
    ],
)
def test_what_does_not_apply_is_refused(apply, kind, message):
    case = stack(kind)
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        apply(case)
    assert all(torch.equal(p, before[name]) for name, p in case.model.named_parameters())


@pytest.mark.parametrize(
    "apply", [gpt2_residual_scale, skip_init, fixup, rezero, layer_scale, deepnorm, admin, t_fixup]
)
def test_a_model_without_branches_is_refused(apply):
    case = Case(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), lambda m, x: m(x).sum(), [torch.ones(1, 2)])
    with pytest.raises(ValueError, match="no residual branch that ends in a map is found"):
        apply(case)


def test_a_branch_that_ends_in_an_activation_cannot_start_at_zero():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = x + torch.relu(layer(x))
            return x

    case = Case(Net(), lambda m, x: m(x).sum(), [torch.ones(1, 4)])
    for apply in (skip_init, rezero):
        with pytest.raises(ValueError, match="has an activation behind its last map"):
            apply(case)
    gpt2_residual_scale(case)
