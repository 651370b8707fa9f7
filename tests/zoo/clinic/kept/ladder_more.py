"""Kept aside: more signals and gradients over depth, the other half of the deal."""

import copy
import itertools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.clinic.strangers.ladder import (
    HIGHER,
    Pair,
    blobs,
    classify,
    he_init,
    loader,
    momentum,
    regress,
    stripes,
)
from zoo.dice import Dice

# --- sick ---------------------------------------------------------------------------------------------------


class Coder(nn.Module):
    """An encoder and a decoder of dense layers, narrower to the middle."""

    def __init__(self, sizes: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        self.decoder = nn.Sequential()
        for a, b in itertools.pairwise(sizes):
            self.encoder.extend([nn.Linear(a, b), activation()])
        back = sizes[::-1]
        for a, b in itertools.pairwise(back):
            self.decoder.extend([nn.Linear(a, b), activation()])
        del self.decoder[-1]
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def stacked_sigmoids(dice: Dice, sick: bool) -> Case:
    """A deep autoencoder in the style of 2006, sigmoid after sigmoid, with no pretraining."""
    inputs, width, rate = dice.whole(18, 26), dice.one_of(40, 56), dice.between(0.04, 0.07)
    extra = dice.whole(1, 2)
    sizes = [inputs, *[width] * (1 + extra), width // 2, 8]
    z = torch.randn(384, 3)
    x = torch.tanh(z @ torch.randn(3, inputs)) + 0.3 * z @ torch.randn(3, inputs)
    x = (x - x.mean(0)) / x.std(0)
    return Case(lambda: Coder(sizes, nn.Sigmoid if sick else nn.Tanh), regress, loader(x, x), momentum(rate))


class Rooms(nn.Module):
    """A regression net over a table of houses, with skips."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.body = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.price = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.body:
            x = x + block(x)
        return self.price(x).squeeze(-1)


def in_dollars(dice: Dice, sick: bool) -> Case:
    """A residual regression of house prices left in dollars, under Adam's usual rate."""
    inputs, width, depth = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(2, 3)
    middle, spread = dice.between(1.5e5, 3e5), dice.between(5e4, 9e4)
    x = torch.randn(320, inputs)
    y = x[:, 0] + torch.relu(x[:, 1]) * x[:, 2] + 0.5 * x[:, 3].abs()
    price = middle + spread * (y - y.mean()) / y.std()
    if not sick:
        price = (price - middle) / spread
    by_epoch = dice.whole(30, 50)

    def schedule(o: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.StepLR(o, step_size=by_epoch, gamma=0.7)

    return Case(
        lambda: Rooms(inputs, width, depth),
        regress,
        loader(x, price, 5),
        lambda p: torch.optim.Adam(p, lr=2e-3),
        schedule=schedule,
    )


def of_its_square(model: nn.Module, batch: Pair) -> float:
    """Squared error as a share of the targets' mean square."""
    x, y = batch
    with torch.no_grad():
        return float(F.mse_loss(model(x), y) / y.square().mean())


class Unit(nn.Module):
    """Two convolutions beside a skip, with nothing to hold the sum."""

    def __init__(self, c: int, share: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1)
        self.share = share
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_in")
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.share * self.conv2(F.relu(self.conv1(x)))


def blocks_of(case: Case) -> list[str]:
    """Return the paths of the residual blocks."""
    return [name for name, _ in case.model.named_children() if name.startswith("block")]


def norms_taken_out(dice: Dice, sick: bool) -> Case:
    """A residual restoration net whose batch norms were taken out, so that its full-size branches add up."""
    c, blocks = dice.one_of(8, 12), dice.whole(16, 20)
    rate, size = dice.power(-2.9, -2.6), 8
    share = 1.0 if sick else dice.between(0.08, 0.12)
    clean, _ = stripes(96, size, 4)
    clean = F.avg_pool2d((clean - clean.mean()) / clean.std(), 3, 1, 1)
    clean = clean / clean.std()
    blurred = F.avg_pool2d(clean, 3, 1, 1) + 0.05 * torch.randn_like(clean)

    def build() -> nn.Module:
        head, tail = nn.Conv2d(1, c, 3, padding=1), nn.Conv2d(c, 1, 3, padding=1)
        parts = [("head", head), *((f"block{i}", Unit(c, share)) for i in range(blocks)), ("tail", tail)]
        return nn.Sequential(OrderedDict(parts))

    def l1(model: nn.Module, batch: Pair) -> Tensor:
        return (model(batch[0]) - batch[1]).abs().mean()

    return Case(build, l1, loader(blurred, clean), lambda p: torch.optim.Adam(p, lr=rate))


def new_head_too_late(dice: Dice, sick: bool) -> Case:
    """Transfer to a new task: the head is replaced after the optimizer was built over the old one."""
    size, planes, classes = 12, dice.one_of(12, 16), dice.whole(3, 4)
    rate = dice.power(-1.9, -1.6)
    x, y = stripes(384, size, classes)
    x = (x - 0.5) / 0.22
    net = nn.Sequential()
    net.add_module(
        "features",
        nn.Sequential(
            nn.Conv2d(1, planes, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(planes, planes, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        ),
    )
    net.add_module("classifier", nn.Linear(4 * planes, classes))
    pretraining = torch.optim.Adam(net.parameters(), lr=4e-3)
    for _ in range(60):
        pretraining.zero_grad()
        F.cross_entropy(net(x[:128]), y[:128]).backward()
        pretraining.step()
    pretraining.zero_grad()
    for p in net.features.parameters():
        p.requires_grad = False
    fresh_head = nn.Linear(4 * planes, 2)
    if not sick:
        net.classifier = fresh_head
    optimizer = torch.optim.Adam(net.classifier.parameters(), lr=rate)
    net.classifier = fresh_head
    return Case(net, classify, loader(x[128:], (y[128:] == 0).long()), optimizer)


def one_scale_for_all(dice: Dice, sick: bool) -> Case:
    """A table divided by one standard deviation of all its columns together, though each has its own unit."""
    columns, width = dice.whole(7, 9), dice.one_of(32, 48)
    rate = dice.between(0.005, 0.01)
    x = torch.randn(384, columns)
    units = torch.full((columns,), dice.between(0.01, 0.02))
    units[:2] = dice.between(1.5, 2.5)
    hidden = torch.randn(columns - 2, 1)
    y = torch.tanh(x[:, 2:] @ hidden / hidden.norm() * 1.5) + 0.15 * x[:, :1]
    y = (y - y.mean()) / y.std()
    table = x * units
    shown = (table - table.mean()) / table.std() if sick else (table - table.mean(0)) / table.std(0)

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Linear(columns, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1)
        )
        he_init(net)
        net[-1].weight.data.mul_(0.1)
        return net

    criterion = nn.MSELoss()
    return Case(
        build,
        lambda model, batch: criterion(model(batch[0]), batch[1]),
        loader(shown, y),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
    )


class Spectra(nn.Module):
    """One-dimensional convolutions from a noisy to a clean log spectrum."""

    def __init__(self, c: int, depth: int, last: nn.Module) -> None:
        super().__init__()
        convs: list[nn.Module] = [nn.Conv1d(1, c, 5, padding=2), nn.GELU()]
        for _ in range(depth):
            convs += [nn.Conv1d(c, c, 5, padding=2, bias=False), nn.GroupNorm(2, c), nn.GELU()]
        self.convs = nn.Sequential(*convs)
        self.to_out = nn.Conv1d(c, 1, 1)
        self.final = last

    def forward(self, x: Tensor) -> Tensor:
        return self.final(self.to_out(self.convs(x)))


def relu_on_decibels(dice: Dice, sick: bool) -> Case:
    """A denoiser of log spectra, all below zero, with a ReLU behind its last convolution."""
    c, depth, bins = dice.one_of(8, 12), dice.whole(2, 4), dice.whole(24, 32)
    rate = dice.power(-2.5, -2.2)
    t = torch.linspace(0, 1, bins)
    centre, broad = torch.rand(256, 1), 0.1 + 0.15 * torch.rand(256, 1)
    power = torch.exp(-(((t - centre) / broad) ** 2)) + 0.02
    clean = torch.log(0.9 * power / 1.03)[:, None]
    noisy = clean + 0.4 * torch.randn_like(clean)
    noisy = (noisy - noisy.mean()) / noisy.std()
    end: nn.Module = nn.ReLU() if sick else nn.Identity()
    model = Spectra(c, depth, end)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=rate)

    def step(case: Case, batch: Pair) -> Tensor:
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(case.model.parameters(), 5.0)
        case.optimizer.step()
        return loss

    return Case(model, lambda m, b: F.smooth_l1_loss(m(b[0]), b[1]), loader(noisy, clean), optimizer, step)


def lipschitz_everywhere(dice: Dice, sick: bool) -> Case:
    """A plain convolutional classifier with spectral norm on each layer, as if it were a GAN's critic."""
    c, depth, classes = dice.one_of(12, 16), dice.whole(7, 9), dice.whole(3, 4)
    rate, size = dice.between(0.01, 0.02), 10
    x, y = stripes(192, size, classes)

    def conv(a: int, b: int, stride: int = 1) -> nn.Module:
        layer = nn.Conv2d(a, b, 3, stride, 1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        return spectral_norm(layer) if sick else layer

    def build() -> nn.Module:
        layers: list[nn.Module] = [conv(1, c), nn.ReLU()]
        for i in range(depth):
            layers += [conv(c, c, 2 if i == 2 else 1), nn.ReLU()]
        head = nn.Linear(c, classes)
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), spectral_norm(head) if sick else head]
        return nn.Sequential(*layers)

    return Case(build, classify, loader((x - 0.5) / 0.22, y), momentum(rate))


class Normed(nn.Module):
    """A linear layer, a batch norm and a ReLU; beside a skip if wanted."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.skip = skip
        nn.init.kaiming_normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.fc(x)))
        return x + y if self.skip else y


def fifty_batch_norms(dice: Dice, sick: bool) -> Case:
    """Some fifty layers of linear map, batch norm and ReLU in a row, with no skip past any."""
    inputs, width, depth = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(45, 55)
    classes, rate = dice.whole(4, 5), dice.between(0.02, 0.04)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, width),
            *(Normed(width, skip=not sick) for _ in range(depth)),
            nn.LayerNorm(width),
            nn.Linear(width, classes),
        )

    return Case(build, classify, loader(*blobs(256, inputs, classes)), momentum(rate))


# --- healthy ------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """A tanh autoencoder whose decoder is its encoder transposed."""

    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.a = nn.Parameter(nn.init.orthogonal_(torch.empty(width, inputs)))
        self.b = nn.Parameter(nn.init.orthogonal_(torch.empty(code, width)))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in (width, code, width, inputs))

    def forward(self, x: Tensor) -> Tensor:
        one, two, three, four = self.biases
        h = torch.tanh(F.linear(x, self.a, one))
        h = F.linear(h, self.b, two)
        h = torch.tanh(F.linear(h, self.b.t(), three))
        return F.linear(h, self.a.t(), four)


def tied_coder(dice: Dice, sick: bool) -> Case:
    """An autoencoder that uses each matrix twice, once transposed."""
    inputs, width, code, rate = (
        dice.whole(16, 24),
        dice.one_of(32, 48),
        dice.whole(5, 8),
        dice.power(-2.4, -2.1),
    )
    z = torch.randn(384, 4)
    x = torch.sin(z @ torch.randn(4, inputs) * 0.7) + 0.5 * z @ torch.randn(4, inputs)
    x = (x - x.mean(0)) / x.std(0)
    return Case(
        lambda: Tied(inputs, width, code), regress, loader(x, x), lambda p: torch.optim.Adam(p, lr=rate)
    )


def selu_of_three(dice: Dice, sick: bool) -> Case:
    """A self-normalising network, drawn for SELU, with alpha dropout and inputs of scale three."""
    inputs, width, depth = dice.whole(8, 12), dice.one_of(48, 64), dice.whole(8, 12)
    classes, rate, drop = dice.whole(4, 6), dice.between(0.005, 0.01), dice.between(0.02, 0.05)
    x, y = blobs(384, inputs, classes, apart=1.2)

    def build() -> nn.Module:
        layers = OrderedDict()
        for i in range(depth):
            layers[f"fc{i}"] = nn.Linear(width if i else inputs, width)
            layers[f"selu{i}"] = nn.SELU()
            layers[f"drop{i}"] = nn.AlphaDropout(drop)
        layers["out"] = nn.Linear(width, classes)
        net = nn.Sequential(layers)
        for m in net:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
                nn.init.zeros_(m.bias)
        return net

    return Case(build, classify, loader(3 * x, y), momentum(rate))


def fast_and_small(dice: Dice, sick: bool) -> Case:
    """A batch-normed CNN at a high rate with batches of sixteen, label smoothing and a warm-up."""
    c, classes, size = dice.one_of(8, 12), dice.whole(3, 4), dice.one_of(10, 12)
    rate, batches = dice.between(0.2, 0.4), 12
    x, y = stripes(16 * batches, size, classes)
    model = nn.Sequential(
        nn.Conv2d(1, c, 3, padding=1, bias=False),
        nn.BatchNorm2d(c),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c, 2 * c, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * c),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * c, classes),
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)

    def warm(o: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(o, lambda t: min(1.0, (t + 1) / 10))

    return Case(
        model,
        lambda m, b: criterion(m(b[0]), b[1]),
        loader((x - 0.5) / 0.22, y, batches),
        torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5, nesterov=True, weight_decay=1e-4),
        schedule=warm,
    )


class FewActive(nn.Module):
    """An overcomplete layer of which the k largest units of a sample pass."""

    def __init__(self, inputs: int, units: int, k: int) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, units)
        self.decode = nn.Linear(units, inputs)
        self.k = k
        self.decode.weight.data.copy_(F.normalize(torch.randn(inputs, units), dim=0))
        self.encode.weight.data.copy_(self.decode.weight.data.t())
        nn.init.zeros_(self.encode.bias)
        nn.init.zeros_(self.decode.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.encode(x - self.decode.bias))
        top = h.topk(self.k, dim=-1)
        return self.decode(torch.zeros_like(h).scatter(-1, top.indices, top.values))


def k_sparse(dice: Dice, sick: bool) -> Case:
    """A k-sparse autoencoder, nearly all of whose units are silent for any one sample, on purpose."""
    inputs, units, k = dice.whole(14, 20), dice.one_of(48, 64), dice.whole(4, 6)
    rate = dice.power(-2.3, -2.0)
    atoms = F.normalize(torch.randn(24, inputs), dim=1)
    codes = torch.zeros(512, 24).scatter(1, torch.rand(512, 24).topk(3).indices, 1.0) * torch.rand(
        512, 24
    ).add(0.5)
    x = codes @ atoms
    x = (x - x.mean(0)) / x.std()
    model = FewActive(inputs, units, k)
    twin = copy.deepcopy(model)
    return Case(lambda: copy.deepcopy(twin), regress, loader(x, x), lambda p: torch.optim.Adam(p, lr=rate))


SICK: tuple[Program, ...] = (
    Program(
        "ladder-stacked-sigmoids",
        "autoencoder",
        stacked_sigmoids,
        Truth(
            "sigmoid-stack",
            ("UG101", "UG202", "UG205", "UG602"),
            r"(?i)sigmoid|slope|activation|saturat|xavier|initiali[sz]|fan_in",
            ("swap_activation",),
            (("swap_activation", {"to": "Tanh", "of": "Sigmoid"}),),
            HIGHER,
        ),
        150,
    ),
    Program(
        "ladder-in-dollars",
        "residual",
        in_dollars,
        Truth(
            "target-scale",
            ("UG607", "UG605", "UG602", "UG603"),
            r"(?i)targets?.*(scale|unit|rms|times|large|mean|far|reach)|labels?.*(scale|large|unit)|unscaled|standardi[sz]",
            (),
            (),
        ),
        150,
        of_its_square,
    ),
    Program(
        "ladder-norms-taken-out",
        "residual",
        norms_taken_out,
        Truth(
            "unscaled-sums",
            ("UG201", "UG102", "UG605", "UG104", "UG611", "UG601"),
            r"(?i)branch|residual|skip|\bsum\b|adds? up|unscaled|without (a )?norm|grows?.*(block|depth)",
            ("scale_branch", "fixup", "rezero", "skip_init", "layer_scale"),
            (("scale_branch", {"sites": blocks_of, "factor": 0.1}),),
        ),
    ),
    Program(
        "ladder-new-head-too-late",
        "cnn",
        new_head_too_late,
        Truth(
            "optimizer-of-old-head",
            ("UG604",),
            r"(?i)optimi[sz]er.*(not|does|hold|miss|without|lack)|not (held|in|known|registered)"
            r"|no optimi[sz]er",
            ("hold_parameters",),
            (("hold_parameters", {}),),
            HIGHER,
        ),
    ),
    Program(
        "ladder-one-scale-for-all",
        "mlp",
        one_scale_for_all,
        Truth(
            "column-scales",
            ("UG301", "UG607"),
            r"(?i)condition|columns?|features?.*(scale|unit|differ|spread|each)|inputs?.*(scales?|differ|per)|standardi[sz]",
            (),
            (),
        ),
    ),
    Program(
        "ladder-relu-on-decibels",
        "conv1d",
        relu_on_decibels,
        Truth(
            "output-relu",
            ("UG608", "UG203", "UG206", "UG103", "UG204", "UG603", "UG614", "UG202"),
            r"(?i)\bfinal\b|output.*(relu|activation|range|negative|zero)|relu.*(output|end|last|head|behind)"
            r"|cannot (be|reach)|negative targets",
            ("swap_activation",),
            (),
            HIGHER,
        ),
    ),
    Program(
        "ladder-lipschitz-everywhere",
        "cnn",
        lipschitz_everywhere,
        Truth(
            "spectral-norm",
            ("UG101", "UG202", "UG205", "UG602", "UG206"),
            r"(?i)spectral|lipschitz|parametri[sz]|operator norm|largest singular"
            r"|weights.*(small|scale|gain)|fan_in",
            (),
            (),
            HIGHER,
        ),
    ),
    Program(
        "ladder-fifty-batch-norms",
        "mlp",
        fifty_batch_norms,
        Truth(
            "batch-norm-without-skips",
            ("UG102", "UG205", "UG106", "UG301", "UG601", "UG611", "UG104"),
            r"(?i)batch ?norm|\bbn\b|without (a )?skips?|no skip|normali[sz]",
            ("add_residual", "bypass_norm"),
            (("add_residual", {}),),
        ),
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("ladder-tied-coder", "autoencoder", tied_coder),
    Program("ladder-selu-of-three", "mlp", selu_of_three),
    Program("ladder-fast-and-small", "cnn", fast_and_small),
    Program("ladder-k-sparse", "autoencoder", k_sparse),
)
