"""Convolutions along lines and over images, with skip paths and without, sick and healthy."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HOT = (("lower_learning_rate", {"factor": 10.0}),)


def pulses(length: int, classes: int = 4, rows: int = 96) -> tasks.Pairs:
    """Return signals on two channels with bumps; the class is the bumps' width and their sign."""
    labels = torch.randint(classes, (rows,))
    t = torch.arange(length).float()
    width = torch.where(labels % 2 == 0, 1.2, 3.0)[:, None]
    sign = torch.where(labels < 2, 1.0, -1.0)[:, None]
    x = 0.15 * torch.randn(rows, 2, length)
    for _ in range(2):
        at = torch.rand(rows, 1) * (length - 8) + 4
        x[:, 0] += 2 * sign * torch.exp(-(((t - at) / width) ** 2))
        x[:, 1] += 2 * torch.exp(-(((t - at) / width) ** 2))
    return tasks.split(x, labels)


def blobs(size: int, rows: int = 48) -> tasks.Pairs:
    """Return noisy images with a bright disc each, and masks of the discs."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    where, radius = torch.rand(rows, 2, 1, 1) * size, 1.5 + torch.rand(rows, 1, 1) * size / 4
    mask = ((y - where[:, 0]) ** 2 + (x - where[:, 1]) ** 2 < radius**2).float()[:, None]
    return tasks.split(1.5 * mask - 0.4 + 0.5 * torch.randn(rows, 1, size, size), mask)


class Along(nn.Module):
    """Convolution, BatchNorm, ReLU along a line, with a way around the three or without one."""

    def __init__(self, channels: int, *, around: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.bn, self.around = nn.BatchNorm1d(channels), around
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        made = F.relu(self.bn(self.conv(x)))
        return x + 0.05 * made if self.around else made


def long_line(dice: Dice, sick: bool) -> Case:
    """Dozens of normalised convolutions in a row."""
    channels, depth = dice.whole(10, 14), dice.whole(60, 68)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(2, channels, 5, padding=2),
            *(Along(channels, around=not sick) for _ in range(depth)),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(channels, 4),
        )

    return Case(build, tasks.classify, pulses(20, rows=64), tasks.sgd(0.1, momentum=0.9))


class Cardinal(nn.Module):
    """Several narrow branches, all added to what enters."""

    def __init__(self, channels: int, branches: int, share: float) -> None:
        super().__init__()
        self.paths = nn.ModuleList()
        for _ in range(branches):
            down, up = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 3, padding=1)
            nn.init.kaiming_normal_(down.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(up.weight, nonlinearity="linear")
            up.weight.data.mul_(share)
            self.paths.append(nn.Sequential(down, nn.ReLU(), up))

    def forward(self, x: Tensor) -> Tensor:
        for made in [path(x) for path in self.paths]:
            x = x + made
        return x


def cardinal(dice: Dice, sick: bool) -> Case:
    """Three branches a block without a norm, each of them as loud as the stream."""
    channels, depth, branches = dice.one_of(12, 16), dice.whole(14, 18), 3
    share = 1.0 if sick else (branches * depth) ** -0.5
    model = nn.Sequential()
    model.append(nn.Conv2d(1, channels, 3, stride=2, padding=1))
    for _ in range(depth):
        model.append(Cardinal(channels, branches, share))
    model.extend([nn.ReLU(), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(channels, 4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-3, momentum=0.9)
    return Case(model, tasks.classify, tasks.stripes(10, rows=48), optimizer)


def every_path(case: Case) -> tuple[str, ...]:
    """Return the paths of all branches."""
    return tuple(name for name, _ in case.model.named_modules() if name.split(".")[-2:-1] == ["paths"])


def path_share(case: Case) -> float:
    """Return what keeps the sum over all branches at the size of the stream."""
    return len(every_path(case)) ** -0.5


class SmallUNet(nn.Module):
    """Two levels down and up with concatenated skips."""

    def __init__(self, wide: int, *, last: nn.Module | None = None) -> None:
        super().__init__()
        self.enc1 = self.pair(1, wide)
        self.enc2 = self.pair(wide, 2 * wide)
        self.middle = self.pair(2 * wide, 2 * wide)
        self.up2 = nn.ConvTranspose2d(2 * wide, 2 * wide, 2, stride=2)
        self.dec2 = self.pair(4 * wide, wide)
        self.up1 = nn.ConvTranspose2d(wide, wide, 2, stride=2)
        self.dec1 = self.pair(2 * wide, wide)
        self.to_mask = last if last is not None else nn.Conv2d(wide, 1, 1)

    @staticmethod
    def pair(inside: int, outside: int) -> nn.Sequential:
        """Return convolution, GroupNorm and SiLU, twice."""
        layers: list[nn.Module] = []
        for k in range(2):
            layers += [
                nn.Conv2d(outside if k else inside, outside, 3, padding=1),
                nn.GroupNorm(2, outside),
                nn.SiLU(),
            ]
        return nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        one = self.enc1(image)
        two = self.enc2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.dec2(torch.cat([self.up2(x), two], dim=1))
        x = self.dec1(torch.cat([self.up1(x), one], dim=1))
        return self.to_mask(x)


def plain_step(case: Case, batch: object) -> Tensor:
    """Backward and step, and nothing in between."""
    case.optimizer.zero_grad(set_to_none=True)
    loss = case.compute_loss(batch)
    loss.backward()
    case.optimizer.step()
    return loss.detach()


def half_unet(dice: Dice, sick: bool) -> Case:
    """Segmentation in float16 without a scaler; the loss is one term of many, with a small weight."""
    wide, weight = dice.one_of(4, 6), dice.power(-5.3, -5.0)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return weight * F.binary_cross_entropy_with_logits(model(batch[0]).float(), batch[1])

    model = SmallUNet(wide)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-14)
    precision = "float16" if sick else "bfloat16"
    return Case(model, loss, blobs(12, 32), optimizer, step=plain_step, precision=precision)


class LetterNet(nn.Module):
    """Causal dilated convolutions over letters and a head of its own draw."""

    def __init__(self, symbols: int, wide: int, spread: float) -> None:
        super().__init__()
        self.letters = nn.Embedding(symbols, wide)
        self.convs = nn.ModuleList(nn.Conv1d(wide, wide, 2, dilation=2**k) for k in range(3))
        self.norm, self.vocabulary = nn.LayerNorm(wide), nn.Linear(wide, symbols)
        nn.init.normal_(self.vocabulary.weight, std=spread)
        nn.init.zeros_(self.vocabulary.bias)

    def forward(self, pieces: Tensor) -> Tensor:
        x = self.letters(pieces).transpose(1, 2)
        for k, conv in enumerate(self.convs):
            x = x + F.gelu(conv(F.pad(x, (2**k, 0))))
        return self.vocabulary(self.norm(x.transpose(1, 2)))


def crumbs(dice: Dice, sick: bool) -> Case:
    """A limit of the gradient's norm that was meant for an entry of it, and a thousand times lower."""
    wide, most = dice.one_of(48, 64), dice.power(-5.5, -4.7) if sick else 1.0
    data, symbols = tasks.letters(20, 24)

    def clip(parameters: object) -> object:
        return nn.utils.clip_grad_norm_(parameters, max_norm=most)  # type: ignore[arg-type]

    return Case(
        lambda: LetterNet(symbols, wide, 0.02),
        tasks.next_letter,
        data,
        tasks.sgd(0.2, momentum=0.9, nesterov=True),
        clip=clip,
    )


class Averaging(nn.Module):
    """What enters and what two convolutions make of it, weighed and added."""

    def __init__(self, wide: int, keep: float, add: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(wide, wide, 3, padding=1), nn.Conv2d(wide, wide, 3, padding=1)
        self.keep, self.add = keep, add
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="linear")
        for conv in (self.first, self.second):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.keep * x + self.add * self.second(F.relu(self.first(x)))


class Averaged(nn.Module):
    """A residual network of such blocks without norms."""

    def __init__(self, wide: int, depth: int, keep: float, add: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, wide, 3, stride=2, padding=1)
        self.stage = nn.ModuleList([Averaging(wide, keep, add) for _ in range(depth)])
        self.fc = nn.Linear(wide, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.stage:
            x = block(x)
        return self.fc(F.relu(x).mean((2, 3)))


def averaged(dice: Dice, sick: bool) -> Case:
    """The mean of skip path and branch, where the skip path should stay whole."""
    wide, depth = dice.whole(8, 12), dice.whole(36, 42)

    def build() -> nn.Module:
        return Averaged(wide, depth, *((0.5, 0.5) if sick else (1.0, depth**-0.5)))

    return Case(build, tasks.classify, tasks.stripes(10, rows=48), tasks.sgd(0.03, momentum=0.9))


def flat_zeros(dice: Dice, sick: bool) -> Case:
    """A loop that draws matrices and sets everything with one axis to zero, the norms' scales too."""
    wide, layers = dice.whole(8, 14), dice.whole(3, 4)
    parts: list[nn.Module] = []
    for k in range(layers):
        parts += [
            nn.Conv2d(wide if k else 1, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
        if k == 1:
            parts.append(nn.MaxPool2d(2))
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 4))
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter)
        elif sick or name.endswith("bias"):
            nn.init.zeros_(parameter)
    return Case(model, tasks.classify, tasks.stripes(10), torch.optim.Adam(model.parameters(), lr=3e-3))


def lipschitz(dice: Dice, sick: bool) -> Case:
    """Every weight of a deep ReLU chain divided by its largest singular value, in the place of a norm."""
    wide, depth = dice.whole(12, 16), dice.whole(12, 15)

    def conv(inside: int, outside: int, stride: int) -> nn.Module:
        layer = nn.Conv2d(inside, outside, 3, stride, 1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return spectral_norm(layer) if sick else nn.Sequential(layer, nn.BatchNorm2d(outside))

    def build() -> nn.Module:
        layers = nn.ModuleList([conv(wide if k else 1, wide, 2 if k == 0 else 1) for k in range(depth)])
        chain = nn.Sequential()
        for k, layer in enumerate(layers):
            chain.add_module(f"c{k}", layer)
            chain.add_module(f"r{k}", nn.ReLU())
        return chain.extend([nn.AvgPool2d(5), nn.Flatten(), nn.Linear(wide, 4)])

    return Case(build, tasks.classify, tasks.stripes(10, rows=64), tasks.sgd(0.03, momentum=0.9))


class Glu(nn.Module):
    """A convolution along the line whose one half opens and shuts the other."""

    def __init__(self, wide: int, *, around: bool) -> None:
        super().__init__()
        self.both, self.around = nn.Conv1d(wide, 2 * wide, 3, padding=1), around
        nn.init.normal_(self.both.weight, std=(3 * wide) ** -0.5)
        nn.init.zeros_(self.both.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        made = F.glu(self.both(x), dim=1)
        return x + 0.3 * made if self.around else made


def gated(dice: Dice, sick: bool) -> Case:
    """Gated linear units one behind the other, with weights as for linear layers and no way around."""
    wide, depth = dice.whole(12, 16), dice.whole(32, 38)

    def build() -> nn.Module:
        layers = [Glu(wide, around=not sick) for _ in range(depth)]
        lift, head = nn.Conv1d(2, wide, 1), nn.Linear(wide, 4)
        return nn.Sequential(lift, *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), head)

    return Case(build, tasks.classify, pulses(20, rows=64), tasks.adam(1e-3))


def unscored(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean binary cross-entropy of a pixel, without the weight."""
    return float(F.binary_cross_entropy_with_logits(model(batch[0]).float(), batch[1]))


def zero_last(dice: Dice, sick: bool) -> Case:
    """A residual network whose last norm of every branch starts at zero, by Goyal's recipe."""
    wide, depth = dice.whole(10, 14), dice.whole(3, 5)

    class Basic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
            self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(wide), nn.BatchNorm2d(wide)
            nn.init.zeros_(self.bn2.weight)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))

    def build() -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(1, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        blocks = [Basic() for _ in range(depth)]
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 4))

    return Case(
        build,
        tasks.classify,
        tasks.stripes(12),
        tasks.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    )


def overlap(dice: Dice, sick: bool) -> Case:
    """Segmentation by cross-entropy and the overlap of the masks."""
    wide = dice.one_of(4, 6)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits, mask = model(batch[0]), batch[1]
        p = torch.sigmoid(logits)
        dice_score = (2 * (p * mask).sum((1, 2, 3)) + 1) / ((p + mask).sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(logits, mask) + (1 - dice_score).mean()

    return Case(lambda: SmallUNet(wide), loss, blobs(12, 32), tasks.adam(5e-3))


def quantised(dice: Dice, sick: bool) -> Case:
    """Codes of a book in the place of features, with a straight-through gradient and two detached terms."""
    wide, codes = dice.whole(8, 12), dice.whole(16, 32)

    class Vq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc = nn.Sequential(
                nn.Conv2d(1, wide, 4, 2, 1), nn.ReLU(), nn.Conv2d(wide, wide, 3, padding=1)
            )
            self.book = nn.Embedding(codes, wide)
            self.dec = nn.Sequential(
                nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(wide, 1, 4, 2, 1)
            )
            nn.init.normal_(self.book.weight, std=0.2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.enc(x).movedim(1, -1)
            apart = torch.cdist(z.detach().flatten(0, -2), self.book.weight.detach())
            q = self.book(apart.argmin(1)).view_as(z)
            extra = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
            return self.dec((z + (q - z).detach()).movedim(-1, 1)), extra

    def loss(model: nn.Module, images: Tensor) -> Tensor:
        made, extra = model(images)
        return F.mse_loss(made, images) + extra

    data = [images for images, _ in tasks.stripes(12)]
    return Case(Vq, loss, data, tasks.adam(5e-3))


def margin(dice: Dice, sick: bool) -> Case:
    """Cosines with the classes' vectors, a margin taken from the right one, times a fixed scale."""
    wide, scale, off = dice.whole(10, 14), dice.between(10.0, 16.0), dice.between(0.1, 0.2)

    class Face(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.PReLU(wide),
                nn.Conv2d(wide, 2 * wide, 3, 2, 1), nn.BatchNorm2d(2 * wide), nn.PReLU(2 * wide),
                nn.Flatten(), nn.Linear(18 * wide, 16),
            )  # fmt: skip
            self.people = nn.Parameter(torch.randn(4, 16))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(self.body(x)), F.normalize(self.people))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        cosines = model(batch[0])
        return F.cross_entropy(scale * (cosines - off * F.one_hot(batch[1], 4)), batch[1])

    return Case(Face, loss, tasks.stripes(12), tasks.adam(2e-3))


def inverted(dice: Dice, sick: bool) -> Case:
    """Depthwise and pointwise convolutions with a narrow stream, in bfloat16."""
    narrow, depth = dice.whole(6, 10), dice.whole(3, 4)

    class Inverted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide = 4 * narrow
            self.layers = nn.Sequential(
                nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
                nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide),
                nn.Hardswish(), nn.Conv2d(wide, narrow, 1, bias=False), nn.BatchNorm2d(narrow),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)

    model = nn.Sequential(nn.Conv2d(1, narrow, 3, 2, 1), *(Inverted() for _ in range(depth)))
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(narrow, 4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return Case(model, tasks.classify, tasks.stripes(12), optimizer, precision="bfloat16")


def layered(dice: Dice, sick: bool) -> Case:
    """Wide kernels, one norm a block, branches at a ten-thousandth; decay for matrices alone."""
    wide, depth = dice.one_of(12, 16), dice.whole(3, 4)

    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dw = nn.Conv1d(wide, wide, 7, padding=3, groups=wide)
            self.ln, self.up, self.down = (
                nn.LayerNorm(wide),
                nn.Linear(wide, 4 * wide),
                nn.Linear(4 * wide, wide),
            )
            self.gamma = nn.Parameter(1e-4 * torch.ones(wide))

        def forward(self, x: Tensor) -> Tensor:
            y = self.ln(self.dw(x).transpose(1, 2))
            return x + (self.gamma * self.down(F.gelu(self.up(y)))).transpose(1, 2)

    pool, head = nn.AdaptiveMaxPool1d(1), nn.Linear(wide, 4)
    model = nn.Sequential(nn.Conv1d(2, wide, 4, 2), *(Next() for _ in range(depth)), pool, nn.Flatten(), head)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.3},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return Case(model, tasks.classify, pulses(24), torch.optim.AdamW(groups, lr=3e-3))


def skipping(dice: Dice, sick: bool) -> Case:
    """Dilated gates along a line; the answer is made of what all layers hand out, not of the last one."""
    wide, depth = dice.whole(12, 16), dice.whole(4, 6)

    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Conv1d(1, wide, 1)
            self.gates = nn.ModuleList(nn.Conv1d(wide, 2 * wide, 2, dilation=2**k) for k in range(depth))
            self.out = nn.ModuleList(nn.Conv1d(wide, 2 * wide, 1) for _ in range(depth))
            self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(wide, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x, heard = self.start(x.transpose(1, 2)), torch.zeros(())
            for k, (gate, out) in enumerate(zip(self.gates, self.out, strict=True)):
                a, b = gate(F.pad(x, (2**k, 0))).chunk(2, dim=1)
                more, told = out(torch.tanh(a) * torch.sigmoid(b)).chunk(2, dim=1)
                x, heard = x + more, heard + told
            return self.end(heard / depth**0.5).transpose(1, 2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.huber_loss(model(batch[0]), batch[1])

    return Case(Wave, loss, tasks.forecast(dice.whole(24, 32)), tasks.adam(5e-3))


SICK = (
    Program(
        "line-of-normalised-convolutions",
        "cnn",
        long_line,
        Truth(
            "batchnorm-depth",
            ("UG102", "UG104"),
            r"^normalisation|no skip|BatchNorm",
            ("bypass_norm", "add_residual"),
            (("add_residual", {}),),
        ),
        50,
    ),
    Program(
        "cardinal-branches-at-full-size",
        "residual",
        cardinal,
        Truth(
            "branches",
            ("UG102", "UG201", "UG104"),
            r"branch",
            ("scale_branch", "fixup", "skip_init", "rezero", "gpt2_residual_scale", "layer_scale"),
            (("scale_branch", {"sites": every_path, "factor": path_share}),),
        ),
        60,
    ),
    Program(
        "unet-float16-no-scaler",
        "unet",
        half_unet,
        Truth(
            "underflow",
            ("UG501",),
            r"float16|loss scale|subnormal|smallest|smaller",
            ("loss_scale", "change_precision"),
            (("loss_scale", {"scale": 2.0**16}),),
            HOT,
        ),
        60,
        unscored,
    ),
    Program(
        "letters-by-crumbs-of-gradient",
        "cnn",
        crumbs,
        Truth(
            "clip",
            ("UG602",),
            r"^clip",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
        80,
    ),
    Program(
        "halved-sums",
        "residual",
        averaged,
        Truth(
            "halved-sum",
            ("UG101", "UG202"),
            r"skip path passes|^skip|^branch|hal[fv]|divided by (2|two)\b",
            (),
            (),
            HOT,
        ),
        80,
    ),
    Program(
        "everything-flat-set-to-zero",
        "cnn",
        flat_zeros,
        Truth(
            "zero-gamma",
            ("UG101", "UG103", "UG202", "UG203", "UG206", "UG603"),
            r"\b[Nn]orm(s|alisation)?\b|BatchNorm|gamma|starts? at zero",
            (),
            (),
            HOT,
        ),
        80,
    ),
    Program(
        "every-layer-spectrally-normed",
        "cnn",
        lipschitz,
        Truth(
            "spectral-depth",
            ("UG101", "UG202", "UG205"),
            r"spectral|parametri|largest singular|^weights",
            ("insert_norm",),
            (("insert_norm", {}),),
            HOT,
        ),
        100,
    ),
    Program(
        "gated-units-in-a-row",
        "cnn",
        gated,
        Truth(
            "gated-depth",
            ("UG101", "UG202", "UG205"),
            r"gate|glu|GLU|sigmoid|activation|^weights|no skip",
            ("rescale_weights", "insert_norm", "unit_jacobian_init", "lsuv", "add_residual"),
            (("add_residual", {}),),
            HOT,
        ),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("resnet-last-norms-at-zero", "residual", zero_last, 80),
        ("unet-overlap-of-masks", "unet", overlap, 80),
        ("codes-straight-through", "cnn", quantised, 120),
        ("cosines-with-margin", "cnn", margin, 80),
        ("inverted-bottlenecks-bfloat16", "residual", inverted, 80),
        ("branches-at-a-ten-thousandth", "residual", layered, 120),
        ("dilated-gates-skipping-out", "cnn", skipping, 100),
    )
)
