"""Noise estimation: the reference of `src/task/plane_noise`, and the training of its regression.

A plane (luma, Cb, Cr, or one of R, G, B) is cut into blocks of 8x8 samples that lie on the grid of JPEG and H.264. Three octaves of Haar's
transform of each give energies that equal the variance for white noise. Low quantiles of the energies over the blocks measure the noise
where there is little texture, their ratios its correlation; a small network, fitted here to simulated images, combines them.

    python noise_estimate.py simulate --photos DIR --out images.npz --count 7000 --seed 1
    python noise_estimate.py simulate --clips --photos DIR --out clips.npz --count 2400 --seed 2
    python noise_estimate.py fit --images images.npz --clips clips.npz --check-images OTHER.npz --check-clips OTHER.npz --out weights.npz
    python noise_estimate.py rust weights.npz > ../../src/task/plane_noise/weights.rs && cargo fmt
    python noise_estimate.py golden weights.npz > ../../tests/golden/plane_noise.json
"""

import argparse
import io
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np

BLOCK = 8
MOST_BLOCKS, MOST_PAIRS = 1024, 640  # of a plane that are looked at, about; of a pair of frames'
FEWEST_BLOCKS = 8  # that must be usable
MOST_CLIPPED = 6  # samples of a block that may be at the end of the range
FLAT = 0.25  # levels of 255: a block whose samples differ by less is flat
QUANTILES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
BANDS = ("fine diagonal", "fine edges", "second diagonal", "second edges", "third diagonal", "border")
WEIGHTS = np.array([16, 32, 4, 8, 1, 0], np.float64) / 61
FLOOR = 0.1  # variance, added before a logarithm
TARGET_FLOOR = 0.5  # levels: the targets are log2(hypot(sigma, this))


def grid(height, width, most=MOST_BLOCKS):
    """The top left corners of the sampled blocks: a staggered grid."""
    rows, columns = height // BLOCK, width // BLOCK
    step = max(1, int(np.ceil(np.sqrt(rows * columns / most))))
    return [(r * BLOCK, c * BLOCK) for j, r in enumerate(range(0, rows, step)) for c in range(j % step, columns, step)]


def haar(x):
    """One octave of [N, 2n, 2n]: the mean band [N, n, n] and the three detail bands."""
    a, b, c, d = x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def spread(x):
    """The variance of [N, n, n] in each, without the constant part, such as that of ramps in a detail band."""
    return x.var((1, 2), ddof=1)


def blocks(plane, most=MOST_BLOCKS):
    """Energies [N, 6] of the usable blocks of a plane in levels of 255, their means, and the shares of flat and of clipped blocks."""
    height, width = plane.shape
    at = np.array(grid(height, width, most)).reshape(-1, 2)
    if len(at) == 0 or width < 2 * BLOCK or height < 2 * BLOCK:
        return np.zeros((0, 6)), np.zeros(0), 0.0, 0.0
    rows, columns = at[:, 0, None, None] + np.arange(8)[:, None], at[:, 1, None, None] + np.arange(8)
    x = plane[rows, columns].astype(np.float64)
    clipped = ((x <= 0) | (x >= 255)).sum((1, 2)) > MOST_CLIPPED
    flat = (x.max((1, 2)) - x.min((1, 2)) < FLAT) & ~clipped
    use = ~(clipped | flat)
    right = np.where(at[:, 1] + 10 <= width, at[:, 1] + 6, at[:, 1] - 2)
    edge = plane[at[:, 0, None, None] + np.arange(8)[:, None], right[:, None, None] + np.arange(4)].astype(np.float64)[use]
    x = x[use]
    low1, h1, v1, d1 = haar(x)
    low2, h2, v2, d2 = haar(low1)
    low3, _, _, d3 = haar(low2)
    border = ((edge @ np.array([0.5, -1.5, 1.5, -0.5])) ** 2).mean(1) / 5
    energies = np.stack([
        (d1**2).mean((1, 2)), (spread(h1) + spread(v1)) / 2, (d2**2).mean((1, 2)), (spread(h2) + spread(v2)) / 2, (d3**2).mean((1, 2)), border
    ], 1)
    return energies, low3[:, 0, 0] / 8, float(flat.mean()), float(clipped.mean())


def level(energy):
    return 0.5 * np.log2(np.asarray(energy) + FLOOR)


def quantile(values, q):
    """The value at the rank q (count - 1), rounded down, of sorted values [N] or [N, k]."""
    return values[int(q * (len(values) - 1))]


def features(plane, chroma, most=MOST_BLOCKS):
    """The features of a plane in levels of 255 for the regression, or None if too few blocks are usable."""
    energies, means, flat, clipped = blocks(plane, most)
    if len(energies) < FEWEST_BLOCKS:
        return None
    total = energies @ WEIGHTS
    out = []
    ranked = np.sort(np.concatenate([energies, total[:, None]], 1), 0)
    for q in QUANTILES:
        out += list(level(quantile(ranked, q)))
    order = np.argsort(total, kind="stable")
    for share in (0.1, 0.3):
        out += list(level(energies[order[: max(4, int(share * len(order)))]].mean(0)))
    by_brightness = np.argsort(means, kind="stable")
    for part in range(4):
        a, b = part * len(means) // 4, (part + 1) * len(means) // 4
        rows = by_brightness[a:b]
        out += [level(quantile(np.sort(x[rows]), q)) for x, q in ((total, 0.25), (total, 0.5), (energies[:, 0], 0.25), (energies[:, 2], 0.25))]
        out.append(means[rows].mean() / 64 - 2)
    out += [4 * flat, 4 * clipped, 4 * float((energies[:, 0] < 0.05).mean()), 4 * float((energies[:, 0] < 0.3).mean())]
    out += [1.0 if chroma else 0.0]
    return np.array(out, np.float64)


def true_levels(error):
    """Of noise [H, W] in levels: its deviation, and that in the finest diagonal band and in the second octave's three. What it adds to whole
    areas alike, as noise does that is cut off at black, is not seen and not counted."""
    error = error - cv2.blur(error.astype(np.float32), (33, 33))
    height, width = (n // 8 * 8 for n in error.shape)
    low, _, _, d1 = haar(error[None, :height, :width].astype(np.float64))
    _, h2, v2, d2 = haar(low)
    return [np.sqrt(np.mean(error.astype(np.float64) ** 2)), np.sqrt(np.mean(d1**2)), np.sqrt(np.mean([np.mean(b**2) for b in (h2, v2, d2)]))]


# The quantization of the JPEG standard's annex K, luma and chroma, row by row.
TABLES = [
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ],
    [*(17, 18, 24, 47), *4 * [99], *(18, 21, 26, 66), *4 * [99], *(24, 26, 56), *5 * [99], *(47, 66), *38 * [99]],
]  # fmt: skip


def planes(rgb):
    """Full-range Y [H, W], and Cb, Cr [H, W] around 128, of RGB in levels; BT.601."""
    r, g, b = np.moveaxis(rgb.astype(np.float32), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return [y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128]


def subsample(chroma, kind):
    """Box averages of a chroma plane for 4:2:0, 4:2:2 or 4:4:4."""
    if kind == "420":
        return (chroma[::2, ::2] + chroma[1::2, ::2] + chroma[::2, 1::2] + chroma[1::2, 1::2]) / 4
    return (chroma[:, ::2] + chroma[:, 1::2]) / 2 if kind == "422" else chroma


def quantized(plane, depth=8):
    step = 255 / (2**depth - 1)
    return np.clip(np.round(plane / step) * step, 0, 255).astype(np.float32)


def yuv(rgb, kind, depth=8):
    y, *chroma = planes(rgb)
    return [quantized(p, depth) for p in (y, *(subsample(c, kind) for c in chroma))]


def jpeg_planes(rgb, quality, kind):
    """The planes of a JPEG's decoder, before its chroma is enlarged: each through a gray JPEG with the tables that it would have."""
    from PIL import Image

    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = lambda base: [int(min(255, max(1, (v * scale + 50) // 100))) for v in base]
    out = []
    for i, plane in enumerate(yuv(rgb, kind)):
        file = io.BytesIO()
        Image.fromarray(plane.astype(np.uint8)).save(file, "JPEG", qtables=[table(TABLES[min(i, 1)])], subsampling=0)
        out.append(np.asarray(Image.open(file), np.float32))
    return out


def split(raw, size, kind):
    """Frames of planes of what ffmpeg writes as raw video."""
    height, width = size
    sizes = [(height, width)] + 2 * [(height // (2 if kind == "420" else 1), width // (1 if kind == "444" else 2))]
    frame = sum(h * w for h, w in sizes)
    frames = []
    for start in range(0, len(raw) // frame * frame, frame):
        parts = []
        for h, w in sizes:
            parts.append(raw[start : start + h * w].reshape(h, w).astype(np.float32))
            start += h * w
        frames.append(parts)
    return frames


def coded(frames, codec, crf, preset="veryfast"):
    """Frames of 4:2:0 planes through H.264 or H.265."""
    height, width = frames[0][0].shape
    raw = b"".join(p.astype(np.uint8).tobytes() for frame in frames for p in frame)
    quiet = ["-x265-params", "log-level=none"] if codec == "hevc" else ["-bf", "0"]
    encode = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", "25", "-i", "-", "-threads", "1", "-c:v"]
    encode += [{"h264": "libx264", "hevc": "libx265"}[codec], "-preset", preset, "-crf", str(crf), *quiet, "-f", codec, "-"]
    stream = subprocess.run(encode, input=raw, stdout=subprocess.PIPE, check=True).stdout
    decode = ["ffmpeg", "-v", "error", "-f", codec, "-i", "-", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    return split(np.frombuffer(subprocess.run(decode, input=stream, stdout=subprocess.PIPE, check=True).stdout, np.uint8), (height, width), "420")


def camera(rng, light=None):
    """A random camera: a function of an image in levels and whether there is noise."""
    from camera import ALIGNMENTS, color_matrix, demosaic, mosaic

    light = np.exp(rng.uniform(np.log(0.015), np.log(0.4))) if light is None else light
    gamma, to_srgb = rng.uniform(2.0, 2.4), color_matrix(rng)
    balance = np.float32([rng.uniform(1.2, 2.4), 1.0, rng.uniform(1.2, 2.4)])
    alignment = ALIGNMENTS[rng.integers(4)]
    shot_share, linear_demosaic, depth = rng.uniform(0.4, 1.0), rng.random() < 0.4, rng.choice([10, 12])
    smooth = rng.choice([0, 1, 2, 3], p=[0.5, 0.2, 0.15, 0.15])
    smooth_by, chroma_by, sharp_by, sharp_at = rng.uniform(0.4, 0.9), rng.uniform(0.6, 2.5), rng.uniform(0.2, 1.2), rng.uniform(0.7, 1.5)
    sharp = rng.random() < 0.6
    shrink = rng.choice([1.0, 0.75, 0.5], p=[0.75, 0.15, 0.1])
    black = rng.uniform(0, 0.03) if rng.random() < 0.3 else 0.0

    def take(image, noisy, rng):
        linear = np.power(np.clip(image / 255, 0, 1), gamma, dtype=np.float32) @ np.linalg.inv(to_srgb).T.astype(np.float32)
        raw = mosaic(np.clip(linear, 0, None) / balance, alignment)
        if noisy:
            variance = (0.18 * light) ** 2 * (shot_share * raw / 0.18 + 1 - shot_share) / balance.mean()
            raw = raw + np.sqrt(variance) * rng.standard_normal(raw.shape, dtype=np.float32)
        steps = 2**depth
        raw = np.clip(np.round(raw * steps) / steps, -0.05, 1) - black
        gains = np.ones_like(raw)
        gains[alignment[0] :: 2, alignment[1] :: 2] = balance[0]
        gains[1 - alignment[0] :: 2, 1 - alignment[1] :: 2] = balance[2]
        out = demosaic((raw * gains).astype(np.float32), alignment, "bilinear" if linear_demosaic else "malvar") @ to_srgb.T.astype(np.float32)
        out = np.power(np.clip(out, 0, 1), np.float32(1 / gamma))
        if smooth == 1:
            out = cv2.GaussianBlur(out, (0, 0), smooth_by)
        elif smooth == 2:  # chroma alone
            gray = out.mean(-1, keepdims=True)
            out = gray + cv2.GaussianBlur(out - gray, (0, 0), chroma_by)
        elif smooth == 3:
            out = cv2.bilateralFilter(out.astype(np.float32), 5, 0.3 * light + 0.02, 1.2)
        if sharp:
            out = out + sharp_by * (out - cv2.GaussianBlur(out, (0, 0), sharp_at))
        if shrink != 1:
            height, width = (int(n * shrink) // 16 * 16 for n in out.shape[:2])
            out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA if shrink < 0.7 else cv2.INTER_LINEAR)
        return np.clip(out, 0, 1) * 255

    return take


def screen(rng, photo):
    """A screenshot: windows, text, lines, icons, shading, at times a photograph."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = photo.shape[:2]
    color = lambda: tuple(int(v) for v in rng.integers(0, 256, 3))
    light = rng.random() < 0.6
    ground, ink = ((255, 255, 255), (0, 0, 0)) if light else ((30, 30, 34), (220, 220, 220))
    if rng.random() < 0.5:
        ground = tuple(int(v) for v in (rng.integers(225, 256, 3) if light else rng.integers(0, 60, 3)))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.3:
        draw.fontmode = "1"
    fonts = sorted(Path("/usr/share/fonts/truetype").rglob("*.ttf"))
    kind = rng.choice(["page", "windows", "lines", "shades"], p=[0.35, 0.35, 0.2, 0.1])
    words = "the noise of a picture is what differs from it when taken again and what does not is the scene 0123456789 {}();=+-*/ I O l".split()

    def text(box, size):
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), size)
        for y in range(box[1], box[3] - size, int(size * rng.uniform(1.2, 1.6))):
            line = " ".join(words[i] for i in rng.integers(0, len(words), 30))
            draw.text((box[0], y), line[: max(1, int((box[2] - box[0]) / size * 1.7 * rng.uniform(0.5, 1)))], font=font, fill=ink)

    if kind == "page":
        text((20, 10, width - 20, height), int(rng.integers(9, 28)))
    elif kind == "windows":
        for _ in range(rng.integers(3, 14)):
            x, y = int(rng.integers(0, width - 40)), int(rng.integers(0, height - 40))
            w, h = int(rng.integers(30, width // 2)), int(rng.integers(20, height // 2))
            draw.rectangle((x, y, x + w, y + h), fill=color() if rng.random() < 0.5 else ground, outline=color())
            if rng.random() < 0.7:
                text((x + 6, y + 4, x + w, y + h), int(rng.integers(8, 22)))
        if rng.random() < 0.4:
            part = photo[: height // 2, : width // 2]
            image.paste(Image.fromarray(part.astype(np.uint8)), (int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))))
    elif kind == "lines":
        for _ in range(rng.integers(10, 150)):
            points = [tuple(p) for p in (rng.random((rng.integers(2, 6), 2)) * (width, height)).tolist()]
            draw.line(points, fill=ink if rng.random() < 0.8 else color(), width=int(rng.integers(1, 4)))
        if rng.random() < 0.5:  # drawn large and made smaller: soft edges
            image = image.resize((2 * width, 2 * height), Image.NEAREST).resize((width, height), Image.LANCZOS)
        if rng.random() < 0.3:
            step = int(rng.integers(3, 9))
            for x in range(0, width // 2, step):
                ImageDraw.Draw(image).line((x, 0, x + height // 2, height // 2), fill=ink)
    else:
        ramp = np.linspace(0, 1, width)[None, :, None] * rng.random(3) * 255 + np.linspace(0, 1, height)[:, None, None] * rng.random(3) * 100
        image = Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8))
    return np.asarray(image, np.float32)


def crop(rng, photos, shot=None):
    """Part of a photograph, in levels, at some size, brightness and sharpness, its sides multiples of 16."""
    image = photos[rng.integers(len(photos))] if shot is None else photos[shot % len(photos)]
    largest = min(max(image.shape[:2]), int(np.exp(rng.uniform(np.log(256), np.log(1300)))))
    factor = max(image.shape[:2]) / max(largest, 256)
    shrink = min(factor, np.exp(rng.uniform(0, np.log(factor + 1e-9)))) if factor > 1 else 1
    if shrink > 1.05:
        image = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    height, width = (max(16, min(n, largest) // 16 * 16) for n in image.shape[:2])
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    out = image[top : top + height, left : left + width].astype(np.float32)
    if rng.random() < 0.5:
        out = out[:, ::-1]
    if rng.random() < 0.15:  # out of focus
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.7, 4))
    if rng.random() < 0.2:  # low light
        out = out * rng.uniform(0.1, 0.6)
    elif rng.random() < 0.1:
        out = (out - 128) * rng.uniform(0.3, 0.9) + rng.uniform(90, 165)
    return np.clip(out, 0, 255).copy()


KINDS = {
    "white yuv": 0.15, "white rgb": 0.08, "white jpeg": 0.1, "white video": 0.07, "camera yuv": 0.06, "camera rgb": 0.05, "camera jpeg": 0.16,
    "camera video": 0.1, "scaled": 0.04, "clean": 0.08, "clean jpeg": 0.08, "clean video": 0.03, "screen": 0.1,
}  # fmt: skip


def simulate(seed, photos, kind=None, strength=None, shot=None):
    """A random image: a list of (its planes, those without noise, whether each is chroma), its kind, and 1 where clean, 0 where not, else NaN."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values())) if kind is None else kind
    source, way = kind.split()[0], kind.split()[-1]
    image = crop(rng, photos, shot)
    sampling = rng.choice(["420", "422", "444"], p=[0.75, 0.15, 0.1])
    depth = 10 if rng.random() < 0.1 else 8
    sigma = np.exp(rng.uniform(np.log(2), np.log(50))) if strength is None else strength
    label = 0.0
    if way == "video":
        sampling, image = "420", image[:480, :640]
        still = rng.random() < 0.5
        take = camera(rng, strength)
        frames, truths = [], []
        count = rng.integers(2, 6)
        for i in range(count):
            shifted = image if still else np.roll(image, -2 * i, 1)
            if source == "white":
                noisy, clean = np.clip(shifted + sigma * rng.standard_normal(shifted.shape, dtype=np.float32), 0, 255), shifted
            elif source == "camera":
                noisy, clean = take(shifted, True, rng), take(shifted, False, rng)
            else:
                noisy = clean = shifted
            noisy = noisy[: noisy.shape[0] // 16 * 16, : noisy.shape[1] // 16 * 16]
            frames.append(yuv(noisy, "420"))
            truths.append([p for p in planes(clean[: noisy.shape[0], : noisy.shape[1]])])
        crf = int(rng.integers(18, 31))
        if source == "clean":
            label = np.nan
        decoded = coded(frames, "h264" if rng.random() < 0.7 else "hevc", crf, rng.choice(["ultrafast", "veryfast", "medium"]))
        which = rng.integers(count)
        noisy, truth = decoded[which], [truths[which][0]] + [subsample(c, "420") for c in truths[which][1:]]
        return [(n, t, i > 0) for i, (n, t) in enumerate(zip(noisy, truth))], kind, label
    if source in ("clean", "screen"):
        if source == "screen":
            image = screen(rng, image)
        noisy = image
        label = 1.0
        if source == "screen":
            way = rng.choice(["rgb", "yuv", "jpeg"], p=[0.5, 0.2, 0.3])
        elif way == "clean":
            way = rng.choice(["rgb", "yuv"])
    elif source == "camera":
        take = camera(rng, strength)
        noisy, image = take(image, True, rng), take(image, False, rng)
    else:
        if source == "scaled":
            way = rng.choice(["rgb", "yuv", "jpeg"])
        noisy = np.clip(image + sigma * rng.standard_normal(image.shape, dtype=np.float32), 0, 255)
        if source == "scaled":
            by = rng.choice([0.5, 0.67, 0.8, 1.25, 1.5, 2.0])
            size = tuple(int(n * by) // 16 * 16 for n in image.shape[1::-1])
            how = rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA])
            noisy, image = (np.clip(cv2.resize(p, size, interpolation=int(how)), 0, 255) for p in (noisy, image))
    if way == "rgb":
        noisy = quantized(noisy, depth)
        return [(noisy[..., c], image[..., c], False) for c in range(3)], kind, label
    truth = planes(image)
    truth = truth[:1] + [subsample(c, sampling) for c in truth[1:]]
    if way == "jpeg":
        quality = rng.uniform(50, 96) if source != "clean" else rng.uniform(60, 100)
        if source in ("clean", "screen"):
            label = 1.0 if quality >= 89 else np.nan
        noisy = jpeg_planes(noisy, quality, sampling)
    else:
        noisy = yuv(noisy, sampling, depth)
    return [(n, t, i > 0) for i, (n, t) in enumerate(zip(noisy, truth))], kind, label


PHOTOS = []


def job(seed):
    rows = []
    try:
        parts, kind, label = simulate(seed, PHOTOS)
    except Exception as problem:  # a crop too small for an encoder
        return [(None, None, None, str(problem), "")]
    for noisy, clean, chroma in parts:
        found = features(noisy, chroma)
        if found is not None:
            rows.append((found, true_levels(noisy - clean), label, seed, kind))
    return rows


STILL_AT = 14  # among the numbers of a pair: four times the share of textured blocks that hold still
PAIR = 18  # numbers that a pair of frames gives
STILL = 0.12  # of the variance of a block's difference that motion along its gradient may explain


def pair_blocks(before, after, most=MOST_PAIRS):
    """Of the usable blocks of two frames' plane, in levels: mean, texture, half the variance of the difference and that in its finest
    diagonal band and second octave, what part of it motion explains, and the mean difference; and the share of repeated blocks, or None."""
    height, width = after.shape
    at = np.array(grid(height, width, most)).reshape(-1, 2)
    if len(at) == 0:
        return None
    rows, columns = at[:, 0, None, None] + np.arange(8)[:, None], at[:, 1, None, None] + np.arange(8)
    a, b = before[rows, columns].astype(np.float64), after[rows, columns].astype(np.float64)
    clipped = ((np.minimum(a, b) <= 0) | (np.maximum(a, b) >= 255)).sum((1, 2)) > MOST_CLIPPED
    repeated = (np.abs(b - a).max((1, 2)) < FLAT) & ~clipped
    a, b = a[~(clipped | repeated)], b[~(clipped | repeated)]
    seen = max(1, int((~clipped).sum()))
    mean, difference = (a + b) / 2, b - a
    offset = difference.mean((1, 2))
    variance = difference.var((1, 2), ddof=1) / 2
    low, h1, v1, d1 = haar(difference)
    _, h2, v2, d2 = haar(low)
    second = ((d2**2).mean((1, 2)) + spread(h2) + spread(v2)) / 6
    across, down = mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2], mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1]
    inner = difference[:, 1:-1, 1:-1]
    across, down, inner = (x - x.mean((1, 2), keepdims=True) for x in (across, down, inner))
    dot = lambda x, y: (x * y).sum((1, 2))
    xx, yy, xy, xd, yd = dot(across, across), dot(down, down), dot(across, down), dot(across, inner), dot(down, inner)
    explained = (yy * xd**2 - 2 * xy * xd * yd + xx * yd**2) / ((xx * yy - xy**2 + 1e-3) * (dot(inner, inner) + 1e-3))
    return (mean.mean((1, 2)), mean.var((1, 2), ddof=1), variance, (d1**2).mean((1, 2)) / 2, second, explained, offset), repeated.sum() / seen


def pair_features(before, after, most=MOST_PAIRS):
    """The features of two frames' planes for the regression of streams, or None if too few blocks are usable."""
    found = pair_blocks(before, after, most)
    if found is None or len(found[0][0]) < FEWEST_BLOCKS:
        return None
    (mean, texture, variance, fine, second, explained, offset), repeated = found
    at = lambda x, q: level(quantile(np.sort(x), q))
    out = [at(variance, q) for q in (0.05, 0.1, 0.25, 0.5, 0.75)]
    out += [at(fine, 0.25), at(fine, 0.5), at(second, 0.25), at(second, 0.5)]
    by_brightness = np.argsort(mean, kind="stable")
    parts = [by_brightness[i * len(mean) // 4 : (i + 1) * len(mean) // 4] for i in range(4)]
    out.append(level(np.mean([quantile(np.sort(variance[part]), 0.5) for part in parts])))
    out.append(level(variance[variance <= 4 * quantile(np.sort(variance), 0.5)].mean()))
    by_texture = np.argsort(texture, kind="stable")
    for half in (by_texture[: len(mean) // 2], by_texture[len(mean) // 2 :]):
        out += [at(variance[half], 0.5), 4 * (explained[half] < STILL).mean()]
    out += [4 * repeated, 4 * (variance < 0.1).mean(), level(quantile(np.sort(offset**2), 0.5))]
    return np.array(out)


MOTIONS = {"still": 0.35, "object": 0.2, "pan": 0.2, "shake": 0.15, "flicker": 0.1}


def movie(rng, image, motion, count):
    """Frames of an image in levels that stands still, moves, shakes or flickers, or in front of which something moves."""
    height, width = (min(most, n) // 16 * 16 for most, n in zip((480, 640), image.shape))
    speed, angle = np.exp(rng.uniform(np.log(0.2), np.log(8))), rng.uniform(0, 2 * np.pi)
    tall, wide = int(height * rng.uniform(0.1, 0.6)), int(width * rng.uniform(0.1, 0.6))
    thing, frames = image[::-1, ::-1][:tall, :wide], []
    for i in range(count):
        dx, dy = {"pan": (speed * i * np.cos(angle), speed * i * np.sin(angle)), "shake": rng.normal(0, 0.7, 2)}.get(motion, (0, 0))
        frame = cv2.warpAffine(image, np.float32([[1, 0, -dx], [0, 1, -dy]]), image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        frame = frame[:height, :width].copy()
        if motion == "object":
            left = int(30 + 3 * speed * i) % max(1, width - wide)
            frame[height // 4 : height // 4 + thing.shape[0], left : left + thing.shape[1]][:] = thing[: frame.shape[0] - height // 4]
        frames.append(np.clip(frame * (rng.uniform(0.96, 1.04) if motion == "flicker" else 1), 0, 255))
    return frames


def clip(seed, photos, kind=None, motion=None, strength=None, crf=None, count=None):
    """A random clip: (planes of each frame, those of its last frame without noise, sampling), its kind and its motion."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["white yuv", "white jpeg", "white video", "camera yuv", "camera jpeg", "camera video", "clean yuv", "clean video"], p=[0.14, 0.08, 0.15, 0.13, 0.18, 0.22, 0.05, 0.05]) if kind is None else kind
    motion = rng.choice(list(MOTIONS), p=list(MOTIONS.values())) if motion is None else motion
    source, way = kind.split()
    image = crop(rng, photos)
    sigma = np.exp(rng.uniform(np.log(2), np.log(50))) if strength is None else strength
    take, quality = camera(rng, strength), rng.uniform(50, 96)
    sampling = "420" if way == "video" else rng.choice(["420", "422"])
    frames = []
    for clean in movie(rng, image, motion, rng.integers(2, 7) if count is None else count):
        noisy = clean
        if source == "white":
            noisy = np.clip(clean + sigma * rng.standard_normal(clean.shape, dtype=np.float32), 0, 255)
        elif source == "camera":
            noisy, clean = take(clean, True, rng), take(clean, False, rng)
        noisy, clean = (x[: x.shape[0] // 16 * 16, : x.shape[1] // 16 * 16] for x in (noisy, clean))
        frames.append(jpeg_planes(noisy, quality, sampling) if way == "jpeg" else yuv(noisy, sampling))
    if way == "video":
        crf = rng.integers(18, 31) if crf is None else crf
        frames = coded(frames, "h264" if rng.random() < 0.7 else "hevc", int(crf), rng.choice(["ultrafast", "veryfast", "medium"]))
    truth = planes(clean)
    return frames, truth[:1] + [subsample(c, sampling) for c in truth[1:]], kind, motion


def clip_job(seed):
    rows = []
    try:
        frames, truth, kind, motion = clip(seed, PHOTOS)
    except Exception as problem:  # a crop too small for an encoder
        return [(None, None, None, str(problem), None)]
    for i, clean in enumerate(truth):
        own = features(frames[-1][i], i > 0)
        pairs = [found for a, b in zip(frames, frames[1:]) if (found := pair_features(a[i], b[i])) is not None]
        if own is not None and pairs:
            rows.append((np.concatenate([own, np.mean(pairs, 0)]), true_levels(frames[-1][i] - clean), np.nan, seed, kind, motion))
    return rows


def gather(photos, count, seed, out, workers, work):
    from multiprocessing import Pool

    cv2.setNumThreads(1)
    PHOTOS.extend(cv2.imread(str(path))[..., ::-1] for path in photos)
    with Pool(workers) as pool:
        found = [row for rows in pool.imap_unordered(work, range(seed * 10**6, seed * 10**6 + count), 8) for row in rows]
    bad = [row[3] for row in found if row[0] is None]
    found = [row for row in found if row[0] is not None]
    print(len(found), "planes;", len(bad), "failed:", bad[:2])
    np.savez_compressed(out, features=np.float32([r[0] for r in found]), truth=np.float32([r[1] for r in found]), label=np.float32([r[2] for r in found]), seed=np.int64([r[3] for r in found]), kind=np.array([" ".join(r[4:]) for r in found]))


HIDDEN, HIDDEN_STREAM = (24, 16), (16,)
DECIMALS = 4


def load(paths):
    parts = [np.load(path) for path in paths]
    return [np.concatenate([part[name] for part in parts]) for name in ("features", "truth", "label", "kind")]


def targets(truth, label):
    """log2 of the three deviations, and 1 where clean, 0 where noisy, NaN where it is neither."""
    label = np.where((label == 0) & (truth[:, 0] < 2), np.nan, label)
    return np.concatenate([np.log2(np.hypot(truth, TARGET_FLOOR)), label[:, None]], 1).astype(np.float32)


def run(layers, x):
    """The network: affine layers with max(x, 0) between them."""
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if i + 1 < len(layers):
            x = np.maximum(x, 0)
    return x


def fit(x, y, hidden, steps, seed=0, blur=0.03, odds=None):
    """A network for targets whose last column is 1 where there is no noise, 0 where there is, and NaN where that is open, with the weight `odds`."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    y = torch.from_numpy(y.astype(np.float32))
    odds = torch.from_numpy(np.ones(len(x), np.float32) if odds is None else odds.astype(np.float32))
    mean, deviation = x.mean(0), x.std(0) + 1e-2
    x = torch.from_numpy(((x - mean) / deviation).astype(np.float32))
    sizes = (x.shape[1], *hidden, y.shape[1])
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    net = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())][:-1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, steps)
    for step in range(steps):
        pick = torch.randint(len(x), (512,))
        out, want = net(x[pick] + blur * torch.randn(len(pick), x.shape[1])), y[pick]
        known = ~want[:, -1].isnan()
        loss = torch.nn.functional.huber_loss(out[:, :-1], want[:, :-1], delta=0.3)
        loss = loss + 0.05 * torch.nn.functional.binary_cross_entropy_with_logits(out[known, -1], want[known, -1], odds[pick][known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    found = [(layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy().astype(np.float64)) for layer in layers]
    weight, bias = found[0]
    found[0] = (weight / deviation, bias - weight @ (mean / deviation))
    return [(np.round(w, DECIMALS), np.round(b, DECIMALS)) for w, b in found]


def stream_input(layers, x):
    """The inputs of the regression for streams, from rows with an image's features and then a pair's."""
    own, pair = x[:, :-PAIR], x[:, -PAIR:]
    said = run(layers, own)
    return np.concatenate([pair, said[:, :3], said[:, 3:] / 4, own[:, -1:]], 1), said


def fit_both(images, clips, steps):
    x, truth, label, kind = load(images)
    odds = np.where((label == 1) & (kind == "clean jpeg"), 4, np.where(kind == "clean", 3, 1))
    image = fit(x, targets(truth, label), HIDDEN, steps, odds=odds)
    x, truth, label, kind = load(clips)
    x, said = stream_input(image, x)
    want = targets(truth, stream_label(kind, truth))
    y = np.stack([want[:, 0] - said[:, 0], want[:, 3]], 1)
    again = np.repeat(np.arange(len(x)), np.where(np.char.startswith(kind, "clean yuv"), 5, 1))
    # Textures that single frames are more deceived by than photographs': where nothing is coded over time, differences know better.
    still = [k for k in np.unique(kind) if "video" not in k and "clean" not in k and k.split()[-1] in ("still", "object", "flicker")]
    rows = np.repeat(np.flatnonzero(np.isin(kind, still)), 2)
    more = np.random.default_rng(0).uniform(0, 1.6, len(rows))
    deceived, change = x[rows], y[rows]
    deceived[:, PAIR : PAIR + 3] += more[:, None]
    change[:, 0] -= more
    return image, fit(np.concatenate([x[again], deceived]), np.concatenate([y[again], change]), HIDDEN_STREAM, steps)


MOVES, HOLDS = 0.3, 0.6  # of the blocks with most texture hold still: below, all is moving; above, differences are trusted


def run_stream(layers, image, x):
    """log2 of the deviation and the log odds of no noise, of rows with an image's features and a pair's. Where all is moving, differences
    may lower a deviation but not raise it."""
    x, said = stream_input(image, x)
    out = run(layers, x)
    trust = np.clip((x[:, STILL_AT] / 4 - MOVES) / (HOLDS - MOVES), 0, 1)
    change = np.where(out[:, 0] > 0, trust * out[:, 0], out[:, 0])
    return said[:, 0] + change, said[:, 3] + trust * (out[:, 1] - said[:, 3]), said


def stream_label(kind, truth):
    source = np.char.startswith(kind, "clean")
    return np.where(source, np.where(np.char.startswith(kind, "clean yuv"), 1.0, np.nan), 0.0)


def table(name, error, want, clean, groups):
    """Errors in log2 by kind: the median of the ratio to the truth, its 5 and 95 % points, how often it is beyond 1.25 and 1.5 times."""
    print(f"{name:24} {'n':>5} {'median':>7} {'5 %':>6} {'95 %':>6} {'>1.25x':>7} {'>1.5x':>6} {'clean':>6}")
    for group in sorted(set(groups)):
        rows = groups == group
        ratio = 2 ** np.percentile(error[rows], (50, 5, 95))
        beyond = [100 * np.mean(np.abs(error[rows]) > np.log2(limit)) for limit in (1.25, 1.5)]
        print(f"{group:24} {rows.sum():5} {ratio[0]:7.2f} {ratio[1]:6.2f} {ratio[2]:6.2f} {beyond[0]:6.0f}% {beyond[1]:5.0f}% {100 * clean[rows].mean():5.0f}%")


def report(image, stream, images, clips):
    role = lambda x: np.where(x > 0, "chroma", "luma")
    join = lambda a, b: np.char.add(np.char.add(a, " "), b)
    x, truth, label, kind = load(images)
    out, want = run(image, x), targets(truth, label)
    table("images", out[:, 0] - want[:, 0], want, out[:, 3] > 0, join(kind, role(x[:, -1])))
    x, truth, label, kind = load(clips)
    sigma, clean, said = run_stream(stream, image, x)
    want, groups = targets(truth, label), join(kind, role(x[:, -PAIR - 1]))
    table("clips, one frame", said[:, 0] - want[:, 0], want, said[:, 3] > 0, groups)
    table("clips", sigma - want[:, 0], want, clean > 0, groups)


def store(path, image, stream):
    both = {"image": image, "stream": stream}
    np.savez(path, **{f"{name}_{part}{i}": value for name, layers in both.items() for i, pair in enumerate(layers) for part, value in zip(("weight", "bias"), pair)})


def restore(path):
    data = np.load(path)
    return [[(data[f"{name}_weight{i}"], data[f"{name}_bias{i}"]) for i in range(depth)] for name, depth in (("image", 3), ("stream", 2))]


def rust(image, stream):
    """The weights as Rust's source."""
    row = lambda values: "[" + ", ".join(f"{value:.{DECIMALS}f}".rstrip("0").replace("-0.,", "0.,") + ("0" if f"{value:.{DECIMALS}f}".rstrip("0").endswith(".") else "") for value in values) + "]"
    print("//! The weights of the regressions, written by `models/train/noise_estimate.py rust`.\n")
    for name, layers in (("image", image), ("stream", stream)):
        print(f"pub(super) mod {name} {{\n    use crate::task::plane_noise::regression::Layer;\n")
        for label, (weight, bias) in zip(("FIRST", "OUT") if len(layers) == 2 else ("FIRST", "SECOND", "OUT"), layers):
            outs, ins = weight.shape
            print(f"    pub(in crate::task::plane_noise) static {label}: Layer<{ins}, {outs}> = Layer {{ weight: [")
            print(",\n".join(row(line) for line in weight))
            print(f"], bias: {row(bias)} }};\n")
        print("}\n")


def example(number):
    """A small plane in levels that Rust makes alike: shading, an edge, stripes and noise of a linear congruential generator."""
    width, height, sigma, seed = [(96, 80, 6.0, 1), (64, 64, 0.0, 2), (120, 72, 20.0, 3)][number]
    state, noise = np.uint64(seed), np.zeros(width * height)
    for i in range(width * height):
        total = 0
        for _ in range(4):
            state = np.uint64((int(state) * 6364136223846793005 + 1442695040888963407) % 2**64)
            total += int(state) >> 40
        noise[i] = total / 2**24 - 2  # the sum of four uniform numbers: variance 1/3
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    scene = 60 + 0.5 * x + 0.25 * y + 40 * (x > 50) + 6 * ((y // 3 + x) % 5 == 0) * (y > 40)
    return (scene + sigma * np.sqrt(3) * noise.reshape(height, width)).astype(np.float32)


def golden(image, stream):
    found = []
    for number in range(3):
        plane = example(number)
        own = features(plane, number == 2)
        pair = pair_features(plane, np.roll(plane, 16, 1) if number else plane[::-1])
        sigma, clean, said = run_stream(stream, image, np.concatenate([own, pair])[None])
        rounded = lambda values: [round(float(v), 4) for v in values]
        found.append({"features": rounded(own), "said": rounded(said[0]), "pair": rounded(pair), "stream": rounded([sigma[0], clean[0]])})
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("simulate")
    one.add_argument("--photos", type=Path, required=True)
    one.add_argument("--count", type=int, default=4000)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--clips", action="store_true")
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--out", type=Path, required=True)
    one = commands.add_parser("fit")
    for name in ("images", "clips", "check-images", "check-clips"):
        one.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    one.add_argument("--steps", type=int, default=8000)
    one.add_argument("--out", type=Path, required=True)
    for name in ("rust", "golden"):
        commands.add_parser(name).add_argument("weights", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "simulate":
        gather(sorted(arguments.photos.iterdir()), arguments.count, arguments.seed, arguments.out, arguments.workers, clip_job if arguments.clips else job)
    elif arguments.command == "fit":
        both = fit_both(arguments.images, arguments.clips, arguments.steps)
        report(*both, arguments.check_images, arguments.check_clips)
        store(arguments.out, *both)
    else:
        {"rust": rust, "golden": golden}[arguments.command](*restore(arguments.weights))


if __name__ == "__main__":
    main()
