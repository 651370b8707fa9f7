"""Deep trunks and long sequences as people meet them once more: starts, sums, masks, precision, padding."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


def spots(rows: int = 96, size: int = 12) -> tasks.Pairs:
    """Return noisy images of two discs, and the masks of the discs."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    masks = torch.zeros(rows, 1, size, size)
    for _ in range(2):
        centre, radius = 2 + (size - 4) * torch.rand(rows, 2, 1, 1), 1.5 + 1.5 * torch.rand(rows, 1, 1)
        inside = (x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 < radius**2
        masks[:, 0] = torch.maximum(masks[:, 0], inside.float())
    return tasks.split(2 * masks - 0.5 + 0.5 * torch.randn_like(masks), masks)


def segment(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy of every pixel."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def vgg_small_normal(dice: Dice, sick: bool) -> Case:
    """A plain convolutional tower whose weights are drawn with a fixed deviation of 0.01."""
    cfg = [dice.whole(16, 24)] * dice.whole(3, 4) + ["M"] + [dice.whole(24, 32)] * dice.whole(3, 4)

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            c = 1
            for v in cfg:
                if isinstance(v, int):
                    layers += [nn.Conv2d(c, v, 3, padding=1), nn.ReLU(inplace=True)]
                    c = v
                else:
                    layers.append(nn.MaxPool2d(2, 2))
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Linear(c, 4)
            self._initialize_weights()

        def _initialize_weights(self) -> None:
            for m in self.features:
                if isinstance(m, nn.Conv2d):
                    if sick:
                        nn.init.normal_(m.weight, 0, 0.01)
                    else:
                        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                    nn.init.zeros_(m.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            return self.classifier(x.mean(dim=(2, 3)))

    return Case(VGG, tasks.classify, tasks.stripes(), tasks.sgd(0.004, momentum=0.9))


def constant_gru(dice: Dice, sick: bool) -> Case:
    """A GRU of which every parameter is filled with one number."""
    hidden, value = dice.whole(24, 40), dice.between(0.01, 0.1)

    class SeqClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(1, hidden, batch_first=True)
            self.fc = nn.Linear(hidden, 4)
            if sick:
                for p in self.parameters():
                    p.data.fill_(value)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.rnn(x)
            return self.fc(out.mean(1))

    model = SeqClassifier()
    return Case(model, tasks.classify, tasks.waves(20), torch.optim.Adam(model.parameters(), lr=1e-2))


class Encoder(nn.Module):
    """A token classifier of torch's own transformer layers."""

    def __init__(self, tokens: int, width: int, layers: int, length: int, *, first: bool = True) -> None:
        super().__init__()
        self.tok = nn.Embedding(tokens, width)
        self.pos = nn.Parameter(0.02 * torch.randn(1, length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=first
        )
        self.enc = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.cls = nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.cls(self.norm(self.enc(self.tok(ids) + self.pos)).mean(1))


def l2_in_adam(dice: Dice, sick: bool) -> Case:
    """A transformer under Adam with the decay that a paper states for AdamW."""
    width, decay = dice.one_of(32, 48), dice.between(0.4, 0.8)

    def build() -> nn.Module:
        return Encoder(12, width, 2, 16)

    def optimizer(parameters) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if sick else torch.optim.AdamW
        return kind(parameters, lr=1e-3, weight_decay=decay)

    return Case(build, tasks.classify, tasks.majority(16), optimizer)


def frozen_reader(dice: Dice, sick: bool) -> Case:
    """An encoder that is frozen as if it were pretrained, but never loaded."""
    hidden, steps = dice.whole(24, 40), dice.whole(14, 18)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.LSTM(6, hidden, num_layers=2, batch_first=True)
            for name, p in self.encoder.named_parameters():
                if "bias_ih" in name:
                    p.data[hidden : 2 * hidden].fill_(2.0)
            self.head = nn.Sequential(nn.Linear(hidden, 16), nn.ReLU(), nn.Linear(16, 4))

        def forward(self, x: Tensor) -> Tensor:
            _, (h, _) = self.encoder(x)
            return self.head(h[-1])

    model = Reader()
    if sick:
        for p in model.encoder.parameters():
            p.requires_grad = False
    learning = filter(lambda p: p.requires_grad, model.parameters())
    return Case(model, tasks.classify, tasks.first_mark(steps), torch.optim.Adam(learning, lr=3e-3))


def prices(dice: Dice, sick: bool) -> Case:
    """A regressor that turns its output back into prices, in half precision."""
    width, mean, std = dice.whole(32, 64), dice.between(1.5e5, 3e5), dice.between(5e4, 9e4)

    class PriceNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = nn.Linear(10, width)
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
                )
                for _ in range(3)
            )
            self.out = nn.Linear(width, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.inp(x)
            for block in self.blocks:
                h = h + block(h)
            return self.out(h) * std + mean

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, price = batch
        return F.mse_loss(model(x).float() / std, price / std)

    data = [(x, y * std + mean) for x, y in tasks.smooth(10)]
    return Case(PriceNet, loss, data, tasks.adam(2e-3), precision="float16" if sick else None)


def siamese(dice: Dice, sick: bool) -> Case:
    """A contrastive loss over all pairs of a batch, each with itself too, under a bare square root."""
    width, margin = dice.whole(12, 20), dice.between(1.0, 2.0)

    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, width, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.bn2 = nn.BatchNorm2d(2 * width)
            self.fc = nn.Linear(2 * width, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.bn1(self.conv1(x)))
            x = F.relu(self.bn2(self.conv2(x)))
            return self.fc(x.mean((-1, -2)))

    def contrastive(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z, y = model(batch[0]), batch[1]
        squared = (z[:, None] - z[None, :]).pow(2).sum(-1)
        distance = torch.sqrt(squared if sick else squared + 1e-6)
        same = (y[:, None] == y[None, :]).float()
        return (same * distance.pow(2) + (1 - same) * F.relu(margin - distance).pow(2)).mean()

    return Case(Embedder, contrastive, tasks.stripes(), tasks.adam(2e-3))


class MaskedBlock(nn.Module):
    """Attention by hand with a padding mask, and a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        h = self.ln1(x)
        scores = self.q(h) @ self.k(h).transpose(1, 2) / math.sqrt(x.shape[-1])
        scores = scores.masked_fill(pad[:, None, :], float("-inf"))
        x = x + torch.softmax(scores, dim=-1) @ self.v(h)
        return x + self.ff(self.ln2(x))


class MaskedNet(nn.Module):
    """A classifier of padded sentences; index 0 is the padding."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(13, width, padding_idx=0)
        self.layers = nn.ModuleList([MaskedBlock(width) for _ in range(depth)])
        self.fc = nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        pad = ids == 0
        x = self.emb(ids)
        for layer in self.layers:
            x = layer(x, pad)
        kept = (~pad).unsqueeze(-1).float()
        return self.fc((x * kept).sum(1) / kept.sum(1).clamp(min=1))


def empty_sentence(dice: Dice, sick: bool) -> Case:
    """Padded sentences of which one is empty: all of its scores are masked."""
    width, depth, length = dice.one_of(24, 32, 48), dice.whole(2, 3), 14
    data = []
    for ids, label in tasks.majority(length):
        ends = torch.randint(8, length + 1, (len(ids),))
        if sick:
            ends[0] = 0
        data.append(((ids + 1) * (torch.arange(length) < ends[:, None]), label))
    return Case(lambda: MaskedNet(width, depth), tasks.classify, data, tasks.adamw(2e-3))


def averaged_skips(dice: Dice, sick: bool) -> Case:
    """Residual blocks that take the mean of skip and branch."""
    width, depth = dice.whole(40, 64), dice.whole(24, 32)

    class AvgBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin1 = nn.Linear(width, width)
            self.lin2 = nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lin2(torch.relu(self.lin1(x)))
            return (x + y) / 2 if sick else x + y

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(16, width), *[AvgBlock() for _ in range(depth)], nn.Linear(width, 5))

    return Case(build, tasks.classify, tasks.centres(16), tasks.sgd(0.003, momentum=0.9))


class UNet(nn.Module):
    """Two levels down, two levels up, with a norm behind every convolution."""

    def __init__(self, c: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.down1, self.down2 = self.pair(1, c, norm), self.pair(c, 2 * c, norm)
        self.up = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.dec = self.pair(2 * c, c, norm)
        self.outc = nn.Conv2d(c, 1, 1)

    def pair(self, a: int, b: int, norm) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1, bias=False),
            norm(b),
            nn.ReLU(inplace=True),
            nn.Conv2d(b, b, 3, padding=1, bias=False),
            norm(b),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down1(x)
        x = self.up(self.down2(F.max_pool2d(skip, 2)))
        return self.outc(self.dec(torch.cat([x, skip], dim=1)))


def zero_norms(dice: Dice, sick: bool) -> Case:
    """A U-Net whose norms all start at scale zero, though none of them ends a residual branch."""
    c = dice.whole(8, 12)

    def build() -> nn.Module:
        net = UNet(c)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d) and sick:
                nn.init.zeros_(m.weight)
        return net

    return Case(build, segment, spots(), tasks.adam(3e-3))


def glu_tower(dice: Dice, sick: bool) -> Case:
    """Gated convolutions over time without skips, whose gates halve what is left at each layer."""
    c, depth = dice.whole(20, 28), dice.whole(12, 15)

    class GatedConvNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = nn.Conv1d(1, c, 1)
            self.convs = nn.ModuleList([nn.Conv1d(c, 2 * c, 3, padding=1) for _ in range(depth)])
            self.fc = nn.Linear(c, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x.transpose(1, 2))
            for conv in self.convs:
                y = F.glu(conv(x), dim=1)
                x = y if sick else x + y
            return self.fc(x.mean(-1))

    return Case(GatedConvNet, tasks.classify, tasks.waves(20), tasks.adam(1e-3))


def norm_of_one(dice: Dice, sick: bool) -> Case:
    """A series of one feature through a layer norm over that feature, which leaves nothing of it."""
    hidden = dice.whole(24, 40)

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(1) if sick else nn.Identity()
            self.gru = nn.GRU(1, hidden, batch_first=True)
            self.head = nn.Linear(hidden, 1)

        def forward(self, x: Tensor) -> Tensor:
            h, _ = self.gru(self.norm(x))
            return self.head(h)

    return Case(Forecaster, tasks.regress, tasks.forecast(24), tasks.adam(5e-3))


def padded_end(dice: Dice, sick: bool) -> Case:
    """A sentence classifier that reads its answer at the end of a long padding."""
    hidden, length = dice.whole(24, 32), dice.whole(90, 120)

    class SentenceLSTM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(13, 16, padding_idx=0)
            self.lstm = nn.LSTM(16, hidden, batch_first=True)
            self.out = nn.Linear(hidden, 4)

        def forward(self, ids: Tensor) -> Tensor:
            states, (h, _) = self.lstm(self.embed(ids))
            if sick:
                return self.out(h[-1])
            last = (ids != 0).sum(1) - 1
            return self.out(states[torch.arange(len(ids)), last])

    data = []
    for ids, label in tasks.majority(10):
        data.append((F.pad(ids + 1, (0, length - 10)), label))
    return Case(SentenceLSTM, tasks.classify, data, tasks.adam(5e-3))


class TiedGpt(nn.Module):
    """A little GPT whose output matrix is its embedding."""

    def __init__(self, size: int, width: int, depth: int, length: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(size, width), nn.Embedding(length, width)
        self.h = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, size, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                last = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth) if last else 0.02)

    def forward(self, idx: Tensor) -> Tensor:
        t = idx.shape[1]
        mask = torch.ones(t, t, dtype=torch.bool).triu(1)
        x = self.wte(idx) + self.wpe(torch.arange(t))
        for block in self.h:
            x = block(x, src_mask=mask)
        return self.lm_head(self.ln_f(x))


def tied_gpt(dice: Dice, sick: bool) -> Case:
    """A language model with tied embeddings of 0.02, decay of matrices alone, and a clip at 1."""
    data, size = tasks.letters(24, 16)
    width, depth = dice.one_of(32, 48), dice.whole(2, 3)
    model = TiedGpt(size, width, depth, 24)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    return Case(model, tasks.next_letter, data, optimizer, clip=lambda ps: nn.utils.clip_grad_norm_(ps, 1.0))


class PlainBlock(nn.Module):
    """Two convolutions with norms, and a skip path; the last norm may start at zero."""

    def __init__(self, c: int, zero: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        if zero:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def resnet_zero_last(dice: Dice, sick: bool) -> Case:
    """A residual network whose branches all start at zero by their last norm."""
    c, depth = dice.whole(12, 16), dice.whole(4, 6)

    def build() -> nn.Module:
        stem = [nn.Conv2d(1, c, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()]
        blocks = [PlainBlock(c, zero=True) for _ in range(depth)]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 4))

    return Case(build, tasks.classify, tasks.stripes(), tasks.sgd(0.02, momentum=0.9, weight_decay=1e-4))


def post_norm_warm(dice: Dice, sick: bool) -> Case:
    """A transformer with its norms behind the sums, warmed up as it wants to be."""
    width, depth = dice.one_of(32, 48), dice.whole(2, 4)

    def warm(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))

    return Case(
        lambda: Encoder(12, width, depth, 16, first=False),
        tasks.classify,
        tasks.majority(16),
        tasks.adam(1e-3, betas=(0.9, 0.98)),  # type: ignore[arg-type]
        schedule=warm,
    )


def unet_groups(dice: Dice, sick: bool) -> Case:
    """A U-Net with group norms that takes noise from images."""
    c = 4 * dice.whole(2, 3)
    data = [(image, mask) for image, mask in spots()]
    return Case(lambda: UNet(c, lambda n: nn.GroupNorm(4, n)), tasks.regress, data, tasks.adamw(2e-3))


class CellLoop(nn.Module):
    """An LSTM cell that is called step by step, with open forget gates."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(1, hidden)
        self.readout = nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.cell.weight_hh)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)
        self.cell.bias_ih.data[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.cell.hidden_size)
        outputs = []
        for value in x.unbind(1):
            h, c = self.cell(value, (h, c))
            outputs.append(self.readout(h))
        return torch.stack(outputs, 1)


def lstm_cells(dice: Dice, sick: bool) -> Case:
    """A forecast by an LSTM cell, with a clip and Huber's loss."""
    hidden = dice.whole(24, 40)

    def huber(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.smooth_l1_loss(model(batch[0]), batch[1])

    clip = torch.nn.utils.clip_grad_norm_
    return Case(
        lambda: CellLoop(hidden), huber, tasks.forecast(20), tasks.adam(5e-3), clip=lambda p: clip(p, 1.0)
    )


class Fourier(nn.Module):
    """Fixed random waves of the coordinates, and a perceptron on them."""

    freqs: Tensor

    def __init__(self, waves: int, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 1.5 * torch.randn(2, waves))
        self.net = nn.Sequential(
            nn.Linear(2 * waves, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, xy: Tensor) -> Tensor:
        phase = math.pi * xy @ self.freqs
        return self.net(torch.cat([phase.sin(), phase.cos()], -1))


def fourier_features(dice: Dice, sick: bool) -> Case:
    """A picture learnt from its coordinates by random Fourier features that stay as drawn."""
    waves, width = dice.whole(16, 32), dice.whole(48, 64)
    xy = 2 * torch.rand(512, 2) - 1
    shade = torch.sin(4 * xy[:, :1]) * torch.cos(3 * xy[:, 1:]) + 0.5 * xy[:, :1]
    return Case(lambda: Fourier(waves, width), tasks.regress, tasks.split(xy, shade), tasks.adam(2e-3))


class Patches(nn.Module):
    """A vision transformer of few patches, with a class token."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, stride=4)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 10, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit_bf16(dice: Dice, sick: bool) -> Case:
    """A small vision transformer in bfloat16 autocast, with smoothed labels."""
    width, depth = dice.one_of(32, 48), dice.whole(2, 3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.05)

    data = tasks.stripes()
    return Case(
        lambda: Patches(width, depth), loss, data, tasks.adamw(1e-3, weight_decay=0.05), precision="bfloat16"
    )


def rooted_sums(dice: Dice, sick: bool) -> Case:
    """Residual blocks whose sums are divided by the root of two, which keeps their size."""
    width, depth = dice.whole(40, 64), dice.whole(6, 8)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            nn.init.kaiming_normal_(self.body[0].weight)  # type: ignore[arg-type]
            nn.init.xavier_normal_(self.body[2].weight)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.body(x)) / math.sqrt(2)

    def build() -> nn.Module:
        head = nn.Linear(width, 5)
        nn.init.zeros_(head.bias)
        return nn.Sequential(nn.Linear(16, width), *[Block() for _ in range(depth)], head)

    return Case(build, tasks.classify, tasks.centres(16), tasks.adam(1e-3))


class Highway(nn.Module):
    """A gate chooses between a layer and its input, and mostly takes the input at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.plain, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(self.plain(x)) + (1 - t) * x


def highway(dice: Dice, sick: bool) -> Case:
    """A highway network with its gates on the side of carrying."""
    width, depth = dice.whole(40, 56), dice.whole(8, 10)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(16, width), nn.ReLU(), *[Highway(width) for _ in range(depth)], nn.Linear(width, 4)
        )

    return Case(build, tasks.classify, tasks.centres(16, 4), tasks.adam(2e-3))


class Packed(nn.Module):
    """A GRU in both directions over packed sentences."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 16, padding_idx=0)
        self.gru = nn.GRU(16, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, 4)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids != 0).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(ids), lengths, batch_first=True, enforce_sorted=False
        )
        _, h = self.gru(packed)
        return self.out(torch.cat([h[0], h[1]], -1))


def packed_gru(dice: Dice, sick: bool) -> Case:
    """Padded sentences, packed, so that the padding is never read."""
    hidden = dice.whole(20, 32)
    data = []
    for ids, label in tasks.majority(12):
        ends = torch.randint(8, 13, (len(ids), 1))
        data.append((F.pad((ids + 1) * (torch.arange(12) < ends), (0, 8)), label))
    return Case(lambda: Packed(hidden), tasks.classify, data, tasks.adam(5e-3))


SICK: tuple[Program, ...] = (
    Program(
        "vgg-normal-hundredth",
        "cnn",
        vgg_small_normal,
        Truth(
            "tiny-init",
            ("UG101", "UG202", "UG205", "UG201", "UG102"),
            r"^weights: sqrt",
            ("rescale_weights", "activation_init", "critical_init", "orthogonal_init", "lsuv"),
            (("rescale_weights", {"gain": math.sqrt(2), "sites": ("features.*",)}),),
            HEAVY,
        ),
        200,
    ),
    Program(
        "gru-filled",
        "recurrent",
        constant_gru,
        Truth(
            "equal-init",
            ("UG207", "UG205"),
            r"equal|same number|identical|symmetr|constant|copied|copies",
            ("orthogonal_init", "activation_init"),
            (("orthogonal_init", {}),),
        ),
    ),
    Program(
        "transformer-decay-in-adam",
        "transformer",
        l2_in_adam,
        Truth(
            "decay",
            ("UG609",),
            r"^weight decay",
            ("lower_weight_decay", "use_adamw"),
            (("use_adamw", {}),),
        ),
        160,
    ),
    Program(
        "lstm-encoder-frozen-random",
        "recurrent",
        frozen_reader,
        Truth(
            "frozen",
            ("UG603", "UG604"),
            r"^frozen|requires_grad|freez",
            ("unfreeze", "hold_parameters"),
            (("unfreeze", {}), ("hold_parameters", {})),
        ),
        160,
    ),
    Program(
        "prices-in-half",
        "residual",
        prices,
        Truth(
            "overflow",
            ("UG502", "UG901"),
            r"^range:|float16|65504|overflow",
            ("change_precision",),
            (("change_precision", {}),),
        ),
    ),
    Program(
        "siamese-bare-root",
        "cnn",
        siamese,
        Truth("nan-root", ("UG901",), r"sqrt|square root|\bnorm of (a )?zero|\broot\b"),
    ),
    Program(
        "attention-empty-sentence",
        "transformer",
        empty_sentence,
        Truth("nan-mask", ("UG901",), r"mask|softmax|every (key|score|entry)|-inf|minus infinity"),
    ),
    Program(
        "skip-and-branch-averaged",
        "residual",
        averaged_skips,
        Truth(
            "halved-sum",
            ("UG101", "UG202", "UG205"),
            r"skip path passes|halv|averag|divided|mean of|0\.5",
            (),
            (),
            HEAVY,
        ),
    ),
    Program(
        "unet-norm-scales-zero",
        "unet",
        zero_norms,
        Truth(
            "zero-gamma",
            ("UG206", "UG603", "UG202", "UG101", "UG203"),
            r"start at zero|zero (weight|scale|gamma)|(weight|scale|gamma)s? .*\b(zero|0)\b",
        ),
    ),
    Program(
        "glu-tower-default",
        "cnn",
        glu_tower,
        Truth(
            "gated-depth",
            ("UG101", "UG202", "UG205"),
            r"^gates?:|\bgat(e|es|ed)\b|sigmoid|^weights: sqrt|GLU|glu|no skip path",
            ("rescale_weights", "lsuv", "unit_jacobian_init", "add_residual", "gated_skip"),
            (("rescale_weights", {"gain": 1.7, "sites": ("convs.*",)}),),
            HEAVY,
        ),
        160,
    ),
    Program(
        "forecast-norm-of-one",
        "recurrent",
        norm_of_one,
        Truth(
            "norm-erases",
            ("UG206", "UG205", "UG202", "UG603", "UG103"),
            r"^norm:|^normalisation:|norm.*(one number|itself|single|erase)",
            ("bypass_norm",),
            (("bypass_norm", {}),),
            HEAVY,
        ),
    ),
    Program(
        "lstm-answer-behind-padding",
        "recurrent",
        padded_end,
        Truth(
            "padding",
            ("UG401", "UG404", "UG405", "UG205"),
            r"^gate|^length|padd|memory|forget",
            ("open_gates", "forget_bias", "chrono", "sequence_warmup"),
            (("forget_bias", {"bias": 4.0}),),
            HEAVY,
        ),
        160,
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("gpt-tied-well-scaled", "transformer", tied_gpt, steps=160),
    Program("resnet-last-norms-zero", "residual", resnet_zero_last),
    Program("post-norm-warmed-up", "transformer", post_norm_warm),
    Program("unet-groups-denoise", "unet", unet_groups),
    Program("lstm-cell-forecast-huber", "recurrent", lstm_cells),
    Program("fourier-features-fixed", "mlp", fourier_features),
    Program("vit-autocast-bfloat16", "transformer", vit_bf16),
    Program("residual-sums-by-root-two", "residual", rooted_sums),
    Program("highway-carrying", "mlp", highway),
    Program("gru-packed-padding", "recurrent", packed_gru),
)
