"""Exports a checkpoint as the model package `denoise-fast`: the ONNX file, its recorded pair and its manifest.

    python export.py --checkpoint out/run/checkpoint.pt --out ../denoise-fast

Stops before anything is replaced unless ONNX Runtime agrees with PyTorch within 1e-5 at several sizes and sigma maps, and no output of
the exported file changes further from a changed input pixel than the receptive field that the manifest states.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import noise
import pictures
import textures
from network import MULTIPLE_OF, Denoiser, parameter_count, receptive_radius

TOLERANCE = 1e-5
SIZES = [(1, 64, 48), (1, 8, 8), (2, 40, 136), (3, 128, 128), (1, 480, 640)]

MANIFEST = """\
name = "denoise-fast"
version = "1"
task = "denoise"
prediction = "denoised"
channels = 3
range = [0.0, 1.0]
multiple_of = {multiple_of}
receptive_field = {radius} # radius in pixels: an output pixel depends on no input further away
scale = 1
licence = "MIT OR Apache-2.0"
description = "Gaussian denoiser for RGB pictures whose noise level is known for each pixel"
training = "{training}"
parameters = {parameters}
bytes_per_pixel = {bytes_per_pixel} # peak working memory of ONNX Runtime per input pixel, measured

[sigma]
min = 0.0
max = 0.39215686

[inputs]
sample = "x"
sigma = "sigma"

[outputs]
denoised = "denoised"

[defaults]
steps = 1

[files.f32]
path = "denoise-fast.onnx"
sha256 = "{sha256}"

[check]
sample = "check-x.npy"
sigma = "check-sigma.npy"
denoised = "check-denoised.npy"
tolerance = 1e-4
"""

PEAK = r"""
import re, sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
x = numpy.ones((1, 3, int(sys.argv[2]), int(sys.argv[2])), numpy.float32)
session.run(None, {"x": x, "sigma": x[:, :1].copy()})
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
"""


def load(checkpoint):
    """The averaged network of a checkpoint, and the number of steps behind it."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    network = Denoiser()
    network.load_state_dict(state["average"])
    return network.eval(), state["step"]


def write_onnx(network, path):
    """Writes the graph with dynamic batch, height and width, without the exporter's notes about source files."""
    example = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    axes = {name: {0: "batch", 2: "height", 3: "width"} for name in ("x", "sigma", "denoised")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, str(path), dynamo=False, opset_version=17,
            input_names=["x", "sigma"], output_names=["denoised"], dynamic_axes=axes,
        )  # fmt: skip
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def check_agreement(network, running):
    """Largest difference between PyTorch and ONNX Runtime; stops the export when it is too large."""
    worst, rng = 0.0, np.random.default_rng(5)
    for batch, height, width in SIZES:
        for _ in range(3):
            clean = torch.tensor(rng.random((batch, 3, height, width)), dtype=torch.float32)
            _, x, sigma = noise.draw(rng, clean)
            with torch.no_grad():
                expected = network(x, sigma).numpy()
            got = running.run(["denoised"], {"x": x.numpy(), "sigma": sigma.numpy()})[0]
            worst = max(worst, float(np.abs(got - expected).max()))
    if worst > TOLERANCE:
        raise SystemExit(f"ONNX Runtime differs from PyTorch by {worst:.2e}, more than {TOLERANCE:.0e}")
    return worst


def check_radius(running, radius, size=256):
    """How far a changed input pixel reaches in the exported file, over the eight alignments; at most `radius`.

    A large change at one pixel, and its noise level, makes every path through the network large. Pixels outside the radius must
    not change by one bit."""
    rng, reach = np.random.default_rng(6), 0
    for offset in range(MULTIPLE_OF):
        at = size // 2 + offset
        x = rng.random((1, 3, size, size)).astype(np.float32)
        sigma = np.full((1, 1, size, size), 0.1, np.float32)
        still = running.run(None, {"x": x, "sigma": sigma})[0]
        x[..., at, at], sigma[..., at, at] = rng.choice([-1e4, 1e4], 3), 1e4
        moved = running.run(None, {"x": x, "sigma": sigma})[0]
        _, _, rows, columns = np.nonzero(moved != still)
        reach = max(reach, int(np.abs(rows - at).max()), int(np.abs(columns - at).max()))
    if reach > radius:
        raise SystemExit(f"a changed pixel reached {reach} pixels far, further than {radius}")
    return reach


def recorded_pair(network):
    """A synthesised noisy picture of 64 rows and 48 columns, its sigma map (a ramp from 5 to 75), and PyTorch's result."""
    rng = np.random.default_rng(7)
    picture = pictures.picture(rng, textures.bank(rng, 13), 64)[:, :48]
    clean = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    sigma = (torch.linspace(5, 75, 64) / 255).view(1, 1, 64, 1).expand(1, 1, 64, 48).contiguous()
    x = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return x.numpy(), sigma.numpy(), network(x, sigma).numpy()


def bytes_per_pixel(path):
    """Peak resident memory of a fresh process per pixel, beyond that at 256x256: the worst of several sizes, because ONNX
    Runtime's arena grows in powers of two. Needs Linux."""
    peak = lambda size: int(subprocess.check_output([sys.executable, "-c", PEAK, str(path), str(size)]))
    base = peak(256)
    return max(round((peak(size) - base) / (size**2 - 256**2)) for size in (512, 768, 1024, 1536))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="out/run/checkpoint.pt", help="what train.py wrote")
    parser.add_argument("--out", default="../denoise-fast", help="folder of the model package")
    args = parser.parse_args()
    torch.set_num_threads(2)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    network, steps = load(args.checkpoint)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder) / "denoise-fast.onnx"
        write_onnx(network, path)
        running, radius = session(path), receptive_radius()
        worst, reach = check_agreement(network, running), check_radius(running, radius)
        for name, array in zip(("x", "sigma", "denoised"), recorded_pair(network)):
            np.save(out / f"check-{name}.npy", array)
        manifest = MANIFEST.format(
            multiple_of=MULTIPLE_OF,
            radius=radius,
            training=f"From scratch, {steps} steps of Adam on synthesised pictures (dead leaves with textures, shading and a simple camera); no photograph was used.",
            parameters=parameter_count(network),
            bytes_per_pixel=bytes_per_pixel(path),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        os.replace(path, out / "denoise-fast.onnx")
    (out / "model.toml").write_text(manifest)
    print(f"{steps} steps; ONNX Runtime within {worst:.1e} of PyTorch; a pixel reaches {reach} of {radius} pixels")


if __name__ == "__main__":
    main()
