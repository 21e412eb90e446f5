"""Simulates a camera: sensor noise on a Bayer mosaic, and the in-camera processing after it.

An image is first taken back to the sensor's light (tone curve, color matrix and white balance undone, as in Brooks et al.
2019, "Unprocessing Images for Learned Raw Denoising"), so that without noise the camera approximately reproduces it. `Camera` draws a
camera's settings once; `Camera.shot` takes an image with new noise, so that a clip is one camera's.

Noise is Poisson-Gaussian (Foi et al. 2008). Its strength spans what darktable's noise profiles of 374 cameras say from ISO 100 to
25600 (green: a from 3e-6 to 2e-3, b from 3e-9 to 2e-6, of the full range), and what small sensors add to that.
"""

import cv2
import numpy as np

# Where R lies in the 2x2 of a mosaic: row and column.
ALIGNMENTS = [(0, 0), (0, 1), (1, 0), (1, 1)]
BILINEAR = {"green": np.float32([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, "other": np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4}


def color_matrix(rng):
    """Sensor RGB to sRGB, rows summing to one, [3, 3]: a typical phone's, more or less strong."""
    typical = np.array([[1.7, -0.55, -0.15], [-0.25, 1.5, -0.25], [0.0, -0.6, 1.6]])
    varied = typical + rng.normal(0, 0.08, (3, 3))
    varied = np.eye(3) + rng.uniform(0.2, 1.0) * (varied - np.eye(3))
    return (varied / varied.sum(1, keepdims=True)).astype(np.float32)


def mosaic(light, alignment):
    """One color for each pixel, [H, W], of light [H, W, 3]; R lies where row and column are those of `alignment`, modulo two."""
    row, column = alignment
    raw = light[..., 1].copy()
    raw[row::2, column::2] = light[row::2, column::2, 0]
    raw[1 - row :: 2, 1 - column :: 2] = light[1 - row :: 2, 1 - column :: 2, 2]
    return raw


def smooth(values, kernel):
    return cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def demosaic(raw, alignment, method):
    """Three colors for each pixel, [H, W, 3], of a mosaic: "bilinear"; "malvar", with the gradient correction of Malvar et al. 2004;
    "edges", green along the smaller gradient and the others by their difference from it (after Hamilton and Adams 1997)."""
    row, column = alignment
    where = np.zeros((*raw.shape, 3), np.float32)
    where[row::2, column::2, 0] = 1
    where[1 - row :: 2, 1 - column :: 2, 2] = 1
    where[..., 1] = 1 - where[..., 0] - where[..., 2]
    kernel = lambda c: BILINEAR["green" if c == 1 else "other"]
    if method == "bilinear":
        return np.stack([smooth(raw * where[..., c], kernel(c)) for c in range(3)], -1)
    if method == "edges":
        across, down = lambda taps: smooth(raw, np.float32([taps])), lambda taps: smooth(raw, np.float32([taps]).T)
        second = [-0.25, 0.5, 0.5, 0.5, -0.25]
        steep = [np.abs(f([-1, 0, 2, 0, -1])) + np.abs(f([0, 1, 0, -1, 0])) for f in (across, down)]
        green = np.where(steep[0] < steep[1], across(second), down(second))
        green = np.where(where[..., 1] > 0, raw, green)
        others = [green + smooth((raw - green) * where[..., c], kernel(c)) for c in (0, 2)]
        return np.stack([others[0], green, others[1]], -1)
    spread = lambda taps: smooth(raw, np.float32(taps) / 16)
    green = spread([[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]])
    along = [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]
    along, across = spread(along), spread(np.array(along).T)
    diagonal = spread([[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]])
    out = np.repeat(raw[..., None], 3, 2)
    is_red, is_green, is_blue = (where[..., c] > 0 for c in range(3))
    out[..., 1] = np.where(is_green, raw, green)
    red_rows = (np.arange(raw.shape[0]) % 2 == row)[:, None]
    out[..., 0] = np.where(is_red, raw, np.where(is_blue, diagonal, np.where(red_rows, along, across)))
    out[..., 2] = np.where(is_blue, raw, np.where(is_red, diagonal, np.where(red_rows, across, along)))
    return out


def jpeg(image, quality, chroma):
    """An image [H, W, 3] in [0, 1] through JPEG with its chroma at 4:2:0, 4:2:2 or 4:4:4."""
    sampling = {"420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}
    pixels = np.round(np.clip(image, 0, 1)[..., ::-1] * 255).astype(np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling[chroma]]
    coded = cv2.imencode(".jpg", pixels, flags)[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


class Camera:
    """A camera's settings. `light` is the sensor noise's deviation at a signal of 18%, relative to it: 0.01 in good light, 0.4 at night."""

    def __init__(self, rng, light=None):
        self.light = np.exp(rng.uniform(np.log(0.012), np.log(0.4))) if light is None else light
        self.gamma, self.to_srgb = rng.uniform(1.9, 2.5), color_matrix(rng)
        self.balance = np.float32([rng.uniform(1.1, 2.4), 1.0, rng.uniform(1.1, 2.4)])
        self.alignment = ALIGNMENTS[rng.integers(4)]
        self.shot_share = rng.uniform(0.3, 1.0)
        self.steps = 2 ** rng.choice([8, 10, 12], p=[0.1, 0.5, 0.4])
        self.black = -rng.choice([0.0, 0.02, 0.06])  # whether noise below black is clipped
        self.method = rng.choice(["bilinear", "malvar", "edges"], p=[0.3, 0.35, 0.35])
        # The sensor's size relative to the output, and the downsampling.
        self.scale = 1.0 if rng.random() < 0.6 else rng.choice([0.75, 1.25, 1.5, 2.0])
        self.filter = rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
        kind = rng.random()
        self.denoise = None if kind < 0.6 else ("blur", rng.uniform(0.35, 0.8)) if kind < 0.8 else ("bilateral", rng.uniform(0.5, 2.0))
        self.sharpen = (rng.uniform(0.2, 1.0), rng.uniform(0.7, 1.5)) if rng.random() < 0.35 else None

    def shot(self, rng, image):
        """The image [H, W, 3], float32 sRGB in [0, 1], as the camera outputs it, without a codec."""
        height, width = image.shape[:2]
        if self.scale != 1.0:
            size = (max(8, round(width * self.scale / 2) * 2), max(8, round(height * self.scale / 2) * 2))
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        linear = np.power(np.clip(image, 0, 1), self.gamma, dtype=np.float32) @ np.linalg.inv(self.to_srgb).T.astype(np.float32)
        raw = mosaic(np.clip(linear, 0, None) / self.balance, self.alignment)
        variance = (0.18 * self.light) ** 2 * (self.shot_share * raw / 0.18 + 1 - self.shot_share) / self.balance.mean()
        raw = raw + np.sqrt(variance) * rng.standard_normal(raw.shape, dtype=np.float32)
        raw = np.clip(np.round(raw * self.steps) / self.steps, self.black, 1)
        gains = np.ones_like(raw)
        row, column = self.alignment
        gains[row::2, column::2] = self.balance[0]
        gains[1 - row :: 2, 1 - column :: 2] = self.balance[2]
        out = demosaic((raw * gains).astype(np.float32), self.alignment, self.method) @ self.to_srgb.T
        out = np.power(np.clip(out, 0, 1), np.float32(1 / self.gamma))
        if self.denoise and self.denoise[0] == "blur":
            out = cv2.GaussianBlur(out, (0, 0), self.denoise[1])
        elif self.denoise:
            out = cv2.bilateralFilter(out, 5, self.denoise[1] * 0.4 * self.light, 1.2)
        if self.scale != 1.0:
            out = cv2.resize(out, (width, height), interpolation=self.filter)
        if self.sharpen:
            out = out + self.sharpen[0] * (out - cv2.GaussianBlur(out, (0, 0), self.sharpen[1]))
        return np.clip(out, 0, 1).astype(np.float32)
