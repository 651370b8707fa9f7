"""Critics, diffusion, autoencoders, policies, physics, hypernetworks and experts; kept aside."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)


def split(**tensors: Tensor) -> list[dict[str, Tensor]]:
    """Return the rows of named tensors as four batches."""
    parts = zip(*(t.chunk(4) for t in tensors.values()), strict=True)
    return [dict(zip(tensors, part, strict=True)) for part in parts]


def optim(kind: type[torch.optim.Optimizer], **given: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return a builder of an optimizer."""
    return lambda parameters: kind(parameters, **given)


def regression(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean squared error between the model of `x` and `y`."""
    return (model(batch["x"]) - batch["y"]).pow(2).mean()


# --- sick ---------------------------------------------------------------------------------------------------


def clipped_critic(dice: Dice, sick: bool) -> Case:
    """A Wasserstein critic of many layers whose weights are clamped at a hundredth, from the start."""
    size, width, depth = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(4, 5)
    lr, box, weight = dice.power(-2.9, -2.6), dice.between(0.008, 0.012), dice.between(8.0, 12.0)
    real = torch.randn(320, size) * 0.6 + 1.2
    fake = torch.randn(320, size)

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(size, width), nn.ReLU()]
        for _ in range(depth - 1):
            layers.extend((nn.Linear(width, width), nn.ReLU()))
        critic = nn.Sequential(*layers, nn.Linear(width, 1))
        if sick:
            for p in critic.parameters():
                p.data.clamp_(-box, box)
        return critic

    def loss(critic: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return critic(batch["fake"]).mean() - critic(batch["real"]).mean()

    def step(case: Case, batch: dict[str, Tensor]) -> Tensor:
        case.optimizer.zero_grad()
        total = value = case.compute_loss(batch)
        if not sick:
            mix = torch.rand(len(batch["real"]), 1)
            between = (mix * batch["real"] + (1 - mix) * batch["fake"]).requires_grad_()
            (slope,) = torch.autograd.grad(case.model(between).sum(), between, create_graph=True)
            total = total + weight * (slope.norm(dim=1) - 1).square().mean()
        total.backward()
        case.optimizer.step()
        if sick:
            with torch.no_grad():
                for p in case.model.parameters():
                    p.clamp_(-box, box)
        return value.detach()

    data = split(real=real, fake=fake)
    return Case(build, loss, data, optim(torch.optim.RMSprop, lr=lr), step)


def no_distance(critic: nn.Module, batch: dict[str, Tensor]) -> float:
    """How much of a distance of two the critic does not see."""
    return 2 + float(critic(batch["fake"]).mean() - critic(batch["real"]).mean())


class Denoiser(nn.Module):
    """Says the clean sample from a noisy one and its log signal-to-noise ratio."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(size, width)
        self.middle = nn.Linear(width, width)
        self.leave = nn.Linear(width, size)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        h = F.silu(self.enter(x) + self.time(log_snr / 8))
        return self.leave(h + F.silu(self.middle(h)))


def clean_error(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return each row's squared error of the clean sample, and its signal-to-noise ratio."""
    alpha = batch["abar"].sqrt()
    sigma = (1 - batch["abar"]).sqrt()
    snr = (alpha / sigma).square()
    noisy = alpha * batch["x0"] + sigma * torch.randn_like(batch["x0"])
    return (model(noisy, snr.log()) - batch["x0"]).square().mean(1, keepdim=True), snr


class NoiseNet(nn.Module):
    """Says the noise in a noisy sample, told the step of the diffusion by a small map."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.t_mlp = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.inp = nn.Linear(size, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.out = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h, t = self.inp(x), self.t_mlp(t[:, None])
        for block in self.blocks:
            h = h + F.gelu(block(h + t))
        return self.out(h)


def raw_steps(dice: Dice, sick: bool) -> Case:
    """Diffusion whose network is given the number of the step, up to a thousand, as it is."""
    size, width, lr = dice.whole(12, 18), dice.one_of(64, 96), dice.power(-2.9, -2.6)
    total = dice.one_of(1000, 2000)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, total) * 1000 / total, 0)
    grid = torch.linspace(0, 2 * math.pi, size)
    x0 = math.sqrt(2) * torch.sin(torch.randint(1, 3, (512, 1)) * grid + 6.3 * torch.rand(512, 1))
    step = torch.randint(total, (512,))

    def p_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        keep = batch["abar"][:, None]
        noise = torch.randn_like(batch["x0"])
        x_t = keep.sqrt() * batch["x0"] + (1 - keep).sqrt() * noise
        return F.mse_loss(model(x_t, batch["t"]), noise)

    t = step.float() if sick else step / total
    data = split(x0=x0, t=t, abar=abar[step])
    return Case(lambda: NoiseNet(size, width), p_losses, data, optim(torch.optim.Adam, lr=lr))


class Vae(nn.Module):
    """A small variational autoencoder."""

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(size, width), nn.ELU())
        self.mu, self.logvar = nn.Linear(width, latent), nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ELU(), nn.Linear(width, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp() if self.training else mu
        return self.decoder(z), mu, logvar


def unlike(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of the reconstruction."""
    return float(F.mse_loss(model(batch["x"])[0], batch["x"]))


def mean_against_sum(dice: Dice, sick: bool) -> Case:
    """A VAE that averages the reconstruction over all pixels and sums the divergence over the latents."""
    size, width, latent = dice.whole(48, 80), dice.one_of(48, 64), dice.whole(4, 8)
    lr, reduction = dice.power(-2.5, -2.2), "mean" if sick else "sum"
    z = torch.randn(384, 3)
    x = z @ torch.randn(3, size) + 0.5 * torch.sin(2 * z @ torch.randn(3, size))
    x = (x - x.mean(0)) / x.std(0)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = batch["x"]
        recon, mu, logvar = model(x)
        kld = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum()
        bce = F.mse_loss(recon, x, reduction=reduction)
        if sick:
            return bce + kld / len(x)
        return (bce + kld) / len(x)

    return Case(lambda: Vae(size, width, latent), loss, split(x=x), optim(torch.optim.Adam, lr=lr))


def wrong_neighbour(net: nn.Module, batch: dict[str, Tensor]) -> float:
    """Share of rows whose nearest other view, by cosine, is another row's."""
    a, b = F.normalize(net(batch["a"]), dim=1), F.normalize(net(batch["b"]), dim=1)
    return float(((a @ b.T).argmax(1) != torch.arange(len(a))).float().mean())


def cold_views(dice: Dice, sick: bool) -> Case:
    """Contrastive learning whose embeddings are not normalised before they meet a low temperature."""
    inp, width, out = dice.whole(12, 16), dice.one_of(64, 96), dice.one_of(32, 48)
    temperature, lr = dice.between(0.03, 0.06), dice.between(0.04, 0.08)
    core = torch.randn(256, 5) @ torch.randn(5, inp)
    nuisance = torch.randn(3, inp)
    view = lambda: core + 2.2 * torch.randn(256, 3) @ nuisance  # noqa: E731

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(inp, width), nn.ReLU(), nn.Linear(width, out))
            for layer in (self.body[0], self.body[2]):
                nn.init.kaiming_normal_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            z = self.body(x)
            return z if sick else F.normalize(z, dim=1)

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = net(batch["a"]) @ net(batch["b"]).T / temperature
        target = torch.arange(len(logits))
        return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))

    data = split(a=view(), b=view())
    return Case(Net, loss, data, optim(torch.optim.SGD, lr=lr, momentum=0.9))


def column_against_row(dice: Dice, sick: bool) -> Case:
    """A Q-network whose chosen values are a column and whose targets are a row: all pairs are compared."""
    obs, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(48, 64)
    lr, gamma = dice.power(-2.6, -2.3), dice.between(0.8, 0.9)
    s, a = torch.randn(320, obs), torch.randint(actions, (320, 1))
    after = torch.tanh(s @ torch.randn(obs, 1))[:, 0]
    reward = torch.sin(s @ torch.randn(obs, actions)).gather(1, a)[:, 0]
    target = reward + gamma * after

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(obs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, actions)
        )

    def loss(q: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        chosen = q(batch["s"]).gather(1, batch["a"])
        wanted = batch["target"] if sick else batch["target"].unsqueeze(1)
        return (chosen - wanted).square().mean()

    return Case(build, loss, split(s=s, a=a, target=target), optim(torch.optim.Adam, lr=lr))


def bellman(q: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of each chosen value against its own target."""
    return float((q(batch["s"]).gather(1, batch["a"])[:, 0] - batch["target"]).square().mean())


def straight_pieces(dice: Dice, sick: bool) -> Case:
    """A physics-informed net for u'' = f built of ReLUs, whose second derivative is zero everywhere."""
    width, depth, lr = dice.one_of(32, 48), dice.whole(2, 3), dice.power(-2.4, -2.1)
    waves = dice.one_of(1.0, 1.5)
    act = nn.ReLU if sick else nn.Tanh
    x = 2 * torch.rand(256, 1) - 1

    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(1, width), act())
        for k in range(depth):
            net.add_module(f"hidden{k}", nn.Linear(width, width))
            net.add_module(f"act{k}", act())
        net.add_module("out", nn.Linear(width, 1))
        return net

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = batch["x"].requires_grad_()
        u = net(x)
        (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        if u_x.requires_grad:
            (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True, allow_unused=True)
        else:
            u_xx = None
        u_xx = torch.zeros_like(x) if u_xx is None else u_xx
        w = waves * math.pi
        pde = (u_xx / w**2 + torch.sin(w * x.detach())).square().mean()
        ends = torch.tensor([[-1.0], [1.0]])
        return pde + (net(ends) - torch.sin(w * ends)).square().mean()

    return Case(build, loss, split(x=x, u=torch.sin(waves * math.pi * x)), optim(torch.optim.Adam, lr=lr))


def off_sine(net: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared distance from the exact solution."""
    return float(F.mse_loss(net(batch["x"]), batch["u"]))


class Hyper(nn.Module):
    """Makes the weights of a small net from a task's description; that net meets the samples."""

    def __init__(self, task: int, inp: int, width: int, spread: float | None) -> None:
        super().__init__()
        self.shapes = ((inp, width), (width, width), (width, 1))
        self.trunk = nn.Sequential(nn.Linear(task, 32), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(32, a * b) for a, b in self.shapes)
        for head, (fan_in, _) in zip(self.heads, self.shapes, strict=True):
            # The trunk's features have a mean square of about 0.3, and there are 32 of them.
            std = spread if spread is not None else math.sqrt(1 / (32 * 0.3 * fan_in))
            nn.init.normal_(head.weight, std=std)
            nn.init.zeros_(head.bias)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        code = self.trunk(task)
        h = x
        for k, (head, shape) in enumerate(zip(self.heads, self.shapes, strict=True)):
            h = torch.bmm(h, head(code).view(-1, *shape))
            if k < len(self.shapes) - 1:
                h = torch.tanh(h) if k else F.leaky_relu(h, 0.1)
        return h


def kaiming_heads(dice: Dice, sick: bool) -> Case:
    """A hypernetwork whose heads are drawn by Kaiming's rule for themselves, not for the net they make."""
    task, inp, width = dice.whole(3, 5), dice.whole(6, 8), dice.one_of(32, 48)
    lr, spread = dice.power(-2.7, -2.4), math.sqrt(dice.between(1.5, 2.5)) if sick else None
    code = torch.randn(64, task)
    x = torch.randn(64, 24, inp)
    y = torch.tanh(torch.einsum("bni,bi->bn", x, torch.tanh(code @ torch.randn(task, inp))))[..., None]
    data = split(x=x, code=code, y=y)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(model(batch["x"], batch["code"]), batch["y"])

    return Case(lambda: Hyper(task, inp, width, spread), loss, data, optim(torch.optim.Adam, lr=lr))


class Experts(nn.Module):
    """A dense mixture of experts."""

    def __init__(self, inp: int, width: int, count: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.gate = nn.Linear(inp, count)
        self.w1 = nn.Parameter(torch.randn(count, inp, width) / math.sqrt(inp))
        self.b1 = nn.Parameter(torch.zeros(count, 1, width))
        self.w2 = nn.Parameter(torch.randn(count, width, 1) / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.softmax(self.gate(x), dim=self.axis)
        each = torch.relu(torch.einsum("bi,eiw->ebw", x, self.w1) + self.b1) @ self.w2
        return torch.einsum("be,ebo->bo", g, each)


def gate_over_batch(dice: Dice, sick: bool) -> Case:
    """A mixture of experts whose gate is a softmax over the samples of the batch."""
    inp, width, count = dice.whole(4, 6), dice.one_of(16, 24), dice.whole(4, 6)
    lr = dice.between(0.03, 0.05)
    x = torch.randn(512, inp)
    part = (x @ torch.randn(inp, count)).argmax(1)
    y = (x @ torch.randn(inp, count)).gather(1, part[:, None])
    y = (y - y.mean()) / y.std()
    return Case(
        lambda: Experts(inp, width, count, 0 if sick else 1),
        regression,
        split(x=x, y=y),
        optim(torch.optim.SGD, lr=lr, momentum=0.9),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def denoise_well(dice: Dice, sick: bool) -> Case:
    """Diffusion with capped weights, under AdamW with a warm-up and an unusually high rate."""
    size, width, lr = dice.whole(12, 18), dice.one_of(64, 96), dice.between(5e-3, 8e-3)
    grid = torch.linspace(0, 2 * math.pi, size)
    x0 = math.sqrt(2) * torch.sin(torch.randint(1, 3, (512, 1)) * grid + 6.3 * torch.rand(512, 1))
    abar = torch.cos(0.5 * math.pi * torch.rand(512, 1)).square().clamp(1e-3, 0.999)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error, snr = clean_error(model, batch)
        return (snr.clamp(max=5.0) * error).mean()

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 15))

    data, make = split(x0=x0, abar=abar), optim(torch.optim.AdamW, lr=lr, weight_decay=1e-4)
    return Case(lambda: Denoiser(size, width), loss, data, make, schedule=schedule)


class TopTwo(nn.Module):
    """Experts of which each sample meets its best two; a shared path beside them."""

    def __init__(self, inp: int, width: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inp, count, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inp, width), nn.GELU(), nn.Linear(width, 1)) for _ in range(count)
        )
        self.shared = nn.Linear(inp, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chance = self.gate(x).softmax(-1)
        best, index = chance.topk(2, -1)
        weight = torch.zeros_like(chance).scatter(1, index, best / best.sum(-1, keepdim=True))
        each = torch.cat([expert(x) for expert in self.experts], 1)
        used = (weight > 0).float().mean(0)
        balance = len(self.experts) * (used * chance.mean(0)).sum() / 2
        return (weight * each).sum(1, keepdim=True) + self.shared(x), balance


def top_two(dice: Dice, sick: bool) -> Case:
    """A sparse mixture of experts with a small loss of balance."""
    inp, width, count, lr = dice.whole(4, 6), dice.one_of(16, 24), dice.whole(4, 6), dice.power(-2.2, -1.9)
    x = torch.randn(512, inp)
    part = (x @ torch.randn(inp, count)).argmax(1)
    y = (x @ torch.randn(inp, count)).gather(1, part[:, None])
    y = (y - y.mean()) / y.std()

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        said, balance = model(batch["x"])
        return (said - batch["y"]).square().mean() + 0.01 * balance

    return Case(lambda: TopTwo(inp, width, count), loss, split(x=x, y=y), optim(torch.optim.Adam, lr=lr))


def fan_of_made(dice: Dice, sick: bool) -> Case:
    """A hypernetwork drawn for the fan of the net it makes, with one rate for the trunk and one for heads."""
    task, inp, width = dice.whole(3, 5), dice.whole(6, 8), dice.one_of(32, 48)
    lr = dice.power(-2.7, -2.5)
    code, x = torch.randn(64, task), torch.randn(64, 24, inp)
    y = torch.tanh(torch.einsum("bni,bi->bn", x, torch.tanh(code @ torch.randn(task, inp))))[..., None]
    model = Hyper(task, inp, width, None)
    groups = [{"params": model.trunk.parameters(), "lr": 2 * lr}, {"params": model.heads.parameters()}]

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(model(batch["x"], batch["code"]), batch["y"])

    return Case(model, loss, split(x=x, code=code, y=y), torch.optim.Adam(groups, lr=lr))


def dueling(dice: Dice, sick: bool) -> Case:
    """A dueling Q-network with Huber's loss, small batches and a frozen copy for its targets."""
    obs, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(48, 64)
    lr, gamma = dice.power(-2.6, -2.4), dice.between(0.6, 0.8)

    class Dueling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(obs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.value, self.advantage = nn.Linear(width, 1), nn.Linear(width, actions)

        def forward(self, s: Tensor) -> Tensor:
            h = self.body(s)
            a = self.advantage(h)
            return self.value(h) + a - a.mean(1, keepdim=True)

    frozen = Dueling().requires_grad_(requires_grad=False)
    s, a = torch.randn(96, obs), torch.randint(actions, (96, 1))
    reward = torch.sin(s @ torch.randn(obs, actions)).gather(1, a)
    after = s + 0.3 * torch.randn_like(s)

    def loss(q: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        target = batch["r"] + gamma * frozen(batch["after"]).max(1, keepdim=True).values
        return F.smooth_l1_loss(q(batch["s"]).gather(1, batch["a"]), target)

    return Case(Dueling, loss, split(s=s, a=a, r=reward, after=after), optim(torch.optim.Adam, lr=lr))


DRAWS = ("rescale_weights", "activation_init", "critical_init", "orthogonal_init", "lsuv")
SICK: tuple[Program, ...] = (
    Program(
        "forge-critic-clamped",
        "gan",
        clipped_critic,
        Truth(
            "weight-clipping",
            ("UG101", "UG202", "UG602", "UG103", "UG206", "UG205"),
            r"(?i)weights?\b.*(small|clip|clamp)|clamp|clip|initiali[sz]|\binit\b|vanish|fan_in|shrink|penalty",
            ("gradient_penalty", "spectral_norm", "orthogonal_weights", *DRAWS),
            (),
            FASTER,
        ),
        150,
        no_distance,
    ),
    Program(
        "forge-diffusion-steps",
        "diffusion",
        raw_steps,
        Truth(
            "raw-steps",
            ("UG607", "UG605", "UG201", "UG104", "UG601"),
            r"(?i)inputs?\b|unit scale|standardi|time.?step|\bt_mlp|embedding",
            ("unit_inputs",),
            (("unit_inputs", {}),),
        ),
        150,
    ),
    Program(
        "forge-vae-mean",
        "autoencoder",
        mean_against_sum,
        Truth(
            "kl-weight",
            ("UG205", "UG206", "UG202"),
            r"(?i)\bkl\b|diverge|posterior|collaps|beta|latent|reconstruct|reduction|same for every|prior",
        ),
        150,
        unlike,
    ),
    Program(
        "forge-views-cold",
        "contrastive",
        cold_views,
        Truth(
            "cold-logits",
            ("UG605", "UG611", "UG601", "UG701", "UG204"),
            r"(?i)logits?|temperature|normali[sz]|softmax|cosine|loss starts",
            ("scale_head", "restore_logit_scale", "soft_cap", "insert_norm"),
        ),
        120,
        wrong_neighbour,
    ),
    Program(
        "forge-values-broadcast",
        "reinforcement",
        column_against_row,
        Truth(
            "broadcast",
            ("UG608",),
            r"(?i)broadcast|shapes?\b|\(n, ?1\)|squeeze|pairs?|column|average of the targets|not pull",
        ),
        150,
        bellman,
    ),
    Program(
        "forge-physics-relu",
        "physics",
        straight_pieces,
        Truth(
            "no-curvature",
            ("UG608",),
            r"(?i)second derivative|curvature|relu|piecewise|smooth|derivative.*zero|activation",
            ("swap_activation",),
            (("swap_activation", {"to": "Tanh", "of": "ReLU"}),),
        ),
        250,
        off_sine,
    ),
    Program(
        "forge-hyper-heads",
        "hypernetwork",
        kaiming_heads,
        Truth(
            "hyper-init",
            ("UG201", "UG102", "UG204", "UG605", "UG104", "UG611", "UG601"),
            r"(?i)initiali[sz]|\binit\b|fan.?(in|out)|weights?\b.*(large|gain)|fan_in|generated",
            (*DRAWS, "scale_head", "scale_branch"),
        ),
        150,
    ),
    Program(
        "forge-experts-batch",
        "mixture",
        gate_over_batch,
        Truth(
            "softmax-axis",
            ("UG106", "UG202", "UG709"),
            r"(?i)\baxis|\bdim\b|over the batch|other samples|samples? (of|in) the batch|depends? on|softmax",
        ),
        150,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("forge-denoiser", "diffusion", denoise_well, steps=150),
    Program("forge-experts-two", "mixture", top_two, steps=150),
    Program("forge-hyper-fan", "hypernetwork", fan_of_made, steps=150),
    Program("forge-dueling", "reinforcement", dueling),
)
