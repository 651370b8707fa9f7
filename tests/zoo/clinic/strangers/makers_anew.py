"""Tables, autoencoders, flows, denoisers, games, pairs, graphs, actors and coordinate nets."""

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)


def houses(rows: int, features: int, offset: float, spread: float) -> list[tuple[Tensor, Tensor]]:
    """Return tables with targets around `offset`."""
    way, bend = torch.randn(features), torch.randn(features)
    made = []
    for _ in range(4):
        x = torch.randn(rows, features)
        y = torch.sin(x @ bend / features**0.5) + x @ way / features**0.5
        made.append((x, offset + spread * y[:, None]))
    return made


def prices(dice: Dice, sick: bool) -> Case:
    """A regression by plain gradient descent on prices as they stand in the file."""
    features, width = dice.whole(6, 12), dice.whole(32, 64)
    data = houses(64, features, dice.between(250, 400), dice.between(60, 120))
    if not sick:
        everything = torch.cat([y for _, y in data])
        data = [(x, (y - everything.mean()) / everything.std()) for x, y in data]

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, 1),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.MSELoss()(model(batch[0]), batch[1])

    return Case(build, loss, data, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9))


def unexplained(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Share of the targets' variance that is not explained."""
    return float((model(batch[0]) - batch[1]).square().mean() / batch[1].var())


class CountRegression(nn.Module):
    """Rate of a Poisson count."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.out(torch.relu(self.hidden(x)))).squeeze(1)


def counts(dice: Dice, sick: bool) -> Case:
    """A Poisson regression on columns in their own units, whose exp overflows."""
    features, width, unit = dice.whole(5, 9), dice.whole(16, 40), dice.between(2000, 5000)
    way = torch.randn(features)
    data = []
    for _ in range(4):
        x = torch.randn(96, features)
        y = torch.poisson(torch.exp(0.5 + 1.6 * torch.tanh(x @ way / features**0.5)))
        data.append((unit * (x + 0.5) if sick else x, y))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        rate = model(batch[0])
        return (rate - batch[1] * torch.log(rate)).mean()

    return Case(lambda: CountRegression(features, width), loss, data, lambda p: torch.optim.Adam(p, 5e-3))


class HardCodes(nn.Module):
    """An autoencoder with whole numbers between its halves."""

    def __init__(self, size: int, code: int, through: bool) -> None:
        super().__init__()
        self.through = through
        self.enc = nn.Sequential(nn.Linear(size, 48), nn.LeakyReLU(), nn.Linear(48, code))
        self.dec = nn.Sequential(nn.Linear(code, 48), nn.LeakyReLU(), nn.Linear(48, size))

    def forward(self, x: Tensor) -> Tensor:
        z = self.enc(x)
        q = torch.round(z)
        if self.through:
            q = z + (q - z).detach()
        return self.dec(q)


def whole_codes(dice: Dice, sick: bool) -> Case:
    """An autoencoder that rounds its code, without a way around the rounding for the gradient."""
    size, code = dice.whole(16, 28), dice.whole(6, 9)
    mix = torch.randn(4, size) / 2
    data = [torch.tanh(torch.randn(64, 4) @ mix) for _ in range(4)]
    return Case(
        lambda: HardCodes(size, code, not sick),
        lambda model, x: F.mse_loss(model(x), x),
        data,
        lambda p: torch.optim.Adam(p, lr=3e-3),
    )


class Vae(nn.Module):
    """The textbook's variational autoencoder on vectors."""

    def __init__(self, size: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = (
            nn.Linear(size, hidden),
            nn.Linear(hidden, latent),
            nn.Linear(hidden, latent),
        )
        self.fc3, self.fc4 = nn.Linear(latent, hidden), nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.fc1(x))
        mu, logvar = self.fc21(h), self.fc22(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.fc4(F.relu(self.fc3(z))), mu, logvar


def sharp(dice: Dice, sick: bool) -> Case:
    """A VAE whose Gaussian decoder has a tiny fixed spread: the squared error is multiplied by thousands."""
    size, hidden, sigma = dice.whole(16, 24), dice.whole(32, 48), dice.between(0.005, 0.015) if sick else 1.0
    mix = torch.randn(3, size)
    data = [torch.randn(64, 3) @ mix + 0.1 * torch.randn(64, size) for _ in range(4)]

    def elbo(model: nn.Module, x: Tensor) -> Tensor:
        made, mu, logvar = model(x)
        nll = ((made - x) ** 2).sum(1) / (2 * sigma**2) + size * math.log(sigma)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return (nll + kl).mean()

    return Case(lambda: Vae(size, hidden, 4), elbo, data, lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9))


def rebuilt(model: nn.Module, x: Tensor) -> float:
    """Squared error of what is rebuilt."""
    return float((model(x)[0] - x).square().mean())


class ScoreNet(nn.Module):
    """Predicts the score of noisy points; its output is divided by the noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inp, self.cond = nn.Linear(2, width), nn.Linear(1, width)
        self.mid, self.out = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        h = F.softplus(self.inp(x) + self.cond(sigma.log()))
        return self.out(F.softplus(self.mid(h))) / sigma


def noise_levels(dice: Dice, sick: bool) -> Case:
    """Denoising score matching over many noise levels without the weight that evens them out."""
    width, least = dice.whole(48, 80), dice.power(-2.3, -2.0)
    data = []
    for _ in range(4):
        centre = torch.randint(0, 2, (128, 1)) * 2.0 - 1
        sigma = torch.exp(torch.linspace(math.log(least), math.log(4.0), 128))[torch.randperm(128), None]
        data.append((centre * torch.ones(1, 2) + 0.05 * torch.randn(128, 2), sigma, torch.randn(128, 2)))

    def plain(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, sigma, noise = batch
        return (model(x + sigma * noise, sigma) + noise / sigma).square().mean()

    return Case(
        lambda: ScoreNet(width),
        plain if sick else even,
        data,
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
        variants={"sigma_squared": even},
    )


def even(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Score matching with weights of sigma squared."""
    x, sigma, noise = batch
    return (sigma * model(x + sigma * noise, sigma) + noise).square().mean()


def evenly(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """The evenly weighted error."""
    return float(even(model, batch))


class Flip(torch.autograd.Function):
    """The identity, whose gradient changes its sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


class Wgan(nn.Module):
    """A generator and a critic whose weights are kept within a box."""

    def __init__(self, width: int, depth: int, box: float) -> None:
        super().__init__()
        self.box = box
        self.generator = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))
        sizes = [2] + [width] * depth + [1]
        self.critic = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.clamp()

    def clamp(self) -> None:
        with torch.no_grad():
            for p in self.critic.parameters():
                p.clamp_(-self.box, self.box)

    def judge(self, x: Tensor) -> Tensor:
        for layer in self.critic[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.critic[-1](x)

    def forward(self, noise: Tensor) -> Tensor:
        return self.judge(Flip.apply(self.generator(noise)))  # type: ignore[arg-type]


def clipped(dice: Dice, sick: bool) -> Case:
    """A Wasserstein GAN with a deep critic, whose weights are clipped to a hundredth."""
    width, depth = dice.whole(24, 40), dice.whole(4, 5)
    box = 0.01 if sick else 0.2
    goal = torch.tensor([dice.between(1.0, 2.0), -dice.between(1.0, 2.0)])
    data = [(torch.randn(64, 6), goal + 0.3 * torch.randn(64, 2)) for _ in range(4)]

    def loss(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        noise, real = batch
        return model(noise).mean() - model.judge(real).mean()

    def step(case: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        value = torch.zeros(())
        for resting in (case.model.generator,) * 4 + (case.model.critic,):
            value = case.compute_loss(batch)
            case.optimizer.zero_grad()
            value.backward()
            resting.zero_grad()  # without a gradient, these parameters stay
            case.optimizer.step()
            case.model.clamp()
        return value.detach()

    return Case(lambda: Wgan(width, depth, box), loss, data, lambda p: torch.optim.SGD(p, lr=0.1), step=step)


def off_target(model: Any, batch: tuple[Tensor, Tensor]) -> float:
    """Squared distance between the mean of what is made and of what is real."""
    return float((model.generator(batch[0]).mean(0) - batch[1].mean(0)).square().sum())


def views(rows: int, size: int, noise: float) -> list[tuple[Tensor, Tensor]]:
    """Return two noisy views of hidden points among many columns of nothing."""
    lift = torch.randn(6, size) / 6**0.5
    made = []
    for _ in range(4):
        hidden = torch.randn(rows, 6) @ lift
        made.append((hidden + noise * torch.randn(rows, size), hidden + noise * torch.randn(rows, size)))
    return made


class Encoder(nn.Module):
    """An encoder with a projection on the sphere."""

    def __init__(self, size: int, width: int, out: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(size, width), nn.ReLU())
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.backbone(x)), dim=-1)


def info_nce(tau: float):
    """Return the contrastive cross-entropy at a temperature."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = model(batch[0]) @ model(batch[1]).T / tau
        return F.cross_entropy(logits, torch.arange(len(logits)))

    return loss


def distances(dice: Dice, sick: bool) -> Case:
    """A contrastive loss with margin on all pairs: the distance of a row to itself is the root of zero."""
    size, width, eps = dice.whole(10, 18), dice.whole(32, 56), 0.0 if sick else 1e-8
    middle = torch.randn(4, size)
    data = []
    for _ in range(4):
        label = torch.randint(4, (40,))
        data.append((middle[label] + 0.8 * torch.randn(40, size), label))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z, y = model(batch[0]), batch[1]
        apart = torch.sqrt(((z[:, None] - z[None]) ** 2).sum(-1) + eps)
        same = (y[:, None] == y[None]).float()
        return (same * apart**2 + (1 - same) * F.relu(2.0 - apart) ** 2).mean()

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(size, width), nn.ELU(), nn.Linear(width, 8))

    return Case(build, loss, data, lambda p: torch.optim.Adam(p, lr=2e-3))


Graph = tuple[Tensor, Tensor, Tensor]


def communities(nodes: int, classes: int, features: int, inside: float, between: float) -> list[Graph]:
    """Return graphs with communities: features of the nodes, edges with loops, and the community."""
    means = torch.randn(classes, features)
    made = []
    for _ in range(4):
        y = torch.arange(nodes) % classes
        chance = torch.where(y[:, None] == y[None], inside, between)
        edges = (torch.rand(nodes, nodes) < chance).float().triu(1)
        made.append((means[y] + 1.5 * torch.randn(nodes, features), edges + edges.T + torch.eye(nodes), y))
    return made


def node_loss(model: nn.Module, graph: Graph) -> Tensor:
    """Cross-entropy of the nodes' communities."""
    x, edges, y = graph
    return F.cross_entropy(model(x, edges), y)


class DeepGcn(nn.Module):
    """Many graph convolutions, each an average over the neighbours and a map."""

    def __init__(self, features: int, width: int, depth: int, classes: int, keep: float) -> None:
        super().__init__()
        self.lift, self.head, self.keep = nn.Linear(features, width), nn.Linear(width, classes), keep
        self.convs = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        root = edges.sum(1).rsqrt()
        passing = root[:, None] * edges * root
        h = first = F.relu(self.lift(x))
        for conv in self.convs:
            new = F.relu(conv(passing @ h))
            h = new if self.keep == 0 else (1 - self.keep) * new + self.keep * first
        return self.head(h)


def smoothed(dice: Dice, sick: bool) -> Case:
    """A graph network of two dozen averaging layers without a way back to the nodes' own features."""
    width, depth = dice.whole(20, 32), dice.whole(20, 26)
    return Case(
        lambda: DeepGcn(12, width, depth, 4, 0.0 if sick else 0.5),
        node_loss,
        communities(64, 4, 12, 0.25, 0.06),
        lambda p: torch.optim.Adam(p, lr=2e-3),
    )


def demonstrations(dice: Dice, sick: bool) -> Case:
    """Imitation of whole episodes: the probabilities of all steps are multiplied before the logarithm."""
    length, width, actions = dice.whole(120, 180), dice.whole(24, 40), dice.whole(4, 6)
    way = torch.randn(6, actions)
    data = []
    for _ in range(4):
        seen = torch.randn(8, length, 6)
        data.append((seen, (seen @ way).argmax(-1)))

    def chosen(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.softmax(model(batch[0]), -1).gather(-1, batch[1][..., None]).squeeze(-1)

    def product(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -torch.log(chosen(model, batch).prod(1) + 1e-20).mean() / length

    def summed_logs(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -torch.log(chosen(model, batch) + 1e-20).sum(1).mean() / length

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, actions))

    return Case(
        build,
        product if sick else summed_logs,
        data,
        lambda p: torch.optim.Adam(p, 5e-3),
        variants={"sum_of_logs": summed_logs},
    )


def imitation(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Cross-entropy of the demonstrated actions."""
    return float(F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()))


class Critic(nn.Module):
    """Values of all actions of a state."""

    def __init__(self, width: int, actions: int, rectified: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, actions)
        self.rectified = rectified

    def forward(self, s: Tensor) -> Tensor:
        q = self.fc3(F.relu(self.fc2(F.relu(self.fc1(s)))))
        return F.relu(q) if self.rectified else q


def costs(dice: Dice, sick: bool) -> Case:
    """A value network with a ReLU behind its last layer, where every reward is a cost."""
    width, actions, gamma = dice.whole(32, 56), dice.whole(2, 4), dice.between(0.7, 0.9)
    push = torch.randn(actions, 4) / 2
    data = []
    for _ in range(4):
        state, action = torch.randn(96, 4), torch.randint(actions, (96,))
        moved, value = state, torch.zeros(96)
        for t in range(12):
            moved = 0.8 * moved + push[action] if t == 0 else 0.8 * moved
            value = value - gamma**t * moved.square().mean(1)
        data.append((state, action, value))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        state, action, value = batch
        return F.smooth_l1_loss(model(state).gather(1, action[:, None]).squeeze(1), value)

    return Case(lambda: Critic(width, actions, sick), loss, data, lambda p: torch.optim.Adam(p, lr=2e-3))


class Solution(nn.Module):
    """The unknown function of a differential equation."""

    def __init__(self, width: int, depth: int, act: type[nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(1, width), act()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), act()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def beam(dice: Dice, sick: bool) -> Case:
    """A physics-informed net of ReLUs on an equation of second order: its second derivative is zero."""
    width, depth = dice.whole(24, 40), dice.whole(1, 2)
    act = nn.ReLU if sick else nn.Tanh
    data = [torch.rand(64, 1) for _ in range(4)]

    def residual(model: nn.Module, points: Tensor) -> Tensor:
        x = points.detach().requires_grad_(True)
        u = model(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True, allow_unused=True)
        ddu = torch.zeros_like(x) if ddu is None else ddu
        ends = model(torch.tensor([[0.0], [1.0]]))
        return (ddu / math.pi**2 + torch.sin(math.pi * x)).square().mean() + ends.square().mean()

    return Case(lambda: Solution(width, depth, act), residual, data, lambda p: torch.optim.Adam(p, lr=5e-3))


def solved(model: nn.Module, x: Tensor) -> float:
    """Squared distance to the true solution."""
    return float((model(x) - torch.sin(math.pi * x)).square().mean())


class Siren(nn.Module):
    """Sines of sums of sines; the weights are drawn for the frequency `drawn`, the sines have `omega`."""

    def __init__(self, width: int, depth: int, omega: float, drawn: float, inputs: int = 1) -> None:
        super().__init__()
        self.omega = omega
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, 1)
        self.rest = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        nn.init.uniform_(self.first.weight, -1 / inputs, 1 / inputs)
        for layer in [*self.rest, self.last]:
            edge = math.sqrt(6 / width) / drawn
            nn.init.uniform_(layer.weight, -edge, edge)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(self.omega * self.first(x))
        for layer in self.rest:
            x = torch.sin(self.omega * layer(x))
        return self.last(x)


def sound(dice: Dice) -> list[tuple[Tensor, Tensor]]:
    """Return places and values of a sum of tones."""
    x = torch.linspace(-1, 1, 256)[:, None]
    pitch = [dice.between(8, 14), dice.between(16, 24)]
    y = (torch.sin(pitch[0] * x) + torch.sin(pitch[1] * x + 1)) / 2
    return [(x[i::4], y[i::4]) for i in range(4)]


def no_frequency(dice: Dice, sick: bool) -> Case:
    """A sine network with weights drawn for a frequency of 30, which its sines leave out."""
    width, depth = dice.whole(40, 56), dice.whole(3, 4)
    omega = 1.0 if sick else 30.0
    return Case(
        lambda: Siren(width, depth, omega, 30.0),
        lambda model, batch: (model(batch[0]) - batch[1]).pow(2).mean(),
        sound(dice),
        lambda p: torch.optim.Adam(p, lr=3e-4),
    )


class Shop(nn.Module):
    """Numbers and categories of a table, joined and passed through residual blocks."""

    def __init__(self, sizes: list[int], numbers: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(n, 4) for n in sizes)
        self.start = nn.Linear(4 * len(sizes) + numbers, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(blocks)
        )
        self.end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, kinds: Tensor, numbers: Tensor) -> Tensor:
        joined = [table(kinds[:, i]) for i, table in enumerate(self.embed)]
        x = self.start(torch.cat([*joined, numbers], 1))
        for block in self.blocks:
            x = x + block(x)
        return self.end(x).squeeze(1)


def shop(dice: Dice, _sick: bool) -> Case:
    """A table with categories, told to buy or not; norms and biases without decay."""
    sizes, numbers, width, blocks = (
        [dice.whole(3, 9) for _ in range(3)],
        dice.whole(4, 7),
        32,
        dice.whole(2, 4),
    )
    effect, way = [torch.randn(n) for n in sizes], torch.randn(numbers)
    data = []
    for _ in range(4):
        kinds = torch.stack([torch.randint(n, (96,)) for n in sizes], 1)
        x = torch.randn(96, numbers)
        score = x @ way + sum(effect[i][kinds[:, i]] for i in range(3))
        data.append((kinds, x, (score + 0.3 * torch.randn(96) > 0).float()))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0], batch[1]), batch[2])

    model = Shop(sizes, numbers, width, blocks)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return Case(model, loss, data, torch.optim.AdamW(groups, lr=2e-3))


class Quantiles(nn.Module):
    """Three quantiles, one above the other by a softplus."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.middle, self.gaps = nn.Linear(width, 1), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        middle, gaps = self.middle(h), F.softplus(self.gaps(h))
        return torch.cat([middle - gaps[:, :1], middle, middle + gaps[:, 1:]], 1)


def quantiles(dice: Dice, _sick: bool) -> Case:
    """A regression of three quantiles by the pinball loss."""
    features, width = dice.whole(5, 9), dice.whole(32, 64)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def pinball(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        off = batch[1] - model(batch[0])
        return torch.maximum(levels * off, (levels - 1) * off).mean()

    return Case(
        lambda: Quantiles(features, width),
        pinball,
        houses(96, features, 0.0, 1.0),
        lambda p: torch.optim.Adam(p, 3e-3),
    )


class PictureVae(nn.Module):
    """Convolutions down to a code and transposed ones up again."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        c = channels
        self.down = nn.Sequential(
            nn.Conv2d(1, c, 4, 2, 1), nn.ReLU(), nn.Conv2d(c, 2 * c, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.stats = nn.Linear(32 * c, 2 * latent)
        self.up = nn.Sequential(
            nn.Linear(latent, 32 * c),
            nn.ReLU(),
            nn.Unflatten(1, (2 * c, 4, 4)),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(c, 1, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.stats(self.down(x)).chunk(2, 1)
        return self.up(mu + (logvar / 2).exp() * torch.randn_like(mu)), mu, logvar


def blobs(dice: Dice, _sick: bool) -> Case:
    """A convolutional VAE on spots; the cross-entropy is summed over pixels and averaged over images."""
    channels, latent = dice.whole(6, 10), dice.whole(3, 6)
    grid = torch.arange(16.0)
    data = []
    for _ in range(4):
        cx, cy, r = (torch.rand(3, 32, 1, 1) * torch.tensor([8.0, 8.0, 2.0])[:, None, None, None]).unbind(0)
        square = (grid[None, :, None] - 4 - cy) ** 2 + (grid[None, None] - 4 - cx) ** 2
        data.append((square < (2 + r) ** 2).float()[:, None])

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        logits, mu, logvar = model(x)
        bits = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (bits - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()) / len(x)

    return Case(lambda: PictureVae(channels, latent), loss, data, lambda p: torch.optim.Adam(p, lr=2e-3))


class AffineFlow(nn.Module):
    """A RealNVP whose couplings start as the identity and whose scales are bounded."""

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.cut = size // 2
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(self.cut, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            for _ in range(depth)
        )
        self.ends = nn.ModuleList(nn.Linear(width, 2 * (size - self.cut)) for _ in range(depth))
        for end in self.ends:
            nn.init.zeros_(end.weight)  # type: ignore[arg-type]
            nn.init.zeros_(end.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for net, end in zip(self.nets, self.ends, strict=True):
            a, b = x[:, : self.cut], x[:, self.cut :]
            log_scale, shift = end(net(a)).chunk(2, 1)
            log_scale = 2 * torch.tanh(log_scale / 2)
            x = torch.cat([b * log_scale.exp() + shift, a], 1)
            total = total + log_scale.sum(1)
        return x, total


def density(dice: Dice, _sick: bool) -> Case:
    """A flow that starts as a permutation and learns the density of bent points."""
    width, depth = dice.whole(32, 48), dice.whole(4, 6)
    data = []
    for _ in range(4):
        a = torch.randn(128, 2)
        data.append(torch.cat([a, 0.5 * a**2 - 1 + 0.15 * torch.randn(128, 2)], 1))

    def nll(model: nn.Module, x: Tensor) -> Tensor:
        z, log_det = model(x)
        return (0.5 * z.square().sum(1) + 2 * math.log(2 * math.pi) - log_det).mean()

    return Case(
        lambda: AffineFlow(4, width, depth),
        nll,
        data,
        lambda p: torch.optim.Adam(p, lr=3e-3),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 5.0),
    )


class Ddpm(nn.Module):
    """Predicts the noise; the last map starts at zero."""

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Linear(size, width)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.leave = nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rate = torch.exp(-math.log(1e4) * torch.arange(8) / 8)
        angle = t[:, None].float() * rate
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(F.silu(h + time))
        return self.leave(F.silu(h))


def noises(dice: Dice, _sick: bool) -> Case:
    """A diffusion model in its plain form: noise prediction, evenly weighted, cosine schedule."""
    width, blocks, size = dice.whole(40, 64), dice.whole(2, 3), dice.whole(4, 8)
    kept = torch.cos(torch.linspace(0.02, 0.98, 200) * math.pi / 2) ** 2
    mix = torch.randn(2, size)
    data = []
    for _ in range(4):
        x = torch.sign(torch.randn(128, 2)) @ mix / 2**0.5
        data.append((x, torch.randint(200, (128,)), torch.randn(128, size)))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, t, noise = batch
        keep = kept[t][:, None]
        return F.mse_loss(model(keep.sqrt() * x + (1 - keep).sqrt() * noise, t), noise)

    return Case(lambda: Ddpm(size, width, blocks), loss, data, lambda p: torch.optim.AdamW(p, lr=2e-3))


def hinge(dice: Dice, _sick: bool) -> Case:
    """The discriminator's side of a game: spectral norms everywhere and the hinge loss."""
    size, width = dice.whole(6, 12), dice.whole(48, 80)
    mix = torch.randn(size, size) / size**0.5

    def build() -> nn.Module:
        norm = nn.utils.parametrizations.spectral_norm
        return nn.Sequential(
            norm(nn.Linear(size, width)),
            nn.LeakyReLU(0.1),
            norm(nn.Linear(width, width)),
            nn.LeakyReLU(0.1),
            norm(nn.Linear(width, 1)),
        )

    def loss(judge: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        real, fake = batch
        return F.relu(1 - judge(real)).mean() + F.relu(1 + judge(fake)).mean()

    data = [(1.2 + torch.tanh(2 * torch.randn(64, size) @ mix), torch.randn(64, size)) for _ in range(4)]
    return Case(build, loss, data, lambda p: torch.optim.Adam(p, lr=2e-3, betas=(0.5, 0.999)))


def pairs(dice: Dice, _sick: bool) -> Case:
    """Contrastive learning of two views at a temperature of a tenth."""
    size, width = dice.whole(20, 32), dice.whole(48, 72)
    return Case(
        lambda: Encoder(size, width, 16),
        info_nce(dice.between(0.07, 0.2)),
        views(64, size, 0.5),
        lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=1e-4),
    )


class ActorCritic(nn.Module):
    """A policy and a value on one trunk, orthogonal, with a policy head that starts near zero."""

    def __init__(self, size: int, width: int, actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.pi, self.v = nn.Linear(width, actions), nn.Linear(width, 1)
        for layer, gain in ((self.trunk[0], 2**0.5), (self.trunk[2], 2**0.5), (self.pi, 0.01), (self.v, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(s)
        return self.pi(h), self.v(h).squeeze(1)


def rollouts(dice: Dice, _sick: bool) -> Case:
    """An update of an actor and a critic on stored steps: clipped ratios, entropy bonus, gradient clip."""
    size, width, actions = dice.whole(5, 8), dice.whole(32, 64), dice.whole(3, 5)
    way = torch.randn(size, actions)
    data = []
    for _ in range(4):
        s, a = torch.randn(128, size), torch.randint(actions, (128,))
        reward = ((s @ way).argmax(1) == a).float() + 0.5 * torch.tanh(s[:, 0])
        advantage = (reward - reward.mean()) / (reward.std() + 1e-8)
        data.append((s, a, advantage, 2 * reward, torch.full((128,), -math.log(actions))))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        s, a, advantage, returns, old = batch
        logits, value = model(s)
        policy = torch.distributions.Categorical(logits=logits)
        ratio = (policy.log_prob(a) - old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        return -gain + 0.5 * F.mse_loss(value, returns) - 0.01 * policy.entropy().mean()

    return Case(
        lambda: ActorCritic(size, width, actions),
        loss,
        data,
        lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 0.5),
    )


class TwoNets(nn.Module):
    """A value network and its frozen copy that makes the targets."""

    def __init__(self, width: int, actions: int) -> None:
        super().__init__()
        self.online = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, actions)
        )
        self.target = copy.deepcopy(self.online).requires_grad_(False)


def deep_q(dice: Dice, _sick: bool) -> Case:
    """Q-learning against a frozen target network, Huber loss."""
    width, actions = dice.whole(32, 64), dice.whole(2, 4)
    push = torch.randn(actions, 4) / 2
    data = []
    for _ in range(4):
        s, a = torch.randn(96, 4), torch.randint(actions, (96,))
        after = 0.9 * s + push[a]
        data.append((s, a, torch.tanh(after.sum(1)), after, (torch.rand(96) < 0.1).float()))

    def loss(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
        s, a, reward, after, done = batch
        with torch.no_grad():
            goal = reward + 0.95 * (1 - done) * model.target(after).max(1).values
        return F.smooth_l1_loss(model.online(s).gather(1, a[:, None]).squeeze(1), goal)

    model = TwoNets(width, actions)
    return Case(model, loss, data, torch.optim.RMSprop(model.online.parameters(), lr=1e-3))


def siren(dice: Dice, _sick: bool) -> Case:
    """A sine network as its authors draw it: the weights look thirty times too small and are right."""
    width, depth = dice.whole(40, 64), dice.whole(2, 4)
    return Case(
        lambda: Siren(width, depth, 30.0, 30.0),
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        sound(dice),
        lambda p: torch.optim.Adam(p, lr=2e-4),
    )


SICK: tuple[Program, ...] = (
    Program(
        "regression-raw-prices",
        "regression",
        prices,
        Truth("target-scale", ("UG601", "UG611", "UG102"), r"target|scale of the loss"),
        120,
        unexplained,
    ),
    Program(
        "regression-poisson-raw-columns",
        "regression",
        counts,
        Truth(
            "nan-exp",
            ("UG901", "UG607", "UG502"),
            r"\bexp\b|input|overflow|standardis|feature",
            ("unit_inputs",),
            (("unit_inputs", {}),),
        ),
        150,
    ),
    Program(
        "autoencoder-whole-codes",
        "autoencoder",
        whole_codes,
        Truth("rounding", ("UG603", "UG103", "UG206"), r"round|straight|multiplies by zero", (), (), FASTER),
        200,
    ),
    Program(
        "vae-tiny-decoder-spread",
        "autoencoder",
        sharp,
        Truth(
            "sharp-likelihood",
            ("UG601", "UG611", "UG102"),
            r"^loss: |likelihood|variance|sigma",
            (),
            (("lower_learning_rate", {"factor": 1e-4}),),
        ),
        150,
        rebuilt,
    ),
    Program(
        "denoiser-unweighted-levels",
        "denoiser",
        noise_levels,
        Truth(
            "low-noise",
            ("UG705", "UG601", "UG611"),
            r"its weight|noise|sigma|these times",
            ("swap_loss", "min_snr"),
            (("swap_loss", {"variant": "sigma_squared"}),),
            FASTER,
        ),
        200,
        evenly,
    ),
    Program(
        "gan-deep-critic-in-a-box",
        "game",
        clipped,
        Truth(
            "weight-clip",
            ("UG101", "UG202", "UG205", "UG503", "UG602", "UG603", "UG704"),
            r"clip|clamp|box|fan_in|small weights",
            ("gradient_penalty", "spectral_norm", "rescale_weights"),
            (),
            FASTER,
        ),
        120,
        off_target,
    ),
    Program(
        "pairs-distance-to-itself",
        "contrastive",
        distances,
        Truth("sqrt-at-zero", ("UG901",), r"sqrt|root|distance|divisor"),
        120,
    ),
    Program(
        "graph-two-dozen-averages",
        "graph",
        smoothed,
        Truth(
            "oversmoothing",
            ("UG205", "UG202", "UG101"),
            r"averag|smooth|depth: |skip|alike|neighbour",
            ("add_residual", "concat_skip", "gated_skip"),
            (),
            FASTER,
        ),
        150,
    ),
    Program(
        "actor-product-of-probabilities",
        "reinforcement",
        demonstrations,
        Truth(
            "probability-product",
            ("UG603", "UG608", "UG503", "UG602"),
            r"\bprod|underflow|probabilit|clamp",
            ("swap_loss",),
            (("swap_loss", {"variant": "sum_of_logs"}),),
            FASTER,
        ),
        120,
        imitation,
    ),
    Program(
        "actor-costs-behind-relu",
        "reinforcement",
        costs,
        Truth(
            "rectified-output",
            ("UG203", "UG206", "UG603", "UG614"),
            r"(?i)relu|rectif|negative (values|targets)|is on for",
        ),
        120,
    ),
    Program(
        "implicit-second-order-relu",
        "implicit",
        beam,
        Truth(
            "no-curvature",
            ("UG603", "UG608"),
            r"second|curvature is|piecewise|ReLU|derivative",
            ("swap_activation",),
            (("swap_activation", {"of": "ReLU", "to": "Tanh"}),),
            FASTER,
        ),
        200,
        solved,
    ),
    Program(
        "implicit-sines-without-frequency",
        "implicit",
        no_frequency,
        Truth(
            "frequency",
            ("UG202", "UG101", "UG205", "UG105"),
            r"fan_in|frequen|omega|weights: ",
            (
                "rescale_weights",
                "activation_init",
                "critical_init",
                "lsuv",
                "orthogonal_init",
                "unit_jacobian_init",
            ),
            (
                ("rescale_weights", {"sites": ("first",), "gain": 17.3}),
                ("rescale_weights", {"sites": ("rest.*",), "gain": 1.414}),
            ),
            FASTER,
        ),
        150,
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("tabular-categories-and-numbers", "tabular", shop),
    Program("regression-three-quantiles", "regression", quantiles),
    Program("vae-of-dots", "autoencoder", blobs),
    Program("flow-bent-points", "flow", density, steps=150),
    Program("denoiser-plain", "denoiser", noises, steps=150),
    Program("game-hinge-discriminator", "game", hinge),
    Program("pairs-two-views", "contrastive", pairs),
    Program("actor-actor-and-critic", "reinforcement", rollouts, steps=150),
    Program("actor-frozen-target", "reinforcement", deep_q),
    Program("implicit-sines", "implicit", siren, steps=150),
)
