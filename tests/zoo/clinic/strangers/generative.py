"""Models that make what they have seen: autoencoders, flows, denoisers and games."""

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)


def sheet(features: int, hidden: int, rows: int = 64) -> list[Tensor]:
    """Return points in the unit cube that lie near a curved sheet of a few dimensions."""
    mix, bend = torch.randn(hidden, features), torch.randn(hidden, features)
    batches = []
    for _ in range(4):
        z = torch.randn(rows, hidden)
        batches.append(torch.sigmoid(z @ mix + torch.sin(z) @ bend))
    return batches


class Hourglass(nn.Module):
    """An autoencoder whose sizes go down to a code and up again."""

    def __init__(self, sizes: list[int], act: type[nn.Module]) -> None:
        super().__init__()
        down = self.stack(sizes, act)
        up = self.stack(sizes[::-1], act)
        self.encode, self.decode = nn.Sequential(*down), nn.Sequential(*up[:-1])

    @staticmethod
    def stack(sizes: list[int], act: type[nn.Module]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            lin = nn.Linear(a, b)
            nn.init.xavier_uniform_(lin.weight)
            nn.init.zeros_(lin.bias)
            layers += [lin, act()]
        return layers

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def rebuild(net: nn.Module, x: Tensor) -> Tensor:
    """Cross-entropy of every feature of what is made again, above the least that it can be."""
    least = F.binary_cross_entropy(x, x)
    return F.binary_cross_entropy_with_logits(net(x), x) - least


def hourglass(dice: Dice, sick: bool) -> Case:
    """A deep autoencoder all in sigmoids."""
    features, code = dice.whole(20, 28), dice.whole(4, 5)
    sizes = [features, 24, 20, 16, 12, code]
    act = nn.Sigmoid if sick else nn.Tanh
    return Case(
        lambda: Hourglass(sizes, act),
        rebuild,
        sheet(features, 3),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    )


class Bits(nn.Module):
    """An autoencoder whose code is tossed: bits with the probabilities that the encoder gives."""

    def __init__(self, features: int, bits: int, width: int, *, through: bool) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, bits))
        self.dec = nn.Sequential(nn.Linear(bits, width), nn.ReLU(), nn.Linear(width, features))
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.enc(x))
        b = torch.bernoulli(p)
        if self.through:
            b = p + (b - p).detach()
        return self.dec(2 * b - 1)


def again(net: nn.Module, x: Tensor) -> Tensor:
    """Squared error of what is made again."""
    return F.mse_loss(net(x), x)


def tossed(dice: Dice, sick: bool) -> Case:
    """An autoencoder through sampled bits, without a gradient that goes straight through them."""
    features, bits, width = dice.whole(10, 14), dice.whole(10, 14), dice.whole(32, 48)
    kinds = torch.randn(6, features)
    data = [kinds[torch.randint(6, (64,))] + 0.1 * torch.randn(64, features) for _ in range(4)]
    model = Bits(features, bits, width, through=not sick)
    return Case(model, again, data, torch.optim.Adam(model.parameters(), lr=5e-3))


class Film(nn.Module):
    """A layer whose outputs are scaled and shifted by what the condition says."""

    def __init__(self, inside: int, outside: int, cond: int) -> None:
        super().__init__()
        self.lin, self.film = nn.Linear(inside, outside), nn.Linear(cond, 2 * outside)

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.film(cond).chunk(2, -1)
        return F.silu(scale * self.lin(h) + shift)


class FilmDenoiser(nn.Module):
    """Layers that are told the level of noise, one behind the other."""

    def __init__(self, features: int, width: int, depth: int, start: float) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(16, width), nn.SiLU())
        self.layers = nn.ModuleList(Film(width if k else features, width, width) for k in range(depth))
        self.out = nn.Linear(width, features)
        for layer in self.layers:
            assert isinstance(layer, Film)
            nn.init.zeros_(layer.film.weight)
            nn.init.zeros_(layer.film.bias)
            layer.film.bias.data[:width] = start

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * 2.0 ** torch.arange(8)
        cond = self.embed(torch.cat([angle.sin(), angle.cos()], -1))
        for layer in self.layers:
            x = layer(x, cond)
        return self.out(x)


def noised(features: int, rows: int = 96) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return points near a circle in some plane, with noise and how much of it."""
    plane = torch.linalg.qr(torch.randn(features, 2))[0].T * features**0.5
    batches = []
    for _ in range(4):
        clean = F.normalize(torch.randn(rows, 2), dim=-1) @ plane
        t = (torch.arange(rows) + torch.rand(rows)) / rows
        batches.append((clean, t[torch.randperm(rows)], torch.randn(rows, features)))
    return batches


def velocity(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Squared error of the straight way from noise to data."""
    clean, t, noise = batch
    mixed = (1 - t[:, None]) * noise + t[:, None] * clean
    return F.mse_loss(net(mixed, t), clean - noise)


def scaled_to_nothing(dice: Dice, sick: bool) -> Case:
    """A flow-matching net whose layers are multiplied by scales that start at zero, with no way around."""
    features, width, depth = dice.whole(4, 6), dice.whole(40, 56), dice.whole(4, 5)
    build = partial(FilmDenoiser, features, width, depth, 0.0 if sick else 1.7)
    return Case(build, velocity, noised(features), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))


def images(size: int = 8, rows: int = 48) -> list[Tensor]:
    """Return pictures of a soft cross in a little noise."""
    line = torch.linspace(-1, 1, size)
    place = 0.4 * (torch.rand(2) - 0.5)
    cross = torch.exp(-8 * torch.minimum((line[:, None] - place[0]).abs(), (line[None] - place[1]).abs()))
    middle = 1.6 * cross - 0.8
    return [middle + 0.1 * torch.randn(rows, 1, size, size) for _ in range(4)]


class Painter(nn.Module):
    """Makes pictures of eight by eight by transposed convolutions."""

    def __init__(self, z: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(z, channels * 4)
        self.up1 = nn.ConvTranspose2d(channels, channels, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(channels, 1, 4, 2, 1)
        nn.init.kaiming_normal_(self.up1.weight, nonlinearity="relu")

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.project(z)).view(len(z), -1, 2, 2)
        return torch.tanh(self.up2(F.relu(self.up1(h))))


class Contest(nn.Module):
    """A painter and a judge of its pictures, who has seen many more."""

    def __init__(self, z: int, channels: int, real: list[Tensor], rounds: int) -> None:
        super().__init__()
        self.gen = Painter(z, channels)
        self.disc = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, 4, 2, 1), nn.LeakyReLU(0.2)
        )
        self.disc.extend([nn.Flatten(), nn.Linear(64, 1)])
        opt = torch.optim.Adam(self.disc.parameters(), lr=5e-3)
        for step in range(rounds):
            with torch.no_grad():
                fake = self.gen(torch.randn(48, z))
            loss = F.softplus(self.disc(fake)).mean() + F.softplus(-self.disc(real[step % 4])).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()

    def forward(self, z: Tensor) -> Tensor:
        return self.disc(self.gen(z))


def beaten(dice: Dice, sick: bool) -> Case:
    """A painter that is to lower the chance that a sure judge says fake, by the loss that is flat there.

    Without the fault the judge has seen a tenth as much, so that neither loss starts far from ln 2.
    """
    z, channels, rounds = dice.whole(6, 10), dice.whole(10, 16), dice.whole(90, 130)
    real = images()
    model = Contest(z, channels, real, rounds if sick else rounds // 10)

    def minimax(net: nn.Module, noise: Tensor) -> Tensor:
        logits = net(noise)
        return -F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))

    def heuristic(net: nn.Module, noise: Tensor) -> Tensor:
        logits = net(noise)
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    data = [torch.randn(48, z) for _ in range(4)]
    optimizer = torch.optim.SGD(model.gen.parameters(), lr=0.02)
    loss = minimax if sick else heuristic
    return Case(model, loss, data, optimizer, variants={"heuristic": heuristic})


def found_out(net: nn.Module, noise: Tensor) -> float:
    """How surely the judge knows what is made for made."""
    return float(F.softplus(-net(noise)).mean())


class Walker(nn.Module):
    """A generator of points, and a critic that has been taught where real ones are."""

    def __init__(self, width: int, depth: int, clip: float | None) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
        layers: list[nn.Module] = [nn.Linear(2, width), nn.LeakyReLU(0.2)]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(*layers, nn.Linear(width, 1))
        opt = torch.optim.Adam(self.critic.parameters(), lr=2e-3, betas=(0.5, 0.9))
        for _ in range(300):
            real = torch.tensor([1.5, -1.0]) + 0.2 * torch.randn(64, 2)
            fake = 2 * torch.randn(64, 2)
            fake.requires_grad_()
            score = self.critic(fake)
            loss = score.mean() - self.critic(real).mean()
            if clip is None:
                slope = torch.autograd.grad(score.sum(), fake, create_graph=True)[0].norm(dim=1)
                loss = loss + 10 * (slope - 1).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            if clip is not None:
                with torch.no_grad():
                    for p in self.critic.parameters():
                        p.clamp_(-clip, clip)

    def forward(self, z: Tensor) -> Tensor:
        return self.critic(self.generator(z))


def clipped_critic(dice: Dice, sick: bool) -> Case:
    """A Wasserstein critic whose every weight was clipped to a hundredth, so that little comes through it."""
    width, depth = dice.whole(24, 32), dice.whole(3, 4)
    model = Walker(width, depth, 0.01 if sick else None)
    data = [torch.randn(64, 4) for _ in range(4)]

    def loss(net: nn.Module, z: Tensor) -> Tensor:
        return -net(z).mean()

    return Case(model, loss, data, torch.optim.SGD(model.generator.parameters(), lr=0.02))


def away(net: nn.Module, z: Tensor) -> float:
    """Squared distance of the generated points' middle from the real one."""
    return float((net.generator(z).mean(0) - torch.tensor([1.5, -1.0])).square().sum())  # type: ignore[operator]


class AffineCoupling(nn.Module):
    """Scales and shifts one half by what a net makes of the other; the scales are bounded."""

    def __init__(self, half: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(half, width), nn.ReLU(), nn.Linear(width, 2 * half))
        last = self.net[2]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.02 * width**-0.5)
        nn.init.zeros_(last.bias)

    def parts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        s, shift = self.net(kept).chunk(2, -1)
        return 2 * torch.tanh(s / 2), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.chunk(2, -1)
        s, shift = self.parts(kept)
        return torch.cat([kept, moved * s.exp() + shift], -1), s.sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, moved = y.chunk(2, -1)
        s, shift = self.parts(kept)
        return torch.cat([kept, (moved - shift) * (-s).exp()], -1)


class Mixing(nn.Module):
    """A linear map of all features, as flows have it between their couplings."""

    def __init__(self, features: int, *, orthogonal: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(features, features, bias=False)
        (nn.init.orthogonal_ if orthogonal else nn.init.normal_)(self.lin.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.lin(x), torch.linalg.slogdet(self.lin.weight)[1].expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.solve(self.lin.weight, y.T).T


class Glow(nn.Module):
    """Mixings and couplings in turn, and the log of the volume that they make."""

    def __init__(self, half: int, depth: int, width: int, *, orthogonal: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        for _ in range(depth):
            self.steps += [Mixing(2 * half, orthogonal=orthogonal), AffineCoupling(half, width)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = torch.zeros(len(x))
        for step in self.steps:
            x, grown = step(x)
            volume = volume + grown
        return x, volume

    def inverse(self, z: Tensor) -> Tensor:
        for step in reversed(self.steps):
            z = step.inverse(z)  # type: ignore[operator]
        return z


def nll(flow: nn.Module, x: Tensor) -> Tensor:
    """Minus the log-likelihood of the points under the flow."""
    z, volume = flow(x)
    return (0.5 * z.square().sum(-1) - volume).mean() + 0.5 * x.shape[1] * math.log(2 * math.pi)


def moons(half: int, rows: int = 96) -> list[Tensor]:
    """Return points near a bent thread, in as many dimensions."""
    mix = torch.linalg.qr(torch.randn(2 * half, 2 * half))[0]
    batches = []
    for _ in range(4):
        u = torch.randn(rows, half)
        batches.append(torch.cat([u, 0.7 * u.square() - 0.7 + 0.3 * torch.randn(rows, half)], 1) @ mix * 1.5)
    return batches


def random_mixing(dice: Dice, sick: bool) -> Case:
    """A flow of couplings between which the features are mixed by matrices of normal numbers."""
    half, depth, width = dice.whole(3, 4), dice.whole(8, 10), dice.whole(24, 40)
    build = partial(Glow, half, depth, width, orthogonal=not sick)
    return Case(build, nll, moons(half), lambda p: torch.optim.Adam(p, lr=2e-3))


class Tied(nn.Module):
    """An autoencoder that decodes by the encoder's own matrices, transposed."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.w = nn.ParameterList(nn.Parameter(torch.randn(b, a) * (2 / (a + b)) ** 0.5) for a, b in pairs)
        self.down = nn.ParameterList(nn.Parameter(torch.zeros(b)) for _, b in pairs)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a, _ in pairs)

    def forward(self, x: Tensor) -> Tensor:
        for w, b in zip(self.w, self.down, strict=True):
            x = F.elu(F.linear(x, w, b))
        for k in reversed(range(len(self.w))):
            x = F.linear(x, self.w[k].T, self.up[k])
            x = F.elu(x) if k else x
        return x


def tied(dice: Dice, sick: bool) -> Case:
    """An autoencoder with tied weights that are bare parameters."""
    features, width, code = dice.whole(16, 24), dice.whole(16, 20), dice.whole(4, 6)
    mix = torch.randn(3, features)
    data = [torch.tanh(torch.randn(64, 3) @ mix) for _ in range(4)]
    return Case(lambda: Tied((features, width, code)), again, data, lambda p: torch.optim.Adam(p, lr=3e-3))


class Vae(nn.Module):
    """A variational autoencoder of small pictures."""

    def __init__(self, channels: int, z: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, channels, 4, 2, 1), nn.GELU(), nn.Conv2d(channels, channels, 4, 2, 1), nn.GELU()
        )
        self.stats = nn.Linear(4 * channels, 2 * z)
        self.paint = Painter(z, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.stats(self.trunk(x).flatten(1)).chunk(2, -1)
        return self.paint(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar


def vae(dice: Dice, sick: bool) -> Case:
    """A variational autoencoder with its two terms summed alike and a spread of pixels that suits them."""
    channels, z = dice.whole(10, 16), dice.whole(3, 5)
    spread = dice.between(0.25, 0.35)
    line = torch.linspace(-1, 1, 8)
    data = []
    for _ in range(4):
        at = 1.2 * (torch.rand(48, 2) - 0.5)
        far = (line[None, :, None] - at[:, :1, None]).square() + (line[None, None] - at[:, 1:, None]).square()
        data.append((1.6 * torch.exp(-4 * far) - 0.8)[:, None])

    def elbo(net: nn.Module, x: Tensor) -> Tensor:
        made, mu, logvar = net(x)
        error = 0.5 * ((made - x) / spread).square().sum((1, 2, 3))
        kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1)
        return (error + kl).mean()

    return Case(lambda: Vae(channels, z), elbo, data, lambda p: torch.optim.Adam(p, lr=2e-3))


class Shift(nn.Module):
    """A coupling with a scale per feature and a shift that starts at nothing."""

    def __init__(self, mask: Tensor, width: int) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)
        self.net = nn.Sequential(nn.Linear(len(mask), width), nn.SiLU(), nn.Linear(width, len(mask)))
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]
        self.log_scale = nn.Parameter(torch.zeros(len(mask)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x + (1 - self.mask) * self.net(x * self.mask)
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        y = y * (-self.log_scale).exp()
        return y - (1 - self.mask) * self.net(y * self.mask)


class Nice(nn.Module):
    """Masked shifts in turn."""

    def __init__(self, features: int, depth: int, width: int) -> None:
        super().__init__()
        even = (torch.arange(features) % 2).float()
        self.parts = nn.ModuleList(Shift(even if k % 2 else 1 - even, width) for k in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = torch.zeros(len(x))
        for part in self.parts:
            x, grown = part(x)
            volume = volume + grown
        return x, volume

    def inverse(self, z: Tensor) -> Tensor:
        for part in reversed(self.parts):
            z = part.inverse(z)  # type: ignore[operator]
        return z


def nice(dice: Dice, sick: bool) -> Case:
    """A flow that starts as the identity."""
    half, depth, width = dice.whole(2, 3), dice.whole(4, 6), dice.whole(32, 48)
    return Case(
        lambda: Nice(2 * half, depth, width), nll, moons(half), lambda p: torch.optim.Adamax(p, lr=1e-2)
    )


class Preconditioned(nn.Module):
    """A net between factors of the noise that keep what enters and what is asked at unit size."""

    def __init__(self, features: int, width: int, data_std: float) -> None:
        super().__init__()
        self.data_std = data_std
        self.freq = nn.Parameter(torch.randn(8), requires_grad=False)
        self.into = nn.Linear(features + 16, width)
        self.mid = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.out = nn.Linear(width, features)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[:, None]
        total = (s.square() + self.data_std**2).sqrt()
        angle = 6.28 * self.freq * s.log() / 4
        h = F.silu(self.into(torch.cat([x / total, angle.sin(), angle.cos()], -1)))
        for lin in self.mid:
            h = h + F.silu(lin(h))
        return x * (self.data_std / total) ** 2 + self.out(h) * s * self.data_std / total


def preconditioned(dice: Dice, sick: bool) -> Case:
    """A denoiser over six powers of two of noise, weighed so that all count alike."""
    features, width = dice.whole(3, 5), dice.whole(48, 64)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        clean, t, noise = batch
        sigma = (t * 4.0 - 2.5).exp()
        weight = (sigma.square() + 1) / sigma.square()
        error = net(clean + sigma[:, None] * noise, sigma) - clean
        return (weight[:, None] * error.square()).mean()

    build = partial(Preconditioned, features, width, 1.0)

    def optimizer(parameters: object) -> torch.optim.Optimizer:
        held = [p for p in parameters if p.requires_grad]  # type: ignore[attr-defined]
        return torch.optim.Adam(held, lr=3e-3)

    return Case(build, loss, noised(features), optimizer)


def penalised(dice: Dice, sick: bool) -> Case:
    """A Wasserstein critic that learns to tell two clouds apart, its slope held near one."""
    width = dice.whole(32, 48)
    shift = dice.between(1.5, 2.5)
    critic = nn.Sequential(
        nn.Linear(3, width),
        nn.LeakyReLU(0.2),
        nn.LayerNorm(width),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
    )
    critic.append(nn.Linear(width, 1))
    data = [(torch.randn(64, 3), torch.randn(64, 3) * 0.5 + shift, torch.rand(64, 1)) for _ in range(4)]

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        fake, real, share = batch
        between = (share * real + (1 - share) * fake).requires_grad_()
        slope = torch.autograd.grad(net(between).sum(), between, create_graph=True)[0]
        return net(fake).mean() - net(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    return Case(critic, loss, data, torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9)))


class Eps(nn.Module):
    """A residual denoiser whose branches and output start at zero, as is usual."""

    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        self.lift, self.time = nn.Linear(features, width), nn.Linear(16, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        self.fc1 = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.fc2 = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.mod = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.out = nn.Linear(width, features)
        for lin in (*self.mod, self.out):
            assert isinstance(lin, nn.Linear)
            nn.init.zeros_(lin.weight)
            nn.init.zeros_(lin.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * 2.0 ** torch.arange(8)
        cond, h = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], -1))), self.lift(x)
        for norm, fc1, fc2, mod in zip(self.norms, self.fc1, self.fc2, self.mod, strict=True):
            scale, shift, gate = mod(cond).chunk(3, -1)
            h = h + gate * fc2(F.gelu(fc1(norm(h) * (1 + scale) + shift)))
        return self.out(h)


def adaln_zero(dice: Dice, sick: bool) -> Case:
    """A flow-matching net with gated branches that start at zero, under bfloat16 and a clip of one."""
    features, width, depth = dice.whole(4, 6), dice.whole(32, 48), dice.whole(2, 4)
    return Case(
        lambda: Eps(features, width, depth),
        lambda net, batch: velocity(net, batch).float(),
        noised(features),
        lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.01),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
        precision="bfloat16",
    )


SICK = (
    Program(
        "hourglass-all-in-sigmoids",
        "autoencoder",
        hourglass,
        Truth(
            "sigmoid",
            ("UG101", "UG205"),
            r"^activation:|sigmoid",
            ("swap_activation", "swap_to_relu"),
            (("swap_activation", {"of": "Sigmoid", "to": "Tanh"}),),
            FASTER,
        ),
        200,
    ),
    Program(
        "code-of-tossed-bits",
        "autoencoder",
        tossed,
        Truth(
            "dead-link",
            ("UG603", "UG608"),
            r"bernoulli|sampl|toss|detach|no slope|flat|derivative|(does|do) not reach|rounding|cut off",
            (),
            (),
            FASTER,
        ),
        150,
    ),
    Program(
        "film-scales-start-at-zero",
        "denoiser",
        scaled_to_nothing,
        Truth(
            "zero-init",
            ("UG603", "UG202", "UG101", "UG103", "UG206"),
            r"starts? at zero|zero weights|weights? .*zero|multiplies by zero",
            ("activation_init", "critical_init"),
            (("activation_init", {}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
    ),
    Program(
        "judge-of-pictures-is-sure",
        "game",
        beaten,
        Truth(
            "saturated-game",
            ("UG704",),
            r"saturat|discriminator|^loss",
            ("swap_loss",),
            (("swap_loss", {"variant": "heuristic"}),),
            FASTER,
        ),
        score=found_out,
    ),
    Program(
        "critic-clipped-to-a-hundredth",
        "game",
        clipped_critic,
        Truth(
            "weight-clip",
            ("UG101", "UG103", "UG202", "UG704", "UG602"),
            r"^weights:|critic|clipp?(ed|ing)? .*weight|weight.*clip",
            ("rescale_weights", "unit_jacobian_init"),
            (),
            FASTER,
        ),
        150,
        away,
    ),
    Program(
        "glow-mixed-by-normal-matrices",
        "flow",
        random_mixing,
        Truth(
            "stretched-flow",
            ("UG703", "UG201"),
            r"orthogonal|mix|stretch|^weights:",
            ("orthogonal_init",),
            (("orthogonal_init", {"sites": ("steps.*.lin",), "gain": 1.0}),),
            FASTER,
        ),
        150,
    ),
)
HEALTHY = (
    Program("autoencoder-tied-parameters", "autoencoder", tied),
    Program("vae-of-spots", "autoencoder", vae, steps=150),
    Program("nice-starts-as-identity", "flow", nice, steps=200),
    Program("denoiser-preconditioned", "denoiser", preconditioned, steps=200),
    Program("critic-with-penalty", "game", penalised),
    Program("denoiser-gated-from-zero", "denoiser", adaln_zero, steps=150),
)
