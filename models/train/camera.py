"""What a cheap camera makes of a picture: sensor noise on a Bayer mosaic, and everything that its processor does to it after.

A picture is first taken back to the sensor's light (tone curve, colour matrix and white balance undone, as in Brooks et al.
2019, "Unprocessing Images for Learned Raw Denoising"), so that without noise the camera about gives it back.
"""

import cv2
import numpy as np

# cv2's names for the mosaic whose top left corner is R, and for the other three alignments.
PATTERNS = {"rggb": (0, 0), "grbg": (0, 1), "gbrg": (1, 0), "bggr": (1, 1)}


def colour_matrix(rng):
    """Sensor RGB to sRGB, rows summing to one, [3, 3]: a typical phone's, more or less strong."""
    typical = np.array([[1.7, -0.55, -0.15], [-0.25, 1.5, -0.25], [0.0, -0.6, 1.6]])
    varied = typical + rng.normal(0, 0.08, (3, 3))
    varied = np.eye(3) + rng.uniform(0.3, 1.0) * (varied - np.eye(3))
    return (varied / varied.sum(1, keepdims=True)).astype(np.float32)


def mosaic(light, alignment):
    """One colour for each pixel, [H, W], of light [H, W, 3]; R lies where row and column are those of `alignment`, modulo two."""
    row, column = alignment
    raw = light[..., 1].copy()
    raw[row::2, column::2] = light[row::2, column::2, 0]
    raw[1 - row :: 2, 1 - column :: 2] = light[1 - row :: 2, 1 - column :: 2, 2]
    return raw


BILINEAR = {"green": np.float32([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, "other": np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4}


def demosaic(raw, alignment, linear):
    """Three colours for each pixel, [H, W, 3], of a mosaic: bilinear, or with Malvar et al.'s (2004) gradient correction."""
    row, column = alignment
    where = np.zeros((*raw.shape, 3), np.float32)
    where[row::2, column::2, 0] = 1
    where[1 - row :: 2, 1 - column :: 2, 2] = 1
    where[..., 1] = 1 - where[..., 0] - where[..., 2]
    if linear:
        planes = [cv2.filter2D(raw * where[..., c], -1, BILINEAR["green" if c == 1 else "other"], borderType=cv2.BORDER_REFLECT_101) for c in range(3)]
        return np.stack(planes, -1)
    spread = lambda kernel: cv2.filter2D(raw, -1, np.float32(kernel) / 16, borderType=cv2.BORDER_REFLECT_101)
    green = spread([[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]])
    along = spread([[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]])
    across = spread(np.array([[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]).T)
    diagonal = spread([[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]])
    out = np.repeat(raw[..., None], 3, 2)
    is_red, is_green, is_blue = (where[..., c] > 0 for c in range(3))
    out[..., 1] = np.where(is_green, raw, green)
    red_rows = (np.arange(raw.shape[0]) % 2 == row)[:, None]
    out[..., 0] = np.where(is_red, raw, np.where(is_blue, diagonal, np.where(red_rows, along, across)))
    out[..., 2] = np.where(is_blue, raw, np.where(is_red, diagonal, np.where(red_rows, across, along)))
    return out


def jpeg(picture, quality, chroma):
    """A picture [H, W, 3] in [0, 1] through JPEG with its chroma at 4:2:0, 4:2:2 or 4:4:4."""
    sampling = {"420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}
    pixels = np.round(np.clip(picture, 0, 1)[..., ::-1] * 255).astype(np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling[chroma]]
    coded = cv2.imencode(".jpg", pixels, flags)[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


def shot(rng, picture, light=None):
    """The picture [H, W, 3], float32 sRGB in [0, 1], as the camera delivers it. `light` is the sensor noise's deviation at a
    signal of 18%, relative to it: 0.02 in good light, 0.3 at night."""
    light = np.exp(rng.uniform(np.log(0.01), np.log(0.4))) if light is None else light
    gamma, to_srgb = rng.uniform(2.0, 2.4), colour_matrix(rng)
    balance = np.float32([rng.uniform(1.2, 2.4), 1.0, rng.uniform(1.2, 2.4)])
    linear = np.power(np.clip(picture, 0, 1), gamma, dtype=np.float32) @ np.linalg.inv(to_srgb).T.astype(np.float32)
    raw = mosaic(np.clip(linear, 0, None) / balance, alignment := list(PATTERNS.values())[rng.integers(4)])
    shot_share = rng.uniform(0.4, 1.0)
    variance = (0.18 * light) ** 2 * (shot_share * raw / 0.18 + 1 - shot_share) / balance.mean()
    raw = raw + np.sqrt(variance) * rng.standard_normal(raw.shape, dtype=np.float32)
    steps = 2 ** rng.choice([10, 12])
    raw = np.clip(np.round(raw * steps) / steps, -0.05, 1)
    gains = np.ones_like(raw) * balance[1]
    gains[alignment[0] :: 2, alignment[1] :: 2] = balance[0]
    gains[1 - alignment[0] :: 2, 1 - alignment[1] :: 2] = balance[2]
    out = demosaic((raw * gains).astype(np.float32), alignment, linear=rng.random() < 0.4) @ to_srgb.T
    out = np.power(np.clip(out, 0, 1), np.float32(1 / gamma))
    if rng.random() < 0.25:  # the processor's own smoothing
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 0.8))
    if rng.random() < 0.7:
        out = out + rng.uniform(0.2, 1.2) * (out - cv2.GaussianBlur(out, (0, 0), rng.uniform(0.7, 1.5)))
    return jpeg(out, rng.uniform(50, 95), rng.choice(["420", "422", "444"], p=[0.6, 0.2, 0.2])).astype(np.float32)


HIGH_PASS = np.array([-0.12940952, -0.22414387, 0.83651630, -0.48296291], np.float32)
SIGMA_MIN, SIGMA_MAX = 2 / 255, 100 / 255


def estimate(picture):
    """What `eddy denoise --sigma auto` reads from a picture [H, W, 3]: the median absolute deviation of the finest diagonal
    wavelet band, without places where a sample is at the end of its range; within the camera model's bounds."""
    readings = []
    for channel in np.moveaxis(np.round(picture * 255).astype(np.float32), -1, 0):
        band = np.abs(cv2.sepFilter2D(channel, -1, HIGH_PASS, HIGH_PASS, anchor=(0, 0)))[:-3, :-3]
        ends = ((channel == 0) | (channel == 255)).astype(np.uint8)
        ends = cv2.dilate(ends, np.ones((4, 4), np.uint8), anchor=(0, 0))[:-3, :-3]
        inside = band[ends == 0]
        readings.append(np.median(inside) / 0.6745 if inside.size else 0.0)
    return float(np.clip(np.mean(readings) / 255, SIGMA_MIN, SIGMA_MAX))


def shoot(rng, picture):
    """A shot, and the sigma map [H, W] that comes with it: mostly what the estimator reads there, sometimes the true error's
    deviation, alike everywhere or by brightness as a measured profile says."""
    result, kind = shot(rng, picture), rng.random()
    error = float(np.sqrt(np.mean((result - picture) ** 2)))
    if kind < 0.6:
        level = estimate(result) * np.exp(rng.normal(0, 0.15))
    else:
        level = error * np.exp(rng.normal(0, 0.15))
    sigma = np.full(picture.shape[:2], level, np.float32)
    if kind > 0.8:
        signal = cv2.GaussianBlur(result, (0, 0), 1.5).mean(-1)
        slope = rng.uniform(0, 1)
        sigma = np.sqrt(level**2 * (slope * signal / (signal.mean() + 0.05) + 1 - slope)).astype(np.float32)
    return result, np.clip(sigma, SIGMA_MIN, SIGMA_MAX)
