"""The tasks that networks are trained for: inputs, targets, losses and validation.

A job samples only from the given generator, so that an example follows from (seed, step, part).
"""

import math

import cv2
import numpy as np
import torch

import noise
import planes
import shrink
from camera import Camera
from examples import Examples
from likeness import fidelity, pattern
from network import Denoiser, LightDenoiser, LightPlaneDenoiser, PlaneDenoiser, Prior, Upscaler


def psnr(result, clean):
    return -10 * math.log10((result.clamp(0, 1) - clean).square().mean().item())


def seeded_noise(clean, seed):
    return torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean.device)


class Denoise:
    """Gaussian noise with a map of sigma, as `noise.py` draws it."""

    size_factor = 1

    def __init__(self, model):
        self.model = model

    def network(self):
        if self.model.get("light"):
            return LightDenoiser(self.model["widths"], self.model["depths"], self.model["hidden"])
        return Denoiser(self.model["widths"], self.model["depths"], self.model.get("absolute", False))

    def example(self, rng, clean):
        """Inputs of the network, the target, and the weight of its squared errors, from clean patches."""
        clean, noisy, sigma = noise.draw(rng, clean)
        noisy = noise.as_files(rng, noisy) if self.model.get("absolute") else noisy
        # A good denoiser's squared error grows about as sigma^1.15: so each level has equal weight.
        return (noisy, sigma), clean, ((sigma + 2 / 255) / (27 / 255)) ** -1.15

    @torch.no_grad()
    def validate(self, network, clean):
        """PSNR in dB at sigma 15, 25 and 50 of 255, of images clipped as in files."""
        sigmas = [torch.full_like(clean[:, :1], level / 255) for level in (15, 25, 50)]
        noisy = [clean + sigma * seeded_noise(clean, level) for sigma, level in zip(sigmas, (15, 25, 50))]
        return [psnr(network(x.clamp(0, 1), sigma), clean) for x, sigma in zip(noisy, sigmas)]


class Planes:
    """Frames of cameras in planes of luma and chroma, as `examples.py` draws them."""

    size_factor = 1

    def __init__(self, model):
        self.model = model

    def network(self):
        if self.model.get("light"):
            return LightPlaneDenoiser(self.model["widths"], self.model["depths"], self.model["hidden"])
        return PlaneDenoiser(self.model["widths"], self.model["depths"])

    def pool(self, args):
        return Examples(args.photos, args.clips, args.pool)

    def example(self, rng, drawn):
        return drawn

    def validation(self, args):
        """Fixed examples of each kind, of validation photographs."""
        return {"planes": [Examples(args.validation, args.clips + "-validation")]}

    @torch.no_grad()
    def validate(self, network, examples):
        """PSNR in dB of white noise of sigma 10, 20 and 35, of a camera without a codec in medium and poor light, and of a camera through
        encoders, each over six patches."""
        scores = []
        for kind in (10, 20, 35, 0.06, 0.2, "clip"):
            errors = []
            for seed in range(6):
                rng = np.random.default_rng([77, seed])
                if kind == "clip":
                    noisy, target, _ = examples.clip(rng, 256)
                else:
                    clean = examples.image(rng, 256)
                    if kind < 1:
                        noisy = Camera(rng, kind).shot(rng, clean)
                    else:
                        noisy = np.clip(clean + kind / 255 * rng.standard_normal(clean.shape, dtype=np.float32), 0, 1)
                    noisy, target = planes.rounded(*planes.of_rgb(np.round(noisy * 255) / 255), False), planes.of_rgb(clean)
                sigma = [np.full((128, 128), np.sqrt(np.mean((x - t) ** 2)), np.float32) for x, t in zip(noisy, target)]
                x, sigma, target = (torch.from_numpy(v)[None] for v in (planes.pack(*noisy), np.stack(sigma), planes.pack(*target)))
                errors.append((network(x, sigma) - target).square().mean().item())
            scores.append(-10 * math.log10(np.mean(errors)))
        return scores


def sample(network, x, largest, steps):
    """What the first and the last step of Eddy's default sampler for upscalers give, from a state of noise `largest`; `network` takes a state and
    a map of sigma."""
    first = None
    for i in range(steps):
        now, then = (largest * (1 - j / steps) ** 2 for j in (i, i + 1))
        result = network(x, torch.full_like(x[:, :1], now))
        first = result if first is None else first
        x = result + then / now * (x - result)
    return first, result


class Upscale:
    """Super-resolution by conditional diffusion from sigma_max down, on the levels of plans of 1, 2, 4 and 8 steps and between."""

    def __init__(self, model):
        self.model = model
        self.size_factor = model["scale"]

    def network(self):
        m = self.model
        return Upscaler(m["scale"], m["sigma_data"], m["widths"], m["depths"], m.get("sigma_flat"))

    def level(self, rng):
        largest = self.model["sigma_max"]
        kind = rng.random()
        if kind < self.model["first_share"]:
            return largest
        if kind < 0.5 + 0.5 * self.model["first_share"]:  # the sampler's own grid: (1 - i / N)^2 of sigma_max
            steps = int(rng.choice([2, 4, 8]))
            return largest * (1 - rng.integers(1, steps) / steps) ** 2
        return np.exp(rng.uniform(math.log(0.002), math.log(largest)))

    def example(self, rng, clean):
        low = torch.stack([shrink.shrink(rng, c, self.model["scale"]) for c in clean])
        level = torch.tensor([self.level(rng) for _ in clean], dtype=torch.float32).view(-1, 1, 1, 1)
        x = clean + level * seeded_noise(clean, int(rng.integers(2**62)))
        # EDM's weight, 1 / sigma^2 + 1 / sigma_data^2, bounded; 1 at sigma_max.
        weight = 1 + (self.model["sigma_data"] / level).square().clamp(max=30)
        return (x, level.expand_as(x[:, :1]).contiguous(), low), clean, weight

    def sampled(self, rng, network, clean):
        """The loss of the sampler's result with 2, 4 or 8 steps on its own grid, and of its first step, which alone is the mean. So a step learns
        to mend what the steps before it really leave, instead of an image plus white noise."""
        low = torch.stack([shrink.shrink(rng, c, self.model["scale"]) for c in clean])
        steps, largest = int(rng.choice([2, 4, 4, 8])), self.model["sigma_max"]
        x = network.enlarged(low) + largest * seeded_noise(clean, int(rng.integers(2**62)))
        first, result = sample(lambda x, level: network(x, level, low), x, largest, steps)
        return fidelity(result, clean) + pattern(result, clean, self.model["scale"]) + (first - clean).abs().mean()

    @torch.no_grad()
    def validate(self, network, clean):
        """PSNR in dB of bicubic enlargement, of one step, and of four."""
        low = shrink.resize(clean[0], self.model["scale"], "bicubic")[None]
        start = shrink.enlarge(low, self.model["scale"])
        scores = [psnr(start, clean)]
        for steps in (1, 4):
            x = start + self.model["sigma_max"] * seeded_noise(clean, steps)
            _, result = sample(lambda x, level: network(x, level, low), x, self.model["sigma_max"], steps)
            scores.append(psnr(result, clean))
        return scores


def missing(rng, height, width):
    """The mask of a patch, [height, width], 1 where pixels are missing: strokes, discs and boxes, or scattered pixels."""
    mask, size = np.zeros((height, width), np.uint8), min(height, width)
    if rng.random() < 0.12:
        return (rng.random((height, width)) < rng.uniform(0.1, 0.9)).astype(np.float32)
    for _ in range(int(rng.integers(1, 9))):
        kind, at = rng.random(), rng.integers(0, (height, width))
        radius = int(np.exp(rng.uniform(0, math.log(size / 5))))
        if kind < 0.35:
            points = (at + np.cumsum(rng.normal(0, size / 4, (int(rng.integers(2, 5)), 2)), 0)).astype(np.int32)
            cv2.polylines(mask, [points], False, 1, min(radius + 1, 9))
        elif kind < 0.65:
            cv2.circle(mask, at[::-1].tolist(), radius, 1, -1)
        else:
            high, wide = (rng.uniform(0.5, 2, 2) * radius + 1).astype(int)
            mask[at[0] : at[0] + high, at[1] : at[1] + wide] = 1
    return mask.astype(np.float32)


class Generate:
    """A prior in [-1, 1]: log-normal sigmas and weights of EDM (Karras et al. 2022, table 1), and for a share of the patches, `masked`, noise of that sigma
    where something is missing and hardly any elsewhere, so that the mean of what is missing is one evaluation, at the largest sigma."""

    KNOWN = 0.002  # sigma where nothing is missing
    LARGEST = 80.0

    size_factor = 1

    def __init__(self, model):
        self.model = model

    def network(self):
        return Prior(self.model["sigma_data"], self.model["widths"], self.model["depths"])

    def example(self, rng, clean):
        clean, sd = 2 * clean - 1, self.model["sigma_data"]
        column = lambda values: torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
        level = np.exp(rng.normal(-1.0, 1.6, len(clean)))
        masked = rng.random(len(clean)) < self.model.get("masked", 0.0)
        # Half of them are trained for the mean.
        level = np.where(masked, np.where(rng.random(len(clean)) < 0.5, self.LARGEST, 3 * level), level).clip(self.KNOWN, self.LARGEST)
        area = clean.shape[2:]
        holes = torch.from_numpy(np.stack([missing(rng, *area) if m else np.ones(area, np.float32) for m in masked]))[:, None]
        sigma = torch.where(holes > 0, column(level), self.KNOWN)
        x = clean + sigma * seeded_noise(clean, int(rng.integers(2**62)))
        # The mean of the missing pixels at the largest sigma, from which a single evaluation starts.
        middle = column(masked & (level == self.LARGEST) & (rng.random(len(clean)) < 0.6))
        x = torch.where((holes > 0) & (middle > 0), 0.0, x)
        # Known pixels are given; their noise is negligible.
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2 * torch.where(holes > 0, 1.0, 1e-3)
        # Every patch has equal weight, whatever the number of its missing pixels.
        weight = weight / holes.mean((1, 2, 3), keepdim=True).clamp(min=0.05)
        return (x, sigma), clean, weight

    @torch.no_grad()
    def validate(self, network, clean):
        """PSNR in dB of D at sigma 0.1, 0.5 and 2, of images in [-1, 1], and of one evaluation over missing pixels."""
        clean = 2 * clean - 1
        scores = []
        for level in (0.1, 0.5, 2.0):
            sigma = torch.full_like(clean[:, :1], level)
            result = network(clean + level * seeded_noise(clean, 3), sigma)
            scores.append(-10 * math.log10((result - clean).square().mean().item() / 4))
        if self.model.get("masked"):
            rng = np.random.default_rng(5)
            hole = torch.zeros_like(clean[:, :1])
            for y in range(0, hole.shape[2] - 63, 64):
                for x in range(0, hole.shape[3] - 63, 64):
                    hole[0, 0, y + 8 : y + 56, x + 8 : x + 56] = torch.from_numpy(missing(rng, 48, 48))
            sigma = torch.where(hole > 0, self.LARGEST, self.KNOWN)
            result = network(torch.where(hole > 0, 0.0, clean), sigma)
            error = ((result - clean).square() * hole).sum() / (3 * hole.sum())
            scores.append(-10 * math.log10(error.item() / 4))
        return scores


JOBS = {"denoise": Denoise, "planes": Planes, "upscale": Upscale, "generate": Generate}
