"""The networks of the text-to-image systems, small enough for two cores.

All of them take images from -1 to 1 and timesteps from 0 to 999.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

LENGTH = 20  # tokens of a prompt
WIDTH = 128
HEADS = 4


def embedded(timestep, width):
    """Sines and cosines of a timestep [B], [B, width]."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = timestep.float()[:, None] * rates[None]
    return torch.cat([angles.cos(), angles.sin()], 1)


class Attention(nn.Module):
    def __init__(self, width, context=None):
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context or width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x, context=None, keep=None):
        b, n, c = x.shape
        source = x if context is None else context
        q = self.q(x).view(b, n, HEADS, -1).transpose(1, 2)
        k, v = self.kv(source).view(b, source.shape[1], 2, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.out(y.transpose(1, 2).reshape(b, n, c))


def perceptron(width):
    return nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(approximate="tanh"), nn.Linear(3 * width, width))


def layer(width):
    """The parts of a layer of a transformer: norm, attention, norm, perceptron."""
    return nn.ModuleList([nn.LayerNorm(width), Attention(width), nn.LayerNorm(width), perceptron(width)])


class Text(nn.Module):
    """A text encoder: ids [B, 20], of which 0 is padding, to embeddings [B, 20, width] and a pooled
    one [B, width]."""

    def __init__(self, vocabulary, width=WIDTH, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        keep = (ids != 0)
        # An empty prompt attends to its padding.
        visible = (keep | ~keep.any(1, keepdim=True))[:, None, None, :]
        x = self.embedding(ids) + self.position
        for norm, attention, norm2, mlp in self.layers:
            x = x + attention(norm(x), keep=visible)
            x = x + mlp(norm2(x))
        x = self.norm(x)
        weight = visible[:, 0, 0, :, None].to(x.dtype)
        return x, (x * weight).sum(1) / weight.sum(1)


class Layout(nn.Module):
    """What is at each place of a scene, from the embeddings of its caption: [B, cells, 7 + 6 + 4 + 4]
    logits. It serves the training of a text encoder alone."""

    KINDS = [7, 6, 4, 4]  # colors, shapes, textures, sizes, and nothing

    def __init__(self, grid):
        super().__init__()
        self.cells = nn.Parameter(torch.randn(grid * grid, WIDTH) * 0.02)
        self.cross = Attention(WIDTH)
        self.layers = nn.ModuleList([layer(WIDTH)])
        self.leave = nn.Linear(WIDTH, sum(self.KINDS))

    def forward(self, text):
        x = self.cells.expand(len(text), -1, -1)
        x = x + self.cross(x, text)
        for norm, attention, norm2, mlp in self.layers:
            x = x + attention(norm(x))
            x = x + mlp(norm2(x))
        return self.leave(F.layer_norm(x, (WIDTH,)))


class Residual(nn.Module):
    """Two convolutions, shifted and scaled by an embedding."""

    def __init__(self, channels, embedding):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.norm = nn.GroupNorm(8, channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x, embedding):
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, 1)
        y = self.first(F.silu(self.norm(x)))
        return x + self.second(F.silu(y * (1 + scale) + shift))


class Block(nn.Module):
    """Self-attention, attention to the text, and a perceptron, modulated by time (PixArt's
    adaLN-single: one projection for all blocks, and an offset for each)."""

    def __init__(self, width):
        super().__init__()
        self.attention = Attention(width)
        self.cross = Attention(width)
        self.mlp = perceptron(width)
        self.offset = nn.Parameter(torch.zeros(6, width))
        for last in (self.cross.out, self.attention.out, self.mlp[2]):
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)

    def forward(self, x, text, modulation):
        shift, scale, gate, shift2, scale2, gate2 = (modulation + self.offset).split(1, dim=1)
        y = F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift
        x = x + (1 + gate) * self.attention(y)
        x = x + self.cross(F.layer_norm(x, (WIDTH,)), text)
        y = F.layer_norm(x, (WIDTH,)) * (1 + scale2) + shift2
        return x + (1 + gate2) * self.mlp(y)


class Base(nn.Module):
    """The denoiser of 32x32 pixels: convolutions at 16x16, and a transformer of 8x8 tokens that
    attends to the text. Its output is v (Salimans and Ho 2022)."""

    def __init__(self, width=WIDTH, channels=32, blocks=6):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(width, width)
        self.enter = nn.Conv2d(12, channels, 3, padding=1)
        self.down = nn.ModuleList([Residual(channels, width)])
        self.join = nn.Conv2d(channels, width, 2, stride=2)
        self.position = nn.Parameter(torch.randn(64, width) * 0.02)
        self.text_norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.split = nn.Linear(width, 4 * channels)
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.up = nn.ModuleList([Residual(channels, width), Residual(channels, width)])
        self.leave = nn.Conv2d(channels, 12, 3, padding=1)
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.width = width

    def forward(self, sample, timestep, encoder_hidden_states):
        b = sample.shape[0]
        text = self.text_norm(encoder_hidden_states)
        time = self.time(embedded(timestep, self.width)) + self.pooled(text.mean(1))
        time = F.silu(time)
        x = self.enter(F.pixel_unshuffle(sample, 2))
        for block in self.down:
            x = block(x, time)
        skip = x
        x = self.join(x).flatten(2).transpose(1, 2) + self.position
        modulation = self.modulation(time).view(b, 6, -1)
        for block in self.blocks:
            x = block(x, text, modulation)
        x = self.split(F.layer_norm(x, (WIDTH,))).transpose(1, 2).reshape(b, -1, 8, 8)
        x = self.merge(torch.cat([F.pixel_shuffle(x, 2), skip], 1))
        for block in self.up:
            x = block(x, time)
        return F.pixel_shuffle(self.leave(x), 2)


class Upsampler(nn.Module):
    """From 32x32 to 64x64: a denoiser of the large image that sees the small one, enlarged, as three
    more channels, with noise of the level `class_labels`."""

    def __init__(self, width=64, channels=48, blocks=4):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Conv2d(24, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(channels, width) for _ in range(blocks))
        self.leave = nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.width = width

    def forward(self, sample, timestep, class_labels=None):
        level = torch.zeros_like(timestep) if class_labels is None else class_labels
        time = F.silu(self.time(torch.cat([embedded(timestep, self.width), embedded(level, self.width)], 1)))
        x = self.enter(F.pixel_unshuffle(sample, 2))
        for block in self.blocks:
            x = block(x, time)
        return F.pixel_shuffle(self.leave(x), 2)


EMBEDDING = 128  # features of an image's embedding


class ContrastiveText(Text):
    """CLIP's text encoder (Radford et al. 2021): also `text_embeds`, [B, 128], of length 1."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary)
        self.projection = nn.Linear(WIDTH, EMBEDDING, bias=False)

    def forward(self, ids):
        hidden, pooled = super().forward(ids)
        return F.normalize(self.projection(pooled), dim=1), hidden


class ContrastiveImage(nn.Module):
    """CLIP's image encoder: images [B, 3, 64, 64] to embeddings [B, 128] of length 1."""

    def __init__(self):
        super().__init__()
        layers, previous = [], 12
        for channels in (32, 64, 128):
            layers += [nn.Conv2d(previous, channels, 3, stride=1 if previous == 12 else 2, padding=1), nn.GroupNorm(8, channels), nn.SiLU(),
                       nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.SiLU()]  # fmt: skip
            previous = channels
        self.trunk = nn.Sequential(*layers, nn.Conv2d(128, 64, 3, stride=2, padding=1), nn.SiLU())
        self.head = nn.Linear(64 * 16, EMBEDDING)

    def forward(self, image):
        return F.normalize(self.head(self.trunk(F.pixel_unshuffle(image, 2)).flatten(1)), dim=1)


class Prior(nn.Module):
    """The diffusion prior (Ramesh et al. 2022): from the tokens and the embedding of a text to the
    embedding of an image, which it predicts itself rather than the noise on it."""

    def __init__(self, width=WIDTH, blocks=4):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(EMBEDDING, width)
        self.text = nn.Linear(EMBEDDING, width)
        self.position = nn.Parameter(torch.randn(LENGTH + 4, width) * 0.02)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(layer(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, EMBEDDING)
        self.width = width

    def forward(self, hidden_states, timestep, proj_embedding, encoder_hidden_states):
        b = hidden_states.shape[0]
        x = torch.cat(
            [encoder_hidden_states, self.text(proj_embedding)[:, None], self.time(embedded(timestep, self.width))[:, None],
             self.enter(hidden_states)[:, None], self.query.expand(b, 1, self.width)], 1
        ) + self.position  # fmt: skip
        for norm, attention, norm2, mlp in self.blocks:
            x = x + attention(norm(x))
            x = x + mlp(norm2(x))
        return self.leave(self.norm(x[:, -1]))


class Decoder(Base):
    """DALL-E 2's decoder: the base, conditioned on an image's embedding in place of text."""

    TOKENS = 8

    def __init__(self):
        super().__init__()
        self.tokens = nn.Linear(EMBEDDING, self.TOKENS * WIDTH)

    def forward(self, sample, timestep, image_embeds):
        # The embedding has length 1, and its values a deviation of 1 / sqrt(128).
        tokens = self.tokens(image_embeds * EMBEDDING**0.5).view(-1, self.TOKENS, WIDTH)
        return super().forward(sample, timestep, tokens)
