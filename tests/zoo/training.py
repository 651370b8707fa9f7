"""What is wrong around the model: parameters that do not learn, the loss's link, the scale of the inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.mlp import trained
from zoo.patient import Patient, regress

F = nn.functional


class Forgotten(nn.Module):
    """Three layers of which the forward uses two."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(sound.FEATURES, sound.FEATURES) for _ in range(3))
        self.head = nn.Linear(sound.FEATURES, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:2]:
            x = x + torch.tanh(layer(x))
        return self.head(x)


def squares(model: nn.Module, batch: Any) -> Tensor:
    """Squared error against the classes, one number each."""
    return F.mse_loss(model(batch[0]), F.one_hot(batch[1], sound.CLASSES).float())


class Detached(nn.Module):
    """A convolutional network whose features are cut off from the head."""

    def __init__(self) -> None:
        super().__init__()
        parts = list(sound.cnn())
        self.features, self.head = nn.Sequential(*parts[:-1]), parts[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).detach())


class ZeroGated(nn.Module):
    """An LSTM whose output enters through a gate that is a constant zero."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(sound.FEATURES, sound.WIDTH, batch_first=True)
        self.head = nn.Linear(sound.WIDTH + sound.FEATURES, sound.CLASSES)
        self.register_buffer("gate", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.gate * self.lstm(x)[0][:, -1], x[:, -1]], -1))


class Adapted(nn.Module):
    """A frozen map with a trainable low-rank part that starts at zero."""

    def __init__(self, inner: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, inner.in_features) * inner.in_features**-0.5)
        self.lora_b = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + x @ self.lora_a.T @ self.lora_b.T


class Experts(nn.Module):
    """A mixture in which each row goes to one expert, and some experts get none."""

    def __init__(self, count: int = 6) -> None:
        super().__init__()
        self.router = nn.Linear(sound.FEATURES, count)
        self.experts = nn.ModuleList(nn.Linear(sound.FEATURES, sound.FEATURES) for _ in range(count))
        self.head = nn.Linear(sound.FEATURES, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for index in chosen.unique().tolist():
            rows = chosen == index
            y[rows] = weight[rows, None] * self.experts[index](x[rows])
        return self.head(x + y)


class Plain(nn.Module):
    """A perceptron whose hidden layers are in a plain list, or in one that registers them."""

    def __init__(self, container: Any) -> None:
        super().__init__()
        self.first = nn.Linear(sound.FEATURES, sound.WIDTH)
        self.hidden = container([nn.Linear(sound.WIDTH, sound.WIDTH) for _ in range(2)])
        self.head = nn.Linear(sound.WIDTH, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return self.head(x)


def tied_in_a_list() -> nn.Module:
    """Return a model that keeps a list of layers which it registers as well."""
    model = Plain(nn.ModuleList)
    model.shortcuts = list(model.hidden)
    return model


class ByHand(nn.Module):
    """Two layers written with plain parameters, whose offsets have other names than bias."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.into = nn.Parameter(spread * torch.randn(sound.FEATURES, sound.WIDTH) * sound.FEATURES**-0.5)
        self.shift = nn.Parameter(torch.zeros(sound.WIDTH))
        self.out = nn.Parameter(spread * torch.randn(sound.WIDTH, sound.CLASSES) * sound.WIDTH**-0.5)
        self.level = nn.Parameter(torch.zeros(sound.CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.into + self.shift) @ self.out + self.level


class Clock(nn.Module):
    """A denoiser that is told the time, 0 to 1000, through sines."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, sound.FEATURES)
        self.body = nn.Sequential(nn.Linear(sound.FEATURES, sound.WIDTH), nn.SiLU())
        self.out = nn.Linear(sound.WIDTH, sound.FEATURES)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] / 10.0 ** torch.arange(4.0)
        return self.out(self.body(x + self.time(torch.cat([angles.sin(), angles.cos()], -1))))


def freeze(*names: str) -> Callable[[Any], None]:
    """Return what freezes the parameters that begin with one of `names`."""

    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name.startswith(names):
                parameter.requires_grad_(False)

    return change


def pretrained(*names: str) -> Case:
    """Return a convolutional network that was trained, then frozen but for a new head."""
    made = sound.case("cnn", optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2))
    made = trained(made, 40)
    freeze(*names)(made.model)
    sound.head(made.model).reset_parameters()
    return made


def random_features(narrow: bool) -> nn.Module:
    """Return a frozen random layer and what is trained on it: fewer numbers than the inputs, or more."""
    width = 4 if narrow else 128
    first = nn.Sequential(nn.Linear(sound.FEATURES, 64), nn.Tanh(), nn.Linear(64, width), nn.Tanh())
    return nn.Sequential(first.requires_grad_(False), nn.Linear(width, sound.CLASSES))


def loud_head(factor: float) -> Callable[[Any], None]:
    """Return what multiplies the head's weights."""

    def change(model: nn.Module) -> None:
        with torch.no_grad():
            sound.head(model).weight.mul_(factor)

    return change


def prior(model: Any) -> None:
    """Start the head as if almost all labels were of the first class, as a detector's background."""
    with torch.no_grad():
        sound.head(model).bias.copy_(torch.tensor([8.0] + [0.0] * (sound.CLASSES - 1)))


def tie(model: Any) -> None:
    """Use the embedding, of standard deviation 1, as the head."""
    model.head = nn.Linear(sound.WIDTH, sound.TOKENS, bias=False)
    model.head.weight = model.embed.weight
    with torch.no_grad():
        model.norm.weight.fill_(3.0)


def append(*parts: nn.Module) -> Callable[[Any], nn.Module]:
    """Return what puts `parts` behind the model."""
    return lambda model: nn.Sequential(model, *parts)


def zero_branches(model: Any) -> None:
    """Start every residual branch at zero."""
    for module in model:
        if isinstance(module, sound.Residual):
            nn.init.zeros_(module.down.weight)
            nn.init.zeros_(module.down.bias)


class Gated(nn.Module):
    """A block whose own gate, registered first, starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))
        self.map = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.map(x).relu()


def zero_gates() -> nn.Module:
    """Return gated blocks right in a Sequential, so that each gate is a parameter of `0.gate`'s kind."""
    blocks = [Gated(sound.FEATURES) for _ in range(6)]
    return nn.Sequential(*blocks, nn.Linear(sound.FEATURES, sound.CLASSES))


def zero_head(model: Any) -> None:
    """Start the head at zero: behind it nothing moves in the first step."""
    nn.init.zeros_(sound.head(model).weight)


def zero_in_a_row(model: Any) -> None:
    """Start both maps of every residual branch at zero, so that neither ever gets a gradient."""
    zero_branches(model)
    for module in model:
        if isinstance(module, sound.Residual):
            nn.init.zeros_(module.up.weight)
            nn.init.zeros_(module.up.bias)


def zero_ends(model: Any) -> None:
    """Start residual branches and the head at zero: each gets a gradient once what is behind it has moved."""
    zero_branches(model)
    for parameter in sound.head(model).parameters():
        nn.init.zeros_(parameter)


def binary(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy with logits, of all classes."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), F.one_hot(batch[1], sound.CLASSES).float())


def probabilities(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of probabilities."""
    return F.binary_cross_entropy(model(batch[0]), F.one_hot(batch[1], sound.CLASSES).float())


def opposite(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of a saturated sigmoid against what it does not say."""
    p = (4e4 * model(batch[0])).sigmoid()
    return F.binary_cross_entropy(p, (p < 0.5).float().detach())


def clamped(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of logits that a clamp has cut off, against a class that they rule out."""
    logits = (1e8 * model(batch[0])).clamp(-20, 20)
    return F.cross_entropy(logits, logits.argmin(-1))


def summed(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy, added up over the batch."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def weighted(model: nn.Module, batch: Any) -> Tensor:
    """Three cross-entropies together, one of them with weights and smoothing."""
    logits, weight = model(batch[0]), torch.tensor([1.0, 5.0, 9.0, 1.0, 2.0])
    first = F.cross_entropy(logits, batch[1], weight=weight, label_smoothing=0.1)
    return 4 * first + F.cross_entropy(2 * logits, batch[1]) + F.cross_entropy(-logits, batch[1])


def twice_log(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of logarithms of probabilities: the same as of logits."""
    return F.cross_entropy(F.log_softmax(model(batch[0]), -1), batch[1])


def functional_softmax(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of probabilities."""
    return F.cross_entropy(model(batch[0]).softmax(-1), batch[1])


def satisfied(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy against what the model says: nothing is left to learn."""
    logits = model(batch[0])
    return F.cross_entropy(logits, logits.detach().argmax(-1))


def scaled(kind: str, scale: float, shift: float = 0.0, change: Callable[[Any], Any] | None = None) -> Case:
    """Return a case with inputs of another scale."""
    inputs, labels = sound.batch(kind)
    return sound.case(kind, change, data=[(inputs * scale + shift, labels)])


def pictures(scale: float, change: Callable[[Any], Any] | None = None) -> Case:
    """Return a case with images in 0..1, times `scale`."""
    inputs, labels = sound.batch("cnn")
    return sound.case("cnn", change, data=[(scale * torch.rand_like(inputs), labels)])


def clocked() -> Case:
    """Return a denoiser that gets the time as a float."""
    x = torch.randn(32, sound.FEATURES)
    return Case(Clock(), lambda m, b: (m(b[0], b[1]) - b[2]).square().mean(), [(x, 1000 * torch.rand(32), x)])


def autoencoder() -> Case:
    """Return a model that ends in a sigmoid, for a squared error."""
    inputs, _ = sound.batch("mlp")
    model = nn.Sequential(nn.Linear(sound.FEATURES, 8), nn.GELU(), nn.Linear(8, sound.FEATURES), nn.Sigmoid())
    return Case(model, regress, [(inputs, inputs.sigmoid())])


def lora(model: Any) -> None:
    """Adapt the maps of a frozen residual network."""
    for module in model:
        if isinstance(module, sound.Residual):
            module.requires_grad_(False)
            module.up, module.down = Adapted(module.up), Adapted(module.down)


def sick() -> list[Patient]:
    """Return cases with one mistake around the model each."""
    return sound.patients({
        "unused-layer": (
            "residual",
            lambda: Case(Forgotten(), sound.classify, [sound.batch("mlp")]),
            ("UG603",),
            (),
        ),
        "detached-features": ("cnn", lambda: sound.case("cnn", lambda m: Detached()), ("UG603",), ()),
        "frozen-in-between": (
            "transformer",
            lambda: sound.case("transformer", freeze("layers.1.")),
            ("UG603",),
            (),
        ),
        "frozen-untrained": (
            "cnn",
            lambda: sound.case("cnn", freeze(*(f"{index}." for index in range(8)))),
            ("UG603",),
            (),
        ),
        "frozen-narrow-features": (
            "mlp",
            lambda: sound.case("mlp", lambda m: random_features(narrow=True)),
            ("UG603",),
            (),
        ),
        "layers-in-a-list": (
            "mlp",
            lambda: sound.case("mlp", lambda m: Plain(list), optimizer=lambda p: torch.optim.Adam(p, 1e-3)),
            ("UG604",),
            (),
        ),
        "zeros-in-a-row": ("residual", lambda: sound.case("residual", zero_in_a_row), ("UG603",), ()),
        "zeros-by-hand": ("mlp", lambda: sound.case("mlp", lambda m: ByHand(0.0)), ("UG603",), ()),
        "gated-off": ("recurrent", lambda: sound.case("recurrent", lambda m: ZeroGated()), ("UG603",), ()),
        "loss-loud-head": ("mlp", lambda: sound.case("mlp", loud_head(30)), ("UG605",), ()),
        "loss-loud-head-cnn": ("cnn", lambda: sound.case("cnn", loud_head(60)), ("UG605",), ()),
        "loss-tied-embedding": ("transformer", lambda: sound.case("transformer", tie), ("UG605",), ()),
        "loss-wrong-prior": ("mlp", lambda: sound.case("mlp", prior), ("UG605",), ()),
        "loss-wrong-prior-cnn": ("cnn", lambda: sound.case("cnn", prior), ("UG605",), ()),
        "loss-loud-head-lstm": ("recurrent", lambda: sound.case("recurrent", loud_head(200)), ("UG605",), ()),
        "loss-loud-squares": (
            "mlp",
            lambda: sound.case("mlp", loud_head(60), loss=squares),
            ("UG605",),
            (),
        ),
        "softmax-twice": ("mlp", lambda: sound.case("mlp", append(nn.Softmax(-1))), ("UG606",), ()),
        "softmax-twice-cnn": ("cnn", lambda: sound.case("cnn", append(nn.Softmax(1))), ("UG606",), ()),
        "softmax-twice-function": (
            "transformer",
            lambda: sound.case("transformer", loss=functional_softmax),
            ("UG606",),
            (),
        ),
        "sigmoid-twice": (
            "recurrent",
            lambda: sound.case("recurrent", append(nn.Sigmoid()), loss=binary),
            ("UG606",),
            (),
        ),
        "inputs-in-bytes": ("cnn", lambda: pictures(255.0), ("UG607",), ("UG605",)),
        "inputs-in-thousands": ("mlp", lambda: scaled("mlp", 700.0, 3000.0), ("UG607",), ("UG605",)),
        "inputs-tiny": ("recurrent", lambda: scaled("recurrent", 1e-5), ("UG607",), ()),
        "loss-link-saturated": (
            "mlp",
            lambda: sound.case("mlp", loud_head(300), loss=opposite),
            ("UG608",),
            ("UG605", "UG603"),
        ),
        "loss-of-pairs": (
            "mlp",
            lambda: sound.case("mlp", one_number, loss=of_pairs),
            ("UG614",),
            (),
        ),
        "loss-link-clamped": (
            "cnn",
            lambda: sound.case("cnn", loss=clamped),
            ("UG608",),
            ("UG605", "UG603"),
        ),
        "loss-softmax-of-one": (
            "transformer",
            lambda: sound.case("transformer", lambda m: sized(m, 1), loss=share),
            ("UG608",),
            ("UG603", "UG605"),
        ),
        "loss-of-a-flat-curvature": ("mlp", lambda: curved(nn.ReLU), ("UG608",), ()),
        "loss-link-clamped-lstm": (
            "recurrent",
            lambda: sound.case("recurrent", loud_head(30), loss=clamped),
            ("UG608",),
            ("UG605", "UG603"),
        ),
    })


def sized(model: Any, outputs: int) -> None:
    """Give a model's head another number of outputs."""
    model.head = nn.Linear(sound.WIDTH, outputs)


def share(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of the last of a softmax's entries."""
    return F.binary_cross_entropy(model(batch[0]).softmax(-1)[:, -1], (batch[1] > 1).float())


def curved(activation: Callable[[], nn.Module]) -> Case:
    """Return a curve whose second derivative is to be that of a sine."""
    model = nn.Sequential(nn.Linear(1, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 1))

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        x = batch.clone().requires_grad_()
        y = model(x)
        for _ in range(2):
            [y] = torch.autograd.grad(y.sum(), x, create_graph=True)
        return (y + x.sin()).square().mean() + (model(torch.ones(1, 1)) - 1).square().mean()

    return Case(model, loss, [3 * torch.rand(64, 1)])


def one_number(model: nn.Module) -> nn.Module:
    """Let the head put out one number per sample."""
    return nn.Sequential(*list(model.children())[:-1], nn.Linear(sound.WIDTH, 1))


def of_pairs(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The squared error of outputs (N, 1) and targets (N,), which is one of all pairs."""
    return (model(batch[0]) - batch[1].float()).square().mean()


def healthy() -> list[Patient]:
    """Return cases that look a little like those and train."""
    return sound.patients({
        "loss-of-one-number": (
            "mlp",
            lambda: sound.case("mlp", one_number, loss=lambda m, b: (m(b[0])[:, 0] - b[1]).square().mean()),
            (),
            (),
        ),
        "loss-softmax-of-two": (
            "transformer",
            lambda: sound.case("transformer", lambda m: sized(m, 2), loss=share),
            (),
            (),
        ),
        "loss-of-a-curvature": ("mlp", lambda: curved(nn.Tanh), (), ()),
        "frozen-backbone": (
            "cnn",
            lambda: pretrained(*(f"{index}." for index in range(8))),
            (),
            (),
        ),
        "frozen-wide-features": (
            "mlp",
            lambda: sound.case("mlp", lambda m: random_features(narrow=False)),
            (),
            (),
        ),
        "frozen-first-layers": (
            "transformer",
            lambda: sound.case("transformer", freeze("embed", "layers.0", "layers.1")),
            (),
            (),
        ),
        "zero-branches": ("residual", lambda: sound.case("residual", zero_branches), (), ()),
        "zero-gates": ("mlp", lambda: sound.case("mlp", lambda m: zero_gates()), (), ()),
        "zero-head": ("mlp", lambda: sound.case("mlp", zero_head), (), ()),
        "zero-branches-and-head": ("residual", lambda: sound.case("residual", zero_ends), (), ()),
        "layers-in-two-lists": ("mlp", lambda: sound.case("mlp", lambda m: tied_in_a_list()), (), ()),
        "weights-by-hand": ("mlp", lambda: sound.case("mlp", lambda m: ByHand(1.0)), (), ()),
        "low-rank-adapters": ("residual", lambda: sound.case("residual", lora), (), ()),
        "experts-not-chosen": (
            "mlp",
            lambda: Case(Experts(), sound.classify, [tuple(t[:4] for t in sound.batch("mlp"))]),
            (),
            (),
        ),
        "loss-summed": ("mlp", lambda: sound.case("mlp", loss=summed), (), ()),
        "loss-of-squares": ("cnn", lambda: sound.case("cnn", loud_head(4), loss=squares), (), ()),
        "loss-of-three-terms": ("cnn", lambda: sound.case("cnn", loss=weighted), (), ()),
        "loss-satisfied": ("mlp", lambda: sound.case("mlp", loud_head(30), loss=satisfied), (), ()),
        "softmax-log-twice": ("transformer", lambda: sound.case("transformer", loss=twice_log), (), ()),
        "sigmoid-and-probabilities": (
            "recurrent",
            lambda: sound.case("recurrent", append(nn.Sigmoid()), loss=probabilities),
            (),
            (),
        ),
        "sigmoid-for-a-square": ("mlp", autoencoder, (), ()),
        "inputs-in-0-1": ("cnn", lambda: pictures(1.0), (), ()),
        "inputs-bytes-normalised": (
            "cnn",
            lambda: pictures(255.0, lambda model: nn.Sequential(nn.BatchNorm2d(3), model)),
            (),
            (),
        ),
        "inputs-time-in-thousands": ("mlp", clocked, (), ()),
        "inputs-quiet-sound": ("recurrent", lambda: scaled("recurrent", 0.03), (), ()),
    })
