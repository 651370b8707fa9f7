"""The demo's patient: a 24-block Post-LN transformer on the English prose of Python's own documentation.

unitygain treat examples/post_ln_transformer.py:make_case --steps 30 --budget 6m --html report.html
"""

import pydoc_data.topics

import torch
from torch import Tensor, nn

import unitygain as ug

CONTEXT, BATCH, WIDTH, HEADS, DEPTH = 64, 16, 128, 4, 24


def read_prose() -> str:
    """Return the prose that ships with Python: about 465,000 characters."""
    return "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


class Block(nn.Module):
    """Attention and feed-forward, each followed by LayerNorm on the sum: the order of 2017."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        attended, _ = self.attention(x, x, x, attn_mask=mask, need_weights=False)
        x = self.norm1(x + attended)
        return self.norm2(x + self.mlp(x))


class CharacterModel(nn.Module):
    """Predicts the next character; initialised as `nn.Transformer` does, by Xavier's rule."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, characters)
        for parameter in (*self.blocks.parameters(), *self.head.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, time) characters to (batch, time, characters) logits."""
        time = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=tokens.device)
        x = self.embedding(tokens) + self.position(torch.arange(time, device=tokens.device))
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x)


def compute_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Cross-entropy of the next character."""
    logits = model(batch[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def make_case() -> ug.Case:
    """Return the patient: as the model was written, with AdamW at 1e-3."""
    prose = read_prose()
    characters = sorted(set(prose))
    codes = torch.tensor([characters.index(c) for c in prose[:100_000]])
    starts = torch.randint(len(codes) - CONTEXT, (4, BATCH), generator=torch.Generator().manual_seed(0))
    batches = [torch.stack([codes[s : s + CONTEXT] for s in row]) for row in starts]
    return ug.Case(
        lambda: CharacterModel(len(characters)),
        loss=compute_loss,
        data=batches,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3),
        name="24-block Post-LN transformer on pydoc prose",
    )
