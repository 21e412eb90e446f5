from os import PathLike
from typing import Any, Callable, Dict, Iterator, List, Literal, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str
onnxruntime_version: str
models: List[str]
"""Names of the models in the package."""

Progress = Callable[[int, int], Any]
"""Called with the evaluations done and their total. An exception stops the run, and so does ``False``."""
Sampler = str
Sigma = Union[float, Tuple[float, float], Literal["auto"], None]
"""The standard deviation of noise in 8-bit units; a pair is for luma and chroma; estimated by None and ``"auto"``."""
Model = Union[str, "PathLike[str]"]
"""A model of `models`, the folder of a model package, or where it says so an ``.onnx`` file or a folder in the
layout of diffusers."""

class Error(Exception): ...
class UsageError(Error, ValueError): ...
class InputError(Error, OSError): ...
class OutputError(Error, OSError): ...
class ModelError(Error): ...
class DeviceError(Error): ...
class EvaluationError(Error): ...
class Interrupted(Error): ...

class Image(np.ndarray[Any, Any]):
    """An array that notebooks show as an image."""

    info: Dict[str, Any]
    """What is known of it: ``sigma``, ``steps`` and ``tiles`` of a denoised image, ``time`` of a frame."""
    def _repr_png_(self) -> Optional[bytes]: ...

class Denoiser:
    """Removes noise from images. Its network is loaded once; several threads may use it, one at a time.

    Without a ``model`` each image is assessed: ``camera`` for the noise of cameras and codecs, else ``denoise-fast``.
    A model is a name, a folder, or an ``.onnx`` file, which is run some dozens of times to find out how it is used.
    """

    def __init__(
        self,
        model: Optional[Model] = None,
        *,
        device: Optional[str] = None,
        threads: Optional[int] = None,
        max_memory: Optional[int] = None,
        precision: Optional[Literal["f32", "f16", "int8"]] = None,
        runtime: Optional[Model] = None,
    ) -> None:
        """``device`` is ``"cpu"``, ``"cuda"``, ``"tensorrt"``, ``"auto"``, ...; ``max_memory`` is in bytes, of the
        whole process; ``runtime`` is an ONNX Runtime library other than the one in the package, the same in a
        process."""
    def __call__(
        self,
        image: ArrayLike,
        *,
        sigma: Sigma = None,
        steps: Optional[int] = None,
        eta: float = 0.0,
        seed: int = 0,
        strength: float = 1.0,
        progress: Optional[Progress] = None,
    ) -> Image:
        """The image without its noise, of the same shape and dtype.

        ``image`` is ``[H, W]`` or ``[H, W, C]``: gray, gray and alpha, RGB, RGB and alpha; uint8, uint16, or floating
        point from 0 to 1, which is rounded to 16 bits. ``sigma`` is the standard deviation of its noise in 8-bit
        units, estimated if it is left out; a pair is for luma and chroma. ``strength`` blends the result (1) with the
        input (0). The result's ``info`` has the ``sigma`` that was removed.
        """
    def file(
        self,
        source: Union[str, "PathLike[str]"],
        output: Union[str, "PathLike[str]"],
        *,
        format: Optional[str] = None,
        jpeg_quality: Optional[int] = None,
        sigma: Sigma = None,
        steps: Optional[int] = None,
        eta: float = 0.0,
        seed: int = 0,
        strength: float = 1.0,
        progress: Optional[Progress] = None,
    ) -> Dict[str, Any]:
        """Denoises an image file, with the result of ``eddy denoise source -o output``, byte for byte: depth, alpha,
        EXIF and ICC profile are kept where the format can hold them, and the file appears whole or not at all.

        ``format`` is ``"png"``, ``"jpg"``, ..., by default that of the output's extension; ``jpeg_quality`` is 1 to
        100. The dict has the ``sigma`` that was removed, ``steps``, ``tiles``, and as ``warnings`` what the format
        could not hold. An output that is there is replaced, and one that is the source is refused.
        """

class Upscaler:
    """Enlarges images by ``scale`` along each axis."""

    scale: int
    def __init__(self, model: Model = "upscale-x2", **settings: Any) -> None:
        """The settings are those of `Denoiser`."""
    def __call__(
        self,
        image: ArrayLike,
        *,
        steps: Optional[int] = None,
        eta: float = 0.0,
        seed: int = 0,
        progress: Optional[Progress] = None,
    ) -> Image:
        """The enlarged image, ``[scale * H, scale * W]`` or with channels as the input, of its dtype. One step gives
        the highest PSNR, several give texture."""

class Inpainter:
    """Fills masked areas of images. The settings are those of `Denoiser`."""

    def __init__(self, model: Model = "prior", **settings: Any) -> None: ...
    def __call__(
        self,
        image: ArrayLike,
        mask: ArrayLike,
        *,
        steps: Optional[int] = None,
        samples: int = 4,
        seed: int = 0,
        grow: int = 0,
        feather: int = 0,
        progress: Optional[Progress] = None,
    ) -> Image:
        """The image with new content where ``mask`` (``[H, W]``, bool or an image) is true or white. All other pixels
        are those of ``image``. ``samples`` are averaged; ``grow`` and ``feather`` are in pixels."""

class Generator:
    """Generates images from noise. The settings are those of `Denoiser`."""

    def __init__(self, model: Model = "prior", **settings: Any) -> None: ...
    def __call__(
        self,
        *,
        count: int = 1,
        size: Optional[Tuple[int, int]] = None,
        class_labels: Union[int, Sequence[int], None] = None,
        guidance_scale: Optional[float] = None,
        sampler: Optional[Sampler] = None,
        steps: Optional[int] = None,
        eta: Optional[float] = None,
        seed: int = 0,
        progress: Optional[Progress] = None,
    ) -> List[Image]:
        """``count`` images, uint8 ``[H, W, C]``, of ``size`` (width, height). Image i has the seed ``seed + i`` and
        the class ``class_labels[i]``, whose labels take turns."""

class TextToImage:
    """Makes images of texts by a pipeline of several networks, a folder in the layout of diffusers: Stable Diffusion, Flux
    and others. The settings are those of `Denoiser`; ``max_memory`` decides which networks stay loaded between calls."""

    def __init__(self, folder: Model, **settings: Any) -> None: ...
    def __call__(
        self,
        prompt: str = "",
        *,
        negative_prompt: Optional[str] = None,
        image: Optional[ArrayLike] = None,
        mask: Optional[ArrayLike] = None,
        control: Optional[ArrayLike] = None,
        class_label: Optional[int] = None,
        size: Optional[Tuple[int, int]] = None,
        steps: Optional[int] = None,
        sampler: Optional[Sampler] = None,
        eta: Optional[float] = None,
        guidance_scale: Optional[float] = None,
        guidance_rescale: float = 0.0,
        guidance_interval: Optional[Tuple[float, float]] = None,
        image_guidance_scale: Optional[float] = None,
        clip_skip: int = 0,
        strength: Optional[float] = None,
        noise_level: Optional[int] = None,
        control_scale: Optional[float] = None,
        seed: int = 0,
        progress: Optional[Progress] = None,
    ) -> Image:
        """An image, uint8 ``[H, W, C]``, the same for the same ``seed``; what is left out is the pipeline's default.

        ``image`` is what to start from, edit, inpaint (where ``mask`` is true or white) or enlarge, ``strength`` from 0 to
        1 how much of it is replaced, ``control`` a ControlNet's image; ``size`` is (width, height). ``info`` has the seed,
        sampler, steps, guidance scale and evaluations."""

class Network:
    """A network and its training schedule, for any sampler: a model's name, a package, or a folder of diffusers."""

    def __init__(self, model: Model, **settings: Any) -> None: ...
    def sample(
        self,
        noise: ArrayLike,
        *,
        sampler: Sampler = "ddim",
        steps: int = 50,
        eta: Optional[float] = None,
        class_label: Optional[int] = None,
        seed: int = 0,
        progress: Optional[Progress] = None,
    ) -> NDArray[np.float32]:
        """The sample of ``noise``, both ``[B, C, H, W]``; noise has a standard deviation of 1. Without a
        ``class_label`` the samples are unconditional."""

class Stream:
    """Denoises frames one by one, each with what is known from those before it.

    A frame is uint8: ``[H, W, 3]`` for ``rgb24`` and ``bgr24``; planes one after the other, such as OpenCV's
    ``[3 * H / 2, W]``, for ``nv12`` and ``yuv420p``; ``[H, W]`` for ``gray``.
    """

    frame_bytes: int
    """The bytes of one frame."""
    def __init__(
        self,
        width: int,
        height: int,
        *,
        pixel_format: str = "rgb24",
        fps: int = 30,
        model: Optional[Model] = None,
        **settings: Any,
    ) -> None: ...
    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The denoised frame, of the same shape."""
    def close(self) -> None: ...
    def __enter__(self) -> "Stream": ...
    def __exit__(self, *_: Any) -> None: ...

class _Frames(Iterator[Image]):
    size: Tuple[int, int]
    fps: float
    def __next__(self) -> Image: ...
    def close(self) -> None: ...
    def __enter__(self) -> "_Frames": ...
    def __exit__(self, *_: Any) -> None: ...

def denoise(
    image: ArrayLike,
    *,
    model: Optional[Model] = None,
    sigma: Sigma = None,
    steps: Optional[int] = None,
    eta: float = 0.0,
    seed: int = 0,
    strength: float = 1.0,
    progress: Optional[Progress] = None,
) -> Image:
    """Removes noise from an image. The arguments are those of a call of `Denoiser`, which is kept for later calls."""

def upscale(
    image: ArrayLike,
    scale: int = 2,
    *,
    model: Optional[Model] = None,
    steps: Optional[int] = None,
    eta: float = 0.0,
    seed: int = 0,
    progress: Optional[Progress] = None,
) -> Image:
    """Enlarges an image by 2 or 4, or by the factor of ``model``. The arguments are those of a call of `Upscaler`."""

def inpaint(
    image: ArrayLike,
    mask: ArrayLike,
    *,
    model: Model = "prior",
    steps: Optional[int] = None,
    samples: int = 4,
    seed: int = 0,
    grow: int = 0,
    feather: int = 0,
    progress: Optional[Progress] = None,
) -> Image:
    """Fills masked areas of an image. The arguments are those of a call of `Inpainter`."""

def generate(
    model: Model = "prior",
    *,
    count: int = 1,
    size: Optional[Tuple[int, int]] = None,
    class_labels: Union[int, Sequence[int], None] = None,
    guidance_scale: Optional[float] = None,
    sampler: Optional[Sampler] = None,
    steps: Optional[int] = None,
    eta: Optional[float] = None,
    seed: int = 0,
    progress: Optional[Progress] = None,
) -> List[Image]:
    """Generates images from noise. The arguments are those of a call of `Generator`."""

def frames(source: Model, *, model: Optional[Model] = None, **settings: Any) -> _Frames:
    """The denoised frames of a camera (``/dev/video0``), a file or a URL (with ffmpeg installed), as uint8
    ``[H, W, 3]``, whose ``info`` has the ``time`` in seconds. No frame is dropped."""

def result_name(path: Model) -> Optional[str]:
    """The name that ``eddy denoise`` gives to the result for this file of a folder: its own, or one in ``.png`` for a
    format that is not written (HEIF, ...). ``None`` for a file that it leaves out: hidden, or no image by its name."""

def delete_leftovers(folder: Model) -> None:
    """Deletes the temporary files of killed processes in a folder. Those of running ones are kept."""
