"""Post-LN turned into Pre-LN is the model that was written as Pre-LN, number for number."""

import copy
import pickle

import pytest
import torch
from remedies import post_norm_blocks as written
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import pre_norm

X, UP = torch.randn(2, 2, 5, written.WIDTH, generator=torch.Generator().manual_seed(0)).double()
SHAPES = (written.TwoLines, written.Inline, written.Wrapped, written.Decoder)


def square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean() + model(batch).sum()


def pair(make, *arguments) -> tuple[Case, nn.Module]:
    """The Post-LN model as a case, and the Pre-LN one with the same weights; scales and shifts are drawn."""
    torch.manual_seed(1)
    post, twin = make(*arguments, False).double(), make(*arguments, True).double()
    for parameter in post.parameters():
        nn.init.normal_(parameter, std=0.4)
    twin.load_state_dict(post.state_dict(), strict=False)
    return Case(post, square, [X]), twin


def run(model: nn.Module, batch: Tensor = X) -> tuple[Tensor, Tensor]:
    """The output, and the gradient by the input, under one seed."""
    torch.manual_seed(2)
    batch = batch.clone().requires_grad_()
    out = model(batch)
    (gradient,) = torch.autograd.grad(out, batch, UP)
    return out.detach(), gradient


@pytest.mark.parametrize("block", SHAPES)
@pytest.mark.parametrize("train", [True, False])
def test_hand_written_blocks_become_their_twin(block, train):
    case, twin = pair(written.Stack, block)
    case.model.train(train)
    before = run(case.model)
    undo = pre_norm(case)
    (value, gradient), (expected, slope) = run(case.model), run(twin.train(train))
    if block is not written.Inline:
        assert torch.equal(value, expected)
    # Separate maps have a norm each, of a transposed stream as well, and sums have another order.
    torch.testing.assert_close(value, expected, atol=0, rtol=1e-9)
    torch.testing.assert_close(gradient, slope, atol=0, rtol=1e-9)
    undo()
    assert all(map(torch.equal, run(case.model), before))


def test_blocks_without_modules_and_with_a_last_norm_become_their_twin():
    case, twin = pair(written.Root)
    count = len(list(case.model.parameters()))
    pre_norm(case)
    assert all(map(torch.equal, run(case.model), run(twin)))
    assert len(list(case.model.parameters())) == count, "the stream had its last norm"


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("norm", [None, nn.LayerNorm(16)])
def test_torch_encoder_is_torch_with_the_norm_first(norm, train):
    def make(first: bool) -> nn.Module:
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True, norm_first=first)
        end = copy.deepcopy(norm) or (nn.LayerNorm(16) if first else None)
        return nn.TransformerEncoder(layer, 3, end, enable_nested_tensor=False)

    case, twin = pair(make)
    case.model.train(train)
    keys = set(case.model.state_dict())
    undo = pre_norm(case)
    assert all(map(torch.equal, run(case.model), run(twin.train(train))))
    with torch.no_grad():
        torch.manual_seed(0)
        fast = case.model(X)
        torch.manual_seed(0)
        torch.testing.assert_close(fast, twin(X), atol=0, rtol=1e-9)
    undo()
    assert set(case.model.state_dict()) == keys
    assert case.model.norm is None or norm is not None


def test_torch_decoder_and_bare_layers():
    class Bare(nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            kind = nn.TransformerDecoderLayer
            self.layers = nn.ModuleList(kind(16, 2, 32, 0.0, norm_first=first) for _ in range(2))
            self.end = nn.LayerNorm(16) if first else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x, X)
            return self.end(x)

    case, twin = pair(Bare)
    pre_norm(case)
    assert all(map(torch.equal, run(case.model), run(twin)))


def test_encoder_and_decoder_of_torch_keep_their_last_norms():
    def make(first: bool) -> nn.Module:
        model = nn.Transformer(16, 2, 2, 2, 32, 0.0, batch_first=True)
        for layer in (*model.encoder.layers, *model.decoder.layers) if first else ():
            layer.norm_first = True
        return model

    torch.manual_seed(0)
    post, twin = make(False).double(), make(True).double()
    twin.load_state_dict(post.state_dict())
    case = Case(post, lambda m, x: m(x, x).sum(), [X])
    pre_norm(case)
    assert torch.equal(post(X, X), twin(X, X))
    assert len(post.state_dict()) == len(twin.state_dict())


@pytest.mark.parametrize("block", SHAPES)
def test_a_copy_and_a_pickle_of_the_turned_model_compute_the_same(block):
    case, _ = pair(written.Stack, block)
    undo = pre_norm(case)
    turned = run(case.model)
    twins = [case.copy().model, pickle.loads(pickle.dumps(case.model))]
    for twin in twins:
        assert all(map(torch.equal, run(twin), turned))
    undo()
    for twin in twins:
        with torch.no_grad():
            next(case.model.parameters()).add_(1.0)
        assert all(map(torch.equal, run(twin), turned)), "the copy looks at the original's norms"


def test_undo_leaves_no_hook_and_the_optimizer_as_it_was():
    case, _ = pair(written.Stack, written.TwoLines)
    decay = {"params": list(case.model.parameters())[4:], "weight_decay": 0.5}
    case.optimizer = torch.optim.AdamW([{"params": list(case.model.parameters())[:4]}, decay], lr=0.3)
    square(case.model, X).backward()
    case.optimizer.step()
    before = copy.deepcopy(case.optimizer.state_dict())
    undo = pre_norm(case)
    assert case.optimizer.param_groups[-1]["weight_decay"] == 0.5, "of the norms' own group"
    undo()
    after = case.optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert {i: s["exp_avg"].tolist() for i, s in after["state"].items()} == {
        i: s["exp_avg"].tolist() for i, s in before["state"].items()
    }
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())


def test_the_new_norm_trains():
    case, _ = pair(written.Stack, written.TwoLines)
    case.optimizer = torch.optim.SGD(case.model.parameters(), lr=0.1)
    undo = pre_norm(case)
    new = case.optimizer.param_groups[-1]["params"]
    square(case.model, X).backward()
    case.optimizer.step()
    assert all(bool((p != d).any()) for p, d in zip(new, (1.0, 0.0), strict=True))
    undo()
    assert len(case.optimizer.param_groups) == 1
    assert not any(parameter in case.optimizer.state for parameter in new)


class Refusing(nn.Module):
    """One block that cannot be turned, by the name of what it does."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.map, self.extra = nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm, self.other = nn.LayerNorm(16), nn.LayerNorm(16)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        match self.what:
            case "function":
                return self.norm(x + torch.tanh(x) + self.map(x))
            case "shared":
                return self.norm(self.norm(x + self.map(x)) + self.map(x))
            case "sandwich":
                return self.norm(x + self.map(self.other(x)))
            case "two":
                y = torch.sin(x)
                return self.norm(x + y + self.map(x) + self.extra(y))
            case "pre":
                return x + self.map(self.norm(x))
            case "branch":
                return x + self.norm(self.map(x))
            case "place":
                y = x.clone()
                y += self.map(x)
                return self.norm(y)
        return nn.functional.layer_norm(x + self.map(x), (16,))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("function", "the operation tanh in 0 reads the stream of 0.norm directly"),
        ("shared", "runs 2 times per pass; layers that share weights are not rewired"),
        ("sandwich", "0.other normalises the stream of 0.norm already"),
        ("two", "the operation sin in 0 reads the stream of 0.norm directly"),
        ("pre", "no chosen module normalises the sum of a stream and a branch"),
        ("branch", "no chosen module normalises the sum of a stream and a branch"),
        ("place", "no chosen module normalises the sum of a stream and a branch"),
        ("functional norm", "the norm must be a module"),
    ],
)
def test_what_cannot_be_turned_is_refused_and_left(what, message):
    case = Case(nn.Sequential(Refusing(what)).double(), square, [X])
    modules = [id(module) for module in case.model.modules()]
    with pytest.raises(ValueError, match=message):
        pre_norm(case)
    assert [id(module) for module in case.model.modules()] == modules
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())


def test_the_check_finds_a_reader_that_changes_with_the_number_of_calls():
    """A branch that is not a function of what it reads is seen by the comparison, not by the wiring."""

    class Moody(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) * self.calls

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.norm = Moody(16, 16), nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x + self.map(x))

    case = Case(nn.Sequential(Block()).double(), square, [X])
    with pytest.raises(ValueError, match=r"the branch of 0\.norm could not be told from the stream: its sum"):
        pre_norm(case)


def test_hugging_face_bert_passes_the_stream_on():
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = transformers.BertConfig(**size, intermediate_size=64, max_position_embeddings=64)
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config).eval()
    tokens = torch.randint(50, (2, 7))
    case = Case(model, lambda m, b: m(input_ids=b, labels=b).loss, [tokens])
    before = model(tokens).logits
    undo = pre_norm(case)
    closed = model.bert.encoder.layer[-1]
    layers = [*model.bert.encoder.layer[:-1], closed.block]
    x = model.bert.embeddings(tokens)
    for layer in layers:
        inside, attend = layer.attention.self, layer.attention.output
        x = x + attend.dense(attended(inside, attend.LayerNorm.held(x)))
        hidden = nn.functional.gelu(layer.intermediate.dense(layer.output.LayerNorm.held(x)))
        x = x + layer.output.dense(hidden)
    # The same products in another order: float32 to a few roundings of each layer.
    torch.testing.assert_close(model(tokens).logits, model.cls(closed.held(x)), atol=1e-5, rtol=1e-4)
    undo()
    assert torch.equal(model(tokens).logits, before)


def attended(attention: nn.Module, x: Tensor) -> Tensor:
    """Attention of 4 heads of 8 numbers, from the maps of a module that has them."""
    q, k, v = (
        part(x).unflatten(-1, (4, 8)).transpose(1, 2)
        for part in (attention.query, attention.key, attention.value)
    )
    return (torch.softmax(q @ k.mT / 8**0.5, -1) @ v).transpose(1, 2).flatten(-2)
