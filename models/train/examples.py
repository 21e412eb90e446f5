"""Training examples of `camera`: patches in planes of luma and chroma, noisy and clean, and sigma maps.

Kinds: white noise in RGB that became 4:2:0; a camera without a codec; clips of a camera through real encoders (`clips.py`); JPEG
stills; and clean frames. Temporal fusion is simulated by blocks of less noise.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import torch

import planes
from camera import Camera, jpeg
from clips import crop, exposed, photographs

KINDS = {"white": 0.32, "camera": 0.13, "clip": 0.38, "jpeg": 0.12, "clean": 0.05}
LEAST, MOST = 0.3 / 255, 100 / 255
STEPS = {True: (255, 255), False: (219, 224)}


def drawn(rng, size):
    """An image as screens show it, uint8: flat colors, lines and writing."""
    image = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    if rng.random() < 0.5:
        image[:] = 255 if rng.random() < 0.7 else 20
    for _ in range(int(rng.integers(3, 14))):
        at, to = rng.integers(0, size, (2, 2)).tolist()
        color = rng.integers(0, 256, 3).tolist() if rng.random() < 0.6 else [0, 0, 0]
        shape = rng.random()
        if shape < 0.3:
            cv2.rectangle(image, at, to, color, -1 if rng.random() < 0.6 else 1)
        elif shape < 0.5:
            cv2.line(image, at, to, color, int(rng.integers(1, 4)), cv2.LINE_AA)
        else:
            text = "".join(chr(c) for c in rng.integers(33, 123, int(rng.integers(3, 16))))
            cv2.putText(image, text, at, int(rng.integers(0, 8)), rng.uniform(0.3, 1.3), color, int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


class Examples:
    """Photographs and clips in memory; files that appear later are read by `refresh`."""

    def __init__(self, photos, clips, pool=None):
        self.photographs = photographs(photos)
        self.clips, self.names, self.shards = Path(clips), set(), []
        # Synthesized images, where there are any.
        self.pool = [np.load(p, mmap_mode="r") for p in sorted(Path(pool).glob("pool-*.npy"))] if pool else []
        cv2.setNumThreads(1)
        self.refresh()

    def refresh(self):
        for path in sorted(self.clips.glob("clips-*.npz")):
            if path.name not in self.names and ".part" not in path.name:
                self.names.add(path.name)
                self.shards.append(dict(np.load(path)))

    def __len__(self):
        return len(self.photographs[0]) + sum(len(s["full"]) for s in self.shards)

    def image(self, rng, size):
        """A clean image [size, size, 3], float32 in [0, 1]."""
        kind = rng.random()
        if kind < 0.06:
            return drawn(rng, size).astype(np.float32) / 255
        if kind < 0.14 and self.pool:
            shard = self.pool[rng.integers(len(self.pool))]
            image = shard[rng.integers(len(shard))]
            top, left = (int(rng.integers(0, n - size + 1)) for n in image.shape[:2])
            return exposed(rng, image[top : top + size, left : left + size])
        image = exposed(rng, crop(rng, self.photographs, size, size))
        if rng.random() < 0.03:
            image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
        return image[..., rng.permutation(3)].copy() if rng.random() < 0.1 else image

    def pair(self, rng, size):
        """Noisy and clean planes, each luma [size, size] and chroma [2, size / 2, size / 2]; the kind, and how often errors were averaged
        where they are ("all" errors fall by averaging, or "some", or none can be averaged)."""
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        if kind == "clip" and self.shards:
            return self.clip(rng, size)
        clean = self.image(rng, size)
        matrix, full = rng.choice(list(planes.WEIGHTS)), bool(rng.random() < 0.4)
        target = planes.of_rgb(clean, matrix)
        if kind in ("white", "clip"):
            level = rng.uniform(2, 50) if rng.random() < 0.85 else rng.uniform(0.5, 75)
            noisy = clean + level / 255 * rng.standard_normal(clean.shape, dtype=np.float32)
            if rng.random() < 0.85:
                noisy = np.round(np.clip(noisy, 0, 1) * 255) / 255
            noisy = planes.of_rgb(noisy, matrix)
            if rng.random() < 0.85:
                noisy = planes.rounded(*noisy, full)
            return noisy, target, "white"
        if kind == "camera":
            shot = np.round(Camera(rng).shot(rng, clean) * 255) / 255
            return planes.rounded(*planes.of_rgb(shot, matrix), full), target, "camera"
        if kind == "jpeg":
            target = planes.of_rgb(clean)
            if rng.random() < 0.5:
                noisy = Camera(rng, np.exp(rng.uniform(math.log(0.012), math.log(0.3)))).shot(rng, clean)
            else:
                noisy = clean + rng.uniform(0, 40) / 255 * rng.standard_normal(clean.shape, dtype=np.float32)
            coded = jpeg(noisy, rng.uniform(40, 98), rng.choice(["420", "422", "444"], p=[0.6, 0.15, 0.25]))
            return planes.of_rgb(coded), target, "coded"
        if rng.random() < 0.5:
            target = planes.of_rgb(clean)
            return planes.of_rgb(jpeg(clean, rng.uniform(88, 100), rng.choice(["420", "444"]))), target, "clean"
        return planes.rounded(*target, full), target, "clean"

    def clip(self, rng, size):
        shard = self.shards[rng.integers(len(self.shards))]
        at, frame = rng.integers(len(shard["full"])), rng.integers(3)
        # A codec's blocks lie on a grid that a stream has from its corner on; so does a patch.
        top, left = (8 * int(rng.integers(0, (256 - size) // 8 + 1)) for _ in range(2))
        luma, chroma = np.s_[..., top : top + size, left : left + size], np.s_[..., top // 2 : (top + size) // 2, left // 2 : (left + size) // 2]
        steps, zero = STEPS[bool(shard["full"][at])], 0 if shard["full"][at] else 16
        values = lambda y, c: ((y[luma].astype(np.float32) - zero) / steps[0], (c[chroma].astype(np.float32) - 128) / steps[1] + 0.5)
        target = values(shard["clean_luma"][at, frame], shard["clean_chroma"][at, frame])
        noisy = values(shard["luma"][at, frame], shard["chroma"][at, frame])
        if shard["still"][at] and rng.random() < 0.4:
            every = values(shard["luma"][at], shard["chroma"][at])
            return self.fused(rng, noisy, tuple(v.mean(0) for v in every)), target, "fused"
        turn = rng.random() < 0.5
        flip = lambda v: np.ascontiguousarray(v[..., ::-1]) if turn else v
        return tuple(map(flip, noisy)), tuple(map(flip, target)), "coded"

    def fused(self, rng, noisy, known):
        """Planes that are averaged over several frames in some blocks."""
        mask = blocks(rng, noisy[0].shape[0] // 4)
        grow = lambda times: np.kron(mask, np.ones((times, times), np.float32))
        return tuple(n + grow(t) * (k - n) for n, k, t in zip(noisy, known, (4, 2)))

    def batch(self, rng, count, patch):
        """Inputs x [count, 6, patch, patch] and sigma [count, 2, patch, patch], the target, and the weight of squared errors."""
        xs, sigmas, targets = [], [], []
        for _ in range(count):
            noisy, target, kind = self.pair(rng, 2 * patch)
            if kind in ("white", "camera") and rng.random() < 0.4:
                part = rng.choice([2, 3, 4, 8, 16, 32]) ** -0.5
                mask = blocks(rng, patch // 2) * (part - 1) + 1
                noisy = tuple(t + np.kron(mask, np.ones((n, n), np.float32)) * (x - t) for x, t, n in zip(noisy, target, (4, 2)))
                factor = np.kron(mask, np.ones((2, 2), np.float32))
                undone = tuple(t + (x - t) / np.kron(mask, np.ones((n, n), np.float32)) for x, t, n in zip(noisy, target, (4, 2)))
            else:
                factor, undone = 1.0, noisy
            sigma = np.stack([told(rng, x, t, kind) for x, t in zip(undone, target)]) * factor
            turn = int(rng.integers(4)) if kind in ("white", "camera") else 0
            xs.append(np.rot90(planes.pack(*noisy), turn, (1, 2)) if turn == 0 else planes.pack(*(np.rot90(v, turn, (-2, -1)) for v in noisy)))
            targets.append(planes.pack(*(np.rot90(v, turn, (-2, -1)) for v in target)))
            sigmas.append(np.rot90(sigma, turn, (1, 2)))
        tensor = lambda arrays: torch.from_numpy(np.ascontiguousarray(np.stack(arrays), np.float32))
        x, sigma, target = tensor(xs), tensor(sigmas).clamp(LEAST, MOST), tensor(targets)
        # Luma has the weight of its four channels; every noise level has equal weight.
        error = (x - target).square().mean((1, 2, 3), keepdim=True).sqrt()
        return (x, sigma), target, ((error + 1.5 / 255) / (12 / 255)) ** -1.15


def blocks(rng, size):
    """Blocks that are averaged over several frames: [size, size], 0 to 1."""
    if rng.random() < 0.3:
        return np.ones((size, size), np.float32)
    mask = np.ones((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        (top, bottom), (left, right) = np.sort(rng.integers(0, size + 1, (2, 2)), 1)
        mask[top:bottom, left:right] = rng.choice([0.0, 0.0, 0.5])
    return 1 - mask if rng.random() < 0.4 else mask


def told(rng, noisy, clean, kind):
    """The sigma map of one plane or two, on the grid of half the size: usually the true one, with an error."""
    size = clean.shape[-1] if clean.ndim == 3 else clean.shape[-1] // 2
    squares = (noisy - clean) ** 2
    squares = squares.mean(0) if squares.ndim == 3 else planes.halved(squares)
    level = squares.mean()
    error = np.exp(rng.normal(0, 0.2))
    if kind in ("coded", "fused") and rng.random() < 0.5:
        error *= np.exp(rng.uniform(math.log(0.55), 0))
    if kind == "fused":
        # Part of the error does not depend on the number of frames.
        error *= rng.uniform(0.8, 1.0)
    if kind in ("camera", "coded", "fused") and rng.random() < 0.4:
        signal = clean.mean(0) if clean.ndim == 3 else planes.halved(clean)
        signal = cv2.blur(np.ascontiguousarray(signal, np.float32), (3, 3))
        spread = signal.var()
        slope = ((signal - signal.mean()) * (squares - level)).mean() / spread if spread > 1e-4 else 0.0
        variance = np.clip(level + slope * (signal - signal.mean()), 0.2 * level, 5 * level)
        return np.sqrt(variance) * error
    return np.full((size, size), math.sqrt(level) * error, np.float32)
