"""Perceptrons of many kinds: tables, embeddings, pairs, policies, graphs, sets and fields."""

import copy
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
GAIN = (("rescale_weights", {"gain": 2**0.5}),)


class QNet(nn.Module):
    """State in, one value per action out."""

    def __init__(self, n_obs: int, n_act: int, hidden: int, depth: int, std: float | None) -> None:
        super().__init__()
        sizes = [n_obs] + [hidden] * depth
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.q = nn.Linear(hidden, n_act)
        for fc in self.fcs:
            assert isinstance(fc, nn.Linear)
            nn.init.normal_(fc.weight, 0.0, std or (2 / fc.in_features) ** 0.5)
            nn.init.zeros_(fc.bias)

    def forward(self, obs: Tensor) -> Tensor:
        for fc in self.fcs:
            obs = F.leaky_relu(fc(obs), 0.1)
        return self.q(obs)


def transitions(n_obs: int, n_act: int, rows: int = 64) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return batches of states, actions and what was earned after them."""
    worth = torch.randn(n_obs, n_act) / n_obs**0.5
    batches = []
    for _ in range(4):
        obs, act = torch.randn(rows, n_obs), torch.randint(n_act, (rows,))
        earned = torch.tanh(obs @ worth).gather(1, act[:, None]).squeeze(1)
        batches.append((obs, act, earned + 0.05 * torch.randn(rows)))
    return batches


def q_loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Huber loss of the values of the actions that were taken."""
    obs, act, earned = batch
    return F.smooth_l1_loss(net(obs).gather(1, act[:, None]).squeeze(1), earned)


def loud_values(dice: Dice, sick: bool) -> Case:
    """Q-values of a network whose weights were all drawn with a standard deviation of one."""
    n_obs, n_act, hidden, depth = dice.whole(5, 8), dice.whole(3, 5), dice.whole(40, 64), dice.whole(5, 7)
    build = partial(QNet, n_obs, n_act, hidden, depth, 1.0 if sick else None)
    return Case(build, q_loss, transitions(n_obs, n_act), lambda p: torch.optim.Adam(p, lr=1e-3))


class Factors(nn.Module):
    """Ratings as products of what is known of users and of items."""

    def __init__(self, users: int, items: int, rank: int) -> None:
        super().__init__()
        self.user_factors = nn.Embedding(users, rank)
        self.item_factors = nn.Embedding(items, rank)
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.user_factors(user) * self.item_factors(item)).sum(-1) + self.level


def ratings(users: int, items: int, rank: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return batches of users, items and ratings, in which several tastes weigh the same."""
    taste, kind = (nn.init.orthogonal_(torch.empty(rows, rank)) for rows in (users, items))
    table = taste @ kind.T * (users * items / rank) ** 0.5
    pairs = torch.cartesian_prod(torch.arange(users), torch.arange(items))
    pairs = pairs[torch.randperm(len(pairs))]
    chosen = pairs[: len(pairs) // 4 * 4].chunk(4)
    return [(part[:, 0], part[:, 1], table[part[:, 0], part[:, 1]]) for part in chosen]


def rating_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Squared error of the rating."""
    user, item, rating = batch
    return F.mse_loss(model(user, item), rating)


def constant_factors(dice: Dice, sick: bool) -> Case:
    """A factorisation of ratings whose factors all start at one number."""
    users, items, rank = dice.whole(30, 40), dice.whole(26, 34), dice.whole(8, 10)
    start = dice.between(0.2, 0.4)
    model = Factors(users, items, 2 * rank)
    for table in (model.user_factors, model.item_factors):
        if sick:
            nn.init.constant_(table.weight, start)
        else:
            nn.init.normal_(table.weight, std=start)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    return Case(model, rating_loss, ratings(users, items, rank), optimizer)


class TagClassifier(nn.Module):
    """A mean of the vectors of tags, and a linear layer."""

    def __init__(self, vectors: Tensor, classes: int, *, freeze: bool) -> None:
        super().__init__()
        self.tags = nn.Embedding.from_pretrained(vectors.clone(), freeze=freeze)
        self.norm = nn.LayerNorm(vectors.shape[1])
        self.out = nn.Linear(vectors.shape[1], classes)

    def forward(self, tags: Tensor) -> Tensor:
        return self.out(self.norm(self.tags(tags).mean(1)))


def frozen_vectors(dice: Dice, sick: bool) -> Case:
    """Vectors of words that were drawn at random, read in as if they were pretrained: frozen by default."""
    words, width, classes = dice.whole(160, 240), dice.whole(4, 6), dice.whole(5, 7)
    vectors = torch.randn(words, width)
    topic = torch.randint(classes, (words,))
    data = []
    for _ in range(4):
        label = torch.randint(classes, (96,))
        likely = (topic[None] == label[:, None]).float() + 0.03
        data.append((torch.multinomial(likely, 5, replacement=True), label))
    model = TagClassifier(vectors, classes, freeze=sick)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1])

    return Case(model, loss, data, torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=1e-4))


class Player(nn.Module):
    """Scores of moves, of which some are not allowed."""

    def __init__(self, squares: int, moves: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(squares, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.actor = nn.Linear(width, moves)

    def forward(self, board: Tensor, legal: Tensor) -> Tensor:
        return self.actor(self.body(board)).masked_fill(~legal, -torch.inf)


def masked_entropy(dice: Dice, sick: bool) -> Case:
    """A policy gradient with a bonus for entropy, where moves that are not allowed have probability zero."""
    squares, moves, width = dice.whole(6, 9), dice.whole(5, 7), dice.whole(24, 40)
    value = torch.randn(squares, moves)
    data = []
    for _ in range(4):
        board = torch.randn(96, squares)
        legal = torch.rand(96, moves) < 0.7
        legal[:, 0] = True
        gain = (board @ value).tanh()
        move = torch.multinomial(legal.float(), 1).squeeze(1)
        data.append((board, legal, move, gain.gather(1, move[:, None]).squeeze(1), gain))

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        board, legal, move, advantage, _ = batch
        p = torch.softmax(net(board, legal), -1)
        entropy = -(p * (p if sick else p.clamp_min(1e-9)).log()).sum(-1)
        chosen = p.gather(1, move[:, None]).squeeze(1)
        ratio = chosen * legal.sum(-1)
        return (
            -(torch.min(ratio * advantage, ratio.clamp(0.0, 4.0) * advantage)).mean() - 0.01 * entropy.mean()
        )

    return Case(lambda: Player(squares, moves, width), loss, data, lambda p: torch.optim.Adam(p, lr=5e-3))


def regret(net: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """What the policy earns less than the best move that is allowed."""
    board, legal, _, _, gain = batch
    best = gain.masked_fill(~legal, -9.0).amax(-1)
    return float((best - (torch.softmax(net(board, legal), -1) * gain).sum(-1)).mean())


def customers(rows: int, numbers: int) -> tuple[Tensor, Tensor]:
    """Return a table of skewed columns and whether each row's customer stays."""
    base = torch.randn(rows, numbers)
    label = (base @ torch.randn(numbers) + base[:, 0] * base[:, 1] > 0).float()
    return torch.cat([base[:, :2], base[:, 2:].exp()], 1), label


def empty_cells(dice: Dice, sick: bool) -> Case:
    """A table with empty cells, standardised by what is there and never filled in."""
    numbers, width = dice.whole(7, 10), dice.whole(24, 40)
    share = dice.between(0.02, 0.05)
    table, label = customers(256, numbers)
    gone = torch.rand_like(table) < share
    gone[0, 0] = gone[70, 1] = gone[130, 2] = gone[200, 0] = True
    cells = table.masked_fill(gone, torch.nan)
    centred = cells - cells.nanmean(0)
    cells = centred / centred.square().nanmean(0).sqrt()
    if not sick:
        cells = cells.nan_to_num(0.0)
    model = nn.Sequential(
        nn.Linear(numbers, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    )
    model.append(nn.Linear(width, 1))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(batch[0]).squeeze(-1), batch[1])

    data = list(zip(cells.chunk(4), label.chunk(4), strict=True))
    return Case(model, loss, data, torch.optim.RMSprop(model.parameters(), lr=2e-3))


class SageLayer(nn.Module):
    """What a node knows, and what its neighbours know."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(inside, outside), nn.Linear(inside, outside, bias=False)
        for lin in (self.own, self.others):
            nn.init.kaiming_normal_(lin.weight)
            lin.weight.data.mul_(0.7)

    def forward(self, h: Tensor, adj: Tensor) -> Tensor:
        return self.own(h) + self.others(adj @ h)


class Sage(nn.Module):
    """Messages over a graph, some rounds of them."""

    def __init__(self, features: int, width: int, rounds: int, classes: int, *, mean: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(SageLayer(width if k else features, width) for k in range(rounds))
        self.readout = nn.Linear(width, classes)
        self.mean = mean

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        if self.mean:
            adj = adj / adj.sum(1, keepdim=True).clamp_min(1.0)
        for conv in self.convs:
            x = F.relu(conv(x, adj))
        return self.readout(x)


def communities(nodes: int, features: int, classes: int, near: float, far: float) -> list[tuple[Tensor, ...]]:
    """Return graphs whose nodes have classes, with edges that are likelier within one."""
    middle = torch.randn(classes, features)
    graphs = []
    for _ in range(4):
        label = torch.arange(nodes) % classes
        chance = torch.where(label[:, None] == label[None], near, far)
        upper = (torch.rand(nodes, nodes) < chance).float().triu(1)
        graphs.append((middle[label] + torch.randn(nodes, features), upper + upper.T, label))
    return graphs


def node_loss(net: nn.Module, graph: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy over the nodes of a graph."""
    return F.cross_entropy(net(graph[0], graph[1]), graph[2])


def node_errors(net: nn.Module, graph: tuple[Tensor, Tensor, Tensor]) -> float:
    """Share of nodes that are told wrongly."""
    return float((net(graph[0], graph[1]).argmax(-1) != graph[2]).float().mean())


def summed_neighbours(dice: Dice, sick: bool) -> Case:
    """Messages that are added up over all neighbours of a dense graph, round after round."""
    classes, features, width, rounds = 4, dice.whole(6, 10), dice.whole(24, 40), dice.whole(4, 5)
    graphs = communities(dice.whole(56, 72), features, classes, 0.5, 0.25)
    return Case(
        lambda: Sage(features, width, rounds, classes, mean=not sick),
        node_loss,
        graphs,
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    )


class Averaging(nn.Module):
    """A mean over neighbours, mixed with a share of the first features, and a rotation."""

    def __init__(self, width: int, recall: float) -> None:
        super().__init__()
        self.lin, self.recall = nn.Linear(width, width, bias=False), recall
        nn.init.orthogonal_(self.lin.weight)

    def forward(self, h: Tensor, first: Tensor, walk: Tensor) -> Tensor:
        return torch.tanh(self.lin((1 - self.recall) * (walk @ h) + self.recall * first))


class Smoother(nn.Module):
    """Layers that average over neighbours, as many as fit."""

    def __init__(self, features: int, width: int, depth: int, classes: int, recall: float) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(features, width), nn.Linear(width, classes)
        self.convs = nn.ModuleList(Averaging(width, recall) for _ in range(depth))

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        looped = adj + torch.eye(len(adj))
        root = looped.sum(1).rsqrt()
        walk = root[:, None] * looped * root[None]
        first = h = torch.tanh(self.encode(x))
        for conv in self.convs:
            h = conv(h, first, walk)
        return self.decode(h)


def oversmoothed(dice: Dice, sick: bool) -> Case:
    """A deep graph network that averages over neighbours until all nodes are one.

    A share of the first features in each layer keeps them apart; a small one, as it takes from the gradient.
    """
    classes, features, width, depth = 4, dice.whole(8, 12), dice.whole(24, 32), dice.whole(12, 16)
    graphs = communities(dice.whole(48, 64), features, classes, 0.25, 0.15)
    build = partial(Smoother, features, width, depth, classes, 0.0 if sick else 0.15)
    return Case(build, node_loss, graphs, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8))


class Sine(nn.Module):
    """A sine of so many times what enters."""

    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)


def siren(width: int, depth: int, omega: float, *, scaled: bool, last: int = 1) -> nn.Sequential:
    """Return sines of a field's coordinates, with the weights that they need or with the usual ones."""
    net = nn.Sequential(nn.Linear(2, width), Sine(omega))
    nn.init.uniform_(net[0].weight, -0.5, 0.5)  # type: ignore[arg-type]
    for _ in range(depth):
        lin = nn.Linear(width, width)
        bound = (6 / width) ** 0.5 / omega if scaled else (6 / width) ** 0.5
        nn.init.uniform_(lin.weight, -bound, bound)
        net.extend([lin, Sine(omega)])
    head = nn.Linear(width, last)
    nn.init.uniform_(head.weight, -((6 / width) ** 0.5) / omega, (6 / width) ** 0.5 / omega)
    return net.append(head)


def picture(size: int) -> list[tuple[Tensor, Tensor]]:
    """Return pixels of a picture of waves and a disk, with their places."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    a, b = (torch.rand(2) * 2 + 2).tolist()
    image = torch.sin(a * x + b * y) + (x.square() + y.square() < 0.4).float() - 0.3
    places, values = torch.stack([x, y], -1).view(-1, 2), image.view(-1, 1)
    order = torch.randperm(size * size)
    return list(zip(places[order].chunk(4), values[order].chunk(4), strict=True))


def field_loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Squared error of the field."""
    return F.mse_loss(net(batch[0]), batch[1])


def wild_sines(dice: Dice, sick: bool) -> Case:
    """A field in sines of a high frequency whose hidden weights were not divided by it."""
    width, depth, omega = dice.whole(40, 64), dice.whole(3, 4), dice.between(24.0, 30.0)
    build = partial(siren, width, depth, omega, scaled=not sick)
    return Case(build, field_loss, picture(20), lambda p: torch.optim.Adam(p, lr=1e-3))


class Narrow(nn.Module):
    """A residual perceptron of a table, whose arithmetic is that of its weights."""

    def __init__(self, numbers: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(numbers, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.to(self.stem.weight.dtype))
        for block in self.blocks:
            h = h + block(h)
        return self.head(h).float()


def narrow_weights(dice: Dice, sick: bool) -> Case:
    """A model that was cast to bfloat16 as a whole, its weights too, and trains at a small rate."""
    numbers, width, depth = dice.whole(8, 12), dice.whole(24, 32), dice.whole(2, 3)
    x = torch.randn(256, numbers)
    y = x @ torch.randn(numbers, 1) / numbers**0.5 + 0.5 * x[:, :1] * x[:, 1:2]
    model = Narrow(numbers, width, depth)
    if sick:
        model = model.bfloat16()
    data = list(zip(x.chunk(4), y.chunk(4), strict=True))
    return Case(model, field_loss, data, torch.optim.Adam(model.parameters(), lr=1e-4))


class PointNet(nn.Module):
    """A set of points: one perceptron for each, the largest of all, and a head with a norm."""

    def __init__(self, width: int, classes: int, groups: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width))
        self.fc = nn.Linear(width, width)
        self.gn = nn.GroupNorm(groups, width)
        self.cls = nn.Linear(width, classes)

    def forward(self, points: Tensor) -> Tensor:
        pooled = self.each(points).amax(1)
        return self.cls(F.relu(self.gn(self.fc(pooled))))


def clouds(points: int, classes: int, rows: int = 48) -> list[tuple[Tensor, Tensor]]:
    """Return clouds of points whose shape is the class: stretched along other axes."""
    stretch = 0.3 + 1.2 * torch.rand(classes, 3)
    data = []
    for _ in range(4):
        label = torch.randint(classes, (rows,))
        ball = F.normalize(torch.randn(rows, points, 3), dim=-1)
        data.append((ball * stretch[label][:, None] + 0.02 * torch.randn(rows, points, 3), label))
    return data


def cloud_loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy with a little smoothing."""
    return F.cross_entropy(net(batch[0]), batch[1], label_smoothing=0.05)


class Twin(nn.Module):
    """An encoder of views, its projections of length one, and how sharply they are compared."""

    def __init__(self, features: int, width: int, tau: float) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.projector = nn.Linear(width, 12)
        self.tau = tau

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.projector(self.backbone(x)), dim=-1)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return self.embed(one) @ self.embed(two).T / self.tau


def views(features: int, noise: float, rows: int = 48) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of noisy views of the same things, of which only a part is seen in both."""
    data = []
    mix = torch.randn(6, features) / 6**0.5
    for _ in range(4):
        thing = torch.randn(rows, 6) @ mix
        data.append((
            thing + noise * torch.randn(rows, features),
            thing + noise * torch.randn(rows, features),
        ))
    return data


def info_nce(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of which view belongs to which, both ways."""
    logits = net(*batch)
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def mild_nce(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """The same at the usual temperature, whatever the net's own is."""
    logits = net.embed(batch[0]) @ net.embed(batch[1]).T / 0.2  # type: ignore[operator]
    return float(F.cross_entropy(logits, torch.arange(len(logits))))


def freezing(dice: Dice, sick: bool) -> Case:
    """Pairs of views compared at a temperature that lets one wrong neighbour outweigh all others."""
    features, width, tau = dice.whole(14, 20), dice.whole(32, 48), dice.between(0.001, 0.002) if sick else 0.2
    return Case(
        lambda: Twin(features, width, tau),
        info_nce,
        views(features, 0.6),
        lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9),
    )


class GaussianActor(nn.Module):
    """Mean and spread of an action of several numbers."""

    def __init__(self, n_obs: int, n_act: int, hidden: int, log_std: float) -> None:
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(n_obs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.mu.append(nn.Linear(hidden, n_act))
        self.log_std = nn.Parameter(torch.full((n_act,), log_std))

    def forward(self, obs: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mu(obs), self.log_std.exp())


def demonstrations(n_obs: int, n_act: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return states, actions near the right ones, and weights of how good they were."""
    expert = torch.randn(n_obs, n_act) / n_obs**0.5
    data = []
    for _ in range(4):
        obs = torch.randn(64, n_obs)
        off = 0.2 * torch.randn(64, n_act)
        data.append((obs, torch.tanh(obs @ expert) + off, torch.exp(-4 * off.square().mean(-1))))
    return data


def weighted_actions(actor: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Minus the log-probability of what was done, weighed by how good it was."""
    obs, act, weight = batch
    return -(weight * actor(obs).log_prob(act).sum(-1)).mean()


def missed(actor: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Squared distance of the mean from the demonstrated action."""
    return float((actor(batch[0]).mean - batch[1]).square().mean())


def sharp_policy(dice: Dice, sick: bool) -> Case:
    """A Gaussian policy that starts out as sure as if it had learnt everything."""
    n_obs, n_act, hidden = dice.whole(6, 10), dice.whole(2, 3), dice.whole(32, 48)
    log_std = dice.between(-5.0, -4.0) if sick else -0.5
    model = GaussianActor(n_obs, n_act, hidden, log_std)
    data = demonstrations(n_obs, n_act)
    return Case(model, weighted_actions, data, torch.optim.SGD(model.parameters(), lr=0.05))


class SkipGram(nn.Module):
    """Vectors of words and of their surroundings, in tables with sparse gradients."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.centre = nn.Embedding(words, width, sparse=True)
        self.context = nn.Embedding(words, width, sparse=True)
        nn.init.uniform_(self.centre.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)

    def forward(self, word: Tensor, others: Tensor) -> Tensor:
        return (self.context(others) @ self.centre(word)[..., None]).squeeze(-1)


def skip_gram(dice: Dice, sick: bool) -> Case:
    """Word vectors with negative samples; the vectors of surroundings start at zero, as is usual."""
    words, width = dice.whole(60, 90), dice.whole(12, 20)
    topic = torch.randint(6, (words,))
    data = []
    for _ in range(4):
        word = torch.randint(words, (256,))
        near = torch.multinomial((topic[word][:, None] == topic[None]).float() + 0.01, 1)
        data.append((word, torch.cat([near, torch.randint(words, (256, 4))], 1)))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = net(*batch)
        return F.softplus(-logits[:, 0]).mean() + F.softplus(logits[:, 1:]).sum(1).mean()

    build = partial(SkipGram, words, width)
    return Case(build, loss, data, lambda p: torch.optim.SparseAdam(list(p), lr=0.02))


class Dueling(nn.Module):
    """Value and advantages of actions, beside a copy of it all that stays behind."""

    def __init__(self, n_obs: int, n_act: int, hidden: int) -> None:
        super().__init__()
        self.online = nn.ModuleDict({
            "trunk": nn.Sequential(nn.Linear(n_obs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            "value": nn.Linear(hidden, 1),
            "advantage": nn.Linear(hidden, n_act),
        })
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    @staticmethod
    def values(parts: nn.ModuleDict, obs: Tensor) -> Tensor:
        h = parts["trunk"](obs)
        a = parts["advantage"](h)
        return parts["value"](h) + a - a.mean(-1, keepdim=True)

    def forward(self, obs: Tensor) -> Tensor:
        return self.values(self.online, obs)

    def later(self, obs: Tensor) -> Tensor:
        with torch.no_grad():
            best = self.values(self.online, obs).argmax(-1, keepdim=True)
            return self.values(self.target, obs).gather(1, best).squeeze(1)


def dueling(dice: Dice, sick: bool) -> Case:
    """Double Q-learning between two updates of the target, which is frozen and not in the optimizer."""
    n_obs, n_act, hidden = dice.whole(5, 8), dice.whole(3, 5), dice.whole(48, 64)
    data = [
        (obs, act, earned, torch.randn_like(obs), (torch.rand(64) > 0.1).float())
        for obs, act, earned in transitions(n_obs, n_act)
    ]
    model = Dueling(n_obs, n_act, hidden)

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        obs, act, earned, after, goes_on = batch
        aim = earned + 0.9 * goes_on * net.later(after)  # type: ignore[operator]
        return F.huber_loss(net(obs).gather(1, act[:, None]).squeeze(1), aim)

    held = [p for p in model.parameters() if p.requires_grad]
    return Case(
        model,
        loss,
        data,
        torch.optim.Adam(held, lr=2e-3),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 10.0),
    )


def cautious(dice: Dice, sick: bool) -> Case:
    """A policy whose last layer starts a hundred times smaller, so that all moves are alike at first."""
    squares, moves, width = dice.whole(6, 9), dice.whole(4, 6), dice.whole(32, 48)
    value = torch.randn(squares, moves)
    data = []
    for _ in range(4):
        board = torch.randn(96, squares)
        gain, move = (board @ value).tanh(), torch.randint(moves, (96,))
        legal = torch.ones(96, moves, dtype=torch.bool)
        earned = gain.gather(1, move[:, None]).squeeze(1)
        data.append((board, legal, move, (earned - earned.mean()) / earned.std(), gain))

    def build() -> nn.Module:
        player = Player(squares, moves, width)
        for lin in player.modules():
            if isinstance(lin, nn.Linear):
                nn.init.orthogonal_(lin.weight, 0.01 if lin is player.actor else 1.4)
                nn.init.zeros_(lin.bias)
        return player

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        board, legal, move, advantage, _ = batch
        logp = F.log_softmax(net(board, legal), -1)
        ratio = (logp.gather(1, move[:, None]).squeeze(1) + math.log(moves)).exp()
        kept = torch.min(ratio * advantage, ratio.clamp(0.5, 2.0) * advantage).mean()
        return -kept - 0.01 * -(logp.exp() * logp).sum(-1).mean()

    return Case(build, loss, data, lambda p: torch.optim.Adam(p, lr=3e-3))


class Gin(nn.Module):
    """Sums over neighbours, each behind a norm over the batch of all nodes."""

    def __init__(self, features: int, width: int, rounds: int, classes: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(rounds))
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width if k else features, width),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            )
            for k in range(rounds)
        )
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        for eps, mlp in zip(self.eps, self.mlps, strict=True):
            x = mlp((1 + eps) * x + adj @ x)
        return self.out(x)


def isomorphism(dice: Dice, sick: bool) -> Case:
    """A graph network that adds up its few neighbours and norms what comes of it."""
    classes, features, width, rounds = 4, dice.whole(8, 12), dice.whole(24, 32), dice.whole(2, 3)
    graphs = communities(dice.whole(48, 64), features, classes, 0.12, 0.02)
    return Case(
        lambda: Gin(features, width, rounds, classes),
        node_loss,
        graphs,
        lambda p: torch.optim.Adam(p, lr=5e-3, weight_decay=5e-4),
    )


class Fourier(nn.Module):
    """A field of coordinates that are first turned into waves of random directions, which do not train."""

    def __init__(self, waves: int, width: int, spread: float) -> None:
        super().__init__()
        self.b = nn.Parameter(spread * torch.randn(2, waves), requires_grad=False)
        self.net = nn.Sequential(nn.Linear(2 * waves, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.net.append(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        turned = 2 * math.pi * x @ self.b
        return self.net(torch.cat([turned.sin(), turned.cos()], -1) * 2**0.5)


def fourier(dice: Dice, sick: bool) -> Case:
    """A picture learnt from random waves."""
    waves, width, spread = dice.whole(24, 40), dice.whole(40, 64), dice.between(0.8, 1.2)
    return Case(
        lambda: Fourier(waves, width, spread),
        field_loss,
        picture(20),
        lambda p: torch.optim.Adam([q for q in p if q.requires_grad], lr=2e-3),
    )


class Mixed(nn.Module):
    """A table of kinds and of numbers: a small vector for each kind, a norm for the numbers."""

    def __init__(self, kinds: tuple[int, ...], numbers: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, 4) for count in kinds)
        self.numeric = nn.BatchNorm1d(numbers)
        self.layers = nn.Sequential(
            nn.Linear(4 * len(kinds) + numbers, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 1)
        )

    def forward(self, kinds: Tensor, numbers: Tensor) -> Tensor:
        vectors = [table(kinds[:, k]) for k, table in enumerate(self.tables)]
        return self.layers(torch.cat([*vectors, self.numeric(numbers)], 1)).squeeze(1)


def table_of_kinds(dice: Dice, sick: bool) -> Case:
    """A table in which few rows are positive, with their weight raised and a decay on matrices alone."""
    kinds, numbers, width = (dice.whole(6, 10), dice.whole(12, 20), 3), dice.whole(4, 7), dice.whole(32, 48)
    effect = [torch.randn(count) for count in kinds]
    data = []
    for _ in range(4):
        kind = torch.stack([torch.randint(count, (96,)) for count in kinds], 1)
        number = torch.randn(96, numbers)
        score = number[:, 0] * number[:, 1] + number[:, 2]
        score = score + sum(e[kind[:, k]] for k, e in enumerate(effect))
        data.append((kind, 3 + 2 * number, (score > 1.5).float()))
    model = Mixed(kinds, numbers, width)
    matrices = [p for p in model.layers.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        logits = net(batch[0], batch[1])
        return F.binary_cross_entropy_with_logits(logits, batch[2], pos_weight=torch.tensor(3.0))

    return Case(model, loss, data, torch.optim.AdamW(groups, lr=5e-3))


class Adapted(nn.Module):
    """A trained linear map that stays, and a product of two thin ones beside it, which begins at zero."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * F.linear(F.linear(x, self.a), self.b)


def adapted(dice: Dice, sick: bool) -> Case:
    """A perceptron trained on one task, adapted to its neighbour by low ranks and a new head."""
    features, width, rank = dice.whole(8, 12), dice.whole(32, 48), dice.whole(3, 5)
    way = torch.randn(features, 16) / features**0.5
    x = torch.randn(256, features)
    hidden, old = torch.tanh(x @ way), torch.randn(16, 3)
    fcs = [nn.Linear(features, width), nn.Linear(width, width)]
    model = nn.Sequential(fcs[0], nn.GELU(), fcs[1], nn.GELU(), nn.Linear(width, 3))
    before = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        before.zero_grad()
        F.mse_loss(model(x), hidden @ old / 4).backward()
        before.step()
    model[0], model[2], model[4] = Adapted(fcs[0], rank), Adapted(fcs[1], rank), nn.Linear(width, 2)
    y = (hidden + 0.5 * hidden.roll(1, 1)) @ torch.randn(16, 2) / 4
    held = [p for p in model.parameters() if p.requires_grad]
    return Case(
        model, field_loss, list(zip(x.chunk(4), y.chunk(4), strict=True)), torch.optim.AdamW(held, lr=5e-3)
    )


def normed_pairs(dice: Dice, sick: bool) -> Case:
    """Pairs of views behind a projector with norms over the batch, compared at a tenth."""
    features, width = dice.whole(14, 20), dice.whole(32, 48)

    def build() -> nn.Module:
        twin = Twin(features, width, 0.1)
        layers = [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 16)]
        twin.projector = nn.Sequential(*layers)  # type: ignore[assignment]
        return twin

    return Case(
        build,
        info_nce,
        views(features, 0.4),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
    )


SICK = (
    Program(
        "q-values-drawn-at-one",
        "q-values",
        loud_values,
        Truth(
            "loud-init",
            ("UG201", "UG102"),
            r"^weights:|initialis",
            ("rescale_weights", "critical_init", "activation_init", "lsuv", "unit_jacobian_init"),
            (("rescale_weights", {"gain": 1.4}),),
            FASTER,
        ),
        150,
    ),
    Program(
        "factors-of-one-number",
        "embeddings",
        constant_factors,
        Truth(
            "equal-init",
            ("UG207", "UG205"),
            r"equal|same number|start the same|identical|symmetr|constant|cop(y|ies)",
            ("activation_init", "orthogonal_init", "critical_init"),
            (),
            FASTER,
        ),
        150,
    ),
    Program(
        "vectors-frozen-by-default",
        "embeddings",
        frozen_vectors,
        Truth(
            "frozen",
            ("UG603", "UG604"),
            r"frozen|freez|requires_grad",
            ("unfreeze",),
            (("unfreeze", {}),),
            FASTER,
        ),
        150,
    ),
    Program(
        "entropy-of-illegal-moves",
        "policy",
        masked_entropy,
        Truth("nan-log", ("UG901",), r"\blog\b|\bln\b|logarithm|entropy"),
        150,
        regret,
    ),
    Program(
        "table-with-empty-cells",
        "tabular",
        empty_cells,
        Truth("nan-input", ("UG901",), r"data|sample|inputs?\b|batch|cell|missing"),
    ),
    Program(
        "neighbours-added-up",
        "graph",
        summed_neighbours,
        Truth(
            "sum-aggregation",
            ("UG201", "UG102", "UG605"),
            r"aggregat|neighbou?r|adjacen|degree|message|scatter|sums? (of|over)|adds up",
            ("insert_norm",),
            (),
            FASTER,
        ),
    ),
    Program(
        "averaged-until-alike",
        "graph",
        oversmoothed,
        Truth(
            "oversmoothing",
            ("UG205", "UG202", "UG101"),
            r"smooth|averag|aggregat|neighbou?r|^depth:|no skip path|alike",
            ("add_residual", "gated_skip", "concat_skip"),
            (("add_residual", {}),),
            FASTER,
        ),
        150,
    ),
    Program(
        "sines-too-fast",
        "implicit",
        wild_sines,
        Truth(
            "frequency",
            ("UG102",),
            r"^weights:|omega|frequenc|\bsines?\b|initialis",
            ("rescale_weights", "critical_init", "activation_init", "unit_jacobian_init"),
            (("rescale_weights", {"sites": ("[2468]",), "gain": 0.05}),),
        ),
        150,
    ),
    Program(
        "weights-cast-to-bfloat16",
        "tabular",
        narrow_weights,
        Truth("narrow-weights", ("UG602",), r"round|bfloat16|narrow|too few digits", (), (), GAIN),
        200,
    ),
    Program(
        "pairs-compared-too-cold",
        "contrastive",
        freezing,
        Truth(
            "temperature",
            ("UG605", "UG601", "UG611"),
            r"temperature|similarit|logits? (are|is) (divided|scaled|multiplied)|logit scale",
            (),
            (),
            FASTER,
        ),
        150,
        mild_nce,
    ),
    Program(
        "policy-too-sure",
        "policy",
        sharp_policy,
        Truth(
            "sharp-likelihood",
            ("UG601", "UG611"),
            r"variance|\bstd\b|log_std|sigma|likelihood|density",
            (),
            (),
            FASTER,
        ),
        150,
        missed,
    ),
)
HEALTHY = (
    Program("skip-gram-sparse", "embeddings", skip_gram, steps=150),
    Program("dueling-with-a-frozen-target", "q-values", dueling, steps=150),
    Program("policy-starts-undecided", "policy", cautious, steps=150, score=regret),
    Program("graph-isomorphism", "graph", isomorphism),
    Program("field-of-random-waves", "implicit", fourier, steps=150),
    Program("table-of-kinds", "tabular", table_of_kinds, steps=150),
    Program("adapted-by-low-ranks", "mlp", adapted, steps=150),
    Program("pairs-behind-norms", "contrastive", normed_pairs),
)
