"""Trains `denoise-fast` on synthesised pictures. Seeded and resumable: run the same command again to go on.

    python train.py --pool out/pool --out out/run --minutes 90
    python train.py --pool out/pool --out out/run --steps 100000      # same pictures, same seed, same weights on one machine

The learning rate warms up, holds, and falls to zero along half a cosine by the end of the budget, which counts the
minutes or the steps spent here, over all resumptions. The last part (`--final-share`) trains on larger patches with the
squared error; before it the absolute error is used. Both are weighted so that every noise level counts about the same.
"""

import argparse
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import noise
from network import MULTIPLE_OF, Denoiser, parameter_count


class Pool:
    """Training pictures in memory, uint8, [pictures, size, size, 3]. Shards that appear later are taken in on `refresh`."""

    def __init__(self, folder):
        self.folder, self.names, self.shards = Path(folder), set(), []
        self.refresh()
        if not self.shards:
            raise SystemExit(f"no pool-*.npy in {folder}: make some with pictures.py --out {folder}")

    def refresh(self):
        for path in sorted(self.folder.glob("pool-*.npy")):
            if path.name not in self.names:
                self.names.add(path.name)
                self.shards.append(np.load(path))

    def __len__(self):
        return sum(len(s) for s in self.shards)

    def patch(self, rng, size):
        """One patch, [size, size, 3], turned, mirrored, and now and then with its channels permuted."""
        shard = self.shards[rng.integers(len(self.shards))]
        picture = shard[rng.integers(len(shard))]
        top, left = rng.integers(0, picture.shape[0] - size + 1), rng.integers(0, picture.shape[1] - size + 1)
        patch = np.rot90(picture[top : top + size, left : left + size], rng.integers(4))
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


def loss_of(denoised, clean, sigma, squared):
    """Error weighted by sigma so that each level counts alike: the squared error of a good denoiser grows about as sigma^1.15."""
    weight = ((sigma + 2 / 255) / (27 / 255)) ** -1.15
    error = denoised - clean
    return (weight * error.square()).mean() * 30 if squared else (weight.sqrt() * error.abs()).mean()


def rate(progress, peak, hold):
    """Learning rate at a share of the budget: peak until `hold`, then half a cosine down to zero."""
    if progress < hold:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - hold) / (1 - hold))))


@torch.no_grad()
def validate(network, pictures):
    """Mean PSNR in dB at sigma 15, 25 and 50 of 255, noise seeded and unclipped."""
    result = []
    for level in (15, 25, 50):
        generator = torch.Generator().manual_seed(level)
        scores = []
        for clean in pictures:
            sigma = torch.full_like(clean[:, :1], level / 255)
            noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
            error = (network(noisy, sigma).clamp(0, 1) - clean).square().mean()
            scores.append(-10 * math.log10(error.item()))
        result.append(sum(scores) / len(scores))
    return result


def load_validation(folder, device):
    """Pictures of a pool that is not trained on, and .png photographs set aside; cropped to the network's multiple."""
    sets = {}
    shards = sorted(Path(folder).glob("pool-*.npy"))
    if shards:
        sets["synthetic"] = list(np.load(shards[0])[:16])
    photographs = sorted(Path(folder).glob("*.png"))
    if photographs:
        import cv2

        sets["photographs"] = [cv2.imread(str(p))[..., ::-1][:384, :384] for p in photographs]
    crop = lambda p: p[: p.shape[0] // MULTIPLE_OF * MULTIPLE_OF, : p.shape[1] // MULTIPLE_OF * MULTIPLE_OF]
    tensor = lambda p: torch.from_numpy(crop(p).copy()).permute(2, 0, 1)[None].float().to(device) / 255
    return {name: [tensor(p) for p in pictures] for name, pictures in sets.items()}


class Run:
    """Everything that a resumed run needs: weights, their average, the optimiser, and the step, from which
    all randomness follows."""

    def __init__(self, args):
        torch.manual_seed(args.seed)
        self.args, self.device = args, torch.device(args.device)
        self.network = Denoiser().to(self.device, memory_format=torch.channels_last)
        self.average = Denoiser().to(self.device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=args.lr, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0
        self.checkpoint = Path(args.out) / "checkpoint.pt"
        if self.checkpoint.exists():
            self.load()

    def load(self):
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=False)
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
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def progress(self):
        if self.args.steps:
            return self.step / self.args.steps
        return self.seconds / (60 * self.args.minutes)

    def gradients(self, pool, part, parts, progress):
        """Loss and gradients over one part of this step's batch. Its pictures and noise follow from (seed, step, part)."""
        args, final = self.args, progress >= 1 - self.args.final_share
        count, size = (args.final_batch, args.final_patch) if final else (args.batch, args.patch)
        rng = np.random.default_rng([args.seed, self.step, part])
        drawn = noise.draw(rng, pool.batch(rng, max(1, count // parts), size))
        clean, noisy, sigma = (t.to(self.device, memory_format=torch.channels_last) for t in drawn)
        half = args.bfloat16 and progress < 1 - args.float32_share
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            denoised = self.network(noisy, sigma)
        loss = loss_of(denoised.float(), clean, sigma, squared=final)
        return loss.item(), torch.autograd.grad(loss, list(self.network.parameters()))

    def train_step(self, pool, workers):
        """One step of the optimiser. Workers take the batch's parts as they become free; their sum has a fixed order."""
        args, progress, parts = self.args, self.progress(), self.args.parts
        results = list(workers.map(lambda part: self.gradients(pool, part, parts, progress), range(parts)))
        parameters = list(self.network.parameters())
        for i, p in enumerate(parameters):
            p.grad = sum(gradients[i] for _, gradients in results) / parts
        torch.nn.utils.clip_grad_norm_(parameters, args.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(progress, args.lr, args.hold) * min(1.0, (self.step + 1) / 300)
        self.optimizer.step()
        self.step += 1
        decay = min(args.average, self.step / (self.step + 10))
        torch._foreach_lerp_([p.data for p in self.average.parameters()], [p.data for p in parameters], 1 - decay)
        return sum(loss for loss, _ in results) / parts


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="out/pool", help="folder of pool-*.npy to learn from")
    parser.add_argument("--validation", default="out/validation", help="folder of other pool-*.npy and set-aside .png, only watched")
    parser.add_argument("--out", default="out/run", help="folder of checkpoint.pt and log.txt")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=90, help="budget in minutes of training, over all resumptions")
    budget.add_argument("--steps", type=int, help="budget in steps instead, for a repeatable run")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights, patches and noise")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="workers, of one CPU thread each: they never wait for each other inside a convolution")
    parser.add_argument("--parts", type=int, default=4, help="parts of a batch that workers take in turn; 1 with --threads 1 for CUDA")
    parser.add_argument("--batch", type=int, default=24, help="patches a step, before the final part")
    parser.add_argument("--patch", type=int, default=64, help="patch height and width, before the final part")
    parser.add_argument("--final-share", type=float, default=0.5, help="share of the budget that is the final part")
    parser.add_argument("--final-batch", type=int, default=8, help="patches a step in the final part")
    parser.add_argument("--final-patch", type=int, default=128, help="patch height and width in the final part")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of Adam")
    parser.add_argument("--hold", type=float, default=0.3, help="share of the budget before the rate falls")
    parser.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    parser.add_argument("--average", type=float, default=0.999, help="decay of the weights' moving average, which is what is exported")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True, help="convolutions in bfloat16")
    parser.add_argument("--float32-share", type=float, default=0.08, help="last share of the budget in float32 all the same")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    parser.add_argument("--validate-every", type=float, default=480, help="seconds between validations")
    return parser.parse_args()


def main():
    args = options()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    run, pool = Run(args), Pool(args.pool)
    validation = load_validation(args.validation, run.device)
    log = open(Path(args.out) / "log.txt", "a", buffering=1)
    say = lambda line: (print(line, flush=True), log.write(line + "\n"))
    say(f"{parameter_count(run.network)} parameters, {len(pool)} pictures, from step {run.step}, {run.seconds / 60:.1f} minutes done")
    losses, saved, validated = [], run.seconds, run.seconds
    start, before = time.monotonic(), run.seconds
    while run.progress() < 1:
        losses.append(run.train_step(pool, workers))
        run.seconds = before + time.monotonic() - start
        done = run.progress() >= 1
        if done or run.seconds - saved > args.save_every:
            saved = run.seconds
            run.save()
            pool.refresh()
            say(f"step {run.step} {run.seconds / 60:.1f} min, lr {run.optimizer.param_groups[0]['lr']:.2e}, loss {np.mean(losses):.5f}, {len(pool)} pictures")
            losses.clear()
        if done or run.seconds - validated > args.validate_every:
            validated = run.seconds
            for name, pictures in validation.items():
                say(f"  {name}: " + ", ".join(f"{p:.2f}" for p in validate(run.average, pictures)) + " dB at sigma 15, 25, 50")


if __name__ == "__main__":
    main()
