"""Denoising, super-resolution, inpainting and image generation by diffusion networks, on numpy arrays.

    import eddy
    clean = eddy.denoise(noisy)                     # uint8 or float32, [H, W] or [H, W, C]
    large = eddy.upscale(clean, 2)

Nothing is printed, and no network is reached: ONNX Runtime and the models are in the package.
"""

import operator
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

    def __array_wrap__(self, array, context=None, return_scalar=False):
        # What numpy reduces to one value is a number.
        if return_scalar or array.ndim == 0:
            return array[()]
        return super().__array_wrap__(array, context)

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


def _whole(name, value, low, high):
    """A whole number within a range; None is left."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} {value!r}; expected a whole number from {low} to {high}") from None
    if not low <= number <= high:
        raise UsageError(f"{name} {number}; expected {low} to {high}")
    return number


def _steps(steps):
    return _whole("steps", steps, 1, 1000)


def _seed(seed):
    return _whole("seed", seed, 0, 2**64 - 1)


def _size(size):
    """A width and a height."""
    if size is None:
        return None
    try:
        width, height = size
    except (TypeError, ValueError):
        raise UsageError(f"size {size!r}; expected a width and a height") from None
    return [_whole("a side of the size", side, 1, 65_535) for side in (width, height)]


def _sigma(sigma):
    """A noise level: None for an estimate, one number, or two for luma and chroma."""
    if sigma is None or (isinstance(sigma, str) and sigma == "auto"):
        return None
    try:
        values = [float(value) for value in np.atleast_1d(sigma)]
    except (TypeError, ValueError):
        values = []
    if len(values) not in (1, 2):
        raise UsageError(f"sigma {sigma!r}; expected one number in 8-bit units, two for luma and chroma, or 'auto'")
    return values[0] if len(values) == 1 else values


_SETTINGS = ("device", "threads", "max_memory", "precision", "runtime")


def _settings(**given):
    unknown = [name for name in given if name not in _SETTINGS]
    if unknown:
        raise TypeError(f"there is no setting {unknown[0]!r}; the settings are {', '.join(_SETTINGS)}")
    settings = {name: given.get(name) for name in _SETTINGS}
    settings["threads"] = _whole("threads", settings["threads"], 0, 1 << 20)
    settings["max_memory"] = _whole("max_memory", settings["max_memory"], 0, 2**64 - 1)
    for name in ("device", "precision", "runtime"):
        settings[name] = _name(settings[name])
    return settings


def _sampling(steps=None, eta=0.0, seed=0, strength=1.0):
    return {"steps": _steps(steps), "eta": eta, "seed": _seed(seed), "strength": strength}


def _name(model):
    return None if model is None else str(model)


class Denoiser:
    """Removes noise from images. Its network is loaded once; several threads may use it, one at a time."""

    def __init__(self, model=None, **settings):
        self._native = _eddy.Denoiser(_name(model), _settings(**settings))

    def __call__(self, image, *, sigma=None, steps=None, eta=0.0, seed=0, strength=1.0, progress=None):
        sampling = _sampling(steps, eta, seed, strength)
        return _image(*self._native.run(_array(image), _sigma(sigma), sampling, progress))

    def file(self, source, output, *, format=None, jpeg_quality=None, sigma=None, progress=None, **sampling):
        sampling = _sampling(**sampling)
        quality = _whole("jpeg_quality", jpeg_quality, 1, 100)
        return self._native.file(source, output, format, quality, _sigma(sigma), sampling, progress)


class Upscaler:
    """Enlarges images. ``scale`` is its factor along each axis."""

    def __init__(self, model="upscale-x2", **settings):
        self._native = _eddy.Upscaler(_name(model), _settings(**settings))
        self.scale = self._native.scale

    def __call__(self, image, *, steps=None, eta=0.0, seed=0, progress=None):
        return _image(self._native.run(_array(image), _steps(steps), eta, _seed(seed), progress))


class Inpainter:
    """Fills masked areas of images."""

    def __init__(self, model="prior", **settings):
        self._native = _eddy.Inpainter(_name(model), _settings(**settings))

    def __call__(self, image, mask, *, steps=None, samples=4, seed=0, grow=0, feather=0, progress=None):
        samples = _whole("samples", samples, 1, 1000)
        grow, feather = _whole("grow", grow, 0, 65_535), _whole("feather", feather, 0, 65_535)
        arrays = (_array(image), _mask(mask))
        return _image(self._native.run(*arrays, _steps(steps), samples, _seed(seed), grow, feather, progress))


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
        labels = [] if class_labels is None else np.atleast_1d(class_labels)
        labels = [_whole("class label", label, 0, 2**31) for label in labels]
        count = _whole("count", count, 1, 10_000)
        sampling = (guidance_scale, sampler, _steps(steps), eta, _seed(seed))
        images = self._native.run(count, _size(size), labels, *sampling, progress)
        return [_image(image) for image in images]


class Network:
    """A network and its training schedule, for any sampler."""

    def __init__(self, model, **settings):
        self._native = _eddy.Network(_name(model), _settings(**settings))

    def sample(
        self, noise, *, sampler="ddim", steps=50, eta=None, class_label=None, seed=0, progress=None
    ):
        noise = _array(noise).astype(np.float32, copy=False)
        label = _whole("class_label", class_label, 0, 2**31)
        return self._native.run(noise, sampler, _steps(steps), eta, label, _seed(seed), progress)


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
            "class_label": _whole("class_label", class_label, 0, 2**31),
            "size": _size(size),
            "steps": _steps(steps),
            "sampler": sampler,
            "eta": eta,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "guidance_interval": guidance_interval,
            "image_guidance_scale": image_guidance_scale,
            "clip_skip": _whole("clip_skip", clip_skip, 0, 1000),
            "strength": strength,
            "noise_level": _whole("noise_level", noise_level, 0, 1 << 20),
            "control_scale": control_scale,
        }
        optional = lambda read, values: None if values is None else read(values)
        arrays = [optional(_array, image), optional(_mask, mask), optional(_array, control)]
        made, figures = self._native.run(wanted, arrays, _seed(seed), progress)
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
        size, fps = _size((width, height)), _whole("fps", fps, 1, 1 << 20)
        self._native = _eddy.Stream(_name(model), size, pixel_format, fps, _settings(**settings))
        self.frame_bytes = self._native.frame_bytes

    def __call__(self, frame):
        frame = _array(frame)
        if frame.dtype != np.uint8:
            raise UsageError(f"a frame of {frame.dtype}; expected uint8, the bytes of the stream's pixel format")
        return self._native.run(frame)


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


def denoise(image, *, model=None, sigma=None, steps=None, eta=0.0, seed=0, strength=1.0, progress=None):
    """Removes noise from an image, `[H, W]` or `[H, W, C]`, uint8, uint16, or floating point from 0 to 1.

    The arguments are those of a call of `Denoiser`, which is kept for later calls.
    """
    run = _shared(Denoiser, model)
    return run(image, sigma=sigma, steps=steps, eta=eta, seed=seed, strength=strength, progress=progress)


def upscale(image, scale=2, *, model=None, steps=None, eta=0.0, seed=0, progress=None):
    """Enlarges an image by 2 or 4, or by the factor of `model`.

    The arguments are those of a call of `Upscaler`, which is kept for later calls.
    """
    if model is None:
        if scale not in (2, 4):
            raise UsageError(f"scale {scale!r}; there are models for 2 and 4, or name one by model=")
        model = f"upscale-x{scale}"
    return _shared(Upscaler, model)(image, steps=steps, eta=eta, seed=seed, progress=progress)


def inpaint(image, mask, *, model="prior", steps=None, samples=4, seed=0, grow=0, feather=0, progress=None):
    """Fills the areas of an image where `mask` is true or white.

    The arguments are those of a call of `Inpainter`, which is kept for later calls.
    """
    run, more = _shared(Inpainter, model), {"grow": grow, "feather": feather, "progress": progress}
    return run(image, mask, steps=steps, samples=samples, seed=seed, **more)


def generate(
    model="prior",
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
    """Generates a list of images from noise.

    The arguments are those of a call of `Generator`, which is kept for later calls.
    """
    sampling = {"sampler": sampler, "steps": steps, "eta": eta, "seed": seed, "progress": progress}
    run = _shared(Generator, model)
    return run(count=count, size=size, class_labels=class_labels, guidance_scale=guidance_scale, **sampling)


def frames(source, *, model=None, **settings):
    """The denoised frames of a camera, a file or a URL, as RGB."""
    return _Frames(source, model, _settings(**settings))
