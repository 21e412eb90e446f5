"""Tests Eddy with an NVIDIA GPU, and its errors without one: `python3 tests/gpu.py EDDY FOLDER`.

FOLDER holds a `libonnxruntime.so` for GPUs with its providers, such as `onnxruntime/capi` of an unpacked onnxruntime-gpu wheel;
CUDA and cuDNN (and TensorRT) must be found by the loader. The errors of wrong libraries are tested everywhere; what needs
a GPU is tested on each device that works by `eddy doctor`, and is otherwise reported as skipped. Exit code 0 if all tests pass.

Needs the standard library only.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PHOTO = ROOT / "tests/data/noisy-chelsea.png"
# Whole frame against bare session, on the same GPU in the same run.
RATIO = 1.05
failures = []


def eddy(*arguments, cache=None, **variables):
    """Runs it, for five minutes at most."""
    environment = {**os.environ, **variables}
    environment.pop("ORT_DYLIB_PATH", None)
    if cache:
        environment["XDG_CACHE_HOME"] = str(cache)
    words = [EDDY, *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)


def says(what, holds, found=""):
    print(f"{'ok  ' if holds else 'BAD '} {what}{': ' if found else ''}{found}", flush=True)
    if not holds:
        failures.append(what)


def records(run):
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def worst(one, other):
    """The largest difference between two images, in levels, and how many samples differ."""
    one, other = one.read_bytes(), other.read_bytes()
    if len(one) != len(other) or one[:54] != other[:54]:
        return 255, len(one)
    differences = [abs(a - b) for a, b in zip(one[54:], other[54:])]
    return max(differences), sum(d > 0 for d in differences)


def is_one_clear_line(run):
    lines = [line for line in run.stderr.splitlines() if line.startswith("eddy: ")]
    return run.returncode in (2, 5, 6) and len(lines) == 1 and "panicked" not in run.stderr


def wrong_libraries(work):
    """Each is an error in one line: no crash, no hang, nothing written."""

    def tampered(name, change):
        folder = work / name
        folder.mkdir()
        for file in FOLDER.iterdir():
            # ONNX Runtime looks beside its own file, wherever a link to that stands.
            if file.name.startswith("libonnxruntime.so"):
                shutil.copy(file, folder / file.name)
            elif file.is_file():
                (folder / file.name).symlink_to(file.resolve())
        change(folder)
        return folder

    def without(part):
        return lambda folder: [file.unlink() for file in folder.iterdir() if part in file.name]

    def instead(part, content):
        def change(folder):
            for file in list(folder.iterdir()):
                if part in file.name:
                    with open(file, "rb") as whole:
                        start = whole.read(1 << 18)
                    file.unlink()
                    file.write_bytes(content(start))

        return change

    def text(part):
        return instead(part, lambda start: b"This is not a library but a text that is longer than the headers of one.\n" * 9)

    def cut(part):
        return instead(part, lambda start: start)

    def foreign(part):
        # The CPU that it is for, in its header: 62 is x86-64, 183 is 64-bit ARM.
        return instead(part, lambda start: start[:18] + bytes([183 if start[18] == 62 else 62]) + start[19:])

    cases = [
        ("no CUDA provider beside it", without("providers_cuda"), "cuda"),
        ("no shared provider beside it", without("providers_shared"), "cuda"),
        ("a CUDA provider that is a text file", text("providers_cuda"), "cuda"),
        ("a CUDA provider that is cut off", cut("providers_cuda"), "cuda"),
        ("a CUDA provider for another CPU", foreign("providers_cuda"), "cuda"),
        ("no TensorRT provider beside it", without("providers_tensorrt"), "tensorrt"),
        ("a runtime that is a text file", text("libonnxruntime.so"), "cuda"),
        ("a runtime that is cut off", cut("libonnxruntime.so"), "cuda"),
        ("a runtime for another CPU", foreign("libonnxruntime.so"), "cuda"),
        ("an empty folder", lambda folder: [file.unlink() for file in folder.iterdir()], "cuda"),
    ]
    for what, change, device in cases:
        folder = tampered(what.replace(" ", "-"), change)
        output = work / "none.png"
        run = eddy("denoise", PHOTO, "-o", output, "--device", device, "--runtime", folder)
        line = next((line for line in run.stderr.splitlines() if line.startswith("eddy: ")), run.stderr[-300:])
        says(what, is_one_clear_line(run) and not output.exists(), f"exit code {run.returncode}, {line}")


def devices():
    run = eddy("doctor", "--json", "--runtime", FOLDER)
    page = records(run)
    says("the doctor comes to its end", run.returncode in (0, 6) and page, run.stderr.strip()[-200:])
    tried = page[0]["devices"] if page else []
    for device in tried:
        print(f"     {device}")
    return [device["device"] for device in tried if device["works"] and device["device"] != "cpu"]


def on(device, work):
    """What is to hold on a GPU."""
    options = ["--runtime", FOLDER, "--device", device]
    cache = work / "cache"
    # The digit networks have operators that ONNX Runtime leaves to the CPU.
    check = eddy("check", *options, cache=cache)
    says(f"{device}: every model gives what was recorded", check.returncode == 0, check.stdout + check.stderr)
    check = eddy("check", "denoise-fast", *options, "--require-device", cache=cache)
    says(f"{device}: without the CPU", check.returncode == 0, check.stderr)
    nodes = eddy("info", "denoise-fast", "--nodes", *options, cache=cache)
    says(f"{device}: nodes are counted", nodes.returncode == 0, " ".join(l.strip() for l in nodes.stdout.splitlines() if "nodes" in l))

    here = work / "cpu.bmp"
    for model in ["denoise-fast", "denoise"]:
        run = eddy("denoise", PHOTO, "-o", here, "-m", model, "--sigma", 25)
        assert run.returncode == 0, run.stderr
        # TF32 and other orders of sums in f32, 11 bits in f16.
        for precision, allowed in [("f32", 1), ("f16", 2)]:
            there = work / "gpu.bmp"
            run = eddy("denoise", PHOTO, "-o", there, "-m", model, "--sigma", 25, "--precision", precision, *options, cache=cache)
            found = worst(here, there) if run.returncode == 0 else (run.stderr, 0)
            says(f"{device}: {model} in {precision} as on the CPU", run.returncode == 0 and found[0] <= allowed, f"{found}")
    here, there = work / "cpu-large.bmp", work / "gpu-large.bmp"
    for output, extra in [(here, []), (there, ["--precision", "f32", *options])]:
        run = eddy("upscale", PHOTO, "-o", output, "-s", 2, "--steps", 4, *extra, cache=cache)
        says(f"{output.stem}: enlarged in four steps", run.returncode == 0, run.stderr.strip())
    if there.exists():
        found = worst(here, there)
        says(f"{device}: enlarging as on the CPU", found[0] <= 2, f"{found}")

    stream = work / "gpu.y4m"
    run = eddy("denoise", *[PHOTO] * 5, "-o", stream, "--temporal=on", "--json", *options, cache=cache)
    says(f"{device}: a stream", run.returncode == 0 and stream.exists(), run.stderr.strip()[-200:])

    for size in ["640x480", "1920x1080"]:
        for steps in [1, 4]:
            bench = eddy("bench", "denoise-fast", "--size", size, "--steps", steps, "--json", *options, cache=cache)
            found = records(bench)
            ratio = found[0]["ratio"] if found else 99
            session = found[0]["session_ms"] if found else bench.stderr
            says(f"{device}: {size}, {steps} steps: whole frame / bare session", ratio <= RATIO, f"{ratio:.3f}, session {session} ms")


def engines(work):
    """TensorRT's engines are kept, and built anew where they are torn."""
    cache = work / "engines"
    prepare = ["prepare", "denoise-fast", "--device", "tensorrt", "--size", "640x480", "--runtime", FOLDER]
    started = time.monotonic()
    run = eddy(*prepare, cache=cache)
    says("an engine is built", run.returncode == 0, f"{time.monotonic() - started:.1f} s; {run.stderr.strip()[-200:]}")
    started = time.monotonic()
    run = eddy(*prepare, cache=cache)
    says("and found again", run.returncode == 0, f"{time.monotonic() - started:.1f} s; {run.stderr.strip()[-200:]}")
    for engine in cache.rglob("*.engine"):
        engine.write_bytes(engine.read_bytes()[:1000])
    run = eddy(*prepare, cache=cache)
    says("a torn one is built anew", run.returncode == 0 and "torn" in run.stderr + run.stdout, run.stderr.strip()[-200:])


def main():
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        wrong_libraries(work)
        found = devices()
        for device in found:
            on(device, work)
            shutil.rmtree(work / "cache", ignore_errors=True)
        if any(device.startswith("tensorrt") for device in found):
            engines(work)
        if not found:
            print("     no GPU works here: nothing was run on one")
    print("all held" if not failures else f"{len(failures)} did not hold: {failures}")
    return 1 if failures else 0


if len(sys.argv) != 3:
    sys.exit(__doc__.splitlines()[0])
EDDY, FOLDER = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
sys.exit(main())
