"""Downsampling: antialiased filters, and typical processing of low-resolution images by cameras and websites."""

from functools import lru_cache

import cv2
import numpy as np
import torch

import camera


def keys(t):
    """The cubic of Keys (1981) with a = -1/2, which is what Pillow and most resizers call bicubic."""
    t = np.abs(t)
    return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))


FILTERS = {
    "bicubic": keys,
    "lanczos": lambda t: np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0),
    "triangle": lambda t: np.clip(1 - np.abs(t), 0, None),
    "box": lambda t: (np.abs(t) <= 0.5) * 1.0,
}


@lru_cache(maxsize=256)
def matrix(size, scale, name):
    """The filter as a matrix, [round(size * scale), size]; stretched to antialias when the scale is below one."""
    target = round(size * scale)
    stretch = max(1.0, 1 / scale)
    centers = (np.arange(target)[:, None] + 0.5) / scale - 0.5
    weights = FILTERS[name]((centers - np.arange(size)) / stretch)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def resize(image, divisor, name):
    """An image [3, H, W] downsampled by an integer divisor."""
    rows, columns = (matrix(n, 1 / divisor, name) for n in image.shape[-2:])
    return rows @ image @ columns.T


def enlarge(image, factor):
    """An image [..., H, W] upsampled by an integer factor, bicubic."""
    rows, columns = (matrix(n, float(factor), "bicubic") for n in image.shape[-2:])
    return rows @ image @ columns.T


def shrink(rng, image, scale):
    """An image [3, H, W] in [0, 1] downsampled by `scale`, rounded to 8 bits; more than half of them without further processing."""
    plain = rng.random() < 0.6
    if not plain and rng.random() < 0.5:
        image = torch.from_numpy(cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (0, 0), rng.uniform(0.3, 0.35 * scale))).permute(2, 0, 1)
    small = resize(image, scale, rng.choice(list(FILTERS), p=[0.5, 0.2, 0.1, 0.2])).clamp(0, 1)
    if not plain and rng.random() < 0.4:
        noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
        small = (small + rng.uniform(0, 5) / 255 * noise).clamp(0, 1)
    if not plain and rng.random() < 0.5:
        coded = camera.jpeg(small.permute(1, 2, 0).numpy(), rng.uniform(70, 98), "420")
        return torch.from_numpy(coded.copy()).permute(2, 0, 1)
    return (small * 255).round() / 255
