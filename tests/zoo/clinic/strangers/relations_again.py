"""Graphs, sets, embeddings and contrasts: sick by one fault each, and healthy ones."""

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


def communities(nodes: int, features: int, near: float, far: float, groups: int = 4) -> list[Any]:
    """Return four graphs of nodes that mostly know their own kind: features, adjacency, kind."""
    middle, graphs = torch.randn(groups, features), []
    for _ in range(4):
        kind = torch.randint(groups, (nodes,))
        chance = torch.where(kind[:, None] == kind[None], near, far)
        edges = (torch.rand(nodes, nodes) < chance).float().triu(1)
        graphs.append((middle[kind] + torch.randn(nodes, features), edges + edges.T, kind))
    return graphs


class Sage(nn.Module):
    """A layer that joins a node with what its neighbours say."""

    def __init__(self, inside: int, outside: int, how: str) -> None:
        super().__init__()
        self.own, self.neighbours, self.how = nn.Linear(inside, outside), nn.Linear(inside, outside), how

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        heard = edges @ h
        if self.how == "mean":
            heard = heard / edges.sum(1, keepdim=True).clamp(min=1)
        return self.own(h) + self.neighbours(heard)


class GraphNet(nn.Module):
    """A stack of such layers and a classifier of nodes."""

    def __init__(self, inside: int, width: int, depth: int, how: str) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Sage(width if k else inside, width, how) for k in range(depth))
        self.classify = nn.Linear(width, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x, edges))
        return self.classify(x)


def nodes(model: nn.Module, graph: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the kinds of nodes."""
    return F.cross_entropy(model(graph[0], graph[1]), graph[2])


def summed(dice: Dice, sick: bool) -> Case:
    """A graph network that adds up what all neighbours say, in a graph where everybody has many."""
    width, depth = dice.whole(20, 32), dice.whole(4, 5)
    data = communities(dice.whole(56, 72), 8, 0.6, 0.25)
    how = "sum" if sick else "mean"
    return Case(lambda: GraphNet(8, width, depth, how), nodes, data, tasks.adam(3e-3))


class Molecule(nn.Module):
    """Atoms that move each other by their distances, before the energy is read off."""

    def __init__(self, width: int, depth: int, guard: float) -> None:
        super().__init__()
        self.guard = guard
        self.kinds = nn.Embedding(5, width)
        self.edge = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            for _ in range(depth)
        )
        self.push = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(depth))
        self.node = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.energy = nn.Linear(width, 1)

    def forward(self, atoms: Tensor, place: Tensor) -> Tensor:
        h = self.kinds(atoms)
        count = atoms.shape[1]
        for edge, push, node in zip(self.edge, self.push, self.node, strict=True):
            gap = place[:, :, None] - place[:, None]
            distance = torch.sqrt((gap**2).sum(-1, keepdim=True) + self.guard)
            pairs = [h[:, :, None].expand(-1, -1, count, -1), h[:, None].expand(-1, count, -1, -1)]
            message = edge(torch.cat([*pairs, distance], -1))
            place = place + (gap / (1 + distance) * push(message)).mean(2)
            h = h + node(torch.cat([h, message.mean(2)], -1))
        return self.energy(h.mean(1)).squeeze(-1)


def molecules(dice: Dice, sick: bool) -> Case:
    """Distances of atoms, each of its own as well, by a root that has no slope there."""
    width, depth, atoms = dice.whole(12, 20), dice.whole(2, 3), dice.whole(5, 7)
    kinds, place = torch.randint(5, (64, atoms)), torch.randn(64, atoms, 3)
    energy = (torch.linspace(-1, 1, 5)[kinds]).mean(1) + 0.5 * torch.cdist(place, place).mean((1, 2))
    energy = (energy - energy.mean()) / energy.std()
    data = list(zip(kinds.chunk(4), place.chunk(4), energy.chunk(4), strict=True))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.l1_loss(model(batch[0], batch[1]), batch[2])

    return Case(lambda: Molecule(width, depth, 0.0 if sick else 1e-6), loss, data, tasks.adam(5e-3))


class PointSet(nn.Module):
    """Points one by one, the largest of each feature, and a classifier of the whole."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width))
        self.rho = nn.Sequential(
            nn.Linear(width, width), nn.GroupNorm(groups, width), nn.ReLU(), nn.Linear(width, 4)
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.rho(self.phi(points).amax(1))


def clouds(points: int, rows: int = 128) -> tasks.Pairs:
    """Return clouds of points whose stretched direction, or none, is the class."""
    labels = torch.randint(4, (rows,))
    stretch = torch.cat([torch.ones(1, 3), 1 + 1.5 * torch.eye(3)])
    return tasks.split(torch.randn(rows, points, 3) * stretch[labels][:, None], labels)


def one_each(dice: Dice, sick: bool) -> Case:
    """A set network whose head has a norm over groups of one number each."""
    width = 4 * dice.whole(8, 12)
    groups, points = width if sick else 4, dice.whole(24, 40)
    return Case(lambda: PointSet(width, groups), tasks.classify, clouds(points), tasks.adamw(5e-3))


class Factors(nn.Module):
    """Users and films as vectors, and a rating as their product."""

    def __init__(self, users: int, films: int, width: int, spread: float | None) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(users, width), nn.Embedding(films, width)
        self.user_bias, self.film_bias = nn.Embedding(users, 1), nn.Embedding(films, 1)
        nn.init.zeros_(self.user_bias.weight)
        nn.init.zeros_(self.film_bias.weight)
        if spread is not None:
            nn.init.normal_(self.user.weight, std=spread)
            nn.init.normal_(self.film.weight, std=spread)

    def forward(self, pairs: Tensor) -> Tensor:
        u, f = pairs.unbind(1)
        return (self.user(u) * self.film(f)).sum(1) + (self.user_bias(u) + self.film_bias(f)).squeeze(1)


def ratings(dice: Dice, sick: bool) -> Case:
    """Factors of users and films as nn.Embedding draws them: products with a spread of many stars."""
    users, films, width = dice.whole(50, 70), dice.whole(36, 48), dice.whole(48, 72)
    truth = torch.randn(users, 2) @ torch.randn(2, films) + torch.randn(users, 1)
    truth = truth / truth.std()
    seen = torch.cartesian_prod(torch.arange(users), torch.arange(films))
    seen = seen[torch.randperm(len(seen))[:1600]]
    data = []
    for pairs in seen.chunk(4):
        known = pairs[:-80], truth[pairs[:-80, 0], pairs[:-80, 1]]
        data.append((*known, pairs[-80:], truth[pairs[-80:, 0], pairs[-80:, 1]]))
    return Case(
        lambda: Factors(users, films, width, None if sick else 0.1),
        tasks.regress,  # type: ignore[arg-type]
        data,
        tasks.adam(1e-2, weight_decay=1e-5),
    )


def unseen(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Squared error of ratings that are not trained on."""
    return float(F.mse_loss(model(batch[2]), batch[3]))


class Encoder(nn.Module):
    """An encoder with a projection, of unit length or not."""

    def __init__(self, features: int, width: int, unit: bool) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(features, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.project = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, width))
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        z = self.project(self.backbone(x))
        return F.normalize(z, dim=-1) if self.unit else z


def two_views(temperature: float) -> Any:
    """Return the loss of telling the other view of a sample from those of all others."""

    def info_nce(model: nn.Module, views: tuple[Tensor, Tensor]) -> Tensor:
        scores = model(views[0]) @ model(views[1]).T / temperature
        own = torch.arange(len(scores))
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    return info_nce


def views(features: int, rows: int = 48, noise: float = 0.6) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of noisy looks at the same few hidden numbers."""
    mix, batches = torch.randn(6, features), []
    for _ in range(4):
        hidden = torch.randn(rows, 6) @ mix / 6**0.5
        batches.append(tuple(hidden + noise * torch.randn(rows, features) for _ in range(2)))
    return batches


def unbounded(dice: Dice, sick: bool) -> Case:
    """Contrast of embeddings that nobody normalised, over the temperature that is meant for cosines."""
    width = dice.whole(96, 160)
    model = Encoder(24, width, unit=not sick)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return Case(model, two_views(0.07), views(24), optimizer)


class Gcn(nn.Module):
    """Two graph convolutions with dropout."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden, bias=False), nn.Linear(hidden, 4)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        loops = edges + torch.eye(len(edges))
        scale = loops.sum(1).rsqrt()
        spread = scale[:, None] * loops * scale
        h = F.relu(spread @ self.first(self.drop(x)))
        return spread @ self.second(self.drop(h))


def papers(dice: Dice, sick: bool) -> Case:
    """Kipf's graph convolutions with a few labelled nodes, and decay on the first layer only."""
    hidden = dice.whole(16, 32)
    model = Gcn(10, hidden)
    data = [
        (x, e, k, torch.randperm(len(k))[:16]) for x, e, k in communities(dice.whole(48, 64), 10, 0.2, 0.02)
    ]

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        features, edges, kind, labelled = batch
        return F.cross_entropy(net(features, edges)[labelled], kind[labelled])

    groups = [
        {"params": model.first.parameters(), "weight_decay": 5e-4},
        {"params": model.second.parameters()},
    ]
    return Case(model, loss, data, torch.optim.Adam(groups, lr=1e-2))


class Margin(nn.Module):
    """Embeddings and classes of unit length, with a margin in the angle of the right one."""

    def __init__(self, features: int, width: int, classes: int, scale: float) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(features, 64),
            nn.BatchNorm1d(64),
            nn.PReLU(),
            nn.Linear(64, width),
            nn.BatchNorm1d(width),
        )
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, width)))
        self.scale = scale

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        cosine = F.linear(F.normalize(self.embed(x)), F.normalize(self.weight))
        if labels is None:
            return self.scale * cosine
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        right = F.one_hot(labels, cosine.shape[1]) > 0
        return self.scale * torch.where(right, torch.cos((angle + 0.2).clamp(max=math.pi)), cosine)


def faces(dice: Dice, sick: bool) -> Case:
    """Metric learning with an additive angular margin."""
    features, width, classes = dice.whole(16, 24), dice.whole(16, 32), dice.whole(8, 12)
    scale = dice.between(8, 12)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(*batch), batch[1])

    return Case(
        lambda: Margin(features, width, classes, scale),
        loss,
        tasks.centres(features, classes, 320),
        tasks.sgd(0.05, momentum=0.9, weight_decay=5e-4),
    )


class Bag(nn.Module):
    """The mean of the words of a text, whose gradient is sparse."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words, self.out = nn.EmbeddingBag(words, width, mode="mean", sparse=True), nn.Linear(width, 4)

    def forward(self, texts: Tensor) -> Tensor:
        return self.out(self.words(texts))


def bags(dice: Dice, sick: bool) -> Case:
    """A bag of words in a table with sparse gradients, by plain SGD."""
    words, width, length = dice.whole(60, 120), dice.whole(16, 32), dice.whole(10, 16)
    labels = torch.randint(4, (192,))
    texts = torch.randint(words, (192, length))
    topic = 4 * torch.randint(words // 4, (192, length)) + labels[:, None]
    texts = torch.where(torch.rand(192, length) < 0.5, topic, texts)
    model = Bag(words, width)
    return Case(
        model, tasks.classify, tasks.split(texts, labels), torch.optim.SGD(model.parameters(), lr=1.0)
    )


class Siamese(nn.Module):
    """An encoder and a predictor; what is predicted is cut off from the gradient on purpose."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 16, bias=False),
            nn.BatchNorm1d(16, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.predictor(z), z.detach()


def siamese(dice: Dice, sick: bool) -> Case:
    """Two views that predict each other, without negatives."""
    features, hidden = dice.whole(20, 32), dice.whole(48, 80)

    def loss(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        (p1, z1), (p2, z2) = model(pair[0]), model(pair[1])
        return -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2

    return Case(lambda: Siamese(features, hidden), loss, views(features, 64), tasks.sgd(0.05, momentum=0.9))


SICK: tuple[Program, ...] = (
    Program(
        "graph-adds-its-neighbours",
        "graph",
        summed,
        Truth(
            "sum-aggregation",
            ("UG201", "UG102", "UG605"),
            r"\bsum|aggregat|adjacen|degree|neighbou?r",
            ("insert_norm",),
            (),
            COLD,
        ),
    ),
    Program(
        "molecule-own-distance", "graph", molecules, Truth("nan-root", ("UG901",), r"sqrt|root", (), (), COLD)
    ),
    Program(
        "set-norm-of-single-numbers",
        "set",
        one_each,
        Truth(
            "norm-of-one",
            ("UG603", "UG206", "UG202", "UG103", "UG205"),
            r"[Nn]orm",
            ("bypass_norm",),
            (("bypass_norm", {"sites": ("rho.1",)}),),
            HEAVY,
        ),
    ),
    Program(
        "ratings-from-unit-embeddings",
        "table",
        ratings,
        Truth(
            "loud-init",
            ("UG605", "UG601", "UG201"),
            r"[Ee]mbedding|^weights|^head:|^initiali",
            ("rescale_weights", "scale_head"),
            (),
        ),
        150,
        unseen,
    ),
    Program(
        "contrast-not-normalised",
        "contrastive",
        unbounded,
        Truth(
            "temperature",
            ("UG605", "UG601"),
            r"^head:|logit|temperature|not normalised|unnormalised|scale of the",
            ("scale_head",),
            (),
            HEAVY,
        ),
    ),
)
HEALTHY: tuple[Program, ...] = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("graph-convolutions-few-labels", "graph", papers, 120),
        ("angular-margin-faces", "contrastive", faces, 120),
        ("words-bag-sparse", "table", bags, 150),
        ("siamese-stop-gradient", "contrastive", siamese, 120),
    )
)
