"""Trains a network on synthesized images, as a configuration file says. Seeded; the same command resumes a run.

    python train.py configs/denoise.toml --pool out/pool --out out/denoise
    python train.py configs/denoise.toml --steps 20000        # same images, same seed, same weights on one machine

The learning rate warms up, holds, and falls to zero along half a cosine by the end of the budget, which counts the
minutes or the steps spent here, over all resumptions. Each phase of the configuration has its patches and its error.
"""

import argparse
import math
import os
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import jobs
from network import grow, parameter_count


class Pool:
    """Training images in memory, uint8, [images, size, size, 3]. Shards that appear later are read by `refresh`."""

    def __init__(self, folder):
        self.folder, self.names, self.shards = Path(folder), set(), []
        self.refresh()
        if not self.shards:
            raise SystemExit(f"no pool-*.npy in {folder}: make one with images.py --out {folder}")

    def refresh(self):
        for path in sorted(self.folder.glob("pool-*.npy")):
            if path.name not in self.names:
                self.names.add(path.name)
                self.shards.append(np.load(path, mmap_mode="r"))

    def __len__(self):
        return sum(len(s) for s in self.shards)

    def image(self, rng):
        shard = self.shards[rng.integers(len(self.shards))]
        return shard[rng.integers(len(shard))]

    def patch(self, rng, size):
        """One patch, [size, size, 3], turned, mirrored, and now and then with its channels permuted."""
        image = self.image(rng)
        top, left = rng.integers(0, image.shape[0] - size + 1), rng.integers(0, image.shape[1] - size + 1)
        patch = np.rot90(image[top : top + size, left : left + size], rng.integers(4))
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        return patch[..., rng.permutation(3)] if rng.random() < 0.15 else patch

    def batch(self, rng, count, size):
        """Clean patches, float32 in [0, 1], [count, 3, size, size], with exposure and contrast varied."""
        patches = np.stack([self.patch(rng, size) for _ in range(count)])
        clean = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
        contrast = torch.tensor(np.exp(rng.normal(0, 0.25, (count, 1, 1, 1))), dtype=torch.float32)
        middle = torch.tensor(rng.uniform(0, 1, (count, 1, 1, 1)), dtype=torch.float32)
        return ((clean - middle) * contrast + middle).clamp(0, 1)


class Mixture(Pool):
    """Photographs, synthesized pages and synthesized images, by shares of the patches. Photographs are weighted by area."""

    def __init__(self, folder, photos, shares):
        super().__init__(folder)
        from clips import photographs
        from examples import drawn

        rng = np.random.default_rng(3)
        self.shares, self.photographs = shares, photographs(photos)
        self.drawn = [drawn(rng, 192) for _ in range(1500)]

    def image(self, rng):
        kind = rng.random()
        if kind < self.shares["photographs"]:
            images, areas = self.photographs
            return images[rng.choice(len(images), p=areas)]
        if kind < self.shares["photographs"] + self.shares["drawn"]:
            return self.drawn[rng.integers(len(self.drawn))]
        return super().image(rng)

    def __len__(self):
        return super().__len__() + len(self.photographs[0]) + len(self.drawn)


def loss_of(result, clean, weight, error):
    """One number for a batch's errors.

    "absolute" and "squared" are means, weighted; "root" is the mean over the patches of the root of each one's squared errors, so that easy
    patches count more than by their squares. "log" is the mean over the patches of the logarithm of each one's mean squared
    error, which is its PSNR but for a factor: easy and difficult patches, and all noise levels, have equal weight."""
    difference = result - clean
    if error == "log":
        return 0.02 * (difference.square().mean((1, 2, 3)) + 1e-6).log().mean()
    if error == "root":
        return ((weight * difference.square()).mean((1, 2, 3)) + 1e-6).sqrt().mean() * 10
    if error == "squared":
        return (weight * difference.square()).mean() * 30
    return (weight.sqrt() * difference.abs()).mean()


def rate(progress, peak, hold):
    """Learning rate at a share of the budget: peak until `hold`, then half a cosine down to zero."""
    if progress < hold:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - hold) / (1 - hold))))


def load_validation(folder, multiple, device):
    """Validation images: a pool, and .png or .jpg photographs; cropped to the network's multiple."""
    sets = {}
    shards = sorted(Path(folder).glob("pool-*.npy"))
    if shards:
        sets["synthetic"] = list(np.load(shards[0])[:16])
    photographs = sorted(p for p in Path(folder).glob("*") if p.suffix in (".png", ".jpg"))
    if photographs:
        import cv2

        sets["photographs"] = [cv2.imread(str(p))[..., ::-1][:384, :384] for p in photographs]
    crop = lambda p: p[: p.shape[0] // multiple * multiple, : p.shape[1] // multiple * multiple]
    tensor = lambda p: torch.from_numpy(crop(p).copy()).permute(2, 0, 1)[None].float().to(device) / 255
    return {name: [tensor(p) for p in images] for name, images in sets.items()}


def begin(network, start, device):
    """Starts `network` from a checkpoint, or from the weights of a package's .onnx file."""
    if not start.endswith(".onnx"):
        weights = torch.load(start, map_location=device, weights_only=True)["average"]
    else:
        import onnx

        stored = {i.name: onnx.numpy_helper.to_array(i).astype(np.float32) for i in onnx.load(start).graph.initializer}
        scales = {name.removesuffix(".scale"): scale for name, scale in stored.items() if name.endswith(".scale")}
        weights = {name.removesuffix(".f16").removesuffix(".i8"): values for name, values in stored.items() if not name.endswith(".scale")}
        weights = {name: torch.from_numpy(values * scales.get(name, np.float32(1))) for name, values in weights.items()}
    if hasattr(network, "begin_as") and weights["body.head.weight"].shape != network.body.head.weight.shape:
        network.begin_as(weights)
    else:
        grow(network, weights)


class Run:
    """Everything that a resumed run needs: weights, their average, the optimizer, and the step, from which
    all randomness follows."""

    def __init__(self, config, args):
        torch.manual_seed(config["train"]["seed"])
        self.config, self.args, self.device = config, args, torch.device(args.device)
        self.job = jobs.JOBS[config["model"]["job"]](config["model"])
        make = lambda: self.job.network().to(self.device, memory_format=torch.channels_last)
        self.network, self.average = make(), make()
        self.step, self.seconds = 0, 0.0
        self.checkpoint = Path(args.out) / "checkpoint.pt"
        if args.start and not self.checkpoint.exists():
            begin(self.network, args.start, self.device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config["train"]["rate"], betas=(0.9, 0.99))
        if self.checkpoint.exists():
            self.load()

    def load(self):
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self):
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "config": self.config,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def progress(self):
        if self.args.steps:
            return self.step / self.args.steps
        return self.seconds / (60 * (self.args.minutes or self.config["train"]["minutes"]))

    def phase(self, progress):
        """The last phase that has begun."""
        return [p for p in self.config["phase"] if p["from"] <= progress][-1]

    def gradients(self, pool, part, parts, progress):
        """Loss and gradients over one part of this step's batch. Its images and noise follow from (seed, step, part)."""
        phase = self.phase(progress)
        rng = np.random.default_rng([self.config["train"]["seed"], self.step, part])
        patches = pool.batch(rng, max(1, phase["batch"] // parts), phase["patch"])
        if phase["error"] == "sampler":
            loss = self.job.sampled(rng, self.network, patches)
            return loss.item(), torch.autograd.grad(loss, list(self.network.parameters()))
        inputs, clean, weight = self.job.example(rng, patches)
        place = lambda t: t.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=phase.get("bfloat16", True)):
            result = self.network(*(place(t) for t in inputs))
        loss = loss_of(result.float(), place(clean), place(weight), phase["error"])
        return loss.item(), torch.autograd.grad(loss, list(self.network.parameters()))

    def train_step(self, pool, workers):
        """One step of the optimizer. Workers take the batch's parts as they become free; their sum has a fixed order."""
        train, progress, parts = self.config["train"], self.progress(), self.args.parts
        results = list(workers.map(lambda part: self.gradients(pool, part, parts, progress), range(parts)))
        parameters = list(self.network.parameters())
        for i, p in enumerate(parameters):
            p.grad = sum(gradients[i] for _, gradients in results) / parts
        torch.nn.utils.clip_grad_norm_(parameters, train["clip"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate(progress, train["rate"], train["hold"]) * min(1.0, (self.step + 1) / 300)
        self.optimizer.step()
        self.step += 1
        decay = min(train["average"], self.step / (self.step + 10))
        torch._foreach_lerp_([p.data for p in self.average.parameters()], [p.data for p in parameters], 1 - decay)
        return sum(loss for loss, _ in results) / parts

    def validate(self, validation):
        for name, images in validation.items():
            scores = np.mean([self.job.validate(self.average, p) for p in images], 0)
            yield f"  {name}: " + ", ".join(f"{s:.2f}" for s in scores) + " dB"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configs/NAME.toml")
    parser.add_argument("--pool", default="out/pool", help="folder of pool-*.npy to learn from")
    parser.add_argument("--photos", default="out/photos", help="folder of photographs (.jpg), for the network for cameras")
    parser.add_argument("--clips", default="out/clips", help="folder of clips-*.npz, for the network for cameras; those of validation are in NAME-validation")
    parser.add_argument("--validation", default="out/validation", help="folder of other pool-*.npy and validation .png, for validation only; for the network for cameras, of .jpg")
    parser.add_argument("--out", help="folder of checkpoint.pt and log.txt; default out/NAME")
    parser.add_argument("--start", help="checkpoint.pt of the same or a smaller network to begin with, or a package's .onnx file")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="budget in minutes of training, over all resumptions, instead of the configuration's")
    budget.add_argument("--steps", type=int, help="budget in steps instead, for a repeatable run")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="workers, of one CPU thread each: they never wait for each other inside a convolution")
    parser.add_argument("--parts", type=int, default=4, help="parts of a batch that workers take in turn; 1 with --threads 1 for CUDA")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    parser.add_argument("--validate-every", type=float, default=480, help="seconds between validations")
    args = parser.parse_args()
    args.out = args.out or f"out/{Path(args.config).stem}"
    return args


def main():
    args = options()
    config = tomllib.loads(Path(args.config).read_text())
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    run = Run(config, args)
    if hasattr(run.job, "pool"):
        pool, validation = run.job.pool(args), run.job.validation(args)
    else:
        shares = config["train"].get("shares")
        pool = Mixture(args.pool, args.photos, shares) if shares else Pool(args.pool)
        validation = load_validation(args.validation, 2 * run.network.multiple_of * run.job.size_factor, run.device)
    log = open(Path(args.out) / "log.txt", "a", buffering=1)
    say = lambda line: (print(line, flush=True), log.write(line + "\n"))
    say(f"{parameter_count(run.network)} parameters, {len(pool)} images, from step {run.step}, {run.seconds / 60:.1f} minutes done")
    losses, saved, validated = [], run.seconds, -1e9
    start, before = time.monotonic(), run.seconds
    while run.progress() < 1:
        losses.append(run.train_step(pool, workers))
        run.seconds = before + time.monotonic() - start
        done = run.progress() >= 1
        if done or run.seconds - saved > args.save_every:
            saved = run.seconds
            run.save()
            pool.refresh()
            say(f"step {run.step} {run.seconds / 60:.1f} min, lr {run.optimizer.param_groups[0]['lr']:.2e}, loss {np.mean(losses):.5f}, {len(pool)} images")
            losses.clear()
        if done or run.seconds - validated > args.validate_every:
            validated = run.seconds
            for line in run.validate(validation):
                say(line)


if __name__ == "__main__":
    main()
