"""Kept aside: common faults of plain PyTorch programs on rows, images and samples, and sound ones."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)
SLOWER = (("lower_learning_rate", {"factor": 0.1}),)
DRAWN = ("rescale_weights", "critical_init", "activation_init", "lsuv", "unit_jacobian_init")
DRAWN = (*DRAWN, "orthogonal_init", "delta_orthogonal_init")


def discs(size: int = 12, rows: int = 48) -> tasks.Pairs:
    """Return noisy images of one disc each, and its mask."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = 2 + (size - 4) * torch.rand(rows, 2, 1, 1)
    radius = 1.5 + 1.5 * torch.rand(rows, 1, 1)
    masks = (((y - middle[:, 0]) ** 2 + (x - middle[:, 1]) ** 2) < radius**2).float()[:, None]
    return tasks.split(masks + 0.3 * torch.randn(rows, 1, size, size), masks)


def held(parameters: object) -> Tensor:
    """Clip as most recipes do."""
    return nn.utils.clip_grad_norm_(parameters, 1.0)  # type: ignore[arg-type]


def corners(size: int = 9, rows: int = 96) -> tasks.Pairs:
    """Return noisy images of one bright square, whose corner of the image is the class."""
    labels = torch.randint(4, (rows,))
    images = 0.5 * torch.randn(rows, 1, size, size)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = (1 + 4 * (label // 2) + int(torch.randint(2, ())), 1 + 4 * (label % 2))
        image[0, top : top + 3, left : left + 3] += 2
    return tasks.split((images - images.mean()) / images.std(), labels)


def moons(rows: int = 256) -> Tensor:
    """Return points on two half circles, standardised."""
    angle = math.pi * torch.rand(rows)
    upper = (torch.rand(rows) < 0.5).float()
    x = torch.cos(angle) * (2 * upper - 1) + 1 - upper
    y = torch.sin(angle) * (2 * upper - 1) + 0.5 * (1 - upper)
    points = torch.stack([x, y], 1) + 0.05 * torch.randn(rows, 2)
    return (points - points.mean(0)) / points.std(0)


def mixtures(features: int, rank: int, rows: int = 256) -> list[Tensor]:
    """Return rows that a few hidden factors make, and a little noise, standardised."""
    rows_ = torch.tanh(torch.randn(rows, rank)) @ torch.randn(rank, features)
    return list(((rows_ + 0.1 * torch.randn(rows, features)) / math.sqrt(rank)).chunk(4))


def digits(size: int = 8, rows: int = 128) -> list[Tensor]:
    """Return binary pictures of five figures with some pixels turned, flat."""
    figures = (torch.rand(5, size * size) < 0.35).float()
    chosen = figures[torch.randint(5, (rows,))]
    turned = (torch.rand(rows, size * size) < 0.03).float()
    return list((chosen + turned).remainder(2).chunk(4))


def sigmoid_mlp(dice: Dice, sick: bool) -> Case:
    """A fully connected classifier of many sigmoid layers, or of ReLU layers drawn as He says."""
    width, depth, features = dice.whole(48, 64), dice.whole(6, 8), dice.whole(16, 24)

    def build() -> nn.Module:
        sizes = [features] + [width] * depth
        layers: list[nn.Module] = []
        for i in range(depth):
            linear = nn.Linear(sizes[i], sizes[i + 1])
            if not sick:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
                nn.init.zeros_(linear.bias)
            layers += [linear, nn.Sigmoid() if sick else nn.ReLU()]
        layers.append(nn.Linear(width, 5))
        return nn.Sequential(*layers)

    return Case(build, tasks.classify, tasks.centres(features), tasks.sgd(0.01, momentum=0.9))


class PlainNet(nn.Module):
    """The plain network of the ResNet paper: convolutions behind one another, no norm and no skip."""

    def __init__(self, channels: int, depth: int, *, he: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.fc = nn.Linear(channels * 9, 4)
        if he:
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
                    nn.init.zeros_(m.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.fc(F.adaptive_avg_pool2d(x, 3).flatten(1))


def plain_cnn(dice: Dice, sick: bool) -> Case:
    """A deep plain convolutional network with the weights that PyTorch draws by default."""
    channels, depth = dice.whole(14, 16), dice.whole(14, 16)
    return Case(
        lambda: PlainNet(channels, depth, he=not sick),
        tasks.classify,
        corners(),
        tasks.sgd(2e-3, momentum=0.9),
    )


class DoubleConv(nn.Module):
    """(convolution, norm, ReLU) twice."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class UNet(nn.Module):
    """Two steps down, two up, joined at each size."""

    def __init__(self, base: int, last: nn.Module) -> None:
        super().__init__()
        self.inc = DoubleConv(1, base)
        self.down1 = DoubleConv(base, 2 * base)
        self.down2 = DoubleConv(2 * base, 4 * base)
        self.up1 = DoubleConv(6 * base, 2 * base)
        self.up2 = DoubleConv(3 * base, base)
        self.outc = nn.Conv2d(base, 1, 1)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(F.max_pool2d(x1, 2))
        x3 = self.down2(F.max_pool2d(x2, 2))
        x = self.up1(torch.cat([F.interpolate(x3, scale_factor=2), x2], 1))
        x = self.up2(torch.cat([F.interpolate(x, scale_factor=2), x1], 1))
        return self.last(self.outc(x))


def mask_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy from logits."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def unet_sigmoid(dice: Dice, sick: bool) -> Case:
    """A U-Net that ends in a sigmoid and is trained by BCEWithLogitsLoss."""
    base, rate = dice.whole(4, 6), dice.between(3e-3, 6e-3)
    return Case(
        lambda: UNet(base, nn.Sigmoid() if sick else nn.Identity()), mask_loss, discs(), tasks.adam(rate)
    )


class BasicBlock(nn.Module):
    """A residual block without its norms."""

    def __init__(self, planes: int, *, zero: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.relu = nn.ReLU()
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        if zero:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        return self.relu(out + x)


def resnet_bare(dice: Dice, sick: bool) -> Case:
    """A ResNet whose norms were taken out, so that every block adds a branch as large as the stream."""
    planes, depth = 8, dice.whole(20, 22)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.ReLU(),
            nn.Sequential(*[BasicBlock(planes, zero=not sick) for _ in range(depth)]),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * planes, 4),
        )

    return Case(build, tasks.classify, corners(8, 64), tasks.sgd(2.5e-3, momentum=0.9))


def houses(rows: int = 256, *, scaled: bool) -> tasks.Pairs:
    """Return houses (area, year, rooms, plot, distance in metres), and their standardised price."""
    area = 1500 + 500 * torch.randn(rows)
    year = 1970 + 25 * torch.randn(rows)
    number = torch.randint(1, 8, (rows,)).float()
    plot = 8000 + 3000 * torch.randn(rows)
    distance = 12000 * torch.rand(rows)
    price = 0.0007 * area + 0.03 * (year - 1970) + 0.4 * number + torch.sin(distance / 3000)
    table = torch.stack([area, year, number, plot, distance], 1)
    if scaled:
        table = (table - table.mean(0)) / table.std(0)
    return tasks.split(table, ((price - price.mean()) / price.std())[:, None])


def house_prices(dice: Dice, sick: bool) -> Case:
    """A network of tanh units that reads a table of houses as it stands in the file."""
    hidden, rate = dice.whole(24, 40), dice.between(2e-3, 4e-3)

    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(5, hidden)
            self.fc2 = nn.Linear(hidden, hidden)
            self.out = nn.Linear(hidden, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.fc1(x))
            x = torch.tanh(self.fc2(x))
            return self.out(x)

    return Case(Regressor, tasks.regress, houses(scaled=not sick), tasks.adam(rate))


def focal(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Focal loss of a map of logits, over the number of positives."""
    logits, masks = model(batch[0]), batch[1]
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    p = torch.sigmoid(logits)
    weight = (1 - (p * masks + (1 - p) * (1 - masks))) ** 2
    return (weight * entropy).sum() / masks.sum()


def retina(dice: Dice, sick: bool) -> Case:
    """A detection head where the prior's bias of -log((1-pi)/pi) was given to every convolution."""
    channels, depth, prior = dice.whole(12, 16), dice.whole(3, 4), dice.between(0.005, 0.02)

    class RetinaHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tower: list[nn.Module] = []
            for i in range(depth):
                tower.append(nn.Conv2d(channels if i else 1, channels, 3, padding=1))
                tower.append(nn.ReLU())
            self.cls_tower = nn.Sequential(*tower)
            self.cls_logits = nn.Conv2d(channels, 1, 3, padding=1)
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, std=math.sqrt(2 / (9 * layer.in_channels)))
                    if sick or layer is self.cls_logits:
                        nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]
                    else:
                        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            return self.cls_logits(self.cls_tower(x))

    return Case(RetinaHead, focal, discs(), tasks.adam(2e-3))


class Generator(nn.Module):
    """Noise to points."""

    def __init__(self, noise: int, hidden: int, features: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Linear(noise, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, features),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


def away(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Distance of the generated points' mean from the real ones' mean."""
    return float((model(batch[0]).mean(0) - batch[1].mean(0)).norm())


class GAN(nn.Module):
    """Generator and discriminator; called, it generates."""

    def __init__(self, noise: int, hidden: int, features: int) -> None:
        super().__init__()
        self.generator = Generator(noise, hidden, features)
        self.discriminator = nn.Sequential(
            nn.Linear(features, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def tell(self, z: Tensor, real: Tensor) -> Tensor:
        """Loss of the discriminator."""
        fake = self.discriminator(self.generator(z).detach())
        return F.softplus(fake).mean() + F.softplus(-self.discriminator(real)).mean()


def play(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One step of the discriminator, then one of the generator."""
    model, optimizer = case.model, case.optimizer
    optimizer.zero_grad()
    model.tell(*batch).backward()  # type: ignore[operator]
    optimizer.step()
    optimizer.zero_grad()
    loss = case.compute_loss(batch)
    loss.backward()
    for parameter in model.discriminator.parameters():  # type: ignore[union-attr]
        parameter.grad = None
    optimizer.step()
    return loss.detach()


def minimax(dice: Dice, sick: bool) -> Case:
    """A generator that minimises log(1 - D(G(z))) against a discriminator that was trained well ahead."""
    noise, hidden, features = dice.whole(6, 10), dice.whole(32, 48), dice.whole(6, 10)
    real = 2 * torch.randn(features) + 0.3 * torch.randn(128, features)
    ahead = GAN(noise, hidden, features)
    optimizer = torch.optim.Adam(ahead.discriminator.parameters(), lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        ahead.tell(torch.randn(128, noise), real).backward()
        optimizer.step()
    state = {name: value.clone() for name, value in ahead.state_dict().items()}

    def build() -> nn.Module:
        model = GAN(noise, hidden, features)
        model.load_state_dict(state)
        return model

    def saturating(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        d = torch.sigmoid(model.discriminator(model(batch[0])))  # type: ignore[operator]
        return torch.log(1 - d + 1e-8).mean()

    def non_saturating(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.softplus(-model.discriminator(model(batch[0]))).mean()  # type: ignore[operator]

    return Case(
        build,
        saturating if sick else non_saturating,
        tasks.split(torch.randn(128, noise), real),
        tasks.sgd(0.02, momentum=0.5),
        step=play,
        variants={"non_saturating": non_saturating} if sick else None,
    )


class Denoiser(nn.Module):
    """A perceptron that tells the noise in a point, with the time as sine and cosine."""

    def __init__(self, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.inp = nn.Linear(2 + 8, hidden)
        self.mid1 = nn.Linear(hidden, hidden)
        self.mid2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = (t[:, None] / self.steps) * 2.0 ** torch.arange(4)
        h = F.silu(self.inp(torch.cat([x, angle.sin(), angle.cos()], 1)))
        h = h + F.silu(self.mid1(h))
        h = h + F.silu(self.mid2(h))
        return self.out(h)


def alphas_bar(steps: int) -> Tensor:
    """Return what is left of the signal after each step of a linear schedule."""
    return torch.cumprod(1 - torch.linspace(1e-5, 0.2, steps), 0)


def noise_error(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Squared error of every row's noise."""
    x, t, noise = batch
    left = alphas_bar(model.steps)[t][:, None]  # type: ignore[arg-type]
    made = model(left.sqrt() * x + (1 - left).sqrt() * noise, t.float())
    return (made - noise).square().mean(1)


def even_error(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Error of the noise, each level as much as another."""
    return float(noise_error(model, batch).mean())


def diffusion(dice: Dice, sick: bool) -> Case:
    """A diffusion model whose loss weighs each level by its signal to noise ratio, as the bound does."""
    hidden, steps = dice.whole(48, 64), dice.whole(40, 60)
    rows = 512

    def simple(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return noise_error(model, batch).mean()

    def weighted(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        left = alphas_bar(steps)[batch[1]]
        return (left / (1 - left) * noise_error(model, batch)).mean()

    x, t, noise = moons(rows), torch.randint(steps, (rows,)), torch.randn(rows, 2)
    data = list(zip(x.chunk(4), t.chunk(4), noise.chunk(4), strict=True))
    return Case(
        lambda: Denoiser(hidden, steps),
        weighted if sick else simple,
        data,
        tasks.adam(2e-3),
        variants={"min_snr": simple} if sick else None,
    )


class Coupling(nn.Module):
    """An affine coupling: half of the features scale and shift the others."""

    def __init__(self, features: int, hidden: int, spread: float, *, flip: bool, zero: bool) -> None:
        super().__init__()
        half = features // 2
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(half, hidden), nn.ReLU(), nn.Linear(hidden, 2 * half))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, spread)
                nn.init.zeros_(layer.bias)
        if zero:
            nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        log_s, t = self.net(a).chunk(2, 1)
        log_s = 1.9 * 0.636 * torch.atan(log_s / 1.9)
        b = b * log_s.exp() + t
        return torch.cat([b, a] if self.flip else [a, b], 1), log_s.sum(1)


class RealNVP(nn.Module):
    """Couplings that take turns; returns the negative log-likelihood of every row."""

    def __init__(self, features: int, hidden: int, depth: int, spread: float, *, zero: bool) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            Coupling(features, hidden, spread, flip=bool(i % 2), zero=zero) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x))
        for flow in self.flows:
            x, log_det = flow(x)
            total = total + log_det
        return (0.5 * x.square() + 0.5 * math.log(2 * math.pi)).sum(1) - total


def likelihood(model: nn.Module, x: Tensor) -> Tensor:
    """Negative log-likelihood."""
    return model(x).mean()


def realnvp(dice: Dice, sick: bool) -> Case:
    """A RealNVP with softly clamped log-scales whose last layers are drawn as the others, not zero."""
    features, hidden, depth = 2 * dice.whole(4, 5), dice.whole(32, 48), dice.whole(7, 8)
    spread = dice.between(0.35, 0.45)
    return Case(
        lambda: RealNVP(features, hidden, depth, spread, zero=not sick),
        likelihood,
        mixtures(features, 3),
        tasks.adam(1e-3),
    )


class ListEncoder(nn.Module):
    """An autoencoder whose encoder's layers are kept in a list, or in a ModuleList."""

    def __init__(self, features: int, hidden: int, code: int, *, plain: bool) -> None:
        super().__init__()
        layers = [nn.Linear(features, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, code)]
        self.encoder = layers if plain else nn.ModuleList(layers)
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.GELU(), nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.encoder[:-1]:
            x = F.gelu(layer(x))
        return self.decoder(self.encoder[-1](x))


def rebuild_rows(model: nn.Module, x: Tensor) -> Tensor:
    """Mean squared error of the rebuilt rows."""
    return F.mse_loss(model(x), x)


def list_encoder(dice: Dice, sick: bool) -> Case:
    """An autoencoder with its encoder in a Python list, which hides it from parameters()."""
    features, hidden, code = dice.whole(40, 56), dice.whole(48, 64), dice.whole(3, 4)
    return Case(
        lambda: ListEncoder(features, hidden, code, plain=sick),
        rebuild_rows,
        mixtures(features, code),
        tasks.adam(3e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 5.0),
    )


class VAE(nn.Module):
    """The variational autoencoder of the PyTorch examples."""

    def __init__(self, pixels: int, hidden: int, code: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, code)
        self.fc22 = nn.Linear(hidden, code)
        self.fc3 = nn.Linear(code, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h1 = F.relu(self.fc1(x))
        mu, logvar = self.fc21(h1), self.fc22(h1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.fc4(F.relu(self.fc3(z))), mu, logvar


def evidence(model: nn.Module, x: Tensor) -> Tensor:
    """Reconstruction and divergence, summed over pixels and rows."""
    logits, mu, logvar = model(x)
    entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return entropy - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def per_row(model: nn.Module, x: Tensor) -> float:
    """The bound of one row."""
    return float(evidence(model, x)) / len(x)


def summed_vae(dice: Dice, sick: bool) -> Case:
    """A VAE whose loss is a sum over the batch, trained by SGD at a rate meant for a mean."""
    hidden, code, rate = dice.whole(48, 64), dice.whole(4, 6), dice.between(0.015, 0.02)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        total = evidence(model, x)
        return total if sick else total / len(x)

    return Case(lambda: VAE(64, hidden, code), loss, digits(), tasks.sgd(rate, momentum=0.9))


class Net(nn.Module):
    """The convolutional network of the MNIST example."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, 1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(8 * channels, 64)
        self.fc2 = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def mnist(dice: Dice, sick: bool) -> Case:
    """A small network with two dropouts and log-softmax, by Adadelta at a rate of 1."""
    channels = dice.whole(8, 12)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.nll_loss(model(batch[0]), batch[1])

    return Case(
        lambda: Net(channels),
        loss,
        corners(8),
        lambda parameters: torch.optim.Adadelta(parameters, lr=1.0),
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 60, 0.7),
    )


class NormedBlock(nn.Module):
    """The basic block of a ResNet, smaller maps by a stride."""

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def cifar_resnet(dice: Dice, sick: bool) -> Case:
    """A ResNet with its norms, default weights, SGD at 0.05 and one cycle."""
    planes, depth = dice.whole(6, 8), dice.whole(2, 3)

    def build() -> nn.Module:
        layers: list[nn.Module] = [
            nn.Conv2d(3, planes, 3, 1, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
        ]
        inside = planes
        for stage in range(2):
            for i in range(depth):
                layers.append(NormedBlock(inside, planes * 2**stage, 2 if stage and not i else 1))
                inside = planes * 2**stage
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 4))

    return Case(
        build,
        tasks.classify,
        tasks.stripes(10, channels=3, rows=96),
        tasks.sgd(0.05, momentum=0.9, weight_decay=5e-4),
        schedule=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=1000),
    )


def unet_logits(dice: Dice, sick: bool) -> Case:
    """A U-Net of logits with the positives weighed by three, by RMSprop."""
    base, rate = dice.whole(4, 6), dice.between(1e-3, 2e-3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        weight = torch.tensor([3.0])
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1], pos_weight=weight)

    return Case(
        lambda: UNet(base, nn.Identity()),
        loss,
        discs(),
        lambda parameters: torch.optim.RMSprop(parameters, lr=rate, weight_decay=1e-8, momentum=0.9),
    )


def dcgan(dice: Dice, sick: bool) -> Case:
    """A GAN on points with the usual loss, both sides new, Adam with a first beta of one half."""
    noise, hidden, features = dice.whole(6, 10), dice.whole(32, 48), dice.whole(6, 10)
    real = torch.randn(features) + 0.3 * torch.randn(128, features)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.softplus(-model.discriminator(model(batch[0]))).mean()  # type: ignore[operator]

    return Case(
        lambda: GAN(noise, hidden, features),
        loss,
        tasks.split(torch.randn(128, noise), real),
        lambda parameters: torch.optim.Adam(parameters, lr=2e-3, betas=(0.5, 0.999)),
        step=play,
    )


def ddpm(dice: Dice, sick: bool) -> Case:
    """A diffusion model by the simple loss, every level the same weight."""
    hidden, steps, rows = dice.whole(48, 64), dice.whole(40, 60), 512

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return noise_error(model, batch).mean()

    x, t, noise = moons(rows), torch.randint(steps, (rows,)), torch.randn(rows, 2)
    data = list(zip(x.chunk(4), t.chunk(4), noise.chunk(4), strict=True))
    return Case(lambda: Denoiser(hidden, steps), loss, data, tasks.adamw(2e-3, weight_decay=0.0), clip=held)


class BoundedCoupling(nn.Module):
    """A masked affine coupling whose log-scale goes through a tanh with a learned factor."""

    def __init__(self, features: int, hidden: int, even: bool) -> None:
        super().__init__()
        mask = (torch.arange(features) % 2).float()
        self.register_buffer("mask", mask if even else 1 - mask)
        self.scale_net = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, features))
        self.shift_net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.factor = nn.Parameter(torch.full((features,), 0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        s = torch.tanh(self.scale_net(kept)) * self.factor * (1 - self.mask)  # type: ignore[operator]
        t = self.shift_net(kept) * (1 - self.mask)  # type: ignore[operator]
        return kept + (1 - self.mask) * x * s.exp() + t, s.sum(1)  # type: ignore[operator]


def bounded_flow(dice: Dice, sick: bool) -> Case:
    """A flow of couplings with bounded scales and default weights."""
    features, hidden, depth = 2 * dice.whole(3, 4), dice.whole(32, 48), dice.whole(4, 6)

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(BoundedCoupling(features, hidden, bool(i % 2)) for i in range(depth))

        def forward(self, x: Tensor) -> Tensor:
            total = torch.zeros(len(x))
            for layer in self.layers:
                x, log_det = layer(x)
                total = total + log_det
            return (0.5 * x.square() + 0.5 * math.log(2 * math.pi)).sum(1) - total

    return Case(Flow, likelihood, mixtures(features, 2), tasks.adam(2e-3))


def vae_by_adam(dice: Dice, sick: bool) -> Case:
    """The variational autoencoder of the examples: a loss summed over the batch, by Adam at 1e-3."""
    hidden, code = dice.whole(64, 96), dice.whole(4, 6)
    return Case(lambda: VAE(64, hidden, code), evidence, digits(), tasks.adam(1e-3))


def two_sigmoids(dice: Dice, sick: bool) -> Case:
    """An old-fashioned network: two layers of sigmoids, a large rate of plain SGD."""
    features, width = dice.whole(10, 14), dice.whole(24, 32)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            nn.Sigmoid(),
            nn.Linear(width, width),
            nn.Sigmoid(),
            nn.Linear(width, 5),
        )

    return Case(build, tasks.classify, tasks.centres(features), tasks.sgd(0.5, momentum=0.5))


def houses_normed(dice: Dice, sick: bool) -> Case:
    """The table of houses as it stands in the file, behind a BatchNorm that scales it."""
    hidden, rate = dice.whole(32, 48), dice.between(5e-3, 1e-2)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm1d(5),
            nn.Linear(5, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden // 2),
            nn.ReLU(),
            nn.Linear(hidden // 2, 1),
        )

    return Case(build, tasks.regress, houses(scaled=False), tasks.adam(rate, weight_decay=1e-4))


def selu(dice: Dice, sick: bool) -> Case:
    """A self-normalising network: many SELU layers by LeCun's draw, alpha dropout, no norm."""
    features, width, depth = dice.whole(16, 24), dice.whole(40, 56), dice.whole(7, 9)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(depth):
            linear = nn.Linear(width if i else features, width)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.SELU(), nn.AlphaDropout(0.02)]
        return nn.Sequential(*layers, nn.Linear(width, 4))

    return Case(build, tasks.classify, tasks.folded(features), tasks.sgd(0.01, momentum=0.9, nesterov=True))


SICK: tuple[Program, ...] = (
    Program(
        "plain-sigmoid-stack",
        "mlp",
        sigmoid_mlp,
        Truth(
            "sigmoid-stack",
            ("UG101", "UG202", "UG204", "UG205"),
            r"(?i)sigmoid|activation|squash|saturat|vanish|derivative",
            ("swap_to_relu", "swap_activation", "insert_norm", *DRAWN),
            (("swap_to_relu", {}),),
            FASTER,
        ),
    ),
    Program(
        "plain-deep-cnn-by-default",
        "cnn",
        plain_cnn,
        Truth(
            "default-init",
            ("UG101", "UG202", "UG205", "UG206"),
            r"(?i)weight|init|gain|variance|fan.?in|kaiming|\bhe\b|too small|skip|norm",
            (*DRAWN, "insert_norm", "add_residual"),
            (("activation_init", {}),),
            FASTER,
        ),
    ),
    Program(
        "plain-unet-sigmoid-and-logits",
        "unet",
        unet_sigmoid,
        Truth(
            "double-sigmoid",
            ("UG606", "UG608", "UG614", "UG204"),
            r"(?i)sigmoid|twice|double|logits",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-resnet-without-norms",
        "resnet",
        resnet_bare,
        Truth(
            "missing-norm",
            ("UG201", "UG102", "UG104", "UG105", "UG605", "UG601", "UG611", "UG206"),
            r"(?i)branch|residual|skip|norm|grows|block|explod",
            (
                "fixup",
                "skip_init",
                "rezero",
                "layer_scale",
                "gpt2_residual_scale",
                "scale_branch",
                "insert_norm",
            ),
            (("fixup", {}),),
            FASTER,
        ),
    ),
    Program(
        "plain-houses-unscaled",
        "mlp",
        house_prices,
        Truth(
            "unscaled-inputs",
            ("UG607", "UG204", "UG205", "UG206", "UG203", "UG301"),
            r"(?i)input|feature|standardi|normali[sz]|unscaled|scale of the data",
            ("unit_inputs",),
            (),
            FASTER,
        ),
    ),
    Program(
        "plain-detector-prior-everywhere",
        "cnn",
        retina,
        Truth(
            "dead-relu",
            ("UG203", "UG206", "UG202", "UG603", "UG101", "UG205"),
            r"(?i)dead|bias|never active|negative|off for every",
            ("zero_biases",),
            (("zero_biases", {"sites": ("cls_tower.*",)}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-gan-minimax-loss",
        "gan",
        minimax,
        Truth(
            "saturated-generator",
            ("UG704", "UG101", "UG603", "UG602"),
            r"(?i)discriminator|saturat|minimax|log\(1|perfect|critic|non.?saturating",
            ("swap_loss",),
            (),
            SLOWER,
        ),
        score=away,
    ),
    Program(
        "plain-diffusion-bound-weights",
        "diffusion",
        diffusion,
        Truth(
            "low-noise-levels",
            ("UG705",),
            r"(?i)noise level|levels?\b|timestep|time ?step|snr|signal.to.noise",
            ("min_snr", "mirrored_diffusion_clip", "swap_loss"),
            (),
            SLOWER,
        ),
        steps=200,
        score=even_error,
    ),
    Program(
        "plain-realnvp-drawn-scales",
        "flow",
        realnvp,
        Truth(
            "stretched-flow",
            ("UG703", "UG201", "UG102", "UG104", "UG605", "UG601", "UG901", "UG611"),
            r"(?i)stretch|scales|\bexp\b|log.?(s\b|scale|det)|coupling|flow|identity|invert|expan",
            ("identity_block_init", "rescale_weights", "scale_branch"),
            (("rescale_weights", {"sites": ("flows.*.net.2",), "gain": 1e-3}),),
            FASTER,
        ),
    ),
    Program(
        "plain-encoder-in-a-list",
        "autoencoder",
        list_encoder,
        Truth(
            "unregistered",
            ("UG603", "UG604", "UG608", "UG614"),
            r"(?i)regist|\blist\b|modulelist|submodule|parameters\(\)|hold|held|not (learn|train)|optimizer",
            ("hold_parameters",),
            (),
            SLOWER,
        ),
    ),
    Program(
        "plain-vae-summed-with-sgd",
        "vae",
        summed_vae,
        Truth(
            "sum-for-mean",
            ("UG601", "UG611", "UG605", "UG901", "UG102"),
            r"(?i)\bsum|mean|learning rate|step size|\blr\b|\brate\b|update|reduction",
            ("lower_learning_rate", "warm_up", "clip_gradients"),
            (("lower_learning_rate", {"factor": 0.03}),),
            (("zero_biases", {}),),
        ),
        score=per_row,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("plain-mnist-adadelta", "cnn", mnist),
    Program("plain-resnet-one-cycle", "resnet", cifar_resnet),
    Program("plain-unet-weighed-logits", "unet", unet_logits),
    Program("plain-gan-usual-loss", "gan", dcgan, score=away),
    Program("plain-ddpm-simple-loss", "diffusion", ddpm),
    Program("plain-flow-bounded-scales", "flow", bounded_flow),
    Program("plain-vae-summed-with-adam", "vae", vae_by_adam),
    Program("plain-two-sigmoid-layers", "mlp", two_sigmoids),
    Program("plain-houses-behind-batchnorm", "mlp", houses_normed),
    Program("plain-selu-deep", "mlp", selu),
)
