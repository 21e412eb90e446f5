"""What the package does, from an installed wheel: python -m pytest tests/ (numpy and pytest alone are needed)."""

import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import eddy

REPOSITORY = pathlib.Path(os.environ["EDDY_REPOSITORY"])


def scene(height=96, width=128, sigma=20.0, seed=1):
    """A smooth scene in color, and the same with white noise: uint8, [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / (9 + c)) * np.cos(y / (11 - c)) for c in range(3)]
    clean = np.stack(waves, axis=-1)
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    as_bytes = lambda values: values.round().clip(0, 255).astype(np.uint8)
    return as_bytes(clean), as_bytes(clean + noise)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def test_denoise_removes_noise_and_says_how_much():
    clean, noisy = scene()
    before = noisy.copy()
    result = eddy.denoise(noisy)
    assert psnr(result, clean) > psnr(noisy, clean) + 6
    assert 15 < result.info["sigma"] < 25
    assert np.array_equal(noisy, before), "the input is not changed"
    assert result._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_shape_and_dtype_are_kept(dtype, channels):
    _, noisy = scene(40, 56)
    values = {None: noisy[..., 0], 1: noisy[..., :1], 3: noisy}.get(channels)
    if values is None:
        alpha = np.full(noisy.shape[:2] + (1,), 77, np.uint8)
        values = np.concatenate([noisy[..., : channels - 1], alpha], axis=-1)
    scale = {np.uint8: 1, np.uint16: 257}.get(dtype, 1 / 255)
    image = (values.astype(float) * scale).astype(dtype)
    result = eddy.denoise(image, sigma=20, model="denoise-fast")
    assert result.shape == image.shape and result.dtype == dtype
    reference = eddy.denoise(values, sigma=20, model="denoise-fast")
    assert np.abs(np.asarray(result, float) / scale - np.asarray(reference, float)).max() <= 0.51
    if channels in (2, 4):
        assert np.allclose(result[..., -1], image[..., -1], atol=1e-7), "alpha is kept"


def test_views_and_other_arrays_are_read_as_they_look():
    _, noisy = scene(64, 96)
    mirrored = noisy[::-1, ::-1]
    assert np.array_equal(eddy.denoise(mirrored, sigma=20), eddy.denoise(mirrored.copy(), sigma=20))
    # Columns after each other in memory.
    for other in (noisy[..., 0].T, np.asfortranarray(noisy), np.asfortranarray(noisy / 255)):
        ordered = np.ascontiguousarray(other)
        assert np.array_equal(eddy.denoise(other, sigma=20), eddy.denoise(ordered, sigma=20))
        assert np.array_equal(eddy.upscale(other), eddy.upscale(ordered))

    class Other:
        __array_interface__ = noisy.__array_interface__

    class Tensor:
        __dlpack__, __dlpack_device__ = noisy.__dlpack__, noisy.__dlpack_device__

    expected = eddy.denoise(noisy, sigma=20)
    assert np.array_equal(eddy.denoise(Other(), sigma=20), expected)
    assert np.array_equal(eddy.denoise(Tensor(), sigma=20), expected)


def test_strength_blends():
    _, noisy = scene(48, 48)
    assert np.array_equal(eddy.denoise(noisy, sigma=20, strength=0), noisy)


def test_file_keeps_depth_and_replaces_nothing_that_is_read(tmp_path):
    source, output = tmp_path / "noisy.png", tmp_path / "clean.png"
    _, noisy = scene()
    source.write_bytes(eddy._eddy.encode_png(noisy.astype(np.uint16) * 257))
    known = eddy.Denoiser().file(source, output)
    assert known["sigma"] > 15 and known["steps"] == 1 and known["warnings"] == []
    expected = eddy._eddy.encode_png(eddy.denoise(noisy.astype(np.uint16) * 257))
    assert output.read_bytes() == expected
    assert eddy.Denoiser("denoise-fast").file(source, output, sigma=9)["sigma"] == pytest.approx(9)
    before = source.read_bytes()
    for wrong, options in [(source, {}), (tmp_path / "clean.txt", {}), (output, {"jpeg_quality": 0})]:
        with pytest.raises(eddy.UsageError):
            eddy.Denoiser().file(source, wrong, **options)
    with pytest.raises(eddy.InputError, match="no such file"):
        eddy.Denoiser().file(tmp_path / "none.png", output)
    assert source.read_bytes() == before and sorted(tmp_path.iterdir()) == [output, source]


def test_names_and_leftovers_of_a_folder(tmp_path):
    names = ["a/b.JPG", "c.heic", ".hidden.png", "d.txt"]
    assert [eddy.result_name(name) for name in names] == ["b.JPG", "c.png", None, None]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, other = tmp_path / f".eddy-{gone.pid}-1-aB3dE6.part", tmp_path / "mine.part"
    left.touch(), other.touch()
    eddy.delete_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_upscale():
    clean, _ = scene()
    small = clean.reshape(48, 2, 64, 2, 3).mean((1, 3)).round().astype(np.uint8)
    large = eddy.upscale(small, 2)
    assert large.shape == clean.shape and psnr(large, clean) > 35
    assert eddy.Upscaler("upscale-x4").scale == 4
    with pytest.raises(eddy.UsageError, match="2 and 4"):
        eddy.upscale(small, 3)


def test_inpaint_changes_nothing_but_the_mask():
    clean, _ = scene(64, 64)
    mask = np.zeros((64, 64), bool)
    mask[20:30, 25:40] = True
    damaged = clean.copy()
    damaged[mask] = 0
    whole = eddy.inpaint(damaged, mask, steps=4, samples=1)
    assert np.array_equal(whole[~mask], clean[~mask])
    assert psnr(whole[mask], clean[mask]) > psnr(damaged[mask], clean[mask]) + 10
    with pytest.raises(eddy.UsageError):
        eddy.inpaint(damaged, mask[:50])


def test_generate_depends_on_its_seed_alone():
    digits = eddy.generate("digits-ddpm", class_labels=[7, 3], count=4, seed=5)
    assert len(digits) == 4 and digits[0].shape == (8, 8, 1) and digits[0].dtype == np.uint8
    alone = eddy.generate("digits-ddpm", class_labels=3, seed=6)
    assert np.array_equal(alone[0], digits[1])


def test_text_to_image(tmp_path):
    stored = REPOSITORY / "tests/data/pipelines/text"
    for file, place in json.loads((stored / "files.json").read_text())["sd15-euler"].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stored / "folders" / place, tmp_path / file)
    pipeline, seen = eddy.TextToImage(tmp_path), []
    image = pipeline("a lighthouse", size=(64, 48), steps=3, seed=4, progress=lambda *at: seen.append(at))
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and seen
    assert image.info["steps"] == 3 and image.info["seed"] == 4 and image.info["guidance_scale"] == 7.5
    assert np.array_equal(image, pipeline("a lighthouse", size=(64, 48), steps=3, seed=4))
    assert not np.array_equal(image, pipeline("a storm", size=(64, 48), steps=3, seed=4))
    near = pipeline("a storm", image=image, strength=0.4, steps=4, seed=4)
    assert near.shape == image.shape and not np.array_equal(near, image)
    hole = np.zeros((48, 64), bool)
    hole[10:30, 10:30] = True
    assert pipeline("a storm", image=image, mask=hole, steps=4, strength=1.0).shape == image.shape
    with pytest.raises(eddy.UsageError, match="no class|class"):
        pipeline("a storm", class_label=3)
    with pytest.raises(eddy.ModelError):
        eddy.TextToImage(tmp_path / "vae_decoder")


def test_network_samples_tensors():
    noise = np.random.default_rng(2).normal(size=(2, 1, 8, 8)).astype(np.float32)
    network = eddy.Network("digits-ddpm")
    sample = network.sample(noise, steps=10)
    assert sample.shape == noise.shape and sample.dtype == np.float32 and np.abs(sample).max() < 1.6
    assert np.array_equal(sample, network.sample(noise, steps=10))
    assert not np.array_equal(sample, network.sample(noise, steps=10, sampler="dpmpp-2m"))
    with pytest.raises(eddy.UsageError, match="batch, channels"):
        network.sample(noise[0])
    three = network.sample(noise, steps=10, class_label=3)
    assert not np.array_equal(sample, three)
    assert np.array_equal(sample, network.sample(noise, steps=10)), "a class is of one call"
    with pytest.raises(eddy.UsageError, match="no class 10"):
        network.sample(noise, class_label=10)
    with pytest.raises(eddy.UsageError, match="unknown sampler"):
        network.sample(noise, sampler="best")


def test_onnx_file():
    model = REPOSITORY / "models/denoise-fast/denoise-fast.onnx"
    clean, noisy = scene()
    assert psnr(eddy.Denoiser(model)(noisy), clean) > psnr(noisy, clean) + 6


@pytest.mark.parametrize("pixel_format", ["rgb24", "nv12", "yuv420p", "gray"])
def test_stream_uses_previous_frames(pixel_format):
    height, width = 96, 128
    shape = {"rgb24": (height, width, 3), "gray": (height, width)}.get(pixel_format, (height * 3 // 2, width))
    clean = np.full(shape, 120, np.uint8)
    clean[: height // 2, : width // 2] = 90
    rng = np.random.default_rng(3)
    errors = []
    with eddy.Stream(width, height, pixel_format=pixel_format, fps=25) as stream:
        for _ in range(12):
            noisy = (clean + rng.normal(0, 12, shape)).round().clip(0, 255).astype(np.uint8)
            result = stream(noisy)
            assert result.shape == shape and result.dtype == np.uint8
            errors.append(np.mean((result[:height].astype(float) - clean[:height]) ** 2))
        with pytest.raises(eddy.UsageError, match="bytes"):
            stream(noisy[1:])
    assert np.mean(errors[-3:]) < np.mean(errors[:2])
    with pytest.raises(eddy.UsageError, match="closed"):
        stream(noisy)


def test_frames_of_a_file(tmp_path):
    clip = tmp_path / "clip.y4m"
    rng = np.random.default_rng(4)
    with open(clip, "wb") as file:
        file.write(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n")
        for _ in range(5):
            luma = (120 + rng.normal(0, 8, 64 * 48)).round().clip(0, 255).astype(np.uint8)
            file.write(b"FRAME\n" + luma.tobytes() + bytes([128]) * (64 * 48 // 2))
    with eddy.frames(clip) as source:
        assert source.size == (64, 48) and source.fps == 25
        images = list(source)
    assert [image.shape for image in images] == [(48, 64, 3)] * 5
    assert images[2].info["time"] == pytest.approx(0.08)
    with pytest.raises(eddy.InputError, match="no such file"):
        eddy.frames(tmp_path / "none.y4m")


def test_progress_is_told_and_stops_a_run():
    _, noisy = scene()
    seen = []
    eddy.denoise(noisy, sigma=20, steps=3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    with pytest.raises(eddy.Interrupted):
        eddy.denoise(noisy, sigma=20, steps=3, progress=lambda done, total: False)

    def fail(done, total):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        eddy.denoise(noisy, sigma=20, progress=fail)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 4, 5), np.uint8), "1 to 4 channels"),
        (np.zeros((2, 4, 4, 3), np.uint8), "1 to 4 channels"),
        (np.zeros((0, 4), np.uint8), "1 to 4 channels"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.full((4, 4), 90.0), "divide by 255"),
        (np.full((4, 4), np.nan), "from 0 to 1"),
        ("text", "expected"),
        (None, "expected"),
    ],
)
def test_wrong_arrays_are_refused(array, message):
    with pytest.raises(eddy.UsageError, match=message):
        eddy.denoise(array)


def test_wrong_settings_are_refused():
    _, noisy = scene(16, 16)
    for given, message in [
        ({"sigma": (1, 2, 3)}, "two for luma and chroma"),
        ({"seed": -1}, "seed -1; expected 0"),
        ({"steps": 1.5}, "whole number"),
    ]:
        with pytest.raises(eddy.UsageError, match=message):
            eddy.denoise(noisy, **given)
    assert eddy.denoise(noisy, sigma="auto").shape == noisy.shape
    with pytest.raises(eddy.UsageError, match="threads"):
        eddy.Denoiser(threads=100_000)
    with pytest.raises(TypeError, match="'thread'"):
        eddy.Denoiser(thread=2)
    with pytest.raises(eddy.UsageError, match="float32; expected uint8"):
        eddy.Stream(16, 16)(np.zeros((16, 16, 3), np.float32))
    with pytest.raises(eddy.Error, match="max_memory="):
        eddy.Denoiser("denoise-fast", max_memory=1000)(noisy, sigma=20)
    for settings, kind in [
        ({"model": "nothing"}, eddy.ModelError),
        ({"model": "upscale-x2"}, eddy.Error),
        ({"device": "abacus"}, eddy.UsageError),
        ({"precision": "f8"}, eddy.UsageError),
        ({"device": "cuda"}, eddy.DeviceError),
    ]:
        with pytest.raises(kind):
            eddy.Denoiser(**settings)
    with pytest.raises(eddy.UsageError):
        eddy.denoise(np.zeros((8, 8), np.uint8), strength=2)


def test_arrays_that_claim_more_than_there_is_are_refused():
    huge = np.broadcast_to(np.uint8(3), (2**30, 2**31, 2))
    small = np.zeros((8, 8), np.uint8)
    noise = np.broadcast_to(np.float32(0), (2**30, 1, 2**14, 2**10))
    for run in (
        lambda: eddy.denoise(huge),
        lambda: eddy.denoise(np.broadcast_to(np.float64(0), (2**29, 2**30))),
        lambda: eddy.inpaint(small, huge[..., 0]),
        lambda: eddy.Stream(16, 16)(huge),
        lambda: eddy.Stream(65_535, 65_535),
        lambda: eddy.Network("digits-ddpm").sample(noise),
        lambda: eddy.generate(size=(65_535, 65_535)),
        lambda: eddy.generate(count=2**40),
        lambda: eddy.generate(steps=2**62),
        lambda: eddy.inpaint(small, small, feather=2**62),
    ):
        with pytest.raises(eddy.UsageError):
            run()


def test_reductions_are_numbers():
    result = eddy.denoise(np.full((8, 8), 7, np.uint8))
    assert round(result.mean()) == 7 and result.max() == 7 and not isinstance(result.sum(), eddy.Image)
    assert isinstance(result + 1, eddy.Image) and isinstance(result[:4], eddy.Image)


def test_a_call_within_its_own_progress_is_refused():
    _, noisy = scene(32, 32)
    denoiser = eddy.Denoiser("denoise-fast")
    refused = []

    def again(done, total):
        with pytest.raises(eddy.UsageError, match="within its own progress"):
            denoiser(noisy)
        refused.append(done)

    result = denoiser(noisy, sigma=20, progress=again)
    assert refused and np.array_equal(result, denoiser(noisy, sigma=20))


def test_two_threads_at_once_and_one_kept_denoiser():
    _, noisy = scene()
    expected = eddy.denoise(noisy, sigma=20)
    denoiser, results = eddy.Denoiser(), [None] * 4

    def work(i):
        results[i] = denoiser(noisy, sigma=20) if i % 2 else eddy.denoise(noisy, sigma=20)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(result, expected) for result in results)


def test_a_thousand_calls_do_not_grow():
    _, noisy = scene(24, 32)
    resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    for _ in range(200):
        eddy.denoise(noisy, sigma=20)
    gc.collect()
    before = resident()
    for _ in range(1000):
        eddy.denoise(noisy, sigma=20)
    gc.collect()
    assert resident() - before < 8 << 20


def test_ctrl_c_stops_a_run():
    program = """
import _thread, signal, threading, numpy as np, eddy
# A shell starts programs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
noisy = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
denoiser = eddy.Denoiser("denoise")
threading.Timer(0.5, _thread.interrupt_main).start()
try:
    for _ in range(100):
        denoiser(noisy, steps=50)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "stopped\n" and done.stderr == ""
