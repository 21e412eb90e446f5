"""Trains one part of a text-to-image system: python train.py PART POOL RESULT.pt --minutes M [--start OTHER.pt]."""

import argparse
import copy
import pickle
import time
from pathlib import Path

import networks
import numpy as np
import torch
import torch.nn.functional as F
from diffusion import STEPS, Optimizer, noised, sample
from reader import Reader, planes, read, score
from scenes import COLORS, SHAPES, SIZES, TEXTURES, altered, caption, drawn, random_scene
from words import VOCABULARY, ids


class Pool:
    def __init__(self, folder, seed):
        self.pictures = np.load(folder / "pictures.npy", mmap_mode="r")
        self.scenes = pickle.loads((folder / "scenes.pickle").read_bytes())
        self.rng = np.random.default_rng(seed)

    def drawn(self, count):
        """Pictures [B, 3, 64, 64] from -1 to 1, and their scenes."""
        at = np.sort(self.rng.integers(0, len(self.scenes), count))
        return planes(self.pictures[at]), [self.scenes[i] for i in at]

    def batch(self, count):
        """Pictures [B, 3, 64, 64] from -1 to 1, and the ids of captions."""
        pictures, scenes = self.drawn(count)
        return pictures, torch.tensor([ids(caption(scene, self.rng)) for scene in scenes])


class Average:
    """The exponential moving average of weights."""

    def __init__(self, modules):
        self.modules = modules
        self.copies = [copy.deepcopy(module).eval() for module in modules]
        self.count = 0

    @torch.no_grad()
    def update(self):
        self.count += 1
        keep = min(0.9995, self.count / (self.count + 20))
        for module, average in zip(self.modules, self.copies, strict=True):
            for p, q in zip(module.parameters(), average.parameters(), strict=True):
                q.lerp_(p, 1 - keep)


def late_timesteps(count):
    """Timesteps [B], more of them late, where the condition decides."""
    return (STEPS * (1 - torch.rand(count) ** 1.4)).long().clamp(0, STEPS - 1)


class BasePart:
    """GLIDE's form: a base of 32x32 pixels and a text encoder that learns with it."""

    def __init__(self, args):
        self.text, self.base = networks.Text(len(VOCABULARY)), networks.Base()
        self.modules = {"text": self.text, "base": self.base}

    def loss(self, pool, count):
        x, tokens = pool.batch(count)
        x = F.avg_pool2d(x, 2)
        tokens = tokens * (torch.rand(count, 1) > 0.12)
        timestep = late_timesteps(count)
        state, v = noised(x, timestep)
        return F.mse_loss(self.base(state, timestep, self.text(tokens)[0]), v)

    @staticmethod
    def images(modules, texts, scale, steps=16, seed=0):
        text, base = modules
        hidden = text(torch.tensor([ids(t) for t in texts]))[0]
        empty = text(torch.zeros(len(texts), networks.LENGTH, dtype=torch.long))[0]
        predict = lambda x, t, guided: base(x, t, hidden if guided else empty)
        small = sample(predict, (len(texts), 3, 32, 32), steps, scale, generator=torch.Generator().manual_seed(seed))
        return F.interpolate(small.clamp(-1, 1), scale_factor=2, mode="bilinear")


class LayoutPart:
    """A text encoder that learns where a scene's shapes are, before it sees any picture. With pictures
    alone it learns late which words belong together: an error of them costs the loss little."""

    GRID = 4

    def __init__(self, args):
        self.text, self.layout = networks.Text(len(VOCABULARY)), networks.Layout(self.GRID)
        self.modules = {"text": self.text, "layout": self.layout}

    def loss(self, pool, count):
        scenes = [random_scene(pool.rng) for _ in range(count)]
        tokens = torch.tensor([ids(caption(scene, pool.rng)) for scene in scenes])
        cells = torch.tensor(np.stack([self.cells(drawn(scene, pool.rng)) for scene in scenes]))
        kinds = self.layout(self.text(tokens)[0]).split(networks.Layout.KINDS, 2)
        return sum(F.cross_entropy(logits.flatten(0, 1), cells[..., i].flatten()) for i, logits in enumerate(kinds))

    def cells(self, scene):
        """What is in each cell, [cells, 4]: color, shape, texture and size; zeros where nothing is."""
        cells = np.zeros((self.GRID, self.GRID, 4), np.int64)
        for group, places in zip(scene.scene.groups, scene.places, strict=True):
            values = [1 + list(COLORS).index(group.color), 1 + SHAPES.index(group.shape), 1 + TEXTURES.index(group.texture), 1 + SIZES.index(group.size)]
            for x, y, _ in places:
                cells[min(int(y * self.GRID), self.GRID - 1), min(int(x * self.GRID), self.GRID - 1)] = values
        return cells.reshape(-1, 4)


class UpsamplerPart:
    """The upsampler of GLIDE's form and of Imagen's: it learns with noise on the enlarged image, of a
    timestep that it is conditioned on (Ho et al. 2022), which is 0 for GLIDE. A little more makes it robust
    against the errors of small images that were sampled."""

    def __init__(self, args):
        self.upsampler = networks.Upsampler()
        self.modules = {"upsampler": self.upsampler}

    def loss(self, pool, count):
        x, _ = pool.batch(count)
        level = (torch.rand(count) ** 2 * 400).long() * (torch.rand(count) < 0.7)
        small = F.avg_pool2d(x, 2)
        small = small + 0.04 * torch.rand(count, 1, 1, 1) * torch.randn_like(small)
        large = noised(F.interpolate(small, scale_factor=2, mode="bilinear"), level)[0]
        timestep = torch.randint(0, STEPS, (count,))
        state, v = noised(x, timestep)
        return F.mse_loss(self.upsampler(torch.cat([state, large], 1), timestep, level), v)


class ContrastivePart:
    """The encoders of DALL-E 2's form, which learn which caption is of which picture: of the captions of
    other pictures, and of some that are wrong in one thing."""

    ALTERED = 3

    def __init__(self, args):
        self.text, self.image = networks.ContrastiveText(len(VOCABULARY)), networks.ContrastiveImage()
        self.temperature = torch.nn.Parameter(torch.tensor(2.7))
        scale = torch.nn.Module()
        scale.register_parameter("temperature", self.temperature)
        self.modules = {"text": self.text, "image": self.image, "scale": scale}

    def loss(self, pool, count):
        x, scenes = pool.drawn(count)
        others = [altered(scene, pool.rng) for scene in scenes for _ in range(self.ALTERED)]
        tokens = torch.tensor([ids(caption(scene, pool.rng)) for scene in [*scenes, *others]])
        factor, embeddings = self.temperature.clamp(max=4.6).exp(), self.image(x)
        own, others = self.text(tokens)[0].split([count, count * self.ALTERED])
        logits = factor * embeddings @ own.T
        wrong = factor * torch.einsum("bd,bnd->bn", embeddings, others.view(count, self.ALTERED, -1))
        right = torch.arange(count)
        return (F.cross_entropy(torch.cat([logits, wrong], 1), right) + F.cross_entropy(logits.T, right)) / 2


def contrastive(args):
    """The trained encoders of `--encoders`, which do not change any more."""
    weights = torch.load(args.encoders)
    text, image = networks.ContrastiveText(len(VOCABULARY)), networks.ContrastiveImage()
    text.load_state_dict(weights["text"])
    image.load_state_dict(weights["image"])
    return text.eval().requires_grad_(False), image.eval().requires_grad_(False)


class PriorPart:
    def __init__(self, args):
        self.text, self.image = contrastive(args)
        self.prior = networks.Prior()
        self.modules = {"prior": self.prior}
        embeddings = self.image(planes(Pool(args.pool, 1).pictures[:2000]))
        self.moments = embeddings.mean(0), embeddings.std(0)
        self.extra = {"moments": self.moments}

    def loss(self, pool, count):
        x, tokens = pool.batch(count)
        mean, deviation = self.moments
        wanted = (self.image(x) - mean) / deviation
        pooled, hidden = self.text(tokens * (torch.rand(count, 1) > 0.1))
        timestep = torch.randint(0, STEPS, (count,))
        state, _ = noised(wanted, timestep)
        return F.mse_loss(self.prior(state, timestep, pooled, hidden), wanted)


class DecoderPart:
    def __init__(self, args):
        self.text, self.image = contrastive(args)
        self.decoder = networks.Decoder()
        self.modules = {"base": self.decoder}
        self.absent = self.image(torch.zeros(1, 3, 64, 64))

    def loss(self, pool, count):
        x, _ = pool.batch(count)
        embedding = torch.where(torch.rand(count, 1) < 0.12, self.absent, self.image(x))
        # The prior's embeddings are not exact either.
        embedding = embedding + torch.randn_like(embedding) * 0.02 * torch.rand(count, 1)
        x = F.avg_pool2d(x, 2)
        timestep = late_timesteps(count)
        state, v = noised(x, timestep)
        return F.mse_loss(self.decoder(state, timestep, embedding), v)


class FrozenBasePart(BasePart):
    """Imagen's form: the base of a text encoder that was trained before, and does not change."""

    def __init__(self, args):
        self.text, self.base = networks.Text(len(VOCABULARY)), networks.Base()
        self.text.load_state_dict(torch.load(args.encoders)["text"])
        self.text.eval().requires_grad_(False)
        self.modules = {"base": self.base}

    def images(self, modules, texts, scale, steps=16, seed=0):
        return BasePart.images([self.text, *modules], texts, scale, steps, seed)


PARTS = {
    "layout": LayoutPart, "base": BasePart, "upsampler": UpsamplerPart, "contrastive": ContrastivePart, "prior": PriorPart,
    "decoder": DecoderPart, "frozen-base": FrozenBasePart,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("pool", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--start", type=Path, action="append", default=[], help="weights of other parts to start from; later ones replace earlier ones")
    parser.add_argument("--encoders", type=Path, help="the trained encoders that this part needs")
    parser.add_argument("--reader", type=Path)
    parser.add_argument("--every", type=float, default=10, help="minutes between evaluations")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    pool = Pool(args.pool, args.seed)
    part = PARTS[args.part](args)
    modules = part.modules
    for start in args.start:
        weights = torch.load(start)
        for name, module in modules.items():
            if name in weights:
                module.load_state_dict(weights[name], strict=False)
    optimizer = Optimizer(modules.values(), args.rate)
    average = Average(list(modules.values()))
    reader = None
    if args.reader:
        reader = Reader().eval()
        reader.load_state_dict(torch.load(args.reader))
    rng = np.random.default_rng(12345)
    tests = [random_scene(rng, held_out=i % 2 == 1) for i in range(192)]
    texts = [caption(scene) for scene in tests]
    start, losses, evaluated, step = time.time(), [], 0.0, 0
    while (minutes := (time.time() - start) / 60) < args.minutes:
        part_done = minutes / args.minutes
        factor = min(1, (step + 1) / 100) * min(1, (1 - part_done) / 0.35 + 0.02)
        loss = part.loss(pool, args.batch)
        loss.backward()
        optimizer.step(factor)
        average.update()
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            print(f"{minutes:.1f} min, step {step}: loss {np.mean(losses[-100:]):.4f}", flush=True)
        if minutes - evaluated > args.every:
            evaluated = minutes
            save(args.result, part, average)
            if reader is not None:
                evaluate(part, average.copies, reader, texts, tests, (1.0, 3.0))
    save(args.result, part, average)
    if reader is not None:
        evaluate(part, average.copies, reader, texts, tests, (1.0, 2.0, 3.0, 5.0))


def save(path, part, average):
    modules = part.modules
    parts = getattr(part, "extra", {}) | {name: module.state_dict() for name, module in zip(modules, average.copies, strict=True)}
    parts |= {f"raw-{name}": module.state_dict() for name, module in modules.items()}
    torch.save(parts, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


@torch.no_grad()
def evaluate(part, modules, reader, texts, tests, scales):
    for scale in scales:
        seen = [read(reader, part.images(modules, texts[i : i + 64], scale)) for i in range(0, len(texts), 64)]
        shown = score(torch.cat(seen), tests)
        print(f"  scale {scale}: " + ", ".join(f"{name} {100 * value:.0f}" for name, value in shown.items()), flush=True)


if __name__ == "__main__":
    main()
