"""Generators, circuits, critics, graphs, physics and equilibria, sick or healthy; kept aside."""

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

HOT = (("lower_learning_rate", {"factor": 10.0}),)


def quarters(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the rows of the tensors as four batches."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def with_adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return a builder of Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def fit(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


# --- sick ---------------------------------------------------------------------------------------------------


def pictures(rows: int, size: int = 12) -> tuple[Tensor, Tensor]:
    """Return smooth real pictures, and fakes whose columns are shifted against each other."""
    grid = torch.linspace(0, 2 * math.pi, size)
    phase = 2 * math.pi * torch.rand(rows, 2, 1, 1)
    real = torch.sin(grid[:, None] + phase[:, 0]) + torch.cos(grid[None, :] + phase[:, 1])
    fake = real + 0.9 * torch.randn(rows, 1, size) * torch.randn(rows, size, 1)
    return real[:, None], (fake / fake.std() * real.std())[:, None]


def judge_with_sigmoid(dice: Dice, sick: bool) -> Case:
    """A discriminator that ends in a sigmoid, trained by binary cross-entropy with logits."""
    planes, rate = dice.one_of(12, 16, 24), dice.power(-2.7, -2.4)
    real, fake = pictures(160)

    def build() -> nn.Module:
        layers: list[nn.Module] = [
            nn.Conv2d(1, planes, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(planes, 2 * planes, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * planes * 9, 1),
        ]
        return nn.Sequential(*layers, *([nn.Sigmoid()] if sick else []))

    criterion = nn.BCEWithLogitsLoss()

    def loss(netD: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        real, fake = batch
        out_real, out_fake = netD(real).view(-1), netD(fake).view(-1)
        err_real = criterion(out_real, torch.ones_like(out_real))
        err_fake = criterion(out_fake, torch.zeros_like(out_fake))
        return err_real + err_fake

    return Case(build, loss, quarters(real, fake), with_adam(rate, betas=(0.5, 0.999)))


class Coupling(nn.Module):
    """An affine coupling whose log-scale is bounded, or not."""

    def __init__(self, size: int, hidden: int, bound: float | None, *, flip: bool) -> None:
        super().__init__()
        self.flip, self.bound = flip, bound
        self.net = nn.Sequential(
            nn.Linear(size // 2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, size),
        )
        for layer in self.net[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            self.net[-1].weight.mul_(0.7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        if self.bound is not None:
            s = self.bound * torch.tanh(s)
        b = b * torch.exp(s) + t
        return torch.cat([b, a] if self.flip else [a, b], 1), s.sum(1)


class RealNvp(nn.Module):
    """Couplings one after another."""

    def __init__(self, size: int, hidden: int, depth: int, bound: float | None) -> None:
        super().__init__()
        self.flows = nn.ModuleList(Coupling(size, hidden, bound, flip=bool(k % 2)) for k in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for flow in self.flows:
            x, logdet = flow(x)
            total = total + logdet
        return x, total


def curved(rows: int, size: int) -> Tensor:
    """Return standardised points around a curved surface."""
    z = torch.randn(rows, size // 2)
    x = torch.cat([z, torch.sin(2 * z) + 0.2 * torch.randn_like(z)], 1)
    return (x - x.mean(0)) / x.std(0)


def nll(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Negative log-likelihood per dimension under a normal prior."""
    z, logdet = model(batch[0])
    size = z.shape[1]
    return (0.5 * z.square().sum(1) - logdet).mean() / size + 0.5 * math.log(2 * math.pi)


def free_scales(dice: Dice, sick: bool) -> Case:
    """Affine couplings that take exp of an unbounded log-scale, drawn with Kaiming's weights."""
    size, hidden, depth = dice.one_of(6, 8), dice.one_of(32, 48), dice.whole(5, 6)
    rate, bound = dice.power(-2.9, -2.6), dice.between(0.5, 0.8)
    data = quarters(curved(320, size))
    return Case(lambda: RealNvp(size, hidden, depth, None if sick else bound), nll, data, with_adam(rate))


class Circuit(nn.Module):
    """Encodes numbers as angles, then layers of one rotation per qubit and a ring of controlled Z."""

    def __init__(self, qubits: int, layers: int, *, mirrored: bool) -> None:
        super().__init__()
        angles = 2 * math.pi * torch.rand(layers, qubits)
        if mirrored:
            half = layers // 2
            angles[half] = 0
            angles[half + 1 :] = -angles[:half].flip(0)
        self.angles = nn.Parameter(angles)
        self.qubits = qubits
        bits = torch.arange(2**qubits)[:, None] >> torch.arange(qubits - 1, -1, -1) & 1
        self.register_buffer("ring", 1.0 - 2.0 * ((bits * bits.roll(1, 1)).sum(1) % 2))
        self.register_buffer("z", 1.0 - 2.0 * bits[:, 0])

    def rotate(self, state: Tensor, qubit: int, angle: Tensor) -> Tensor:
        shape = state.shape
        state = state.view(shape[0], 2**qubit, 2, -1)
        c, s = torch.cos(angle / 2).view(-1, 1, 1), torch.sin(angle / 2).view(-1, 1, 1)
        zero, one = state[:, :, 0], state[:, :, 1]
        return torch.stack([c * zero - s * one, s * zero + c * one], 2).view(shape)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 2**self.qubits)
        state[:, 0] = 1
        for q in range(self.qubits):
            state = self.rotate(state, q, x[:, q])
        for layer in self.angles:
            for q in range(self.qubits):
                state = self.rotate(state, q, layer[q])
            state = state * self.ring
        return state.square() @ self.z


def plateau(dice: Dice, sick: bool) -> Case:
    """A deep variational circuit of many qubits whose angles are drawn from the whole circle."""
    qubits, layers, rate = dice.one_of(8, 9), dice.one_of(17, 19), dice.between(0.006, 0.009)
    shift = dice.between(0.9, 1.1)
    x = math.pi * (2 * torch.rand(32, qubits) - 1)
    data = quarters(x, torch.cos(x[:, 0] + shift))
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=rate)  # noqa: E731
    return Case(lambda: Circuit(qubits, layers, mirrored=not sick), fit, data, sgd)


class ActorCritic(nn.Module):
    """A shared trunk under a policy and a value."""

    def __init__(self, obs: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(obs, hidden), nn.Linear(hidden, hidden)
        self.pi, self.v = nn.Linear(hidden, actions), nn.Linear(hidden, 1)

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.fc2(F.relu(self.fc1(s))))
        return self.pi(h), self.v(h)[:, 0]


def unexplained(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Share of the returns' variance that the value does not explain."""
    s, _, ret = batch
    return float((model(s)[1] - ret).square().mean() / ret.var())


def raw_returns(dice: Dice, sick: bool) -> Case:
    """Actor and critic on raw discounted returns of hundreds to thousands."""
    obs, actions, hidden = dice.whole(4, 8), dice.whole(2, 4), dice.one_of(48, 64)
    scale, rate = dice.power(2.5, 3.3), dice.power(-2.7, -2.5)
    s, a = torch.randn(256, obs), torch.randint(actions, (256,))
    ret = s @ torch.randn(obs) + torch.tanh(s @ torch.randn(obs, actions)).gather(1, a[:, None])[:, 0]
    ret = (ret - ret.mean()) / ret.std()
    if sick:
        ret = scale * (ret + 1.0)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        s, a, ret = batch
        logits, v = model(s)
        advantage = ret - v.detach()
        chosen = F.log_softmax(logits, 1).gather(1, a[:, None])[:, 0]
        return -(0.1 * advantage * chosen).mean() + 0.5 * F.mse_loss(v, ret)

    def clip(parameters: Any) -> None:
        nn.utils.clip_grad_norm_(parameters, 0.5)

    return Case(
        lambda: ActorCritic(obs, actions, hidden), loss, quarters(s, a, ret), with_adam(rate), clip=clip
    )


class Gin(nn.Module):
    """Adds up the neighbours, then applies two maps; the adjacency is held by the model."""

    def __init__(self, a: Tensor, inp: int, width: int, classes: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.mlps = nn.ModuleList()
        for k in range(depth):
            self.mlps.append(
                nn.Sequential(nn.Linear(width if k else inp, width), nn.ReLU(), nn.Linear(width, width))
            )
        self.readout = nn.Linear(width, classes)
        self.eps = nn.Parameter(torch.zeros(depth))

    def forward(self, h: Tensor) -> Tensor:
        for k, block in enumerate(self.mlps):
            h = F.relu(block((1 + self.eps[k]) * h + self.a @ h))
        return self.readout(h)


def labels(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy over classes."""
    return F.cross_entropy(model(batch[0]), batch[1])


def bare_sums(dice: Dice, sick: bool) -> Case:
    """A graph isomorphism network on a dense graph: sums over dozens of neighbours, no norm."""
    nodes, classes, width = dice.whole(120, 160), dice.whole(3, 4), dice.one_of(24, 32)
    depth, rate = dice.whole(5, 6), dice.power(-2.5, -2.3)
    y = torch.randint(classes, (nodes,))
    chance = torch.where(y[:, None] == y[None, :], 0.75, 0.2)
    a = (torch.rand(nodes, nodes) < chance).float().triu(1)
    a = a + a.T
    if not sick:
        a = a / a.sum(1, keepdim=True).clamp(min=1)
    proto = torch.randn(classes, 6)
    data = [(proto[y] + 1.5 * torch.randn(nodes, 6), y) for _ in range(4)]
    return Case(lambda: Gin(a, 6, width, classes, depth), labels, data, with_adam(rate))


class Field(nn.Module):
    """A tanh network of one coordinate, which divides it by `unit` first."""

    def __init__(self, width: int, depth: int, unit: float) -> None:
        super().__init__()
        self.unit = unit
        sizes = [1] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.last = nn.Linear(width, 1)

    def forward(self, t: Tensor) -> Tensor:
        h = t / self.unit
        for layer in self.hidden:
            h = torch.tanh(layer(h))
        return self.last(h)


def seconds(dice: Dice, sick: bool) -> Case:
    """A physics-informed network of a cooling body that is given time in raw seconds."""
    width, depth, rate = dice.one_of(24, 32), dice.whole(2, 3), dice.power(-2.3, -2.0)
    horizon, k = dice.power(2.7, 3.4), dice.between(2.0, 3.0)
    t = horizon * torch.rand(256, 1)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        t = batch[0].requires_grad_()
        u = net(t)
        (du,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        ambient = torch.sin(2 * math.pi * t.detach() / horizon)
        residual = horizon * du + k * (u - ambient)
        return residual.square().mean() + 10 * (net(torch.zeros(1, 1)) - 1).square().mean()

    # The exact answer is at hand for judging alone.
    tau, w = t / horizon, 2 * math.pi
    exact = k * (k * torch.sin(w * tau) - w * torch.cos(w * tau)) / (k * k + w * w)
    exact = exact + (1 + k * w / (k * k + w * w)) * torch.exp(-k * tau)
    return Case(
        lambda: Field(width, depth, 1.0 if sick else horizon), loss, quarters(t, exact), with_adam(rate)
    )


def off_exact(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Squared distance from the exact solution."""
    return float(F.mse_loss(net(batch[0]), batch[1]))


class Equilibrium(nn.Module):
    """Iterates one tanh map towards a fixed point, and differentiates through the iterations."""

    def __init__(self, inp: int, width: int, steps: int, gain: float) -> None:
        super().__init__()
        self.steps = steps
        self.W = nn.Parameter(gain * torch.randn(width, width) / math.sqrt(width))
        self.U = nn.Linear(inp, width)
        self.read = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.U(x)
        z = torch.zeros_like(drive)
        for _ in range(self.steps):
            z = torch.tanh(z @ self.W + drive)
        return self.read(z)


def no_contraction(dice: Dice, sick: bool) -> Case:
    """A deep equilibrium model whose map does not contract: it has no fixed point to find."""
    inp, width, steps = dice.whole(5, 8), dice.one_of(48, 64), dice.whole(30, 40)
    gain, rate = dice.between(4.5, 6.0) if sick else 0.4, dice.power(-2.5, -2.3)
    x = torch.randn(256, inp)
    y = torch.sin(x @ torch.randn(inp, 1)) + 0.7 * x[:, :1]
    return Case(lambda: Equilibrium(inp, width, steps, gain), fit, quarters(x, y), with_adam(rate))


def bare_root(dice: Dice, sick: bool) -> Case:
    """A Siamese net whose distance is a bare square root; some pairs are one and the same item."""
    inp, width, rate = dice.whole(8, 14), dice.one_of(32, 48), dice.power(-2.9, -2.5)
    margin, same = dice.between(1.0, 1.5), dice.whole(2, 6)
    proto = torch.randn(6, inp)
    one, two = torch.randint(6, (256,)), torch.randint(6, (256,))
    two = torch.where(torch.rand(256) < 0.4, one, two)
    left, right = (proto[k] + 0.4 * torch.randn(256, inp) for k in (one, two))
    # The pairs were drawn with replacement from one list of items.
    left[:: same * 8], two[:: same * 8] = right[:: same * 8], one[:: same * 8]

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        a, b, alike = batch
        square = (net(a) - net(b)).pow(2).sum(1)
        distance = torch.sqrt(square) if sick else torch.sqrt(square + 1e-6)
        return (alike * distance.pow(2) + (1 - alike) * F.relu(margin - distance).pow(2)).mean()

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(inp, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )

    return Case(build, loss, quarters(left, right, (one == two).float()), with_adam(rate))


# --- healthy ------------------------------------------------------------------------------------------------


def hinge_judge(dice: Dice, sick: bool) -> Case:
    """A discriminator of hinge loss under spectral norm, Adam without momentum, at a high rate."""
    planes, rate = dice.one_of(12, 16), dice.power(-2.7, -2.5)
    real, fake = pictures(160)
    sn = nn.utils.parametrizations.spectral_norm

    def build() -> nn.Module:
        return nn.Sequential(
            sn(nn.Conv2d(1, planes, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            sn(nn.Conv2d(planes, 2 * planes, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            sn(nn.Linear(2 * planes * 9, 1)),
        )

    def loss(judge: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        real, fake = batch
        return F.relu(1 - judge(real)).mean() + F.relu(1 + judge(fake)).mean()

    return Case(build, loss, quarters(real, fake), with_adam(rate, betas=(0.0, 0.9)))


class ZeroCoupling(Coupling):
    """A coupling that starts as the identity: its last map is zero on purpose."""

    def __init__(self, size: int, hidden: int, *, flip: bool) -> None:
        super().__init__(size, hidden, 1.0, flip=flip)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)


def identity_flow(dice: Dice, sick: bool) -> Case:
    """A flow of bounded couplings that all start as the identity."""
    size, hidden, depth = dice.one_of(6, 8), dice.one_of(32, 48), dice.whole(4, 6)
    rate = dice.power(-2.5, -2.3)

    def build() -> nn.Module:
        model = RealNvp(size, hidden, 0, None)
        model.flows.extend(ZeroCoupling(size, hidden, flip=bool(k % 2)) for k in range(depth))
        return model

    return Case(build, nll, quarters(curved(320, size)), with_adam(rate))


class Sage(nn.Module):
    """Means of the neighbours beside the node's own features, with a norm and a residual path."""

    def __init__(self, a: Tensor, inp: int, width: int, classes: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.embed = nn.Linear(inp, width)
        self.layers = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.readout = nn.Linear(width, classes)

    def forward(self, h: Tensor) -> Tensor:
        h = self.embed(h)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            n = norm(h)
            h = h + F.gelu(layer(torch.cat([n, self.a @ n], -1)))
        return self.readout(h)


def sage(dice: Dice, sick: bool) -> Case:
    """GraphSAGE with pre-norm and residual paths on features of scale three."""
    nodes, classes, width = dice.whole(100, 140), dice.whole(3, 5), dice.one_of(24, 32)
    depth, rate = dice.whole(3, 6), dice.power(-2.6, -2.4)
    y = torch.randint(classes, (nodes,))
    a = (torch.rand(nodes, nodes) < torch.where(y[:, None] == y[None, :], 0.3, 0.05)).float()
    a = ((a + a.T) > 0).float()
    a = a / a.sum(1, keepdim=True).clamp(min=1)
    proto = torch.randn(classes, 6)
    data = [(1.7 * (proto[y] + 1.5 * torch.randn(nodes, 6)), y) for _ in range(4)]
    return Case(lambda: Sage(a, 6, width, classes, depth), labels, data, with_adam(rate))


class Settling(Equilibrium):
    """An equilibrium found without gradient; the last few steps alone are differentiated, on purpose."""

    def forward(self, x: Tensor) -> Tensor:
        drive = self.U(x)
        with torch.no_grad():
            z = torch.zeros_like(drive)
            for _ in range(self.steps):
                z = torch.tanh(z @ self.W + drive)
        for _ in range(3):
            z = torch.tanh(z @ self.W + drive)
        return self.read(z)


def settling(dice: Dice, sick: bool) -> Case:
    """A contracting equilibrium model with the gradient of its last three iterations."""
    inp, width, steps = dice.whole(5, 8), dice.one_of(48, 64), dice.whole(12, 20)
    gain, rate = dice.between(0.3, 0.5), dice.power(-2.5, -2.2)
    x = torch.randn(256, inp)
    y = torch.sin(x @ torch.randn(inp, 1)) + 0.7 * x[:, :1]
    return Case(lambda: Settling(inp, width, steps, gain), fit, quarters(x, y), with_adam(rate))


SICK: tuple[Program, ...] = (
    Program(
        "forge-judge-sigmoid",
        "gan",
        judge_with_sigmoid,
        Truth(
            "sigmoid-twice",
            ("UG606",),
            r"(?i)sigmoid|twice|squash|logits|BCEWithLogits",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
            HOT,
        ),
    ),
    Program(
        "forge-flow-free",
        "flow",
        free_scales,
        Truth(
            "unbounded-scales",
            ("UG201", "UG102", "UG104", "UG605", "UG611", "UG703", "UG901", "UG502"),
            r"(?i)unbounded|log.?scale|\bexp\b|exponential|coupling|initiali[sz]|\binit\b|weights?\b|stretch|bound",
            (
                "rescale_weights",
                "activation_init",
                "critical_init",
                "orthogonal_init",
                "lsuv",
                "spectral_norm",
                "spectral_cap",
                "soft_cap",
                "scale_branch",
                "skip_init",
                "rezero",
            ),
        ),
    ),
    Program(
        "forge-circuit-plateau",
        "quantum",
        plateau,
        Truth(
            "barren-plateau",
            ("UG706", "UG602"),
            r"(?i)barren|plateau|angles|circuit|qubits",
            ("identity_block_init", "local_cost"),
            (("identity_block_init", {"names": "angles"}),),
        ),
        100,
    ),
    Program(
        "forge-critic-returns",
        "reinforcement",
        raw_returns,
        Truth(
            "raw-returns",
            ("UG607", "UG602"),
            r"(?i)targets?|returns?|rewards?|unit scale|standardi|normali[sz]e",
        ),
        150,
        unexplained,
    ),
    Program(
        "forge-graph-sums",
        "graph",
        bare_sums,
        Truth(
            "sum-aggregation",
            ("UG201", "UG102", "UG605", "UG104", "UG105", "UG601", "UG611"),
            r"(?i)aggregat|neighbou?r|adjacen|degree|\bsums?\b|grow|normali[sz]|\bnorm\b|per block|explod",
            ("insert_norm",),
        ),
    ),
    Program(
        "forge-physics-seconds",
        "physics",
        seconds,
        Truth(
            "raw-inputs",
            ("UG607", "UG204", "UG605", "UG601"),
            r"(?i)inputs?\b|unit scale|standardi|coordinate|saturat",
            ("unit_inputs",),
        ),
        250,
        off_exact,
    ),
    Program(
        "forge-equilibrium-wild",
        "equilibrium",
        no_contraction,
        Truth(
            "no-contraction",
            ("UG102", "UG104", "UG402", "UG403", "UG204", "UG406", "UG201", "UG601", "UG611"),
            r"(?i)contract|fixed point|spectral|radius|chao|explod|grow|weights?\b|initial|recurr|iterat",
            (
                "spectral_norm",
                "spectral_cap",
                "rescale_weights",
                "orthogonal_init",
                "activation_init",
                "critical_init",
                "gradient_flossing",
                "lsuv",
            ),
            (("rescale_weights", {"sites": ["W"], "gain": 0.4}),),
        ),
    ),
    Program(
        "forge-siamese-root",
        "siamese",
        bare_root,
        Truth(
            "root-of-zero",
            ("UG901",),
            r"(?i)\bnan\b|sqrt|square root|not finite|non-?finite|infinite|\binf\b|distance|epsilon",
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("forge-hinge-judge", "gan", hinge_judge),
    Program("forge-identity-flow", "flow", identity_flow, steps=150),
    Program("forge-sage", "graph", sage),
    Program("forge-settling", "equilibrium", settling),
)
