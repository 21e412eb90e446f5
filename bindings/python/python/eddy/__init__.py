"""Denoising, super-resolution, inpainting and image generation by diffusion networks, on numpy arrays.

    import eddy
    clean = eddy.denoise(noisy)                     # uint8 or float32, [H, W] or [H, W, C]
    large = eddy.upscale(clean, 2)

Nothing is printed, and no network is reached: ONNX Runtime and the models are in the package.
"""

import threading

import numpy as np

from . import _eddy
from ._eddy import __version__, delete_leftovers, models, onnxruntime_version, result_name
from ._errors import (
    DeviceError,
    Error,
    EvaluationError,
    InputError,
    Interrupted,
    ModelError,
    OutputError,
    UsageError,
)

__all__ = [
    "Denoiser",
    "DeviceError",
    "Error",
    "EvaluationError",
    "Generator",
    "Image",
    "InputError",
    "Inpainter",
    "Interrupted",
    "ModelError",
    "Network",
    "OutputError",
    "Stream",
    "TextToImage",
    "UsageError",
    "Upscaler",
    "__version__",
    "delete_leftovers",
    "denoise",
    "frames",
    "generate",
    "inpaint",
    "models",
    "onnxruntime_version",
    "result_name",
    "upscale",
]


class Image(np.ndarray):
    """An array that notebooks show as an image. ``info`` is a dict of what is known of it, such as ``sigma``."""

    info = {}

    def __array_finalize__(self, other):
        self.info = dict(getattr(other, "info", {}))

    def _repr_png_(self):
        is_image = self.ndim == 2 or (self.ndim == 3 and 1 <= self.shape[2] <= 4)
        if not is_image or self.size == 0 or self.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            return None
        whole = np.asarray(self)
        return _eddy.encode_png(whole.clip(0, 1) if whole.dtype.kind == "f" else whole)


def _image(array, info=None):
    image = array.view(Image)
    image.info = dict(info or {})
    return image


def _array(values):
    """What offers DLPack or ``__array_interface__``, as an array, without a copy where that can be."""
    is_foreign = not isinstance(values, np.ndarray) and not hasattr(values, "__array_interface__")
    return np.from_dlpack(values) if is_foreign and hasattr(values, "__dlpack__") else np.asarray(values)


def _mask(values):
    """A mask as an image, white where it is true."""
    mask = _array(values)
    return mask.astype(np.uint8) * 255 if mask.dtype == bool else mask


def _settings(device=None, threads=None, max_memory=None, precision=None, runtime=None):
    return {
        "device": device,
        "threads": threads,
        "max_memory": max_memory,
        "precision": precision,
        "runtime": None if runtime is None else str(runtime),
    }


def _sampling(steps=None, eta=0.0, seed=0, strength=1.0):
    return {"steps": steps, "eta": eta, "seed": seed, "strength": strength}


def _name(model):
    return None if model is None else str(model)


class Denoiser:
    """Removes noise from images. Its network is loaded once; several threads may use it, one at a time."""

    def __init__(self, model=None, **settings):
        self._native = _eddy.Denoiser(_name(model), _settings(**settings))

    def __call__(self, image, *, sigma=None, steps=None, eta=0.0, seed=0, strength=1.0, progress=None):
        sampling = _sampling(steps, eta, seed, strength)
        return _image(*self._native.run(_array(image), sigma, sampling, progress))

    def file(self, source, output, *, format=None, jpeg_quality=None, sigma=None, progress=None, **sampling):
        sampling = _sampling(**sampling)
        return self._native.file(source, output, format, jpeg_quality, sigma, sampling, progress)


class Upscaler:
    """Enlarges images. ``scale`` is its factor along each axis."""

    def __init__(self, model="upscale-x2", **settings):
        self._native = _eddy.Upscaler(_name(model), _settings(**settings))
        self.scale = self._native.scale

    def __call__(self, image, *, steps=None, eta=0.0, seed=0, progress=None):
        return _image(self._native.run(_array(image), steps, eta, seed, progress))


class Inpainter:
    """Fills masked areas of images."""

    def __init__(self, model="prior", **settings):
        self._native = _eddy.Inpainter(_name(model), _settings(**settings))

    def __call__(self, image, mask, *, steps=None, samples=4, seed=0, grow=0, feather=0, progress=None):
        return _image(self._native.run(_array(image), _mask(mask), steps, samples, seed, grow, feather, progress))


class Generator:
    """Generates images from noise."""

    def __init__(self, model="prior", **settings):
        self._native = _eddy.Generator(_name(model), _settings(**settings))

    def __call__(
        self,
        *,
        count=1,
        size=None,
        class_labels=None,
        guidance_scale=None,
        sampler=None,
        steps=None,
        eta=None,
        seed=0,
        progress=None,
    ):
        labels = [] if class_labels is None else [int(label) for label in np.atleast_1d(class_labels)]
        run = self._native.run
        images = run(count, size, labels, guidance_scale, sampler, steps, eta, seed, progress)
        return [_image(image) for image in images]


class Network:
    """A network and its training schedule, for any sampler."""

    def __init__(self, model, **settings):
        self._native = _eddy.Network(_name(model), _settings(**settings))

    def sample(
        self, noise, *, sampler="ddim", steps=50, eta=None, class_label=None, seed=0, progress=None
    ):
        noise = _array(noise).astype(np.float32, copy=False)
        return self._native.run(noise, sampler, steps, eta, class_label, seed, progress)


class TextToImage:
    """Makes images of texts by a pipeline of several networks, a folder in the layout of diffusers."""

    def __init__(self, folder, **settings):
        self._native = _eddy.TextToImage(str(folder), _settings(**settings))

    def __call__(
        self,
        prompt="",
        *,
        negative_prompt=None,
        image=None,
        mask=None,
        control=None,
        class_label=None,
        size=None,
        steps=None,
        sampler=None,
        eta=None,
        guidance_scale=None,
        guidance_rescale=0.0,
        guidance_interval=None,
        image_guidance_scale=None,
        clip_skip=0,
        strength=None,
        noise_level=None,
        control_scale=None,
        seed=0,
        progress=None,
    ):
        wanted = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "class_label": class_label,
            "size": size,
            "steps": steps,
            "sampler": sampler,
            "eta": eta,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "guidance_interval": guidance_interval,
            "image_guidance_scale": image_guidance_scale,
            "clip_skip": clip_skip,
            "strength": strength,
            "noise_level": noise_level,
            "control_scale": control_scale,
        }
        optional = lambda read, values: None if values is None else read(values)
        arrays = [optional(_array, image), optional(_mask, mask), optional(_array, control)]
        made, figures = self._native.run(wanted, arrays, seed, progress)
        names = ("sampler", "steps", "guidance_scale", "evaluations")
        return _image(made, {"seed": seed, **dict(zip(names, figures))})


class _Closing:
    """What is closed at the end of a ``with`` block."""

    def close(self):
        self._native.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stream(_Closing):
    """Denoises frames one by one, each with what is known from those before it."""

    def __init__(self, width, height, *, pixel_format="rgb24", fps=30, model=None, **settings):
        if model is None:
            model = "camera" if pixel_format.startswith(("yuv", "nv", "gray")) else "denoise-fast"
        size = [int(width), int(height)]
        self._native = _eddy.Stream(_name(model), size, pixel_format, int(fps), _settings(**settings))
        self.frame_bytes = self._native.frame_bytes

    def __call__(self, frame):
        return self._native.run(_array(frame))


class _Frames(_Closing):
    def __init__(self, source, model, settings):
        self._native = _eddy.Frames(str(source), _name(model), settings)
        self.size, self.fps = tuple(self._native.size), self._native.fps

    def __iter__(self):
        return self

    def __next__(self):
        got = self._native.read()
        if got is None:
            raise StopIteration
        return _image(got[0], {"time": got[1]})


_kept, _lock = {}, threading.Lock()


def _shared(kind, model):
    """The instance of a class for a model, which the functions of this module share."""
    with _lock:
        key = (kind, _name(model))
        if key not in _kept:
            _kept[key] = kind(model)
        return _kept[key]


def denoise(image, *, model=None, **options):
    """Removes noise from an image; see `Denoiser`."""
    return _shared(Denoiser, model)(image, **options)


def upscale(image, scale=2, *, model=None, **options):
    """Enlarges an image; see `Upscaler`."""
    if model is None:
        if scale not in (2, 4):
            raise UsageError(f"scale {scale}; there are models for 2 and 4, or name one by model=")
        model = f"upscale-x{scale}"
    return _shared(Upscaler, model)(image, **options)


def inpaint(image, mask, *, model="prior", **options):
    """Fills masked areas of an image; see `Inpainter`."""
    return _shared(Inpainter, model)(image, mask, **options)


def generate(model="prior", **options):
    """Generates images from noise; see `Generator`."""
    return _shared(Generator, model)(**options)


def frames(source, *, model=None, **settings):
    """The denoised frames of a camera, a file or a URL, as RGB."""
    return _Frames(source, model, _settings(**settings))
