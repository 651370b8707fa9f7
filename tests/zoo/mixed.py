"""Models in which the samples of a batch meet by a slip, and others in which they do so on purpose or not."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, seeded

STEPS = 9
ROWS = 12
FEATURES = 6
CLASSES = 4


class Attentive(nn.Module):
    """Tokens through encoder layers, and a head on their mean."""

    def __init__(self, width: int = 32, depth: int = 2, *, batch_first: bool, turned: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=batch_first, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.turned = turned

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = self.encoder(x.transpose(0, 1)).transpose(0, 1) if self.turned else self.encoder(x)
        return self.head(self.norm(x).mean(1))


class Placed(nn.Module):
    """Tokens with an embedding of their place, through attention, and a word for each."""

    def __init__(self, *, batch_first: bool, steps: int = STEPS, placed: int = 1, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.place = nn.Parameter(0.5 * torch.randn(steps, *[1] * (1 - placed), width))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=batch_first)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x)


class Recurrent(nn.Module):
    """A recurrent layer over what `arrange` makes of the input, read at the last step by `pick`."""

    def __init__(
        self,
        kind: Callable[..., nn.RNNBase],
        arrange: Callable[[Tensor], Tensor],
        pick: Callable[[Tensor], Tensor],
        *,
        batch_first: bool,
        width: int = 24,
        outputs: int = CLASSES,
    ) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, width, batch_first=batch_first)
        self.head = nn.Linear(width, outputs)
        self.arrange, self.pick = arrange, pick

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pick(self.rnn(self.arrange(x))[0]))


class Layered(nn.Module):
    """Two recurrent layers, whose last states (layers, samples, units) are put side by side by a reshape."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, width, 2, batch_first=True)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[1].reshape(len(x), -1))


def as_it_is(x: Tensor) -> Tensor:
    """Change nothing."""
    return x


def last_of_second(x: Tensor) -> Tensor:
    """Pick the last of the second dimension."""
    return x[:, -1]


def last_of_first(x: Tensor) -> Tensor:
    """Pick the last of the first dimension."""
    return x[-1]


class Dependent(nn.Module):
    """A perceptron on `between` of its features."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU())
        self.between = between
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.inner(x)))


class Among(nn.Module):
    """An encoder layer over a batch of rows without steps, which look at each other on purpose."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.inner(x)[:, None])[:, 0])


class Convolution(nn.Module):
    """Convolutions whose features get unit length along one dimension."""

    def __init__(self, dim: int, channels: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, channels, 3, padding=1)
        self.head = nn.Linear(channels, CLASSES)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv(x.transpose(1, 2))).mean(2)
        return self.head(4 * F.normalize(h, dim=self.dim))


class Heads(nn.Module):
    """Attention written by hand over one dimension."""

    def __init__(self, dim: int, width: int = 24) -> None:
        super().__init__()
        self.inner, self.maps = nn.Linear(FEATURES, width), nn.Linear(width, 3 * width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        q, k, v = self.maps(self.norm(h)).transpose(1, self.dim).chunk(3, -1)
        h = h + ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, self.dim)
        return self.head(h.mean(1))


def labelled(rows: int = ROWS, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Return sequences of noise, samples first, and a class for each."""
    return [(torch.randn(rows, steps, FEATURES), torch.randint(CLASSES, (rows,)))]


def vectors(rows: int = ROWS) -> list[tuple[Tensor, Tensor]]:
    """Return vectors of noise, and a class for each."""
    return [(torch.randn(rows, FEATURES), torch.randint(CLASSES, (rows,)))]


def words(rows: int = ROWS, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Return random tokens, samples first, and a class for each."""
    return [(torch.randint(10, (rows, steps)), torch.randint(CLASSES, (rows,)))]


def tagged(rows: int = ROWS, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Return random tokens, samples first, and for each the one that stands two places before."""
    tokens = torch.randint(10, (rows, steps))
    return [(tokens, tokens.roll(2, 1))]


def tagged_time_first(rows: int = ROWS, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Return the same with the steps first."""
    [(tokens, targets)] = tagged(rows, steps)
    return [(tokens.T.contiguous(), targets.T.contiguous())]


def each_word(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of every word."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def stepwise(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error at every step."""
    return F.mse_loss(model(batch[0]), batch[1])


def time_first(rows: int = ROWS, steps: int = STEPS) -> Case:
    """Return an LSTM on data whose steps come first, with a target at every step."""
    data = [(torch.randn(steps, rows, FEATURES), torch.randn(steps, rows, 2))]
    model = Recurrent(nn.LSTM, as_it_is, as_it_is, batch_first=False, outputs=2)
    return Case(model, stepwise, data)


def one_sequence() -> Case:
    """Return a tagger of one sequence, whose first dimension is the time."""
    model = Recurrent(nn.GRU, lambda x: x[:, None], lambda h: h[:, 0], batch_first=False)
    return Case(model, classify, vectors())


def turned_over(steps: int = STEPS, rows: int = ROWS, kind: type[nn.RNNBase] = nn.LSTM) -> Case:
    """Return a recurrent layer that gets the steps first, as it takes them."""
    model = Recurrent(kind, lambda x: x.transpose(0, 1), last_of_first, batch_first=False)
    return Case(model, classify, labelled(rows, steps))


def graph() -> Case:
    """Return a layer that adds up neighbours, all nodes in one batch."""
    links = (torch.rand(ROWS, ROWS) < 0.3).float() + torch.eye(ROWS)
    links /= links.sum(1, keepdim=True)
    return Case(Dependent(lambda h: links @ h), classify, vectors())


def drawn_recurrent(batch_first: bool) -> Callable[[Dice], Case]:
    """Return what builds an LSTM or a GRU, of any size, that takes samples first or does not."""

    def make(dice: Dice) -> Case:
        kind, width = dice.one_of(nn.LSTM, nn.GRU), dice.whole(20, 32)
        model = Recurrent(kind, as_it_is, last_of_second, batch_first=batch_first, width=width)
        return Case(model, classify, labelled(dice.whole(8, 16), dice.whole(6, 12)))

    return make


def drawn_transformer(dice: Dice) -> Case:
    """Return a transformer of any size that attends over the batch."""
    model = Attentive(dice.one_of(32, 48), dice.whole(1, 2), batch_first=False)
    return Case(model, classify, words(dice.whole(8, 16), dice.whole(6, 12)))


def drawn_square(dice: Dice) -> Case:
    """Return a recurrent layer that gets the steps first, as many as there are samples."""
    size = dice.whole(6, 12)
    return turned_over(size, size, dice.one_of(nn.LSTM, nn.GRU))


def sick() -> list[Patient]:
    """Return models in which samples meet by a slip."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
        "encoder-over-batch": (lambda: Case(Attentive(batch_first=False), classify, words()), ()),
        "encoder-turned": (lambda: Case(Attentive(batch_first=True, turned=True), classify, words()), ()),
        "lstm-over-batch": (
            lambda: Case(
                Recurrent(nn.LSTM, as_it_is, last_of_second, batch_first=False), classify, labelled()
            ),
            (),
        ),
        "gru-turned": (
            lambda: Case(
                Recurrent(nn.GRU, lambda x: x.transpose(0, 1), last_of_first, batch_first=True),
                classify,
                labelled(),
            ),
            (),
        ),
        "gru-of-a-view": (
            lambda: Case(
                Recurrent(
                    nn.GRU, lambda x: x.reshape(STEPS, ROWS, FEATURES), last_of_first, batch_first=False
                ),
                classify,
                labelled(),
            ),
            (),
        ),
        "states-of-a-view": (lambda: Case(Layered(), classify, labelled()), ()),
        "softmax-over-batch": (
            lambda: Case(Dependent(lambda h: len(h) * h.softmax(0)), classify, vectors()),
            (),
        ),
        "length-over-batch": (lambda: Case(Convolution(0), classify, labelled()), ()),
        "attention-by-hand": (lambda: Case(Heads(0), classify, labelled()), ()),
        "tagger-over-batch": (lambda: Case(Placed(batch_first=False), each_word, tagged()), ()),
    }
    return [
        Patient(f"mixed-{name}", "mixed", seeded(make), ("UG106",), also)
        for name, (make, also) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return models whose samples stay apart, or meet on purpose."""
    build: dict[str, Callable[[], Case]] = {
        "encoder": lambda: Case(Attentive(batch_first=True), classify, words()),
        "encoder-time-first": lambda: Case(Attentive(batch_first=False, turned=True), classify, words()),
        "lstm": lambda: Case(
            Recurrent(nn.LSTM, as_it_is, last_of_second, batch_first=True), classify, labelled()
        ),
        "tagger": lambda: Case(Placed(batch_first=True), each_word, tagged()),
        "tagger-time-first": lambda: Case(
            Placed(batch_first=False, placed=0), each_word, tagged_time_first()
        ),
        "lstm-of-a-square": lambda: turned_over(ROWS, ROWS),
        "lstm-of-time-first": time_first,
        "lstm-of-a-time-first-square": lambda: time_first(ROWS, ROWS),
        "one-sequence": one_sequence,
        "rows-attend-on-purpose": lambda: Case(Among(), classify, vectors()),
        "length-of-each": lambda: Case(Convolution(1), classify, labelled()),
        "attention-by-hand": lambda: Case(Heads(1), classify, labelled()),
        "graph": graph,
    }
    return [Patient(f"apart-{name}", "mixed", seeded(make), near=("UG106",)) for name, make in build.items()]


DRAWS = (
    Draw("recurrent-over-batch", "mixed", drawn_recurrent(batch_first=False), ("UG106",)),
    Draw("encoder-over-batch", "mixed", drawn_transformer, ("UG106",)),
    Draw("recurrent-over-steps", "mixed", drawn_recurrent(batch_first=True), near=("UG106",)),
    Draw("recurrent-square", "mixed", drawn_square, near=("UG106",)),
)
