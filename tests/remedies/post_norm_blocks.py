"""Post-LN blocks as people write them, each with its Pre-LN twin, on the same parts."""

import torch
from torch import Tensor, nn

WIDTH, DEPTH = 16, 3


class Attention(nn.Module):
    """Attention with maps of its own, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.softmax(self.q(x) @ self.k(x).mT / WIDTH**0.5, -1) @ self.v(x))


class Parts(nn.Module):
    """Attention, two maps, two norms, dropout; `first` is the order of the twin."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(0.2)
        self.first = first

    def feed(self, x: Tensor) -> Tensor:
        return self.drop(self.down(torch.relu(self.up(x))))


class TwoLines(Parts):
    """The two lines of most tutorials, with dropout on the branches."""

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.drop(self.attention(self.norm1(x)))
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.drop(self.attention(x)))
        return self.norm2(x + self.feed(x))


class Inline(Parts):
    """Attention written out inside the block, and torch's own beside it, with time first."""

    def __init__(self, first: bool) -> None:
        super().__init__(first)
        self.torch = nn.MultiheadAttention(WIDTH, 2)

    def mix(self, x: Tensor) -> Tensor:
        part = self.attention
        own = part.o(torch.softmax(part.q(x) @ part.k(x).mT / 4, -1) @ part.v(x))
        turned = x.transpose(0, 1)
        return own + self.torch(turned, turned, value=turned)[0].transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.mix(self.norm1(x))
            return x + self.feed(self.norm2(x))
        x = self.norm1(self.mix(x) + x)
        return self.norm2(self.feed(x) + x)


class Sublayer(nn.Module):
    """A branch with its norm and its sum, as a module around any function."""

    def __init__(self, branch: nn.Module, first: bool) -> None:
        super().__init__()
        self.branch, self.norm, self.first = branch, nn.LayerNorm(WIDTH), first

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(self.norm(x)) if self.first else self.norm(x + self.branch(x))


class Wrapped(nn.Module):
    """Two sublayers in a row."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.parts = nn.Sequential(Sublayer(Attention(), first), Sublayer(mlp, first))

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


class Decoder(Parts):
    """Two branches, the first of which reads a memory too, that is handed in by name."""

    def __init__(self, first: bool) -> None:
        super().__init__(first)
        self.cross = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = x.new_ones(len(x), 2, WIDTH) if memory is None else memory
        if self.first:
            x = x + self.cross(self.norm1(x), memory, memory, need_weights=False)[0]
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.cross(query=x, key=memory, value=memory, need_weights=False)[0])
        return self.norm2(x + self.feed(x))


class Root(nn.Module):
    """Blocks that are no modules: everything is written in the model's own forward."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.branches = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(DEPTH))
        self.last = nn.RMSNorm(WIDTH)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch, norm in zip(self.branches, self.norms, strict=True):
            x = x + branch(norm(x)) if self.first else norm(x + branch(x))
        return self.last(x)


class Stack(nn.Module):
    """Blocks in a list, and the last norm that the twin needs."""

    def __init__(self, block: type, first: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(first) for _ in range(DEPTH))
        self.end = nn.LayerNorm(WIDTH) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.end(x)
