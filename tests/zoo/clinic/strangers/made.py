"""Kept aside once: generators, flows, policies, graphs, recommenders and physics, sick or healthy."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)
DRAWN = (
    "rescale_weights",
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
)


def fours(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return four batches of the tensors' rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def sgd(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def manifold(rows: int, width: int, inner: int = 3) -> Tensor:
    """Return points of a curved surface, standardised."""
    z = torch.randn(rows, inner)
    x = torch.sin(z @ torch.randn(inner, width)) + 0.5 * z @ torch.randn(inner, width)
    return (x - x.mean(0)) / x.std(0)


def communities(nodes: int, groups: int, inside: float = 0.3, outside: float = 0.04) -> tuple[Tensor, Tensor]:
    """Return a random graph with self-loops as a normalised adjacency, and each node's community."""
    y = torch.arange(nodes) % groups
    chance = torch.where(y[:, None] == y[None, :], inside, outside)
    upper = (torch.rand(nodes, nodes) < chance).float().triu(1)
    a = upper + upper.T + torch.eye(nodes)
    d = a.sum(1).rsqrt()
    return d[:, None] * a * d[None, :], y


# --- sick ---------------------------------------------------------------------------------------------------


def minimax(dice: Dice, sick: bool) -> Case:
    """A generator's phase under log(1 - D(G(z))) after its discriminator was trained to perfection."""
    latent, width, out = dice.whole(4, 8), dice.one_of(32, 48), dice.whole(10, 14)
    rate, real = dice.between(0.02, 0.05), manifold(256, out) + dice.between(1.0, 2.0)
    generator = mlp(latent, width, width, out)
    discriminator = mlp(out, 64, 64, 1, act=nn.Tanh)
    trainer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(300):
        trainer.zero_grad()
        with torch.no_grad():
            fake = generator(torch.randn(256, latent))
        on_real, on_fake = discriminator(real), discriminator(fake)
        (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()).backward()
        trainer.step()
    discriminator.requires_grad_(False)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.log(1 - torch.sigmoid(discriminator(model(batch[0]))) + 1e-8).mean()

    def heuristic(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.softplus(-discriminator(model(batch[0]))).mean()

    data = fours(torch.randn(256, latent), real)
    if sick:
        variants = {"non_saturating": heuristic}
        return Case(lambda: copy.deepcopy(generator), loss, data, sgd(rate, momentum=0.5), variants=variants)
    return Case(lambda: copy.deepcopy(generator), heuristic, data, sgd(rate, momentum=0.5))


def far_from_real(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Energy distance between what the generator makes and the real rows."""
    fake, real = model(batch[0]), batch[1]
    n = len(real) * (len(real) - 1)
    within = torch.cdist(real, real).sum() / n + torch.cdist(fake, fake).sum() / n
    return float(2 * torch.cdist(real, fake).mean() - within)


class Score(nn.Module):
    """A denoiser that is told the noise level."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(2, width)
        self.inp = nn.Linear(length, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, length)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.log() / 4
        h = self.inp(x / (1 + sigma**2).sqrt()) + self.embed(torch.cat([level, level.cos()], 1))
        h = F.silu(h)
        return self.out(h + F.silu(self.mid(h)))


def waves(rows: int, length: int) -> Tensor:
    """Return sines of two frequencies with random phases."""
    t = torch.linspace(0, 2 * math.pi, length)
    frequency = 1.0 + torch.randint(2, (rows, 1))
    return math.sqrt(2) * torch.sin(frequency * t + 2 * math.pi * torch.rand(rows, 1))


def noise_error(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return each sample's squared error of sigma times the score."""
    x0, sigma = batch["x0"], batch["sigma"]
    noise = torch.randn_like(x0)
    return (model(x0 + sigma * noise, sigma) + noise).square().mean(1, keepdim=True)


def each_level_alike(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of sigma times the score, over all noise levels alike."""
    return float(noise_error(model, batch).mean())


def no_lambda(dice: Dice, sick: bool) -> Case:
    """Score matching over many noise levels whose loss lacks the factor sigma^2."""
    length, width, rate = dice.whole(12, 20), dice.one_of(64, 96), dice.power(-2.7, -2.4)
    least, most = dice.power(-2.3, -1.9), dice.between(8.0, 12.0)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error = noise_error(model, batch) / batch["sigma"].square()
        return error.mean() if sick else (error * batch["sigma"].square()).mean()

    sigma = least * (most / least) ** torch.rand(512, 1)
    data = [{"x0": a, "sigma": b} for a, b in fours(waves(512, length), sigma)]
    return Case(lambda: Score(length, width), loss, data, adam(rate))


class Invertible(nn.Module):
    """Additive couplings, each behind a linear map L U of determinant one."""

    def __init__(self, size: int, width: int, blocks: int, spread: float) -> None:
        super().__init__()
        self.half = size // 2
        self.lower = nn.ParameterList(nn.Parameter(spread * torch.randn(size, size)) for _ in range(blocks))
        self.upper = nn.ParameterList(nn.Parameter(spread * torch.randn(size, size)) for _ in range(blocks))
        self.shift = nn.ModuleList(mlp(self.half, width, size - self.half) for _ in range(blocks))
        self.log_scale = nn.Parameter(torch.zeros(size))
        for net in self.shift:
            nn.init.zeros_(net[-1].weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        for lower, upper, shift in zip(self.lower, self.upper, self.shift, strict=True):
            x = x @ (eye + lower.tril(-1)) @ (eye + upper.triu(1))
            a, b = x[:, : self.half], x[:, self.half :]
            x = torch.cat([b + shift(a), a], 1)
        return x * self.log_scale.exp(), self.log_scale.sum()


def negative_log_likelihood(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Negative log-likelihood under a normal prior, without its constant."""
    z, logdet = model(batch[0])
    return (0.5 * z.square().sum(1) - logdet).mean()


def unit_triangular(dice: Dice, sick: bool) -> Case:
    """Invertible 1x1 maps in L U form with ones on the diagonal and off-diagonals of unit variance."""
    size, width, blocks = dice.whole(10, 14), dice.one_of(24, 32), dice.whole(3, 4)
    spread, rate = dice.between(0.8, 1.1) if sick else 0.01, dice.power(-2.7, -2.4)
    x = manifold(512, size, inner=4) + 0.1 * torch.randn(512, size)
    data = fours(x)
    return Case(lambda: Invertible(size, width, blocks, spread), negative_log_likelihood, data, adam(rate))


class ConvAutoencoder(nn.Module):
    """Two strided convolutions and back, under autocast to half precision where wanted."""

    def __init__(self, planes: int, code: int, *, half: bool) -> None:
        super().__init__()
        self.half_precision = half
        self.enc = nn.Sequential(
            nn.Conv2d(1, planes, 3, 2, 1), nn.SiLU(), nn.Conv2d(planes, planes, 3, 2, 1), nn.SiLU()
        )
        self.neck = nn.Linear(planes * 9, code)
        self.back = nn.Linear(code, planes * 9)
        self.dec = nn.Sequential(
            nn.ConvTranspose2d(planes, planes, 2, 2), nn.SiLU(), nn.ConvTranspose2d(planes, 1, 2, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.float16, enabled=self.half_precision):
            h = F.silu(self.back(self.neck(self.enc(x).flatten(1))))
            out = self.dec(h.unflatten(1, (-1, 3, 3)))
        return out.float()


def spots(rows: int, size: int = 12) -> Tensor:
    """Return pictures of one bright spot each, standardised."""
    grid = torch.linspace(-1, 1, size)
    middle = 1.4 * torch.rand(rows, 2) - 0.7
    x = (grid[None, :, None] - middle[:, :1, None]) ** 2 + (grid[None, None, :] - middle[:, 1:, None]) ** 2
    x = torch.exp(-x / 0.15)[:, None]
    return (x - x.mean()) / x.std()


def divided_twice(dice: Dice, sick: bool) -> Case:
    """Half precision without a loss scale; the mean is divided by the pixels again and by accumulation."""
    planes, code, rate = dice.one_of(8, 12), dice.whole(6, 10), dice.power(-2.3, -2.0)
    accumulate = dice.one_of(16, 32)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (x,) = batch
        return F.mse_loss(model(x), x) / x.numel() / accumulate

    return Case(lambda: ConvAutoencoder(planes, code, half=sick), loss, fours(spots(192)), adam(rate))


def visits(dice: Dice, sick: bool) -> Case:
    """A graph network that sums over edges weighted with raw counts of visits, under float16."""
    nodes, width, classes = dice.whole(40, 56), dice.one_of(24, 32), dice.whole(4, 5)
    most, rate = dice.power(4.0, 4.7), dice.power(-2.4, -2.1)
    a, y = communities(nodes, classes)
    counts = ((a > 0) * most * (0.5 + torch.rand(nodes, nodes))).round()
    signal = torch.randn(classes, 8)

    class Layer(nn.Module):
        def __init__(self, inp: int, out: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(inp, out))
            self.norm = nn.LayerNorm(out)
            nn.init.xavier_uniform_(self.weight)

        def forward(self, h: Tensor) -> Tensor:
            return F.relu(self.norm(torch.matmul(counts, h @ self.weight)))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return Case(
        lambda: nn.Sequential(Layer(8, width), Layer(width, width), nn.Linear(width, classes)),
        loss,
        [(signal[y] + 2.5 * torch.randn(nodes, 8), y) for _ in range(4)],
        adam(rate),
        precision="float16" if sick else "bfloat16",
    )


class Actor(nn.Module):
    """A trunk with a policy and a value."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(states, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.policy = nn.Linear(width, actions)
        self.value = nn.Linear(width, 1)
        for layer in self.trunk[::2]:
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
        nn.init.orthogonal_(self.policy.weight, 0.01)
        nn.init.orthogonal_(self.value.weight, 1.0)

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(s)
        return self.policy(h), self.value(h).squeeze(-1)


def rollout(states: int, actions: int, rows: int = 256) -> dict[str, Tensor]:
    """Return a fixed roll-out: states, actions of a uniform policy, standardised returns."""
    s, a = torch.randn(rows, states), torch.randint(actions, (rows,))
    value = torch.tanh(s @ torch.randn(states, 1)).squeeze(1)
    liking = torch.tanh(s @ torch.randn(states, actions)).gather(1, a[:, None]).squeeze(1)
    ret = value + liking + 0.2 * torch.randn(rows)
    ret = (ret - ret.mean()) / ret.std()
    return {"obs": s, "act": a, "ret": ret, "adv": (liking - liking.mean()) / liking.std()}


def in_parts(whole: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return four batches of a dictionary."""
    return [dict(zip(whole, part, strict=True)) for part in fours(*whole.values())]


def tight_clip(dice: Dice, sick: bool) -> Case:
    """Advantage-weighted actor-critic on a stored roll-out, each gradient clipped at a millionth."""
    states, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(32, 48, 64)
    most = dice.power(-6.0, -5.0) if sick else 0.5
    rate = dice.between(0.05, 0.1)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits, value = model(batch["obs"])
        policy = torch.distributions.Categorical(logits=logits)
        weight = torch.exp(batch["adv"]).clamp(max=10.0)
        actor = -(weight * policy.log_prob(batch["act"])).mean()
        critic = (batch["ret"] - value).pow(2).mean()
        return actor + 0.5 * critic - 0.01 * policy.entropy().mean()

    def clip(parameters: Any) -> None:
        nn.utils.clip_grad_value_(parameters, most)

    data = in_parts(rollout(states, actions))
    return Case(lambda: Actor(states, actions, width), loss, data, sgd(rate, momentum=0.9), clip=clip)


@dataclass
class Catalogue:
    """Sizes of a recommender."""

    users: int
    items: int
    rank: int


class Factors(nn.Module):
    """Biased matrix factorisation."""

    def __init__(self, c: Catalogue) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(c.users, c.rank), nn.Embedding(c.items, c.rank)
        self.user_bias, self.item_bias = nn.Embedding(c.users, 1), nn.Embedding(c.items, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)
        for bias in (self.user_bias, self.item_bias):
            nn.init.zeros_(bias.weight)

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        dot = torch.einsum("bk,bk->b", self.user(u), self.item(i))
        return dot + self.user_bias(u).squeeze(-1) + self.item_bias(i).squeeze(-1)


def ratings(c: Catalogue, rows: int = 1024) -> list[tuple[Tensor, ...]]:
    """Return users, items and ratings around zero, of rank two."""
    u, i = torch.randint(c.users, (rows,)), torch.randint(c.items, (rows,))
    p, q = torch.randn(c.users, 2), torch.randn(c.items, 2)
    stars = (p[u] * q[i]).sum(1) / math.sqrt(2) + 0.3 * torch.randn(c.users)[u] + 0.1 * torch.randn(rows)
    return fours(u, i, stars)


def squared(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Squared error of what the model says of all but the last tensor of the batch."""
    *inputs, y = batch
    return F.mse_loss(model(*inputs).reshape(y.shape), y)


def from_als(dice: Dice, sick: bool) -> Case:
    """Matrix factorisation under Adam with the lambda of alternating least squares as its weight decay."""
    c = Catalogue(dice.whole(40, 60), dice.whole(30, 50), dice.whole(6, 10))
    decay, rate = dice.between(0.1, 0.4) if sick else 1e-6, dice.power(-1.9, -1.6)
    return Case(lambda: Factors(c), squared, ratings(c), adam(rate, weight_decay=decay))


class Potential(nn.Module):
    """The energy of a few atoms from their inverse distances."""

    def __init__(self, atoms: int, width: int) -> None:
        super().__init__()
        self.i, self.j = (index.tolist() for index in torch.triu_indices(atoms, atoms, 1))
        self.pair = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        r = (x[:, self.i] - x[:, self.j]).norm(dim=-1, keepdim=True)
        return self.pair(torch.cat([r - 1.5, 1 / r], -1)).sum((1, 2))


def force_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Squared error of the forces."""
    with torch.enable_grad():
        x = batch[0].detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x)
    return float((-slope - batch[1]).square().mean())


def forces(dice: Dice, sick: bool) -> Case:
    """Forces as the gradient of a learned energy, taken with retain_graph in place of create_graph."""
    atoms, width, rate = dice.whole(4, 5), dice.one_of(32, 48), dice.power(-2.5, -2.2)
    kind = {"retain_graph": True} if sick else {"create_graph": True}
    corners = torch.tensor(list(itertools.product((0.0, 1.3), repeat=3)))[:atoms]
    x = (corners + 0.25 * torch.randn(160, atoms, 3)).requires_grad_()
    r = (x[:, :, None] - x[:, None] + 1e3 * torch.eye(atoms)[..., None]).norm(dim=-1)
    energy = ((1 - torch.exp(-1.5 * (r - 1.5))) ** 2).sum() / 2
    target = -torch.autograd.grad(energy, x)[0]
    target = target / target.std()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, wanted = batch
        x = x.requires_grad_(True)
        e = model(x)
        force = -torch.autograd.grad(e.sum(), x, **kind)[0]
        return (force - wanted).pow(2).mean() + 0.01 * e.mean().pow(2)

    return Case(lambda: Potential(atoms, width), loss, fours(x.detach(), target), adam(rate))


class DeepONet(nn.Module):
    """A branch net for the function, a trunk net for the place."""

    def __init__(self, sensors: int, width: int, basis: int) -> None:
        super().__init__()
        self.branch = mlp(sensors, width, width, basis, act=nn.GELU)
        self.trunk = mlp(1, width, width, basis, act=nn.Tanh)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, u: Tensor, places: Tensor) -> Tensor:
        return torch.einsum("bk,pk->bp", self.branch(u), self.trunk(places)) / 4 + self.bias


def large_epsilon(dice: Dice, sick: bool) -> Case:
    """An operator network under Adam with the epsilon of 1.0 that a tutorial had for Inception."""
    sensors, width, basis = dice.whole(12, 20), dice.one_of(40, 56), dice.whole(12, 20)
    epsilon, rate = dice.one_of(0.5, 1.0) if sick else 1e-8, dice.power(-2.7, -2.4)
    t = torch.linspace(0, 1, sensors)
    a = torch.randn(4, 32, 3, 1)
    u = sum(a[:, :, k] * torch.sin((k + 1) * math.pi * t) for k in range(3))
    v = sum(a[:, :, k] * (1 - torch.cos((k + 1) * math.pi * t)) / (k + 1) for k in range(3))
    v = (v - v.mean()) / v.std()
    data = [(u[k], 2 * t[:, None] - 1, v[k]) for k in range(4)]
    return Case(lambda: DeepONet(sensors, width, basis), squared, data, adam(rate, eps=epsilon))


class GatedConv(nn.Module):
    """Mixes a node's state with its neighbourhood's by a gate."""

    def __init__(self, adjacency: Tensor, width: int, bias: float) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.message, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, h: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate(h))
        return (1 - g) * h + g * torch.tanh(self.message(self.adjacency @ h))


def shut_gates(dice: Dice, sick: bool) -> Case:
    """A highway graph network whose gates are carried shut by a far negative bias."""
    nodes, width, depth = dice.whole(40, 60), dice.one_of(24, 32), dice.whole(3, 4)
    bias, rate = dice.between(-12.0, -9.0) if sick else -1.0, dice.power(-2.9, -2.6)
    ring = torch.eye(nodes)
    near = (ring.roll(1, 0) + ring.roll(-1, 0)) / 2
    x = torch.randn(4, nodes, 4)
    y = torch.tanh(2 * near @ x @ torch.randn(4, 2))
    y = (y - y.mean()) / y.std()

    def build() -> nn.Module:
        layers = [GatedConv(near, width, bias) for _ in range(depth)]
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), *layers, nn.Linear(width, 2))

    return Case(build, squared, list(zip(x, y, strict=True)), adam(rate))


class FactorizationMachine(nn.Module):
    """A linear part and pairwise interactions of low rank."""

    def __init__(self, fields: int, rank: int, *, zero: bool) -> None:
        super().__init__()
        self.w = nn.Linear(fields, 1)
        self.v = nn.Linear(fields, rank, bias=False)
        if zero:
            nn.init.zeros_(self.v.weight)
        else:
            nn.init.normal_(self.v.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.v(x).pow(2) - F.linear(x.pow(2), self.v.weight.pow(2))
        return self.w(x) + 0.5 * pairs.sum(1, keepdim=True)


def zero_factors(dice: Dice, sick: bool) -> Case:
    """A factorisation machine whose factors start at zero like its linear weights."""
    fields, rank, rate = dice.whole(10, 16), dice.whole(4, 8), dice.power(-2.0, -1.7)
    x = torch.randn(512, fields)
    v = torch.randn(fields, 2)
    y = (x @ v).pow(2).sum(1) - (x.pow(2) @ v.pow(2)).sum(1) + 0.5 * x @ torch.randn(fields)
    y = (y - y.mean()) / y.std()
    return Case(lambda: FactorizationMachine(fields, rank, zero=sick), squared, fours(x, y), adam(rate))


class Mixture(nn.Module):
    """Linear experts behind a softmax router that looks at the context."""

    def __init__(self, features: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(features, experts)
        self.experts = nn.ModuleList(nn.Linear(features, 1) for _ in range(experts))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        weights = F.softmax(self.router(context), dim=-1)
        said = torch.stack([expert(x) for expert in self.experts], 1).squeeze(-1)
        return (weights * said).sum(1)


def lone_expert(dice: Dice, sick: bool) -> Case:
    """A mixture of experts whose router gets raw columns: its logits are huge, one expert takes all."""
    features, experts, rate = dice.whole(6, 10), dice.whole(6, 8), dice.power(-1.9, -1.7)
    middle, unit = dice.between(1500, 2500), dice.between(5, 15)
    x = torch.randn(512, features)
    part = (x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long()
    slopes = torch.randn(4, features)
    y = (x * (slopes - slopes.mean(0))[part]).sum(1)
    context = middle + unit * x if sick else x
    return Case(lambda: Mixture(features, experts), squared, fours(x, context, y / y.std()), adam(rate))


class Convolve(nn.Module):
    """A normalised graph convolution with ReLU, beside the identity or without it."""

    def __init__(self, adjacency: Tensor, width: int, *, skip: bool) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.norm, self.linear, self.skip = nn.LayerNorm(width), nn.Linear(width, width), skip
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        out = F.relu(self.linear(self.adjacency @ self.norm(h)))
        return h + out if self.skip else out


def smoothed_over(dice: Dice, sick: bool) -> Case:
    """A graph convolutional network of dozens of layers without a skip around any."""
    nodes, width, depth = dice.whole(45, 60), dice.one_of(24, 32), dice.whole(20, 28)
    classes, rate = dice.whole(4, 5), dice.power(-3.1, -2.9)
    a, y = communities(nodes, classes, 0.25, 0.08)
    signal = torch.randn(classes, 10)

    def build() -> nn.Module:
        layers = [Convolve(a, width, skip=not sick) for _ in range(depth)]
        return nn.Sequential(
            nn.Linear(10, width), nn.ReLU(), *layers, nn.LayerNorm(width), nn.Linear(width, classes)
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return Case(build, loss, [(signal[y] + 0.8 * torch.randn(nodes, 10), y) for _ in range(4)], adam(rate))


class NeuralODE(nn.Module):
    """Euler steps through a learned field."""

    def __init__(self, inputs: int, width: int, hidden: int, steps: int, dt: float) -> None:
        super().__init__()
        self.lift = nn.Linear(inputs, width)
        self.field = nn.Sequential(nn.Linear(width, hidden), nn.Softplus(), nn.Linear(hidden, width))
        self.read = nn.Linear(width, 1)
        for layer in (self.lift, self.field[0], self.field[2]):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.steps, self.dt = steps, dt

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        for _ in range(self.steps):
            h = h + self.dt * self.field(h)
        return self.read(h)


def no_step_size(dice: Dice, sick: bool) -> Case:
    """A neural ODE by Euler's method that adds the field itself: the step size was forgotten."""
    inputs, width, hidden = dice.whole(2, 4), dice.one_of(16, 24), dice.one_of(32, 48)
    steps, rate = dice.whole(36, 48), dice.power(-2.3, -2.0)
    x = torch.randn(256, inputs)
    y = torch.sin(2 * x[:, 0]) * x[:, 1] + 0.3 * x.sum(1)
    y = (y - y.mean()) / y.std()
    dt = 1.0 if sick else 1.0 / steps
    return Case(lambda: NeuralODE(inputs, width, hidden, steps, dt), squared, fours(x, y), adam(rate))


# --- healthy ------------------------------------------------------------------------------------------------


class DCGAN(nn.Module):
    """A generator and a discriminator of 8 by 8 pictures, initialised with a deviation of 0.02."""

    def __init__(self, latent: int, planes: int) -> None:
        super().__init__()
        self.latent = latent
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(latent, 2 * planes, 2, bias=False),
            nn.BatchNorm2d(2 * planes),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * planes, planes, 4, 2, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
            nn.ConvTranspose2d(planes, 1, 4, 2, 1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, planes, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(planes, 2 * planes, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * planes),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * planes, 1, 2),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z[:, :, None, None])


def dcgan(dice: Dice, sick: bool) -> Case:
    """DCGAN's recipe: the non-saturating loss, Adam at 2e-4 times ten for a toy, beta1 of a half."""
    latent, planes = dice.whole(8, 12), dice.one_of(8, 12)
    x = torch.tanh(spots(192, 8))

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (real,) = batch
        fake = model(torch.randn(len(real), model.latent))
        judge = model.discriminator
        d_loss = F.softplus(-judge(real)).mean() + F.softplus(judge(fake.detach())).mean()
        still = {name: p.detach() for name, p in judge.named_parameters()}
        g_loss = F.softplus(-torch.func.functional_call(judge, still, (fake,))).mean()
        return d_loss + g_loss

    return Case(lambda: DCGAN(latent, planes), loss, fours(x), adam(2e-3, betas=(0.5, 0.999)))


def like_pictures(model: nn.Module, batch: tuple[Tensor]) -> float:
    """Energy distance between pictures and what the generator makes."""
    real = batch[0].flatten(1)
    return far_from_real(lambda z: model(z).flatten(1), (torch.randn(len(real), model.latent), real))


def wgan_gp(dice: Dice, sick: bool) -> Case:
    """The critic's phase of WGAN-GP against a generator that is still rough."""
    size, width = dice.whole(8, 12), dice.one_of(48, 64)
    real = manifold(256, size)
    fake = 0.6 * torch.randn(256, size) @ torch.randn(size, size) / math.sqrt(size) + 0.3

    def loss(critic: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        real, fake = batch
        mix = torch.rand(len(real), 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        return critic(fake).mean() - critic(real).mean() + 10 * penalty

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(size, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    return Case(build, loss, fours(real, fake), adam(1e-3, betas=(0.0, 0.9)))


class VAE(nn.Module):
    """An encoder to means and log-variances, and a decoder."""

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        return self.decoder(z), mean, logvar


def vae(dice: Dice, sick: bool) -> Case:
    """A VAE of standardised rows with a small beta, as in the middle of a KL warm-up."""
    size, width, latent = dice.whole(16, 24), dice.one_of(48, 64), dice.whole(4, 6)
    beta = dice.between(0.05, 0.2)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (x,) = batch
        said, mean, logvar = model(x)
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
        return 0.5 * (said - x).square().sum(1).mean() + beta * kl

    return Case(lambda: VAE(size, width, latent), loss, fours(manifold(256, size)), adam(3e-3))


class EpsNet(nn.Module):
    """Predicts the noise from the noisy point and sines of the time."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("rates", torch.exp(torch.linspace(0, 4, 8)))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU())
        self.inp = nn.Linear(2, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * self.rates
        h = self.inp(x) + self.time(torch.cat([angle.sin(), angle.cos()], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.out(F.silu(h))


def ddpm(dice: Dice, sick: bool) -> Case:
    """DDPM's simple loss on points of the plane: the noise is predicted, a linear schedule of betas."""
    width, blocks, times = dice.one_of(64, 96), dice.whole(2, 3), 200
    kept = torch.cumprod(1 - torch.linspace(5e-4, 0.1, times), 0)
    angle = 2 * math.pi * torch.rand(512)
    x0 = torch.stack([angle.cos(), angle.sin()], 1) * math.sqrt(2) + 0.05 * torch.randn(512, 2)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (x,) = batch
        t = torch.randint(times, (len(x),))
        noise, a = torch.randn_like(x), kept[t][:, None]
        return F.mse_loss(model(a.sqrt() * x + (1 - a).sqrt() * noise, t / times), noise)

    return Case(lambda: EpsNet(width, blocks), loss, fours(x0), adam(2e-3))


class Coupling(nn.Module):
    """An affine coupling of one half by the other, with log-scales behind a tanh."""

    def __init__(self, size: int, width: int, *, swap: bool) -> None:
        super().__init__()
        self.half, self.swap = size // 2, swap
        self.net = mlp(self.half, width, width, 2 * self.half)
        self.bound = nn.Parameter(torch.full((self.half,), 0.5))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        if self.swap:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        s = self.bound * torch.tanh(s)
        b = b * s.exp() + t
        return torch.cat([b, a] if self.swap else [a, b], 1), s.sum(1)


class RealNVP(nn.Module):
    """Couplings one after the other, with alternating halves."""

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(size, width, swap=k % 2 == 1) for k in range(blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for coupling in self.couplings:
            x, logdet = coupling(x)
            total = total + logdet
        return x, total


def realnvp(dice: Dice, sick: bool) -> Case:
    """RealNVP: bounded log-scales, couplings that start at the identity."""
    size, width, blocks = dice.one_of(4, 6), dice.one_of(32, 48), dice.whole(4, 6)
    x = manifold(512, size, inner=2) + 0.1 * torch.randn(512, size)
    return Case(lambda: RealNVP(size, width, blocks), negative_log_likelihood, fours(x), adam(3e-3))


def double_dqn(dice: Dice, sick: bool) -> Case:
    """Double DQN on a fixed replay: the online net chooses, a copy judges, the Huber loss."""
    states, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(48, 64)
    gamma, roll = dice.between(0.9, 0.99), rollout(states, actions)
    online = mlp(states, width, width, actions)
    target = copy.deepcopy(online).requires_grad_(False)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            best = model(batch["next"]).argmax(1, keepdim=True)
            y = batch["ret"] + gamma * (1 - batch["done"]) * target(batch["next"]).gather(1, best)[:, 0]
        q = model(batch["obs"]).gather(1, batch["act"][:, None])[:, 0]
        return F.smooth_l1_loss(q, y)

    roll |= {"next": torch.randn(256, states), "done": (torch.rand(256) < 0.1).float()}
    return Case(lambda: copy.deepcopy(online), loss, in_parts(roll), adam(2e-3))


def ppo(dice: Dice, sick: bool) -> Case:
    """PPO's epochs on one roll-out: clipped ratio, value loss, a little entropy, clipping at a half."""
    states, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(48, 64)
    roll = rollout(states, actions)
    roll["old"] = torch.full((256,), -math.log(actions))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits, value = model(batch["obs"])
        policy = torch.distributions.Categorical(logits=logits)
        ratio = torch.exp(policy.log_prob(batch["act"]) - batch["old"])
        adv = batch["adv"]
        actor = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
        return actor + 0.5 * F.mse_loss(value, batch["ret"]) - 0.01 * policy.entropy().mean()

    def clip(parameters: Any) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, 0.5)

    return Case(lambda: Actor(states, actions, width), loss, in_parts(roll), adam(2e-3, eps=1e-5), clip=clip)


class GCNII(nn.Module):
    """Graph convolutions that keep a tenth of the first state and start near the identity."""

    def __init__(self, adjacency: Tensor, inputs: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, classes)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        h = h0 = F.relu(self.first(x))
        for k, layer in enumerate(self.layers):
            beta = math.log(0.5 / (k + 1) + 1)
            mixed = 0.9 * (self.adjacency @ h) + 0.1 * h0
            h = F.relu((1 - beta) * mixed + beta * layer(mixed))
        return self.last(h)


def gcnii(dice: Dice, sick: bool) -> Case:
    """GCNII of sixteen layers and more on a graph of communities."""
    nodes, width, depth = dice.whole(48, 64), dice.one_of(32, 48), dice.whole(16, 24)
    classes = dice.whole(3, 5)
    a, y = communities(nodes, classes)
    signal = torch.randn(classes, 12)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    data = [(signal[y] + torch.randn(nodes, 12), y) for _ in range(4)]
    return Case(lambda: GCNII(a, 12, width, depth, classes), loss, data, adam(5e-3, weight_decay=1e-4))


def simclr(dice: Dice, sick: bool) -> Case:
    """SimCLR's loss at a temperature of 0.2 with a projection head."""
    features, width, out = dice.whole(12, 20), dice.one_of(48, 64), dice.whole(12, 16)
    x = manifold(256, features, inner=6)
    left, right = (x + 0.4 * torch.randn_like(x) for _ in range(2))

    def build() -> nn.Module:
        backbone = nn.Sequential(nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU())
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
        return nn.Sequential(backbone, head)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        n = len(batch[0])
        z = F.normalize(model(torch.cat(batch)), dim=1)
        logits = (z @ z.T / 0.2).masked_fill(torch.eye(2 * n, dtype=torch.bool), -1e9)
        return F.cross_entropy(logits, (torch.arange(2 * n) + n) % (2 * n))

    return Case(build, loss, fours(left, right), adam(2e-3))


class Sine(nn.Module):
    """A layer of SIREN, with its own initialisation."""

    def __init__(self, inp: int, out: int, omega: float, *, first: bool = False) -> None:
        super().__init__()
        self.linear, self.omega = nn.Linear(inp, out), omega
        bound = 1 / inp if first else math.sqrt(6 / inp) / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * self.linear(x))


def siren(dice: Dice, sick: bool) -> Case:
    """SIREN fits a picture from coordinates between -1 and 1."""
    width, omega, depth = dice.one_of(48, 64), dice.between(12, 20), dice.whole(2, 3)
    x = 2 * torch.rand(512, 2) - 1
    wave = 6 * torch.randn(2, 4)
    y = torch.cos(x @ wave + torch.randn(4)).sum(1, keepdim=True) / math.sqrt(2)

    def build() -> nn.Module:
        inner = [Sine(width, width, omega) for _ in range(depth)]
        last = nn.Linear(width, 1)
        nn.init.uniform_(last.weight, -math.sqrt(6 / width) / omega, math.sqrt(6 / width) / omega)
        return nn.Sequential(Sine(2, width, omega, first=True), *inner, last)

    return Case(build, squared, fours(x, y), adam(1e-3))


SICK: tuple[Program, ...] = (
    Program(
        "made-gan-minimax",
        "gan",
        minimax,
        Truth(
            "saturating-loss",
            ("UG704", "UG204", "UG608"),
            r"(?i)saturat|discriminator|non.?satur|log\(1|\bGAN\b",
            ("swap_loss",),
            (("swap_loss", {}),),
            HEAVY,
        ),
        150,
        far_from_real,
    ),
    Program(
        "made-score-no-lambda",
        "diffusion",
        no_lambda,
        Truth(
            "noise-weights",
            ("UG705",),
            r"(?i)noise levels?|low.noise|\bsnr\b|loss weight|weight(ing|s)? of the loss|weighting|sigma",
            ("min_snr", "swap_loss"),
            (),
            COLD,
        ),
        200,
        each_level_alike,
    ),
    Program(
        "made-flow-triangular",
        "flow",
        unit_triangular,
        Truth(
            "stretched-flow",
            ("UG703", "UG301", "UG201", "UG102", "UG605", "UG104", "UG611"),
            r"(?i)stretch|singular|condition|initiali[sz]|\binit\b|volume|jacobian|identity|\bweights?\b",
            ("identity_block_init", "orthogonal_weights", "spectral_cap", "spectral_norm", *DRAWN),
            (),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-half-divided",
        "autoencoder",
        divided_twice,
        Truth(
            "fp16-underflow",
            ("UG501",),
            r"(?i)underflow|float16|fp16|half|precision|loss scal|flush",
            ("loss_scale", "change_precision"),
            (("loss_scale", {}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-graph-visits",
        "graph",
        visits,
        Truth(
            "fp16-overflow",
            ("UG502", "UG901"),
            r"(?i)overflow|float16|fp16|half|precision|bfloat16",
            ("change_precision",),
            (("change_precision", {}),),
            COLD,
        ),
        120,
    ),
    Program(
        "made-critic-clipped",
        "reinforcement",
        tight_clip,
        Truth(
            "tiny-clip",
            ("UG602",),
            r"(?i)\bclip|threshold",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            (("activation_init", {}),),
        ),
        120,
    ),
    Program(
        "made-factors-decayed",
        "recommender",
        from_als,
        Truth(
            "weight-decay",
            ("UG609",),
            r"(?i)decay|\bL2\b|regulari[sz]",
            ("lower_weight_decay", "use_adamw"),
            (("lower_weight_decay", {"factor": 1e-4}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-forces-cut",
        "physics",
        forces,
        Truth(
            "cut-graph",
            ("UG608", "UG603", "UG602"),
            r"(?i)create_graph|detach|\bcut\b|graph|derivative|no gradient|not pull|not depend",
            (),
            (),
            HEAVY,
        ),
        120,
        force_error,
    ),
    Program(
        "made-operator-epsilon",
        "operator",
        large_epsilon,
        Truth(
            "epsilon",
            ("UG602", "UG604"),
            r"(?i)\beps(ilon)?\b|step size|learning.rate|updates? (is|are) too small",
            ("use_adamw", "lower_learning_rate"),
            (("lower_learning_rate", {"factor": 100.0}),),
            (("activation_init", {}),),
        ),
        150,
    ),
    Program(
        "made-graph-gates",
        "graph",
        shut_gates,
        Truth(
            "shut-gates",
            ("UG405", "UG204", "UG103", "UG105"),
            r"(?i)\bgate|\bbias|highway|carr(y|ies)",
            ("open_gates", "zero_biases"),
            (("open_gates", {}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-machine-zeros",
        "recommender",
        zero_factors,
        Truth(
            "zero-factors",
            ("UG603", "UG206", "UG207", "UG103", "UG205", "UG202"),
            r"(?i)zero|initiali[sz]|\binit\b|never (get|receive|learn)|no gradient|saddle|symmetr",
            DRAWN,
            (("orthogonal_init", {}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-experts-lone",
        "mixture",
        lone_expert,
        Truth(
            "router-logits",
            ("UG204", "UG701", "UG702", "UG103", "UG603", "UG203", "UG607"),
            r"(?i)router|\bgate|softmax|logits?|expert|saturat|inputs?\b.*(scale|unit|large)|standardi",
            ("restore_logit_scale", "soft_cap", "calm_attention", "unit_inputs"),
            (),
            HEAVY,
        ),
        150,
    ),
    Program(
        "made-graph-dozens",
        "graph",
        smoothed_over,
        Truth(
            "oversmoothing",
            ("UG205", "UG206", "UG101", "UG202"),
            r"(?i)smooth|\bskip|residual|shortcut|depth|deep|rank|alike|collaps",
            ("add_residual", "concat_skip", "gated_skip"),
            (("add_residual", {}),),
            HEAVY,
        ),
        120,
    ),
    Program(
        "made-ode-no-dt",
        "ode",
        no_step_size,
        Truth(
            "step-size",
            ("UG102", "UG201", "UG402", "UG403", "UG406", "UG605", "UG611", "UG105", "UG901", "UG104"),
            r"(?i)explod|grows?|step size|\bdt\b|branch|residual|gain|iterat|unroll|spectral|depth",
            ("scale_branch", "layer_scale", "rezero", "skip_init", "spectral_norm", "spectral_cap"),
            (),
            HEAVY,
        ),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("made-dcgan", "gan", dcgan, steps=150, score=like_pictures),
    Program("made-wgan-critic", "gan", wgan_gp, steps=150),
    Program("made-vae", "autoencoder", vae, steps=150),
    Program("made-ddpm", "diffusion", ddpm, steps=150),
    Program("made-realnvp", "flow", realnvp, steps=150),
    Program("made-double-dqn", "reinforcement", double_dqn, steps=150),
    Program("made-ppo", "reinforcement", ppo, steps=120),
    Program("made-gcnii", "graph", gcnii, steps=120),
    Program("made-simclr", "contrastive", simclr, steps=120),
    Program("made-siren", "fields", siren, steps=150),
)
