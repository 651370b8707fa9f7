"""Faults of gradient and signal that well-known papers describe, and sound programs after other papers."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

DRAWN = (
    "rescale_weights",
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
)


def quarters(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the rows in four batches."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def clusters(rows: int, size: int, classes: int, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Return standardised points around one centre per class, and the class."""
    y = torch.arange(rows) % classes
    x = torch.randn(classes, size)[y] + spread * torch.randn(rows, size)
    return (x - x.mean(0)) / x.std(0), y


def gratings(rows: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return pictures of stripes of one direction per class, standardised, and the class."""
    y = torch.arange(rows) % classes
    angle = math.pi * y / classes
    line = torch.linspace(-1, 1, size)
    along = angle.cos()[:, None, None] * line[None, :, None] + angle.sin()[:, None, None] * line
    x = torch.sin(4 * along + 0.6 * torch.randn(rows, 1, 1)) + 0.3 * torch.randn(rows, size, size)
    return ((x - x.mean()) / x.std())[:, None], y


def classify(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the model's logits."""
    return F.cross_entropy(model(batch[0]), batch[1])


def regress(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def momentum(lr: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD with momentum."""
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9)


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda p: torch.optim.Adam(p, lr=lr, **more)


# --- sick ---------------------------------------------------------------------------------------------------


class TanhNet(nn.Module):
    """Bare matrices with tanh between them, drawn from U(-bound, bound)."""

    def __init__(self, sizes: list[int], bound: Callable[[int, int], float]) -> None:
        super().__init__()
        self.ws = nn.ParameterList()
        self.bs = nn.ParameterList()
        for n, m in itertools.pairwise(sizes):
            self.ws.append(nn.Parameter(torch.empty(n, m).uniform_(-bound(n, m), bound(n, m))))
            self.bs.append(nn.Parameter(torch.zeros(m)))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.ws) - 1
        for k, (w, b) in enumerate(zip(self.ws, self.bs, strict=True)):
            x = x @ w + b
            if k < last:
                x = torch.tanh(x)
        return x


def glorot(dice: Dice, sick: bool) -> Case:
    """Deep tanh net with the old heuristic U(-1/sqrt(n), 1/sqrt(n)), which loses 0.58x a layer."""
    depth, width, classes = dice.whole(14, 18), dice.one_of(48, 64), dice.whole(3, 6)
    size, rate = dice.whole(10, 20), dice.between(0.02, 0.04)

    def bound(n: int, m: int) -> float:
        return 1 / math.sqrt(n) if sick else math.sqrt(6 / (n + m))

    sizes = [size, *[width] * depth, classes]
    return Case(
        lambda: TanhNet(sizes, bound), classify, quarters(*clusters(256, size, classes)), momentum(rate)
    )


def he(dice: Dice, sick: bool) -> Case:
    """Plain ReLU convolutions, as many as in VGG, under Xavier's initialisation."""
    depth, planes, classes = dice.whole(15, 18), dice.one_of(12, 16), dice.whole(3, 4)
    rate, x_y = dice.between(0.003, 0.006), gratings(160, 8, classes)

    def net() -> nn.Module:
        layers: list[nn.Module] = []
        channels = 1
        for k in range(depth):
            conv = nn.Conv2d(channels, planes, 3, stride=2 if k == 2 else 1, padding=1)
            if sick:
                nn.init.xavier_normal_(conv.weight)
            else:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.ReLU(inplace=True)]
            channels = planes
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(planes * 16, classes))

    return Case(net, classify, quarters(*x_y), momentum(rate))


def at_most_one(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Mean squared error, no more than that of telling zero."""
    return min(1.0, float(regress(model, batch)))


def saxe(dice: Dice, sick: bool) -> Case:
    """Very deep linear net of scaled Gaussian matrices, whose product has one large singular value."""
    depth, width = dice.whole(30, 40), dice.whole(16, 24)
    rate = dice.between(0.02, 0.04)

    def net() -> nn.Module:
        layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
        for layer in layers:
            if sick:
                nn.init.normal_(layer.weight, std=width**-0.5)
            else:
                nn.init.orthogonal_(layer.weight)
        return nn.Sequential(*layers)

    x = torch.randn(256, width)
    turn = torch.linalg.qr(torch.randn(width, width))[0]
    return Case(net, regress, quarters(x, x @ turn), lambda p: torch.optim.SGD(p, lr=rate))


class Adder(nn.Module):
    """A ReLU recurrent net that tells one number of a sequence."""

    def __init__(self, width: int, recurrent: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, width, nonlinearity="relu", batch_first=True)
        self.read = nn.Linear(width, 1)
        recurrent(self.rnn.weight_hh_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)
        nn.init.zeros_(self.rnn.bias_ih_l0)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.rnn(x)[1][0]).squeeze(-1)


def additions(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Return sequences of numbers beside noise, and the standardised sum of the numbers."""
    x = torch.rand(rows, length, 2) - 0.5
    y = x[..., 0].sum(1)
    return x, y / y.std()


def pascanu(dice: Dice, sick: bool) -> Case:
    """Recurrent net whose transition matrix has a spectral radius well above one, without clipping."""
    width, length = dice.one_of(32, 48), dice.whole(24, 32)
    gain, rate = dice.between(1.5, 1.8), dice.power(-2.6, -2.3)

    def recurrent(w: Tensor) -> Any:
        if sick:
            return nn.init.normal_(w, std=gain * math.sqrt(2 / width))
        return nn.init.eye_(w)

    return Case(lambda: Adder(width, recurrent), regress, quarters(*additions(256, length)), adam(rate))


class Recaller(nn.Module):
    """An LSTM that tells at the end of a sequence what it began with."""

    def __init__(self, size: int, width: int, classes: int, longest: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, width, batch_first=True)
        self.head = nn.Linear(width, classes)
        with torch.no_grad():
            for name, p in self.lstm.named_parameters():
                if name.startswith("bias"):
                    p.zero_()
            if longest:
                wait = torch.log(1 + (longest - 2) * torch.rand(width))
                self.lstm.bias_ih_l0[:width] = -wait
                self.lstm.bias_ih_l0[width : 2 * width] = wait

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def chrono(dice: Dice, sick: bool) -> Case:
    """LSTM whose forget bias starts at zero, so that it forgets half a step, on a dependency of 50 steps."""
    length, width, classes = dice.whole(45, 55), dice.one_of(32, 40), dice.whole(3, 4)
    rate = dice.power(-2.3, -2.1)
    y = torch.randint(classes, (160,))
    x = torch.zeros(160, length, classes + 1)
    x[:, :, -1] = torch.randn(160, length)
    x[torch.arange(160), 0, y] = 2.0
    return Case(
        lambda: Recaller(classes + 1, width, classes, 0 if sick else length),
        classify,
        quarters(x, y),
        adam(rate),
    )


class BareBlock(nn.Module):
    """Two convolutions beside a skip, without a norm."""

    def __init__(self, planes: int, blocks: int, *, scaled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
        if scaled:
            self.conv1.weight.data.mul_(blocks**-0.5)
            nn.init.zeros_(self.conv2.weight)
        self.shift = nn.Parameter(torch.zeros(3))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(x + self.shift[0]) + self.shift[1])
        return x + self.scale * self.conv2(h) + self.shift[2]


def fixup(dice: Dice, sick: bool) -> Case:
    """Residual net with its batch norms taken out and every branch at He's full scale."""
    blocks, planes, classes = dice.whole(16, 22), dice.one_of(8, 12), dice.whole(3, 4)
    rate = dice.between(0.01, 0.02)

    def net() -> nn.Module:
        stem = nn.Conv2d(1, planes, 3, stride=2, padding=1)
        nn.init.kaiming_normal_(stem.weight)
        trunk = [BareBlock(planes, blocks, scaled=not sick) for _ in range(blocks)]
        return nn.Sequential(stem, *trunk, nn.ReLU(), nn.Flatten(), nn.Linear(planes * 16, classes))

    return Case(net, classify, quarters(*gratings(160, 8, classes)), momentum(rate))


class Normalised(nn.Module):
    """Linear layers with batch norm and ReLU, in a chain or beside skips."""

    def __init__(self, size: int, width: int, depth: int, classes: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.stem = nn.Linear(size, width)
        self.linears = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.final = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, classes)
        for linear in self.linears:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            new = norm(linear(h)).relu()
            h = h + new if self.skip else new
        return self.head(self.final(h))


def bn_chain(dice: Dice, sick: bool) -> Case:
    """Fifty layers of Linear, BatchNorm and ReLU in a chain, whose gradient grows with every layer."""
    depth, width, classes = dice.whole(45, 60), dice.one_of(32, 48), dice.whole(3, 5)
    size, rate = dice.whole(8, 12), dice.between(0.01, 0.03)
    return Case(
        lambda: Normalised(size, width, depth, classes, skip=not sick),
        classify,
        quarters(*clusters(192, size, classes)),
        momentum(rate),
    )


class Reader(nn.Module):
    """A Transformer encoder over tokens, read at their mean."""

    def __init__(self, words: int, length: int, width: int, layers: int, *, first: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
        norm = nn.LayerNorm(width) if first else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        for p in self.encoder.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.head = nn.Linear(width, words)

    def forward(self, t: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(t) + self.places).mean(1))


def most_frequent(rows: int, words: int, length: int) -> tuple[Tensor, Tensor]:
    """Return token sequences in which one word is frequent, and that word."""
    y = torch.randint(words, (rows,))
    t = torch.randint(words, (rows, length))
    return torch.where(torch.rand(rows, length) < 0.4, y[:, None], t), y


def post_ln(dice: Dice, sick: bool) -> Case:
    """Deep Transformer with the norm after the sum, at full learning rate from the first step."""
    layers, width, words = dice.whole(12, 14), 32, dice.whole(5, 7)
    length, rate = dice.whole(8, 10), dice.between(0.008, 0.011)
    return Case(
        lambda: Reader(words, length, width, layers, first=not sick),
        classify,
        quarters(*most_frequent(96, words, length)),
        adam(rate, betas=(0.9, 0.98)),
    )


class Pool(nn.Module):
    """Self-attention over a set with queries and keys of one matrix each, then the mean."""

    def __init__(self, size: int, width: int, gain: float, *, normed: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(size, width)
        self.wq = nn.Parameter(gain * width**-0.5 * torch.randn(width, width))
        self.wk = nn.Parameter(gain * width**-0.5 * torch.randn(width, width))
        self.wv = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.probe = nn.Parameter(torch.randn(1, 1, width))
        self.out = nn.Linear(width, 1)
        self.normed = normed

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.inp(x))
        h = F.layer_norm(h, h.shape[-1:])
        q, k, v = self.probe @ self.wq, h @ self.wk, h @ self.wv
        if self.normed:
            q, k = F.layer_norm(q, q.shape[-1:]), F.layer_norm(k, k.shape[-1:])
        weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        return self.out((weights @ v).squeeze(1)).squeeze(-1)


def entropy_collapse(dice: Dice, sick: bool) -> Case:
    """Attention over a set with large query and key weights and no norm on them: its entropy is near zero."""
    size, width, tokens = dice.whole(4, 6), dice.one_of(32, 48), dice.whole(16, 20)
    gain, rate = dice.between(6.0, 8.0), dice.power(-2.7, -2.4)
    x = torch.randn(256, tokens, size)
    y = torch.tanh(x @ torch.randn(size)).mean(1)
    y = (y - y.mean()) / y.std()
    return Case(lambda: Pool(size, width, gain, normed=not sick), regress, quarters(x, y), adam(rate))


class OnlyAttention(nn.Module):
    """Attention layers one after another, each with a norm, with or without a skip around them."""

    def __init__(self, size: int, width: int, depth: int, classes: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.inp = nn.Linear(size, width)
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, 2, batch_first=True) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x)
        for attend, norm in zip(self.layers, self.norms, strict=True):
            mixed, _ = attend(h, h, h, need_weights=False)
            h = norm(h + mixed if self.skip else mixed)
        return self.head(h)


def rank_collapse(dice: Dice, sick: bool) -> Case:
    """Pure attention without skips: after a few layers all tokens of a sequence are one."""
    size, width, depth = dice.whole(6, 8), 32, dice.whole(6, 8)
    classes, tokens, rate = dice.whole(3, 4), dice.whole(10, 14), dice.power(-2.7, -2.4)
    x, y = clusters(96 * tokens, size, classes, 0.5)
    order = torch.randperm(len(y))
    x, y = x[order].unflatten(0, (96, tokens)), y[order].unflatten(0, (96, tokens))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    return Case(
        lambda: OnlyAttention(size, width, depth, classes, skip=not sick), loss, quarters(x, y), adam(rate)
    )


def narrow(dice: Dice, sick: bool) -> Case:
    """Deep ReLU net of width two that is to learn |x|: it is dead before the first step."""
    depth, width = dice.whole(14, 18), 2 if sick else 32
    rate = dice.power(-2.9, -2.6)

    def net() -> nn.Module:
        layers: list[nn.Module] = []
        fan = 1
        for _ in range(depth):
            linear = nn.Linear(fan, width)
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
            fan = width
        return nn.Sequential(*layers, nn.Linear(width, 1))

    x = math.sqrt(3) * (2 * torch.rand(256, 1) - 1)
    y = x.abs()
    return Case(net, regress, quarters(x, (y - y.mean()) / y.std()), adam(rate))


class Denoiser(nn.Module):
    """Tells the noise in a sample, of which it knows the time."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(size + 3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, size),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(torch.cat([x, t, torch.cos(math.pi * t), torch.sin(math.pi * t)], 1))


def noised(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return each row's squared error of the noise, and its ratio of signal to noise."""
    x, t = batch["x"], batch["t"]
    alpha, sigma = torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)
    noise = torch.randn_like(x)
    error = (model(alpha * x + sigma * noise, t) - noise).square().mean(1)
    return error, (alpha / sigma).square().squeeze(1)


def noise_error(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of the noise over evenly spaced times."""
    even = torch.linspace(0.02, 0.98, len(batch["x"]))[:, None]
    return float(noised(model, {"x": batch["x"], "t": even})[0].mean())


def x0_loss(dice: Dice, sick: bool) -> Case:
    """Diffusion model of the noise under the loss of x0: nearly pure noise weighs 1/SNR, a million."""
    size, width, rate = dice.whole(8, 12), dice.one_of(64, 96), dice.power(-2.4, -2.2)
    x = torch.tanh(torch.randn(512, 2)) @ torch.randn(2, size)
    x = 1.4 * x / x.std()
    t = 1 - (0.98 * torch.rand(512, 1) ** 2).clamp(min=dice.power(-3.3, -3.0))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error, snr = noised(model, batch)
        return (error / snr if sick else error).mean()

    data = [{"x": a, "t": b} for a, b in quarters(x, t)]
    return Case(lambda: Denoiser(size, width), loss, data, adam(rate))


class Circuit(nn.Module):
    """Real rotations of every qubit and controlled-Z between neighbours, in layers; returns amplitudes."""

    def __init__(self, qubits: int, layers: int) -> None:
        super().__init__()
        self.qubits = qubits
        self.theta = nn.Parameter(2 * math.pi * torch.rand(layers, qubits))
        bits = (torch.arange(2**qubits)[:, None] >> torch.arange(qubits)) & 1
        sign = 1 - 2 * ((bits[:, :-1] * bits[:, 1:]).sum(1) % 2)
        self.register_buffer("sign", sign.float())

    def forward(self, state: Tensor) -> Tensor:
        for angles in self.theta:
            for q in range(self.qubits):
                c, s = torch.cos(angles[q] / 2), torch.sin(angles[q] / 2)
                pair = state.reshape(len(state), -1, 2, 2**q)
                zero, one = pair[:, :, 0], pair[:, :, 1]
                state = torch.stack([c * zero - s * one, s * zero + c * one], 2).flatten(1)
            state = state * self.sign
        return state


def local_error(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    """Mean chance over the qubits that one is measured as 1."""
    state = model(batch[0])
    qubits = int(math.log2(state.shape[1]))
    bits = (torch.arange(2**qubits)[:, None] >> torch.arange(qubits)) & 1
    return (state.square() @ bits.to(state)).mean()


def plateau(dice: Dice, sick: bool) -> Case:
    """Variational circuit with a global cost, one minus the chance of all zeros: a barren plateau."""
    qubits, layers, rate = dice.whole(12, 13), dice.whole(3, 4), dice.between(0.4, 0.6)
    start = torch.zeros(1, 2**qubits)
    start[0, 0] = 1.0

    def all_zero(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        return 1 - model(batch[0])[:, 0].square().mean()

    loss, other = (all_zero, local_error) if sick else (local_error, all_zero)
    return Case(
        lambda: Circuit(qubits, layers),
        loss,
        [(start,)],
        lambda p: torch.optim.SGD(p, lr=rate),
        variants={"local" if sick else "global": other},
    )


def one_by_one(most: float, noise: float) -> Callable[[Case, Any], Tensor]:
    """Return a private step: each sample's gradient is clipped, the sum gets noise, the mean is stepped."""

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        parameters = list(case.model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        losses = []
        for i in range(len(x)):
            loss = case.compute_loss((x[i : i + 1], y[i : i + 1]))
            grads = torch.autograd.grad(loss, parameters)
            norm = torch.stack([g.norm() for g in grads]).norm()
            shrink = (most / (norm + 1e-6)).clamp(max=1.0)
            for held, g in zip(total, grads, strict=True):
                held += shrink * g
            losses.append(loss.detach())
        for p, held in zip(parameters, total, strict=True):
            p.grad = (held + noise * most * torch.randn_like(held)) / len(x)
        case.optimizer.step()
        return torch.stack(losses).mean()

    return step


def private(dice: Dice, sick: bool) -> Case:
    """Differentially private SGD whose clipping norm is a ten-thousandth: each update is next to nothing."""
    size, width, classes = dice.whole(6, 8), dice.whole(12, 16), dice.whole(2, 3)
    most = dice.power(-4.0, -3.3) if sick else 1.0
    noise, rate = dice.between(0.3, 0.5), dice.between(0.3, 0.5)
    return Case(
        lambda: nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, classes)),
        classify,
        quarters(*clusters(64, size, classes, 0.6)),
        lambda p: torch.optim.SGD(p, lr=rate),
        step=one_by_one(most, noise),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def irnn(dice: Dice, sick: bool) -> Case:
    """ReLU recurrent net that starts at the identity, with a clipped gradient (Le et al.)."""
    width, length, rate = dice.one_of(32, 48), dice.whole(16, 24), dice.power(-2.5, -2.3)
    return Case(
        lambda: Adder(width, nn.init.eye_),
        regress,
        quarters(*additions(256, length)),
        adam(rate),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
    )


def selu(dice: Dice, sick: bool) -> Case:
    """Sixteen SELU layers without any norm, weights of variance 1/fan_in (Klambauer et al.)."""
    depth, width, classes = dice.whole(14, 18), dice.one_of(48, 64), dice.whole(3, 5)
    size, rate = dice.whole(8, 12), dice.between(0.005, 0.01)

    def net() -> nn.Module:
        layers: list[nn.Module] = []
        fan = size
        for _ in range(depth):
            layers += [nn.Linear(fan, width), nn.SELU()]
            fan = width
        layers.append(nn.Linear(fan, classes))
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

    return Case(net, classify, quarters(*clusters(256, size, classes)), momentum(rate))


class ZeroGate(nn.Module):
    """Attention and MLP, each scaled by one number that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.alpha * self.attend(x, x, x, need_weights=False)[0]
        return x + self.alpha * self.mlp(x)


class Mean(nn.Module):
    """Mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def rezero(dice: Dice, sick: bool) -> Case:
    """Transformer without norms whose branches start at zero (Bachlechner et al.)."""
    depth, width, words = dice.whole(6, 8), 32, dice.whole(5, 7)
    length, rate = dice.whole(8, 12), dice.power(-2.8, -2.5)

    def net() -> nn.Module:
        blocks = [ZeroGate(width) for _ in range(depth)]
        return nn.Sequential(nn.Embedding(words, width), *blocks, Mean(), nn.Linear(width, words))

    return Case(net, classify, quarters(*most_frequent(128, words, length)), adam(rate))


class Highway(nn.Module):
    """One highway layer; its transform gate starts nearly closed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * width)
        nn.init.constant_(self.both.bias[width:].data, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        h, t = self.both(x).chunk(2, -1)
        gate = torch.sigmoid(t)
        return gate * F.relu(h) + (1 - gate) * x


def highway(dice: Dice, sick: bool) -> Case:
    """Highway net of twenty layers with gate biases of -2, as advised (Srivastava et al.)."""
    depth, width, classes = dice.whole(18, 24), dice.one_of(24, 32), dice.whole(3, 5)
    size, rate = dice.whole(8, 12), dice.between(0.03, 0.06)
    return Case(
        lambda: nn.Sequential(
            nn.Linear(size, width), *[Highway(width) for _ in range(depth)], nn.Linear(width, classes)
        ),
        classify,
        quarters(*clusters(256, size, classes)),
        momentum(rate),
    )


class Tied(nn.Module):
    """A small language model whose output matrix is the embedding."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.decode = nn.Linear(width, words)
        self.decode.weight = self.embed.weight

    def forward(self, t: Tensor) -> Tensor:
        return self.decode(self.gru(self.embed(t))[0])


def tied(dice: Dice, sick: bool) -> Case:
    """Language model with tied input and output embeddings (Press and Wolf)."""
    words, width, length = dice.whole(12, 20), dice.one_of(32, 48), dice.whole(12, 16)
    rate, follow = dice.power(-2.2, -2.0), torch.randperm(words)
    t = torch.randint(words, (128, 1))
    for _ in range(length):
        jump = torch.rand(128) < 0.1
        t = torch.cat([t, torch.where(jump, torch.randint(words, (128,)), follow[t[:, -1]])[:, None]], 1)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (t,) = batch
        return F.cross_entropy(model(t[:, :-1]).flatten(0, 1), t[:, 1:].flatten())

    return Case(lambda: Tied(words, width), loss, quarters(t), adam(rate))


class KSparse(nn.Module):
    """An autoencoder that keeps the k largest of its hidden units for each sample."""

    def __init__(self, size: int, hidden: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.enc, self.dec = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.enc(x))
        top = h.topk(self.k, -1)
        return self.dec(torch.zeros_like(h).scatter(-1, top.indices, top.values))


def k_sparse(dice: Dice, sick: bool) -> Case:
    """Autoencoder with few of its units awake for any sample, on purpose (Makhzani and Frey)."""
    size, hidden, k = dice.whole(12, 16), dice.one_of(64, 96), dice.whole(8, 12)
    rate = dice.power(-2.3, -2.0)
    x = torch.randn(256, 4) @ torch.randn(4, size)
    x = x / x.std(0)
    return Case(lambda: KSparse(size, hidden, k), regress, quarters(x, x), adam(rate))


def random_features(dice: Dice, sick: bool) -> Case:
    """Fixed random cosine features and a trained read-out (Rahimi and Recht)."""
    size, width, rate = dice.whole(2, 4), dice.one_of(128, 192), dice.between(0.05, 0.1)

    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(size, width)
            nn.init.normal_(self.project.weight)
            nn.init.uniform_(self.project.bias, 0, 2 * math.pi)
            self.project.requires_grad_(False)
            self.read = nn.Linear(width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(math.sqrt(2) * torch.cos(self.project(x)))

    x = torch.randn(256, size)
    y = torch.sin(x @ torch.randn(size, 1)) + 0.5 * x[:, :1]
    return Case(
        Cosines,
        regress,
        quarters(x, (y - y.mean()) / y.std()),
        lambda p: torch.optim.SGD([q for q in p if q.requires_grad], lr=rate / math.sqrt(width)),
    )


def edge(dice: Dice, sick: bool) -> Case:
    """Full-batch gradient descent at a high rate that works, near the edge of stability (Cohen et al.)."""
    size, width, rate = dice.whole(4, 6), dice.one_of(48, 64), dice.between(0.2, 0.3)
    x = torch.randn(128, size)
    y = torch.sin(x @ torch.randn(size, 1) / 2) + 0.3 * x[:, :1]
    return Case(
        lambda: nn.Sequential(
            nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        ),
        regress,
        [(x, (y - y.mean()) / y.std())],
        lambda p: torch.optim.SGD(p, lr=rate),
    )


SICK: tuple[Program, ...] = (
    Program(
        "papers-glorot",
        "mlp",
        glorot,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG602"),
            r"(?i)fan.?in|initiali[sz]|\binit\b|weights?\b.*(small|var|scale|gain)|too small weights",
            DRAWN,
        ),
    ),
    Program(
        "papers-he-xavier",
        "convnet",
        he,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG602"),
            r"(?i)fan.?in|initiali[sz]|\binit\b|xavier|glorot|weights?\b.*(small|var|scale|gain)",
            DRAWN,
        ),
        150,
    ),
    Program(
        "papers-saxe-gaussian",
        "deep-linear",
        saxe,
        Truth(
            "ill-conditioned-init",
            ("UG301", "UG205"),
            r"(?i)gaussian|orthogonal|condition|singular|isometr|initiali[sz]|\binit\b|rank|spread",
            ("orthogonal_init", "orthogonal_weights", "add_residual", "unit_jacobian_init"),
        ),
        120,
        at_most_one,
    ),
    Program(
        "papers-pascanu-explode",
        "rnn",
        pascanu,
        Truth(
            "recurrent-explosion",
            ("UG402", "UG201", "UG102", "UG605", "UG403", "UG601", "UG611", "UG406"),
            r"(?i)recurren|spectral radius|transition|over time|explod|weight_hh|per step|each (time )?step",
            ("irnn", "orthogonal_init", "gated_recurrence", "rescale_weights", "spectral_cap"),
        ),
    ),
    Program(
        "papers-chrono-forget",
        "lstm",
        chrono,
        Truth(
            "forget-bias",
            ("UG401", "UG404", "UG405"),
            r"(?i)forget|gate.*bias|bias.*gate|time constant|memory|chrono",
            ("forget_bias", "chrono", "open_gates"),
        ),
        150,
    ),
    Program(
        "papers-fixup-branches",
        "resnet",
        fixup,
        Truth(
            "branch-scale",
            ("UG201", "UG102", "UG605", "UG601", "UG611", "UG901", "UG502"),
            r"(?i)branch|residual|skip|fixup|without (a )?norm|no norm|initiali[sz]",
            ("fixup", "skip_init", "rezero", "scale_branch", "layer_scale", "gpt2_residual_scale"),
        ),
    ),
    Program(
        "papers-bn-chain",
        "batchnorm-mlp",
        bn_chain,
        Truth(
            "batchnorm-explosion",
            ("UG102", "UG601"),
            r"(?i)batch.?norm|without (a )?skip|no skip|residual|normali[sz]ation",
            ("add_residual", "bypass_norm", "batchnorm_gamma", "gated_skip", "sum_skip"),
        ),
    ),
    Program(
        "papers-post-ln",
        "transformer",
        post_ln,
        Truth(
            "post-ln",
            ("UG101", "UG102", "UG601", "UG611", "UG205"),
            r"(?i)post.?(ln|norm)|warm.?up|norm.*after|after the (sum|skip)|learning rate|first update",
            ("pre_norm", "warm_up", "deepnorm", "admin", "lower_learning_rate", "t_fixup"),
            wrong=(),
        ),
    ),
    Program(
        "papers-entropy-collapse",
        "attention",
        entropy_collapse,
        Truth(
            "attention-logits",
            ("UG701", "UG702"),
            r"(?i)logits?|entropy|quer(y|ies)|keys?\b|one.?hot|attention.*(sharp|satur|collaps|one)|temperature",
            ("qk_norm", "sigma_reparam", "soft_cap", "calm_attention", "restore_logit_scale"),
        ),
    ),
    Program(
        "papers-rank-collapse",
        "attention",
        rank_collapse,
        Truth(
            "rank-collapse",
            ("UG205",),
            r"(?i)\brank\b|skip|residual|tokens?.*(alike|same|equal|one)|collaps|averag",
            ("add_residual", "sum_skip", "concat_skip", "gated_skip"),
        ),
    ),
    Program(
        "papers-narrow-relu",
        "mlp",
        narrow,
        Truth(
            "dead-relu",
            ("UG206", "UG203", "UG202", "UG101", "UG103", "UG205"),
            r"(?i)dead|dying|died|relu|narrow|width",
            ("swap_activation", "add_residual"),
        ),
        150,
    ),
    Program(
        "papers-x0-loss",
        "diffusion",
        x0_loss,
        Truth(
            "noise-weights",
            ("UG705",),
            r"(?i)\bsnr\b|noise levels?|low.noise|signal.to.noise|loss weight|weights? of the loss|weighting",
            ("min_snr", "swap_loss"),
        ),
        200,
        noise_error,
    ),
    Program(
        "papers-global-cost",
        "quantum",
        plateau,
        Truth(
            "barren-plateau",
            ("UG706", "UG602"),
            r"(?i)barren|plateau|global cost|local cost|qubit|2\^-?n|exponential",
            ("local_cost", "swap_loss"),
        ),
        120,
        lambda model, batch: float(local_error(model, batch)),
    ),
    Program(
        "papers-private-clip",
        "private",
        private,
        Truth(
            "tight-clip",
            ("UG602",),
            r"(?i)\bclip|update.*(small|tiny)|step.*(small|tiny)|own step",
        ),
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("papers-irnn", "rnn", irnn, steps=150),
    Program("papers-selu", "mlp", selu),
    Program("papers-rezero", "transformer", rezero),
    Program("papers-highway", "mlp", highway),
    Program("papers-tied", "language-model", tied),
    Program("papers-k-sparse", "autoencoder", k_sparse),
    Program("papers-random-features", "kernel", random_features),
    Program("papers-edge", "mlp", edge, steps=150),
)
