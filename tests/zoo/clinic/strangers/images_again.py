"""Kept aside once: networks on images, sick by one fault each, and healthy ones."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.clinic.strangers.pieces_again import (
    ArcFace,
    GatedConv,
    Mixer,
    NextBlock,
    Projector,
    TinyViT,
    UNet,
    discs,
    resnet,
    scenes,
)
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)
ROOT = math.sqrt(2)
DRAWN = ("rescale_weights", "critical_init", "he_init", "activation_init", "lsuv", "unit_jacobian_init")


def glyphs(size: int = 8, classes: int = 6, rows: int = 96) -> tasks.Pairs:
    """Return random figures, one to a class, shifted and in noise, of mean 0 and unit spread."""
    labels = torch.randint(classes, (rows,))
    figures = (torch.rand(classes, size, size) < 0.3).float()
    images = torch.stack([
        torch.roll(figures[k], (int(k) % 2, int(torch.randint(2, ()))), (0, 1)) for k in labels
    ])
    images = images[:, None] + 0.2 * torch.randn(rows, 1, size, size)
    return tasks.split((images - images.mean()) / images.std(), labels)


class Averaged(nn.Module):
    """Two convolutions beside the identity, and the mean or the sum of both."""

    def __init__(self, planes: int, *, mean: bool) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.c2 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.c2(F.leaky_relu(self.c1(x), 0.1))
        return y / 2 if self.mean else y


def averaged(dice: Dice, sick: bool) -> Case:
    """A residual network that takes the mean of stream and branch to keep the numbers in range."""
    planes, depth = dice.one_of(8, 10), dice.whole(14, 16)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, 1, 1),
            *(Averaged(planes, mean=sick) for _ in range(depth)),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * planes, 6),
        )

    return Case(build, tasks.classify, glyphs(rows=64), tasks.sgd(8e-3, momentum=0.9))


def gated(dice: Dice, sick: bool) -> Case:
    """Gated convolutions one behind the other, each half open, weights by default."""
    channels, depth = dice.one_of(10, 12), dice.whole(13, 15)

    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.ModuleList(GatedConv(channels if k else 1, channels) for k in range(depth))
            self.read = nn.Linear(channels, 6)
            if not sick:
                for module in self.gates.modules():
                    if isinstance(module, nn.Conv2d):
                        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                        module.weight.data *= 2.0

        def forward(self, x: Tensor) -> Tensor:
            for gate in self.gates:
                x = gate(x)
            return self.read(x.amax((2, 3)))

    return Case(Pixels, tasks.classify, glyphs(rows=64), tasks.sgd(0.02, momentum=0.9))


def mixed(dice: Dice, sick: bool) -> Case:
    """Labels mixed of two images, and a divergence by hand that takes the logarithm of their zeros."""
    width, share = dice.whole(16, 24), dice.between(0.7, 0.9)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        hot = F.one_hot(labels, 6).float()
        soft = share * hot + (1 - share) * hot.flip(0)
        logp = F.log_softmax(model(share * images + (1 - share) * images.flip(0)), -1)
        if sick:
            return (soft * (soft.log() - logp)).sum(-1).mean()
        return F.kl_div(logp, soft, reduction="batchmean")

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * width, 6),
        )

    return Case(build, loss, glyphs(), tasks.adam(3e-3))


def contrasted(dice: Dice, sick: bool) -> Case:
    """NT-Xent with exp written out at a small temperature: a view compared to itself overflows."""
    planes, temperature = dice.one_of(8, 12), dice.between(0.0085, 0.0105)

    def nt_xent(model: nn.Module, views: Tensor) -> Tensor:
        z = model(views.flatten(0, 1))
        n = len(z) // 2
        sim = z @ z.T / temperature
        itself = torch.eye(2 * n, dtype=torch.bool)
        partner = torch.arange(2 * n).roll(n)
        if not sick:
            return F.cross_entropy(sim.masked_fill(itself, -1e9), partner)
        e = torch.exp(sim) * (~itself).float()
        return -torch.log(e[torch.arange(2 * n), partner] / e.sum(1)).mean()

    base = torch.randn(64, 1, 8, 8)
    data = [torch.stack([part, part + 1.2 * torch.randn_like(part)]) for part in base.chunk(4)]
    return Case(lambda: Projector(planes), nt_xent, data, tasks.adam(2e-3))


def rounded_away(dice: Dice, sick: bool) -> Case:
    """A mixer whose weights were cast to bfloat16, where steps of a fine-tuning rate are rounded away."""
    dim, rate = dice.one_of(64, 96), dice.between(0.8e-4, 1e-4)
    dtype = torch.bfloat16 if sick else torch.float32
    model = Mixer(dim, 3).to(dtype)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0].to(dtype)).float(), batch[1])

    return Case(model, loss, glyphs(), torch.optim.Adam(model.parameters(), lr=rate))


def depths(dice: Dice, sick: bool) -> Case:
    """A U-Net for depth in metres whose output is a tanh, left over from images between -1 and 1."""
    base = dice.one_of(4, 6)
    model = UNet(base, squashed=sick)
    return Case(model, tasks.regress, scenes(), torch.optim.Adam(model.parameters(), lr=1e-2))


class Summed(nn.Module):
    """Convolutions whose last map is summed over its places, or averaged."""

    def __init__(self, planes: int, *, total: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, planes, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(planes, 2 * planes, 5, padding=2),
            nn.ReLU(),
        )
        self.logits = nn.Linear(2 * planes, 4)
        self.total = total

    def forward(self, x: Tensor) -> Tensor:
        maps = self.trunk(x)
        return self.logits(maps.sum((-2, -1)) if self.total else maps.mean((-2, -1)))


def summed(dice: Dice, sick: bool) -> Case:
    """Global pooling as a sum over hundreds of places."""
    planes, size = dice.one_of(8, 12), dice.one_of(18, 20)
    return Case(
        lambda: Summed(planes, total=sick),
        tasks.classify,
        tasks.stripes(size, rows=64),
        tasks.sgd(0.05, momentum=0.9),
    )


def nesterov(dice: Dice, sick: bool) -> Case:
    """A ResNet by the usual recipe: Nesterov momentum, decay 5e-4, a cosine, smoothed labels."""
    width = dice.one_of(6, 8)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    return Case(
        lambda: resnet(width),
        loss,
        glyphs(),
        lambda parameters: torch.optim.SGD(
            parameters, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600),
    )


def segmented(dice: Dice, sick: bool) -> Case:
    """A U-Net on discs, by cross-entropy and the overlap of the masks."""
    base = dice.one_of(4, 6)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits, masks = model(batch[0]), batch[1]
        made = logits.sigmoid()
        dice_score = (2 * (made * masks).sum() + 1) / (made.sum() + masks.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice_score

    return Case(lambda: UNet(base), loss, discs(), tasks.adam(3e-3))


def convnext(dice: Dice, sick: bool) -> Case:
    """A ConvNeXt whose branches all but start at zero, by AdamW, decay on matrices alone."""
    dim, depth = dice.one_of(12, 16), dice.whole(3, 5)
    model = nn.Sequential(
        nn.Conv2d(1, dim, 2, 2),
        nn.GroupNorm(1, dim),
        *(NextBlock(dim) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(dim),
        nn.Linear(dim, 6),
    )
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return Case(model, tasks.classify, glyphs(), torch.optim.AdamW(groups, lr=4e-3))


class Probe(nn.Module):
    """A backbone that is no longer trained, and a linear head on its features."""

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.head = nn.Linear(features, 6)

    def train(self, mode: bool = True) -> "Probe":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


def probed(dice: Dice, sick: bool) -> Case:
    """A new head on a backbone that was trained on other figures, frozen, the head alone held."""
    width = dice.one_of(12, 16)
    backbone = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    before = nn.Sequential(backbone, nn.Linear(8 * width, 6))
    optimizer = torch.optim.Adam(before.parameters(), lr=5e-3)
    for _ in range(8):
        for images, labels in glyphs():
            optimizer.zero_grad()
            F.cross_entropy(before(images), labels).backward()
            optimizer.step()
    model = Probe(backbone, 8 * width)
    return Case(model, tasks.classify, glyphs(), torch.optim.Adam(model.head.parameters(), lr=1e-2))


def half_vit(dice: Dice, sick: bool) -> Case:
    """A vision transformer in bfloat16 with warm-up, strong decay and a clip; its head starts at zero."""
    dim, depth = dice.one_of(32, 48), dice.whole(3, 4)
    return Case(
        lambda: TinyViT(dim, depth),
        tasks.classify,
        glyphs(),
        tasks.adamw(2e-3, weight_decay=0.3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, 20),
        precision="bfloat16",
    )


def rebuilt(dice: Dice, sick: bool) -> Case:
    """A convolutional autoencoder on binary masks: entropy summed over pixels, mean over images."""
    base, code = dice.one_of(6, 8), dice.whole(8, 12)

    class Auto(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(
                nn.Conv2d(1, base, 4, 2, 1),
                nn.ELU(),
                nn.Conv2d(base, 2 * base, 4, 2, 1),
                nn.ELU(),
                nn.Flatten(),
                nn.Linear(32 * base, code),
            )
            self.up = nn.Sequential(
                nn.Linear(code, 32 * base),
                nn.ELU(),
                nn.Unflatten(1, (2 * base, 4, 4)),
                nn.ConvTranspose2d(2 * base, base, 4, 2, 1),
                nn.ELU(),
                nn.ConvTranspose2d(base, 1, 4, 2, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(model(batch[1]), batch[1], reduction="sum")
        return entropy / len(batch[1])

    return Case(Auto, loss, discs(rows=48), tasks.adam(2e-3))


def margins(dice: Dice, sick: bool) -> Case:
    """Classes told apart by angles with a margin: scaled cosines, whose loss starts high by design."""
    planes, scale, margin = dice.one_of(6, 8), dice.between(12, 16), dice.between(0.2, 0.4)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(*batch), batch[1])

    return Case(
        lambda: ArcFace(planes, scale, margin),
        loss,
        glyphs(),
        tasks.sgd(0.02, momentum=0.9, weight_decay=5e-4),
    )


UNDER = r"^weights:|gain|too small"
SICK: tuple[Program, ...] = (
    Program(
        "resnet-means-of-two",
        "residual",
        averaged,
        Truth(
            "halved-sum",
            ("UG101", "UG202", "UG205"),
            r"skip path passes|halv|divided by (2|two)|mean of|\b0\.5x?\b.*(skip|stream|sum)",
            (),
            (),
            HEAVY,
        ),
        120,
    ),
    Program(
        "gated-convolutions-default",
        "cnn",
        gated,
        Truth(
            "gated-depth",
            ("UG101", "UG202", "UG205"),
            r"gate|^weights:|^activation:",
            DRAWN,
            (("rescale_weights", {"gain": 2.0, "sites": ("gates.*",)}),),
            HEAVY,
        ),
        120,
    ),
    Program(
        "divergence-of-hard-labels",
        "cnn",
        mixed,
        Truth("nan-log", ("UG901",), r"\blog(?!it)|0 ?[·*] ?inf", (), (), COLD),
        80,
    ),
    Program(
        "contrast-exp-written-out",
        "cnn",
        contrasted,
        Truth("nan-exp", ("UG901",), r"\bexp(?!ect)|overflow|range", (), (), COLD),
        100,
    ),
    Program(
        "mixer-in-bfloat16-weights",
        "mixer",
        rounded_away,
        Truth(
            "rounding", ("UG602",), r"round|bfloat16|precision", (), (), (("rescale_weights", {"gain": 1.0}),)
        ),
        200,
    ),
    Program(
        "unet-depth-behind-tanh",
        "unet",
        depths,
        Truth(
            "bounded-output",
            ("UG204", "UG614", "UG603", "UG605"),
            r"tanh|bounded|saturat|outside|beyond the range",
            (),
            (),
            HEAVY,
        ),
        120,
    ),
    Program(
        "pooled-by-sum",
        "cnn",
        summed,
        Truth("pooling", ("UG605", "UG601", "UG611"), r"^head:|pool|sum over", ("scale_head",), (), HEAVY),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("resnet-nesterov-zero-gamma", "residual", nesterov),
    Program("unet-overlap-of-discs", "unet", segmented),
    Program("convnext-layer-scale", "residual", convnext),
    Program("probe-on-trained-backbone", "cnn", probed),
    Program("vit-bfloat16-decay", "vision-transformer", half_vit),
    Program("autoencoder-pixels-summed", "autoencoder", rebuilt),
    Program("margin-on-angles", "cnn", margins),
)
