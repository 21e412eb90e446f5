"""Trains the upscalers on a GPU: first as denoisers at every level of noise, then as samplers of few steps.

In the first part every example has a level of its own, as in `jobs.Upscale`. In the second the whole sampler runs, on its own grid of
2, 4 or 8 steps, and its result is compared with the truth: so a step learns to mend what the steps before it really leave, instead of the
truth plus white noise. The loss has four terms: the absolute error; the similarity of Haar coefficients (Reisenhofer et al. 2018), which
asks for edges and texture where they are; the energy of fine detail in each neighborhood, which forbids grain in flat areas; and a
discriminator (Goodfellow et al. 2014, with the hinge loss of Lim and Ye 2017), which judges whether texture is natural. The gradient of
the last has a fixed share of the others' at the result, as in Esser et al. 2021. One step alone stays the mean.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

import jobs
import shrink
from likeness import YIQ, dissimilarity, energies, fidelity, pattern

LUMA_TABLE = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]  # fmt: skip
CHROMA_TABLE = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *[99] * 32,
]  # fmt: skip
TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


class Jpeg:
    """What JPEG with 4:2:0 and the tables of ITU-T T.81, annex K, leaves of images whose sides are multiples of 16, [B, 3, H, W] in [0, 1]."""

    def __init__(self, device):
        k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
        waves = 0.5 * torch.cos(torch.pi / 8 * (n + 0.5) * k)
        waves[0] *= 0.5**0.5
        self.waves, self.ycc = waves.to(device), torch.tensor(TO_YCC, device=device)
        self.tables = torch.tensor([LUMA_TABLE, CHROMA_TABLE, CHROMA_TABLE], device=device, dtype=torch.float32).view(3, 8, 8)

    def plane(self, plane, table):
        """A plane [B, H, W] around 0, in levels, with each 8x8's coefficients rounded by a table for each image [B, 8, 8]."""
        count, height, width = plane.shape
        cells = plane.view(count, height // 8, 8, width // 8, 8).permute(0, 1, 3, 2, 4)
        table = table[:, None, None]
        cells = self.waves @ cells @ self.waves.T
        cells = self.waves.T @ (torch.round(cells / table) * table) @ self.waves
        return cells.permute(0, 1, 3, 2, 4).reshape(count, height, width)

    def __call__(self, images, quality):
        """`quality` [B], 1 to 100, as libjpeg counts it."""
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        tables = ((self.tables[None] * scale.view(-1, 1, 1, 1) + 50) / 100).floor().clamp(1, 255)
        ycc = torch.einsum("kc,bchw->bkhw", self.ycc, 255 * images)
        small = F.avg_pool2d(ycc[:, 1:], 2)
        luma = self.plane(ycc[:, 0] - 128, tables[:, 0]) + 128
        chroma = torch.stack([self.plane(small[:, i], tables[:, 1 + i]) for i in range(2)], 1)
        chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
        rgb = torch.einsum("ck,bkhw->bchw", torch.linalg.inv(self.ycc), torch.cat([luma[:, None], chroma], 1))
        return rgb.clamp(0, 255).round() / 255


class Shrinker:
    """Small images from large ones as `shrink.shrink` makes them, for a whole batch: more than half by a filter alone, the others blurred,
    noisy or through JPEG as well."""

    BLURS = 24

    def __init__(self, size, scale, device):
        self.scale, self.device, self.jpeg = scale, device, Jpeg(device)
        at = torch.arange(size)
        sigmas = torch.cat([torch.zeros(1), torch.linspace(0.3, 0.4 * scale, self.BLURS - 1)])
        # A Gaussian with reflected borders, as a matrix.
        taps = torch.arange(-8, 9)
        weights = torch.exp(-0.5 * (taps[None] / sigmas[:, None].clamp(min=1e-3)) ** 2)
        weights = weights / weights.sum(1, keepdim=True)
        places = (at[:, None] + taps).abs()
        places = torch.where(places > size - 1, 2 * (size - 1) - places, places)
        blurs = torch.zeros(self.BLURS, size, size)
        blurs.scatter_add_(2, places[None].expand(self.BLURS, -1, -1), weights[:, None].expand(-1, size, -1).contiguous())
        filters = torch.stack([shrink.matrix(size, 1 / scale, name) for name in shrink.FILTERS])
        self.matrices = torch.einsum("fts,bsn->fbtn", filters, blurs).to(device)
        self.shares = torch.tensor([0.5, 0.2, 0.1, 0.2], device=device)

    def __call__(self, clean):
        count = len(clean)
        uniform = lambda *shape: torch.rand(count, *shape, device=self.device)
        processed = uniform() < 0.4
        some = lambda share: processed & (uniform() < share)
        which = torch.multinomial(self.shares, count, replacement=True)
        blur = torch.where(some(0.5), 1 + (uniform() * (self.BLURS - 1)).long().clamp(max=self.BLURS - 2), 0)
        rows = self.matrices[which, blur][:, None]
        small = (rows @ clean @ rows.transpose(-1, -2)).clamp(0, 1)
        noise = uniform(1, 1, 1) * 6 / 255 * torch.randn_like(small)
        small = torch.where(some(0.4).view(-1, 1, 1, 1), (small + noise).clamp(0, 1), small)
        coded = self.jpeg(small, 55 + 43 * uniform())
        return torch.where(some(0.5).view(-1, 1, 1, 1), coded, (255 * small).round() / 255)


class Judge(nn.Module):
    """Says of each place of an image, given its bicubic enlargement, whether it is natural."""

    def __init__(self, widths=(48, 96, 160, 160)):
        super().__init__()
        layers, inputs = [], 6
        for i, width in enumerate(widths):
            kernel, stride = (4, 2) if i < 3 else (3, 1)
            layers += [spectral_norm(nn.Conv2d(inputs, width, kernel, stride, 1)), nn.LeakyReLU(0.2)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 3, 1, 1))

    def forward(self, image, base):
        return self.layers(torch.cat([image - base, base], 1))


class Upscale:
    """`upscale-x4` and `upscale-x2`, on the same photographs."""

    names, batch, error = ("upscale-x4", "upscale-x2"), 32, "absolute"
    rates = {"upscale-x4": 1e-3, "upscale-x2": 1e-3}
    PATCH = 192
    MEANS = 0.5  # share of the time for the first part
    JUDGED = 0.35  # of the other terms' gradient

    def __init__(self, images, models, device):
        self.images, self.models, self.device = images, models, device
        self.shrinkers = {name: Shrinker(self.PATCH, m["scale"], device) for name, m in models.items()}
        self.judges = {name: Judge().to(device, memory_format=torch.channels_last) for name in models}
        self.judges_optimizers = {n: torch.optim.Adam(j.parameters(), lr=2e-4, betas=(0.0, 0.99)) for n, j in self.judges.items()}
        self.kept = set()

    def levels(self, model, count):
        """Levels as `jobs.Upscale` draws them, [count, 1, 1, 1]."""
        largest, first = model["sigma_max"], model["first_share"]
        kind, u = torch.rand(2, count, 1, 1, 1, device=self.device)
        steps = torch.tensor([2.0, 4, 8], device=self.device)[torch.randint(3, (count, 1, 1, 1), device=self.device)]
        grid = largest * (1 - (1 + (u * (steps - 1)).floor()) / steps) ** 2
        between = torch.exp(np.log(0.002) + u * np.log(largest / 0.002))
        return torch.where(kind < first, largest, torch.where(kind < 0.5 + 0.5 * first, grid, between))

    def train(self, networks, count, progress):
        clean = self.images.batch(count)
        for n in networks:
            low = self.shrinkers[n.name](clean)
            if progress < self.MEANS:
                self.train_mean(n, clean, low, progress / self.MEANS)
            else:
                if n.name not in self.kept:
                    self.kept.add(n.name)
                    n.save(n.path.with_stem(f"{n.name}-mean"))
                self.train_sampler(n, clean, low, (progress - self.MEANS) / (1 - self.MEANS))

    def train_mean(self, n, clean, low, progress):
        model = self.models[n.name]
        level = self.levels(model, len(clean))
        x = clean + level * torch.randn_like(clean)
        weight = 1 + (model["sigma_data"] / level).square().clamp(max=30)
        n.train((x, level.expand_as(x[:, :1]), low), clean, weight, progress, least=0.15)

    def train_sampler(self, n, clean, low, progress):
        model, judge = self.models[n.name], self.judges[n.name]
        largest = model["sigma_max"]
        base = n.network.enlarged(low)
        place = lambda t: t.contiguous(memory_format=torch.channels_last)
        low = place(low)

        def mean(x, level):
            late = progress > 0.9
            run = n.network if late else n.compiled
            with torch.autocast(self.device.type, torch.bfloat16, enabled=not late):
                return run(place(x), place(level), low).float()

        steps = int(np.random.choice([2, 4, 4, 4, 8]))
        first, result = jobs.sample(mean, base + largest * torch.randn_like(clean), largest, steps)

        judge.requires_grad_(False)
        seen = result.detach().requires_grad_()
        near = fidelity(seen, clean) + pattern(seen, clean, model["scale"])
        pull = torch.autograd.grad(near, seen)[0]
        with torch.autocast(self.device.type, torch.bfloat16):
            push = torch.autograd.grad(-judge(place(seen), base).float().mean(), seen)[0]
        share = self.JUDGED * min(1.0, progress / 0.1) * pull.norm() / (push.norm() + 1e-12)
        n.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([result, (first - clean).abs().mean()], [pull + share * push, None])
        n.advance(near, 0.25 * n.rate * (1 if progress < 0.5 else 2 * (1 - progress)))

        judge.requires_grad_(True)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = F.relu(1 - judge(place(clean), base).float()).mean() + F.relu(1 + judge(place(result.detach()), base).float()).mean()
        optimizer = self.judges_optimizers[n.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def validation(self, args):
        import cv2

        images = [cv2.imread(str(p))[..., ::-1] for p in sorted(args.validation.glob("*.jpg"))]
        middle = lambda n: slice((n - min(n, 384) // 32 * 32) // 2, (n + min(n, 384) // 32 * 32) // 2)
        images = [p[middle(p.shape[0]), middle(p.shape[1])].copy() for p in images]
        return [torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in images]

    @torch.no_grad()
    def validate(self, network, clean):
        """PSNR and HaarPSI's similarity of bicubic enlargement, of one step, and of four; the error of the energy of detail, each."""
        low = shrink.resize(clean[0], network.scale, "bicubic")[None].clamp(0, 1).mul(255).round().div(255).to(self.device)
        clean = clean.to(self.device)
        base, largest = network.enlarged(low), self.models[f"upscale-x{network.scale}"]["sigma_max"]
        results = [base]
        for steps in (1, 4):
            start = base + largest * jobs.seeded_noise(clean, steps)
            _, result = jobs.sample(lambda x, level: network(x, level, low), start, largest, steps)
            results.append(result.clamp(0, 1))
        weights = clean.new_tensor(YIQ[0]).view(1, 3, 1, 1)
        detail = lambda r: sum((a - b).mean() for a, b in zip(*(energies((v * weights).sum(1, keepdim=True)) for v in (r, clean)))).item()
        return [s for r in results for s in (jobs.psnr(r, clean), 100 * (1 - dissimilarity(r, clean).item()), detail(r))]
