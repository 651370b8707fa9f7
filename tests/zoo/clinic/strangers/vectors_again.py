"""Nets on rows, values of actions, experts and fields: sick by one fault each, and healthy ones."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.clinic.strangers import relations_again
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)


class Adapted(nn.Module):
    """A frozen linear map with a low-rank correction beside it."""

    def __init__(self, base: nn.Linear, rank: int, blank: bool) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        self.scaling = 8 / rank
        if blank:
            nn.init.zeros_(self.lora_A.weight)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scaling * self.lora_B(self.lora_A(x))


def adapters(dice: Dice, sick: bool) -> Case:
    """Low-rank adapters on a trained regressor, both factors of which start at zero."""
    width, rank = dice.whole(32, 56), dice.one_of(4, 8)
    trained = nn.Sequential(
        nn.Linear(10, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
    )
    optimizer = torch.optim.Adam(trained.parameters(), 3e-3)
    before = tasks.smooth(10)
    for k in range(60):
        optimizer.zero_grad()
        tasks.regress(trained, before[k % 4]).backward()
        optimizer.step()
    for k in (0, 2, 4):
        trained[k] = Adapted(trained[k], rank, blank=sick)  # type: ignore[arg-type]
    held = [p for p in trained.parameters() if p.requires_grad]
    return Case(trained, tasks.regress, tasks.smooth(10), torch.optim.AdamW(held, lr=1e-2))


class Critic(nn.Module):
    """The value of a state."""

    def __init__(self, observation: int, hidden: int) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(observation, hidden), nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, 1)

    def forward(self, state: Tensor) -> Tensor:
        return self.value(torch.relu(self.l2(torch.relu(self.l1(state))))).squeeze(-1)


def returns(dice: Dice, sick: bool) -> Case:
    """A critic that fits undiscounted returns as they come from the game, in the hundreds."""
    hidden, points = dice.whole(32, 64), dice.between(300, 600)
    episodes = [(s, points * (1 + 0.5 * g.squeeze(-1))) for s, g in tasks.smooth(8)]
    everything = torch.cat([g for _, g in episodes])
    mean, spread = (0.0, 1.0) if sick else (float(everything.mean()), float(everything.std()))
    data = [(s, (g - mean) / spread) for s, g in episodes]
    model = Critic(8, hidden)
    return Case(model, tasks.regress, data, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))


def unexplained(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """The part of the targets' variance that is not explained."""
    return float(F.mse_loss(model(batch[0]), batch[1]) / batch[1].var())


class Experts(nn.Module):
    """A gate that weighs the best two experts of a few."""

    def __init__(self, inputs: int, hidden: int, outputs: int, count: int) -> None:
        super().__init__()
        self.router = nn.Linear(inputs, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chances = self.router(x).softmax(-1)
        best, chosen = chances.topk(2, dim=-1)
        weights = torch.zeros_like(chances).scatter(1, chosen, best / best.sum(-1, keepdim=True))
        out = sum(weights[:, k, None] * expert(x) for k, expert in enumerate(self.experts))
        assert isinstance(out, Tensor)
        load = len(self.experts) * ((weights > 0).float().mean(0) / 2 * chances.mean(0)).sum()
        return out, load


def routed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy, and a little of the balance of the experts."""
    logits, load = model(batch[0])
    return F.cross_entropy(logits, batch[1]) + 0.01 * load


def epsilon(dice: Dice, sick: bool) -> Case:
    """A mixture of experts under Adam with the epsilon of 1 that somebody once advised for Inception."""
    hidden, count = dice.whole(24, 40), dice.whole(4, 6)
    eps = 1.0 if sick else 1e-8
    return Case(
        lambda: Experts(12, hidden, 5, count),
        routed,
        tasks.centres(12),
        lambda p: torch.optim.Adam(p, lr=3e-3, eps=eps),
    )


def baskets(dice: Dice, sick: bool) -> Case:
    """The likelihood of a basket of goods as the product of the chances of them all, and then its log."""
    goods, hidden = dice.whole(220, 300), dice.whole(24, 40)
    customers = torch.randn(128, 6)
    bought = (customers @ torch.randn(6, goods) > 0.5).float()

    class Shop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.goods = nn.Linear(6, hidden), nn.Linear(hidden, goods)

        def forward(self, who: Tensor) -> Tensor:
            return self.goods(F.elu(self.hidden(who)))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if not sick:
            return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])
        chance = torch.sigmoid(model(batch[0]))
        likelihood = torch.where(batch[1] > 0, chance, 1 - chance).prod(1)
        return -torch.log(likelihood).mean() / goods

    return Case(Shop, loss, tasks.split(customers, bought), tasks.adam(1e-2))


OMEGA = 30.0


class SineLayer(nn.Module):
    """A linear map in a sine of a high frequency."""

    def __init__(self, inside: int, outside: int, bound: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, outside)
        with torch.no_grad():
            self.linear.weight.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(OMEGA * self.linear(x))


def picture(dice: Dice, sick: bool) -> Case:
    """A field of sines whose hidden weights are not divided by the frequency."""
    width, depth = dice.whole(40, 56), dice.whole(4, 5)
    bound = math.sqrt(6 / width) / (1 if sick else OMEGA)
    layers: list[nn.Module] = [SineLayer(2, width, 1 / 2)]
    layers += [SineLayer(width, width, bound) for _ in range(depth)]
    model = nn.Sequential(*layers, nn.Linear(width, 1))
    where = 2 * torch.rand(600, 2) - 1
    tone = torch.sin(4 * where[:, :1] + 2 * where[:, 1:] ** 2) * torch.cos(5 * where[:, 1:])
    data = tasks.split(where, tone / tone.std())
    return Case(model, tasks.regress, data, torch.optim.Adam(model.parameters(), lr=3e-4))


def costs(dice: Dice, sick: bool) -> Case:
    """A net of action values that ends in a ReLU, in a task where all there is are costs."""
    width, actions = dice.whole(32, 64), dice.whole(3, 5)
    state, action = torch.randn(256, 6), torch.randint(actions, (256,))
    cost = F.softplus(torch.tanh(state @ torch.randn(6, actions)) + state @ torch.randn(6, actions))
    target = -cost.gather(1, action[:, None]).squeeze(1)
    data = list(zip(state.chunk(4), action.chunk(4), target.chunk(4), strict=True))
    layers = [nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, actions)]
    if sick:
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers)
    return Case(model, temporal, data, torch.optim.RMSprop(model.parameters(), lr=2e-3))


def temporal(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Huber error of the values of the actions that were taken."""
    return F.smooth_l1_loss(model(batch[0]).gather(1, batch[1][:, None]).squeeze(1), batch[2])


def poisson(model: nn.Module, inside: Tensor) -> Tensor:
    """Residual of Poisson's equation on [0, 1], and of zero at both ends."""
    x = inside.requires_grad_()
    u = model(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), x, create_graph=True)[0]
    ends = model(torch.tensor([[0.0], [1.0]]))
    return (bend / math.pi**2 + torch.sin(math.pi * x)).square().mean() + ends.square().mean()


def off_solution(model: nn.Module, inside: Tensor) -> float:
    """Squared distance from the solution."""
    return float((model(inside) - torch.sin(math.pi * inside)).square().mean())


def bent(dice: Dice, sick: bool) -> Case:
    """A physics-informed net of ReLUs, whose second derivative is zero wherever it is asked."""
    width, shape = dice.whole(24, 40), nn.ReLU if sick else nn.Tanh

    def build() -> nn.Module:
        hidden = [nn.Linear(1, width), shape(), nn.Linear(width, width), shape()]
        return nn.Sequential(*hidden, nn.Linear(width, 1))

    return Case(build, poisson, [torch.rand(64, 1) for _ in range(4)], tasks.adam(5e-3))


class Table(nn.Module):
    """Categories as embeddings, numbers through a norm, and two layers behind."""

    def __init__(self, sizes: tuple[int, ...], numbers: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 4) for size in sizes)
        self.bn = nn.BatchNorm1d(numbers)
        self.fc1, self.fc2 = nn.Linear(4 * len(sizes) + numbers, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        x = torch.cat([table(codes[:, k]) for k, table in enumerate(self.tables)] + [self.bn(numbers)], 1)
        return self.out(F.relu(self.fc2(F.relu(self.fc1(x))))).squeeze(1)


def customers(sizes: tuple[int, ...], numbers: int, rows: int = 320) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return four batches of categories, numbers and whether somebody left."""
    codes = torch.stack([torch.randint(size, (rows,)) for size in sizes], 1)
    values = 3 + 2 * torch.randn(rows, numbers)
    score = sum(torch.randn(size)[codes[:, k]] for k, size in enumerate(sizes))
    assert isinstance(score, Tensor)
    score = score + (values - 3) @ torch.randn(numbers) / 2
    left = (score > score.median()).float()
    return list(zip(codes.chunk(4), values.chunk(4), left.chunk(4), strict=True))


def leaving(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy of who left."""
    return F.binary_cross_entropy_with_logits(model(batch[0], batch[1]), batch[2])


def every_batch(dice: Dice, sick: bool) -> Case:
    """A schedule in epochs that is stepped after every batch: the rate is gone before anything is learned."""
    width, sizes = dice.whole(24, 40), (dice.whole(5, 9), dice.whole(3, 6), 12)
    period = dice.whole(3, 5)
    return Case(
        lambda: Table(sizes, 5, width),
        leaving,
        customers(sizes, 5),
        tasks.adam(2e-3),
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, period if sick else 80, 0.1),
    )


class Dueling(nn.Module):
    """Action values as a state's value and advantages, and the frozen copy that sets the targets."""

    def __init__(self, observation: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.online = nn.ModuleDict({
            "torso": nn.Sequential(
                nn.Linear(observation, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
            ),
            "value": nn.Linear(hidden, 1),
            "advantage": nn.Linear(hidden, actions),
        })
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    @staticmethod
    def values(net: nn.ModuleDict, state: Tensor) -> Tensor:
        h = net["torso"](state)
        advantage = net["advantage"](h)
        return net["value"](h) + advantage - advantage.mean(1, keepdim=True)

    def forward(self, state: Tensor) -> Tensor:
        return self.values(self.online, state)


def dueling(dice: Dice, sick: bool) -> Case:
    """Double Q-learning on a replay of rewards around zero, with a dueling net and its frozen target."""
    hidden, actions, gamma = dice.whole(40, 64), dice.whole(3, 5), dice.between(0.9, 0.97)
    state, following = torch.randn(2, 256, 6)
    action, done = torch.randint(actions, (256,)), (torch.rand(256) < 0.1).float()
    reward = torch.tanh(state @ torch.randn(6, actions)).gather(1, action[:, None]).squeeze(1)
    data = list(zip(*(part.chunk(4) for part in (state, action, reward, following, done)), strict=True))
    model = Dueling(6, actions, hidden)

    def loss(net: Any, batch: tuple[Tensor, ...]) -> Tensor:
        now, chosen, won, then, over = batch
        made = net(now).gather(1, chosen[:, None]).squeeze(1)
        with torch.no_grad():
            best = net(then).argmax(1, keepdim=True)
            later = net.values(net.target, then).gather(1, best).squeeze(1)
        return F.smooth_l1_loss(made, won + gamma * (1 - over) * later)

    return Case(
        model,
        loss,
        data,
        torch.optim.Adam(model.online.parameters(), lr=1e-3),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, 10.0),
    )


class ActorCritic(nn.Module):
    """A Gaussian policy with a spread of its own, and a value, with orthogonal weights."""

    def __init__(self, observation: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.actor, self.critic = (
            nn.Sequential(
                self.layer(observation, hidden, 2**0.5),
                nn.Tanh(),
                self.layer(hidden, hidden, 2**0.5),
                nn.Tanh(),
                self.layer(hidden, outputs, gain),
            )
            for outputs, gain in ((actions, 0.01), (1, 1.0))
        )
        self.log_std = nn.Parameter(torch.full((actions,), -0.5))

    @staticmethod
    def layer(inside: int, outside: int, gain: float) -> nn.Linear:
        linear = nn.Linear(inside, outside)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        return linear

    def forward(self, state: Tensor) -> tuple[torch.distributions.Normal, Tensor]:
        return torch.distributions.Normal(self.actor(state), self.log_std.exp()), self.critic(state).squeeze(
            1
        )


def proximal(dice: Dice, sick: bool) -> Case:
    """Proximal policy optimisation on one rollout, with normalised advantages."""
    hidden, actions = dice.whole(32, 64), dice.whole(1, 3)
    model = ActorCritic(6, actions, hidden)
    data = []
    aim, worth = torch.randn(6, actions) / 3, torch.randn(6)
    for _ in range(4):
        state = torch.randn(64, 6)
        with torch.no_grad():
            policy, value = model(state)
            action = policy.sample()
            old = policy.log_prob(action).sum(1)
            result = torch.tanh(state @ worth) - (action - state @ aim).square().mean(1) / 2
            result = (result + 0.5) / 0.8
            gain = result - value
        data.append((state, action, old, (gain - gain.mean()) / (gain.std() + 1e-8), result))

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        state, action, old, gain, result = batch
        policy, value = net(state)
        ratio = (policy.log_prob(action).sum(1) - old).exp()
        surrogate = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        return 0.5 * F.mse_loss(value, result) - surrogate - 0.001 * policy.entropy().mean()

    return Case(
        model,
        loss,
        data,
        torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-5),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5),
    )


class Field(nn.Module):
    """Random Fourier features of a place, and a perceptron behind."""

    frequencies: Tensor

    def __init__(self, count: int, width: int, spread: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", spread * torch.randn(2, count))
        self.net = nn.Sequential(nn.Linear(2 * count, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.rgb = nn.Linear(width, 3)

    def forward(self, place: Tensor) -> Tensor:
        angle = 2 * math.pi * place @ self.frequencies
        return torch.sigmoid(self.rgb(self.net(torch.cat([angle.sin(), angle.cos()], 1))))


def colours(dice: Dice, sick: bool) -> Case:
    """A picture as a function of the place, with a cosine schedule."""
    count, width, spread = dice.whole(24, 40), dice.whole(40, 64), dice.between(1.0, 2.0)
    place = torch.rand(640, 2)
    waves = torch.sin(place @ torch.randn(2, 3) * 7 + torch.rand(3)) * torch.cos(5 * place[:, :1])
    return Case(
        lambda: Field(count, width, spread),
        tasks.regress,
        tasks.split(place, 0.5 + 0.45 * waves),
        tasks.adam(5e-3),
        schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200, eta_min=1e-4),
    )


SICK: tuple[Program, ...] = (
    Program(
        "adapters-blank-on-both-sides",
        "mlp",
        adapters,
        Truth(
            "zero-init",
            ("UG603",),
            r"starts? at zero|^initiali|zero weights|both .*zero",
            ("activation_init",),
            (("activation_init", {"sites": ("*.lora_A",)}),),
            HEAVY,
        ),
    ),
    Program(
        "critic-of-raw-returns",
        "mlp",
        returns,
        Truth(
            "targets",
            ("UG601", "UG605", "UG609"),
            r"target|return",
            ("unit_targets",),
            (),
            (("rescale_weights", {"gain": 1.0}),),
        ),
        score=unexplained,
    ),
    Program(
        "experts-epsilon-of-one",
        "experts",
        epsilon,
        Truth("adam-eps", ("UG602",), r"\beps", (), ()),
        150,
    ),
    Program(
        "basket-product-of-chances",
        "mlp",
        baskets,
        Truth("probability-product", ("UG901", "UG503"), r"\blog\b|prod|underflow", (), (), COLD),
    ),
    Program(
        "sines-not-divided-by-omega",
        "field",
        picture,
        Truth(
            "frequency",
            ("UG102", "UG201", "UG301"),
            r"^weights|frequenc|omega|\bsine?\b",
            ("rescale_weights", "lsuv", "unit_jacobian_init"),
            (("rescale_weights", {"sites": ("[1-9].linear",), "gain": 2**0.5 / OMEGA}),),
        ),
        200,
    ),
    Program(
        "values-rectified-where-all-are-costs",
        "mlp",
        costs,
        Truth(
            "rectified-output",
            ("UG206", "UG203", "UG603", "UG614"),
            r"ReLU|^activation|no unit of|below zero",
            ("swap_activation",),
            (),
            HEAVY,
        ),
    ),
    Program(
        "physics-without-curvature",
        "field",
        bent,
        Truth(
            "no-curvature",
            ("UG603", "UG608"),
            r"ReLU|[Aa]ctivation|second|derivative|curvature",
            ("swap_activation",),
            (("swap_activation", {"of": "ReLU", "to": "Tanh"}),),
            HEAVY,
        ),
        200,
        off_solution,
    ),
    Program(
        "table-schedule-per-batch",
        "table",
        every_batch,
        Truth("schedule", ("UG602",), r"schedul|learning rate:.*(falls|decays)", (), (), COLD),
    ),
    *relations_again.SICK,
)
HEALTHY: tuple[Program, ...] = (
    *(
        Program(name, family, make, steps=steps)
        for name, family, make, steps in (
            ("values-dueling-frozen-target", "mlp", dueling, 150),
            ("proximal-policy-one-rollout", "mlp", proximal, 120),
            ("fourier-features-colours", "field", colours, 200),
        )
    ),
    *relations_again.HEALTHY,
)
