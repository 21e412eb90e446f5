"""Trains three tiny networks on scikit-learn's 8x8 handwritten digits and exports them as model packages.

    python digits.py train digits-ddpm            # a class-conditional DDPM; writes out/digits-ddpm/checkpoint.pt
    python digits.py distil digits-ddpm           # continues from there by progressive distillation; writes out/digits-ddpm/distilled.pt
    python digits.py train digits-ncsn            # a noise-conditional score network
    python digits.py train digits-classifier      # log p(y | x, sigma) with its gradient, for classifier guidance
    python digits.py export digits-ddpm           # -> ../digits-ddpm: the ONNX file, its recorded arrays and its manifest

Images are x0 [B, 1, 8, 8] in [-1, 1]. A state is x = signal * x0 + noise * n with n ~ N(0, I); sigma = noise / signal is its level, whatever
the signal. `digits_report.py` measures what the exported files draw. Export stops before anything is
replaced unless ONNX Runtime agrees with PyTorch.
"""

import argparse
import hashlib
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

CLASSES, SIDE = 10, 8
NOBODY = CLASSES  # the class of an unconditional evaluation
STEPS = 1000  # of the DDPM's forward process
BETA_SCHEDULE, BETA_START, BETA_END = "squaredcos_cap_v2", 1e-4, 0.02
DROPOUT = 0.15  # share of the examples whose class is dropped (Ho & Salimans 2022, algorithm 1)
TOLERANCE = 2e-5  # between ONNX Runtime and PyTorch, of one unit or of the largest value


def digits():
    """All 1797 images [N, 1, 8, 8] in [-1, 1] and their classes [N]."""
    data = load_digits()
    return torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32), torch.tensor(data.target)


def split():
    """Images and classes to learn from, four fifths of each class, and held-out ones, which only the classifier's training excludes."""
    images, classes = digits()
    learned, aside = train_test_split(np.arange(len(classes)), test_size=0.2, random_state=0, stratify=classes)
    return (images[learned], classes[learned]), (images[aside], classes[aside])


def alphas_cumprod(schedule=BETA_SCHEDULE, start=BETA_START, end=BETA_END):
    """prod(1 - beta) [STEPS] in float64, for diffusers' two schedules: linear (Ho et al. 2020, section 4) and cosine
    (Nichol & Dhariwal 2021, eq. 17)."""
    if schedule == "linear":
        betas = torch.linspace(start, end, STEPS, dtype=torch.float64)
    else:
        bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = torch.tensor([min(1 - bar((i + 1) / STEPS) / bar(i / STEPS), 0.999) for i in range(STEPS)], dtype=torch.float64)
    return torch.cumprod(1 - betas, 0)


def column(v):
    """[B] -> [B, 1, 1, 1], to multiply images."""
    return v.view(-1, 1, 1, 1)


class Level(nn.Module):
    """Features [B, 12] of ln(sigma) [B]: sines and cosines of six octaves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("octaves", math.pi / 8 * 2.0 ** torch.arange(6))

    def forward(self, log_sigma):
        angles = log_sigma[:, None] * self.octaves
        return torch.cat([angles.sin(), angles.cos()], 1)


class Block(nn.Module):
    """h + conv(silu(scale * conv(silu(h)) + shift)), with scale and shift [B, C, 1, 1] from the embedding e [B, E] (FiLM, Perez et al. 2018)."""

    def __init__(self, width, embedding):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        for p in (self.second.weight, self.second.bias, self.film.weight, self.film.bias):
            nn.init.zeros_(p)

    def forward(self, h, e):
        scale, shift = self.film(e)[:, :, None, None].chunk(2, 1)
        return h + self.second(F.silu((1 + scale) * self.first(F.silu(h)) + shift))


class Body(nn.Module):
    """The network proper, F(u, ln sigma, class) [B, 1, 8, 8]: a U-Net on 8x8 and 4x4. A learned map encodes positions."""

    def __init__(self, classes, widths=(32, 56), middle=2, embedding=64):
        super().__init__()
        self.level, self.enter = Level(), nn.Linear(12, embedding)
        self.named = nn.Embedding(classes, embedding) if classes else None
        self.mix = nn.Linear(embedding, embedding)
        self.head = nn.Conv2d(1, widths[0], 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, widths[0], SIDE, SIDE))
        self.down, self.up = Block(widths[0], embedding), Block(widths[0], embedding)
        self.halve = nn.Conv2d(widths[0], widths[1], 2, 2)
        self.middle = nn.ModuleList(Block(widths[1], embedding) for _ in range(middle))
        self.lift = nn.ConvTranspose2d(widths[1], widths[0], 2, 2)
        self.tail = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, u, log_sigma, classes=None):
        e = self.enter(self.level(log_sigma))
        if self.named is not None:
            e = e + self.named(classes)
        e = F.silu(self.mix(F.silu(e)))
        fine = self.down(self.head(u) + self.place, e)
        h = self.halve(fine)
        for block in self.middle:
            h = block(h, e)
        return self.tail(F.silu(self.up(fine + self.lift(h), e)))


class Preconditioned(nn.Module):
    """The mean image and `sigma_data` around a body, as in EDM (Karras et al. 2022, table 1) but for a state of any signal.

    With r = sqrt(noise^2 + (signal sigma_data)^2) and u = (x - signal mean) / r, the noise in x is
    epsilon = (noise u - signal sigma_data F(u, ln sigma, class)) / r, which divides by nothing small at either end."""

    def __init__(self, classes):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1, SIDE, SIDE))
        self.register_buffer("sigma_data", torch.ones(()))
        self.body = Body(classes)

    def fit(self, images):
        """Sets the mean image, and the deviation from it, from the training data."""
        self.mean.copy_(images.mean(0, keepdim=True))
        self.sigma_data.copy_((images - self.mean).square().mean().sqrt())

    def inside(self, x, signal, noise):
        r = (noise**2 + (signal * self.sigma_data) ** 2).sqrt()
        return r, (x - signal * self.mean) / r

    def epsilon(self, x, signal, noise, log_sigma, classes=None):
        """[B, 1, 8, 8]; signal and noise [B, 1, 1, 1], log_sigma and classes [B]."""
        r, u = self.inside(x, signal, noise)
        return (noise * u - signal * self.sigma_data * self.body(u, log_sigma, classes)) / r

    def loss(self, x0, classes, generator):
        """Mean squared error of F, whose target has unit variance at every level (Karras et al. 2022, eq. 8), over levels drawn by `levels`."""
        sigma, n = self.levels(len(x0), generator), torch.randn(x0.shape, generator=generator)
        signal, noise = column((1 + sigma**2).rsqrt()), column(sigma * (1 + sigma**2).rsqrt())
        r, u = self.inside(signal * x0 + noise * n, signal, noise)
        if self.body.named is not None:
            classes = torch.where(torch.rand(len(x0), generator=generator) < DROPOUT, NOBODY, classes)
        target = (noise * u - r * n) / (signal * self.sigma_data)
        return (self.body(u, sigma.log(), classes) - target).square().mean()

    def levels(self, count, generator):
        """Sigmas [B]: three quarters log-normal around the difficult levels, a quarter log-uniform over the whole range."""
        hard = torch.randn(count, generator=generator) * 1.2 - 0.7
        low, high = math.log(self.sigmas[0]), math.log(self.sigmas[1])
        spread = low + (high - low) * torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.75, hard, spread).clamp(low, high).exp()


class Ddpm(Preconditioned):
    """epsilon(x, t, class) [B, 1, 8, 8] of a variance-preserving state, t [B] in 0..999, class [B] in 0..10, where 10 is none
    (Ho et al. 2020; Ho & Salimans 2022)."""

    sigmas = (0.005, 200.0)  # what the tables of either schedule span, but for the last steps of the cosine one
    inputs, outputs = ("x", "t", "class"), ("epsilon",)

    def __init__(self, schedule=BETA_SCHEDULE):
        super().__init__(CLASSES + 1)
        bar = alphas_cumprod(schedule)
        self.register_buffer("signal", bar.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - bar).sqrt().float(), persistent=False)
        self.register_buffer("log_sigma", (0.5 * ((1 - bar) / bar).log()).clamp(*(math.log(s) for s in self.sigmas)).float(), persistent=False)

    def forward(self, x, t, classes):
        return self.epsilon(x, column(self.signal[t]), column(self.noise[t]), self.log_sigma[t], classes)

    def at(self, t):
        """Signal and noise [B, 1, 1, 1] at timesteps [B]; -1 is the clean image."""
        clean = t < 0
        return column(torch.where(clean, 1.0, self.signal[t])), column(torch.where(clean, 0.0, self.noise[t]))

    @torch.no_grad()
    def ahead(self, x, t, classes, stride=STEPS // 10, parts=4):
        """The D for which one DDIM step of `stride` timesteps from x at t ends where `parts` steps of this network do, on the same way
        (Salimans & Ho 2022, "Progressive distillation", eq. 8, with four steps for its two)."""
        y, now = x, t
        for part in range(1, parts + 1):
            # What is left of the way is less than the stride where it ends at the clean image.
            then = torch.where(t < stride, t * (parts - part) // parts - int(part == parts), t - stride * part // parts)
            (signal, noise), (next_signal, next_noise) = self.at(now), self.at(then)
            clean = ((y - noise * self(y, now, classes)) / signal).clamp(-1, 1)
            y, now = next_signal * clean + next_noise * (y - signal * clean) / noise, then
        (signal, noise), (next_signal, next_noise) = self.at(t), self.at(now)
        ratio = next_noise / noise
        return (y - ratio * x) / (next_signal - ratio * signal)

    def distillation(self, teacher, x0, classes, generator):
        """Mean squared error of D against the teacher's D ahead, at uniform timesteps, weighted as `loss` is but for the lowest levels."""
        t = torch.randint(STEPS, (len(x0),), generator=generator)
        signal, noise = self.at(t)
        x = signal * x0 + noise * torch.randn(x0.shape, generator=generator)
        classes = torch.where(torch.rand(len(x0), generator=generator) < 2 * DROPOUT, NOBODY, classes)
        clean = (x - noise * self(x, t, classes)) / signal
        sigma = noise / signal
        weight = ((sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2).clamp(max=50)
        return (weight * (clean - teacher.ahead(x, t, classes)).square()).mean()


class Ncsn(Preconditioned):
    """score(x, sigma) = (D - x) / sigma^2 [B, 1, 8, 8] for x = x0 + sigma n, sigma [B] (Song & Ermon 2019)."""

    sigmas = (0.01, 10.0)
    inputs, outputs = ("x", "sigma"), ("score",)

    def __init__(self):
        super().__init__(0)

    def forward(self, x, sigma):
        s = column(sigma)
        return self.epsilon(x, torch.ones_like(s), s, sigma.log()) / -s


class Classifier(nn.Module):
    """log p(class | x, sigma) [B] and its gradient with respect to x [B, 1, 8, 8], for x = x0 + sigma n (Dhariwal & Nichol 2021, section 4).

    An MLP on u = (x - mean) / sqrt(sigma^2 + sigma_data^2), FiLM by ln sigma. Its logits are multiplied by 1 / sqrt(1 + sigma^2), since far from the
    image the classes' log-likelihoods differ by O(1 / sigma): what is left there is the uniform prior. The gradient is computed explicitly,
    the same matrices from the other side, so that the file holds a plain graph of forward operators."""

    sigmas = (0.01, 80.0)
    inputs, outputs = ("x", "sigma", "class"), ("log_probability", "gradient")

    def __init__(self, width=128, embedding=32):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1, SIDE, SIDE))
        self.register_buffer("sigma_data", torch.ones(()))
        self.level, self.enter = Level(), nn.Linear(12, embedding)
        sizes = [SIDE * SIDE, width, width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.films = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in self.layers)
        self.last = nn.Linear(width, CLASSES)

    fit = Preconditioned.fit

    def logits(self, x, sigma, dropout=0.0):
        """Logits [B, 10], and what the gradient needs: the factors [B, 1] at both ends and each layer's scale and pre-activation [B, W]."""
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()[:, None]
        c_out = (1 + sigma**2).rsqrt()[:, None]
        e, h, kept = F.silu(self.enter(self.level(sigma.log()))), c_in * (x - self.mean).flatten(1), []
        for layer, film in zip(self.layers, self.films):
            scale, shift = film(e).chunk(2, 1)
            z = (1 + scale) * layer(h) + shift
            kept.append((1 + scale, z))
            h = F.dropout(F.silu(z), dropout, dropout > 0)
        return c_out * self.last(h), (c_in, c_out, kept)

    def forward(self, x, sigma, classes):
        logits, (c_in, c_out, kept) = self.logits(x, sigma)
        log_p = logits - logits.logsumexp(1, keepdim=True)
        chosen = (classes[:, None] == torch.arange(CLASSES)).to(x.dtype)
        g = ((chosen - log_p.exp()) * c_out) @ self.last.weight
        for layer, (scale, z) in zip(reversed(self.layers), reversed(kept)):
            s = torch.sigmoid(z)
            g = (g * s * (1 + z * (1 - s)) * scale) @ layer.weight
        return (chosen * log_p).sum(1), (c_in * g).view(-1, 1, SIDE, SIDE)

    def loss(self, x0, classes, generator):
        """Cross-entropy over log-uniform levels."""
        low, high = math.log(self.sigmas[0]), math.log(self.sigmas[1])
        sigma = (low + (high - low) * torch.rand(len(x0), generator=generator)).exp()
        x = x0 + column(sigma) * torch.randn(x0.shape, generator=generator)
        return F.cross_entropy(self.logits(x, sigma, 0.2)[0], classes)


NETWORKS = {"digits-ddpm": Ddpm, "digits-ncsn": Ncsn, "digits-classifier": Classifier}
RECIPES = {  # steps of Adam, batch, peak learning rate, weight decay
    "digits-ddpm": (12000, 128, 2e-3, 0.0),
    "digits-ncsn": (7000, 128, 2e-3, 0.0),
    "digits-classifier": (12000, 256, 1e-3, 3e-2),
}
DISTILLING = (3000, 128, 5e-4, 0.0)
SHARES = (0.5, 0.75, 1.0)  # of the loss for what few steps need, in each round of distilling


def folder_of(name, out):
    return Path(out or f"out/{name}")


def train(name, out=None, steps=None, seed=0, share=0.0):
    """AdamW with a warm-up and half a cosine; what is exported is the exponential average of the weights. With a `share` of the loss for what few
    steps need, training continues from the existing network, which is also the teacher."""
    count, batch, peak, decay = DISTILLING if share else RECIPES[name]
    count = steps or count
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, classes = split()[0] if name == "digits-classifier" else digits()
    network, average = (NETWORKS[name]().to(memory_format=torch.channels_last) for _ in range(2))
    network.fit(images)
    if share:
        teacher, learned, taught = load(name, out)
        network.load_state_dict(teacher.state_dict())
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=decay)
    print(f"{name}: {sum(p.numel() for p in network.parameters())} parameters, {len(images)} images", flush=True)
    start, losses = time.monotonic(), []
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * step / count))
        chosen = torch.randint(len(images), (batch,), generator=generator)
        loss = network.loss(images[chosen], classes[chosen], generator)
        if share:
            loss = loss.lerp(network.distillation(teacher, images[chosen], classes[chosen], generator), share)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - min(0.999, step / (step + 10)))
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}, {time.monotonic() - start:.0f} s, loss {np.mean(losses[-500:]):.5f}", flush=True)
    folder = folder_of(name, out)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"steps": learned, "distilled": taught + count} if share else {"steps": count, "distilled": 0}
    torch.save({"average": average.state_dict(), **counts}, folder / ("distilled.pt" if share else "checkpoint.pt"))


def load(name, out=None):
    """A trained network, its steps, and those of distilling it: the distilled one where there is one."""
    folder = folder_of(name, out)
    file = folder / "distilled.pt"
    state = torch.load(file if file.exists() else folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = NETWORKS[name]().eval()
    network.load_state_dict(state["average"])
    return network, state["steps"], state["distilled"]


MANIFEST = """\
name = "{name}"
version = "1"
task = "{task}"
prediction = {prediction}
channels = 1
range = [-1.0, 1.0]
multiple_of = 8
size = [8, 8] # the only width and height
{classes}scale = 1
license = "MIT OR Apache-2.0"
description = "{description}"
training = "From scratch, {steps} steps of AdamW on {images} of scikit-learn's 1797 handwritten digits of 8x8 pixels{distilled}."
parameters = {parameters}
bytes_per_pixel = {bytes_per_pixel} # peak working memory of ONNX Runtime per input pixel, measured

{levels}
[inputs]
sample = "x"
timestep = "{timestep}"
{class_input}
[outputs]
{outputs}
{defaults}[files.f32]
path = "{name}.onnx"
sha256 = "{sha256}"

[check]
sample = "check-x.npy"
timestep = {check_level}
{check_class}{recorded} = "check-{recorded}.npy"
tolerance = 1e-4
"""
SCHEDULE = f"""\
[schedule]
num_train_timesteps = {STEPS}
beta_schedule = "{BETA_SCHEDULE}"
beta_start = {BETA_START}
beta_end = {BETA_END}
timestep_spacing = "trailing" # starts from pure noise, as in the distillation
clip_sample = true
use_clipped_model_output = true
"""
DEFAULTS = {  # what `digits_report.py` recommends
    "digits-ddpm": "[defaults]\nsteps = 10\nguidance_scale = 1.5\n\n",
    "digits-ncsn": "[defaults]\nsteps = 18\n\n",
    "digits-classifier": "",
}
DESCRIPTIONS = {
    "digits-ddpm": "Generates handwritten digits of 8x8 pixels: a class-conditional DDPM with an unconditional class, for classifier-free guidance",
    "digits-ncsn": "Generates handwritten digits of 8x8 pixels: an unconditional score network (NCSN)",
    "digits-classifier": "Classifier of noisy handwritten digits of 8x8 pixels, for classifier guidance",
}
CHECKS = {"digits-ddpm": (400, 3), "digits-ncsn": (0.5, None), "digits-classifier": (0.7, 3)}  # level and class of the recorded arrays

PEAK = r"""
import re, sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
batch = int(sys.argv[2])
types = {"tensor(int64)": numpy.int64, "tensor(float)": numpy.float32}
session.run(None, {i.name: numpy.ones((batch, 1, 8, 8)[: len(i.shape)], types[i.type]) for i in session.get_inputs()})
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
"""


def bytes_per_pixel(path):
    """Peak resident memory of a fresh process per pixel, beyond that of a small batch: the worst of several batches. Needs Linux."""
    peak = lambda batch: int(subprocess.check_output([sys.executable, "-c", PEAK, str(path), str(batch)]))
    base = peak(64)
    return max(round((peak(batch) - base) / ((batch - 64) * SIDE**2)) for batch in (1024, 2048, 3072))


def write_onnx(network, path):
    """Writes the graph with a dynamic batch, without the exporter's notes about source files."""
    level = torch.ones(2, dtype=torch.long if "t" in network.inputs else torch.float32)
    example = (torch.zeros(2, 1, SIDE, SIDE), level, torch.ones(2, dtype=torch.long))[: len(network.inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, str(path), dynamo=False, opset_version=17, input_names=list(network.inputs), output_names=list(network.outputs),
            dynamic_axes={name: {0: "batch"} for name in (*network.inputs, *network.outputs)},
        )  # fmt: skip
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
    for output in model.graph.output:  # whose sides the exporter leaves open
        for dimension, size in zip(output.type.tensor_type.shape.dim[1:], (1, SIDE, SIDE)):
            dimension.dim_value = size
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def example(network, level, chosen, count, seed):
    """Inputs by name, as arrays: `count` digits with noise, all at one level and of one class."""
    images, generator = digits()[0], torch.Generator().manual_seed(seed)
    x0 = images[torch.randint(len(images), (count,), generator=generator)]
    signal, noise = (network.signal[level], network.noise[level]) if "t" in network.inputs else (1.0, level)
    values = {"x": signal * x0 + noise * torch.randn(x0.shape, generator=generator)}
    values[network.inputs[1]] = torch.full((count,), level)
    if "class" in network.inputs:
        values["class"] = torch.full((count,), chosen)
    return {name: v.numpy() for name, v in values.items()}


def check_agreement(network, running):
    """Largest difference between PyTorch and ONNX Runtime, as part of the largest value where that is above 1; stops the export when it is too large."""
    levels = [0, 1, 10, 250, 500, 900, 999] if "t" in network.inputs else [network.sigmas[0], 0.1, 0.5, 2.0, network.sigmas[1]]
    worst = 0.0
    for i, level in enumerate(levels):
        for count in (1, 2, 37):
            feed = example(network, level, (i + count) % (CLASSES + isinstance(network, Ddpm)), count, 100 * i + count)
            with torch.no_grad():
                expected = network(*(torch.from_numpy(v) for v in feed.values()))
            expected = expected if isinstance(expected, tuple) else (expected,)
            for e, given in zip(expected, running.run(None, feed)):
                worst = max(worst, float(np.abs(given - e.numpy()).max() / max(1.0, float(e.abs().max()))))
    if worst > TOLERANCE:
        raise SystemExit(f"ONNX Runtime differs from PyTorch by {worst:.2e}, more than {TOLERANCE:.0e}")
    return worst


def check_gradient(running):
    """Largest difference between the file's gradient and central differences of its log_probability, as part of the largest slope: float32 leaves about 1e-3."""
    worst = 0.0
    for level in (0.05, 0.3, 1.0, 5.0, 40.0):
        feed = example(Classifier, level, 7, 1, 9)
        gradient = running.run(["gradient"], feed)[0].ravel()
        h = 0.02 * max(level, 0.3)
        moved = np.concatenate([feed["x"] + h * sign * np.eye(SIDE**2, dtype=np.float32).reshape(-1, 1, SIDE, SIDE) for sign in (1, -1)])
        many = {"x": moved, "sigma": np.full(len(moved), level, np.float32), "class": np.full(len(moved), 7)}
        up, down = np.split(running.run(["log_probability"], many)[0].astype(np.float64), 2)
        worst = max(worst, float(np.abs((up - down) / (2 * h) - gradient).max() / np.abs(gradient).max()))
    if worst > 0.01:
        raise SystemExit(f"the gradient differs from finite differences by {worst:.2e} of its largest value")
    return worst


def export(name, checkpoint=None, out=None):
    """checkpoint.pt -> the package: the ONNX file, recorded arrays of three images, model.toml."""
    network, steps, distilled = load(name, checkpoint)
    out = Path(out or Path(__file__).parent.parent / name)
    out.mkdir(parents=True, exist_ok=True)
    level, chosen = CHECKS[name]
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder) / f"{name}.onnx"
        write_onnx(network, path)
        running = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        said = f"{name}: {path.stat().st_size} bytes; ONNX Runtime within {check_agreement(network, running):.1e} of PyTorch"
        if name == "digits-classifier":
            said += f"; gradient within {check_gradient(running):.1e} of finite differences"
        feed = example(network, level, chosen, 3, 7)
        recorded = network.outputs[-1]
        for n, array in (("x", feed["x"]), (recorded, running.run([recorded], feed)[0])):
            np.save(out / f"check-{n}.npy", array)
        manifest = MANIFEST.format(
            name=name,
            task="classifier" if name == "digits-classifier" else "generate",
            prediction='"score" # the gradient of the class's log-probability' if name == "digits-classifier" else f'"{network.outputs[0]}"',
            classes=f"classes = {CLASSES}\n" * ("class" in network.inputs) + f"null_class = {NOBODY} # the unconditional class\n" * (name == "digits-ddpm"),
            description=DESCRIPTIONS[name],
            steps=steps,
            distilled=f", then {distilled} of progressive distillation" if distilled else "",
            images=len(split()[0][1]) if name == "digits-classifier" else "all",
            parameters=sum(p.numel() for p in network.parameters()),
            bytes_per_pixel=bytes_per_pixel(path),
            levels=SCHEDULE if name == "digits-ddpm" else "[sigma]\nmin = {}\nmax = {}\n".format(*network.sigmas),
            timestep=network.inputs[1],
            class_input='class = "class"\n' if "class" in network.inputs else "",
            outputs="".join(f'{n} = "{n}"\n' for n in network.outputs),
            defaults=DEFAULTS[name],
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            check_level=level,
            check_class=f"class = {chosen}\n" if "class" in network.inputs else "",
            recorded=recorded,
        )
        os.replace(path, out / f"{name}.onnx")
    (out / "model.toml").write_text(manifest)
    print(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train", "distil", "export"])
    parser.add_argument("name", choices=list(NETWORKS))
    parser.add_argument("--checkpoints", help="folder of checkpoint.pt; default out/NAME")
    parser.add_argument("--steps", type=int, help="of the optimizer, in place of the recipe's")
    parser.add_argument("--out", help="of export: folder of the model package; default ../NAME")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.action == "distil" and args.name != "digits-ddpm":
        parser.error("only digits-ddpm has a recipe to be distilled by")
    if args.action == "train":
        train(args.name, args.checkpoints, args.steps)
    elif args.action == "distil":
        for share in SHARES:
            train(args.name, args.checkpoints, args.steps, share=share)
    else:
        export(args.name, args.checkpoints, args.out)


if __name__ == "__main__":
    main()
