"""The initialisations that measure: unit variance, unit gain, and the shares of the classes."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import log_prior_head_bias, lsuv, unit_jacobian_init


def seen(case: Case) -> dict[str, Tensor]:
    """Return the output of every module on the first batch."""
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, out, name=name: outputs.update({name: out[0] if isinstance(out, tuple) else out})
        )
        for name, module in case.model.named_modules()
    ]
    case.compute_loss(case.batches[0])
    for handle in handles:
        handle.remove()
    return {name: out.detach().double() for name, out in outputs.items()}


def encoder() -> Case:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(4, 6, 8)])


def convolutional() -> Case:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 6), (6, 6), (6, 12), (12, 12)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.SiLU()]
    model = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 5))
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(8, 3, 8, 8) + 2.0])


def test_every_layer_has_unit_variance_after_one_pass():
    case = convolutional()
    calls: Counter[str] = Counter()
    loss = case.loss

    def counted(model: nn.Module, batch: Tensor) -> Tensor:
        calls["forward"] += 1
        return loss(model, batch)

    case.loss = counted
    lsuv(case)
    assert calls["forward"] == 1
    for name, output in seen(case).items():
        if isinstance(case.model.get_submodule(name), (nn.Conv2d, nn.Linear)):
            assert output.var(correction=0).item() == pytest.approx(1.0, rel=1e-4), name


def test_attention_has_unit_variance_by_its_output_map():
    case = encoder()
    lsuv(case)
    outputs = seen(case)
    for name in ("layers.0.self_attn", "layers.2.self_attn", "layers.1.linear1", "layers.2.linear2"):
        assert outputs[name].var(correction=0).item() == pytest.approx(1.0, rel=1e-4)
    packed = case.model.layers[1].self_attn.in_proj_weight[:8]
    torch.testing.assert_close(packed @ packed.T, torch.eye(8), atol=1e-5, rtol=0)


def test_a_deep_network_of_tiny_weights_comes_back():
    """Thirty layers of standard deviation 0.01: the signal is 1e-34 of what it should be."""
    torch.manual_seed(0)
    model = nn.Sequential(*(part for _ in range(30) for part in (nn.Linear(32, 32), nn.Tanh())))
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=0.01)
    case = Case(model, lambda m, x: m(x).square().mean(), [torch.randn(64, 32)])
    lsuv(case)
    outputs = seen(case)
    assert [outputs[f"{i}"].std(correction=0).item() for i in range(0, 60, 2)] == pytest.approx(
        [1.0] * 30, rel=1e-4
    )


def test_a_shared_layer_is_scaled_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.layer(x)))

    case = Case(Twice(), lambda m, x: m(x).square().mean(), [5 * torch.randn(64, 6)])
    lsuv(case)
    assert case.model.layer(case.batches[0]).std(correction=0).item() == pytest.approx(1.0, rel=1e-5)


def gains(blocks: list[nn.Module], x: Tensor) -> list[float]:
    """A naive twin: the rms gain ‖J‖_F/sqrt(rows) of every block, from its whole Jacobian."""
    found = []
    for block in blocks:
        jacobian = torch.func.jacrev(block)(x)
        y = block(x).detach()
        found.append((jacobian.square().sum() / y.numel()).sqrt().item())
        x = y
    return found


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.SiLU])
def test_plain_blocks_have_unit_gain(activation):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(24, 24), activation()) for _ in range(6)]
    case = Case(nn.Sequential(*blocks), lambda m, x: m(x).square().mean(), [torch.randn(4, 24)])
    unit_jacobian_init(case, probes=64)
    # 64 probes of 96 numbers: the gain is known to about 2 %, and 2 % are left by the last round.
    assert gains(blocks, case.batches[0]) == pytest.approx([1.0] * 6, abs=0.08)


def test_residual_blocks_share_out_what_depth_allows():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    blocks = [Block() for _ in range(6)]
    for block in blocks:
        nn.init.normal_(block.down.weight, std=0.6)
    case = Case(nn.Sequential(*blocks), lambda m, x: m(x).square().mean(), [torch.randn(4, 16)])
    before = blocks[0].up.weight.detach().clone()
    unit_jacobian_init(case, probes=64)
    assert gains(blocks, case.batches[0]) == pytest.approx([math.sqrt(1 + 1 / 6)] * 6, abs=0.08)
    assert torch.equal(blocks[0].up.weight, before)


def test_blocks_whose_norm_takes_the_scale_away_are_refused():
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Sigmoid()) for _ in range(4)]
    case = Case(nn.Sequential(*blocks), lambda m, x: m(x).square().mean(), [torch.randn(4, 16)])
    before = blocks[0][0].weight.detach().clone()
    with pytest.raises(ValueError, match="no scale of its weights gives it"):
        unit_jacobian_init(case, rounds=3)
    assert torch.equal(blocks[0][0].weight, before)


def test_the_head_starts_at_the_entropy_of_the_labels():
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    data = [(torch.randn(100, 4), labels)]
    case = Case(model, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), data)
    log_prior_head_bias(case)
    shares = torch.tensor([91, 10, 2], dtype=torch.float64) / 103
    torch.testing.assert_close(model.bias.double().softmax(0), shares, atol=0, rtol=1e-6)
    entropy = -(torch.tensor([0.9, 0.09, 0.01]) * shares.log()).sum().item()
    assert case.compute_loss(case.batches[0]).item() == pytest.approx(entropy, rel=1e-5)


def test_all_batches_and_places_count_and_ignored_labels_do_not():
    """Per-pixel labels, of which -100 is ignored, over two batches."""
    first, second = torch.zeros(1, 2, 2, dtype=torch.long), torch.ones(1, 2, 2, dtype=torch.long)
    second[0, 0] = -100
    model = nn.Conv2d(3, 2, 1)
    data = [(torch.randn(1, 3, 2, 2), first), (torch.randn(1, 3, 2, 2), second)]
    log_prior_head_bias(Case(model, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), data))
    torch.testing.assert_close(model.bias.softmax(0), torch.tensor([5 / 8, 3 / 8]))


def test_binary_losses_get_the_log_of_the_odds():
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    model = nn.Linear(4, 2)
    case = Case(
        model,
        lambda m, b: nn.functional.binary_cross_entropy_with_logits(m(b[0]), b[1]),
        [(torch.randn(3, 4), targets)],
    )
    log_prior_head_bias(case)
    torch.testing.assert_close(model.bias.detach(), torch.tensor([3 / 2, 1 / 4]).log())


@pytest.mark.parametrize(
    ("apply", "given", "message"),
    [
        (lsuv, {"sites": "nowhere"}, "no trainable weight of a linear map is chosen by"),
        (unit_jacobian_init, {"rounds": 0}, "rounds is 0 and probes 8; give 1 or more"),
        (unit_jacobian_init, {"sites": "nowhere"}, "no repeated block with weights of its own"),
        (log_prior_head_bias, {}, "no cross-entropy with labels of 4 classes is seen in the loss"),
        (log_prior_head_bias, {"site": "0"}, "the output layer at 0 has no bias to set"),
    ],
)
def test_what_cannot_be_done_says_so(apply, given, message):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4))
    case = Case(model, lambda m, x: m(x).square().mean(), [torch.randn(3, 4)])
    with pytest.raises(ValueError, match=message):
        apply(case, **given)
