"""Measures samples of the packages of `digits.py` in Python through ONNX Runtime: accuracy, variety, and the distance of
their pixels' distribution from that of the real digits.

    python digits_report.py                       # tables; about a quarter of an hour of one core
    python digits_report.py --tables guidance --sheet out/digits.png

The reference classifier is a support vector machine on the real digits, independent of the networks. `frechet` is the squared Frechet distance of two
Gaussians over the 64 pixels in [-1, 1], `variety` the trace of the covariance within a class, relative to that of the real digits, averaged over the ten classes.
Guidance is D = D_none + scale (D_class - D_none) in all of them.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

import digits

MODELS = Path(__file__).parent.parent
BATCH = 100


class Model:
    """One ONNX file, evaluated in batches; scalars become a value for each image."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def __call__(self, x, *rest, output=-1):
        results = []
        for i in range(0, len(x), BATCH):
            feed = {}
            for spec, value in zip(self.session.get_inputs(), (x, *rest)):
                dtype = np.int64 if spec.type == "tensor(int64)" else np.float32
                feed[spec.name] = np.broadcast_to(np.asarray(value, dtype), (len(x), *np.shape(value)[1:]))[i : i + BATCH]
            results.append(self.session.run(None, feed)[output])
        return np.concatenate(results).astype(np.float64)


class Tables:
    """signal and noise by timestep, [1000], and which timesteps are visited."""

    def __init__(self, schedule):
        bar = digits.alphas_cumprod(schedule).numpy()
        self.signal, self.noise = np.sqrt(bar), np.sqrt(1 - bar)

    def visited(self, steps, spacing):
        """Pairs of levels (t, signal, noise, next signal, next noise); the last ends at the clean image. As diffusers has it, with steps_offset 0."""
        if spacing == "leading":
            times = [i * (digits.STEPS // steps) for i in reversed(range(steps))]
        else:
            times = [int(np.round(digits.STEPS - i * digits.STEPS / steps)) - 1 for i in range(steps)]
        levels = [(self.signal[t], self.noise[t]) for t in times] + [(1.0, 0.0)]
        return [(t, *levels[i], *levels[i + 1]) for i, t in enumerate(times)]


def free(model, classes, scale):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6, with scale = 1 + w): epsilon(x, t)."""
    nobody = lambda x, t: model(x, t, digits.NOBODY)
    if scale == 0:
        return lambda x, t, signal, noise: nobody(x, t)
    if scale == 1:
        return lambda x, t, signal, noise: model(x, t, classes)

    def epsilon(x, t, signal, noise):
        base = nobody(x, t)
        return base + scale * (model(x, t, classes) - base)

    return epsilon


def classified(model, classifier, classes, scale):
    """Classifier guidance (Dhariwal & Nichol 2021, algorithm 2) in units of sigma = noise / signal: with y = x / signal = x0 + sigma n,
    epsilon' = epsilon - scale sigma grad_y log p(class | y, sigma), that is D' = D + scale sigma^2 grad. Above the classifier's largest sigma, where it knows
    nothing, there is no guidance."""
    low, high = digits.Classifier.sigmas

    def epsilon(x, t, signal, noise):
        base, sigma = model(x, t, digits.NOBODY), noise / signal
        if scale == 0 or sigma > high:
            return base
        return base - scale * sigma * classifier(x / signal, max(sigma, low), classes, output=1)

    return epsilon


def ddim(epsilon, levels, count, seed, clip="all"):
    """Song et al. 2021, eq. 12 with eta = 0. "all": D is clipped to [-1, 1], and the direction of the step is from it to x (diffusers'
    `use_clipped_model_output`). "D": the direction stays that of the unclipped D, as diffusers has it otherwise. "none": nothing is clipped."""
    x = np.random.default_rng(seed).standard_normal((count, 1, 8, 8))
    for t, signal, noise, next_signal, next_noise in levels:
        e = epsilon(x, t, signal, noise)
        clean = (x - noise * e) / signal
        if clip != "none":
            clean = np.clip(clean, -1, 1)
        x = next_signal * clean + next_noise * ((x - signal * clean) / noise if clip == "all" else e)
    return x


def ddpm(epsilon, levels, count, seed):
    """Ho et al. 2020, algorithm 2, with the posterior's variance ("fixed small") and D clipped to [-1, 1]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 1, 8, 8))
    for t, signal, noise, next_signal, next_noise in levels:
        clean = np.clip((x - noise * epsilon(x, t, signal, noise)) / signal, -1, 1)
        alpha = (signal / next_signal) ** 2
        kept = (next_noise / noise) ** 2
        x = alpha**0.5 * kept * x + next_signal * (1 - alpha) / noise**2 * clean + np.sqrt(kept * (1 - alpha)) * rng.standard_normal(x.shape)
    return x


def dpmpp(epsilon, levels, count, seed):
    """DPM-Solver++(2M) with the midpoint rule (Lu et al. 2022, algorithm 2), at DDIM's timesteps; its first and last steps are of first order. Nothing is clipped."""
    x, before, gone = np.random.default_rng(seed).standard_normal((count, 1, 8, 8)), None, None
    for t, signal, noise, next_signal, next_noise in levels:
        clean = (x - noise * epsilon(x, t, signal, noise)) / signal
        slope = 0.0
        if next_noise > 0:
            h = np.log(noise / signal * next_signal / next_noise)
            if before is not None:
                slope = (clean - before) * h / (2 * gone)
            gone = h
        x = next_noise / noise * x + (next_signal - next_noise / noise * signal) * (clean + slope)
        before = clean
    return x


def karras(steps, low=0.01, high=10.0, rho=7):
    """Karras et al. 2022, eq. 5, and 0."""
    ramp = np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho
    return np.append(ramp, 0.0)


def euler(model, sigmas, count, seed):
    """Euler's method on the probability flow dx = -sigma score dsigma (Karras et al. 2022, eq. 1)."""
    x = np.random.default_rng(seed).standard_normal((count, 1, 8, 8)) * sigmas[0]
    for sigma, after in zip(sigmas, sigmas[1:]):
        x = x + (sigma - after) * sigma * model(x, sigma)
    return x


def langevin(model, levels, each, step, count, seed):
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1) over geometric sigmas 10..0.01, steps of alpha = step sigma^2, and one denoising step
    at the end (Song & Ermon 2020)."""
    rng = np.random.default_rng(seed)
    sigmas = np.geomspace(10.0, 0.01, levels)
    x = rng.standard_normal((count, 1, 8, 8)) * sigmas[0]
    for sigma in sigmas:
        for _ in range(each):
            alpha = step * sigma**2
            x = x + alpha * model(x, sigma) + np.sqrt(2 * alpha) * rng.standard_normal(x.shape)
    return x + sigmas[-1] ** 2 * model(x, sigmas[-1])


def frechet(a, b):
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of the Gaussians fitted to two sets [N, 64]."""
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.clip(np.linalg.eigvals(ca @ cb).real, 0, None)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca) + np.trace(cb) - 2 * root)


class Judge:
    """The real digits, and a support vector machine trained on them."""

    def __init__(self):
        images, classes = digits.digits()
        self.real, self.classes = images.numpy().reshape(-1, 64).astype(np.float64), classes.numpy()
        machine = SVC(C=10, gamma=0.064)  # 0.001 for pixels 0..16
        self.cross = cross_val_score(machine, self.real, self.classes, cv=5).mean()
        self.machine = machine.fit(self.real, self.classes)

    def accuracy(self, x, classes):
        return float((self.machine.predict(np.clip(x.reshape(-1, 64), -1, 1)) == classes).mean())

    def frechet(self, x):
        return frechet(np.clip(x.reshape(-1, 64), -1, 1), self.real)

    def variety(self, x, classes):
        """Mean over classes of tr cov(x | class) / tr cov(real | class)."""
        x = np.clip(x.reshape(-1, 64), -1, 1)
        trace = lambda a, c: np.trace(np.cov(a[c].T))
        return float(np.mean([trace(x, classes == k) / trace(self.real, self.classes == k) for k in range(10)]))

    def floor(self, count):
        """What `frechet` gives for as many real digits, drawn with replacement: the lower limit."""
        rng = np.random.default_rng(0)
        return float(np.mean([frechet(self.real[rng.integers(len(self.real), size=count)], self.real) for _ in range(5)]))


class Report:
    def __init__(self, path):
        self.file = open(path, "w", buffering=1)

    def __call__(self, line=""):
        print(line, flush=True)
        self.file.write(line + "\n")


def guidance(say, judge, model, classifier, tables, count, steps, spacing):
    """Ten classes in equal parts at several scales."""
    classes = np.arange(count) % 10
    levels = tables.visited(steps, spacing)
    say(f"guidance: DDIM, {steps} steps, {spacing}, {count} digits; accuracy, variety, frechet")
    say("scale  classifier-free            the same, D clipped alone  the same, none clipped     classifier")
    for scale in (0, 1, 1.5, 2, 3, 5, 8):
        row = []
        for clip in ("all", "D", "none", "classifier"):
            epsilon = classified(model, classifier, classes, scale) if clip == "classifier" else free(model, classes, scale)
            x = ddim(epsilon, levels, count, 3, "all" if clip == "classifier" else clip)
            row += [judge.accuracy(x, classes), judge.variety(x, classes), judge.frechet(x)]
        say(("{:5g}" + 4 * "  {:8.4f} {:7.3f} {:8.3f}").format(scale, *row))


def unconditional(say, judge, model, tables, count):
    """Steps and spacings without a class."""
    epsilon = free(model, None, 0)
    say(f"no class, few steps: frechet of {count}; real digits drawn again have {judge.floor(count):.4f}")
    say("steps  leading  leading, D clipped  trailing  DPM-Solver++(2M), leading")
    for steps in (1, 2, 5, 10, 20, 50):
        leading, trailing = (tables.visited(steps, s) for s in ("leading", "trailing"))
        drawn = [ddim(epsilon, leading, count, 4), ddim(epsilon, leading, count, 4, "D"), ddim(epsilon, trailing, count, 4), dpmpp(epsilon, leading, count, 4)]
        say("{:5d} {:8.4f} {:18.4f} {:9.4f} {:26.4f}".format(steps, *(judge.frechet(x) for x in drawn)))


def ancestral(say, judge, model, tables, count, steps):
    """The same by DDPM, whose many steps are the reference for few steps of DDIM."""
    x = ddpm(free(model, None, 0), tables.visited(steps, "leading"), count, 5)
    say(f"no class, DDPM, {steps} steps: frechet of {count}: {judge.frechet(x):.4f}")


def scores(say, judge, model, count):
    say(f"score network: frechet of {count}")
    for steps in (10, 18, 30, 50):
        say(f"euler, {steps} Karras sigmas 10..0.01: {judge.frechet(euler(model, karras(steps), count, 6)):.4f}")
    levels, each, step = 30, 5, 0.1
    say(f"annealed Langevin, {levels} levels of {each} steps of {step} sigma^2: {judge.frechet(langevin(model, levels, each, step, count, 7)):.4f}")


def sheet(path, rows):
    """Rows of images [10, 1, 8, 8] as a PNG, eight times enlarged."""
    import cv2

    tiles = np.stack([np.pad(np.clip(r[:, 0], -1, 1), ((0, 0), (1, 1), (1, 1)), constant_values=0) for r in rows])
    grid = (127.5 * (tiles + 1)).round().astype(np.uint8).transpose(0, 2, 1, 3).reshape(tiles.shape[0] * 10, -1)
    cv2.imwrite(str(path), cv2.resize(grid, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=str(MODELS), help="folder of the packages")
    parser.add_argument("--count", type=int, default=2000, help="images of each measurement")
    parser.add_argument("--tables", nargs="*", default=["guidance", "unconditional", "ancestral", "scores"], help="which of them")
    parser.add_argument("--steps", type=int, default=20, help="of DDIM in the table of guidance")
    parser.add_argument("--spacing", default="leading", choices=["leading", "trailing"], help="of DDIM in the table of guidance")
    parser.add_argument("--ancestral", type=int, nargs="*", default=[200, 1000], help="steps of DDPM")
    parser.add_argument("--out", default="out/digits-report.txt", help="where the tables go, too")
    parser.add_argument("--sheet", help="a PNG, rows: 2 real; 2 each guided by 1, 2 and 3; by the classifier; no class; the score network")
    args = parser.parse_args()
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    say, judge, tables = Report(args.out), Judge(), Tables(digits.BETA_SCHEDULE)
    model, score, classifier = (lambda name=name: Model(Path(args.models) / name / f"{name}.onnx") for name in ("digits-ddpm", "digits-ncsn", "digits-classifier"))
    say(f"judge: {judge.cross:.4f} of real digits it has not seen, five-fold")
    if "guidance" in args.tables:
        guidance(say, judge, model(), classifier(), tables, args.count, args.steps, args.spacing)
    if "unconditional" in args.tables:
        unconditional(say, judge, model(), tables, args.count)
    if "ancestral" in args.tables:
        for steps in args.ancestral:
            ancestral(say, judge, model(), tables, args.count, steps)
    if "scores" in args.tables:
        scores(say, judge, score(), args.count)
    if args.sheet:
        classes, levels = np.arange(10), tables.visited(args.steps, args.spacing)
        real = [judge.real[[np.flatnonzero(judge.classes == k)[i] for k in range(10)]].reshape(10, 1, 8, 8) for i in range(2)]
        drawn = [ddim(free(model(), classes, s), levels, 10, 10 + i) for s in (1, 2, 3) for i in range(2)]
        others = [ddim(classified(model(), classifier(), classes, 2), levels, 10, 20), ddim(free(model(), None, 0), levels, 10, 21), euler(score(), karras(18), 10, 22)]
        sheet(args.sheet, real + drawn + others)


if __name__ == "__main__":
    main()
