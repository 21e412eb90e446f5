"""Synthesizes training images: occluding, textured, shaded shapes (the dead-leaves model) seen by a simple camera.

No photograph is read anywhere. An image depends on (seed, shard, index) alone, never on the number of workers.

    python images.py --out out/pool --count 1536 --workers 2
    python images.py --out out/pool --sheet out/sheet.png       # look at them, and print the power spectrum's slope

A shard is one .npy file, uint8, [images, size, size, 3], RGB as a camera would store it (gamma-encoded).
"""

import argparse
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np

import textures

IMAGES_PER_SHARD = 64
BANK_SIZE = 26  # textures shared by the images of one shard


def radii(rng, count, smallest, largest):
    """Radii whose density falls as r^-3 between two bounds: the law that makes dead leaves scale invariant."""
    u = rng.random(count)
    return 1.0 / np.sqrt(1.0 / smallest**2 - u * (1.0 / smallest**2 - 1.0 / largest**2))


def palette(rng):
    """An image's colors in linear light: brightness varies most, chroma little, and hues gather around a few."""
    count = int(rng.integers(3, 12))
    brightness = np.exp(rng.normal(-1.5, rng.uniform(0.7, 1.5), (count, 1)))
    cast = rng.normal(0, 0.12, (1, 2))
    spread = rng.choice([0.06, 0.2, 0.4, 0.7], p=[0.15, 0.3, 0.35, 0.2])
    warm_cool, green_magenta = (cast + rng.normal(0, 1, (count, 2)) * [spread, spread * 0.5]).T
    gains = np.stack([warm_cool - green_magenta / 2, green_magenta, -warm_cool - green_magenta / 2], 1)
    vivid = rng.random((count, 1)) < 0.2
    gains = np.where(vivid, rng.normal(0, 0.9, (count, 3)), gains)
    return np.clip(brightness * np.exp(gains), 0.002, 1.3).astype(np.float32)


def pick_color(rng, colors):
    """One of the palette's colors, slightly varied."""
    base = colors[rng.integers(len(colors))]
    return base * np.exp(rng.normal(0, 0.18) + rng.normal(0, 0.04, 3)).astype(np.float32)


def outline(rng, radius, kind):
    """Vertices of one shape around the origin, float, [points, 2]."""
    turn = rng.uniform(0, 2 * np.pi)
    flat = np.exp(-abs(rng.normal(0, 0.6)))
    if kind == "disc":
        flat = 1.0
    if kind in ("disc", "ellipse"):
        a = np.linspace(0, 2 * np.pi, int(np.clip(radius * 1.5, 10, 64)), endpoint=False)
        points = np.stack([np.cos(a), np.sin(a) * flat], 1)
    elif kind == "rectangle":
        points = np.array([[-1, -flat], [1, -flat], [1, flat], [-1, flat]])
        turn = turn if rng.random() < 0.6 else rng.normal(0, 0.05)
    elif kind == "polygon":
        a = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        points = np.stack([np.cos(a), np.sin(a)], 1) * rng.uniform(0.5, 1.1, (len(a), 1))
    elif kind == "leaf":
        a = np.linspace(0, np.pi, 14)
        width = rng.uniform(0.15, 0.5)
        points = np.concatenate([np.stack([np.cos(a), np.sin(a) ** 2 * width], 1), np.stack([-np.cos(a), -np.sin(a) ** 2 * width], 1)])
    else:  # a blob: a circle whose radius wavers smoothly
        a = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        waver = sum(rng.normal(0, 0.3 / k) * np.cos(k * a + rng.uniform(0, 6.3)) for k in range(2, 8))
        points = np.stack([np.cos(a), np.sin(a) * flat], 1) * np.exp(waver)[:, None]
    c, s = np.cos(turn), np.sin(turn)
    return points @ np.array([[c, s], [-s, c]]) * radius


def surface(rng, colors, bank, height, width):
    """Color of a shape's surface, linear light, [height, width, 3]: base color, texture, shading."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = pick_color(rng, colors)
    kind = rng.random()
    if kind < 0.75:
        texture = textures.crop(rng, bank, height, width)
        if kind < 0.5:  # relief: the texture scales the light that comes back, alike in all channels
            image *= np.exp(texture * np.exp(rng.uniform(np.log(0.02), np.log(0.7))))[..., None]
        else:  # two materials mixed by the texture
            other = pick_color(rng, colors)
            if rng.random() < 0.5:
                other = image[0, 0] * np.float32(np.exp(rng.normal(0, 0.8)))
            blend = 1 / (1 + np.exp(-np.clip(texture * np.exp(rng.uniform(-0.5, 3)) + rng.normal(0, 1), -30, 30)))
            image += blend[..., None].astype(np.float32) * (other - image[0, 0])
        if rng.random() < 0.3:
            image *= np.exp(textures.crop(rng, bank, height, width) * rng.uniform(0.02, 0.2))[..., None]
    if rng.random() < 0.75:
        image *= shading(rng, height, width)[..., None]
    return image


def plane(rng, colors, bank, size):
    """A floor, a wall or a facade seen at a slant, [size, size, 3]: a surface whose corners move, so that its texture runs away
    to a vanishing point."""
    flat = surface(rng, colors, bank, size, size)
    if rng.random() < 0.5:  # bricks, tiles, windows: a grid of joints
        step = np.exp(rng.uniform(np.log(size / 40), np.log(size / 5), 2))
        joint = np.maximum(1, step * rng.uniform(0.02, 0.3, 2))
        ink = pick_color(rng, colors)
        for axis in range(2):
            lines = (np.arange(size) + rng.uniform(0, step[axis])) % step[axis] < joint[axis]
            flat[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = ink
    corners = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    seen = (corners - 0.5) * rng.uniform(1.0, 2.5) + 0.5 + rng.normal(0, rng.choice([0.03, 0.25]), (4, 2))
    slant = cv2.getPerspectiveTransform(corners * size, np.float32(seen * size))
    return cv2.warpPerspective(flat, slant, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def shading(rng, height, width):
    """Light falling on a shape: a ramp, or a ball with a highlight."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    a = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(a) * x + np.sin(a) * y
    if rng.random() < 0.6:
        return np.exp(ramp * rng.normal(0, 0.45)).astype(np.float32)
    z = np.sqrt(np.clip(1.1 - x * x - y * y, 0.02, None))
    facing = np.clip(0.75 * z + 0.6 * ramp, 0, None)
    light = 0.25 + facing + rng.choice([0, 1.5]) * facing ** rng.uniform(8, 40)
    return light.astype(np.float32)


def place(rng, canvas, points, colors, bank, edge):
    """Paints one shape over the canvas. `edge` is the standard deviation of its outline's blur, in pixels."""
    size = canvas.shape[0]
    margin = int(3 * edge) + 2
    low = np.clip(np.floor(points.min(0)).astype(int) - margin, 0, size)
    high = np.clip(np.ceil(points.max(0)).astype(int) + margin, 0, size)
    width, height = high - low
    if width < 2 or height < 2:
        return
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round((points - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    weight = mask.astype(np.float32) / 255
    if edge > 0.3:
        weight = cv2.GaussianBlur(weight, (0, 0), edge)
    region = canvas[low[1] : high[1], low[0] : high[0]]
    if max(width, height) < 14:
        paint = pick_color(rng, colors) * np.exp(rng.normal(0, 0.2)).astype(np.float32)
    else:
        paint = surface(rng, colors, bank, height, width)
    if rng.random() < 0.15 and max(width, height) > 30:  # the shadow it throws on what lies below
        soft = cv2.GaussianBlur(weight, (0, 0), rng.uniform(2, 10))
        shift = np.float32([[1, 0, rng.normal(0, 6)], [0, 1, rng.normal(0, 6)]])
        region *= 1 - rng.uniform(0.2, 0.6) * cv2.warpAffine(soft, shift, (int(width), int(height)))[..., None]
    region += weight[..., None] * (paint - region)


def strokes(rng, canvas, colors):
    """Wires, branches, hair, grass, writing: thin things drawn over a part of the canvas."""
    size = canvas.shape[0]
    kind = rng.choice(["wires", "hair", "writing", "grass"])
    color = pick_color(rng, colors)
    center = rng.uniform(0, size, 2)
    if kind == "writing":
        textures.writing(rng, canvas, color, center)
        return
    count = int({"wires": rng.integers(1, 8), "hair": rng.integers(60, 400), "grass": rng.integers(60, 300)}[kind])
    length = {"wires": 1.5 * size, "hair": rng.uniform(0.1, 0.5) * size, "grass": rng.uniform(0.03, 0.2) * size}[kind]
    heading, spread = rng.uniform(0, 2 * np.pi), {"wires": 3.0, "hair": 0.12, "grass": 0.5}[kind]
    patch = rng.uniform(0.05, 0.3) * size
    t = np.linspace(-0.5, 0.5, 12)
    for _ in range(count):
        a = heading + rng.normal(0, spread)
        bend = rng.normal(0, 0.25)
        start = center + rng.normal(0, patch, 2)
        x = start[0] + length * (t * np.cos(a) - bend * t * t * np.sin(a))
        y = start[1] + length * (t * np.sin(a) + bend * t * t * np.cos(a))
        shade = color * np.exp(rng.normal(0, 0.35))
        thickness = int(rng.integers(1, 5 if kind == "wires" else 4))
        points = np.round(np.stack([x, y], 1) * 16).astype(np.int32)
        cv2.polylines(canvas, [points], False, [float(v) for v in shade], thickness, cv2.LINE_AA, 4)


def scene(rng, bank, size):
    """A scene in linear light, float32, [size, size, 3], painted from back to front."""
    colors = palette(rng)
    canvas = plane(rng, colors, bank, size) if rng.random() < 0.35 else surface(rng, colors, bank, size, size)
    kinds = ["disc", "ellipse", "rectangle", "polygon", "leaf", "blob"]
    weights = rng.dirichlet(np.full(len(kinds), 0.7))
    near = rng.random() < 0.35  # a close view: few, large things
    largest = size * (rng.uniform(0.4, 0.9) if near else rng.uniform(0.15, 0.6))
    smallest = np.exp(rng.uniform(np.log(30), np.log(150)) if near else rng.uniform(np.log(3), np.log(40)))
    cover = rng.uniform(0.7, 3.0)  # total area of the shapes, in canvases
    mean_area = 2 * np.pi * np.log(largest / smallest) / (1 / smallest**2 - 1 / largest**2)
    count = int(np.clip(cover * size * size / mean_area, 4, 700))
    sizes = radii(rng, count, smallest, largest)
    if rng.random() < 0.6:
        sizes = np.sort(sizes)[::-1] * np.exp(rng.normal(0, 0.5, count))  # large things behind small ones
    focus = rng.uniform(0, 1)
    empty = rng.random() < 0.12  # a wide wall or a sky with little before it
    if empty:
        sizes = sizes[: max(2, count // 12)]
        count = len(sizes)
    aperture = rng.choice([0.0, 2.0, 6.0], p=[0.6, 0.25, 0.15])
    layers = int(rng.integers(1, 4))
    for i, radius in enumerate(sizes):
        depth = i / count
        points = outline(rng, radius, rng.choice(kinds, p=weights)) + rng.uniform(-0.1, 1.1, 2) * size
        place(rng, canvas, points, colors, bank, aperture * abs(depth - focus) + rng.choice([0.0, 0.0, 0.8]))
        if rng.random() < 2.0 / count:
            strokes(rng, canvas, colors)
        if aperture and depth < focus and i % max(1, count // layers) == 0:  # what lies behind the focus is blurred
            canvas = cv2.GaussianBlur(canvas, (0, 0), 0.3 + aperture * (focus - depth))
    y, x = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    lamp = rng.normal(0, 0.35, 3)
    return canvas * np.exp(lamp[0] * x + lamp[1] * y - abs(lamp[2]) * (x * x + y * y)).astype(np.float32)[..., None]


def lens(rng, canvas):
    """Blur: now and then an imperfect lens, seldom something far out of focus."""
    kind = rng.random()
    if kind < 0.25:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 2.5) if kind < 0.2 else rng.uniform(3, 12))
    return canvas


def sharpen(rng, image):
    """The sharpening that most cameras and downscalers add."""
    if rng.random() < 0.7:
        image += rng.uniform(0.3, 1.6) * (image - cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.9)))
    return image


def photograph(rng, canvas, size):
    """What a camera makes of a scene: lens blur, pixels that average an area, exposure, tone curve, 8 bits."""
    canvas = lens(rng, canvas)
    image = cv2.resize(np.ascontiguousarray(canvas), (size, size), interpolation=cv2.INTER_AREA)
    image *= rng.uniform(0.75, 1.25) * 0.18 / np.exp(np.log(image + 1e-3).mean()) * np.exp(rng.normal(0, 0.35))
    image = 1.1 * image / (image + 0.1 + 0.9 * rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else image
    image = np.clip(image, 0, 1) ** (1 / rng.uniform(1.8, 2.6))
    middle = image.mean()
    image = middle + (image - middle) * rng.uniform(1.0, 1.6)
    image = sharpen(rng, image)
    low, high = rng.choice([0, 0.03], 1)[0], rng.uniform(0.85, 1.0)
    image = low + image * (high - low)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def image(rng, bank, size):
    """One training image, uint8, [size, size, 3]."""
    scale = rng.choice([2.0, 2.5, 3.0], p=[0.6, 0.2, 0.2])
    return photograph(rng, scene(rng, bank, int(size * scale)), size)


def write_shard(job):
    """Writes one shard whole: to a temporary name, then renamed."""
    out, seed, shard, count, size = job
    target = Path(out) / f"pool-{seed}-{shard:04d}.npy"
    if target.exists():
        return target.name
    cv2.setNumThreads(1)
    bank = textures.bank(np.random.default_rng([seed, shard]), BANK_SIZE)
    shots = [image(np.random.default_rng([seed, shard, i]), bank, size) for i in range(count)]
    part = target.with_suffix(".part")
    with open(part, "wb") as file:
        np.save(file, np.stack(shots))
    os.replace(part, target)
    return target.name


def spectrum_slope(pool):
    """Exponent of the mean radial power spectrum of luma, between 1/64 and 1/4 cycle a pixel. Photographs: about -2."""
    gray = pool.astype(np.float32).mean(-1) / 255
    size = gray.shape[1]
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.mean([np.abs(np.fft.fft2((g - g.mean()) * window)) ** 2 for g in gray], 0)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    edges = np.geomspace(1 / 64, 1 / 4, 13)
    level = [power[(f >= a) & (f < b)].mean() for a, b in zip(edges, edges[1:])]
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(level), 1)[0]


def sheet(pool, path, columns=8, rows=5):
    """Writes a contact sheet of the first images."""
    shots = pool[: columns * rows]
    lines = [np.concatenate(list(shots[r * columns : (r + 1) * columns]), 1) for r in range(rows)]
    cv2.imwrite(str(path), np.concatenate(lines)[..., ::-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="out/pool", help="folder of the shards (made if absent; whole shards are kept)")
    parser.add_argument("--count", type=int, default=1536, help="images in all, rounded up to whole shards of 64")
    parser.add_argument("--size", type=int, default=256, help="height and width of an image, in pixels")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything drawn")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--sheet", help="instead of writing images, write a contact sheet of the pool here and print figures")
    args = parser.parse_args()
    out = Path(args.out)
    if args.sheet:
        pool = np.concatenate([np.load(p) for p in sorted(out.glob("pool-*.npy"))[:4]])
        sheet(pool, args.sheet)
        print(f"{len(pool)} images, spectrum slope {spectrum_slope(pool):.2f}, mean {pool.mean():.0f}, deviation {pool.std():.0f}")
        return
    out.mkdir(parents=True, exist_ok=True)
    shards = -(-args.count // IMAGES_PER_SHARD)
    jobs = [(str(out), args.seed, k, IMAGES_PER_SHARD, args.size) for k in range(shards)]
    with multiprocessing.Pool(args.workers) as workers:
        for name in workers.imap_unordered(write_shard, jobs):
            print(name, flush=True)


if __name__ == "__main__":
    main()
