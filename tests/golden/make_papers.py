"""Writes papers.json: samplers that diffusers has not in this form, by their papers' own formulas in f64, on a network with a closed form.

    python3 tests/golden/make_papers.py        # wants numpy alone

Never run by a test. Nothing of Eddy's tables is known here: there are levels, scores and updates, in the notation of

- Song & Ermon 2019, "Generative Modeling by Estimating Gradients of the Data Distribution", algorithm 1 (`langevin`), with the step size of Song & Ermon 2020,
  "Improved Techniques for Training Score-Based Generative Models", technique 4, and its updates, whose alpha is half of the older paper's;
- Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", algorithms 2 and 4 (`pc` on a VE SDE), 3 and 5 (on a VP SDE),
  equation 46 (reverse diffusion) and appendix D.4 with equations 47 and 48 (`ode`), as the authors' code orders them: the corrector before the predictor, and
  at the end the mean of the image (Jolicoeur-Martineau et al. 2021, appendix D).

The score network is s(x, sigma) = -(0.4 x + 0.1 sin(3 x + sigma)) / (1 + sigma^2); on a VP schedule epsilon(x, t) = 0.3 x + 0.1 sin(3 x + 0.01 t), whose score is
-epsilon / sqrt(1 - abar). The corrector's step is 2 alpha (r |z| / |s|)^2; |z| / |s| is what it is in expectation where the network is right, sqrt(1 - abar) or sigma,
since Eddy's tables know no norms. Evaluation i draws row i of the noise.
"""

import json
import math
import pathlib

import numpy as np

SHAPE = (1, 2, 4, 4)
TRAINED = 1000
RATIO = 0.16
EACH = 5  # Langevin steps of a level
VE = {"ncsn": (0.01, 10.0), "wide": (0.05, 50.0)}
STEPS = (1, 2, 3, 10, 18)
VP = {"linear": (0.0001, 0.02), "sd": (0.00085, 0.012)}


def score(x, sigma):
    return -(0.4 * x + 0.1 * np.sin(3 * x + sigma)) / (1 + sigma**2)


def epsilon(x, t):
    return 0.3 * x + 0.1 * np.sin(3 * x + 0.01 * t)


def geometric(low, high, count):
    return [high * (low / high) ** (i / max(count - 1, 1)) for i in range(count)]


def karras(low, high, count, rho=7.0):
    ramp = [i / max(count - 1, 1) for i in range(count)]
    return [(high ** (1 / rho) + r * (low ** (1 / rho) - high ** (1 / rho))) ** rho for r in ramp]


def technique_4(gamma):
    """epsilon / sigma_L^2, of a thousand values the one that comes nearest to the equation of technique 4."""

    def left(size):
        power = (1 - size) ** (2 * EACH)
        rest = 2 * size / (1 - (1 - size) ** 2)
        return abs(power * (gamma**2 - rest) + rest - 1)

    return min((i / 1000 for i in range(1, 1001)), key=left)


def langevin(x, z, levels):
    gamma = levels[0] / levels[1] if len(levels) > 1 else 1.0
    smallest = levels[-1]
    size = technique_4(gamma) * smallest**2
    rows = iter(z)
    for sigma in levels:
        alpha = size * sigma**2 / smallest**2
        for _ in range(EACH):
            x = x + alpha * score(x, sigma) + math.sqrt(2 * alpha) * next(rows)
    return x + smallest**2 * score(x, smallest)


def ve(x, z, levels, corrects):
    """Reverse diffusion with a corrector, or the probability flow, on dx = sqrt(d sigma^2 / dt) dw."""
    rows = iter(z)
    for i, sigma in enumerate(levels):
        if corrects:
            step = 2 * (RATIO * sigma) ** 2
            x = x + step * score(x, sigma) + math.sqrt(2 * step) * next(rows)
        s = score(x, sigma)
        fresh = next(rows)
        if i + 1 == len(levels):
            x = x + sigma**2 * s
            continue
        difference = sigma**2 - levels[i + 1] ** 2
        x = x + difference * s + math.sqrt(difference) * fresh if corrects else x + 0.5 * difference * s
    return x


def vp(x, z, bars, times, corrects):
    """The same on dx = -beta x / 2 dt + sqrt(beta) dw, of the visited timesteps, whose beta is that of the stretch between."""
    rows = iter(z)
    for i, t in enumerate(times):
        bar = bars[t]
        is_last = i + 1 == len(times)
        beta = 1 - bar / (1.0 if is_last else bars[times[i + 1]])
        s = lambda x: -epsilon(x, t) / math.sqrt(1 - bar)
        if corrects:
            step = 2 * (1 - beta) * RATIO**2 * (1 - bar)
            x = x + step * s(x) + math.sqrt(2 * step) * next(rows)
        fresh = next(rows)
        if is_last:
            x = (x + (1 - bar) * s(x)) / math.sqrt(bar)
        elif corrects:
            x = (2 - math.sqrt(1 - beta)) * x + beta * s(x) + math.sqrt(beta) * fresh
        else:
            x = (2 - math.sqrt(1 - beta)) * x + 0.5 * beta * s(x)
    return x


def main():
    random = np.random.default_rng(20261125)
    start = random.standard_normal(SHAPE).astype(np.float32)
    noise = random.standard_normal((EACH * max(STEPS) + 1, *SHAPE)).astype(np.float32)
    cases = []

    def keep(sampler, schedule, name, steps, scale, result):
        assert np.isfinite(result).all()
        values = [float(f"{value:.12g}") for value in result.ravel()]
        cases.append({"sampler": sampler, schedule: name, "steps": steps, "scale": scale, "result": values})

    x, z = start.astype(np.float64), noise.astype(np.float64)
    for name, (low, high) in VE.items():
        for steps in STEPS:
            begin = high * x
            keep("langevin", "sigma", name, steps, high, langevin(begin, z, geometric(low, high, steps)))
            keep("pc", "sigma", name, steps, high, ve(begin, z, karras(low, high, steps), True))
            keep("ode", "sigma", name, steps, high, ve(begin, z, karras(low, high, steps), False))
    for name, (low, high) in VP.items():
        ends = (low, high) if name == "linear" else (math.sqrt(low), math.sqrt(high))
        betas = np.linspace(*ends, TRAINED) ** (1 if name == "linear" else 2)
        bars = np.cumprod(1 - betas)
        for steps in STEPS:
            times = [i * (TRAINED // steps) for i in reversed(range(steps))]
            keep("pc", "betas", name, steps, 1.0, vp(x, z, bars, times, True))
            keep("ode", "betas", name, steps, 1.0, vp(x, z, bars, times, False))
    document = {
        "shape": SHAPE,
        "start": [float(f"{value:.9g}") for value in start.ravel()],
        "noise": [float(f"{value:.9g}") for value in noise.ravel()],
        "sigma": VE,
        "betas": VP,
    }
    path = pathlib.Path(__file__).with_name("papers.json")
    with path.open("w") as file:
        file.write(json.dumps(document, separators=(",", ":"))[:-1] + ',"cases":[\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))
        file.write("\n]}\n")
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
