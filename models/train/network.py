"""The networks: a U-Net of 3x3 convolutions and ReLU on a low-resolution grid, a light network, and the wrapper of each task.

There is no normalization, and no bias except in the prior and in the first convolution of a denoiser. Every network returns the mean of the clean image,
D(x, sigma), and takes sigma as a map with a value for each pixel. Images are RGB, [B, 3, H, W].
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from planes import WEIGHTS
from shrink import keys


def conv(inputs, outputs, kernel=3, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias)


class Block(nn.Module):
    """x + conv(relu(conv(x)))"""

    def __init__(self, width, bias=False):
        super().__init__()
        self.first, self.second = conv(width, width, bias=bias), conv(width, width, bias=bias)

    def forward(self, x):
        return x + self.second(F.relu(self.first(x)))


def blocks(width, count, bias=False):
    return nn.Sequential(*(Block(width, bias) for _ in range(count)))


def enlarge(x):
    """Nearest-neighbor enlargement by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def space_to_depth(x, size):
    """Pixel-unshuffle; channels are ordered as ONNX's node of that name orders them."""
    return SpaceToDepth.apply(x, size) if torch.onnx.is_in_onnx_export() else to_depth(x, size)


def depth_to_space(x, size):
    """The inverse of `space_to_depth`."""
    return DepthToSpace.apply(x, size) if torch.onnx.is_in_onnx_export() else to_space(x, size)


def to_depth(x, size):
    b, c, h, w = x.shape
    return x.view(b, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4).reshape(b, -1, h // size, w // size)


def to_space(x, size):
    b, c, h, w = x.shape
    return x.view(b, size, size, -1, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, -1, h * size, w * size)


class UNet(nn.Module):
    """Levels from fine to coarse, each at half the height and width of the one before: `widths` are their channels,
    `depths` their residual blocks on the way down and, but for the coarsest, on the way up again."""

    def __init__(self, inputs, outputs, widths, depths, bias=False):
        super().__init__()
        levels = range(len(widths) - 1)
        self.head = conv(inputs, widths[0], bias=bias)
        self.down = nn.ModuleList(blocks(w, d, bias) for w, d in zip(widths, depths))
        self.halve = nn.ModuleList(conv(widths[i], widths[i + 1], 2, 2, bias) for i in levels)
        self.lift = nn.ModuleList(conv(widths[i + 1], widths[i], 1, bias=bias) for i in levels)
        self.join = nn.ModuleList(conv(widths[i], widths[i], bias=bias) for i in levels[1:])
        self.up = nn.ModuleList(blocks(widths[i], depths[i] - (i > 0), bias) for i in levels)
        self.tail = conv(widths[0], outputs, bias=bias)

    def forward(self, x):
        x, passed = self.down[0](self.head(x)), []
        for halve, down in zip(self.halve, self.down[1:]):
            passed.append(x)
            x = down(halve(x))
        for i in reversed(range(len(passed))):
            x = passed[i] + enlarge(self.lift[i](x))
            if i > 0:
                x = F.relu(self.join[i - 1](x))
            x = self.up[i](x)
        return self.tail(x)


class Light(nn.Module):
    """x + conv1x1(relu(conv1x1(depthwise(x)))): a tenth of the products of a `Block`."""

    def __init__(self, width, hidden, kernel):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.spread, self.mix = conv(width, hidden, 1), conv(hidden, width, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x):
        return x + self.mix(F.relu(self.spread(self.depthwise(x))))


class Gate(nn.Module):
    """A share from 0 to 1 of each value, from its neighborhood: sigmoid(conv1x1(depthwise(relu(conv1x1(x)))))"""

    def __init__(self, width, hidden, bias):
        super().__init__()
        self.spread, self.mix = conv(width, hidden, 1), conv(hidden, width, 1, bias=True)
        self.depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.share = nn.Sigmoid()
        nn.init.constant_(self.mix.bias, bias)

    def forward(self, x):
        return self.share(self.mix(self.depthwise(F.relu(self.spread(x)))))


class LightNet(nn.Module):
    """Two levels of `Light` blocks, on the grid of cells of `cell`x`cell` inputs and at half of it: one convolution reads a cell, one writes it.
    `widths` are the levels' channels, `depths` the blocks on the coarse level and on the way up, `hidden` the channels within those of each level.

    The last step of each level multiplies by a gate, as a Wiener filter does: the noise's share of a coefficient."""

    def __init__(self, inputs, outputs, cell, widths, depths, hidden):
        super().__init__()
        self.cell = cell
        fine, coarse = widths
        lights = lambda width, count, hidden, kernel: nn.Sequential(*(Light(width, hidden, kernel) for _ in range(count)))
        self.head = nn.Conv2d(inputs, fine, cell, cell)
        self.halve = conv(fine, coarse, 2, 2)
        self.coarse = lights(coarse, depths[0], hidden[1], 3)
        self.smooth = nn.Conv2d(coarse, coarse, 5, padding=2, groups=coarse, bias=False)
        self.coarse_gate = Gate(coarse, hidden[1], 0.0)
        self.lift = conv(coarse, fine, 1)
        self.gate = Gate(fine, hidden[0], 2.0)
        self.up = lights(fine, depths[1], hidden[0], 5)
        self.tail = conv(fine, outputs * cell**2, 1)
        nn.init.zeros_(self.lift.weight)
        with torch.no_grad():  # moves a value to the local mean
            self.smooth.weight.fill_(1 / 25)[:, :, 2, 2] -= 1

    @torch.no_grad()
    def begin_with_cosines(self):
        """Begins as what takes everything but the mean of 2x2 cells of RGB for noise, in channels that are the cosine transform of a cell in
        opponent colors. A block's depthwise convolutions each have one frequency to judge, and the coarse level has the mean to smooth, whose
        noise a network that begins at random hardly finds, since the mean itself hides it."""
        cell, position = self.cell, torch.arange(self.cell) + 0.5
        waves = torch.cos(math.pi / cell * position * torch.arange(cell)[:, None]) * (2 / cell) ** 0.5
        waves[0] *= 0.5**0.5
        colors = F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]))
        basis = torch.einsum("uy,vx,kc->uvkcyx", waves, waves, colors).flatten(0, 2)
        self.head.weight[: len(basis), :3] = basis
        self.tail.weight.zero_()
        self.tail.weight[:, : len(basis), 0, 0] = basis.permute(2, 3, 1, 0).flatten(0, 2)
        # The coarse level sees the means; brightness is large.
        scale = torch.tensor([1 / cell, 1, 1])
        self.halve.weight[:, :3] *= scale.view(3, 1, 1)
        for color in range(3):
            self.halve.weight[color] = 0
            self.halve.weight[color, color] = scale[color] / 4
            self.lift.weight[color, color] = -1 / scale[color]

    def forward(self, x):
        x = self.head(x)
        means = self.coarse(self.halve(x))
        means = means + self.smooth(means) * self.coarse_gate(means)
        x = self.up(x + enlarge(self.lift(means)))
        return depth_to_space(self.tail(x * self.gate(x)), self.cell)


class SpaceToDepth(torch.autograd.Function):
    """Exports as the one ONNX node of that name."""

    @staticmethod
    def forward(ctx, x, size):
        return to_depth(x, size)

    @staticmethod
    def symbolic(graph, x, size):
        return graph.op("SpaceToDepth", x, blocksize_i=size)


class DepthToSpace(torch.autograd.Function):
    """The inverse of `SpaceToDepth`."""

    @staticmethod
    def forward(ctx, x, size):
        return to_space(x, size)

    @staticmethod
    def symbolic(graph, x, size):
        return graph.op("DepthToSpace", x, blocksize_i=size, mode_s="DCR")


class Denoiser(nn.Module):
    """D(x, sigma) = x - net(x, sigma) on a 2x pixel-unshuffled image in [0, 1] plus noise, unclipped. sigma
    [B, 1, H, W] is the standard deviation of each pixel's noise in the same unit.

    Without `absolute`, D(k x, k sigma) = k D(x, sigma) for every k > 0. With it the first convolution has a bias, so that the network
    knows where black and white are, where files clip noise."""

    def __init__(self, widths=(32, 64, 64), depths=(1, 1, 2), absolute=False):
        super().__init__()
        self.multiple_of = 2 ** len(widths)
        self.body = UNet(4 * 4, 3 * 4, widths, depths)
        if absolute:
            self.body.head = conv(4 * 4, widths[0], bias=True)

    def forward(self, x, sigma):
        return x - F.pixel_shuffle(self.body(space_to_depth(torch.cat([x, sigma], 1), 2)), 2)


class LightDenoiser(nn.Module):
    """D(x, sigma) = x - min(255 sigma, 1) net(x, sigma), for RGB as `Denoiser` has it: exactly x where sigma is 0."""

    def __init__(self, widths, depths, hidden):
        super().__init__()
        self.multiple_of = 2 * 4
        self.body = LightNet(3 + 1, 3, 4, widths, depths, hidden)
        self.body.begin_with_cosines()

    def forward(self, x, sigma):
        return x - self.body(torch.cat([x, sigma], 1)) * (255 * sigma).clamp(max=1)


class PlaneDenoiser(nn.Module):
    """D(x, sigma) for images in planes, x [B, 6, H, W] as `planes.pack` has them, sigma [B, 2, H, W] for luma and chroma."""

    def __init__(self, widths, depths):
        super().__init__()
        self.multiple_of = 2 ** (len(widths) - 1)
        self.body = UNet(6 + 2, 6, widths, depths)
        self.body.head = conv(6 + 2, widths[0], bias=True)

    def forward(self, x, sigma):
        return x - self.body(torch.cat([x, sigma], 1))

    @torch.no_grad()
    def begin_as(self, rgb):
        """Begins as the denoiser for RGB whose weights these are, with ITU-R BT.601 and repeated chroma around it: all of that is linear, and
        goes into the first convolution and the last one."""
        red, blue = WEIGHTS["bt601"]
        green = 1 - red - blue
        to_rgb = torch.tensor([[1, 0, 2 - 2 * red], [1, -(2 - 2 * blue) * blue / green, -(2 - 2 * red) * red / green], [1, 2 - 2 * blue, 0]])
        from_rgb = torch.linalg.inv(to_rgb)
        own = dict(self.state_dict())
        own.update({name: value for name, value in rgb.items() if name in own and own[name].shape == value.shape})
        # The inputs of each of 2x2, red, green, blue and sigma; the outputs by color.
        head, tail = self.by_pixel(rgb["body.head.weight"], rgb["body.tail.weight"])
        luma, chroma = head[:, :, :3].sum(2), torch.einsum("opcij,ck->okij", head[:, :, :3], to_rgb[:, 1:])
        # White noise of 1 in RGB is 0.67 in luma and 0.32 in chroma; each says half of it.
        sigma = head[:, :, 3:].sum(1) * 0.5
        own["body.head.weight"] = torch.cat([luma, chroma, sigma / 0.6685, sigma / 0.32], 1)
        own["body.head.bias"] = rgb["body.head.bias"] - 0.5 * chroma.sum((1, 2, 3))
        own["body.tail.weight"] = torch.cat([
            torch.einsum("c,gcpnij->gpnij", from_rgb[0], tail),
            torch.einsum("kc,gcpnij->gknij", from_rgb[1:], tail) / 4,
        ], 1).flatten(0, 1)
        self.load_state_dict(own)

    def by_pixel(self, head, tail):
        """The first convolution [outputs, pixel of 2x2, color, rows, columns] and the last one
        [cell of the grid, color, pixel of 2x2, inputs, rows, columns] of the denoiser for RGB."""
        return head.unflatten(1, (4, 4)), tail.unflatten(0, (3, 4))[None]


class LightPlaneDenoiser(PlaneDenoiser):
    """The same as `LightDenoiser` is: exactly x where sigma is 0."""

    def __init__(self, widths, depths, hidden):
        nn.Module.__init__(self)
        self.multiple_of = 2 * 2
        self.body = LightNet(6 + 2, 6, 2, widths, depths, hidden)

    def forward(self, x, sigma):
        share = (255 * sigma).clamp(max=1)
        return x - self.body(torch.cat([x, sigma], 1)) * share[:, [0, 0, 0, 0, 1, 1]]

    def by_pixel(self, head, tail):
        # 4x4 pixels are 2x2 cells of 2x2.
        head = head.unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(0, 3, 5, 1, 2, 4).flatten(1, 2)
        tail = tail.unflatten(0, (2, 2, 2, 2, 3)).permute(0, 2, 4, 1, 3, 5, 6, 7).flatten(3, 4).flatten(0, 1)
        return head, tail


def bicubic_phases(scale):
    """Bicubic enlargement (Keys 1981, a = -1/2) as a 5x5 convolution on the small grid, [3 * scale^2, 3, 5, 5]; its outputs are
    ordered as `SpaceToDepth` orders the big image."""

    # Output p of a cell lies at (p + 1/2) / scale - 1/2 from the center of its input.
    rows = torch.tensor([[float(keys((p + 0.5) / scale - 0.5 - tap)) for tap in range(-2, 3)] for p in range(scale)])
    kernel = torch.zeros(scale, scale, 3, 3, 5, 5)
    for c in range(3):
        kernel[:, :, c, c] = rows[:, None, :, None] * rows[None, :, None, :]
    return kernel.reshape(3 * scale**2, 3, 5, 5)


class Upscaler(nn.Module):
    """D(x, sigma, low): the mean of an image given that image with noise, x [B, 3, s H, s W] in [0, 1] plus noise, the
    map of sigma [B, 1, s H, s W], and the small image, low [B, 3, H, W].

    All of it happens on the small grid. u = x - bicubic(low) is kept by c_skip and corrected by c_out as in EDM (Karras et al.
    2022, eq. 7), with sigma_data the deviation of an image from its bicubic enlargement; the net sees c_skip * u, which vanishes as
    sigma grows, so that at sigma_max the result hardly depends on x."""

    def __init__(self, scale, sigma_data, widths, depths, sigma_flat=None):
        super().__init__()
        self.multiple_of = 2 ** (len(widths) - 1)
        self.scale, self.sigma_data = scale, sigma_data
        self.sigma_flat = sigma_flat or sigma_data
        self.register_buffer("bicubic", bicubic_phases(scale), persistent=False)
        self.body = UNet(3 * scale**2 + 3 + 1, 3 * scale**2, widths, depths)

    def base(self, low):
        """The bicubic enlargement, on the small grid; always in the precision of `low`, whose 8 bits bfloat16 would not keep."""
        with torch.autocast(low.device.type, enabled=False):
            return F.conv2d(F.pad(low, (2, 2, 2, 2), mode="replicate"), self.bicubic)

    def enlarged(self, low):
        """The bicubic enlargement [B, 3, s H, s W], with which a plan starts."""
        return depth_to_space(self.base(low), self.scale)

    def forward(self, x, sigma, low):
        sigma = sigma[:, :, :: self.scale, :: self.scale]
        weight = lambda deviation: deviation**2 / (sigma * sigma + deviation**2)
        base = self.base(low)
        state, skip = space_to_depth(x, self.scale) - base, weight(self.sigma_data)
        change = self.body(torch.cat([skip * state, low, sigma], 1)) * (sigma * skip.sqrt() / self.sigma_data)
        kept = weight(self.sigma_flat) * state
        return depth_to_space(base + (kept + change), self.scale)


class Prior(nn.Module):
    """D(x, sigma) for images in [-1, 1], with EDM's preconditioning (Karras et al. 2022, table 1) for each pixel."""

    def __init__(self, sigma_data, widths, depths):
        super().__init__()
        self.multiple_of = 2 ** len(widths)
        self.sigma_data = sigma_data
        self.body = UNet(4 * 5, 3 * 4, widths, depths, bias=True)

    def forward(self, x, sigma):
        sigma = sigma.clamp(min=0.002)
        c_in = (sigma * sigma + self.sigma_data**2).rsqrt()
        c_noise = sigma.log() / 4
        inputs = torch.cat([c_in * x, c_noise, torch.ones_like(c_noise)], 1)
        change = F.pixel_shuffle(self.body(space_to_depth(inputs, 2)), 2)
        return (self.sigma_data * c_in) ** 2 * x + sigma * (self.sigma_data * c_in) * change


def grow(network, small):
    """Initializes `network` from a smaller one's weights: common parts are copied, new parts initially change nothing.

    A residual block that the small one lacks ends in zeros. Channels that it lacks start at random and reach the old ones through zeros
    (function-preserving growth, Chen et al. 2016, "Net2Net")."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            old = small.get(name)
            if old is None or any(o > n for o, n in zip(old.shape, weight.shape)):
                if name.endswith(("second.weight", "bias")):
                    weight.zero_()
                continue
            weight[: old.shape[0]] = 0
            weight[tuple(slice(0, n) for n in old.shape)] = old


def parameter_count(network):
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def receptive_radius(network, inputs_of, size):
    """Largest distance, in rows or columns, between an output pixel and a pixel of the first input of `inputs_of` (for an
    upscaler the small image, in its own pixels) that can change it.

    Exact: with every weight 1 and a non-negative input nothing cancels, so an output sees a pixel if and only if it changes.
    Every alignment of a pixel in the coarsest grid is tried."""
    network = network.double()
    for part in network.modules():
        if isinstance(part, Gate):
            part.share = nn.Identity()  # the sigmoid of such large numbers is 1
    for p in network.parameters():
        nn.init.ones_(p)
    radius, scale = 0, getattr(network, "scale", 1)
    for offset in range(network.multiple_of):
        at = size // 2 + offset
        inputs, moved = inputs_of(size)
        still = network(*inputs)
        moved[..., at, at] += 1.0
        _, _, rows, columns = torch.nonzero(network(*inputs) != still, as_tuple=True)
        rows, columns = rows.div(scale, rounding_mode="floor"), columns.div(scale, rounding_mode="floor")
        radius = max(radius, (rows - at).abs().max().item(), (columns - at).abs().max().item())
    return radius
