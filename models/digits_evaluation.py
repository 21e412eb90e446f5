"""Measures the digit models through the `eddy` binary and writes `../docs/digits.md` and `../docs/digits.png`: `evaluate.py --digits`.

The reference classifier is a support vector machine on scikit-learn's digits, independent of the networks. `frechet` is the squared Frechet distance between
Gaussians over the 64 pixels, in [-1, 1]; `variety` the trace of the covariance within a class, relative to that of the real digits, averaged over the classes.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"
SCALES = (0, 1, 1.5, 2, 3, 5, 8)
STEPS = (1, 2, 5, 10, 20, 50)


class Digits:
    """The real digits, [-1, 1], and the reference classifier."""

    def __init__(self):
        data = load_digits()
        self.pixels, self.labels = data.data / 8.0 - 1.0, data.target
        self.judge = SVC(C=10.0, gamma=0.02).fit(self.pixels, self.labels)
        self.accuracy = cross_val_score(SVC(C=10.0, gamma=0.02), self.pixels, self.labels, cv=5).mean()

    def correct(self, pixels, labels):
        return (self.judge.predict(pixels) == labels).mean()

    def variety(self, pixels, labels):
        def spread(pixels, labels):
            return np.mean([np.trace(np.cov(pixels[labels == k].T)) for k in range(10)])

        return spread(pixels, labels) / spread(self.pixels, self.labels)

    def frechet(self, pixels):
        means, covariances = zip(*((p.mean(0), np.cov(p.T)) for p in (self.pixels, pixels)))
        # Some pixels are never written on, so the roots are taken by eigenvalues.
        values, vectors = np.linalg.eigh(covariances[0])
        half = vectors * np.sqrt(values.clip(0)) @ vectors.T
        root = np.sqrt(np.linalg.eigvalsh(half @ covariances[1] @ half).clip(0)).sum()
        return np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1]) - 2 * root


def drawn(eddy, model, count, *options):
    """Images, [count, 64], and their classes where `--class` takes turns."""
    with tempfile.TemporaryDirectory() as folder:
        words = [eddy, "generate", "-m", model, "-o", f"{folder}/", "--count", count, "--threads", 1, "--quiet", *options]
        subprocess.run([str(word) for word in words], check=True)
        files = sorted(Path(folder).glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(file), dtype=float).ravel() for file in files])
    return pixels / 127.5 - 1.0, np.arange(count) % 10


def guided(eddy, digits, count, *options):
    """Accuracy and variety over guidance scales."""
    rows = []
    for scale in SCALES:
        pixels, labels = drawn(eddy, "digits-ddpm", count, "--class", "0,1,2,3,4,5,6,7,8,9", "--guidance-scale", scale, *options)
        rows.append((scale, digits.correct(pixels, labels), digits.variety(pixels, labels), digits.frechet(pixels)))
    return rows


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def main(eddy, count=1000):
    digits = Digits()
    free = guided(eddy, digits, count, "--steps", 25)
    led = guided(eddy, digits, count, "--steps", 25, "--classifier", "digits-classifier")
    floor = digits.frechet(digits.pixels[np.random.default_rng(0).permutation(len(digits.pixels))[: len(digits.pixels) // 2]])

    steps = [(f"DDIM, {n}", digits.frechet(drawn(eddy, "digits-ddpm", 2 * count, "--sampler", "ddim", "--steps", n)[0])) for n in STEPS]
    for name, sampler, n in [("DDPM, 200", "ddpm", 200), ("DDPM, 1000", "ddpm", 1000), ("DPM-Solver++(2M), 10", "dpmpp-2m", 10)]:
        steps.append((name, digits.frechet(drawn(eddy, "digits-ddpm", 2 * count, "--sampler", sampler, "--steps", n)[0])))
    for name, sampler, n in [("NCSN by Langevin dynamics, 100 levels of 5", "langevin", 100), ("NCSN by Heun, 18", "heun", 18)]:
        steps.append((name, digits.frechet(drawn(eddy, "digits-ncsn", 2 * count, "--sampler", sampler, "--steps", n)[0])))

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    for name, rows, style in [("classifier-free", free, "-o"), ("by a classifier", led, "--s")]:
        axes[0].plot([r[0] for r in rows], [100 * r[1] for r in rows], style, label=name)
        axes[1].plot([r[0] for r in rows], [r[2] for r in rows], style, label=name)
    axes[0].set(title="accuracy, %", xlabel="guidance scale")
    axes[1].set(title="variety within a class (real digits: 1)", xlabel="guidance scale", ylim=(0, None))
    axes[0].legend()
    axes[2].semilogy(STEPS, [row[1] for row in steps[: len(STEPS)]], "-o", label="DDIM")
    axes[2].axhline(steps[len(STEPS)][1], color="gray", linestyle="--", label="DDPM, 200 steps")
    axes[2].set(title="Fréchet distance in pixels", xlabel="steps")
    axes[2].legend()
    figure.tight_layout()
    figure.savefig(DOCS / "digits.png", dpi=100)

    subprocess.run(
        [str(eddy), "generate", "-m", "digits-ddpm", "--class", "0,1,2,3,4,5,6,7,8,9", "--count", "100", "--grid", "-o", str(DOCS / "digits-drawn.png"), "--quiet"],
        check=True,
    )
    grid = Image.open(DOCS / "digits-drawn.png")
    grid.resize((4 * grid.width, 4 * grid.height), Image.NEAREST).save(DOCS / "digits-drawn.png", optimize=True)

    percent = lambda value: f"{100 * value:.1f} %"
    rows = [(s, percent(a), f"{v:.2f}", percent(b), f"{w:.2f}") for (s, a, v, _), (_, b, w, _) in zip(free, led)]
    text = f"""# Digits

Written by `python models/evaluate.py --digits`; every digit was generated by the `eddy` binary with
the bundled `digits-ddpm`, `digits-ncsn` and `digits-classifier`, networks of well under 1 MB that
were trained on scikit-learn's 1797 handwritten digits of 8x8 pixels. They verify samplers and
guidance on images that are small enough to be classified reliably.

The reference classifier is a support vector machine on the real digits (five-fold cross-validation:
{percent(digits.accuracy)}). *Variety* is the trace of the covariance within a class, relative
to that of the real digits.

![A hundred digits, class by class](digits-drawn.png)

![Accuracy and variety over the guidance scale, and the Frechet distance over steps](digits.png)

## Guidance

{count} digits per row, 25 steps of DDIM. Scale 0 is unconditional, so a tenth is right by chance.

{table(("scale", "classifier-free: accuracy", "variety", "by a classifier: accuracy", "variety"), rows)}

## Steps

{2 * count} unconditional digits per row; squared Frechet distance between Gaussians over the 64 pixels in
[-1, 1]. Half of the real digits have a distance of {floor:.3f} from all of them.

{table(("sampler, steps", "Frechet distance"), [(name, f"{value:.3f}") for name, value in steps])}
"""
    (DOCS / "digits.md").write_text(text)
    print(json.dumps({"free": free, "led": led, "steps": steps}, indent=1))
