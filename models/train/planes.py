"""4:2:0 planes: luma at full size, two planes of chroma at half of it. Packed for a network: six channels at half the
size, luma of each 2x2 row by row, then Cb and Cr. Luma is 0 to 1; chroma is centered on 0.5.
"""

import numpy as np

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def of_rgb(image, matrix="bt601"):
    """Luma [H, W] and chroma [2, H / 2, W / 2], the mean over 2x2, of an image [H, W, 3] with even sides."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(image, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) * (0.5 / (1 - blue)), (r - luma) * (0.5 / (1 - red))]) + 0.5
    return luma.astype(np.float32), halved(chroma).astype(np.float32)


def halved(planes):
    """Means over 2x2 of [..., H, W]."""
    height, width = planes.shape[-2:]
    return planes.reshape(*planes.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1))


def of_i420(samples, width, height, full=False):
    """Luma and chroma of the 8-bit samples of I420 frames, [frames, H * W * 3 / 2]."""
    area = width * height
    luma = samples[:, :area].reshape(-1, height, width).astype(np.float32)
    chroma = samples[:, area:].reshape(-1, 2, height // 2, width // 2).astype(np.float32)
    if full:
        return luma / 255, (chroma - 128) / 255 + 0.5
    return (luma - 16) / 219, (chroma - 128) / 224 + 0.5


def rounded(luma, chroma, full):
    """Planes rounded to 8 bits."""
    steps = (255, 255) if full else (219, 224)
    return np.round(luma * steps[0]) / steps[0], np.round((chroma - 0.5) * steps[1]) / steps[1] + 0.5


def pack(luma, chroma):
    """Six channels [6, H / 2, W / 2]."""
    height, width = luma.shape
    parts = luma.reshape(height // 2, 2, width // 2, 2).transpose(1, 3, 0, 2).reshape(4, height // 2, width // 2)
    return np.concatenate([parts, chroma]).astype(np.float32)
