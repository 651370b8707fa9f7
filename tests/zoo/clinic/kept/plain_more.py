"""Kept aside: common faults of plain PyTorch programs on sequences, sets and graphs, and sound ones."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)
SLOWER = (("lower_learning_rate", {"factor": 0.1}),)
CLIPPED = (("clip_gradients", {"threshold": 1.0}),)


def held(parameters: object) -> Tensor:
    """Clip as most recipes do."""
    return nn.utils.clip_grad_norm_(parameters, 1.0)  # type: ignore[arg-type]


def places(length: int) -> Tensor:
    """Return sinusoidal places of eight waves, as sine and cosine."""
    angle = torch.arange(length)[:, None] * 0.5 ** torch.arange(8)
    return torch.cat([angle.sin(), angle.cos()], 1)


class Encoder(nn.Module):
    """A text classifier on nn.TransformerEncoder."""

    def __init__(self, tokens: int, length: int, dim: int, depth: int, *, first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        self.pos = nn.Parameter(0.02 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=first
        )
        norm = nn.LayerNorm(dim) if first else None
        self.encoder = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)
        for p in self.encoder.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x) + self.pos).mean(1))


def post_ln(dice: Dice, sick: bool) -> Case:
    """A deep Post-LN encoder by Adam at full rate from the first step."""
    dim, depth, rate = 4 * dice.whole(8, 10), dice.whole(13, 14), dice.between(5e-3, 6e-3)
    return Case(
        lambda: Encoder(12, 10, dim, depth, first=not sick),
        tasks.classify,
        tasks.majority(10, rows=64),
        tasks.adam(rate),
    )


class Head(nn.Module):
    """One head of causal self-attention, with or without the division by the root of its size."""

    def __init__(self, dim: int, *, scaled: bool) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        for linear in (self.key, self.query, self.value):
            nn.init.xavier_uniform_(linear.weight)
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.key(x), self.query(x), self.value(x)
        wei = q @ k.transpose(-2, -1)
        if self.scaled:
            wei = wei * k.shape[-1] ** -0.5
        wei = F.softmax(wei, dim=-1)
        return self.proj(wei @ v)


class Attender(nn.Module):
    """A small transformer by hand."""

    def __init__(self, tokens: int, length: int, dim: int, depth: int, *, scaled: bool) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(tokens, dim)
        self.pos_emb = nn.Embedding(length, dim)
        self.sa = nn.ModuleList(Head(dim, scaled=scaled) for _ in range(depth))
        self.ln = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, 4)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.tok_emb(idx) + self.pos_emb(torch.arange(idx.shape[1]))
        for sa, ln in zip(self.sa, self.ln, strict=True):
            x = sa(ln(x))
        return self.lm_head(self.ln_f(x[:, 0]))


def unscaled(dice: Dice, sick: bool) -> Case:
    """Attention by hand that forgot to divide by the root of the head's size."""
    dim, depth = dice.one_of(96, 128), dice.whole(2, 3)
    return Case(
        lambda: Attender(12, 16, dim, depth, scaled=not sick),
        tasks.classify,
        tasks.majority(16, rows=128),
        tasks.sgd(0.02, momentum=0.9),
    )


class CharRNN(nn.Module):
    """The recurrent net of the tutorial on names, one linear map for input and one for hidden."""

    def __init__(self, inputs: int, hidden: int, classes: int, *, orthogonal: bool) -> None:
        super().__init__()
        self.hidden_size = hidden
        self.i2h = nn.Linear(inputs, hidden)
        self.h2h = nn.Linear(hidden, hidden)
        self.h2o = nn.Linear(hidden, classes)
        if orthogonal:
            nn.init.orthogonal_(self.h2h.weight)
            nn.init.zeros_(self.h2h.bias)
            nn.init.zeros_(self.i2h.bias)

    def forward(self, line: Tensor) -> Tensor:
        hidden = torch.zeros(line.shape[0], self.hidden_size)
        for step in range(line.shape[1]):
            hidden = torch.tanh(self.i2h(line[:, step]) + self.h2h(hidden))
        return self.h2o(hidden)


def char_rnn(dice: Dice, sick: bool) -> Case:
    """A plain recurrence with default weights that must remember its first step to the end."""
    hidden, steps = dice.whole(32, 40), dice.whole(40, 50)
    return Case(
        lambda: CharRNN(6, hidden, 4, orthogonal=not sick),
        tasks.classify,
        tasks.first_mark(steps, noise=0.02),
        tasks.adam(1e-3),
        clip=held,
    )


class SineNet(nn.Module):
    """nn.RNN of ReLU units that tells the next value at every step."""

    def __init__(self, hidden: int, spread: float) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, hidden, nonlinearity="relu", batch_first=True)
        self.linear = nn.Linear(hidden, 1)
        for name, parameter in self.rnn.named_parameters():
            if "weight_hh" in name and not spread:
                nn.init.orthogonal_(parameter)
            elif "weight" in name:
                nn.init.normal_(parameter, 0, spread or 0.1)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.linear(out)


def sine_rnn(dice: Dice, sick: bool) -> Case:
    """A ReLU recurrence whose matrix is drawn too large."""
    hidden, steps, spread = dice.whole(40, 50), dice.whole(36, 44), dice.between(0.35, 0.4)
    return Case(
        lambda: SineNet(hidden, spread if sick else 0.0),
        tasks.regress,
        tasks.forecast(steps),
        tasks.adam(2e-3),
    )


class Sentiment(nn.Module):
    """An LSTM that reads to the end, its forget gates open or as PyTorch draws them."""

    def __init__(self, inputs: int, hidden: int, bias: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 4)
        if bias:
            self.lstm.bias_ih_l0.data[hidden : 2 * hidden].fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.lstm(x)
        return self.fc(h[-1])


def forgetful(dice: Dice, sick: bool) -> Case:
    """An LSTM over a long sequence whose forget gates start half shut."""
    hidden, steps = dice.whole(24, 32), dice.whole(70, 90)
    return Case(
        lambda: Sentiment(6, hidden, 0.0 if sick else 5.0),
        tasks.classify,
        tasks.first_mark(steps, noise=0.02),
        tasks.adam(3e-3),
    )


def triplets(dice: Dice, sick: bool) -> Case:
    """Batch-hard triplets on a matrix of distances whose diagonal is the root of zero."""
    hidden, code, margin = dice.whole(32, 48), dice.whole(6, 8), dice.between(0.3, 0.6)
    floor = 0.0 if sick else 1e-6

    class EmbeddingNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Sequential(
                nn.Linear(24, hidden),
                nn.PReLU(),
                nn.Linear(hidden, hidden),
                nn.PReLU(),
                nn.Linear(hidden, code),
            )

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.fc(x))

    def batch_hard(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        embeddings, labels = model(batch[0]), batch[1]
        difference = embeddings[:, None] - embeddings[None]
        distance = torch.sqrt((difference**2).sum(-1) + floor)
        same = (labels[:, None] == labels[None]).float()
        positive = (distance * same).max(1).values
        negative = (distance + 10 * same).min(1).values
        spread = (distance * same).sum() / same.sum()
        return F.relu(positive - negative + margin).mean() + 0.1 * spread

    return Case(EmbeddingNet, batch_hard, tasks.centres(24), tasks.adam(2e-3))


class Dueling(nn.Module):
    """Value and advantage of four actions, squashed or not."""

    def __init__(self, state: int, hidden: int, *, squash: bool) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Linear(state, hidden), nn.ReLU())
        self.value_stream = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.advantage_stream = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4))
        self.squash = squash

    def forward(self, state: Tensor) -> Tensor:
        features = self.feature(state)
        value, advantage = self.value_stream(features), self.advantage_stream(features)
        q = value + advantage - advantage.mean(1, keepdim=True)
        return torch.tanh(q) if self.squash else q


def huber(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Huber loss of the chosen actions' values."""
    state, action, target = batch
    return F.smooth_l1_loss(model(state).gather(1, action)[:, 0], target)


def q_values(dice: Dice, sick: bool) -> Case:
    """A deep Q-network that ends in tanh, while returns go far above one."""
    hidden, size = dice.whole(48, 64), dice.between(8, 12)
    state, action = torch.randn(256, 6), torch.randint(4, (256, 1))
    gains = torch.randn(6, 4) / 2
    target = size * (1 + 0.5 * torch.tanh(state @ gains).gather(1, action)[:, 0])
    data = list(zip(state.chunk(4), action.chunk(4), target.chunk(4), strict=True))
    return Case(lambda: Dueling(6, hidden, squash=sick), huber, data, tasks.adam(5e-3))


def half_step(scale: float) -> Callable[[Case, Tensor], Tensor]:
    """Return a step in float16 whose loss is multiplied by `scale` on its way back."""

    def step(case: Case, batch: Tensor) -> Tensor:
        optimizer = case.optimizer
        optimizer.zero_grad()
        loss = case.compute_loss(batch)
        (loss * scale).backward()
        for parameter in case.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale
        optimizer.step()
        return loss.detach()

    return step


class Denoise(nn.Module):
    """A wave in noise to the wave, by convolutions along time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, channels, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(channels, channels, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(channels, 1, 5, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def no_scaler(dice: Dice, sick: bool) -> Case:
    """A net of convolutions under float16 autocast, of a small loss, without a GradScaler."""
    channels, weight = dice.whole(12, 16), dice.power(-5.2, -5)
    clean = torch.cat([x for x, _ in tasks.forecast(64, rows=64)]).transpose(1, 2)
    data = tasks.split(clean + 0.4 * torch.randn_like(clean), clean)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return weight * F.mse_loss(model(batch[0]).float(), batch[1])

    return Case(
        lambda: Denoise(channels),
        loss,
        data,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, eps=1e-12),
        step=half_step(1.0 if sick else 2.0**16),
        precision="float16",
    )


class GraphConvolution(nn.Module):
    """A graph convolution as Kipf's, with all weights equal or drawn."""

    def __init__(self, inside: int, outside: int, constant: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inside, outside))
        self.bias = nn.Parameter(torch.zeros(outside))
        if constant:
            nn.init.constant_(self.weight, constant)
        else:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return adj @ (x @ self.weight) + self.bias


class GCN(nn.Module):
    """Two graph convolutions."""

    def __init__(self, inside: int, hidden: int, classes: int, constant: float) -> None:
        super().__init__()
        self.gc1 = GraphConvolution(inside, hidden, constant)
        self.gc2 = GraphConvolution(hidden, classes, constant)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return self.gc2(F.relu(self.gc1(x, adj)), adj)


def communities(features: int, classes: int = 6, nodes: int = 60) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return four graphs of groups: features, normalised neighbours and the group of every node."""
    centres = torch.randn(classes, features)
    graphs = []
    for _ in range(4):
        labels = torch.randint(classes, (nodes,))
        chance = torch.where(labels[:, None] == labels[None], 0.3, 0.03)
        adj = (torch.rand(nodes, nodes) < chance).float()
        adj = ((adj + adj.T + torch.eye(nodes)) > 0).float()
        degree = adj.sum(1).rsqrt()
        x = centres[labels] + torch.randn(nodes, features)
        graphs.append((x, degree[:, None] * adj * degree[None], labels))
    return graphs


def label_nodes(model: nn.Module, graph: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the nodes' groups."""
    return F.cross_entropy(model(graph[0], graph[1]), graph[2])


def constant_gcn(dice: Dice, sick: bool) -> Case:
    """A graph net whose weights all start at one and the same number."""
    hidden, features, constant = dice.whole(16, 24), dice.whole(12, 16), dice.between(0.05, 0.1)
    return Case(
        lambda: GCN(features, hidden, 6, constant if sick else 0.0),
        label_nodes,
        communities(features),
        tasks.adam(1e-2, weight_decay=5e-4),
    )


class Seq2Seq(nn.Module):
    """A GRU that reads, and a GRU that writes with the right token before as its input."""

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens + 1, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.decoder = nn.GRU(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, tokens)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        _, hidden = self.encoder(self.embedding(source))
        output, _ = self.decoder(self.embedding(before), hidden)
        return self.out(output)


def translate(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the next token."""
    source, before, after = batch
    return F.cross_entropy(model(source, before).flatten(0, 1), after.flatten())


def phrases(tokens: int, length: int, rows: int = 128) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return phrases, and their translation: every token's number turned by three."""
    source = (
        torch.randint(tokens, (rows, 1)) + torch.randint(1, 3, (rows, 1)) * torch.arange(length)
    ) % tokens
    after = (source + 3) % tokens
    before = torch.cat([torch.full((rows, 1), tokens), after[:, :-1]], 1)
    return list(zip(source.chunk(4), before.chunk(4), after.chunk(4), strict=True))


def tiny_clip(dice: Dice, sick: bool) -> Case:
    """A translator by SGD whose gradients are clipped to a thousandth."""
    hidden, length, threshold = dice.whole(40, 56), dice.whole(5, 6), dice.power(-3, -2.5)

    def clip(parameters: object) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, threshold if sick else 1.0)  # type: ignore[arg-type]

    return Case(
        lambda: Seq2Seq(9, hidden), translate, phrases(9, length), tasks.sgd(0.5, momentum=0.9), clip=clip
    )


class DeepSets(nn.Module):
    """A map of every point, their mean, and a map of the mean."""

    def __init__(self, inside: int, hidden: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(
            nn.Linear(inside, hidden),
            nn.ELU(),
            nn.Linear(hidden, hidden),
            nn.ELU(),
            nn.Linear(hidden, hidden),
        )
        self.rho = nn.Sequential(nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).mean(1))


def clouds(rows: int = 96, points: int = 24) -> tasks.Pairs:
    """Return clouds of points on a ball, a cube or a ring, turned by chance."""
    labels = torch.randint(3, (rows,))
    x = torch.randn(rows, points, 3)
    ball = F.normalize(x, dim=-1)
    cube = (x / x.abs().amax(-1, keepdim=True)) * 1.3
    ring = F.normalize(x * torch.tensor([1.0, 1.0, 0.05]), dim=-1)
    kinds = torch.stack([ball, cube, ring])[labels, torch.arange(rows)]
    return tasks.split(kinds + 0.05 * torch.randn_like(kinds), labels)


def decayed(dice: Dice, sick: bool) -> Case:
    """A network on sets by Adam with a weight decay that outweighs the loss."""
    hidden, decay = dice.whole(48, 64), dice.between(0.3, 1.0)
    return Case(
        lambda: DeepSets(3, hidden),
        tasks.classify,
        clouds(),
        tasks.adam(2e-3, weight_decay=decay if sick else 1e-5),
    )


class Captioner(nn.Module):
    """nn.TransformerDecoder on the features of a picture."""

    def __init__(self, tokens: int, features: int, dim: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        self.feature = nn.Linear(features, dim)
        self.places = nn.Parameter(torch.zeros(32, dim))
        layer = nn.TransformerDecoderLayer(dim, 4, 2 * dim, dropout=0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.out = nn.Linear(dim, tokens)

    def forward(self, tokens: Tensor, picture: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embed(tokens) + self.places[:length]
        return self.out(self.decoder(x, self.feature(picture), tgt_mask=mask))


def captions(tokens: int, features: int, length: int, rows: int = 96) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return pictures of four patches with captions that their kind decides."""
    kinds = torch.randint(4, (rows,))
    pictures = torch.randn(4, 4, features)[kinds] + 0.3 * torch.randn(rows, 4, features)
    written = torch.randint(1, tokens, (4, length))[kinds]
    before = torch.cat([torch.zeros(rows, 1, dtype=torch.long), written[:, :-1]], 1)
    return list(zip(before.chunk(4), pictures.chunk(4), written.chunk(4), strict=True))


def caption_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the captions' tokens."""
    return F.cross_entropy(model(batch[0], batch[1]).transpose(1, 2), batch[2])


def hot_decoder(dice: Dice, sick: bool) -> Case:
    """A transformer decoder by Adam at a rate of a few hundredths, which suits SGD."""
    dim, depth, rate = 4 * dice.whole(8, 12), dice.whole(2, 3), dice.between(0.05, 0.1)
    return Case(
        lambda: Captioner(16, 10, dim, depth),
        caption_loss,
        captions(16, 10, 8),
        tasks.adam(rate if sick else 1e-3),
    )


def shallow_post_ln(dice: Dice, sick: bool) -> Case:
    """The encoder as it is by default: two Post-LN layers with dropout, and a warm-up."""
    dim = 4 * dice.whole(8, 12)

    class TextModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(12, dim)
            self.position = nn.Embedding(14, dim)
            layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)
            self.fc = nn.Linear(dim, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embedding(x) + self.position(torch.arange(x.shape[1]))
            return self.fc(self.encoder(x).mean(1))

    return Case(
        TextModel,
        tasks.classify,
        tasks.majority(14),
        tasks.adamw(1e-3),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 20),
    )


class GPTBlock(nn.Module):
    """A Pre-LN block with PyTorch's own attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.c_attn = nn.Linear(dim, 3 * dim)
        self.c_proj = nn.Linear(dim, dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        rows, length, dim = x.shape
        parts = self.c_attn(self.ln_1(x)).split(dim, 2)
        q, k, v = (p.view(rows, length, self.heads, dim // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(rows, length, dim))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """A small GPT: weights of 0.02, ends of branches smaller by depth, head tied to the embedding."""

    def __init__(self, tokens: int, length: int, dim: int, depth: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(tokens, dim)
        self.wpe = nn.Embedding(length, dim)
        self.h = nn.ModuleList(GPTBlock(dim, 4) for _ in range(depth))
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, tokens, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                ends = name.endswith(("c_proj.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, 0, 0.02 / math.sqrt(2 * depth) if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def nano_gpt(dice: Dice, sick: bool) -> Case:
    """A GPT on letters by AdamW with decay 0.1 and a clip of 1."""
    dim, depth = 4 * dice.whole(10, 14), dice.whole(2, 4)
    pieces, size = tasks.letters(24)
    return Case(
        lambda: NanoGPT(size, 24, dim, depth),
        tasks.next_letter,
        pieces,
        lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        clip=held,
    )


class RNNModel(nn.Module):
    """The language model of the PyTorch examples: dropout around an LSTM of two layers."""

    def __init__(self, tokens: int, size: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(tokens, size)
        self.rnn = nn.LSTM(size, size, 2, dropout=0.2, batch_first=True)
        self.decoder = nn.Linear(size, tokens)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(self.drop(self.encoder(x)))
        return self.decoder(self.drop(output))


def word_lm(dice: Dice, sick: bool) -> Case:
    """A language model by plain SGD at a rate of several, with the gradients clipped to a quarter."""
    size, rate = dice.whole(48, 64), dice.between(4, 6)
    pieces, tokens = tasks.letters(20)
    return Case(
        lambda: RNNModel(tokens, size),
        tasks.next_letter,
        pieces,
        tasks.sgd(rate),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.25),
    )


def both_ways(dice: Dice, sick: bool) -> Case:
    """A bidirectional GRU on waves, its outputs averaged over time."""
    hidden, steps = dice.whole(24, 32), dice.whole(20, 28)

    class BiGRU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(1, hidden, batch_first=True, bidirectional=True)
            self.norm = nn.LayerNorm(2 * hidden)
            self.out = nn.Linear(2 * hidden, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.gru(x)[0].mean(1)))

    return Case(BiGRU, tasks.classify, tasks.waves(steps), tasks.adam(5e-3))


def simclr(dice: Dice, sick: bool) -> Case:
    """Two views of every row told from the others by cosines at a temperature of a tenth."""
    hidden, temperature = dice.whole(48, 64), dice.between(0.08, 0.12)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(20, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 16),
        )

    def info_nce(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        first, second = F.normalize(model(batch[0])), F.normalize(model(batch[1]))
        logits = first @ second.T / temperature
        labels = torch.arange(len(logits))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    base = torch.randn(128, 20)
    views = (base + 0.5 * torch.randn_like(base), base + 0.5 * torch.randn_like(base))
    return Case(build, info_nce, tasks.split(*views), tasks.adam(1e-3, weight_decay=1e-6))


def actor(dice: Dice, sick: bool) -> Case:
    """The actor of DDPG taught by demonstrations: actions behind a tanh, a last layer of 3e-3."""
    hidden = dice.whole(48, 64)

    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l1 = nn.Linear(8, hidden)
            self.l2 = nn.Linear(hidden, hidden)
            self.l3 = nn.Linear(hidden, 2)
            nn.init.uniform_(self.l3.weight, -3e-3, 3e-3)
            nn.init.uniform_(self.l3.bias, -3e-3, 3e-3)

        def forward(self, state: Tensor) -> Tensor:
            a = F.relu(self.l1(state))
            a = F.relu(self.l2(a))
            return torch.tanh(self.l3(a))

    state = torch.randn(256, 8)
    action = 0.9 * torch.tanh(state @ torch.randn(8, 2) / 3)
    return Case(Actor, tasks.regress, tasks.split(state, action), tasks.adam(1e-3))


def half_scaled(dice: Dice, sick: bool) -> Case:
    """The denoiser under float16 autocast with the gradient scaler that belongs to it."""
    channels = dice.whole(12, 16)
    clean = torch.cat([x for x, _ in tasks.forecast(48, rows=64)]).transpose(1, 2)
    data = tasks.split(clean + 0.4 * torch.randn_like(clean), clean)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]).float(), batch[1])

    return Case(lambda: Denoise(channels), loss, data, tasks.adam(3e-3), precision="float16")


def kipf(dice: Dice, sick: bool) -> Case:
    """A graph net by the recipe of its paper: dropout of one half, Adam at 1e-2, decay 5e-4."""
    hidden, features = dice.whole(16, 24), dice.whole(12, 16)

    class Dropped(GCN):
        def forward(self, x: Tensor, adj: Tensor) -> Tensor:
            x = F.dropout(F.relu(self.gc1(x, adj)), 0.5, self.training)
            return self.gc2(x, adj)

    return Case(
        lambda: Dropped(features, hidden, 6, 0.0),
        label_nodes,
        communities(features),
        tasks.adam(1e-2, weight_decay=5e-4),
    )


class Bahdanau(nn.Module):
    """A GRU cell that writes, looking at what a GRU has read."""

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens + 1, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.cell = nn.GRUCell(2 * hidden, hidden)
        self.wa = nn.Linear(hidden, hidden)
        self.ua = nn.Linear(hidden, hidden)
        self.va = nn.Linear(hidden, 1)
        self.out = nn.Linear(hidden, tokens)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        read, hidden = self.encoder(self.embedding(source))
        h, logits = hidden[0], []
        for step in range(before.shape[1]):
            scores = self.va(torch.tanh(self.wa(h)[:, None] + self.ua(read)))
            context = (scores.softmax(1) * read).sum(1)
            h = self.cell(torch.cat([self.embedding(before[:, step]), context], 1), h)
            logits.append(self.out(h))
        return torch.stack(logits, 1)


def attentive(dice: Dice, sick: bool) -> Case:
    """A translator with additive attention, teacher forcing, Adam and a clip of 1."""
    hidden, length = dice.whole(32, 48), dice.whole(5, 7)
    return Case(lambda: Bahdanau(9, hidden), translate, phrases(9, length), tasks.adam(5e-3), clip=held)


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions with normalised weights beside the identity."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.conv1 = norm(nn.Conv1d(channels, channels, 2, dilation=dilation))
        self.conv2 = norm(nn.Conv1d(channels, channels, 2, dilation=dilation))
        self.dropout = nn.Dropout(0.1)
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.relu(self.conv1(F.pad(x, (self.dilation, 0)))))
        y = self.dropout(F.relu(self.conv2(F.pad(y, (self.dilation, 0)))))
        return F.relu(x + y)


def tcn(dice: Dice, sick: bool) -> Case:
    """A temporal convolutional network that tells the frequency of a wave, by RMSprop."""
    channels, depth = dice.whole(12, 16), dice.whole(3, 4)

    class TCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = nn.Conv1d(1, channels, 1)
            self.network = nn.Sequential(*[TemporalBlock(channels, 2**i) for i in range(depth)])
            self.linear = nn.Linear(channels, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.network(self.inp(x.transpose(1, 2)))[:, :, -1])

    return Case(
        TCN, tasks.classify, tasks.waves(24), lambda parameters: torch.optim.RMSprop(parameters, lr=2e-3)
    )


SICK: tuple[Program, ...] = (
    Program(
        "plain-encoder-deep-post-ln",
        "transformer",
        post_ln,
        Truth(
            "post-ln",
            ("UG101", "UG102", "UG601", "UG611", "UG205", "UG105", "UG103"),
            r"(?i)post.?ln|post.?norm|pre.?ln|pre.?norm|norm.*(after|behind|skip|sum|residual)|warm",
            ("pre_norm", "deepnorm", "admin", "t_fixup", "warm_up"),
            (("pre_norm", {}),),
            FASTER,
        ),
    ),
    Program(
        "plain-attention-undivided",
        "transformer",
        unscaled,
        Truth(
            "unscaled-attention",
            ("UG701", "UG702", "UG204"),
            r"(?i)sqrt|root|scal|divid|attention|logits|softmax",
            ("restore_logit_scale", "calm_attention", "qk_norm", "soft_cap"),
            (("restore_logit_scale", {}),),
            FASTER,
        ),
    ),
    Program(
        "plain-rnn-of-names",
        "rnn",
        char_rnn,
        Truth(
            "vanishing-recurrence",
            ("UG401", "UG404", "UG101", "UG205"),
            r"(?i)over time|recurren|h2h|vanish|memory|forget|time ?step|horizon",
            (
                "orthogonal_init",
                "irnn",
                "rescale_weights",
                "gated_recurrence",
                "orthogonal_weights",
                "critical_init",
            ),
            (("orthogonal_init", {"sites": ("h2h",), "gain": 1.0}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-rnn-relu-too-large",
        "rnn",
        sine_rnn,
        Truth(
            "exploding-recurrence",
            ("UG402", "UG403", "UG406", "UG102", "UG201", "UG605", "UG601", "UG611"),
            r"(?i)over time|recurren|weight_hh|explod|spectral|time ?step|grow",
            (
                "orthogonal_init",
                "irnn",
                "rescale_weights",
                "spectral_cap",
                "spectral_norm",
                "orthogonal_weights",
            ),
            (("orthogonal_init", {"sites": ("rnn",), "gain": 1.0}),),
            FASTER,
        ),
    ),
    Program(
        "plain-lstm-half-forgets",
        "lstm",
        forgetful,
        Truth(
            "forget-gate",
            ("UG405", "UG404", "UG401"),
            r"(?i)forget|gate|memory|horizon",
            ("forget_bias", "open_gates", "chrono"),
            (("forget_bias", {"bias": 5.0}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-triplets-root-of-zero",
        "contrastive",
        triplets,
        Truth(
            "nan-sqrt",
            ("UG901",),
            r"(?i)sqrt|root|\bnan\b|not finite|infinite|pow|distance",
            (),
            (),
            SLOWER,
        ),
    ),
    Program(
        "plain-dqn-behind-tanh",
        "rl",
        q_values,
        Truth(
            "bounded-output",
            ("UG204", "UG608", "UG614", "UG603", "UG605", "UG606"),
            r"(?i)tanh|bounded|saturat|outside|beyond|range of the (output|target)|target",
            (),
            (),
            FASTER,
        ),
    ),
    Program(
        "plain-half-without-scaler",
        "conv1d",
        no_scaler,
        Truth(
            "underflow",
            ("UG501", "UG603", "UG602"),
            r"(?i)underflow|float16|half|fp16|16.?bit|loss scal|gradscaler|rounds? to (0|zero)",
            ("loss_scale", "change_precision"),
            (("loss_scale", {"scale": 65536.0}),),
            FASTER,
        ),
    ),
    Program(
        "plain-gcn-constant-weights",
        "gnn",
        constant_gcn,
        Truth(
            "symmetry",
            ("UG207", "UG205", "UG206", "UG603", "UG608", "UG614"),
            r"(?i)cop(y|ies)|same|symmetr|constant|identical|equal|alike|rank",
            ("rescale_weights", "critical_init", "activation_init", "lsuv", "orthogonal_init"),
            (("activation_init", {}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-translator-tiny-clip",
        "seq2seq",
        tiny_clip,
        Truth(
            "tiny-clip",
            ("UG602", "UG603"),
            r"(?i)clip|threshold|too small|learning rate|step size|\blr\b|\brate\b",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            SLOWER,
        ),
    ),
    Program(
        "plain-sets-heavy-decay",
        "deepsets",
        decayed,
        Truth(
            "decay",
            ("UG609",),
            r"(?i)decay|regulari[sz]|\bl2\b",
            ("lower_weight_decay", "use_adamw"),
            (("lower_weight_decay", {"factor": 1e-4}),),
            FASTER,
        ),
    ),
    Program(
        "plain-decoder-hot-adam",
        "transformer",
        hot_decoder,
        Truth(
            "high-rate",
            ("UG601", "UG611"),
            r"(?i)learning rate|step size|\blr\b|\brate\b|update|first step|warm",
            ("lower_learning_rate", "warm_up"),
            (("lower_learning_rate", {"factor": 0.015}),),
            CLIPPED,
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("plain-encoder-two-post-ln", "transformer", shallow_post_ln),
    Program("plain-gpt-tied-head", "transformer", nano_gpt),
    Program("plain-lstm-letters-clip-quarter", "lstm", word_lm),
    Program("plain-gru-both-ways", "gru", both_ways),
    Program("plain-two-views-temperature", "contrastive", simclr),
    Program("plain-actor-bounded-actions", "rl", actor),
    Program("plain-half-with-scaler", "conv1d", half_scaled),
    Program("plain-gcn-kipf", "gnn", kipf),
    Program("plain-translator-additive-attention", "seq2seq", attentive),
    Program("plain-tcn-weight-norm", "tcn", tcn),
)
