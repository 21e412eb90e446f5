"""Plots docs/samplers.png from the output of `EDDY_MIXTURE=errors.json cargo test --release --test mixture`: the error of each sampler
on a mixture of three normal distributions, over evaluations of the network.

    python3 tests/golden/plot_mixture.py errors.json docs/samplers.png

Needs matplotlib.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

with open(sys.argv[1]) as file:
    table = json.load(file)
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True)
for axis, (i, what) in zip(axes, enumerate(["weights of the modes", "mean", "covariance"])):
    for n, (name, points) in enumerate(table.items()):
        style = ["-", "--", ":", "-."][n // 5 % 4]
        axis.loglog([p[0] for p in points], [max(p[1][i], 1e-4) for p in points], style, marker="o", markersize=3, label=name)
    axis.set_title(what)
    axis.set_xlabel("evaluations of the network")
axes[0].set_ylabel("largest error")
axes[2].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
figure.tight_layout()
figure.savefig(sys.argv[2], dpi=110)
