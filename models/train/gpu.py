"""Trains several networks at once on a GPU whose memory holds all training data.

    python gpu.py denoise --photos PHOTOS --pool out/pool --validation VALIDATION --out out --seconds 500
    python gpu.py upscale --photos PHOTOS --pool out/pool --validation VALIDATION --out out --seconds 500
    python gpu.py prior   --photos PHOTOS --pool out/pool --validation VALIDATION --out out --seconds 500
    python gpu.py camera  --photos PHOTOS --clips out/clips --validation VALIDATION --out out --seconds 500 --workers 12

The examples are those of `train.py`, by the same rules (`noise.py`, `jobs.py`, `examples.py`), drawn for a whole batch at once. The networks of a
family see the same batches: `denoise` also trains `denoise-fast` and `denoise-nano`, `camera` also `camera-nano`, `upscale` both upscalers. What the networks are is in configs/*.toml, under [model]. Writes NAME.pt, whose
"average" `export.py` takes. The budget is time, so what comes out differs by a little from run to run.
"""

import argparse
import multiprocessing
import time
import tomllib
from pathlib import Path

import cv2
import numpy as np
import torch
import torch._dynamo
from torch.nn import functional as F

import jobs
import noise
from few_steps import Upscale
from clips import photographs
from examples import Examples, drawn
from network import grow, parameter_count
from train import loss_of, rate

HERE = Path(__file__).parent
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Images:
    """Images of any size in the GPU's memory, from which patches are taken by their area."""

    SHARES = {"photographs": 0.78, "synthesized": 0.14, "drawn": 0.08}

    def __init__(self, photos, pool, patch, power=1.0):
        """An image's share among those of its kind goes with its area to that power: with less than 1, photographs at half the size, which are
        sharper, count for more."""
        rng = np.random.default_rng(3)
        kinds = {"photographs": photographs(photos)[0], "drawn": [drawn(rng, 192) for _ in range(1500)], "synthesized": []}
        for shard in sorted(Path(pool).glob("pool-*.npy")):
            kinds["synthesized"] += list(np.load(shard))
        pixels, rows, shares = [], [], []
        at = 0
        for kind, images in kinds.items():
            images = [p for p in images if min(p.shape[:2]) >= patch]
            areas = np.array([p.shape[0] * p.shape[1] for p in images], float) ** power
            shares += list(self.SHARES[kind] * areas / areas.sum()) if images else []
            for p in images:
                pixels.append(np.ascontiguousarray(p).reshape(-1, 3))
                rows.append((at, p.shape[0], p.shape[1]))
                at += p.shape[0] * p.shape[1]
        self.pixels = torch.from_numpy(np.concatenate(pixels)).to(GPU)
        self.rows = torch.tensor(rows, device=GPU)
        self.shares = torch.tensor(shares, device=GPU)
        self.patch = patch

    def batch(self, count):
        """Clean patches, turned, mirrored, with exposure and contrast varied, [count, 3, patch, patch]."""
        size = self.patch
        start, height, width = self.rows[torch.multinomial(self.shares, count, replacement=True)].T[:, :, None, None]
        uniform = lambda *shape: torch.rand(*shape, device=GPU)
        top, left = ((uniform(count, 1, 1) * (n - size + 1)).long() for n in (height, width))
        i, j = torch.arange(size, device=GPU)[None, :, None], torch.arange(size, device=GPU)[None, None, :]
        turn, down, across = (uniform(count, 1, 1) < 0.5 for _ in range(3))
        y, x = torch.where(turn, j, i), torch.where(turn, i, j)
        y, x = torch.where(down, size - 1 - y, y), torch.where(across, size - 1 - x, x)
        patches = self.pixels[start + (top + y) * width + left + x].permute(0, 3, 1, 2).float() / 255
        permuted = patches[:, torch.randperm(3, device=GPU)]
        patches = torch.where(uniform(count, 1, 1, 1) < 0.15, permuted, patches)
        contrast, middle = (0.25 * torch.randn(count, 1, 1, 1, device=GPU)).exp(), uniform(count, 1, 1, 1)
        return ((patches - middle) * contrast + middle).clamp(0, 1)


def levels(count):
    """Noise levels as `noise.level` draws them, [count, 1, 1, 1]."""
    kind, u = torch.rand(2, count, 1, 1, 1, device=GPU)
    return torch.where(kind < 0.7, 3 + 57 * u, torch.where(kind < 0.9, 100 * u, 10 ** (2.5 * u - 0.5))) / 255


def sigma_maps(clean):
    """Maps of sigma as `noise.sigma_map` draws them, [B, 1, H, W]."""
    count, _, height, width = clean.shape
    uniform = lambda *shape: torch.rand(*shape, device=GPU)
    level, kind = levels(count), uniform(count, 1, 1, 1)
    field = F.interpolate(uniform(count, 1, 3, 3), (height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    smooth = level + (levels(count) - level) * field
    signal, share = clean.mean(1, keepdim=True), uniform(count, 1, 1, 1)
    shot = signal / (signal.mean((2, 3), keepdim=True) + 0.05)
    sensor = (level * (share * shot + 1 - share).sqrt()).clamp(max=noise.SIGMA_MAX)
    boxes = level.expand(-1, -1, height, width)
    y, x = torch.arange(height, device=GPU).view(1, 1, -1, 1), torch.arange(width, device=GPU).view(1, 1, 1, -1)
    for i in range(3):
        top, left, high, wide = (uniform(count, 1, 1, 1) * n for n in (height, width, height, width))
        inner = torch.where(uniform(count, 1, 1, 1) < 0.2, 0.0, levels(count))
        within = (y >= top) & (y < top + high + 4) & (x >= left) & (x < left + wide + 4) & (uniform(count, 1, 1, 1) < (1.0, 0.67, 0.33)[i])
        boxes = torch.where(within, inner, boxes)
    maps = torch.where(kind < 0.75, smooth, torch.where(kind < 0.9, sensor, boxes))
    return torch.where(kind < 0.6, level, maps)


class Family:
    """Networks that learn from the same examples."""

    def train(self, networks, count, progress):
        inputs, clean, weight = self.examples(count)
        for n in networks:
            n.train(inputs, clean, weight, progress)


class Denoise(Family):
    names, batch, error = ("denoise", "denoise-fast", "denoise-nano"), 64, "absolute"
    rates = {"denoise": 1e-3, "denoise-fast": 1e-3, "denoise-nano": 2e-3}

    def __init__(self, args):
        self.images = Images(args.photos, args.pool, 128)

    def examples(self, count):
        clean = self.images.batch(count)
        uniform = lambda: torch.rand(count, 1, 1, 1, device=GPU)
        gray = uniform() < 0.1
        weights = torch.tensor([0.299, 0.587, 0.114], device=GPU).view(1, 3, 1, 1)
        clean = torch.where(gray, (clean * weights).sum(1, keepdim=True), clean)
        white = torch.randn_like(clean)
        white = torch.where(gray, white[:, :1], white)
        sigma = sigma_maps(clean)
        noisy, share = clean + sigma * white, uniform()
        cut = noisy.clamp(0, 1)
        noisy = torch.where(share < 0.55, cut, noisy)
        noisy = torch.where(share < 0.3, (cut * 255).round() / 255, noisy)
        return (noisy, sigma), clean, ((sigma + 2 / 255) / (27 / 255)) ** -1.15

    def validation(self, args):
        images = [cv2.imread(str(p))[..., ::-1][:512, :512] for p in sorted(Path(args.validation).glob("*.jpg"))]
        images = [p[: p.shape[0] // 32 * 32, : p.shape[1] // 32 * 32].copy() for p in images]
        return [torch.from_numpy(p).permute(2, 0, 1)[None].float().to(GPU) / 255 for p in images]

    def validate(self, network, clean):
        """PSNR in dB at sigma 15, 25 and 50 of 255, and of images clipped as in files."""
        scores = []
        for cut in (False, True):
            for level in (15, 25, 50):
                x = clean + level / 255 * jobs.seeded_noise(clean, level)
                scores.append(jobs.psnr(network(x.clamp(0, 1) if cut else x, torch.full_like(clean[:, :1], level / 255)), clean))
        return scores


class Prior(Family):
    names, batch, rates, error = ("prior",), 48, {"prior": 6e-4}, "root"

    def __init__(self, args):
        self.images, self.model = Images(args.photos, args.pool, 128), configuration("prior")
        rng = np.random.default_rng(5)
        self.masks = torch.from_numpy(np.stack([jobs.missing(rng, 128, 128) for _ in range(6000)]).astype(bool)).to(GPU)

    def examples(self, count):
        clean, sd = 2 * self.images.batch(count) - 1, self.model["sigma_data"]
        uniform = lambda: torch.rand(count, 1, 1, 1, device=GPU)
        known, largest = jobs.Generate.KNOWN, jobs.Generate.LARGEST
        level = (1.6 * torch.randn(count, 1, 1, 1, device=GPU) - 1).exp()
        masked = uniform() < self.model["masked"]
        asks = masked & (uniform() < 0.5)
        level = torch.where(asks, largest, torch.where(masked, 3 * level, level)).clamp(known, largest)
        holes = self.masks[torch.randint(len(self.masks), (count,), device=GPU)][:, None] | ~masked
        sigma = torch.where(holes, level, known)
        x = clean + sigma * torch.randn_like(clean)
        x = torch.where(holes & (masked & (level == largest) & (uniform() < 0.6)), 0.0, x)
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2 * torch.where(holes, 1.0, 1e-3)
        return (x, sigma), clean, weight / holes.float().mean((1, 2, 3), keepdim=True).clamp(min=0.05)

    validation = Denoise.validation

    def validate(self, network, clean):
        return jobs.Generate(self.model).validate(network, clean)


class Planes(Family):
    """Workers make examples continuously; the GPU's memory keeps the latest of them, from which batches are sampled."""

    names, batch, error = ("camera", "camera-nano"), 64, "absolute"
    rates = {"camera": 8e-4, "camera-nano": 1.5e-3}
    PATCH, PART, KEPT = 64, 32, 100_000

    def __init__(self, args):
        parts = 4 * args.workers
        size = lambda channels, side=self.PATCH: torch.empty(parts, self.PART, channels, side, side, dtype=torch.float16).share_memory_()
        self.parts = (size(6), size(2), size(6), size(1, 1))
        self.free, self.ready = multiprocessing.Queue(), multiprocessing.Queue()
        for part in range(parts):
            self.free.put(part)
        for seed in range(args.workers):
            multiprocessing.Process(target=self.draw, args=(args, seed), daemon=True).start()
        self.kept = [torch.empty(self.KEPT, *p.shape[2:], dtype=torch.float16, device=GPU) for p in self.parts]
        self.count = 0

    def draw(self, args, seed):
        torch.set_num_threads(1)
        examples, rng = Examples(args.photos, args.clips, args.pool), np.random.default_rng([args.seed, seed])
        for i in range(10**9):
            if i % 16 == 0:
                examples.refresh()
            (x, sigma), target, weight = examples.batch(rng, self.PART, self.PATCH)
            part = self.free.get()
            for place, values in zip(self.parts, (x, sigma, target, weight)):
                place[part] = values
            self.ready.put(part)

    def take(self):
        while not self.ready.empty() or self.count < 64 * self.PART:
            part = self.ready.get()
            at = self.count % (self.KEPT // self.PART * self.PART)
            for kept, place in zip(self.kept, self.parts):
                kept[at : at + self.PART] = place[part].to(GPU)
            self.free.put(part)
            self.count += self.PART

    def examples(self, count):
        self.take()
        at = torch.randint(min(self.count, self.KEPT // self.PART * self.PART), (count,), device=GPU)
        x, sigma, target, weight = (kept[at].float() for kept in self.kept)
        return (x, sigma), target, weight

    def validation(self, args):
        return jobs.Planes({}).validation(args)["planes"]

    def validate(self, network, examples):
        return jobs.Planes({}).validate(lambda x, sigma: network(x.to(GPU), sigma.to(GPU)).cpu(), examples)


def upscale(args):
    return Upscale(Images(args.photos, args.pool, Upscale.PATCH, power=0.5), {name: configuration(name) for name in Upscale.names}, GPU)


FAMILIES = {"denoise": Denoise, "prior": Prior, "camera": Planes, "upscale": upscale}


def configuration(name):
    return tomllib.loads((HERE / "configs" / f"{name}.toml").read_text())["model"]


class Trained:
    """One network, its optimizer and its average."""

    def __init__(self, name, family, args):
        self.name, self.path = name, Path(args.out) / f"{name}.pt"
        model = configuration(name)
        make = lambda: jobs.JOBS[model["job"]](model).network().to(GPU, memory_format=torch.channels_last)
        self.network, self.average, self.family = make(), make(), family
        start = Path(args.start or "") / f"{name}.pt"
        if args.start and start.exists():
            grow(self.network, {n: w.to(GPU) for n, w in torch.load(start, weights_only=True)["average"].items()})
        self.average.load_state_dict(self.network.state_dict())
        self.rate = family.rates[name]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.rate, betas=(0.9, 0.99), fused=GPU.type == "cuda")
        self.compiled = torch.compile(self.network) if args.compile else self.network
        self.step, self.loss = 0, torch.zeros((), device=GPU)

    def train(self, inputs, clean, weight, progress, least=0.0):
        """One step; `least` is the share of the learning rate that is left at the end."""
        late = progress > 0.94
        place = lambda t: t.contiguous(memory_format=torch.channels_last)
        run = self.network if late else self.compiled
        with torch.autocast(GPU.type, torch.bfloat16, enabled=not late):
            result = run(*map(place, inputs))
        error = "log" if progress > 0.55 and self.family.error == "absolute" else self.family.error
        loss = loss_of(result.float(), clean, weight, error)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.advance(loss, max(least * self.rate, rate(progress, self.rate, 0.3)))

    def advance(self, loss, learning_rate):
        """The optimizer's step, by the gradients that are there."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (self.step + 1) / 300)
        self.optimizer.step()
        self.step += 1
        decay = min(0.9995, self.step / (self.step + 10))
        torch._foreach_lerp_([p.data for p in self.average.parameters()], [p.data for p in self.network.parameters()], 1 - decay)
        self.loss.lerp_(loss.detach(), 0.02)

    def save(self, path=None):
        path = path or self.path
        part = path.with_suffix(".part")
        torch.save({"average": {n: w.cpu().contiguous() for n, w in self.average.state_dict().items()}, "step": self.step}, part)
        part.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--photos", required=True, help="folder of .jpg photographs to learn from")
    parser.add_argument("--validation", required=True, type=Path, help="folder of other .jpg photographs, for validation only")
    parser.add_argument("--pool", default="out/pool", help="folder of pool-*.npy")
    parser.add_argument("--clips", default="out/clips", help="folder of clips-*.npz, which may still be growing; those of the validation lie in NAME-validation")
    parser.add_argument("--start", help="folder of NAME.pt to begin with")
    parser.add_argument("--out", default="out")
    parser.add_argument("--seconds", type=float, required=True, help="budget")
    parser.add_argument("--workers", type=int, default=12, help="processes that draw examples for camera and camera-nano")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--watch-every", type=float, default=60, help="seconds between validations and checkpoints")
    parser.add_argument("--batch", type=int, help="patches of a step")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    args = parser.parse_args()
    begun = time.monotonic()
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs eagerly
    family = FAMILIES[args.family](args)
    networks, validation = [Trained(name, family, args) for name in family.names], family.validation(args)
    for n in networks:
        print(f"{n.name}: {parameter_count(n.network)} parameters", flush=True)
    watched = begun
    while (progress := (time.monotonic() - begun) / args.seconds) < 1:
        family.train(networks, args.batch or family.batch, progress)
        if time.monotonic() - watched > args.watch_every:
            watch(family, networks, validation, begun)
            watched = time.monotonic()
    watch(family, networks, validation, begun)


@torch.no_grad()
def watch(family, networks, validation, begun):
    for n in networks:
        n.save()
        scores = np.mean([family.validate(n.average, v) for v in validation], 0)
        seen = f", {family.count} examples" if hasattr(family, "count") else ""
        print(f"{time.monotonic() - begun:.0f} s {n.name} step {n.step}{seen}, loss {n.loss.item():.5f}: " + " ".join(f"{s:.2f}" for s in scores), flush=True)


if __name__ == "__main__":
    main()
