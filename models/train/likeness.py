"""How alike two images are, as losses: edges and texture where they are, and the strength of fine detail."""

import torch
from torch.nn import functional as F

YIQ = [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]


def haar(planes, scale):
    """Coefficients of the Haar wavelet of 2**scale pixels, across and down, of [B, C, H, W]: [2, B, C, h, w]."""
    half, size = 2 ** (scale - 1), 2**scale
    kernel = planes.new_full((size, size), 2.0**-scale)
    kernel[:half] *= -1
    kernels = torch.stack([kernel, kernel.T])[:, None]
    count, channels, height, width = planes.shape
    found = F.conv2d(planes.reshape(count * channels, 1, height, width), kernels)
    return found.view(count, channels, 2, *found.shape[2:]).permute(2, 0, 1, 3, 4)


def dissimilarity(result, truth):
    """1 minus the mean similarity of Haar coefficients, weighted as in HaarPSI, without its last nonlinearity."""
    to_yiq = 255 * result.new_tensor(YIQ)
    (one, other) = (F.avg_pool2d(torch.einsum("kc,bchw->bkhw", to_yiq, v), 2) for v in (result, truth))
    same = lambda a, b: (2 * a * b + 900) / (a * a + b * b + 900)
    pairs = [(haar(one[:, :1], s).abs(), haar(other[:, :1], s).abs()) for s in (1, 2, 3)]
    size = pairs[2][0].shape[3:]
    crop = lambda v, s: v[..., 4 - 2 ** (s - 1) :, 4 - 2 ** (s - 1) :][..., : size[0], : size[1]]
    found = sum(same(crop(a, s), crop(b, s)) for s, (a, b) in zip((1, 2), pairs)) / 2
    weight = torch.maximum(*pairs[2]).detach()
    chroma = [F.avg_pool2d(v[:, 1:], 2, 1).abs() for v in (one, other)]
    chroma = crop(same(*chroma).mean(1, keepdim=True), 1)
    total = (weight * found).sum() + (weight.mean(0) * chroma).sum()
    return 1 - total / (weight.sum() + weight.mean(0).sum())


def energies(luma):
    """Logarithm of the energy of fine detail in neighborhoods of 9x9, in both directions and two octaves."""
    least = (1.2 / 255) ** 2
    return [F.avg_pool2d(haar(luma, s).square().flatten(0, 1), 9, 2).add(least).log() for s in (1, 2)]


def fidelity(result, truth):
    weights = result.new_tensor(YIQ[0]).view(1, 3, 1, 1)
    pairs = zip(*(energies((v * weights).sum(1, keepdim=True)) for v in (result, truth)))
    detail = sum((a - b).abs().mean() for a, b in pairs)
    return (result - truth).abs().mean() + 0.15 * dissimilarity(result, truth) + 0.004 * detail


def pattern(result, truth, scale):
    """Error that repeats from cell to cell of the small grid, as the mean over neighborhoods of 5x5 cells of each pixel of a cell: detail with the
    right energy could be a pattern, whose error does not vanish in such a mean."""
    error = F.pixel_unshuffle(result - truth, scale)
    return F.avg_pool2d(error, 5, 2).abs().mean()
