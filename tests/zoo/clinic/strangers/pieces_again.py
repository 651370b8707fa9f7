"""Models and little tasks of programs on sequences and images that are kept aside."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clinic import tasks


def digits(length: int, rows: int = 96) -> tasks.Pairs:
    """Return strings of digits, from 2 on, and the same backwards; 0 is padding and 1 opens an output."""
    source = torch.randint(2, 10, (rows, length))
    return tasks.split(source, source.flip(1))


def utterances(frames: int, tokens: int, rows: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Return noisy spectra in which one band after the other sounds, and the bands, counted from 1."""
    spoken = torch.stack([torch.randperm(10)[:tokens] for _ in range(rows)]) + 1
    bands = F.one_hot(spoken, 12).float().repeat_interleave(frames // tokens, 1)
    spectra = F.pad(2 * bands, (0, 0, 0, frames - bands.shape[1])) + 0.3 * torch.randn(rows, frames, 12)
    return tasks.split(spectra, spoken)


class CausalSelfAttention(nn.Module):
    """Heads of attention, queries, keys and values from one map."""

    def __init__(self, width: int, heads: int, block_size: int, *, sick: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        visible = torch.ones(block_size, block_size).tril(diagonal=-1 if sick else 0)
        self.register_buffer("visible", visible.bool(), persistent=False)
        self.visible: Tensor

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, width = x.shape
        shape = (rows, steps, 3, self.heads, width // self.heads)
        q, k, v = self.c_attn(x).view(shape).permute(2, 0, 3, 1, 4)
        att = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        att = att.masked_fill(~self.visible[:steps, :steps], float("-inf")).softmax(-1)
        return self.c_proj((att @ v).transpose(1, 2).reshape(rows, steps, width))


class Translator(nn.Module):
    """nn.Transformer on short strings, teacher-forced."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(10, d_model), nn.Embedding(10, d_model)
        self.places = nn.Parameter(0.1 * torch.randn(16, d_model))
        self.transformer = nn.Transformer(
            d_model, 4, 2, 2, 2 * d_model, dropout=0.0, batch_first=True, norm_first=True
        )
        self.generator = nn.Linear(d_model, 10)

    def forward(self, source: Tensor, shifted: Tensor) -> Tensor:
        steps = shifted.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(steps)
        out = self.transformer(
            self.source(source) + self.places[: source.shape[1]],
            self.target(shifted) + self.places[:steps],
            tgt_mask=mask,
        )
        return self.generator(out)


class Recogniser(nn.Module):
    """Strided convolutions over time, a bidirectional GRU, and log-probabilities with a blank."""

    def __init__(self, width: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        front: list[nn.Module] = []
        for index, stride in enumerate(strides):
            front += [
                nn.Conv1d(width if index else 12, width, 5, stride, 2),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
        self.front = nn.Sequential(*front)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * width, 11)

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.front(spectra.transpose(1, 2)).transpose(1, 2)
        return self.fc(self.gru(x)[0]).log_softmax(-1)


class Attentive(nn.Module):
    """A GRU encoder, a GRU cell as decoder, additive attention between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(10, width), nn.Embedding(10, width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * width, width)
        self.decoder = nn.GRUCell(3 * width, width)
        self.w1, self.w2 = nn.Linear(2 * width, width), nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, 1, bias=False)
        self.out = nn.Linear(3 * width, 10)

    def forward(self, source: Tensor, shifted: Tensor) -> Tensor:
        memory, last = self.encoder(self.read(source))
        keys = self.w1(memory)
        state = torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))
        outputs = []
        for word in self.write(shifted).unbind(1):
            energy = self.v(torch.tanh(keys + self.w2(state)[:, None])).squeeze(-1)
            context = torch.bmm(energy.softmax(-1)[:, None], memory).squeeze(1)
            state = self.decoder(torch.cat([word, context], -1), state)
            outputs.append(self.out(torch.cat([state, context], -1)))
        return torch.stack(outputs, 1)


class TasNet(nn.Module):
    """Residual dilated convolutions on a waveform, each behind a global norm that was written by hand."""

    def __init__(self, channels: int, depth: int, *, half: bool) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, channels, 9, padding=4)
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**k, dilation=2**k) for k in range(depth)
        )
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(channels, 1)) for _ in range(depth))
        self.out = nn.Linear(channels, 4)
        self.narrow = half
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def global_norm(self, x: Tensor) -> Tensor:
        if not self.narrow:
            x = x.float()
        total = (x * x).sum((1, 2), keepdim=True)
        return x / (total / (x.shape[1] * x.shape[2]) + 1e-5).sqrt()

    def forward(self, wave: Tensor) -> Tensor:
        x = self.stem(wave)
        for gain, conv in zip(self.gains, self.convs, strict=True):
            x = x + conv(F.relu(gain * self.global_norm(x)))
        return self.out(self.global_norm(x).relu().mean(-1))


class AlibiDecoder(nn.Module):
    """A decoder without places: logits fall with distance. Root-mean-square norms, tied embeddings."""

    def __init__(self, vocabulary: int, d: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.d = heads, d
        self.embed = nn.Embedding(vocabulary, d)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.scale = nn.ParameterList(nn.Parameter(torch.ones(d)) for _ in range(2 * depth + 1))
        self.qkv = nn.ModuleList(nn.Linear(d, 3 * d, bias=False) for _ in range(depth))
        self.proj = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(depth))
        self.gate = nn.ModuleList(nn.Linear(d, 4 * d, bias=False) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in range(depth))
        for name, parameter in self.named_parameters():
            if name.startswith(("proj", "down")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth))

    def norm(self, x: Tensor, k: int) -> Tensor:
        return self.scale[k] * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    def forward(self, idx: Tensor) -> Tensor:
        rows, steps = idx.shape
        away = (torch.arange(steps)[None] - torch.arange(steps)[:, None]).float()
        slopes = 2.0 ** -torch.arange(1, self.heads + 1).float()
        bias = (slopes[:, None, None] * away).masked_fill(away > 0, float("-inf"))
        x = self.embed(idx)
        for k, qkv in enumerate(self.qkv):
            q, k_, v = (
                part.view(rows, steps, self.heads, -1).transpose(1, 2)
                for part in qkv(self.norm(x, 2 * k)).chunk(3, -1)
            )
            mixed = F.scaled_dot_product_attention(q, k_, v, attn_mask=bias)
            x = x + self.proj[k](mixed.transpose(1, 2).reshape(rows, steps, self.d))
            a, b = self.gate[k](self.norm(x, 2 * k + 1)).chunk(2, -1)
            x = x + self.down[k](F.silu(a) * b)
        return F.linear(self.norm(x, -1), self.embed.weight)


class Beats(nn.Module):
    """Blocks that each explain a part of the past and take it away, and add up what they foresee."""

    def __init__(self, past: int, units: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(past, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())
            for _ in range(blocks)
        )
        self.back = nn.ModuleList(nn.Linear(units, past, bias=False) for _ in range(blocks))
        self.fore = nn.ModuleList(nn.Linear(units, 4, bias=False) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        forecast = x.new_zeros(len(x), 4)
        for block, back, fore in zip(self.blocks, self.back, self.fore, strict=True):
            theta = block(x)
            x = x - back(theta)
            forecast = forecast + fore(theta)
        return forecast


def sums(steps: int, rows: int = 128) -> tasks.Pairs:
    """Return numbers with two of them marked, whose sum is asked for."""
    values = torch.rand(rows, steps)
    marks = torch.zeros(rows, steps)
    marks.scatter_(1, torch.stack([torch.randperm(steps)[:2] for _ in range(rows)]), 1.0)
    return tasks.split(torch.stack([values, marks], -1), (values * marks).sum(1, keepdim=True))


def discs(size: int = 16, rows: int = 32) -> tasks.Pairs:
    """Return noisy images of a disc and their masks."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle, radius = (
        size * (0.3 + 0.4 * torch.rand(rows, 2, 1, 1)),
        size * (0.15 + 0.15 * torch.rand(rows, 1, 1)),
    )
    masks = ((y - middle[:, 0]) ** 2 + (x - middle[:, 1]) ** 2 < radius**2).float()[:, None]
    return tasks.split(2 * masks - 0.6 + 0.5 * torch.randn(rows, 1, size, size), masks)


def scenes(size: int = 16, rows: int = 32) -> tasks.Pairs:
    """Return images of a shaded slope with a disc on it, and how far away each pixel is, in metres."""
    data = []
    for images, masks in discs(size, rows):
        slope = torch.linspace(-1, 1, size)[:, None] * torch.rand(len(masks), 1, 1, 1).sub(0.5).sign()
        data.append((images + slope, 6 * slope + 5 * masks - 1))
    return data


class GatedConv(nn.Module):
    """A convolution whose one half of the channels opens the other."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.both = nn.Conv2d(inner, 2 * outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.both(x).chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)


class Projector(nn.Module):
    """A convolutional encoder with a projection head, for contrastive learning."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, planes, 3, stride=2, padding=1),
            nn.GroupNorm(2, planes),
            nn.SiLU(),
            nn.Conv2d(planes, 2 * planes, 3, stride=2, padding=1),
            nn.GroupNorm(2, 2 * planes),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.g = nn.Sequential(nn.Linear(8 * planes, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.g(self.f(x)), dim=-1)


class Mixer(nn.Module):
    """Patches mixed over places, then over channels."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 2, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * depth))
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(depth)
        )
        self.channels = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth)
        )
        self.last, self.head = nn.LayerNorm(dim), nn.Linear(dim, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for k, (tokens, channels) in enumerate(zip(self.tokens, self.channels, strict=True)):
            x = x + tokens(self.norms[2 * k](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * k + 1](x))
        return self.head(self.last(x).mean(1))


def twice(inner: int, outer: int) -> nn.Sequential:
    """Return two convolutions, each with a norm and a ReLU."""
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [nn.Conv2d(channels, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Down twice, up twice, joined by skip paths."""

    def __init__(self, base: int, *, squashed: bool = False) -> None:
        super().__init__()
        self.enc1, self.enc2 = twice(1, base), twice(base, 2 * base)
        self.mid = twice(2 * base, 4 * base)
        self.up2, self.dec2 = nn.ConvTranspose2d(4 * base, 2 * base, 2, 2), twice(4 * base, 2 * base)
        self.up1, self.dec1 = nn.ConvTranspose2d(2 * base, base, 2, 2), twice(2 * base, base)
        self.out = nn.Conv2d(base, 1, 1)
        self.squashed = squashed

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        x = self.mid(F.max_pool2d(e2, 2))
        x = self.dec2(torch.cat([self.up2(x), e2], 1))
        x = self.out(self.dec1(torch.cat([self.up1(x), e1], 1)))
        return torch.tanh(x) if self.squashed else x


class Basic(nn.Module):
    """The basic block of a ResNet, whose last norm starts at zero."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        nn.init.zeros_(self.bn2.weight)
        self.downsample: nn.Module | None = None
        if stride > 1 or inner != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + identity)


def resnet(width: int, classes: int = 6) -> nn.Sequential:
    """Return a small ResNet."""
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Basic(width, width, 1),
        Basic(width, 2 * width, 2),
        Basic(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class NextBlock(nn.Module):
    """A depthwise convolution, a norm, an inverted bottleneck, a scale per channel that starts at 1e-6."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """A vision transformer with attention by hand, a token for the class that starts at zero."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Conv2d(1, dim, 2, 2)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.empty(1, 17, dim))
        nn.init.trunc_normal_(self.pos, std=0.02)
        self.n1 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.n2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(depth))
        self.proj = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 6)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        for n1, n2, qkv, proj, mlp in zip(self.n1, self.n2, self.qkv, self.proj, self.mlp, strict=True):
            q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in qkv(n1(x)).chunk(3, -1))
            weights = torch.softmax(q @ k.mT * (self.dim // 4) ** -0.5, -1)
            x = x + proj((weights @ v).transpose(1, 2).flatten(2))
            x = x + mlp(n2(x))
        return self.head(self.norm(x)[:, 0])


class ArcFace(nn.Module):
    """Features on a sphere and class centres, apart by an angle of margin."""

    def __init__(self, planes: int, scale: float, margin: float) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.BatchNorm2d(planes),
            nn.PReLU(),
            nn.Conv2d(planes, 2 * planes, 3, 2, 1),
            nn.BatchNorm2d(2 * planes),
            nn.PReLU(),
            nn.Flatten(),
            nn.Linear(32 * planes, 24, bias=False),
            nn.BatchNorm1d(24),
        )
        self.centres = nn.Parameter(torch.empty(6, 24))
        nn.init.xavier_uniform_(self.centres)
        self.scale, self.margin = scale, margin

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(self.backbone(x)), F.normalize(self.centres))
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        return self.scale * torch.where(F.one_hot(labels, 6).bool(), torch.cos(angle + self.margin), cosine)
