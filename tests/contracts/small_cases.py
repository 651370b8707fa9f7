"""One small healthy case per kind of model, and one that makes a NaN, for the contracts of measures."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo.reversals import Turn

from unitygain._case import Case

BATCH = 6


def _case(model: nn.Module, inputs: Tensor, classes: int = 5) -> Case:
    labels = torch.arange(len(inputs)) % classes

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return Case(
        model,
        loss=loss,
        data=[(inputs, labels)],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3),
    )


def mlp() -> Case:
    """Linear layers with ReLU, a sigmoid and a tanh."""
    hidden = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(
        nn.Linear(8, 16), nn.Tanh(), *hidden, nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 5)
    )
    return _case(model, torch.randn(BATCH, 8))


def cnn() -> Case:
    """Convolutions with batch normalisation, zero padding and one circular padding."""
    blocks = [
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        for _ in range(3)
    ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), *blocks, *head)
    return _case(model, torch.randn(BATCH, 1, 8, 8))


class Recurrent(nn.Module):
    """A recurrent layer whose last step is classified."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(4, 12, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def rnn() -> Case:
    """A plain recurrent layer."""
    return _case(Recurrent(nn.RNN), torch.randn(BATCH, 7, 4))


def lstm() -> Case:
    """A gated recurrent layer."""
    return _case(Recurrent(nn.LSTM), torch.randn(BATCH, 7, 4))


class Attention(nn.Module):
    """Pre-norm transformer blocks over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def attention() -> Case:
    """A small transformer with dropout."""
    return _case(Attention(), torch.randint(11, (BATCH, 5)))


class Residual(nn.Module):
    """A stack in which every block adds to its input, and one layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(16, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16)) for _ in range(4)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(x))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def residual() -> Case:
    """A residual stack with a layer that is called twice."""
    return _case(Residual(), torch.randn(BATCH, 16))


class Coupling(nn.Module):
    """Shifts one half by what a net makes of the other, which can be undone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, -1)
        return torch.cat([moved + self.net(kept), kept], -1)


def flow() -> Case:
    """Couplings, and a head that reads what they make."""
    return _case(nn.Sequential(Coupling(), Coupling(), Coupling(), nn.Linear(8, 5)), torch.randn(BATCH, 8))


def game() -> Case:
    """A generator whose samples a discriminator judges, with the loss that does not saturate."""
    model = nn.ModuleDict({
        "generator": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        "discriminator": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)),
    })

    def loss(model: nn.Module, noise: Tensor) -> Tensor:
        parts = dict(model.named_children())
        return F.softplus(-parts["discriminator"](parts["generator"](noise))).mean()

    return Case(model, loss=loss, data=[torch.randn(BATCH, 4)])


class Denoiser(nn.Module):
    """Predicts the noise in what it is given from that and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.outside(F.silu(self.inside(torch.cat([x, t[:, None]], 1))))


def denoiser() -> Case:
    """A diffusion model that predicts the noise."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        data, t, noise = batch
        angle = 1.5 * t[:, None]
        return (model(angle.cos() * data + angle.sin() * noise, t) - noise).square().mean()

    data = [(torch.randn(16, 4), torch.rand(16), torch.randn(16, 4))]
    return Case(Denoiser(), loss=loss, data=data)


class Root(nn.Module):
    """The square root, which has no real value below zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Circuit(nn.Module):
    """Three qubits under rotations about Y and controlled-Z gates, in real amplitudes."""

    def __init__(self) -> None:
        super().__init__()
        self.angles, self.n_qubits = nn.Parameter(torch.randn(3, 3)), 3

    def forward(self, x: Tensor) -> Tensor:
        state = torch.eye(8)[0].view(2, 2, 2)
        sign = torch.tensor([1.0, 1, 1, -1, 1, 1, -1, 1]).view(2, 2, 2)
        cosines, sines = (self.angles / 2).cos(), (self.angles / 2).sin()
        for layer in zip(cosines, sines, strict=True):
            for qubit, (c, s) in enumerate(zip(*layer, strict=True)):
                low, high = state.unbind(qubit)
                state = torch.stack([c * low - s * high, s * low + c * high], qubit)
            state = state * sign
        return 2 * x * (state[0] * state[1]).sum()


def circuit() -> Case:
    """The minimisation of an expectation."""
    return Case(Circuit(), loss=lambda model, x: model(x).sum(), data=[torch.ones(1)])


def broken() -> Case:
    """A model that makes a NaN."""
    return _case(nn.Sequential(nn.Linear(8, 8), Root(), nn.Linear(8, 5)), torch.randn(BATCH, 8))


def narrow() -> Case:
    """A perceptron that runs in float16."""
    case = mlp()
    case.precision = "float16"
    return case


class Looks(nn.Module):
    """Attention written by hand, from maps that are modules."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).mT / 8**0.5, -1)
        return self.head((weights @ x).mean(1))


def looks() -> Case:
    """A layer of attention by hand."""
    return _case(Looks(), torch.randn(BATCH, 4, 8))


class Unlisted(nn.Module):
    """A perceptron with a layer in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = [nn.Linear(8, 8)], nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[0](x).tanh())


def unlisted() -> Case:
    """A model that does not know of one of its layers."""
    return _case(Unlisted(), torch.randn(BATCH, 8))


def frozen() -> Case:
    """A head on a layer that is frozen."""
    return _case(nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 5)), torch.randn(BATCH, 8))


def zeroed() -> Case:
    """A head of zeros, behind which no gradient gets in the first step."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
    for parameter in model[2].parameters():
        nn.init.zeros_(parameter)
    return _case(model, torch.randn(BATCH, 8))


class Stepped(nn.Module):
    """A cell that the model calls itself, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


def stepped() -> Case:
    """A loop over a cell."""
    return _case(Stepped(), torch.randn(BATCH, 6, 4))


def resting() -> Case:
    """A norm in eval mode on statistics that no batch has set."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    return _case(model.eval(), torch.randn(BATCH, 4))


class Routed(nn.Module):
    """Experts whose outputs a softmax over a router's logits weighs."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        said = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.router(x).softmax(-1)[..., None] * said).sum(1)


def routed() -> Case:
    """A router over experts."""
    return _case(Routed(), torch.randn(BATCH, 8))


class Padded(nn.Module):
    """A mean of the words of padded texts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 16, padding_idx=0), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        keep = (x != 0)[..., None].float()
        return self.head((self.embed(x) * keep).sum(1) / keep.sum(1))


def padded() -> Case:
    """Texts of different length."""
    text = torch.randint(1, 11, (BATCH, 7))
    return _case(Padded(), text.masked_fill(torch.arange(7) > 1 + torch.arange(BATCH)[:, None], 0))


def turned() -> Case:
    """A perceptron whose gradient is turned round in front of its head."""
    return _case(nn.Sequential(nn.Linear(8, 8), Turn(1.0, -1.0), nn.Linear(8, 5)), torch.randn(BATCH, 8))


def later() -> Case:
    """The length of an output, which is zero in the second batch alone."""
    return Case(
        nn.Linear(4, 1, bias=False),
        lambda m, x: m(x).square().sum().sqrt(),
        [torch.randn(BATCH, 4), torch.zeros(BATCH, 4)],
    )


HEALTHY: dict[str, Callable[[], Case]] = {
    make.__name__: make for make in (mlp, cnn, rnn, lstm, attention, residual, flow, game, denoiser)
}
APART = (
    *(broken, narrow, zeroed, unlisted, frozen, circuit, looks, stepped, resting, routed, padded, turned),
    later,
)
EVERY: dict[str, Callable[[], Case]] = HEALTHY | {make.__name__: make for make in APART}
