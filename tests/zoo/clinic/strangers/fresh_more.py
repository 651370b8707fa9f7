"""Kept aside once: faults that are documented but less usual, of scale and of training."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.clinic.strangers.fresh_sound import HEALTHY
from zoo.dice import Dice

__all__ = ["HEALTHY", "SICK"]

COLD = (("lower_learning_rate", {"factor": 0.1}),)
HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


def rings(features: int, rows: int = 320, noise: float = 0.1) -> tasks.Pairs:
    """Return points on three rings around the origin, turned into more dimensions, and their ring."""
    labels = torch.randint(3, (rows,))
    angle = 2 * torch.pi * torch.rand(rows)
    radius = 0.5 + 0.7 * labels
    plane = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    turn = torch.linalg.qr(torch.randn(features, features)).Q[:2]
    return tasks.split(plane @ turn * math.sqrt(features / 2) + noise * torch.randn(rows, features), labels)


def rows_of(*parts: Tensor, batches: int = 4) -> list[tuple[Tensor, ...]]:
    """Return several tensors in batches."""
    return list(zip(*(part.chunk(batches) for part in parts), strict=True))


class TiedModel(nn.Module):
    """A GRU on letters, with one matrix for the letters that go in and those that come out."""

    def __init__(self, size: int, dim: int, std: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, dim)
        nn.init.normal_(self.embed.weight, 0.0, std)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.decoder = nn.Linear(dim, size, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.decoder(self.norm(h + self.rnn(h)[0]))


def tied(dice: Dice, sick: bool) -> Case:
    """Output weights tied to an embedding that starts at a standard deviation of one, as by default."""
    dim, rate = dice.one_of(96, 128), dice.between(8e-4, 1.2e-3)
    pieces, size = tasks.letters(20, rows=48)
    std = 1.0 if sick else 1 / math.sqrt(dim)
    return Case(lambda: TiedModel(size, dim, std), tasks.next_letter, pieces, tasks.adam(rate))


def heavy_ball(dice: Dice, sick: bool) -> Case:
    """Stochastic gradient descent with a momentum of 0.999 where 0.9 was meant."""
    width, rate = dice.one_of(32, 48), dice.between(0.12, 0.16)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(10, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    momentum = 0.999 if sick else 0.9
    return Case(build, tasks.regress, tasks.smooth(10, 2), tasks.sgd(rate, momentum=momentum))


class Sine(nn.Module):
    """A linear map, times omega, and a sine."""

    def __init__(self, inputs: int, outputs: int, omega: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * self.linear(x))


def siren(dice: Dice, sick: bool) -> Case:
    """A SIREN with omega 30 whose hidden weights were left to the default draw."""
    width, depth, rate = dice.one_of(48, 64), dice.whole(3, 4), dice.between(4e-4, 6e-4)

    def build() -> nn.Module:
        model = nn.Sequential(Sine(2, width, 30.0), *(Sine(width, width, 30.0) for _ in range(depth)))
        if not sick:
            nn.init.uniform_(model[0].linear.weight, -0.5, 0.5)
            for layer in list(model)[1:]:
                bound = math.sqrt(6 / width) / 30
                nn.init.uniform_(layer.linear.weight, -bound, bound)
        head = nn.Linear(width, 1)
        nn.init.uniform_(head.weight, -math.sqrt(6 / width) / 6, math.sqrt(6 / width) / 6)
        return model.append(head)

    points = 2 * torch.rand(1024, 2) - 1
    values = torch.sin(3 * points[:, :1] + 2 * points[:, 1:]) + torch.cos(4 * points[:, :1] * points[:, 1:])
    return Case(build, tasks.regress, tasks.split(points, values / values.std()), tasks.adam(rate))


class HyperNet(nn.Module):
    """A small network whose weights another one makes from the embedding of a task."""

    def __init__(self, tasks_: int, embedding: int, sizes: tuple[int, ...], *, classical: bool) -> None:
        super().__init__()
        self.task = nn.Embedding(tasks_, embedding)
        self.weights = nn.ModuleList(nn.Linear(embedding, a * b) for a, b in itertools.pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(b) for b in sizes[1:])
        self.sizes = sizes
        for layer, fan in zip(self.weights, sizes[:-1], strict=True):
            if classical:
                nn.init.kaiming_normal_(layer.weight)
            else:
                nn.init.normal_(layer.weight, 0, math.sqrt(2 / (embedding * fan)))
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        z = self.task(task)
        for k, (make, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight = make(z).view(-1, self.sizes[k], self.sizes[k + 1])
            x = torch.einsum("ni,nio->no", x, weight) + bias
            if k < len(self.weights) - 1:
                x = F.relu(x)
        return x


def hyper(dice: Dice, sick: bool) -> Case:
    """A hypernetwork drawn as if it were the network itself, so that what it makes is far too large."""
    hidden, embedding, many = dice.one_of(24, 32), dice.one_of(16, 24), dice.whole(3, 5)
    x, task = torch.randn(320, 6), torch.randint(many, (320,))
    mixing = torch.randn(many, 6)
    y = torch.tanh((x * mixing[task]).sum(1, keepdim=True))
    sizes = (6, hidden, hidden, hidden, 1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0], batch[1]), batch[2])

    return Case(
        lambda: HyperNet(many, embedding, sizes, classical=sick), loss, rows_of(x, task, y), tasks.adam(2e-3)
    )


class Unrolled(nn.Module):
    """Iterations of shrinkage, unrolled, with learned thresholds and a learned correction each."""

    def __init__(self, measure: Tensor, iterations: int, step: float) -> None:
        super().__init__()
        self.register_buffer("A", measure)
        self.corrections = nn.ParameterList(torch.zeros(measure.T.shape) for _ in range(iterations))
        self.thresholds = nn.Parameter(torch.full((iterations,), 0.05))
        self.step = step

    def forward(self, y: Tensor) -> Tensor:
        x = torch.zeros(len(y), self.A.shape[1])
        for correction, threshold in zip(self.corrections, self.thresholds, strict=True):
            residual = x @ self.A.T - y
            x = x - residual @ (self.step * self.A.T + correction).T
            x = F.softshrink(x, 0.0) if threshold is None else torch.sign(x) * F.relu(x.abs() - threshold)
        return x


def unrolled(dice: Dice, sick: bool) -> Case:
    """An unrolled solver whose step is beyond two over the largest curvature, so that it diverges."""
    unknowns, seen, iterations = dice.whole(28, 34), dice.whole(18, 22), dice.whole(9, 11)
    beyond = dice.between(3.2, 3.8)
    measure = torch.randn(seen, unknowns) / math.sqrt(seen)
    truth = torch.randn(256, unknowns) * (torch.rand(256, unknowns) < 0.15)
    seen_values = truth @ measure.T
    largest = float(torch.linalg.matrix_norm(measure, 2) ** 2)
    step = (beyond if sick else 0.8) / largest
    return Case(
        lambda: Unrolled(measure, iterations, step),
        tasks.regress,
        tasks.split(seen_values, truth),
        tasks.adam(2e-3),
    )


class SumNet(nn.Module):
    """Graph layers that add up the neighbours of every node, or average them."""

    def __init__(self, features: int, width: int, depth: int, *, total: bool) -> None:
        super().__init__()
        widths = [features] + [width] * depth
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.near = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.out = nn.Linear(width, 3)
        self.total = total

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        degree = links.sum(-1, keepdim=True).clamp(min=1)
        for own, near in zip(self.own, self.near, strict=True):
            gathered = links @ x
            x = F.relu(own(x) + near(gathered if self.total else gathered / degree))
        return self.out(x)


def hubs(nodes: int, features: int, noise: float = 0.8) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return graphs of three communities, where some nodes are linked to nearly all of their community."""
    graphs = []
    centre = torch.randn(3, features)
    for _ in range(4):
        labels = torch.randint(3, (nodes,))
        chance = torch.where(torch.rand(nodes) < 0.25, 0.95, 0.3)
        chance = torch.maximum(chance[:, None], chance[None])
        same = labels[:, None] == labels[None]
        links = (torch.rand(nodes, nodes) < torch.where(same, chance, 0.08)).float().triu(1)
        graphs.append((centre[labels] + noise * torch.randn(nodes, features), links + links.T, labels))
    return graphs


def hub_sums(dice: Dice, sick: bool) -> Case:
    """A graph network that adds up neighbours, some of which are hubs, layer by layer without a norm."""
    nodes, width, depth = dice.whole(80, 110), dice.one_of(24, 32), dice.whole(5, 6)

    def loss(model: nn.Module, graph: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(graph[0], graph[1]), graph[2])

    return Case(lambda: SumNet(8, width, depth, total=sick), loss, hubs(nodes, 8), tasks.adam(2e-3))


def lipschitz(dice: Dice, sick: bool) -> Case:
    """A deep network of ReLUs with its layers held to a norm of one, most of which is lost at each."""
    width, depth = dice.one_of(40, 56), dice.whole(9, 11)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for k in range(depth):
            layer = nn.Linear(12 if k == 0 else width, width)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            layers += [parametrizations.spectral_norm(layer) if sick else layer, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 3))

    return Case(build, tasks.classify, rings(12), tasks.sgd(0.05, momentum=0.9))


def left_in_eval(dice: Dice, sick: bool) -> Case:
    """A plain network with BatchNorm that trains in eval mode, on statistics that were never taken."""
    channels, depth = dice.one_of(10, 12), dice.whole(8, 10)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for k in range(depth):
            layers += [
                nn.Conv2d(channels if k else 1, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 4))
        return model.eval() if sick else model.train()

    return Case(build, tasks.classify, tasks.stripes(10, rows=96), tasks.sgd(0.02, momentum=0.9))


class Radial(nn.Module):
    """Gaussian bumps around centres, added up by a linear layer."""

    def __init__(self, features: int, centres: int, gamma: float, outputs: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(centres, features))
        self.gamma = gamma
        self.out = nn.Linear(centres, outputs)

    def forward(self, x: Tensor) -> Tensor:
        distance = (x[:, None] - self.centres).square().sum(-1)
        return self.out(torch.exp(-self.gamma * distance))


def radial(dice: Dice, sick: bool) -> Case:
    """A network of radial bumps that are far too narrow for the number of dimensions."""
    features, centres = dice.whole(16, 24), dice.one_of(64, 96)
    gamma = dice.between(0.9, 1.1) if sick else 1 / (2 * features)
    return Case(
        lambda: Radial(features, centres, gamma, 5),
        tasks.classify,
        tasks.centres(features, 5, rows=256),
        tasks.sgd(1.0, momentum=0.9),
    )


class Words(nn.Module):
    """An LSTM over padded words, read at its last step or at the last word."""

    def __init__(self, tokens: int, dim: int, *, last_step: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.fc = nn.Linear(dim, 4)
        self.last_step = last_step

    def forward(self, words: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(words))
        if self.last_step:
            return self.fc(out[:, -1])
        last = (words != 0).sum(1) - 1
        return self.fc(out[torch.arange(len(words)), last])


def read_behind_padding(dice: Dice, sick: bool) -> Case:
    """An LSTM whose last step is read, long behind the last word, where padding has been read since."""
    dim, length = dice.one_of(24, 32), dice.whole(70, 90)
    inputs = torch.zeros(128, length, dtype=torch.long)
    labels = torch.randint(4, (128,))
    for row in range(128):
        many = int(torch.randint(5, 10, ()))
        inputs[row, :many] = torch.randint(1, 10, (many,))
        inputs[row, int(torch.randint(many, ()))] = 10 + labels[row]
    return Case(
        lambda: Words(14, dim, last_step=sick), tasks.classify, tasks.split(inputs, labels), tasks.adam(5e-3)
    )


class Capsules(nn.Module):
    """A layer of capsules: every one sees all others, and its length is squashed."""

    def __init__(self, many: int, dim: int, *, square: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(many * dim, many * dim) / math.sqrt(many * dim))
        self.many, self.square = many, square

    def forward(self, x: Tensor) -> Tensor:
        s = (x.flatten(1) @ self.weight).unflatten(1, (self.many, -1))
        length = s.norm(dim=-1, keepdim=True) + 1e-8
        if self.square:
            return length**2 / (1 + length**2) * s / length
        return torch.tanh(length) * s / length


def squashed(dice: Dice, sick: bool) -> Case:
    """Capsules in many layers with the usual squash, which takes short vectors to their square."""
    many, dim, depth = dice.whole(6, 8), dice.whole(4, 6), dice.whole(5, 6)
    features = many * dim

    def build() -> nn.Module:
        layers = (Capsules(many, dim, square=sick) for _ in range(depth))
        return nn.Sequential(
            nn.Linear(10, features),
            nn.Unflatten(1, (many, dim)),
            *layers,
            nn.Flatten(),
            nn.Linear(features, 4),
        )

    return Case(build, tasks.classify, tasks.folded(10, rows=256), tasks.adam(3e-3))


class Cosines(nn.Module):
    """A classifier by the cosine of features and of the weights of each class."""

    def __init__(self, features: int, width: int, classes: int, scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 64))
        self.prototypes = nn.Parameter(torch.randn(classes, 64))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(self.body(x)) @ F.normalize(self.prototypes).T


def unscaled_cosines(dice: Dice, sick: bool) -> Case:
    """Cosines as logits without a scale: between -1 and 1 the softmax never gets near a label."""
    features, classes, scale = dice.whole(20, 24), dice.whole(28, 34), dice.between(9, 11)
    return Case(
        lambda: Cosines(features, 48, classes, 1.0 if sick else scale),
        tasks.classify,
        tasks.centres(features, classes, rows=400),
        tasks.sgd(0.05, momentum=0.9),
    )


class Clock(nn.Module):
    """A regressor on the seconds since 1970, of which a start is taken first."""

    def __init__(self, start: float, span: float, width: int, *, single: bool) -> None:
        super().__init__()
        self.start, self.span, self.single = start, span, single
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, seconds: Tensor) -> Tensor:
        if self.single:
            t = (seconds.float() - self.start) / self.span
        else:
            t = ((seconds - self.start) / self.span).float()
        return self.net(2 * t - 1)


def rounded_clock(dice: Dice, sick: bool) -> Case:
    """Seconds since 1970 in single precision, which is good to two minutes, before their start is taken."""
    start, span, width = dice.between(1.70e9, 1.75e9), dice.between(70, 110), dice.one_of(32, 48)
    seconds = start + span * torch.rand(256, 1, dtype=torch.float64)
    turn = 2 * torch.pi * (seconds - start) / span
    y = (torch.sin(turn) + 0.5 * torch.cos(2 * turn)).float()
    return Case(
        lambda: Clock(start, span, width, single=sick),
        tasks.regress,
        tasks.split(seconds, y),
        tasks.adam(1e-2),
    )


SCALE = ("UG605", "UG601", "UG102", "UG201", "UG104", "UG611")
SICK: tuple[Program, ...] = (
    Program(
        "letters-tied-to-unit-embedding",
        "gru",
        tied,
        Truth(
            "tied-embedding",
            ("UG605", "UG601", "UG105", "UG606"),
            r"(?i)tied|shar|embed|^head|logits|decoder|initial loss|too (large|loud|high)",
            ("scale_head", "rescale_weights"),
            (("rescale_weights", {"sites": ("decoder",), "gain": 1.0}),),
            COLD,
        ),
    ),
    Program(
        "momentum-three-nines",
        "mlp",
        heavy_ball,
        Truth(
            "momentum",
            ("UG601", "UG611"),
            r"(?i)momentum|velocity|learning rate|step size|steps? (is|are) (far )?too (large|long)"
            r"|\blr\b|overshoot|oscillat",
            ("lower_learning_rate",),
            (),
            HEAVY,
        ),
    ),
    Program(
        "siren-default-weights",
        "coordinates",
        siren,
        Truth(
            "siren-init",
            (*SCALE, "UG603", "UG301"),
            r"(?i)init|weight|omega|sine|\bsin\b|frequen|gain|too (large|loud)",
            ("rescale_weights", "critical_init", "unit_jacobian_init", "lsuv"),
            (
                (
                    "rescale_weights",
                    {"sites": ("1.linear", "2.linear", "3.linear", "4.linear"), "gain": math.sqrt(2) / 30},
                ),
            ),
            COLD,
        ),
    ),
    Program(
        "hypernetwork-drawn-classically",
        "hypernetwork",
        hyper,
        Truth(
            "hypernet-scale",
            SCALE,
            r"(?i)hyper|init|weight|gain|generat|makes?\b|too (large|loud)|scale",
            ("rescale_weights", "scale_head", "lsuv", "unit_jacobian_init"),
            (("rescale_weights", {"sites": ("weights.*",), "gain": 0.27}),),
            COLD,
        ),
    ),
    Program(
        "unrolled-step-too-long",
        "unrolled",
        unrolled,
        Truth(
            "unrolled-step",
            SCALE,
            r"(?i)step|iterat|unroll|curvature|diverg|loop|repeat|residual|gain",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "graph-adds-up-hubs",
        "graph",
        hub_sums,
        Truth(
            "sum-over-neighbours",
            SCALE,
            r"(?i)neighbo|degree|\bhubs?\b|\bsums?\b|aggregat|adds? up|adjacen|links|message",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "spectral-norm-everywhere",
        "mlp",
        lipschitz,
        Truth(
            "spectral-norm",
            ("UG101", "UG202", "UG205", "UG105", "UG603"),
            r"(?i)spectral|lipschitz|parametri|norm of (one|1)|weights?:|\bgain",
            (),
            (),
            HEAVY,
        ),
    ),
    Program(
        "batchnorm-left-in-eval",
        "cnn",
        left_in_eval,
        Truth(
            "eval-mode",
            ("UG101", "UG202", "UG205", "UG105", "UG603"),
            r"(?i)eval|running|statistic|train\(\)|training mode|norm",
            (),
            (),
            HEAVY,
        ),
    ),
    Program(
        "bumps-too-narrow",
        "rbf",
        radial,
        Truth(
            "kernel-width",
            ("UG202", "UG206", "UG205", "UG101", "UG103", "UG603", "UG203", "UG204", "UG503"),
            r"(?i)\bexp|gamma|kernel|width|radial|bump|distance|gauss|dies|dead|same output",
            (),
            (),
            HEAVY,
        ),
    ),
    Program(
        "lstm-read-behind-padding",
        "lstm",
        read_behind_padding,
        Truth(
            "padding",
            ("UG401", "UG404", "UG405", "UG205", "UG206", "UG101", "UG202"),
            r"(?i)padd|last step|length|forg|memor|gate|horizon|(behind|after) the last",
            ("open_gates", "forget_bias", "chrono"),
            (),
            HEAVY,
        ),
    ),
    Program(
        "capsules-squashed-deep",
        "capsules",
        squashed,
        Truth(
            "squash",
            ("UG101", "UG202", "UG205", "UG103", "UG206", "UG603"),
            r"(?i)squash|capsule|activation|length|short vectors",
            (),
            (),
            HEAVY,
        ),
    ),
    Program(
        "cosines-without-scale",
        "metric",
        unscaled_cosines,
        Truth(
            "temperature",
            ("UG602", "UG204", "UG614", "UG603"),
            r"(?i)temperature|logit|cosine|scale|bounded|normali[sz]|range",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "seconds-in-single-precision",
        "mlp",
        rounded_clock,
        Truth(
            "cancellation",
            ("UG205", "UG206", "UG607", "UG202", "UG301"),
            r"(?i)precision|round|cancel|float32|subtract|\binputs?\b",
            ("unit_inputs",),
            (),
            HEAVY,
        ),
    ),
)
