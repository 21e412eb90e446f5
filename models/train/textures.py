"""Gray textures for surfaces: zero mean, unit deviation, float32. A bank of them is drawn once and cropped many times."""

import cv2
import numpy as np

SIZE = 640  # height and width of a texture in the bank; all of them wrap around


def normal(texture):
    """Zero mean, unit deviation, and no extreme outliers."""
    texture = texture - texture.mean()
    return np.clip(texture / (texture.std() + 1e-6), -4, 4).astype(np.float32)


def spectral(rng, exponent, stretch=1.0, angle=0.0):
    """Gaussian noise whose amplitude falls as f^-exponent, stretched along one direction."""
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    u, v = np.cos(angle) * fx + np.sin(angle) * fy, -np.sin(angle) * fx + np.cos(angle) * fy
    f = np.sqrt((u * stretch) ** 2 + (v / stretch) ** 2)
    f[0, 0] = np.inf
    wave = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(f, 1.0 / SIZE) ** exponent
    return normal(np.fft.irfft2(wave, (SIZE, SIZE)))


def fractal(rng):
    """Clouds, plaster, stone."""
    return spectral(rng, rng.uniform(0.5, 2.0))


def oriented(rng):
    """Brushed metal, bark, hair seen from afar."""
    return spectral(rng, rng.uniform(0.7, 1.7), np.exp(rng.uniform(0.3, 1.4)), rng.uniform(0, np.pi))


def band(rng):
    """Noise around one frequency: sand, gravel, skin."""
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    center = np.exp(rng.uniform(np.log(0.01), np.log(0.2)))
    gain = np.exp(-(np.log((f + 1e-6) / center) ** 2) / (2 * rng.uniform(0.3, 0.9) ** 2))
    return normal(np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * gain, (SIZE, SIZE)))


def stripes(rng):
    """Waves, planks, cloth, grids: one or two sinusoids, bent by a smooth field, sometimes squared off."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    warp = spectral(rng, 2.2) * rng.choice([0.0, 0.0, 3.0, 15.0])
    turns = np.round(np.exp(rng.uniform(np.log(6), np.log(110))) * np.array([np.cos(a := rng.uniform(0, np.pi)), np.sin(a)]))
    phase = 2 * np.pi / SIZE * ((x + warp) * turns[0] + (y + warp) * turns[1])
    wave = np.sin(phase)
    if rng.random() < 0.45:
        across = np.sin(2 * np.pi / SIZE * ((y + warp) * turns[0] - (x + warp) * turns[1]))
        wave = wave * across if rng.random() < 0.5 else np.maximum(wave, across)
    if rng.random() < 0.5:
        wave = np.tanh(wave * rng.uniform(1, 8))
    return normal(wave + spectral(rng, 1.2) * rng.uniform(0, 0.3))


def rings(rng):
    """Wood, marble: a sinusoid of a fractal field."""
    return normal(np.sin(spectral(rng, rng.uniform(1.5, 2.3)) * rng.uniform(2, 14)))


def spots(rng):
    """Thresholded noise: camouflage, rust, lichen."""
    return normal(np.tanh((spectral(rng, rng.uniform(1.0, 2.2)) - rng.normal(0, 0.7)) * rng.uniform(2, 20)))


def cells(rng):
    """Distance to scattered points: pebbles, leather, scales, cracked earth."""
    seeds = np.full((SIZE, SIZE), 255, np.uint8)
    count = int(np.exp(rng.uniform(np.log(80), np.log(6000))))
    seeds[rng.integers(0, SIZE, count), rng.integers(0, SIZE, count)] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tone = rng.standard_normal(count + 1)[np.minimum(label, count)]
    return normal(normal(distance) * rng.normal(0, 1) + tone * rng.uniform(0, 1))


def fur(rng):
    """Short strokes that follow a smooth field of directions: fur, grass, straw."""
    image = np.zeros((SIZE, SIZE), np.float32)
    field = spectral(rng, 2.2) * rng.uniform(0.1, 1.2) + rng.uniform(0, 2 * np.pi)
    length = np.exp(rng.uniform(np.log(8), np.log(60)))
    count = int(np.clip(rng.uniform(1, 4) * SIZE * SIZE / (length * 3), 1000, 14000))
    start = rng.uniform(0, SIZE, (count, 2))
    tone = rng.normal(0, 1, count)
    thickness = rng.integers(1, 4)
    for (x, y), t in zip(start, tone):
        a = field[int(y), int(x)] + rng.normal(0, 0.15)
        tip = int(16 * (x + length * np.cos(a))), int(16 * (y + length * np.sin(a)))
        cv2.line(image, (int(16 * x), int(16 * y)), tip, float(t), int(thickness), cv2.LINE_AA, 4)
    return normal(image)


def leaves(rng):
    """Small discs and ellipses that hide each other: foliage, crowds, gravel."""
    image = np.zeros((SIZE, SIZE), np.float32)
    smallest = rng.uniform(1.5, 5)
    sizes = smallest / np.sqrt(1 - rng.random(9000) * 0.99)
    flat = rng.uniform(0.3, 1)
    for r in sizes:
        center = (int(rng.uniform(0, SIZE) * 16), int(rng.uniform(0, SIZE) * 16))
        axes = (int(r * 16), int(r * flat * 16))
        cv2.ellipse(image, center, axes, rng.uniform(0, 360), 0, 360, rng.normal(0, 1), -1, cv2.LINE_AA, 4)
    return normal(image)


def page(rng):
    """Writing and windows: lines of glyph-like strokes, rows of rectangles."""
    image = np.zeros((SIZE, SIZE), np.float32)
    if rng.random() < 0.5:
        for _ in range(60):
            writing(rng, image, 1.0, rng.uniform(-60, SIZE, 2))
        return normal(image)
    step = rng.uniform(10, 90, 2)
    gap = step * rng.uniform(0.05, 0.4, 2)
    for y in np.arange(0, SIZE, step[1]):
        for x in np.arange(0, SIZE, step[0]):
            corner = (int(16 * (x + step[0] - gap[0])), int(16 * (y + step[1] - gap[1])))
            cv2.rectangle(image, (int(16 * x), int(16 * y)), corner, float(rng.normal(1, 0.3)), -1, cv2.LINE_AA, 4)
    return normal(image)


def writing(rng, canvas, ink, corner):
    """A few words, drawn onto a float canvas in place."""
    scale = np.exp(rng.uniform(np.log(0.4), np.log(3)))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
    mask = np.zeros(canvas.shape[:2], np.uint8)
    for row in range(int(rng.integers(1, 5))):
        text = "".join(chr(c) for c in rng.integers(48, 122, int(rng.integers(3, 20))))
        at = (int(corner[0]), int(corner[1] + row * 40 * scale))
        cv2.putText(mask, text, at, font, scale, 255, int(rng.integers(1, 2 + int(2 * scale))), cv2.LINE_AA)
    where = mask > 0
    weight = mask[where].astype(np.float32) / 255
    weight = weight[:, None] if canvas.ndim == 3 else weight
    canvas[where] += weight * (np.asarray(ink, np.float32) - canvas[where])


MAKERS = [fractal, fractal, oriented, band, stripes, stripes, rings, spots, cells, fur, fur, leaves, page]


def bank(rng, count):
    """`count` textures, kinds in turn."""
    return [MAKERS[i % len(MAKERS)](rng) for i in range(count)]


def crop(rng, textures, height, width):
    """A random window of a random texture, [height, width], at a random scale; wraps around when the window is larger."""
    texture = textures[rng.integers(len(textures))]
    zoom = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    rows = int(np.ceil(height / zoom)) + 1
    columns = int(np.ceil(width / zoom)) + 1
    top, left = rng.integers(0, SIZE, 2)
    y, x = (top + np.arange(rows)) % SIZE, (left + np.arange(columns)) % SIZE
    window = texture[y[:, None], x]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    how = cv2.INTER_LINEAR if zoom > 1 else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(window), (int(width), int(height)), interpolation=how)
