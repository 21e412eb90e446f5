"""The schedule, the loss and the sampler of the text-to-image systems, and their optimizer."""

import torch

STEPS = 1000


def alphas():
    """The products of diffusers' `linear` (Ho et al. 2020), [1000]. An area of 8x8 pixels shows what
    it is as soon as its signal is a tenth of its noise, which is so below timestep 650; with the
    cosine schedule below 940, so that few steps would depend on the text."""
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0).float()


ALPHAS = alphas()


def noised(x0, timestep):
    """The state at a timestep, and v, by which it is predicted."""
    shape = [-1] + [1] * (x0.dim() - 1)
    signal, noise = ALPHAS[timestep].sqrt().view(shape), (1 - ALPHAS[timestep]).sqrt().view(shape)
    z = torch.randn_like(x0)
    return signal * x0 + noise * z, signal * z - noise * x0


@torch.no_grad()
def sample(network, shape, steps, scale=1.0, threshold=None, generator=None, start=None):
    """DDIM with trailing timesteps. `network(x, t, guided)` is v with the condition and without."""
    x = torch.randn(shape, generator=generator) if start is None else start
    times = [round(STEPS - i * STEPS / steps) - 1 for i in range(steps)]
    for i, t in enumerate(times):
        bar = ALPHAS[t]
        after = ALPHAS[times[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        at = torch.full((shape[0],), t)
        v = network(x, at, True)
        if scale != 1:
            without = network(x, at, False)
            v = without + scale * (v - without)
        x0 = bar.sqrt() * x - (1 - bar).sqrt() * v
        noise = (1 - bar).sqrt() * x + bar.sqrt() * v
        if threshold:
            limit = torch.quantile(x0.flatten(1).abs(), threshold, 1).clamp(min=1).view(-1, *[1] * (x0.dim() - 1))
            x0 = x0.clamp(-limit, limit) / limit
            noise = (x - bar.sqrt() * x0) / (1 - bar).sqrt()
        x = after.sqrt() * x0 + (1 - after).sqrt() * noise
    return x


def orthogonalized(matrices, rounds=5):
    """Approximately the nearest orthogonal matrices, [N, rows, columns], by Newton and Schulz's
    iteration, for Muon (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(rounds):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Optimizer:
    """Muon for the matrices of attention and perceptrons, AdamW for everything else."""

    def __init__(self, modules, rate=1.0):
        matrices, rest = [], []
        for module in modules:
            for name, p in module.named_parameters():
                is_matrix = p.dim() == 2 and any(part in name for part in ("blocks.", "layers.")) and "film" not in name and "offset" not in name
                (matrices if is_matrix else rest).append(p)
        self.groups = {}
        for p in matrices:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momenta = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.groups.items()}
        self.adam = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
        self.parameters = matrices + rest
        self.rate = rate

    @torch.no_grad()
    def step(self, factor):
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = 2e-3 * factor * self.rate
        self.adam.step()
        for shape, ps in self.groups.items():
            momentum = self.momenta[shape].to(ps[0].device)
            self.momenta[shape] = momentum
            gradient = torch.stack([p.grad for p in ps])
            momentum.mul_(0.95).add_(gradient)
            update = orthogonalized(gradient + 0.95 * momentum)
            size = 0.02 * factor * self.rate * max(1, shape[0] / shape[1]) ** 0.5
            for p, change in zip(ps, update, strict=True):
                p.mul_(1 - 0.02 * factor * self.rate * 0.05).add_(change, alpha=-size)
        for p in self.parameters:
            p.grad = None
