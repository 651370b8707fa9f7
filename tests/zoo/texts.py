"""Padded texts: models that read their padding in the place of their words, and ones that read words."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, seeded

CLASSES, VOCAB = 3, 24
Keep = Callable[[Tensor], Tensor]
# Of padding alone all samples look alike, and the rows of words get no gradient.
ALSO = ("UG205", "UG206", "UG603", "UG202", "UG103")


def texts(rows: int = 48, length: int = 14, *, tail: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Texts of different length, padded with `tail`, with words of their class (1 begins each)."""
    labels = torch.arange(rows) % CLASSES
    words = torch.randint(2 + CLASSES, VOCAB, (rows, length))
    words = torch.where(torch.rand(rows, length) < 0.4, 2 + labels[:, None], words)
    sizes = torch.randint(length // 2, length - 2, (rows,))
    words[torch.arange(length)[None] >= sizes[:, None]] = tail
    words[:, 0] = 1
    return [(words, labels)]


class Encoder(nn.Module):
    """A stack of nn.TransformerEncoder that is read at its first token or by a mean over the words."""

    def __init__(self, keep: Keep | None, width: int = 32, depth: int = 2, *, pooled: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(14, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)
        self.keep, self.pooled = keep, pooled

    def forward(self, text: Tensor) -> Tensor:
        left_out = None if self.keep is None else ~self.keep(text)
        x = self.encoder(self.embedding(text) + self.position, src_key_padding_mask=left_out)
        return self.head(mean(x, text != 0) if self.pooled else x[:, 0])


class Averaged(nn.Module):
    """A mean of embeddings, without attention."""

    def __init__(self, keep: Keep, width: int = 16, index: int | None = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width, padding_idx=index)
        self.place = nn.Parameter(0.1 * torch.randn(14, width))
        self.net = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, CLASSES))
        self.keep = keep

    def forward(self, text: Tensor) -> Tensor:
        return self.net(mean(self.embedding(text) + self.place, self.keep(text)))


class Scored(nn.Module):
    """An attention by hand: a score to each token."""

    def __init__(self, keep: Keep, width: int = 24, fill: float = -1e9) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.hidden, self.score = nn.Linear(width, width), nn.Linear(width, 1)
        self.head = nn.Linear(width, CLASSES)
        self.keep, self.fill = keep, fill

    def forward(self, text: Tensor) -> Tensor:
        h = torch.tanh(self.hidden(self.embedding(text)))
        scores = self.score(h).squeeze(-1).masked_fill(~self.keep(text), self.fill)
        return self.head((scores.softmax(-1)[..., None] * h).sum(1))


class Causal(nn.Module):
    """A decoder with a causal mask and none for padding, read at every token or at the last one."""

    def __init__(self, width: int = 32, *, last: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width, padding_idx=0)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Linear(width, CLASSES if last else VOCAB)
        self.last = last

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text)
        mask = torch.ones(text.shape[1], text.shape[1], dtype=torch.bool).triu(1)
        x = x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]
        return self.head(x[:, -1] if self.last else x)


class Packed(nn.Module):
    """A GRU over packed texts."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width, padding_idx=0)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, text: Tensor) -> Tensor:
        sizes = (text != 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(text), sizes, batch_first=True, enforce_sorted=False
        )
        return self.head(self.gru(packed)[1][-1])


class LastStep(nn.Module):
    """An LSTM that runs over the padding and is read at its end."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(text))[0][:, -1])


def mean(x: Tensor, keep: Tensor) -> Tensor:
    """Mean over the tokens that are kept."""
    kept = keep[..., None].float()
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def words(text: Tensor) -> Tensor:
    """Where words are."""
    return text != 0


def pads(text: Tensor) -> Tensor:
    """Where padding is: the mask the wrong way round."""
    return text == 0


def next_word(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the next words, without padding."""
    return F.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten(), ignore_index=0)


def hidden_words(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of words that are hidden."""
    hidden = (torch.arange(14) % 5 == 2) & (batch[0] != 0)
    logits = model(batch[0].masked_fill(hidden, 1))
    return F.cross_entropy(logits[hidden], batch[0][hidden])


class Tagged(Encoder):
    """An encoder that says a word at every token."""

    def __init__(self) -> None:
        super().__init__(words)
        self.head = nn.Linear(32, VOCAB)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.position
        return self.head(self.encoder(x, src_key_padding_mask=text == 0))


def case(model: nn.Module, loss: Callable[..., Tensor] = classify) -> Case:
    """Return the training of `model` on padded texts, whose labels are those of their words."""
    return Case(model, loss, texts())


def sick() -> list[Patient]:
    """Return models whose mask is the wrong way round."""
    build = {
        "encoder": lambda: Encoder(pads),
        "encoder-pooled": lambda: Encoder(pads, 16, 3, pooled=True),
        "mean": lambda: Averaged(pads),
        "scores": lambda: Scored(pads),
    }
    return [
        Patient(f"padding-read-by-{name}", "text", seeded(lambda make=make: case(make())), ("UG707",), ALSO)
        for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return models that read words, or words and padding alike."""
    build: dict[str, Callable[[], Case]] = {
        "encoder": lambda: case(Encoder(words)),
        "encoder-without-mask": lambda: case(Encoder(None)),
        "mean": lambda: case(Averaged(words)),
        "scores": lambda: case(Scored(words)),
        "next-words": lambda: case(Causal(), next_word),
        "last-token": lambda: case(Causal(last=True)),
        "packed": lambda: case(Packed()),
        "hidden-words": lambda: case(Tagged(), hidden_words),
    }
    return [
        Patient(f"words-read-by-{name}", "text", seeded(make), near=("UG707",))
        for name, make in build.items()
    ]


def inverted(dice: Dice) -> Case:
    """Return a model whose mask is the wrong way round."""
    width = dice.one_of(16, 32, 48)
    build = dice.one_of(
        lambda: Encoder(pads, width, dice.whole(1, 3)),
        lambda: Encoder(pads, width, 2, pooled=True),
        lambda: Averaged(pads, width),
        lambda: Averaged(pads, width, None),
        lambda: Scored(pads, width),
    )
    return case(build())


def upright(dice: Dice) -> Case:
    """Return a model that reads words, or words and padding alike."""
    width = dice.one_of(16, 32, 48)
    build, loss = dice.one_of(
        (lambda: Encoder(words, width), classify),
        (lambda: Encoder(None, width), classify),
        (lambda: Averaged(words, width), classify),
        (lambda: Scored(words, width), classify),
        (lambda: Causal(width), next_word),
        (lambda: Causal(width, last=True), classify),
        (lambda: Packed(width), classify),
        (Tagged, hidden_words),
    )
    return case(build(), loss)


DRAWS = (
    Draw(
        "padding-mask-inverted", "text", inverted, ("UG707",), ("UG205", "UG206", "UG603", "UG202", "UG103")
    ),
    Draw("padding-mask-upright", "text", upright, near=("UG707",)),
)
