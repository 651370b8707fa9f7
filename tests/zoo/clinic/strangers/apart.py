"""Kept aside once: pairs of programs that look alike in what they show and differ in what is wrong."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Batch = tuple[Tensor, Tensor]
ROOT = math.sqrt(2)
SLOWER = (("lower_learning_rate", {"factor": 0.1}),)
FASTER = (("lower_learning_rate", {"factor": 10.0}),)
REDRAWN = (
    "rescale_weights",
    "critical_init",
    "activation_init",
    "lsuv",
    "unit_jacobian_init",
    "orthogonal_init",
    "delta_orthogonal_init",
)


def pairs_of_bumps(features: int, classes: int = 4, rows: int = 192) -> tasks.Pairs:
    """Return points around two centres for each class, so that no plane parts the classes."""
    labels = torch.randint(classes, (rows,))
    middle = 1.2 * torch.randn(2 * classes, features)
    which = labels + classes * torch.randint(2, (rows,))
    points = middle[which] + 0.4 * torch.randn(rows, features)
    return tasks.split((points - points.mean(0)) / points.std(0), labels)


def yields(features: int, rows: int = 256) -> tasks.Pairs:
    """Return readings and a yield that rises, bends and saturates with a few of their mixtures."""
    readings = torch.randn(rows, features)
    mixed = readings @ torch.randn(features, 4) / math.sqrt(features)
    amount = mixed[:, 0] + torch.sin(1.5 * mixed[:, 1]) + F.relu(mixed[:, 2]) - 0.5 * mixed[:, 3]
    amount = (amount - amount.mean()) / amount.std()
    return tasks.split(readings, amount[:, None])


def corners(size: int = 10, rows: int = 96) -> tasks.Pairs:
    """Return pictures from 0 to 1 with one bright square, whose corner of the picture is the class."""
    labels = torch.randint(4, (rows,))
    images = 0.2 * torch.rand(rows, 1, size, size)
    half = size // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        top = half * (label // 2) + int(torch.randint(half - 2, ()))
        left = half * (label % 2) + int(torch.randint(half - 2, ()))
        image[0, top : top + 3, left : left + 3] += 0.7
    return tasks.split(images, labels)


def opening_note(steps: int, notes: int = 4, rows: int = 128) -> tasks.Pairs:
    """Return melodies of small random pitches whose first note, played loud, is the class."""
    labels = torch.randint(notes, (rows,))
    melody = 0.005 * torch.randn(rows, steps, notes)
    melody[:, 0] += 2.0 * F.one_hot(labels, notes)
    return tasks.split(melody, labels)


def bags(items: int, features: int, rows: int = 128) -> tasks.Pairs:
    """Return bags of vectors and the mean over the bag of a few projections, at unit size."""
    vectors = torch.randn(rows, items, features)
    mean = vectors.mean(1) @ torch.randn(features, 2)
    return tasks.split(vectors, mean / mean.std())


class Tower(nn.Module):
    """Linear maps of one width with ReLU between them, each drawn at one deviation."""

    def __init__(self, features: int, width: int, depth: int, classes: int, deviation: float | None) -> None:
        super().__init__()
        sizes = [features] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(width, classes)
        for layer in self.layers:
            if deviation is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.out(x)


def small_weights(dice: Dice, sick: bool) -> Case:
    """A tower of ReLU layers drawn at a deviation of a few hundredths, copied from a transformer's code."""
    features, width, depth = dice.whole(12, 20), dice.one_of(40, 48), dice.whole(7, 9)
    deviation = dice.between(0.02, 0.04)
    return Case(
        lambda: Tower(features, width, depth, 4, deviation if sick else None),
        tasks.classify,
        pairs_of_bumps(features),
        tasks.sgd(0.03, momentum=0.9),
    )


def sigmoids(dice: Dice, sick: bool) -> Case:
    """A regression by many sigmoid layers, one behind the other, with Xavier's weights."""
    features, width, depth = dice.whole(8, 12), dice.one_of(32, 40), dice.whole(6, 8)
    rate = dice.between(0.02, 0.03)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        size = features
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.Sigmoid() if sick else nn.Tanh()]
            size = width
        net = nn.Sequential(*layers, nn.Linear(width, 1))
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return net

    return Case(build, tasks.regress, yields(features), tasks.sgd(rate, momentum=0.9))


class Plain(nn.Module):
    """Convolutions with ReLU, halved once, and a linear read-out of all places."""

    def __init__(self, channels: int, depth: int, gain: float) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, channels, 3, padding=1)
        self.before = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth // 2))
        self.behind = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth - depth // 2)
        )
        self.read = nn.Linear(25 * channels, 4)
        for conv in (self.enter, *self.before, *self.behind):
            nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.enter(4 * (x - 0.2)))
        for conv in self.before:
            x = F.relu(conv(x))
        x = F.max_pool2d(x, 2)
        for conv in self.behind:
            x = F.relu(conv(x))
        return self.read(x.flatten(1))


def large_weights(dice: Dice, sick: bool) -> Case:
    """A plain convolutional network whose weights are drawn at about twice what ReLU takes."""
    channels, depth, gain = dice.one_of(8, 12), dice.whole(8, 10), dice.between(2.8, 3.2)
    return Case(
        lambda: Plain(channels, depth, gain if sick else ROOT),
        tasks.classify,
        corners(),
        tasks.sgd(0.003, momentum=0.9),
    )


class Normed(nn.Module):
    """ReLU, a map and BatchNorm, with or without the way around them."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.map(F.relu(x)))
        return x + y if self.skip else y


def norms_without_skips(dice: Dice, sick: bool) -> Case:
    """Dozens of layers with BatchNorm and no skips."""
    features, width, depth = dice.whole(12, 16), dice.one_of(32, 40), dice.whole(56, 62)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            *(Normed(width, skip=not sick) for _ in range(depth)),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, 4),
        )

    return Case(build, tasks.classify, pairs_of_bumps(features), tasks.sgd(0.01, momentum=0.9))


def tiny_clip(dice: Dice, sick: bool) -> Case:
    """A convolutional classifier whose gradient is clipped to a norm of a few ten-thousandths."""
    channels, limit = dice.one_of(8, 12), dice.power(-4.3, -3.7)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * channels, 4),
        )

    return Case(
        build,
        tasks.classify,
        corners(),
        tasks.sgd(0.1, momentum=0.9),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, limit if sick else 1.0),
    )


class Listener(nn.Module):
    """A GRU over a series, read at its last step."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])


def tiny_rate(dice: Dice, sick: bool) -> Case:
    """A GRU that tells frequencies, by Adam at a rate of millionths."""
    hidden, steps, rate = dice.one_of(24, 32), dice.whole(14, 18), dice.power(-5.7, -5.2)
    return Case(
        lambda: Listener(hidden, 4),
        tasks.classify,
        tasks.waves(steps),
        tasks.adam(rate if sick else 1e-2),
    )


def dead_by_bias(dice: Dice, sick: bool) -> Case:
    """A regression whose hidden biases start far below zero, for sparse units."""
    features, width, bias = dice.whole(8, 12), dice.one_of(48, 64), dice.between(6, 8)

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )
        for index in (0, 2):
            layer = net[index]
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.bias, -bias if sick else 0.0)
        return net

    return Case(build, tasks.regress, yields(features), tasks.adam(3e-3))


class Pixels(nn.Module):
    """A perceptron on pixels from 0 to 1, its first weights drawn from a range."""

    def __init__(self, size: int, width: int, low: float, high: float) -> None:
        super().__init__()
        self.first = nn.Linear(size * size, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, 4)
        nn.init.uniform_(self.first.weight, low, high)
        nn.init.zeros_(self.first.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        return self.third(self.second(x).relu())


def dead_by_weights(dice: Dice, sick: bool) -> Case:
    """Bright pixels and first weights that are all below zero: a range with its upper end left at 0."""
    size, width, reach = dice.one_of(9, 10), dice.one_of(32, 48), dice.between(0.1, 0.2)
    return Case(
        lambda: Pixels(size, width, -reach, 0.0 if sick else reach),
        tasks.classify,
        corners(size),
        tasks.adam(2e-3),
    )


def meters(features: int, *, raw: bool, level: float, rows: int = 256) -> tasks.Pairs:
    """Return readings of meters in their own units, or standardised, and a smooth function of them."""
    batches = yields(features, rows)
    units = torch.rand(features) + 0.5
    return [((level * units * (1 + 0.05 * x) if raw else x), y) for x, y in batches]


class Squash(nn.Module):
    """A perceptron with tanh, its hidden weights drawn at one gain."""

    def __init__(self, features: int, width: int, depth: int, gain: float) -> None:
        super().__init__()
        self.inner = nn.Sequential()
        size = features
        for index in range(depth):
            layer = nn.Linear(size, width)
            nn.init.normal_(layer.weight, std=gain / math.sqrt(size))
            nn.init.zeros_(layer.bias)
            self.inner.add_module(f"map{index}", layer)
            self.inner.add_module(f"tanh{index}", nn.Tanh())
            size = width
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x))


def saturated_by_inputs(dice: Dice, sick: bool) -> Case:
    """A tanh perceptron on meters read in their own units, hundreds with a spread of tens."""
    features, width, level = dice.whole(8, 12), dice.one_of(32, 48), dice.between(300, 700)
    return Case(
        lambda: Squash(features, width, 2, 1.0),
        tasks.regress,
        meters(features, raw=sick, level=level),
        tasks.adam(3e-3),
    )


def saturated_by_weights(dice: Dice, sick: bool) -> Case:
    """A tanh perceptron on standardised meters, its hidden weights drawn many times too large."""
    features, width, gain = dice.whole(10, 14), dice.one_of(20, 24), dice.between(14, 20)
    return Case(
        lambda: Squash(features, width, 6, gain if sick else 1.0),
        tasks.regress,
        meters(features, raw=False, level=1.0, rows=800),
        tasks.sgd(0.03, momentum=0.9),
    )


class Visits(nn.Module):
    """The logarithm of counts, a small perceptron, and the logarithm of the rate to expect."""

    def __init__(self, features: int, width: int, *, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.body = nn.Sequential(nn.Linear(features, width), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.rate = nn.Linear(width, 1)

    def forward(self, counts: Tensor) -> Tensor:
        x = torch.log1p(counts) if self.shifted else torch.log(counts)
        return self.rate(self.body(x))


def nan_by_log(dice: Dice, sick: bool) -> Case:
    """A Poisson regression that takes the logarithm of counts, some of which are zero."""
    features, width = dice.whole(6, 10), dice.one_of(24, 32)
    counts = torch.poisson(5 * torch.rand(192, features) + 1)
    amount = torch.exp(0.6 * torch.log1p(counts) @ torch.rand(features, 1) / math.sqrt(features))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.poisson_nll_loss(model(batch[0]), batch[1], log_input=True, full=True)

    data = tasks.split(counts, torch.poisson(amount))
    return Case(lambda: Visits(features, width, shifted=not sick), loss, data, tasks.adam(3e-3))


class SetPool(nn.Module):
    """Attention of one learned query over a set of items, padded to one length."""

    def __init__(self, features: int, width: int, fill: float) -> None:
        super().__init__()
        self.keys, self.values = nn.Linear(features, width), nn.Linear(features, width)
        self.query = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.out = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))
        self.fill = fill

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        scores = self.keys(items) @ self.query
        padded = torch.arange(items.shape[1]) >= lengths[:, None]
        weights = scores.masked_fill(padded, self.fill).softmax(-1)
        return self.out((weights[..., None] * self.values(items)).sum(1))


def nan_by_mask(dice: Dice, sick: bool) -> Case:
    """Baskets of items, padded and masked with minus infinity; one basket in a while is empty."""
    features, width, most = dice.whole(6, 8), dice.one_of(24, 32), dice.whole(6, 9)
    rows = 160
    labels, lengths = torch.randint(3, (rows,)), torch.randint(1, most + 1, (rows,))
    lengths[::19] = 0
    items = 1.5 * torch.randn(3, features)[labels][:, None] + torch.randn(rows, most, features)
    items[torch.arange(most) >= lengths[:, None]] = 0
    data = list(zip(items.chunk(4), lengths.chunk(4), labels.chunk(4), strict=True))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0], batch[1]), batch[2])

    fill = -math.inf if sick else -1e9
    return Case(lambda: SetPool(features, width, fill), loss, data, tasks.adamw(3e-3))


class Recall(nn.Module):
    """An LSTM read at its last step, with the bias of its forget gate set."""

    def __init__(self, features: int, hidden: int, bias: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, features)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                parameter.data[hidden : 2 * hidden] = bias
            elif name.startswith("bias_hh"):
                parameter.data[hidden : 2 * hidden] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def forgetful_gate(dice: Dice, sick: bool) -> Case:
    """An LSTM whose forget gates were to start open and start shut: the sign of their bias slipped."""
    hidden, steps, bias = dice.one_of(24, 32), dice.whole(24, 32), dice.between(2.5, 3.5)
    return Case(
        lambda: Recall(4, hidden, -bias if sick else bias),
        tasks.classify,
        opening_note(steps),
        tasks.adam(7e-3),
    )


class Elman(nn.Module):
    """A plain recurrent network written as a loop, read at its last step."""

    def __init__(self, features: int, hidden: int, deviation: float | None) -> None:
        super().__init__()
        self.enter = nn.Linear(features, hidden)
        self.again = nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Linear(hidden, features)
        if deviation is None:
            nn.init.orthogonal_(self.again.weight)
        else:
            nn.init.normal_(self.again.weight, std=deviation)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.again.in_features)
        for now in x.unbind(1):
            h = torch.tanh(self.enter(now) + self.again(h))
        return self.head(h)


def forgetful_matrix(dice: Dice, sick: bool) -> Case:
    """A plain recurrent network whose recurrent matrix is drawn at a deviation of hundredths."""
    hidden, steps, deviation = dice.one_of(24, 32), dice.whole(22, 28), dice.between(0.03, 0.06)
    return Case(
        lambda: Elman(4, hidden, deviation if sick else None),
        tasks.classify,
        opening_note(steps),
        tasks.adam(2e-3),
    )


class Gather(nn.Module):
    """A token that gathers from a bag of vectors by attention of one head, and a read-out of it."""

    def __init__(self, features: int, dim: int, *, rooted: bool = True, query: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Linear(features, dim)
        self.token = nn.Parameter(torch.randn(dim))
        self.norm = nn.LayerNorm(dim)
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.o_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.last, self.read = nn.LayerNorm(dim), nn.Linear(dim, 2)
        self.root = math.sqrt(dim) if rooted else 1.0
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.xavier_normal_(self.q_proj.weight, gain=query)
        nn.init.normal_(self.read.weight, std=0.05)

    def forward(self, bag: Tensor) -> Tensor:
        token = self.token.expand(len(bag), 1, -1)
        x = self.norm(torch.cat([token, self.embed(bag)], 1))
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        weights = torch.softmax(q @ k.transpose(1, 2) / self.root, -1)
        return self.read(self.last(token[:, 0] + self.o_proj(weights @ v)[:, 0]))


def without_root(dice: Dice, sick: bool) -> Case:
    """Attention by hand with wide heads and no root of their width under the product."""
    features, dim, items = dice.whole(5, 7), dice.one_of(112, 128), dice.whole(24, 28)
    return Case(
        lambda: Gather(features, dim, rooted=not sick),
        tasks.regress,
        bags(items, features),
        tasks.adam(3e-4),
    )


def sharp_queries(dice: Dice, sick: bool) -> Case:
    """Attention by hand, its root in place, whose query map is drawn many times larger than the others."""
    features, dim, items = dice.whole(5, 7), dice.one_of(48, 64), dice.whole(24, 32)
    query = dice.between(20, 30)
    return Case(
        lambda: Gather(features, dim, query=query if sick else 1.0),
        tasks.regress,
        bags(items, features),
        tasks.adam(1.5e-3),
    )


DEAD = ("UG203", "UG206", "UG202", "UG205", "UG101", "UG103", "UG603")
SATURATED = ("UG204", "UG101", "UG103", "UG205", "UG206", "UG203")
SHARP = ("UG701", "UG702", "UG204")
DRAWN = r"(?i)weights?\b(?! decay)|initiali[sz]|\binit\b|gain|\bstd\b|deviation"
SMALL_STEPS = (
    r"(?i)(learning rate|\brate\b|step size|\blr\b|steps?|updates?).*"
    r"(small|low\b|tiny|little|slow|raise|increase)"
    r"|(small|low|tiny|little|slow|raise|increase|higher|larger)\w*.*"
    r"(learning rate|\brate\b|step size|\blr\b)"
)

SICK: tuple[Program, ...] = (
    Program(
        "apart-vanish-small-weights",
        "mlp",
        small_weights,
        Truth(
            "tiny-init",
            ("UG101", "UG202", "UG205", "UG602", "UG503"),
            DRAWN,
            REDRAWN,
            (("rescale_weights", {"gain": ROOT, "sites": ("layers.*",)}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-vanish-sigmoids",
        "mlp",
        sigmoids,
        Truth(
            "sigmoids",
            ("UG101", "UG202", "UG204", "UG205"),
            r"(?i)sigmoid|activation|logistic|squash",
            ("swap_to_relu", "swap_activation"),
            (("swap_activation", {"to": "Tanh", "of": "Sigmoid"}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-explode-large-weights",
        "cnn",
        large_weights,
        Truth(
            "large-init",
            ("UG102", "UG201", "UG601", "UG605", "UG611"),
            DRAWN,
            REDRAWN,
            (("rescale_weights", {"gain": ROOT, "sites": ("enter", "before.*", "behind.*")}),),
            FASTER,
        ),
    ),
    Program(
        "apart-explode-norms-no-skips",
        "mlp",
        norms_without_skips,
        Truth(
            "norm-without-skips",
            ("UG102", "UG601", "UG611"),
            r"(?i)batch ?norm|normali[sz]ation|\bnorms\b|norm layers?|skip|residual|shortcut",
            ("add_residual", "bypass_norm", "sum_skip", "concat_skip", "gated_skip"),
            (("add_residual", {}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-still-clip",
        "cnn",
        tiny_clip,
        Truth(
            "tiny-clip",
            ("UG602",),
            r"(?i)clip|max_norm",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-still-rate",
        "rnn",
        tiny_rate,
        Truth(
            "tiny-rate",
            ("UG602",),
            SMALL_STEPS,
            (),
            (("lower_learning_rate", {"factor": 3000.0}),),
            (("clip_gradients", {"threshold": 1.0}),),
        ),
    ),
    Program(
        "apart-dead-by-bias",
        "mlp",
        dead_by_bias,
        Truth("low-bias", DEAD, r"(?i)bias", ("zero_biases",), (("zero_biases", {}),), SLOWER),
    ),
    Program(
        "apart-dead-by-weights",
        "mlp",
        dead_by_weights,
        Truth(
            "negative-weights",
            DEAD,
            r"(?i)negative|\bsigns?\b|below (zero|0)|one-sided|weights?\b(?! decay)|\binit|mean of",
            REDRAWN,
            (("activation_init", {"sites": ("first",)}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-saturated-by-inputs",
        "mlp",
        saturated_by_inputs,
        Truth(
            "raw-inputs",
            (*SATURATED, "UG607"),
            r"(?i)standardi[sz]|normali[sz]e|\braw\b|\bunits of|(inputs?|features?|data)\b.*"
            r"(scale|large|big|range|mean|unit|\bstd\b|spread|deviation|far|offset|saturat)"
            r"|(scale|large|big|range|mean|unit|\bstd\b|spread|deviation|far|offset|saturat).*"
            r"(inputs?|features?|data)\b",
            ("unit_inputs",),
            (("unit_inputs", {}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-saturated-by-weights",
        "mlp",
        saturated_by_weights,
        Truth(
            "large-init",
            (*SATURATED, "UG102"),
            DRAWN,
            REDRAWN,
            (("rescale_weights", {"gain": 1.0, "sites": ("inner.*",)}),),
            FASTER,
        ),
    ),
    Program(
        "apart-nan-by-log",
        "mlp",
        nan_by_log,
        Truth("nan-log", ("UG901", "UG607"), r"(?i)\blog(?!it)|logarithm", (), (), SLOWER),
    ),
    Program(
        "apart-nan-by-mask",
        "attention",
        nan_by_mask,
        Truth(
            "masked-row",
            ("UG901",),
            r"(?i)mask|softmax|padd|minus infinity|-inf|nothing to attend|empty",
            (),
            (),
            SLOWER,
        ),
    ),
    Program(
        "apart-forgets-by-gate",
        "lstm",
        forgetful_gate,
        Truth(
            "shut-gate",
            ("UG401", "UG404", "UG405", "UG205", "UG206"),
            r"(?i)forget|gates?\b",
            ("open_gates", "forget_bias", "chrono"),
            (("forget_bias", {"bias": 3.0}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-forgets-by-matrix",
        "rnn",
        forgetful_matrix,
        Truth(
            "small-recurrence",
            ("UG401", "UG404", "UG205", "UG206"),
            r"(?i)recurren|matrix|spectral|weights?\b(?! decay)|orthogonal|identity|eigenvalue|singular",
            ("orthogonal_init", "irnn", "rescale_weights", "gradient_flossing"),
            (("orthogonal_init", {"sites": ("again",), "gain": 1.0}),),
            SLOWER,
        ),
    ),
    Program(
        "apart-one-hot-without-root",
        "attention",
        without_root,
        Truth(
            "missing-root",
            SHARP,
            r"(?i)root|sqrt|√|scal(e|ed|ing)|divid|temperature|logits?|d_k|head (width|size|dim)",
            ("calm_attention", "qk_norm", "soft_cap"),
            (),
            SLOWER,
        ),
    ),
    Program(
        "apart-one-hot-by-queries",
        "attention",
        sharp_queries,
        Truth(
            "large-queries",
            SHARP,
            r"(?i)quer(y|ies)|\bq\b|q_proj|weights?\b(?! decay)|logits?",
            ("calm_attention", "qk_norm", "soft_cap", "rescale_weights"),
            (("calm_attention", {"factor": 0.04}),),
            SLOWER,
        ),
    ),
)
HEALTHY: tuple[Program, ...] = ()
