"""Measures of an image against the true one, all on float RGB in [0, 1], [H, W, 3]."""

import numpy as np
from scipy.ndimage import convolve, uniform_filter
from skimage.metrics import structural_similarity


def psnr(result, truth):
    """Peak signal-to-noise ratio in dB, over pixels and channels."""
    return -10 * np.log10(np.mean((result - truth) ** 2))


def ssim(result, truth):
    """Structural similarity (Wang et al. 2004): Gaussian windows of 1.5 pixels, mean of the channels; 1 is the best."""
    return structural_similarity(
        truth, result, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def haarpsi(result, truth):
    """The Haar wavelet-based perceptual similarity index (Reisenhofer et al. 2018), color version, C = 30, alpha = 4.2; 1 is the best."""
    c, alpha = 30.0, 4.2

    def similarity(a, b):
        return (2 * a * b + c**2) / (a**2 + b**2 + c**2)

    def prepare(image):
        planes = 255 * image @ YIQ.T
        return [uniform_filter(planes[..., i], 2, mode="constant")[::2, ::2] for i in range(3)]

    def wavelet(plane, scale, axis):
        kernel = np.full((2**scale, 2**scale), 2.0**-scale)
        kernel[: 2 ** (scale - 1)] *= -1
        return np.abs(convolve(plane, kernel if axis == 0 else kernel.T, mode="constant"))

    (y1, i1, q1), (y2, i2, q2) = prepare(truth), prepare(result)
    similarities, weights = [], []
    for axis in range(2):
        pairs = [(wavelet(y1, s, axis), wavelet(y2, s, axis)) for s in (1, 2, 3)]
        similarities.append(sum(similarity(a, b) for a, b in pairs[:2]) / 2)
        weights.append(np.maximum(*pairs[2]))
    chroma = [np.abs(uniform_filter(p, 2, mode="constant")) for p in (i1, i2, q1, q2)]
    similarities.append((similarity(chroma[0], chroma[1]) + similarity(chroma[2], chroma[3])) / 2)
    weights.append(sum(weights) / 2)
    squashed = sum((w / (1 + np.exp(-alpha * s))).sum() for s, w in zip(similarities, weights)) / sum(w.sum() for w in weights)
    return (np.log(squashed / (1 - squashed)) / alpha) ** 2


def log_spectrum_distance(result, truth):
    """Error of the texture's strength: the root mean square, over 24 logarithmic bins from 1/32 to 1/2 cycle a pixel, of the
    difference of log10 of the radially averaged power spectra of luma under a Hann window; 0 is the best."""
    height, width = truth.shape[:2]
    window = np.hanning(height)[:, None] * np.hanning(width)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    edges = np.geomspace(1 / 32, 1 / 2, 25)
    which = np.digitize(f, edges)

    def spectrum(image):
        luma = image @ YIQ[0]
        power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2
        return np.log10([power[which == k].mean() + 1e-9 for k in range(1, len(edges))])

    return float(np.sqrt(np.mean((spectrum(result) - spectrum(truth)) ** 2)))


MEASURES = {"PSNR": psnr, "SSIM": ssim, "HaarPSI": haarpsi, "spectrum": log_spectrum_distance}
