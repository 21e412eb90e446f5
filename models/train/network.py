"""The form of `denoise-fast`: D(x, sigma) = x - net(x, sigma), a U-Net of 3x3 convolutions and ReLU on a 2x pixel-unshuffled picture.

Nothing in it has a bias and nothing is normalised, so D(k x, k sigma) = k D(x, sigma) for every k > 0, and every output
depends on a bounded window of the input: `receptive_radius` says which.
"""

import torch
from torch import nn
from torch.nn import functional as F

MULTIPLE_OF = 8  # height and width: 2x unshuffle, then two halvings
WIDTHS = (32, 64, 64)  # channels at 1/2, 1/4 and 1/8 of the picture's height and width


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)


class Block(nn.Module):
    """x + conv(relu(conv(x)))"""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


class SpaceToDepth(torch.autograd.Function):
    """2x pixel-unshuffle that exports as the one ONNX node of that name; channels are ordered as that node orders them."""

    @staticmethod
    def forward(ctx, x):
        b, c, h, w = x.shape
        return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)

    @staticmethod
    def backward(ctx, gradient):
        b, c, h, w = gradient.shape
        return gradient.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)

    @staticmethod
    def symbolic(graph, x):
        return graph.op("SpaceToDepth", x, blocksize_i=2)


def enlarge(x):
    """Nearest-neighbour enlargement by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Denoiser(nn.Module):
    """x [B, 3, H, W], RGB in [0, 1] plus noise, unclipped; sigma [B, 1, H, W], standard deviation of each pixel's noise in
    the same unit. Returns the mean of the clean picture, [B, 3, H, W]. H and W are multiples of `MULTIPLE_OF`."""

    def __init__(self, widths=WIDTHS):
        super().__init__()
        fine, middle, coarse = widths
        self.head = conv(4 * 4, fine)
        self.fine_in = Block(fine)
        self.to_middle = conv(fine, middle, 2, 2)
        self.middle_in = Block(middle)
        self.to_coarse = conv(middle, coarse, 2, 2)
        self.coarse = nn.Sequential(Block(coarse), Block(coarse))
        self.from_coarse = conv(coarse, middle, 1)
        self.middle_out = conv(middle, middle)
        self.from_middle = conv(middle, fine, 1)
        self.fine_out = Block(fine)
        self.tail = conv(fine, 3 * 4)

    def forward(self, x, sigma):
        fine = self.fine_in(self.head(SpaceToDepth.apply(torch.cat([x, sigma], 1))))
        middle = self.middle_in(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        middle = F.relu(self.middle_out(middle + enlarge(self.from_coarse(coarse))))
        fine = self.fine_out(fine + enlarge(self.from_middle(middle)))
        return x - F.pixel_shuffle(self.tail(fine), 2)


def parameter_count(network):
    return sum(p.numel() for p in network.parameters())


def receptive_radius(size=256):
    """Largest distance, in rows or columns, between an output pixel and an input pixel that can change it.

    Exact: with every weight 1 and a non-negative input nothing cancels, so an output sees a pixel if and only if it changes.
    Each of the eight alignments of a pixel in the coarsest grid is tried."""
    network = Denoiser((1, 1, 1)).double()
    for p in network.parameters():
        nn.init.ones_(p)
    radius = 0
    for offset in range(MULTIPLE_OF):
        at = size // 2 + offset
        x = torch.zeros(1, 3, size, size, dtype=torch.double)
        still = network(x, x[:, :1])
        x[..., at, at] = 1.0
        _, _, rows, columns = torch.nonzero(network(x, x[:, :1] * 0) != still, as_tuple=True)
        radius = max(radius, (rows - at).abs().max().item(), (columns - at).abs().max().item())
    return radius


if __name__ == "__main__":
    print(f"{parameter_count(Denoiser())} parameters, receptive field radius {receptive_radius()} pixels")
