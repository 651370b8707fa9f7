"""Models that make or rebuild data: sick by one fault each, and healthy ones."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)


class Affine(nn.Module):
    """An affine coupling with a bounded log-scale, which starts as the identity."""

    def __init__(self, features: int, hidden: int, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.s, self.t = nn.Linear(hidden, features), nn.Linear(hidden, features)
        for head in (self.s, self.t):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.get_buffer("mask")
        h = self.net(x * mask)
        s, t = (1 - mask) * torch.tanh(self.s(h)), (1 - mask) * self.t(h)
        return x * torch.exp(s) + t, s.sum(1)


class RealNvp(nn.Module):
    """Couplings with alternating masks, behind a logit of the pixels where there is one."""

    def __init__(self, features: int, hidden: int, depth: int, edge: float | None) -> None:
        super().__init__()
        even = (torch.arange(features) % 2).float()
        self.couplings = nn.ModuleList(
            Affine(features, hidden, even if k % 2 else 1 - even) for k in range(depth)
        )
        self.shift, self.log_scale = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))
        self.edge = edge

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.edge is not None:
            x = torch.logit(self.edge + (1 - 2 * self.edge) * x)
        log_det = self.log_scale.sum().expand(len(x))
        x = (x + self.shift) * self.log_scale.exp()
        for coupling in self.couplings:
            x, more = coupling(x)
            log_det = log_det + more
        return x, log_det


def negative_log_likelihood(flow: nn.Module, x: Tensor) -> Tensor:
    """Minus the log-likelihood of a row under a standard normal behind the flow."""
    z, log_det = flow(x)
    return (0.5 * z.square().sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi) - log_det).mean()


def pixels(dice: Dice, sick: bool) -> Case:
    """A flow on the logits of pixels, many of which are exactly black or white."""
    features, hidden, depth = 2 * dice.whole(6, 8), dice.whole(24, 40), dice.whole(4, 6)
    drawn = torch.sigmoid(3 * torch.randn(192, 3) @ torch.randn(3, features))
    levels = torch.floor(16 * drawn.clamp(max=0.999)) / 15
    edge = 0.0 if sick else 0.05
    return Case(
        lambda: RealNvp(features, hidden, depth, edge),
        negative_log_likelihood,
        list(levels.chunk(4)),
        tasks.adam(3e-3),
    )


class Conditional(nn.Module):
    """A generator of points of a kind, and a discriminator that has had a head start."""

    def __init__(self, hidden: int, rounds: int, centres: Tensor) -> None:
        super().__init__()
        kinds = len(centres)
        self.G = nn.Sequential(
            nn.Linear(4 + kinds, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )
        self.D = nn.Sequential(
            nn.Linear(2 + kinds, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )
        optimizer = torch.optim.Adam(self.D.parameters(), lr=5e-3)
        for _ in range(rounds):
            kind = torch.randint(kinds, (64,))
            label = F.one_hot(kind, kinds).float()
            true = centres[kind] + 0.3 * torch.randn(64, 2)
            with torch.no_grad():
                false = self.G(torch.cat([torch.randn(64, 4), label], 1))
            optimizer.zero_grad()
            loss = F.binary_cross_entropy(self.judge(true, label), torch.ones(64, 1))
            loss = loss + F.binary_cross_entropy(self.judge(false, label), torch.zeros(64, 1))
            loss.backward()
            optimizer.step()
        self.D.requires_grad_(False)

    def judge(self, point: Tensor, label: Tensor) -> Tensor:
        return self.D(torch.cat([point, label], 1))

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.judge(self.G(torch.cat([noise, label], 1)), label)


def fooling(game: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The fakes called true."""
    verdict = game(batch[0], batch[1])
    return F.binary_cross_entropy(verdict, torch.ones_like(verdict))


def minimax(game: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The discriminator's own loss, negated."""
    verdict = game(batch[0], batch[1])
    return -F.binary_cross_entropy(verdict, torch.zeros_like(verdict))


def head_start(dice: Dice, sick: bool) -> Case:
    """A conditional generator that maximises the loss of a discriminator that knows its fakes."""
    hidden, rounds, kinds = dice.whole(32, 48), dice.whole(240, 300), dice.whole(2, 3)
    angle = torch.arange(kinds) * 0.7 + 6.3 * torch.rand(1)
    centres = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    model = Conditional(hidden, rounds, centres)
    data = []
    for _ in range(4):
        kind = torch.randint(kinds, (48,))
        data.append((torch.randn(48, 4), F.one_hot(kind, kinds).float(), centres[kind]))
    optimizer = torch.optim.SGD(model.G.parameters(), lr=0.02)
    return Case(model, minimax if sick else fooling, data, optimizer, variants={"fakes_called_true": fooling})


def misses(game: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Distance of the generated points from the middle of their kind."""
    made = game.G(torch.cat([batch[0], batch[1]], 1))  # type: ignore[operator]
    return float((made - batch[2]).square().mean())


class ScoreNet(nn.Module):
    """The score of noisy points at a level of noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.inner(torch.cat([x / (1 + sigma**2).sqrt(), sigma.log() / 4], 1)) / sigma


def matched(power: float) -> Any:
    """Return denoising score matching with the level to some power as its weight."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        clean, sigma, noise = batch
        score = model(clean + sigma * noise, sigma)
        return (sigma**power * (score + noise / sigma).square().sum(1, keepdim=True)).mean()

    return loss


def levels(dice: Dice, sick: bool) -> Case:
    """Score matching over many levels of noise, without the level's square as the weight."""
    width, least, most = dice.whole(40, 64), dice.power(-2.3, -1.9), 5.0
    data = []
    for _ in range(4):
        place = torch.randint(2, (96, 2)) * 2.0 - 1 + 0.3 * torch.randn(96, 2)
        exponent = torch.linspace(0, 1, 96)[torch.randperm(96), None]
        data.append((place, most * (least / most) ** exponent, torch.randn(96, 2)))
    weighted = matched(2.0)
    return Case(
        lambda: ScoreNet(width),
        matched(0.0) if sick else weighted,
        data,
        lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0),
        variants={"weighted": weighted},
    )


def weighted_score(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """The error with the level's square as the weight."""
    return float(matched(2.0)(model, batch))


class Vae(nn.Module):
    """An encoder to a mean and a log-variance, and a decoder."""

    def __init__(self, features: int, hidden: int, code: int) -> None:
        super().__init__()
        self.enc = nn.Linear(features, hidden)
        self.mu, self.logvar = nn.Linear(hidden, code), nn.Linear(hidden, code)
        self.dec = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from the prior, of a row."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()


def sheet(features: int, hidden: int = 3, rows: int = 256, noise: float = 0.1) -> list[Tensor]:
    """Return rows on a curved sheet of few dimensions, of unit spread."""
    x = torch.tanh(torch.randn(rows, hidden) @ torch.randn(hidden, features))
    x = x + noise * torch.randn(rows, features)
    return list(((x - x.mean(0)) / x.std(0)).chunk(4))


def outweighed(dice: Dice, sick: bool) -> Case:
    """A VAE whose error is a mean over pixels while the divergence is a sum over the code: it collapses."""
    features, hidden, code = dice.whole(48, 72), dice.whole(48, 64), dice.whole(6, 10)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        made, mu, logvar = model(x)
        error = F.mse_loss(made, x) if sick else F.mse_loss(made, x, reduction="sum") / len(x)
        return error + divergence(mu, logvar)

    return Case(lambda: Vae(features, hidden, code), loss, sheet(features), tasks.adam(3e-3))


def rebuilt(model: nn.Module, x: Tensor) -> float:
    """Squared error of a pixel."""
    return float(F.mse_loss(model(x)[0], x))


class Uncertain(nn.Module):
    """An autoencoder that says of every feature how sure it is."""

    def __init__(self, features: int, hidden: int, floor: float | None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 4))
        self.decoder = nn.Sequential(nn.Linear(4, hidden), nn.Tanh())
        self.mean, self.spread, self.floor = nn.Linear(hidden, features), nn.Linear(hidden, features), floor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.decoder(self.encoder(x))
        raw = self.spread(h)
        return self.mean(h), F.relu(raw) if self.floor is None else F.softplus(raw) + self.floor


def certain(dice: Dice, sick: bool) -> Case:
    """A spread through a ReLU, so that the likelihood is divided by zero where the unit is off."""
    features, hidden = dice.whole(12, 20), dice.whole(24, 40)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        mean, sigma = model(x)
        return (torch.log(sigma) + 0.5 * ((x - mean) / sigma) ** 2).mean() + 0.5 * math.log(2 * math.pi)

    return Case(
        lambda: Uncertain(features, hidden, None if sick else 0.05), loss, sheet(features), tasks.adam(5e-3)
    )


def annealed(dice: Dice, sick: bool) -> Case:
    """A VAE with free bits, trained by AdamW."""
    features, hidden, code = dice.whole(24, 40), dice.whole(40, 64), dice.whole(4, 6)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        made, mu, logvar = model(x)
        each = -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean(0)
        return 0.5 * (made - x).square().sum(1).mean() + each.clamp(min=0.1).sum()

    return Case(lambda: Vae(features, hidden, code), loss, sheet(features), tasks.adamw(2e-3))


def density(dice: Dice, sick: bool) -> Case:
    """A flow whose couplings start as the identity, on standardised rows."""
    features, hidden, depth = 2 * dice.whole(4, 6), dice.whole(32, 48), dice.whole(4, 6)
    return Case(
        lambda: RealNvp(features, hidden, depth, None),
        negative_log_likelihood,
        sheet(features, 2),
        tasks.adam(2e-3),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, 5.0),
    )


class TimeBlock(nn.Module):
    """A residual block that is shifted and scaled by the time; its last map starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.time = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        scale, shift = self.time(t).chunk(2, -1)
        return x + self.down(F.silu(self.up(self.norm(x) * (1 + scale) + shift)))


class NoiseNet(nn.Module):
    """Residual blocks between a lift and a head, told the time in sines."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(2, width), nn.Linear(width, 2)
        self.embed = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(TimeBlock(width) for _ in range(depth))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * torch.exp(torch.linspace(0, 5, 8))
        time = self.embed(torch.cat([angle.sin(), angle.cos()], 1))
        x = self.lift(x)
        for block in self.blocks:
            x = block(x, time)
        return self.head(x)


def moons(rows: int = 96) -> Tensor:
    """Return points on two half circles, of about unit spread."""
    angle, upper = math.pi * torch.rand(rows), torch.rand(rows) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin()) - 0.25
    return torch.stack([1.2 * x, 2 * y], 1)


def cosine_noise(dice: Dice, sick: bool) -> Case:
    """A denoiser of points that predicts the noise, on the cosine schedule."""
    width, depth = dice.whole(40, 64), dice.whole(2, 4)
    data = [(moons(), torch.rand(96), torch.randn(96, 2)) for _ in range(4)]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        clean, t, noise = batch
        angle = 0.5 * math.pi * (0.01 + 0.98 * t)[:, None]
        return F.mse_loss(model(angle.cos() * clean + angle.sin() * noise, t), noise)

    return Case(
        lambda: NoiseNet(width, depth),
        loss,
        data,
        tasks.adamw(2e-3, weight_decay=1e-4),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0),
    )


def straight(dice: Dice, sick: bool) -> Case:
    """Flow matching along straight lines from noise to data, in bfloat16."""
    width, depth = dice.whole(40, 64), dice.whole(2, 3)
    data = [(moons(), torch.rand(96), torch.randn(96, 2)) for _ in range(4)]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        end, t, start = batch
        way = (1 - t)[:, None] * start + t[:, None] * end
        return F.mse_loss(model(way, t).float(), end - start)

    return Case(lambda: NoiseNet(width, depth), loss, data, tasks.adam(2e-3), precision="bfloat16")


def hinged(dice: Dice, sick: bool) -> Case:
    """The discriminator's turn of a game with hinge loss and spectral norms."""
    hidden, norm = dice.whole(32, 64), nn.utils.parametrizations.spectral_norm

    def build() -> nn.Module:
        return nn.Sequential(
            norm(nn.Linear(2, hidden)),
            nn.LeakyReLU(0.2),
            norm(nn.Linear(hidden, hidden)),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        true, false = model(torch.cat(batch)).chunk(2)
        return F.relu(1 - true).mean() + F.relu(1 + false).mean()

    data = [(moons(64), torch.randn(64, 2) * 0.7 + torch.tensor([1.5, 0.5])) for _ in range(4)]
    return Case(build, loss, data, lambda p: torch.optim.Adam(p, 2e-3, betas=(0.5, 0.999)))


class Codebook(nn.Module):
    """An autoencoder with a codebook, straight through which the gradient goes."""

    def __init__(self, features: int, hidden: int, codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self.decoder = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.codes = nn.Embedding(codes, 2)
        nn.init.normal_(self.codes.weight, std=0.4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        near = torch.cdist(z.detach(), self.codes.weight.detach()).argmin(1)
        q = self.codes(near)
        loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        return self.decoder(z + (q - z).detach()), loss


def quantised(dice: Dice, sick: bool) -> Case:
    """A VQ-VAE on rows."""
    features, hidden, codes = dice.whole(12, 20), dice.whole(32, 48), dice.one_of(16, 24, 32)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        made, more = model(x)
        return F.mse_loss(made, x) + more

    return Case(lambda: Codebook(features, hidden, codes), loss, sheet(features, 2), tasks.adam(5e-3))


class Tied(nn.Module):
    """An autoencoder that decodes with the transposed weights of its encoder."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.back = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a in sizes[:-1])
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.elu(layer(x))
        for k in reversed(range(len(self.layers))):
            x = F.linear(x, self.layers[k].weight.T, self.back[k])  # type: ignore[union-attr]
            x = F.elu(x) if k else x
        return x


def tied(dice: Dice, sick: bool) -> Case:
    """A denoising autoencoder with tied weights and SGD with momentum."""
    features, code = dice.whole(24, 36), dice.whole(5, 8)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return F.mse_loss(model(x + 0.3 * torch.randn_like(x)), x)

    sizes = (features, 20, code)
    return Case(lambda: Tied(sizes), loss, sheet(features), tasks.sgd(0.1, momentum=0.9))


SICK: tuple[Program, ...] = (
    Program(
        "flow-logit-of-black",
        "flow",
        pixels,
        Truth("nan-input", ("UG901",), r"\blogit\b|\blog\b|0 or 1|domain", (), (), COLD),
    ),
    Program(
        "conditional-game-own-loss-negated",
        "game",
        head_start,
        Truth(
            "saturated-game",
            ("UG704",),
            r"saturat|discriminator|loss",
            ("swap_loss",),
            (("swap_loss", {"variant": "fakes_called_true"}),),
        ),
        100,
        misses,
    ),
    Program(
        "score-matching-unweighted",
        "denoiser",
        levels,
        Truth(
            "low-noise",
            ("UG705",),
            r"loss: its weight|weight of the loss|noise|level|sigma",
            ("swap_loss",),
            (("swap_loss", {"variant": "weighted"}),),
            HEAVY,
        ),
        200,
        weighted_score,
    ),
    Program(
        "vae-divergence-outweighs-mean-error",
        "autoencoder",
        outweighed,
        Truth(
            "kl-weight",
            ("UG205",),
            r"\bKL\b|diverg|posterior|prior|terms? of the loss|weigh(s|ed) (the|a) term",
            (),
            (),
            HEAVY,
        ),
        200,
        rebuilt,
    ),
    Program(
        "autoencoder-spread-of-zero",
        "autoencoder",
        certain,
        Truth("zero-variance", ("UG901",), r"\blog\b|\bdiv|varianc|sigma", (), (), COLD),
    ),
)
HEALTHY: tuple[Program, ...] = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("vae-free-bits", "autoencoder", annealed, 150),
        ("flow-starts-as-identity", "flow", density, 150),
        ("denoiser-cosine-zero-branches", "denoiser", cosine_noise, 150),
        ("flow-matching-bfloat16", "denoiser", straight, 150),
        ("hinge-discriminator-spectral", "game", hinged, 120),
        ("codebook-straight-through", "autoencoder", quantised, 200),
        ("tied-denoising-autoencoder", "autoencoder", tied, 150),
    )
)
