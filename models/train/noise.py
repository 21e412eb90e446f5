"""Random sigma maps for training patches, and the noise by them."""

import torch
from torch.nn import functional as F

SIGMA_MAX = 100 / 255


def level(rng):
    """One noise level, in [0, 1] units: mostly 3 to 60 in 8-bit units, the whole range now and then."""
    kind = rng.random()
    if kind < 0.7:
        return rng.uniform(3, 60) / 255
    if kind < 0.9:
        return rng.uniform(0, 100) / 255
    return 10 ** rng.uniform(-0.5, 2) / 255


def sigma_map(rng, clean):
    """Standard deviation of the noise of each pixel of one patch [3, H, W]: [1, H, W]."""
    height, width = clean.shape[1:]
    sigma, kind = level(rng), rng.random()
    if kind < 0.6:
        return torch.full((1, height, width), sigma)
    if kind < 0.75:  # a smooth field between two levels
        grid = torch.tensor(rng.random((1, 1, 3, 3)), dtype=torch.float32)
        field = F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)[0].clamp(0, 1)
        return sigma + (level(rng) - sigma) * field
    if kind < 0.9:  # Poisson-Gaussian, as sensors have it: sigma^2 = a * signal + b
        signal, share = clean.mean(0, keepdim=True), rng.uniform(0, 1)
        shot = signal / (signal.mean() + 0.05)
        return (sigma * (share * shot + 1 - share).sqrt()).clamp(max=SIGMA_MAX)
    sigmas = torch.full((1, height, width), sigma)  # blocks, as of temporally fused or known areas
    for _ in range(int(rng.integers(1, 4))):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        inner = 0.0 if rng.random() < 0.2 else level(rng)
        sigmas[:, top : top + int(rng.integers(4, height)), left : left + int(rng.integers(4, width))] = inner
    return sigmas


def as_files(rng, noisy, share=0.75):
    """Most of the noisy patches clipped to [0, 1], and half of those rounded to 8 bits: as in an image file."""
    for i in range(len(noisy)):
        if rng.random() < share:
            noisy[i] = noisy[i].clamp(0, 1)
            if rng.random() < 0.5:
                noisy[i] = (noisy[i] * 255).round() / 255
    return noisy


def draw(rng, clean, gray_share=0.1):
    """Clean patches [B, 3, H, W], noisy ones and their sigma maps [B, 1, H, W]. Some patches turn gray, with the same
    noise in all three channels."""
    clean = clean.clone()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
    for i in range(len(clean)):
        if rng.random() < gray_share:
            clean[i] = (clean[i] * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
            noise[i] = noise[i, :1]
    sigma = torch.stack([sigma_map(rng, c) for c in clean])
    return clean, clean + sigma * noise, sigma
