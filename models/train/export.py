"""Exports a checkpoint as a model package: the ONNX file, its recorded pair and its manifest.

    python export.py denoise --checkpoint out/denoise/checkpoint.pt --out ../denoise

Stops before anything is replaced unless ONNX Runtime agrees with PyTorch at several sizes and noise levels, and no output of
the exported file changes further from a changed input pixel than the receptive field that the manifest states.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import jobs
import noise
import images
import planes
import shrink
import textures
from network import parameter_count, receptive_radius

TOLERANCE = 1e-5  # of one unit of the network's range


@dataclass
class Kind:
    """Properties of a task's package that its weights do not determine."""

    task: str
    range: str
    sigma: str
    inputs: tuple
    description: str
    channels: int = 3
    levels: int = 1  # planes of the map of sigma
    version: str = "1"
    layout: str = ""
    data: str = "synthesized images (dead leaves with textures, shading and a simple camera); no photograph was used."
    start: str = "From scratch"


SIGMA_8BIT = "min = {:.8f}\nmax = 0.39215686".format
KINDS = {
    "denoise": Kind(
        "denoise", "[0.0, 1.0]", SIGMA_8BIT(0), ("x", "sigma"), "Denoiser for white Gaussian noise in RGB images, conditioned on a map of sigma", version="2",
        data="synthesized images and 124 freely licensed photographs (models/camera/PHOTOGRAPHS.tsv).",
    ),
    "planes": Kind(
        "denoise", "[0.0, 1.0]", SIGMA_8BIT(0), ("x", "sigma"), "Denoiser for the noise of cameras and codecs, on the luma and chroma planes of 4:2:0", 6, 2, "3",
        'layout = "yuv420" # luma of each 2x2 row by row, Cb, Cr, at half the width and height; sigma of luma and of chroma\n',
        "124 freely licensed photographs (PHOTOGRAPHS.tsv) and synthesized images, through simulated cameras, JPEG, MJPEG, H.264 and H.265.",
        "From denoise-fast",
    ),
    "upscale": Kind(
        "upscale", "[0.0, 1.0]", "min = 0.002\nmax = {}", ("x", "sigma", "low"), "Super-resolution of RGB images by {}, by conditional diffusion",
    ),
    "generate": Kind(
        "generate", "[-1.0, 1.0]", "min = 0.002\nmax = 80.0", ("x", "sigma"), "Unconditional diffusion prior over RGB images, for inpainting, deblurring, super-resolution and generation", version="2",
        data="synthesized images and 124 freely licensed photographs (models/camera/PHOTOGRAPHS.tsv).",
    ),
}
# Overrides of the light networks.
LIGHT = {
    "denoise": {"version": "1", "description": "Denoiser for white Gaussian noise in RGB images, conditioned on a map of sigma; small"},
    "planes": {
        "version": "1",
        "description": "Denoiser for the noise of cameras and codecs, on the luma and chroma planes of 4:2:0; small",
        "start": "From denoise-nano",
        "data": "124 freely licensed photographs (models/camera/PHOTOGRAPHS.tsv) and synthesized images, through simulated cameras, JPEG, MJPEG, H.264 and H.265.",
    },
}

MIXED = "\nmixed = true # an image may be known in some pixels, sigma 0.002, and missing in others, 80"

MANIFEST = """\
name = "{name}"
version = "{version}"
task = "{task}"
prediction = "denoised"
channels = {channels}
{layout}range = {range}
multiple_of = {multiple_of}
receptive_field = {radius} # radius in pixels: an output pixel depends on no input further away
scale = {scale}
license = "MIT OR Apache-2.0"
description = "{description}"
training = "{start}, {steps} steps of Adam on {data}"
parameters = {parameters}
bytes_per_pixel = {bytes_per_pixel} # peak working memory of ONNX Runtime per pixel of the network's grid, measured

[sigma]
{sigma}

[inputs]
sample = "x"
sigma = "sigma"
{condition}
[outputs]
denoised = "denoised"

[defaults]
steps = {default_steps}

[files.f32]
path = "{name}.onnx"
sha256 = "{sha256}"

[check]
{recorded}
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
size, scale = int(sys.argv[2]), int(sys.argv[3])
sides = {"x": size * scale, "sigma": size * scale, "low": size}
session.run(None, {i.name: numpy.ones((1, i.shape[1], sides[i.name], sides[i.name]), numpy.float32) for i in session.get_inputs()})
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
"""


class Package:
    """A checkpoint, and the examples by which its export is checked."""

    def __init__(self, name, checkpoint, config):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.name, self.config, self.steps = name, config, state["step"]
        self.job = jobs.JOBS[config["model"]["job"]](config["model"])
        self.kind = KINDS[config["model"]["job"]]
        if config["train"].get("shares") and self.kind.task == "upscale":
            self.kind = replace(self.kind, version="2", data=KINDS["denoise"].data)
        if config["model"].get("light"):
            self.kind = replace(self.kind, **LIGHT[config["model"]["job"]])
        self.scale = config["model"].get("scale", 1)
        self.network = self.job.network().eval()
        self.network.load_state_dict(state["average"])

    def inputs(self, rng, clean):
        """Inputs for clean images [B, 3, H, W] in [0, 1] of the large grid."""
        if self.config["model"]["job"] == "denoise":
            return noise.draw(rng, clean)[1:]
        if self.kind.channels == 6:
            frames = [planes.pack(*planes.of_rgb(c.permute(1, 2, 0).numpy())) for c in clean]
            sigma = torch.tensor(rng.uniform(0, 0.3, (len(clean), 2, *frames[0].shape[1:])), dtype=torch.float32)
            return torch.from_numpy(np.stack(frames)), sigma
        return self.job.example(rng, clean)[0]

    def sizes(self):
        """Batches, heights and widths of the large grid, each a multiple of the network's multiple."""
        unit = self.network.multiple_of * (2 if self.kind.channels == 6 else self.scale)
        return [(1, 8 * unit, 6 * unit), (1, unit, unit), (2, 5 * unit, 17 * unit), (1, 480 // unit * unit, 640 // unit * unit)]

    @torch.no_grad()
    def run(self, inputs):
        return self.network(*inputs).numpy()

    def write_onnx(self, path):
        """Writes the graph with dynamic batch, height and width, without the exporter's notes about source files."""
        size = 64 * self.scale
        example = [torch.zeros(1, self.kind.channels, size, size), torch.ones(1, self.kind.levels, size, size), torch.zeros(1, 3, 64, 64)]
        axes = {n: {0: "batch", 2: "large_height", 3: "large_width"} if self.scale > 1 else {0: "batch", 2: "height", 3: "width"} for n in ("x", "sigma", "denoised")}
        axes["low"] = {0: "batch", 2: "height", 3: "width"}
        names = list(self.kind.inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.network, tuple(example[: len(names)]), str(path), dynamo=False, opset_version=17,
                input_names=names, output_names=["denoised"], dynamic_axes={n: axes[n] for n in [*names, "denoised"]},
            )  # fmt: skip
        model = onnx.load(path)
        for node in model.graph.node:
            node.doc_string = ""
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)

    def feed(self, inputs):
        return {name: t.numpy() for name, t in zip(self.kind.inputs, inputs)}

    def check_agreement(self, running):
        """Largest difference between PyTorch and ONNX Runtime, in the network's units; stops the export when it is too large."""
        worst, rng = 0.0, np.random.default_rng(5)
        for batch, height, width in self.sizes():
            for _ in range(3):
                clean = torch.tensor(rng.random((batch, 3, height, width)), dtype=torch.float32)
                inputs = self.inputs(rng, clean)
                # A state far from the image has large values, with the same relative rounding error.
                scale = max(1.0, float(inputs[0].abs().max()))
                worst = max(worst, float(np.abs(running.run(None, self.feed(inputs))[0] - self.run(inputs)).max()) / scale)
        if worst > TOLERANCE:
            raise SystemExit(f"ONNX Runtime differs from PyTorch by {worst:.2e}, more than {TOLERANCE:.0e}")
        return worst

    def probe(self, size):
        """Inputs of `size` pixels a side, and the one of them in which a pixel is to be moved."""
        large = torch.zeros(1, self.kind.channels, size * self.scale, size * self.scale, dtype=torch.double)
        inputs = [large, large[:, : self.kind.levels] + 0.1] + [torch.zeros(1, 3, size, size, dtype=torch.double)] * (self.scale > 1)
        return inputs, inputs[-1] if self.scale > 1 else inputs[0]

    def radius(self):
        """The receptive radius of the architecture, in pixels of the low-resolution grid."""
        # The ones that stand for weights must not cancel: bicubic's negative lobes do not matter, since they reach less far.
        network = self.job.network()
        return receptive_radius(network, self.probe, 64 * network.multiple_of // 2)

    def check_radius(self, running, radius):
        """How far a changed input pixel reaches in the exported file, over all alignments; at most `radius`.

        A large change at one pixel makes every path through the network large. Pixels outside must not change by one bit."""
        rng, reach, s = np.random.default_rng(6), 0, self.scale
        size = 32 * self.network.multiple_of
        for offset in range(self.network.multiple_of):
            at = size // 2 + offset
            channels, levels = self.kind.channels, self.kind.levels
            inputs = [rng.random((1, channels, size * s, size * s)), np.full((1, levels, size * s, size * s), 0.1), rng.random((1, 3, size, size))]
            feed = {n: i.astype(np.float32) for n, i in zip(self.kind.inputs, inputs)}
            still = running.run(None, feed)[0]
            feed["x"][..., at * s : (at + 1) * s, at * s : (at + 1) * s] = 1e4 * rng.choice([-1, 1], (channels, 1, 1))
            feed["sigma"][..., at * s : (at + 1) * s, at * s : (at + 1) * s] = 1e4 if s == 1 else 0.5
            if s > 1:
                feed["low"][..., at, at] = rng.choice([-1e4, 1e4], 3)
            rows, columns = (n // s for n in np.nonzero(running.run(None, feed)[0] != still)[2:])
            reach = max(reach, int(np.abs(rows - at).max()), int(np.abs(columns - at).max()))
        if reach > radius:
            raise SystemExit(f"a changed pixel reached {reach} pixels far, further than {radius}")
        return reach

    def recorded_pair(self):
        """Inputs made of a synthesized image, and PyTorch's result: 64 rows and 48 columns, a ramp of sigma where a map may vary."""
        rng = np.random.default_rng(7)
        side = 128 if self.kind.channels == 6 else 64
        image = images.image(rng, textures.bank(rng, 13), side)[:, : side * 3 // 4]
        clean = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        if self.scale > 1:
            low = shrink.resize(clean[0], self.scale, "bicubic")[None]
            sigma = torch.full_like(clean[:, :1], 0.1)
            inputs = (clean + sigma * jobs.seeded_noise(clean, 7), sigma, low)
        else:
            if self.kind.channels == 6:
                clean = torch.from_numpy(planes.pack(*planes.of_rgb(image.astype(np.float32) / 255)))[None]
            top, clean = (4.0, 2 * clean - 1) if self.kind.task == "generate" else (75 / 255, clean)
            sigma = torch.linspace(top / 15, top, 64).view(1, 1, 64, 1).expand(1, 1, 64, 48).contiguous()
            noise_of = sigma
            if self.kind.levels == 2:  # chroma has half of luma's, as white noise in RGB makes it
                sigma = torch.cat([sigma, sigma / 2], 1)
                noise_of = sigma[:, [0, 0, 0, 0, 1, 1]]
            inputs = (clean + noise_of * jobs.seeded_noise(clean, 7), sigma)
        return self.feed(inputs) | {"denoised": self.run(inputs)}


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def bytes_per_pixel(path, scale):
    """Peak resident memory of a fresh process per pixel of the small grid, beyond that at 1/6 of the side: the worst of several
    sizes, because ONNX Runtime's arena grows in powers of two. Needs Linux."""
    peak = lambda size: int(subprocess.check_output([sys.executable, "-c", PEAK, str(path), str(size), str(scale)]))
    sides = [n // scale for n in (256, 512, 768, 1024, 1536)]
    base = peak(sides[0])
    return max(round((peak(size) - base) / (size**2 - sides[0] ** 2)) for size in sides[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the model's name, which is its configuration's too")
    parser.add_argument("--checkpoint", help="what train.py wrote; default out/NAME/checkpoint.pt")
    parser.add_argument("--out", help="folder of the model package; default ../NAME")
    args = parser.parse_args()
    name = args.name
    config = tomllib.loads((Path(__file__).parent / f"configs/{name}.toml").read_text())
    package = Package(name, args.checkpoint or f"out/{name}/checkpoint.pt", config)
    out = Path(args.out or f"../{name}")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder) / f"{name}.onnx"
        package.write_onnx(path)
        running, radius = session(path), package.radius()
        worst, reach = package.check_agreement(running), package.check_radius(running, radius)
        recorded = package.recorded_pair()
        for tensor, array in recorded.items():
            np.save(out / f"check-{tensor}.npy", array)
        keys = {"x": "sample", "sigma": "sigma", "low": "condition"}
        manifest = MANIFEST.format(
            name=name,
            version=package.kind.version,
            task=package.kind.task,
            channels=package.kind.channels,
            layout=package.kind.layout,
            start=package.kind.start,
            data=package.kind.data,
            range=package.kind.range,
            multiple_of=package.network.multiple_of,
            radius=radius,
            scale=package.scale,
            description=package.kind.description.format(package.scale),
            steps=package.steps + config["train"].get("earlier_steps", 0),
            parameters=parameter_count(package.network),
            bytes_per_pixel=bytes_per_pixel(path, package.scale),
            sigma=package.kind.sigma.format(config["model"].get("sigma_max")) + (MIXED if config["model"].get("masked") else ""),
            condition='condition = "low"\n' if package.scale > 1 else "",
            default_steps=18 if package.kind.task == "generate" else 1,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            recorded="\n".join(f'{keys[n]} = "check-{n}.npy"' for n in package.kind.inputs),
        )
        os.replace(path, out / f"{name}.onnx")
    (out / "model.toml").write_text(manifest)
    print(f"{package.steps} steps; ONNX Runtime within {worst:.1e} of PyTorch; a pixel reaches {reach} of {radius} pixels")


if __name__ == "__main__":
    main()
