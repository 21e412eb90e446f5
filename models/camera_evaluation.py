"""Measures `eddy denoise` on frames of simulated cameras, compared with other settings, ffmpeg's nlmeans and OpenCV's NLM.

    cargo build --release
    python camera_evaluation.py --eddy ../target/release/eddy --photographs PHOTOGRAPHS/kodak

Clips are made of photographs: white noise in RGB that became 4:2:0, a sensor through MJPEG 4:2:2 and through H.264, a sensor in
low light; each still, panning, and with something moving before a still background. Stills are noisy JPEGs; clean images,
screens, text and line art must stay unchanged. The sensor differs from those of training (`train/camera.py`).

PSNR is of 8-bit samples of limited range, all planes of a 4:2:0 frame alike, as ffmpeg's own is; "RGB" is after conversion. "Flicker"
is the standard deviation over time where nothing moves, of what it is frame by frame.
Clips and results are kept in --work, so that a stopped run resumes; results of another binary or model are measured again.
Needs ffmpeg with libx264, and of train/requirements.txt numpy, opencv and pillow.
"""

import argparse
import fnmatch
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

MOTIONS = ("still", "pan", "object")
WHITE = {f"white{s}": s for s in (10, 20, 35)}
# Electrons at white per output pixel, the sensor's size relative to the output along each axis, the strength of
# sharpening, and the name of ffmpeg's options.
SENSORS = {
    "mjpeg422": (400, 1.0, 0.3, "mjpeg"),
    "h264": (700, 2.0, 0.3, "h264"),
    "dark-raw": (130, 1.0, 0.0, "raw"),
    "dark-h264": (200, 1.5, 0.2, "h264"),
}
STILL_SENSORS = {"sensor": (700, 2.0, 0.3), "dark": (130, 1.0, 0.2)}
CODERS = {
    "raw": ("y4m", "yuv420p", []),
    "mjpeg": ("avi", "yuvj422p", ["-c:v", "mjpeg", "-q:v", "4"]),
    "h264": ("mp4", "yuv420p", ["-c:v", "libx264", "-preset", "fast", "-crf", "24", "-bf", "0", "-g", "50"]),
}
# The contents of the JPEG, its quality, and OpenCV's name of its sampling.
JPEGS = {
    "jpeg-white15": ("white15", 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "jpeg-sensor": ("sensor", 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "jpeg-dark": ("dark", 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
}
CLEAN = ("clean-png", "clean-jpeg", "clean-video", "screen", "text", "line-art")
KINDS = [*(f"{k}-{m}" for k in (*WHITE, *SENSORS) for m in MOTIONS), *JPEGS, *CLEAN]
NLMEANS, NLM = (4, 6, 8, 12, 18), (3, 5, 8, 12, 16)
Y = np.float32([0.299, 0.587, 0.114])


# Frames


def run(command, data=None, check=True):
    done = subprocess.run([str(c) for c in command], input=data, capture_output=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))[:300]}: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return done


def planes_of(rgb):
    """The sample values of 4:2:0, limited range, BT.601, unrounded, of RGB [..., H, W, 3] in 0 to 255: luma, and both chromas."""
    y = rgb @ Y
    chroma = [(rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402]
    halved = lambda c: c.reshape(*c.shape[:-2], c.shape[-2] // 2, 2, c.shape[-1] // 2, 2).mean((-3, -1))
    return 16 + 219 / 255 * y, 128 + 224 / 255 * np.stack([halved(c) for c in chroma], -3)


def decoded(path, filters=None):
    """Frames of a file as planes of 4:2:0 of limited range: luma [N, H, W] and chroma [N, 2, H / 2, W / 2], float32. Nothing is
    converted by ffmpeg, except by `filters`."""
    probe = json.loads(run(["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=pix_fmt,color_range,width,height", "-of", "json", path]).stdout)
    stream = probe["streams"][0]
    width, height, form = stream["width"], stream["height"], stream["pix_fmt"]
    full = "j" in form or stream.get("color_range") == "pc"
    steps = {"420": (2, 2), "422": (1, 2), "444": (1, 1)}.get(form.replace("yuvj", "yuv").replace("yuv", "").rstrip("p"))
    if steps is None:
        raise RuntimeError(f"{path} has the pixel format {form}; expected 8 bits of 4:2:0, 4:2:2 or 4:4:4")
    raw = run(["ffmpeg", "-loglevel", "error", "-i", path, *(["-vf", filters] if filters else []), "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", form, "-"]).stdout
    area, rows, columns = width * height, height // steps[0], width // steps[1]
    samples = np.frombuffer(raw, np.uint8).reshape(-1, area + 2 * rows * columns).astype(np.float32)
    luma = samples[:, :area].reshape(-1, height, width)
    chroma = samples[:, area:].reshape(-1, 2, height // 2, rows * 2 // height, width // 2, columns * 2 // width).mean((3, 5))
    if full:
        luma, chroma = 16 + luma * (219 / 255), 128 + (chroma - 128) * (224 / 255)
    return luma, chroma


def to_rgb(planes):
    luma, chroma = (planes[0] - 16) * (255 / 219), (planes[1] - 128) * (255 / 224)
    blue, red = (chroma[:, c].repeat(2, -1).repeat(2, -2) for c in (0, 1))
    b, r = luma + 1.772 * blue, luma + 1.402 * red
    return np.clip(np.stack([r, (luma - 0.299 * r - 0.114 * b) / 0.587, b], -1), 0, 255)


def psnr(a, b):
    """PSNR in dB over all samples, mean over frames, and of RGB."""
    count = min(len(a[0]), len(b[0]))
    squares = [((x[:count] - y[:count]) ** 2).reshape(count, -1) for x, y in zip(a, b)]
    error = (squares[0].sum(1) + squares[1].sum(1)) / (squares[0].shape[1] + squares[1].shape[1])
    decibels = lambda e: float(np.mean(10 * np.log10(255**2 / np.maximum(e, 1e-4))))
    colors = np.array([((to_rgb([p[i : i + 1] for p in a]) - to_rgb([p[i : i + 1] for p in b])) ** 2).mean() for i in range(count)])
    return decibels(error), decibels(colors)


def flicker(frames, clean):
    """How much luma flickers where nothing moves: the standard deviation over time, from differences of frames after the first three;
    None where something moves everywhere."""
    luma, truth = frames[0][3 : len(clean[0])], clean[0][3 : len(frames[0])]
    if len(luma) < 3:
        return None
    rests = np.ptp(truth, 0) < 0.5
    return float(np.sqrt((np.diff(luma, axis=0)[:, rests] ** 2).mean() / 2)) if rests.mean() > 0.2 else None


# The scene, and the camera


def photograph(path, width, height, margin):
    """A photograph, RGB, uint8, of at least so many pixels with a margin, not enlarged by more than that needs."""
    image = cv2.imread(str(path))[..., ::-1]
    if image.shape[0] > image.shape[1] and width > height:
        image = np.rot90(image)
    scale = max((width + 2 * margin) / image.shape[1], (height + 2 * margin) / image.shape[0])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(np.ascontiguousarray(image), None, fx=scale * 1.0005, fy=scale * 1.0005, interpolation=method))


def scene(motion, images, at, size, frames):
    """Clean frames [H, W, 3], uint8."""
    width, height = size
    margin = 2 * frames if motion == "pan" else 0
    back = photograph(images[at], width, height, margin)
    thing = photograph(images[(at + 1) % len(images)], width // 5, height // 4, 0)[: height // 4, : width // 5]
    for i in range(frames):
        left, top = (margin + round(1.7 * i), margin + round(0.8 * i)) if motion == "pan" else (0, 0)
        frame = back[top : top + height, left : left + width].copy()
        if motion == "object":
            x, y = width // 10 + i * (width * 6 // 10) // frames, height // 3
            frame[y : y + len(thing), x : x + thing.shape[1]] = thing
        yield frame


class Sensor:
    """A lens, photons counted in a Bayer mosaic, black level, 10 bits, OpenCV's edge-aware demosaicing, a color matrix, a curve with
    a shoulder, a chroma filter, scaling and sharpening. The ground truth is the same without noise, mosaic, filter and sharpening."""

    MATRIX = np.float32([[1.55, -0.42, -0.13], [-0.21, 1.48, -0.27], [0.02, -0.48, 1.46]])
    BALANCE = np.float32([2.05, 1.0, 1.62])
    BLACK, WHITE = 64, 1023
    READ = 2.5  # electrons

    def __init__(self, electrons, scale, sharpening, seed):
        self.electrons, self.scale, self.sharpening = electrons / scale**2, scale, sharpening
        self.rng = np.random.default_rng(seed)
        grid = np.linspace(0, 1, 4097, dtype=np.float32)
        encoded = np.where(grid <= 0.0031308, 12.92 * grid, 1.055 * grid ** (1 / 2.4) - 0.055)
        self.curve = (encoded + 0.06 * np.sin(2 * np.pi * encoded) * -0.5).astype(np.float32)

    def shown(self, light):
        light = np.clip(light @ self.MATRIX.T, 0, 1)
        return np.interp(light, np.linspace(0, 1, 4097), self.curve).astype(np.float32)

    def light(self, frame):
        image = frame.astype(np.float32) / 255
        if self.scale == 1:  # otherwise the sensor has more pixels than the output
            image = cv2.GaussianBlur(image, (0, 0), 0.55)
        linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)
        return np.clip(linear @ np.linalg.inv(self.MATRIX).T, 0, 1)

    def clean(self, frame):
        return 255 * self.shown(self.light(frame))

    def take(self, frame):
        height, width = frame.shape[:2]
        light = self.light(frame) / self.BALANCE
        if self.scale > 1:
            light = cv2.resize(light, (round(width * self.scale / 2) * 2, round(height * self.scale / 2) * 2), interpolation=cv2.INTER_LINEAR)
        raw = light[..., 1].copy()
        raw[0::2, 0::2], raw[1::2, 1::2] = light[0::2, 0::2, 2], light[1::2, 1::2, 0]  # BGGR
        counted = self.rng.poisson(raw * self.electrons) + self.READ * self.rng.standard_normal(raw.shape)
        step = (self.WHITE - self.BLACK) / self.electrons
        codes = np.clip(np.rint(self.BLACK + counted * step), 0, self.WHITE) - self.BLACK
        codes[0::2, 0::2] *= self.BALANCE[2]
        codes[1::2, 1::2] *= self.BALANCE[0]
        wide = np.clip(np.rint((np.minimum(codes, 959) + 256) * 48), 0, 65535).astype(np.uint16)
        image = self.shown((cv2.cvtColor(wide, cv2.COLOR_BayerRG2RGB_EA).astype(np.float32) / 48 - 256) / 959)
        luma = image @ Y
        color = cv2.GaussianBlur(image - luma[..., None], (0, 0), 0.7)
        luma, color = (cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in (luma, color))
        luma = luma + self.sharpening * (luma - cv2.GaussianBlur(luma, (0, 0), 1.1))
        return np.rint(255 * np.clip(luma[..., None] + color, 0, 1)).astype(np.uint8)


def written(frames, coder, path):
    """Writes RGB frames as a video: I420 by the mean of 2x2, or 4:2:2 of full range by the mean of two columns."""
    ending, form, options = CODERS[coder]
    if form == "yuv420p":
        data = [np.concatenate([np.rint(p).astype(np.uint8).ravel() for p in planes_of(f.astype(np.float32))]) for f in frames]
        colors = ["-color_range", "tv", "-colorspace", "smpte170m"]
    else:
        data, colors = [], ["-color_range", "pc", "-colorspace", "smpte170m"]
        for f in frames:
            f = f.astype(np.float32)
            y = f @ Y
            wide = [((f[..., c] - y) / k + 128).reshape(len(f), -1, 2).mean(2) for c, k in ((2, 1.772), (0, 1.402))]
            data.append(np.concatenate([np.clip(np.rint(p), 0, 255).astype(np.uint8).ravel() for p in (y, *wide)]))
    height, width = frames[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", form, "-s", f"{width}x{height}", "-r", "25", *colors, "-i", "-"]
    run(["ffmpeg", "-y", "-loglevel", "error", *source, *options, *colors, "-pix_fmt", form, path], b"".join(d.tobytes() for d in data))


def drawn(kind, width, height):
    """A screen, a page of text, or line art, RGB, uint8."""
    rng, page = np.random.default_rng(3), np.full((height, width, 3), 255, np.uint8)
    if kind == "line-art":
        for i in range(40):
            points = rng.integers(0, (width, height), (4, 2)).astype(np.int32)
            cv2.polylines(page, [points], bool(i % 2), (0, 0, 0), 1 + i % 3, cv2.LINE_AA)
        return page
    if kind == "screen":
        page[:] = (236, 239, 241)
        for top, left, bottom, right, color in ((0, 0, 40, width, (38, 50, 56)), (60, 20, height - 20, 180, (255, 255, 255)), (60, 200, 260, width - 20, (13, 71, 161))):
            cv2.rectangle(page, (left, top), (right, bottom), color, -1)
    ink = (20, 20, 20)
    for i, y in enumerate(range(30, height - 4, 22)):
        words = " ".join("".join(chr(c) for c in rng.integers(97, 123, n)) for n in rng.integers(1, 10, 9))
        cv2.putText(page, words, (24, y), cv2.FONT_HERSHEY_SIMPLEX, 0.35 + 0.05 * (i % 4), ink, 1, cv2.LINE_AA)
    return page


# Kinds


class Example:
    """A noisy file and its ground truth: planes of clean frames."""

    def __init__(self, kind, at, args, images):
        self.kind, self.args = kind, args
        key = [kind, [str(p) for p in images], at, args.size, args.frames, hashlib.sha256(Path(__file__).read_bytes().split(b"# Running")[0]).hexdigest()]
        self.key = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        self.folder = args.work / "examples" / f"{kind}-{at}-{self.key}"
        self.is_stream = kind.rpartition("-")[2] in MOTIONS or kind == "clean-video"
        self.is_clean = kind in CLEAN
        if not (self.folder / "done").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.make(images, at)
            (self.folder / "done").touch()
        self.file = next(self.folder.glob("noisy.*"))
        self._clean = None

    def make(self, images, at):
        size, seed = self.args.size, [at, KINDS.index(self.kind)]
        rng = np.random.default_rng(seed)
        base, _, motion = self.kind.rpartition("-")
        if self.is_stream:
            frames = list(scene("pan" if self.kind == "clean-video" else motion, images, at, size, self.args.frames))
            if base in SENSORS:
                *form, coder = SENSORS[base]
                sensor = Sensor(*form, seed)
                clean, noisy = [sensor.clean(f) for f in frames], [sensor.take(f) for f in frames]
            else:
                sigma, coder, clean = WHITE.get(base, 0), "raw", frames
                noisy = [np.clip(np.rint(f + sigma * rng.standard_normal(f.shape)), 0, 255).astype(np.uint8) for f in frames]
            written(noisy, coder, self.folder / f"noisy.{CODERS[coder][0]}")
        else:
            frame = drawn(self.kind, *size) if self.kind in CLEAN[3:] else next(scene("still", images, at, size, 1))
            clean, coded = [frame], []
            if self.kind in JPEGS:
                noise, quality, sampling = JPEGS[self.kind]
                if noise == "white15":
                    frame = np.clip(np.rint(frame + 15 * rng.standard_normal(frame.shape)), 0, 255).astype(np.uint8)
                else:
                    sensor = Sensor(*STILL_SENSORS[noise], seed)
                    clean, frame = [sensor.clean(frame)], sensor.take(frame)
                coded = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
            ending = "jpg" if self.kind in JPEGS or self.kind == "clean-jpeg" else "png"
            cv2.imwrite(str(self.folder / f"noisy.{ending}"), frame[..., ::-1], coded or [cv2.IMWRITE_JPEG_QUALITY, 95] * (ending == "jpg"))
        if self.is_clean and self.kind != "clean-video":
            clean = [cv2.imread(str(next(self.folder.glob("noisy.*"))))[..., ::-1]]
        luma, chroma = zip(*(planes_of(np.asarray(c, np.float32)) for c in clean))
        if self.kind == "clean-video":
            luma, chroma = decoded(next(self.folder.glob("noisy.*")))
        np.savez(self.folder / "clean.npz", luma=np.stack(luma).astype(np.float32), chroma=np.stack(chroma).astype(np.float32))

    def clean(self):
        if self._clean is None:
            stored = np.load(self.folder / "clean.npz")
            self._clean = stored["luma"], stored["chroma"]
        return self._clean

    def planes(self, path):
        """A result's planes."""
        if self.is_stream:
            return decoded(path)
        return tuple(p[None] for p in planes_of(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)))

    def true_sigma(self):
        """Standard deviation of the errors, of luma and of chroma, in 8-bit units of full range."""
        (y, c), (clean_y, clean_c) = self.planes(self.file), self.clean()
        count = min(len(y), len(clean_y))
        return float(np.std(y[:count] - clean_y[:count])) * 255 / 219, float(np.std(c[:count] - clean_c[:count])) * 255 / 224


# Running


class Results:
    """Measurements, a JSON object per line, by example and method."""

    def __init__(self, path):
        self.path, self.known = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # truncated when a run was stopped
                    continue
                self.known[row["example"], row["method"]] = row

    def get(self, example, method, make):
        key = example.key, method
        if key not in self.known:
            started = time.monotonic()
            try:
                row = make()
            except (RuntimeError, subprocess.SubprocessError, ValueError, OSError) as error:
                print(f"  {example.kind}: {method} failed: {error}", file=sys.stderr, flush=True)
                return {"failed": str(error)}
            self.known[key] = {"example": key[0], "method": method, **row, "took": round(time.monotonic() - started, 2)}
            with open(self.path, "a") as file:
                file.write(json.dumps(self.known[key]) + "\n")
        return self.known[key]


def eddy(args, example, options):
    """One run of the binary: PSNR, and its record."""
    out = args.work / f"result.{'y4m' if example.is_stream else 'png'}"
    out.unlink(missing_ok=True)
    done = run([args.eddy, "denoise", example.file, "-o", out, "--json", *options])
    said = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith("{")]
    summary = next((s for s in reversed(said) if s.get("event", "summary") == "summary"), {})
    result = example.planes(out)
    row = dict(zip(("psnr", "rgb"), psnr(result, example.clean())))
    row["same"] = bool(all(np.array_equal(a, b) for a, b in zip(result, example.planes(example.file))))
    if example.is_stream:
        row["flicker"] = flicker(result, example.clean())
    names = {"tiles": "tiles_computed", "sigma": "sigma", "chroma": "sigma_chroma", "model": "model"}
    row |= {name: summary.get(key) for name, key in names.items()}
    row["fps"] = summary.get("rate") or (1 / summary["seconds"] if summary.get("seconds") else None)
    return row


def settings(args, example):
    """Eddy's other settings, by name: models, and sigmas around the true one."""
    luma, chroma = example.true_sigma()
    # White noise in RGB of s is 0.6685 s in luma.
    told = {"camera": lambda f: f"{f * luma:.2f},{f * chroma:.2f}", "denoise-fast": lambda f: f"{f * luma / 0.6685:.2f}", "denoise": lambda f: f"{f * luma / 0.6685:.2f}"}
    for model in args.models:
        yield f"{model} auto", ["-m", args.camera if model == "camera" and args.camera else model]
        for factor in args.factors:
            sigma = told.get(model, told["denoise-fast"])(factor)
            yield f"{model} x{factor}", ["-m", args.camera if model == "camera" and args.camera else model, "--sigma", sigma]


def nlmeans(args, example, strength):
    """ffmpeg's nlmeans of every fourth frame, since it treats frames independently."""
    thin = "select='not(mod(n,4))',"
    result = decoded(example.file, f"{thin}nlmeans=s={strength}")
    clean = tuple(p[::4] for p in example.clean())
    return dict(zip(("psnr", "rgb"), psnr(result, clean)))


def nlm(example, strength):
    frame = cv2.imread(str(example.file))
    out = cv2.fastNlMeansDenoisingColored(frame, None, strength, strength, 7, 21)
    return dict(zip(("psnr", "rgb"), psnr(tuple(p[None] for p in planes_of(out[..., ::-1].astype(np.float32))), example.clean())))


def measured(args, results, example):
    """All methods on one example."""
    row = {"kind": example.kind}
    default = ["-m", args.camera] if args.camera and not example.is_clean and not example.kind.startswith("jpeg") else []
    call = lambda name, options: results.get(example, f"eddy {args.build} {' '.join(map(str, options))}", lambda: eddy(args, example, options))
    row["noisy"] = results.get(example, "noisy", lambda: dict(zip(("psnr", "rgb"), psnr(example.planes(example.file), example.clean()))))
    if example.is_stream:
        row["single"] = call("single", [*default, "--temporal=off"])
        row["eddy"] = call("temporal", [*default, "--temporal=on"])
        if args.repeat:
            row["eddy"] = row["eddy"] | {"fps": eddy(args, example, [*default, "--temporal=on"])["fps"]}
    else:
        row["eddy"] = row["single"] = call("default", default)
    if example.is_clean:
        return row
    strengths = NLMEANS if example.is_stream else NLM
    rival = (lambda s: nlmeans(args, example, s)) if example.is_stream else (lambda s: nlm(example, s))
    tried = {s: results.get(example, f"nlm {s}", lambda: rival(s)) for s in strengths}
    row["rival"] = max(tried.values(), key=lambda r: r.get("psnr", 0))
    if not args.quick:
        temporal = ["--temporal=on"] if example.is_stream else []
        own = {name: call(name, [*options, *temporal]) for name, options in settings(args, example)}
        best = max(own, key=lambda n: own[n].get("psnr", 0), default=None)
        row["own"] = own[best] | {"name": best} if best else {}
    return row


COLUMNS = ["kind", "noisy", "best NLM", "frame by frame", "eddy", "RGB", "best own setting", "tiles", "flicker", "fps", "sigma", "misses"]


def line(rows, is_clean):
    """A row of the table: means over the examples of a kind, and the limits that it misses."""
    mean = lambda part, name="psnr": (lambda v: float(np.mean(v)) if v else None)([r[part][name] for r in rows if isinstance(r.get(part, {}).get(name), (int, float))])
    show = lambda value, form="{:.1f}": "" if value is None else form.format(value)
    eddy, single, rival, own = mean("eddy"), mean("single"), mean("rival"), mean("own")
    tiles, kind = mean("eddy", "tiles"), rows[0]["kind"]
    before, after = mean("single", "flicker"), mean("eddy", "flicker")
    steady = after / before if before and after is not None else None  # relative to that of single frames
    misses = []
    if eddy is None:
        misses.append("failed")
    elif is_clean:
        same = all(r["eddy"].get("same") for r in rows)
        if not same and (eddy < 48 or kind in ("screen", "text", "line-art")):
            misses.append("changed")
    else:
        least = 1.5 if kind in JPEGS else 2.0
        if rival is not None and eddy < rival + least:
            misses.append(f"{eddy - rival:+.1f} to NLM, {least} wanted")
        if kind not in JPEGS and rival is not None and single is not None and single < rival + 1:
            misses.append(f"single {single - rival:+.1f} to NLM, 1.0 wanted")
        if own is not None and eddy < own - 0.5:
            misses.append(f"{eddy - own:+.1f} to own best")
        if kind.endswith("still"):
            misses += ["tiles"] * (tiles is not None and tiles > 0.3) + ["flicker"] * (steady is not None and steady > 1 / 3)
        elif single is not None and kind.rpartition("-")[2] in MOTIONS and eddy < single - 0.05:
            misses.append(f"temporal {eddy - single:+.2f}")
    best = show(own) + (f" ({rows[0]['own'].get('name')})" if own is not None else "")
    levels = " ".join(filter(None, (show(mean("eddy", "sigma")), show(mean("eddy", "chroma")))))
    same = "same" if is_clean and eddy is not None and all(r["eddy"].get("same") for r in rows) else None
    return [kind, show(mean("noisy")), show(rival), show(single), same or show(eddy), show(mean("eddy", "rgb")), best,
            show(tiles and 100 * tiles, "{:.0f} %"), show(steady, "{:.2f}"), show(mean("eddy", "fps")), levels, "; ".join(misses) or "-"]  # fmt: skip


def table(lines):
    widths = [max(len(l[i]) for l in [COLUMNS, *lines]) for i in range(len(COLUMNS))]
    shown = [COLUMNS, ["-" * w for w in widths], *lines]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(l, widths)) + " |" for l in shown)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eddy", type=Path, required=True, help="the binary")
    parser.add_argument("--photographs", type=Path, required=True, help="folder of .png and .jpg photographs that no training saw")
    parser.add_argument("--kinds", default="*", help=f"which, by patterns with commas; of {', '.join(KINDS)}")
    parser.add_argument("--camera", type=Path, help="folder of a package to use in place of the bundled camera, for streams")
    parser.add_argument("--models", default="camera,denoise-fast", help="those of the other settings; denoise as well takes long")
    parser.add_argument("--factors", default="0.7,1.0,1.4", help="levels of the other settings, of the true ones")
    parser.add_argument("--count", type=int, default=2, help="photographs a kind")
    parser.add_argument("--size", default="640x480", help="width and height, even")
    parser.add_argument("--frames", type=int, default=16, help="frames a clip")
    parser.add_argument("--quick", action="store_true", help="one photograph of 512x384, 12 frames, and no other settings")
    parser.add_argument("--repeat", action="store_true", help="measure the frames per second anew, in a run of its own")
    parser.add_argument("--work", type=Path, default=Path("out/camera-evaluation"), help="folder of clips and results")
    args = parser.parse_args()
    if args.quick:
        args.count, args.size, args.frames = 1, "512x384", 12
    args.size = [int(n) // 2 * 2 for n in args.size.split("x")]
    args.models, args.factors = args.models.split(","), [float(f) for f in args.factors.split(",")]
    patterns = args.kinds.split(",")
    args.kinds = [k for k in KINDS if any(fnmatch.fnmatch(k, p) or k.startswith(p) for p in patterns)]
    if not args.kinds:
        parser.error(f"--kinds {','.join(patterns)} are none of {', '.join(KINDS)}")
    parts = [args.eddy.read_bytes(), *(p.read_bytes() for p in sorted(args.camera.iterdir()) if p.is_file())] if args.camera else [args.eddy.read_bytes()]
    args.build = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:12]
    return args


def main():
    args = options()
    args.work.mkdir(parents=True, exist_ok=True)
    images = sorted(p for p in args.photographs.iterdir() if p.suffix.lower() in (".png", ".jpg"))
    if not images:
        raise SystemExit(f"{args.photographs} holds no .png or .jpg")
    chosen = [i * len(images) // args.count for i in range(min(args.count, len(images)))]
    results, lines = Results(args.work / "results.jsonl"), []
    for kind in args.kinds:
        started = time.monotonic()
        rows = [measured(args, results, Example(kind, at, args, images)) for at in (chosen[:1] if kind in CLEAN[3:] else chosen)]
        lines.append(line(rows, kind in CLEAN))
        print(f"{time.monotonic() - started:5.0f} s  " + "  ".join(f"{c} {v}" for c, v in zip(COLUMNS, lines[-1]) if v), flush=True)
    print("\n" + table(lines))


if __name__ == "__main__":
    main()
