"""Measures the shipped models through the `eddy` binary and writes `QUALITY.md` and the images of `../docs`.

    cargo build --release
    python evaluate.py --eddy ../target/release/eddy

Needs the packages of train/requirements.txt except PyTorch. Models whose folder is missing are skipped. CBM3D's results are
cached in `--cache`; `--quick` takes two images, skips CBM3D and writes nothing.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

import bm3d
import cv2
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from measures import MEASURES, psnr

HERE = Path(__file__).parent
SIGMAS, STEPS = (15, 25, 50), (1, 2, 4, 8)
MODELS = ("denoise-fast", "denoise", "camera", "upscale-x2", "upscale-x4")
NAMES = ("astronaut", "coffee", "chelsea", "ihc", "retina")
LIGHTS = {"good light": (2e-4, 1e-6), "indoors": (2e-3, 2e-5), "at night": (1e-2, 2e-4)}  # a and b of the sensor's variance, a * light + b
NLM_STRENGTH = 0.6  # h / sigma: the best of 0.4 to 1.2 on two other photographs

PROTOCOL = """\
# Quality

Written by `python models/evaluate.py`, which runs the bundled models through the `eddy` binary.

**Images.** {names}, from scikit-image. They were not used for
training, model selection or tuning. Denoising and the camera use the middle 256x256 pixels,
upscaling the middle 512x512 at most. Figures are means over the images.

**Files.** Noisy images are 16-bit PNG, so noise is clipped to [0, 1] and hardly rounded; so are
results. Low-resolution images for upscaling are 8-bit PNG, made by Pillow's antialiased
bicubic filter. Every method gets the same file, except OpenCV's non-local means, which takes 8
bits; its h is 0.6 sigma. Each denoiser is given sigma. CBM3D and NLM assume unclipped Gaussian
noise; our networks were trained on clipped noise.

**Measures.** PSNR in dB; SSIM (Wang et al. 2004); HaarPSI (Reisenhofer et al. 2018); *spectrum*,
the distance of log power spectra (0 is the best; it shows whether texture has the right strength).
`models/measures.py` defines them.

**Time.** Seconds per megapixel of the result, in the same run, on {machine}: Eddy's is
the reported time (pixels to pixels, without reading and writing files), that of the others the time
of the call, for CBM3D possibly in an earlier run. Compare them with each other only.
"""


class Eddy:
    """The binary under measurement."""

    def __init__(self, path):
        self.path = Path(path).resolve()

    def run(self, command, model, inputs, *options, folder):
        """Results of the package in ./MODEL for `inputs` (files), as float images, and the total seconds that eddy reports."""
        out = Path(folder) / f"out-{time.monotonic_ns()}"
        argv = [self.path, command, *inputs, "-m", HERE / model, "-o", f"{out}/", "-f", "png", "--json", *map(str, options)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, argv))}\n{done.stderr}")
        seconds = sum(json.loads(line)["seconds"] for line in done.stdout.splitlines())
        return [load(out / Path(i).with_suffix(".png").name) for i in inputs], seconds


def load(path):
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
    return pixels / np.float64(np.iinfo(pixels.dtype).max)


def save(path, image, bits=16):
    most = 2**bits - 1
    pixels = np.round(np.clip(image, 0, 1) * most).astype(np.uint16 if bits == 16 else np.uint8)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def middle(image, most):
    height, width = (min(side, most) // 8 * 8 for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width, :3] / 255.0


def megapixels(images):
    return sum(p.shape[0] * p.shape[1] for p in images) / 1e6


class Table:
    """Rows of names and means of measures."""

    def __init__(self, first):
        self.lines = [f"| {first} | " + " | ".join(MEASURES) + " | s/MP |", "|---|" + "---|" * (len(MEASURES) + 1)]

    def add(self, name, results, truths, seconds=None):
        means = [np.mean([measure(np.clip(r, 0, 1), t) for r, t in zip(results, truths)]) for measure in MEASURES.values()]
        texts = [f"{means[0]:.2f}", *(f"{m:.3f}" for m in means[1:]), f"{seconds / megapixels(truths):.2f}" if seconds else ""]
        self.lines.append(f"| {name} | " + " | ".join(texts) + " |")
        print(self.lines[-1], flush=True)
        return means

    def __str__(self):
        return "\n".join(self.lines) + "\n"


class Evaluation:
    def __init__(self, args, folder):
        self.eddy, self.folder, self.cache, self.quick = Eddy(args.eddy), Path(folder), Path(args.cache), args.quick
        names = NAMES[:2] if args.quick else NAMES
        self.originals = {name: getattr(skimage.data, {"ihc": "immunohistochemistry"}.get(name, name))() for name in names}
        self.cache.mkdir(parents=True, exist_ok=True)

    def has(self, model):
        return (HERE / model / "model.toml").exists()

    def files(self, model):
        return tomllib.loads((HERE / model / "model.toml").read_text())["files"]

    def cbm3d(self, noisy, sigma):
        """CBM3D's result, and how long it took when it was computed."""
        key = hashlib.sha256(noisy.tobytes() + str(sigma).encode()).hexdigest()[:24]
        path = self.cache / f"cbm3d-{key}.npz"
        if not path.exists():
            start = time.perf_counter()
            result = bm3d.bm3d_rgb(noisy, sigma / 255)
            np.savez(path, result=result, seconds=time.perf_counter() - start)
        kept = np.load(path)
        return kept["result"], float(kept["seconds"])

    def non_local_means(self, noisy, sigma):
        start = time.perf_counter()
        pixels = np.round(noisy * 255).astype(np.uint8)
        result = cv2.fastNlMeansDenoisingColored(pixels, None, NLM_STRENGTH * sigma, NLM_STRENGTH * sigma, 7, 21) / 255.0
        return result, time.perf_counter() - start

    def noisy_files(self, sigma, truths):
        files = []
        for (name, truth), seed in zip(truths.items(), range(100)):
            noise = np.random.default_rng([seed, sigma]).standard_normal(truth.shape)
            files.append(save(self.folder / f"{name}-{sigma}.png", truth + sigma / 255 * noise))
        return files

    def denoising(self):
        """Tables for each sigma, and the mean of each method's PSNR over all of them."""
        truths = {name: middle(p, 256) for name, p in self.originals.items()}
        clean, text, totals = list(truths.values()), "\n## Denoising\n", {}
        shown = {}
        for sigma in SIGMAS:
            files = self.noisy_files(sigma, truths)
            noisy, table = [load(f) for f in files], Table(f"sigma {sigma}")
            table.add("noisy", noisy, clean)
            methods = {"OpenCV NLM": lambda: zip(*(self.non_local_means(n, sigma) for n in noisy))}
            if not self.quick:
                methods["CBM3D"] = lambda: zip(*(self.cbm3d(n, sigma) for n in noisy))
            for name, method in methods.items():
                results, seconds = method()
                shown[name, sigma] = results
                totals.setdefault(name, []).append(table.add(name, results, clean, sum(seconds))[0])
            for model in filter(self.has, ("denoise-fast", "denoise")):
                for steps in STEPS:
                    results, seconds = self.eddy.run("denoise", model, files, "--sigma", sigma, "--steps", steps, folder=self.folder)
                    label = f"{model}, {steps} step{'s' * (steps > 1)}"
                    mean = table.add(label, results, clean, seconds)[0]
                    if steps == 1:
                        shown[model, sigma] = results
                        totals.setdefault(model, []).append(mean)
            shown["noisy", sigma] = noisy
            text += f"\n{table}"
        text += "\n| mean PSNR over the three sigmas | dB |\n|---|---|\n"
        text += "".join(f"| {name} | {np.mean(t):.2f} |\n" for name, t in totals.items())
        columns = ["noisy", "OpenCV NLM", "CBM3D", "denoise-fast", "denoise"]
        sheet = [(c, [shown[c, 50][i][64:192, 64:192] for i in range(min(3, len(clean)))]) for c in columns if (c, 50) in shown]
        self.sheet("denoise", [*sheet, ("truth", [c[64:192, 64:192] for c in clean[:3]])])
        return text

    def small_files(self, scale, truths):
        files = [self.folder / f"{name}-small{scale}.png" for name in self.originals]
        for path, truth in zip(files, truths):
            image = Image.fromarray(np.round(truth * 255).astype(np.uint8))
            image.resize((image.width // scale, image.height // scale), Image.BICUBIC).save(path)
        return files

    def upscaling(self):
        text = "\n## Upscaling\n"
        for scale in (2, 4):
            model = f"upscale-x{scale}"
            if not self.has(model):
                continue
            clean = [middle(p, 512) for p in self.originals.values()]
            files = self.small_files(scale, clean)
            small = [Image.open(f) for f in files]
            table, sheet = Table(f"{scale} times"), []
            for name, filter in (("bicubic", Image.BICUBIC), ("Lanczos", Image.LANCZOS)):
                start = time.perf_counter()
                results = [np.asarray(s.resize((s.width * scale, s.height * scale), filter)) / 255.0 for s in small]
                table.add(name, results, clean, time.perf_counter() - start)
                sheet += [(name, results)] * (name == "bicubic")
            for steps in STEPS:
                results, seconds = self.eddy.run("upscale", model, files, "-s", scale, "--steps", steps, folder=self.folder)
                table.add(label := f"{model}, {steps} step{'s' * (steps > 1)}", results, clean, seconds)
                sheet += [(label, results)] * (steps in (1, 4))
            text += f"\n{table}"
            crop = lambda ps: [p[p.shape[0] // 2 - 104 : p.shape[0] // 2 + 24, p.shape[1] // 2 - 64 : p.shape[1] // 2 + 64] for p in ps[:3]]
            self.sheet(model, [(n, crop(r)) for n, r in [*sheet, ("truth", clean)]])
        return text

    def shot_files(self, light, truths):
        files = [self.folder / f"{name}-{light.replace(' ', '-')}.jpg" for name in truths]
        for seed, (path, truth) in enumerate(zip(files, truths.values())):
            shoot(np.random.default_rng(seed), truth, *LIGHTS[light], path)
        return files

    def camera(self):
        """A camera with different code and parameters from that of training."""
        if not self.has("camera"):
            return ""
        text = "\n## Camera\n\nA simulated camera that differs from that of training: sRGB's curve, another color matrix, OpenCV's\nedge-aware demosaicing, Poisson-Gaussian noise, an unsharp mask, JPEG of quality 80 with 4:2:0.\n`--sigma auto` throughout.\n"
        truths = {name: middle(p, 256) for name, p in self.originals.items()}
        clean, shown = list(truths.values()), {}
        for light in LIGHTS:
            files = self.shot_files(light, truths)
            shots, table = [load(f) for f in files], Table(light)
            table.add("as delivered", shots, clean)
            shown["as delivered", light] = shots
            for model in filter(self.has, ("denoise-fast", "denoise", "camera")):
                results, seconds = self.eddy.run("denoise", model, files, folder=self.folder)
                table.add(model, results, clean, seconds)
                shown[model, light] = results
            text += f"\n{table}"
        columns = [m for m in ("as delivered", "denoise", "camera") if (m, "indoors") in shown]
        self.sheet("camera", [*((c, [s[64:192, 64:192] for s in shown[c, "indoors"][:3]]) for c in columns), ("truth", [c[64:192, 64:192] for c in clean[:3]])])
        return text

    def tasks(self, model, truths):
        """The tests of a model's files: a command, input files and options for each column of figures."""
        if model.startswith("upscale"):
            scale = int(model[-1])
            return [("upscale", self.small_files(scale, truths.values()), ("-s", scale))]
        if model == "camera":
            return [("denoise", self.shot_files(light, truths), ()) for light in LIGHTS]
        return [("denoise", self.noisy_files(sigma, truths), ("--sigma", sigma)) for sigma in SIGMAS]

    def precisions(self, models=MODELS):
        """The loss of each file against f32, and its time here: each task with each file in turn."""
        text = "\n## Precisions\n\nThe middle 512x512 at most; one step. PSNR in dB at sigma 15 / 25 / 50, for `camera` in good light /\n"
        text += "indoors / at night. f16 is for devices that compute in it; a CPU converts to f32 and back.\n\n| model | file | KiB | PSNR | s/MP |\n|---|---|---|---|---|\n"
        truths = {name: middle(p, 512) for name, p in self.originals.items()}
        for model in filter(self.has, models):
            files = self.files(model)
            means, taken = {p: [] for p in files}, dict.fromkeys(files, 0.0)
            tasks = self.tasks(model, truths)
            for command, inputs, options in tasks:
                for precision in files:
                    results, seconds = self.eddy.run(command, model, inputs, *options, "--precision", precision, folder=self.folder)
                    taken[precision] += seconds / len(tasks) / megapixels(truths.values())
                    means[precision].append(np.mean([psnr(np.clip(r, 0, 1), t) for r, t in zip(results, truths.values())]))
            for precision, file in files.items():
                size = (HERE / model / file["path"]).stat().st_size // 1024
                text += f"| {model} | {precision} | {size} | {' / '.join(f'{m:.3f}' for m in means[precision])} | {taken[precision]:.2f} |\n"
                print(text.splitlines()[-1], flush=True)
        return text

    def sheet(self, name, columns):
        """Writes labeled columns of equal crops, twice as large, as ../docs/NAME.jpg."""
        if self.quick:
            return
        zoom, line, gap = 2, 26, 4
        side = columns[0][1][0].shape[0] * zoom
        rows = len(columns[0][1])
        page = Image.new("RGB", (len(columns) * (side + gap) - gap, rows * (side + gap) + line), "white")
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=17)
        for x, (label, crops) in enumerate(columns):
            draw.text((x * (side + gap) + 4, 3), label, fill="black", font=font)
            for y, crop in enumerate(crops):
                tile = Image.fromarray(np.round(np.clip(crop, 0, 1) * 255).astype(np.uint8)).resize((side, side), Image.NEAREST)
                page.paste(tile, (x * (side + gap), line + y * (side + gap)))
        (HERE / "../docs").mkdir(exist_ok=True)
        page.save(HERE / f"../docs/{name}.jpg", quality=80, subsampling=0)


def shoot(rng, image, a, b, path):
    """Writes the camera's photograph of an image; the sensor's variance is a * light + b."""
    matrix = np.array([[1.55, -0.40, -0.15], [-0.20, 1.42, -0.22], [0.02, -0.48, 1.46]])
    gains = np.array([1.9, 1.0, 1.55])
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    light = np.clip(linear @ np.linalg.inv(matrix).T, 0, None) / gains
    raw = light[..., 1].copy()
    raw[::2, ::2], raw[1::2, 1::2] = light[::2, ::2, 0], light[1::2, 1::2, 2]
    raw = np.clip(raw + np.sqrt(a * raw + b) * rng.standard_normal(raw.shape), 0, 1)
    twelve_bits = (np.round(raw * 4095) * 16).astype(np.uint16)
    out = cv2.demosaicing(twelve_bits, cv2.COLOR_BayerRGGB2RGB_EA) / 65520.0
    out = np.clip((out * gains) @ matrix.T, 0, 1)
    out = np.where(out <= 0.0031308, 12.92 * out, 1.055 * np.maximum(out, 1e-9) ** (1 / 2.4) - 0.055)
    out = out + 0.5 * (out - cv2.GaussianBlur(out, (0, 0), 1.0))
    pixels = np.round(np.clip(out, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=80, subsampling="4:2:0")


def machine():
    with open("/proc/cpuinfo") as file:
        name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores of an {name}"


def replace(title, section, models, evaluation):
    """Replaces a section of QUALITY.md and its models' rows in the table of precisions."""
    path = HERE / "QUALITY.md"
    before, _, rest = path.read_text().partition(f"\n## {title}\n")
    section = section()
    rows = [line for line in evaluation.precisions(models).splitlines() if line.startswith(tuple(f"| {m} |" for m in models))]
    rows = {tuple(line.split("|")[1:3]): line for line in rows}
    after = "\n## " + rest.split("\n## ", 1)[1]
    before_table, _, table = after.partition("\n## Precisions\n")
    lines = [rows.get(tuple(line.split("|")[1:3]), line) if line.startswith("|") else line for line in table.splitlines()]
    path.write_text(before + section + before_table + "\n## Precisions\n" + "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eddy", default=HERE / "../target/release/eddy", help="the binary to measure")
    parser.add_argument("--cache", default=HERE / "train/out/cbm3d", help="folder where CBM3D's results are kept")
    parser.add_argument("--digits", action="store_true", help="measure the digit models alone, into ../docs/digits.md")
    parser.add_argument("--inpainting", action="store_true", help="measure inpainting alone, into ../docs/inpainting.md")
    parser.add_argument("--text", metavar="READER", help="measure the text-to-image systems alone, into ../docs/shapes.md, by this reader (train/text/reader.py)")
    parser.add_argument("--quick", action="store_true", help="two images, no CBM3D; QUALITY.md and ../docs are left alone")
    parser.add_argument("--camera", action="store_true", help="measure `camera` alone, and put its figures in place of those in QUALITY.md")
    parser.add_argument("--upscaling", action="store_true", help="measure the upscalers alone, likewise")
    args = parser.parse_args()
    if args.text:
        import shapes_evaluation

        return shapes_evaluation.main(args.eddy, args.text)
    if args.inpainting:
        import inpainting_evaluation

        return inpainting_evaluation.main(args.eddy)
    if args.digits:
        # Its dependencies are not needed otherwise.
        import digits_evaluation

        return digits_evaluation.main(args.eddy)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Evaluation(args, folder)
        if args.camera:
            return replace("Camera", evaluation.camera, ["camera"], evaluation)
        if args.upscaling:
            return replace("Upscaling", evaluation.upscaling, ["upscale-x2", "upscale-x4"], evaluation)
        # The section of tests/third_party/run.py is kept.
        _, head, rows = (HERE / "QUALITY.md").read_text().partition("\n## Peers\n")
        peers = head + rows
        text = PROTOCOL.format(names=", ".join(evaluation.originals), machine=machine())
        for section in (evaluation.denoising, evaluation.upscaling, evaluation.camera, evaluation.precisions):
            text += section()
            if not args.quick:
                (HERE / "QUALITY.md").write_text(text + peers)


if __name__ == "__main__":
    main()
