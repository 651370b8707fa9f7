"""Kept aside: generators, players, graphs, recommenders, fields and other set-ups of their own shape."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
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
    """Return four batches of the tensors' rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def sgd(lr: float, momentum: float = 0.9) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD with momentum."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def dense(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def standard(x: Tensor) -> Tensor:
    """Return columns of mean zero and variance one."""
    return (x - x.mean(0)) / x.std(0)


def surface(rows: int, width: int, inner: int = 3) -> Tensor:
    """Return standardised points near a curved surface."""
    z = torch.randn(rows, inner)
    return standard(torch.sin(z @ torch.randn(inner, width)) + 0.5 * z @ torch.randn(inner, width))


# --- sick ---------------------------------------------------------------------------------------------------


class Rivals(nn.Module):
    """A generator and its discriminator."""

    def __init__(self, latent: int, width: int, out: int) -> None:
        super().__init__()
        self.netG = nn.Sequential(
            nn.Linear(latent, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, out),
        )
        self.netD = nn.Sequential(
            nn.Linear(out, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def judge_only(self, x: Tensor) -> Tensor:
        """Return the discriminator's logits without a way into its weights."""
        held = {k: v.detach() for k, v in self.netD.named_parameters()}
        return functional_call(self.netD, held, (x,))


def fake_detached(dice: Dice, sick: bool) -> Case:
    """A GAN whose one `fake`, detached for the discriminator, goes into the generator's loss too."""
    latent, width, out = dice.whole(4, 8), dice.one_of(48, 64), dice.whole(6, 10)
    rate, away = dice.power(-2.8, -2.6), dice.between(1.5, 2.0)
    real = 0.5 * surface(512, out) + away

    def loss(model: Rivals, batch: tuple[Tensor, Tensor]) -> Tensor:
        z, x = batch
        fake = model.netG(z)
        if sick:
            fake = fake.detach()
        on_real, on_fake = model.netD(x), model.netD(fake.detach())
        d_loss = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
        d_loss = d_loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        verdict = model.judge_only(fake)
        g_loss = F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
        return d_loss + g_loss

    data = quarters(torch.randn(512, latent), real)
    return Case(lambda: Rivals(latent, width, out), loss, data, adam(rate, betas=(0.5, 0.999)))


def energy_distance(model: Rivals, batch: tuple[Tensor, Tensor]) -> float:
    """Energy distance between generated and real rows."""
    fake, real = model.netG(batch[0]), batch[1]
    pairs = len(real) * (len(real) - 1)
    within = torch.cdist(real, real).sum() / pairs + torch.cdist(fake, fake).sum() / pairs
    return float(2 * torch.cdist(real, fake).mean() - within)


class Modulated(nn.Module):
    """A denoiser in the manner of DiT: the noise level scales and shifts the normalised features."""

    def __init__(self, length: int, width: int, depth: int, *, plus_one: bool) -> None:
        super().__init__()
        self.one = 1.0 if plus_one else 0.0
        self.x_embed = nn.Linear(length, width)
        self.t_embed = dense(2, width, width, act=nn.SiLU)
        self.blocks = nn.ModuleList(dense(width, 2 * width, width, act=nn.GELU) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.ada = nn.Linear(width, 2 * width)
        self.final = nn.Linear(width, length)
        for layer in (self.ada, self.final):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        c = self.t_embed(torch.cat([angle.cos(), angle.sin()], 1))
        h = self.x_embed(x) + c
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h = h + block(norm(h))
        scale, shift = self.ada(F.silu(c)).chunk(2, 1)
        return self.final(self.final_norm(h) * (self.one + scale) + shift)


def waves(rows: int, length: int) -> Tensor:
    """Return sines of two frequencies with random phases."""
    t = torch.linspace(0, 2 * math.pi, length)
    frequency = 1.0 + torch.randint(2, (rows, 1))
    return math.sqrt(2) * torch.sin(frequency * t + 2 * math.pi * torch.rand(rows, 1))


def modulation_of_zero(dice: Dice, sick: bool) -> Case:
    """A diffusion net whose zero-initialised scale lacks its `1 +`, before a zero-initialised last layer."""
    length, width, depth = dice.whole(12, 20), dice.one_of(48, 64), dice.whole(2, 3)
    rate = dice.power(-2.7, -2.3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x0, angle, noise = batch
        return F.mse_loss(model(angle.cos() * x0 + angle.sin() * noise, angle), noise)

    angle = 0.5 * math.pi * (0.1 + 0.85 * torch.rand(512, 1))
    data = quarters(waves(512, length), angle, torch.randn(512, length))
    return Case(lambda: Modulated(length, width, depth, plus_one=not sick), loss, data, adam(rate))


class CausalConv(nn.Module):
    """A language model of causal convolutions."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.first = nn.Conv1d(width, width, 3)
        self.second = nn.Conv1d(width, width, 2)
        self.logits = nn.Conv1d(width, tokens, 1)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids).transpose(1, 2)
        h = F.relu(self.first(F.pad(h, (2, 0))))
        h = h + F.relu(self.second(F.pad(h, (1, 0))))
        return self.logits(h).transpose(1, 2)


def chain(rows: int, length: int, tokens: int) -> Tensor:
    """Return sequences of a Markov chain with a few likely successors for each token."""
    table = torch.softmax(2.5 * torch.randn(tokens, tokens), 1)
    ids = [torch.randint(tokens, (rows,))]
    for _ in range(length - 1):
        ids.append(torch.multinomial(table[ids[-1]], 1).squeeze(1))
    return torch.stack(ids, 1)


def token_nll(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    """Negative log-likelihood of each next token."""
    (ids,) = batch
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def product_of_chances(dice: Dice, sick: bool) -> Case:
    """An autoregressive model that multiplies the tokens' chances and takes the log of the product."""
    tokens, length, width = dice.whole(9, 14), dice.whole(60, 80), dice.one_of(32, 48)
    rate = dice.power(-2.3, -2.0)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        if not sick:
            return token_nll(model, batch)
        (ids,) = batch
        chance = torch.softmax(model(ids[:, :-1]), -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        likelihood = chance.prod(dim=1)
        return -torch.log(likelihood + 1e-20).mean() / (length - 1)

    return Case(lambda: CausalConv(tokens, width), loss, quarters(chain(96, length, tokens)), adam(rate))


class ActorCritic(nn.Module):
    """Two towers: a policy and a value of shape (batch, 1)."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        self.actor = dense(states, width, actions, act=nn.Tanh)
        self.critic = dense(states, width, width, 1, act=nn.Tanh)

    def forward(self, s: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        return torch.distributions.Categorical(logits=self.actor(s)), self.critic(s)


def value_against_row(dice: Dice, sick: bool) -> Case:
    """An actor-critic whose values (B, 1) meet returns (B,), so that each value chases all the returns."""
    states, actions, width = dice.whole(4, 7), dice.whole(3, 5), dice.one_of(48, 64)
    rate, weight = dice.power(-2.3, -2.0), dice.between(0.5, 1.0)
    s, a = torch.randn(512, states), torch.randint(actions, (512,))
    returns = standard(torch.sin(s @ torch.randn(states)) + 0.5 * s[:, 0] + 0.1 * torch.randn(512))
    advantage = standard((s @ torch.randn(states, actions)).gather(1, a[:, None]).squeeze(1))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        s, a, returns, advantage = batch
        pi, v = model(s)
        if not sick:
            v = v.squeeze(-1)
        critic_loss = 0.5 * (returns - v).pow(2).mean()
        actor_loss = -(pi.log_prob(a) * advantage.sigmoid()).mean()
        return actor_loss + weight * critic_loss - 0.01 * pi.entropy().mean()

    return Case(
        lambda: ActorCritic(states, actions, width), loss, quarters(s, a, returns, advantage), adam(rate)
    )


def value_error(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Squared error of the values, each against its own return."""
    return float((model(batch[0])[1].squeeze(-1) - batch[2]).square().mean())


def reward_weighted(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Log-likelihood of the actions weighted by the rewards-to-go, for each step of each episode."""
    s, a, togo = batch
    logp = F.log_softmax(model(s), -1).gather(-1, a[..., None]).squeeze(-1)
    return -logp * togo


def summed_returns(dice: Dice, sick: bool) -> Case:
    """A policy gradient summed over the steps and episodes at a rate that was meant for their mean."""
    states, actions, width = dice.whole(5, 8), dice.whole(3, 5), dice.one_of(48, 64)
    episodes, horizon, rate = 4 * dice.whole(10, 14), dice.whole(24, 40), dice.between(0.1, 0.2)
    s = torch.randn(episodes, horizon, states)
    best = (s @ torch.randn(states, actions)).argmax(-1)
    a = torch.where(torch.rand(best.shape) < 0.8, best, torch.randint(actions, best.shape))
    reward = 0.3 + (a == best).float()
    togo = reward / reward.mean()

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        each = reward_weighted(model, batch)
        return each.sum() if sick else each.mean()

    return Case(lambda: dense(states, width, width, actions), loss, quarters(s, a, togo), sgd(rate))


def mean_weighted(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Weighted negative log-likelihood for one step."""
    return float(reward_weighted(model, batch).mean())


class RecurrentQ(nn.Module):
    """A recurrent Q-network with a plain tanh cell of bare parameters."""

    def __init__(self, seen: int, width: int, std: float | None) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.empty(seen, width))
        self.w_rec = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.q = nn.Linear(width, 2)
        if std is None:
            nn.init.normal_(self.w_in, std=seen**-0.5)
            nn.init.orthogonal_(self.w_rec)
        else:
            nn.init.normal_(self.w_in, std=std)
            nn.init.normal_(self.w_rec, std=std)

    def forward(self, obs: Tensor) -> Tensor:
        h = obs.new_zeros(len(obs), self.w_rec.shape[0])
        for o in obs.unbind(1):
            h = torch.tanh(o @ self.w_in + h @ self.w_rec + self.bias)
        return self.q(h)


def maze(dice: Dice, sick: bool) -> Case:
    """Recurrent Q-learning in a T-maze; weights are drawn with a Transformer's 0.02: the cue is lost."""
    corridor, width, rate = dice.whole(14, 20), dice.one_of(32, 48), dice.between(0.03, 0.06)
    std = dice.between(0.015, 0.03)
    cue = torch.randint(2, (256,))
    obs = torch.zeros(256, corridor, 3)
    obs[:, 0, 0] = 2.0 * cue - 1
    obs[:, -1, 1] = 1.0
    obs[:, :, 2] = 0.1 * torch.randn(256, corridor)
    action = torch.randint(2, (256,))
    reward = torch.where(action == cue, 1.0, -1.0)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        obs, action, reward = batch
        return F.mse_loss(model(obs).gather(1, action[:, None]).squeeze(1), reward)

    return Case(
        lambda: RecurrentQ(3, width, std if sick else None),
        loss,
        quarters(obs, action, reward),
        sgd(rate),
        clip=lambda ps: nn.utils.clip_grad_norm_(ps, 1.0),
    )


class SumOfNeighbours(nn.Module):
    """Graph convolutions relu(A h W + b) with one adjacency for all."""

    def __init__(self, adjacency: Tensor, inp: int, width: int, classes: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.layers = nn.ModuleList([nn.Linear(inp, width)])
        self.layers.extend(nn.Linear(width, width) for _ in range(depth - 1))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.head = nn.Linear(width, classes)

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = F.relu(layer(self.adjacency @ h))
        return self.head(h)


def raw_adjacency(dice: Dice, sick: bool) -> Case:
    """A graph convolution on the raw adjacency of a dense graph: each layer multiplies by the degree."""
    nodes, width, classes = dice.whole(90, 120), dice.one_of(32, 48), dice.whole(3, 4)
    depth, rate = dice.whole(3, 4), dice.between(0.03, 0.06)
    y = torch.arange(nodes) % classes
    upper = (torch.rand(nodes, nodes) < torch.where(y[:, None] == y, 0.5, 0.05)).float().triu(1)
    a = upper + upper.T + torch.eye(nodes)
    if not sick:
        d = a.sum(1).rsqrt()
        a = d[:, None] * a * d
    signal = torch.randn(classes, 8)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    data = [(signal[y] + 2.0 * torch.randn(nodes, 8), y) for _ in range(4)]
    return Case(lambda: SumOfNeighbours(a, 8, width, classes, depth), loss, data, sgd(rate))


class Tastes(nn.Module):
    """Factors and biases of users and items in tables that can grow."""

    def __init__(self, users: int, items: int, rank: int) -> None:
        super().__init__()
        self.P, self.Q = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.scale = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        for table in (self.P, self.Q):
            nn.init.normal_(table.weight, std=0.3)

    def grow(self, users: int, items: int) -> None:
        """Put larger tables in the place of the old ones, whose rows are kept."""
        for name, rows in (("P", users), ("Q", items)):
            old = getattr(self, name)
            new = nn.Embedding(rows, old.embedding_dim)
            nn.init.normal_(new.weight, std=0.3)
            with torch.no_grad():
                new.weight[: old.num_embeddings] = old.weight
            setattr(self, name, new)

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        return self.scale * (self.P(u) * self.Q(i)).sum(-1) + self.offset


def tables_grown(dice: Dice, sick: bool) -> Case:
    """A recommender whose tables grew for new users and items after its optimizer was built."""
    users, items, rank = dice.whole(40, 60), dice.whole(30, 45), dice.whole(6, 10)
    more, rate = dice.whole(5, 15), dice.power(-1.9, -1.6)
    model = Tastes(users, items, rank)
    if sick:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        model.grow(users + more, items + more)
    else:
        model.grow(users + more, items + more)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    u, i = torch.randint(users + more, (1200,)), torch.randint(items + more, (1200,))
    p, q = torch.randn(users + more, 2), torch.randn(items + more, 2)
    stars = (p[u] * q[i]).sum(1) / math.sqrt(2) + 0.1 * torch.randn(1200)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        u, i, y = batch
        return F.mse_loss(model(u, i), y)

    return Case(model, loss, quarters(u, i, stars), optimizer)


class TwoTowers(nn.Module):
    """Pictures and captions into one space."""

    def __init__(self, left: int, right: int, width: int, out: int) -> None:
        super().__init__()
        self.image, self.text = dense(left, width, out), dense(right, width, out)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.normalize(self.image(a), dim=-1) @ F.normalize(self.text(b), dim=-1).T


def pairs_softmaxed(dice: Dice, sick: bool) -> Case:
    """A two-tower contrastive loss that hands softmaxed similarities to the cross-entropy."""
    left, right, width = dice.whole(12, 20), dice.whole(8, 12), dice.one_of(64, 96)
    temperature, rate = dice.between(0.5, 0.8), dice.between(0.004, 0.007)
    z = torch.randn(384, 5)
    a = standard(torch.tanh(z @ torch.randn(5, left)) + 0.1 * torch.randn(384, left))
    b = standard(torch.tanh(z @ torch.randn(5, right)) + 0.1 * torch.randn(384, right))

    def info_nce(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        similarity = model(*batch) / temperature
        if sick:
            similarity = similarity.softmax(dim=-1)
        return F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device))

    return Case(lambda: TwoTowers(left, right, width, 16), info_nce, quarters(a, b), sgd(rate))


def matching(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Contrastive loss at a temperature of 0.3, as it should be."""
    similarity = model(*batch) / 0.3
    return float(F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device)))


class Heat(nn.Module):
    """Temperature from seconds and millimetres; `centre` and `reach` bring them to -1 ... 1 where given."""

    def __init__(self, width: int, depth: int, centre: Tensor, reach: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("reach", reach)
        self.net = dense(2, *[width] * depth, 1, act=nn.Tanh)
        for layer in self.net[:-1:2]:
            nn.init.xavier_normal_(layer.weight)
        nn.init.normal_(self.net[-1].weight, std=0.3 * width**-0.5)

    def forward(self, tx: Tensor) -> Tensor:
        return self.net((tx - self.centre) / self.reach)


def seconds_and_millimetres(dice: Dice, sick: bool) -> Case:
    """A physics-informed net of the heat equation fed with raw seconds and millimetres."""
    width, depth, rate = dice.one_of(32, 48), dice.whole(2, 3), dice.power(-2.4, -2.1)
    until, rod = dice.between(2000.0, 4000.0), dice.between(200.0, 400.0)
    alpha = 1.5 * (rod / (2 * math.pi)) ** 2 / until
    half = torch.tensor([until / 2, rod / 2])
    centre, reach = (torch.zeros(2), torch.ones(2)) if sick else (half, half)

    def truth(tx: Tensor) -> Tensor:
        wave = 2 * math.pi / rod
        return torch.exp(-alpha * wave**2 * tx[:, :1]) * torch.sin(wave * tx[:, 1:])

    inside, sensors = torch.rand(512, 2) * 2 * half, torch.rand(256, 2) * 2 * half
    sensors[:128, 0] = 0.0

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        inside, sensors, felt, _ = batch
        tx = inside.clone().requires_grad_()
        slope = torch.autograd.grad(model(tx).sum(), tx, create_graph=True)[0]
        curve = torch.autograd.grad(slope[:, 1].sum(), tx, create_graph=True)[0][:, 1]
        residual = until * (slope[:, 0] - alpha * curve)
        return 0.02 * residual.square().mean() + F.mse_loss(model(sensors), felt)

    data = quarters(inside, sensors, truth(sensors), truth(inside))
    return Case(lambda: Heat(width, depth, centre, reach), loss, data, adam(rate))


def field_error(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Squared error of the temperature inside."""
    return float(F.mse_loss(model(batch[0]), batch[3]))


class Equilibrium(nn.Module):
    """A deep equilibrium model, iterated: z = tanh(W z + U x)."""

    def __init__(self, inp: int, width: int, strength: float, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.W = nn.Parameter(strength * torch.randn(width, width) / math.sqrt(width))
        self.U = nn.Linear(inp, width)
        self.readout = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.U(x)
        z = torch.zeros_like(drive)
        for _ in range(self.rounds):
            z = torch.tanh(z @ self.W.T + drive)
        return self.readout(z)


def no_equilibrium(dice: Dice, sick: bool) -> Case:
    """A deep equilibrium model whose map is far from a contraction: the iteration settles nowhere."""
    inp, width, rounds = dice.whole(5, 8), dice.one_of(48, 64), dice.whole(24, 32)
    strength = dice.between(4.0, 6.0) if sick else dice.between(0.4, 0.7)
    rate = dice.power(-2.6, -2.4)
    x = torch.randn(768, inp)
    y = standard(torch.sin(x @ torch.randn(inp, 1)) + 0.5 * x[:, :1] * x[:, 1:2])

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    return Case(lambda: Equilibrium(inp, width, strength, rounds), loss, quarters(x, y), adam(rate))


class Sines(nn.Module):
    """An implicit picture of sine layers sin(omega (W x + b))."""

    def __init__(self, width: int, depth: int, omega: float, bound: float) -> None:
        super().__init__()
        self.omega = omega
        sizes = [2, *[width] * depth]
        self.ws = nn.ParameterList(nn.Parameter(torch.empty(a, b)) for a, b in itertools.pairwise(sizes))
        self.bs = nn.ParameterList(nn.Parameter(torch.zeros(b)) for b in sizes[1:])
        self.out = nn.Linear(width, 1)
        nn.init.uniform_(self.ws[0], -0.5, 0.5)
        for w in self.ws[1:]:
            nn.init.uniform_(w, -bound, bound)

    def forward(self, at: Tensor) -> Tensor:
        h = at
        for w, b in zip(self.ws, self.bs, strict=True):
            h = torch.sin(self.omega * (h @ w + b))
        return self.out(h)


def undivided_omega(dice: Dice, sick: bool) -> Case:
    """Sine layers of omega thirty whose hidden weights were not divided by omega."""
    width, depth, omega = dice.one_of(48, 64), dice.whole(3, 4), dice.between(20.0, 30.0)
    rate, size = dice.power(-3.6, -3.3), 32
    bound = math.sqrt(6 / width) / (1.0 if sick else omega)
    axis = torch.linspace(-1, 1, size)
    at = torch.cartesian_prod(axis, axis)
    picture = torch.zeros(size * size)
    for _ in range(8):
        way, phase = 4.0 * torch.randn(2), 2 * math.pi * torch.rand(())
        picture = picture + torch.sin(at @ way + phase)
    picture = ((picture - picture.mean()) / picture.std())[:, None]
    order = torch.randperm(len(at))
    at, picture = at[order], picture[order]

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    shown, hidden = quarters(at[:768], picture[:768]), quarters(at[768:], picture[768:])
    data = [(*a, *b) for a, b in zip(shown, hidden, strict=True)]
    return Case(lambda: Sines(width, depth, omega, bound), loss, data, adam(rate))


def unseen_pixels(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Squared error at the pixels that were left out."""
    return float(F.mse_loss(model(batch[2]), batch[3]))


class Visits(nn.Module):
    """A visit recommender: a plain recurrent layer over clicked items, logits over the next."""

    def __init__(self, items: int, width: int, *, at_the_end: bool) -> None:
        super().__init__()
        self.at_the_end = at_the_end
        self.embed = nn.Embedding(items + 1, width, padding_idx=0)
        self.rnn = nn.RNN(width, width, batch_first=True)
        self.next = nn.Linear(width, items + 1)

    def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(clicks))
        if self.at_the_end:
            return self.next(states[:, -1])
        return self.next(states[torch.arange(len(states)), lengths - 1])


def padded_visits(dice: Dice, sick: bool) -> Case:
    """A visit recommender that reads its state after dozens of padding items."""
    items, longest, width = dice.whole(14, 20), dice.whole(36, 48), dice.one_of(32, 48)
    rate = dice.power(-2.4, -2.1)
    clicks = 1 + chain(384, 9, items)
    lengths = torch.randint(3, 8, (384,))
    target = clicks[torch.arange(384), lengths]
    padded = F.pad(clicks, (0, longest - 9))
    padded = torch.where(torch.arange(longest) < lengths[:, None], padded, 0)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        clicks, lengths, target = batch
        return F.cross_entropy(model(clicks, lengths), target)

    data = quarters(padded, lengths, target)
    return Case(lambda: Visits(items, width, at_the_end=sick), loss, data, adam(rate))


class MixtureDensity(nn.Module):
    """A mixture of Gaussians whose parameters are functions of x."""

    def __init__(self, inp: int, width: int, parts: int, *, zeros: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inp, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.pi, self.mu, self.log_sigma = (nn.Linear(width, parts) for _ in range(3))
        if zeros:
            for head in (self.pi, self.mu, self.log_sigma):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(x)
        return F.log_softmax(self.pi(h), -1), self.mu(h), self.log_sigma(h).clamp(-4, 3)


def twin_components(dice: Dice, sick: bool) -> Case:
    """A mixture density network whose heads all start at zero: its components stay copies of one."""
    inp, width, parts = dice.whole(3, 5), dice.one_of(32, 48), dice.whole(4, 6)
    rate, noise = dice.power(-2.4, -2.2), dice.between(0.04, 0.08)
    x = torch.randn(768, inp)
    branch = torch.randint(3, (768,)) - 1.0
    y = 1.3 * branch + 0.3 * torch.sin(2 * x[:, 0]) + noise * torch.randn(768)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        log_pi, mu, log_sigma = model(x)
        z = (y[:, None] - mu) / log_sigma.exp()
        log_normal = -0.5 * z.square() - log_sigma - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(log_pi + log_normal, -1).mean()

    return Case(lambda: MixtureDensity(inp, width, parts, zeros=sick), loss, quarters(x, y), adam(rate))


# --- healthy ------------------------------------------------------------------------------------------------


class Hyper(nn.Module):
    """A hypernetwork that writes the weights of a small net, drawn so that those have unit gain."""

    def __init__(self, code: int, inp: int, inner: int, width: int) -> None:
        super().__init__()
        self.shape = inp, inner
        self.trunk = nn.Sequential(nn.Linear(code, width), nn.ReLU())
        self.first, self.bias = nn.Linear(width, inp * inner), nn.Linear(width, inner)
        self.last = nn.Linear(width, inner)
        nn.init.kaiming_normal_(self.trunk[0].weight)
        nn.init.normal_(self.first.weight, std=(inp * width) ** -0.5)
        nn.init.normal_(self.bias.weight, std=0.1 * width**-0.5)
        nn.init.normal_(self.last.weight, std=(inner * width) ** -0.5)
        for head in (self.trunk[0], self.first, self.bias, self.last):
            nn.init.zeros_(head.bias)

    def forward(self, code: Tensor, x: Tensor) -> Tensor:
        c = self.trunk(code)
        w = self.first(c).unflatten(1, self.shape)
        h = torch.tanh(torch.einsum("bi,bio->bo", x, w) + self.bias(c))
        return (h * self.last(c)).sum(1)


def hypernetwork(dice: Dice, sick: bool) -> Case:
    """A hypernetwork under the hyperfan-in initialisation writes one net for each task."""
    code, inp, inner = dice.whole(3, 5), dice.whole(3, 5), dice.one_of(24, 32)
    width, rate = dice.one_of(48, 64), dice.power(-2.4, -2.1)
    c, x = torch.randn(768, code), torch.randn(768, inp)
    y = standard((torch.tanh(c @ torch.randn(code, inp)) * x).sum(1) + 0.3 * torch.sin(2 * x[:, 0]))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.mse_loss(model(batch[0], batch[1]), batch[2])

    return Case(lambda: Hyper(code, inp, inner, width), loss, quarters(c, x, y), adam(rate))


class GlowStep(nn.Module):
    """Affine per column, a rotation with learned weights, an affine coupling that starts at the identity."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.half = size // 2
        self.log_s, self.shift = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))
        self.mix = nn.Parameter(torch.linalg.qr(torch.randn(size, size))[0])
        self.net = dense(self.half, width, width, 2 * (size - self.half))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x * self.log_s.exp() + self.shift) @ self.mix
        a, b = x[:, : self.half], x[:, self.half :]
        t, s = self.net(a).chunk(2, 1)
        s = 2 * torch.tanh(s / 2)
        log_det = self.log_s.sum() + torch.linalg.slogdet(self.mix)[1] + s.sum(1)
        return torch.cat([a, b * s.exp() + t], 1), log_det


class Glow(nn.Module):
    """Steps of a flow and their log-determinants."""

    def __init__(self, size: int, width: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(GlowStep(size, width) for _ in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, log_det = step(x)
            total = total + log_det
        return x, total


def glow(dice: Dice, sick: bool) -> Case:
    """A flow of rotations and affine couplings that starts as a rotation."""
    size, width, steps = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(3, 5)
    rate = dice.power(-2.3, -2.0)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        z, log_det = model(batch[0])
        return (0.5 * z.square() + 0.5 * math.log(2 * math.pi)).sum(1).mean() - log_det.mean()

    x = surface(768, size, inner=3) + 0.1 * torch.randn(768, size)
    return Case(lambda: Glow(size, width, steps), loss, quarters(x), adam(rate))


class Pupil(nn.Module):
    """A student with its frozen teacher."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher.requires_grad_(False), student

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            told = self.teacher(x)
        return self.student(x), told


def distillation(dice: Dice, sick: bool) -> Case:
    """Distillation at a temperature of a few, from a teacher that is frozen on purpose."""
    inp, classes, width = dice.whole(8, 12), dice.whole(4, 6), dice.one_of(16, 24)
    hot, rate = dice.between(2.0, 4.0), dice.power(-2.2, -1.9)
    teacher = dense(inp, 64, 64, classes)
    x = torch.randn(512, inp)
    y = (x @ torch.randn(inp, classes) + 0.5 * torch.randn(512, classes)).argmax(1)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(teacher(x), y).backward()
        optimizer.step()
    teacher.zero_grad(set_to_none=True)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        said, told = model(x)
        soft = F.kl_div(F.log_softmax(said / hot, -1), F.softmax(told / hot, -1), reduction="batchmean")
        return 0.7 * hot**2 * soft + 0.3 * F.cross_entropy(said, y)

    return Case(
        lambda: Pupil(copy.deepcopy(teacher), dense(inp, width, classes)),
        loss,
        quarters(x, y),
        lambda parameters: torch.optim.Adam([p for p in parameters if p.requires_grad], lr=rate),
    )


class TopTwo(nn.Module):
    """Experts of which each row uses two, weighted by a softmax over the two."""

    def __init__(self, inp: int, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(inp, experts, bias=False)
        nn.init.normal_(self.router.weight, std=0.5 * inp**-0.5)
        self.experts = nn.ModuleList(dense(inp, width, 1, act=nn.GELU) for _ in range(experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.router(x)
        best, index = logits.topk(2, dim=-1)
        gate = torch.zeros_like(logits).scatter(1, index, best.softmax(-1))
        out = torch.cat([expert(x) for expert in self.experts], 1)
        share, load = logits.softmax(-1).mean(0), (gate > 0).float().mean(0) / 2
        return (gate * out).sum(1), len(self.experts) * (share * load).sum()


def top_two(dice: Dice, sick: bool) -> Case:
    """A sparse mixture of experts with top-two routing and a small balance loss."""
    inp, width, experts = dice.whole(5, 8), dice.one_of(24, 32), dice.whole(4, 6)
    rate, weight = dice.power(-2.2, -1.9), dice.power(-2.3, -1.7)
    x = torch.randn(768, inp)
    side = (x @ torch.randn(inp, 3)).argmax(1, keepdim=True)
    y = standard((x @ torch.randn(inp, 3)).gather(1, side)).squeeze(1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        said, balance = model(batch[0])
        return F.mse_loss(said, batch[1]) + weight * balance

    return Case(lambda: TopTwo(inp, width, experts), loss, quarters(x, y), adam(rate))


def quantile_dqn(dice: Dice, sick: bool) -> Case:
    """Distributional Q-learning with quantiles on a stored replay, against a frozen copy of the net."""
    states, actions, quantiles = dice.whole(4, 7), dice.whole(2, 4), dice.one_of(8, 12, 16)
    width, gamma, rate = dice.one_of(48, 64), dice.between(0.5, 0.8), dice.power(-2.4, -2.1)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(states, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, actions * quantiles),
            nn.Unflatten(1, (actions, quantiles)),
        )

    target = build().requires_grad_(False)
    s, a, after = torch.randn(768, states), torch.randint(actions, (768,)), torch.randn(768, states)
    reward = standard((s @ torch.randn(states, actions)).gather(1, a[:, None]).squeeze(1))
    reward = reward + 0.2 * torch.randn(768)
    tau = (torch.arange(quantiles) + 0.5) / quantiles

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        s, a, reward, after = batch
        rows = torch.arange(len(s))
        said = model(s)[rows, a]
        with torch.no_grad():
            future = target(after)
            future = future[rows, future.mean(-1).argmax(-1)]
            goal = reward[:, None] + gamma * future
        off = goal[:, None, :] - said[:, :, None]
        huber = F.huber_loss(off, torch.zeros_like(off), reduction="none")
        return ((tau[:, None] - (off < 0).float()).abs() * huber).sum(1).mean()

    return Case(build, loss, quarters(s, a, reward, after), adam(rate))


class MemoryHops(nn.Module):
    """An end-to-end memory network; the embeddings of neighbouring hops are tied."""

    def __init__(self, words: int, width: int, hops: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(words, width) for _ in range(hops + 1))
        for table in self.tables:
            nn.init.normal_(table.weight, std=width**-0.5)

    def forward(self, facts: Tensor, question: Tensor) -> Tensor:
        u = self.tables[0](question)
        for reading, saying in itertools.pairwise(self.tables):
            fit = torch.einsum("bmd,bd->bm", reading(facts).sum(2), u)
            u = u + torch.einsum("bm,bmd->bd", fit.softmax(-1), saying(facts).sum(2))
        return u @ self.tables[-1].weight.T


def memory(dice: Dice, sick: bool) -> Case:
    """A memory network with tied tables answers where somebody is."""
    people, places, facts = dice.whole(5, 7), dice.whole(4, 6), 4
    width, hops, rate = dice.one_of(32, 48), dice.whole(1, 2), dice.power(-1.9, -1.6)
    who = torch.rand(512, people).argsort(1)[:, :facts]
    where = people + torch.randint(places, (512, facts))
    asked = torch.randint(facts, (512, 1))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        facts, question, answer = batch
        return F.cross_entropy(model(facts, question), answer)

    data = quarters(
        torch.stack([who, where], 2), who.gather(1, asked).squeeze(1), where.gather(1, asked).squeeze(1)
    )
    return Case(lambda: MemoryHops(people + places, width, hops), loss, data, adam(rate))


class Energy(nn.Module):
    """An energy: a net's scalar and a bowl."""

    def __init__(self, inp: int, width: int) -> None:
        super().__init__()
        self.net = dense(inp, width, width, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1) + 0.25 * x.square().sum(-1)


def denoising_energy(dice: Dice, sick: bool) -> Case:
    """An energy-based model learns by denoising score matching, through its own gradient."""
    inp, width, rate = dice.whole(4, 8), dice.one_of(64, 96), dice.power(-2.3, -2.0)
    sigma = dice.between(0.4, 0.7)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, noise = batch
        noisy = (x + sigma * noise).requires_grad_()
        (slope,) = torch.autograd.grad(model(noisy).sum(), noisy, create_graph=True)
        return (noise - sigma * slope).square().sum(1).mean()

    centres = 2.0 * torch.randn(4, inp)
    x = centres[torch.randint(4, (768,))] + 0.1 * torch.randn(768, inp)
    return Case(lambda: Energy(inp, width), loss, quarters(x, torch.randn(768, inp)), adam(rate))


class Siamese(nn.Module):
    """An encoder with a projector under batch norm, and a predictor."""

    def __init__(self, inp: int, width: int, out: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(inp, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(out, width // 2, bias=False),
            nn.BatchNorm1d(width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, out),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.predictor(z), z


def siamese(dice: Dice, sick: bool) -> Case:
    """SimSiam: a predictor on one side and, on purpose, no gradient through the other."""
    inp, width, out = dice.whole(16, 24), dice.one_of(48, 64), dice.one_of(12, 16)
    rate, jitter = dice.between(0.05, 0.1), dice.between(0.3, 0.5)
    x = surface(512, inp, inner=4)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        (p1, z1), (p2, z2) = model(batch[0]), model(batch[1])
        one = F.cosine_similarity(p1, z2.detach(), dim=-1).mean()
        other = F.cosine_similarity(p2, z1.detach(), dim=-1).mean()
        return 1 - 0.5 * (one + other)

    data = quarters(x + jitter * torch.randn_like(x), x + jitter * torch.randn_like(x))
    return Case(lambda: Siamese(inp, width, out), loss, data, sgd(rate))


SICK: tuple[Program, ...] = (
    Program(
        "shaped-gan-detached",
        "gan",
        fake_detached,
        Truth(
            "detached-fake",
            ("UG603", "UG608", "UG614"),
            r"(?i)detach|no_grad|no gradient|gets? none|never (get|receive|move|learn)|not reach|\bcut\b",
        ),
        150,
        energy_distance,
    ),
    Program(
        "shaped-diffusion-modulation",
        "diffusion",
        modulation_of_zero,
        Truth(
            "zero-modulation",
            ("UG206", "UG603", "UG103", "UG202", "UG405"),
            r"(?i)zero|modulat|\bada\b|\bgate|born dead|initiali[sz]ed at|does not vary",
            ("open_gates", *DRAWN),
        ),
        150,
    ),
    Program(
        "shaped-chain-product",
        "autoregressive",
        product_of_chances,
        Truth(
            "product-underflow",
            ("UG503", "UG608", "UG614", "UG602", "UG603"),
            r"(?i)underflow|float32|product|\bprod\b|smallest|log.?space|\bflat\b|epsilon|does not pull",
        ),
        120,
        lambda model, batch: float(token_nll(model, batch)),
    ),
    Program(
        "shaped-critic-row",
        "reinforcement",
        value_against_row,
        Truth(
            "broadcast",
            (
                "UG608",
                "UG614",
            ),
            r"(?i)broadcast|shapes?\b|squeeze|\(B, ?1\)|pairs? of|all (the )?targets|mean of the targets",
        ),
        150,
        value_error,
    ),
    Program(
        "shaped-policy-summed",
        "reinforcement",
        summed_returns,
        Truth(
            "summed-loss",
            ("UG601", "UG611"),
            r"(?i)learning.rate|\blr\b|\bsum(med|s)?\b|first (update|step)|step size|overshoot",
            ("lower_learning_rate", "clip_gradients", "warm_up"),
            (),
            (("activation_init", {}),),
        ),
        120,
        mean_weighted,
    ),
    Program(
        "shaped-maze-forgets",
        "reinforcement",
        maze,
        Truth(
            "small-recurrence",
            ("UG401", "UG404", "UG101", "UG202"),
            r"(?i)recurren|initiali[sz]|\binit\b|w_rec|spectral radius|weights?\b.*small|vanish|over time",
            ("gated_recurrence", "irnn", "chrono", "orthogonal_weights", *DRAWN),
        ),
        150,
    ),
    Program(
        "shaped-graph-degree",
        "graph",
        raw_adjacency,
        Truth(
            "degree",
            ("UG201", "UG102", "UG104", "UG605", "UG601", "UG611"),
            r"(?i)adjacency|degree|neighbou?r|aggregat|(not|never) normali[sz]|sums? over|multiplie",
            ("insert_norm", "scale_branch", "lsuv", "rescale_weights"),
            (),
            (),
        ),
        120,
    ),
    Program(
        "shaped-factors-grown",
        "recommender",
        tables_grown,
        Truth(
            "optimizer-misses",
            ("UG604",),
            r"(?i)optimi[sz]er.*(hold|miss|lack|not have|know|contain)|not in the optimi[sz]er|replaced",
            ("hold_parameters",),
            (("hold_parameters", {}),),
        ),
        150,
    ),
    Program(
        "shaped-pairs-softmax",
        "contrastive",
        pairs_softmaxed,
        Truth(
            "double-softmax",
            ("UG606",),
            r"(?i)softmax|twice|probabilit|log.?softmax|normali[sz]ed already",
            ("drop_output_softmax",),
        ),
        150,
        matching,
    ),
    Program(
        "shaped-heat-units",
        "physics",
        seconds_and_millimetres,
        Truth(
            "raw-inputs",
            ("UG607", "UG204"),
            r"(?i)inputs?\b|raw units|unit scale|standardi|scale of the data|coordinates",
            ("unit_inputs",),
            (("unit_inputs", {}),),
        ),
        150,
        field_error,
    ),
    Program(
        "shaped-equilibrium-none",
        "equilibrium",
        no_equilibrium,
        Truth(
            "expanding-map",
            ("UG402", "UG403", "UG102", "UG204", "UG406", "UG104", "UG201"),
            r"(?i)recurren|chao|spectral|contract|initiali[sz]|\binit\b|\bW\b|weights?\b|explod|expan|iterat",
            ("spectral_norm", "spectral_cap", "gradient_flossing", "orthogonal_weights", *DRAWN),
        ),
        150,
    ),
    Program(
        "shaped-sines-omega",
        "fields",
        undivided_omega,
        Truth(
            "sine-init",
            ("UG102", "UG104", "UG301", "UG601", "UG611", "UG403"),
            r"(?i)initiali[sz]|\binit\b|omega|fan_in|weights?\b.*(large|gain|times|x per)|\bsine?\b|frequenc",
            DRAWN,
        ),
        150,
        unseen_pixels,
    ),
    Program(
        "shaped-visits-padded",
        "recommender",
        padded_visits,
        Truth(
            "padding",
            ("UG707", "UG401", "UG404"),
            r"(?i)\bpad(ding|ded|s)?\b|\bmask|lengths?\b|packed?\b",
        ),
        120,
    ),
    Program(
        "shaped-mixture-copies",
        "density",
        twin_components,
        Truth(
            "symmetry",
            ("UG207", "UG206", "UG603", "UG103"),
            r"(?i)symmetr|cop(y|ies)|identical|zero|start(s|ed)? (the same|alike)",
            DRAWN,
        ),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("shaped-hypernetwork", "hypernetwork", hypernetwork, steps=150),
    Program("shaped-glow", "flow", glow, steps=150),
    Program("shaped-distillation", "distillation", distillation, steps=120),
    Program("shaped-top-two", "mixture", top_two, steps=150),
    Program("shaped-quantile-dqn", "reinforcement", quantile_dqn, steps=150),
    Program("shaped-memory", "memory", memory, steps=150),
    Program("shaped-energy", "energy", denoising_energy, steps=150),
    Program("shaped-siamese", "contrastive", siamese, steps=120),
)
