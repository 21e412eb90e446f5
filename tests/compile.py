#!/usr/bin/env python3
"""Compares what `eddy compile` writes, run by onnxruntime in Python, with `eddy sample` and `eddy generate`.

`compile.py EDDY`; pip brings onnxruntime where it is missing, and onnx, which checks the files. Prints the largest difference, the size over the
network's, and the milliseconds of one call beside those of one call of the network per evaluation. Exit code 1 if a difference is above 1e-5 of the
largest value, or a file more than 2 % larger than its network (4 % of the tiny pipelines).
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "forms"))
import support

support.ensure_packages("onnxruntime")

import numpy as np
import onnx
import onnxruntime as ort

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
TEXT = ROOT / "tests/data/pipelines/text"
# A pipeline for tests has weights of some hundred KB, and more nodes than weights.
TOLERANCE, GROWTH, GROWTH_OF_SMALL = 1e-5, 1.02, 1.04

# Model, sampler, steps, shape of the sample, class, scale of guidance.
CASES = [
    ("denoise-fast", "ddim", 4, (1, 3, 256, 256), None, None),
    ("denoise-fast", "unipc", 4, (2, 3, 61, 90), None, None),
    ("denoise-fast", "heun", 3, (1, 3, 64, 64), None, None),
    ("digits-ncsn", "dpmpp-2m", 18, (16, 1, 8, 8), None, None),
    ("digits-ddpm", "ddim", 4, (16, 1, 8, 8), 3, None),
    ("digits-ddpm", "euler-a", 10, (4, 1, 8, 8), 3, None),
    ("digits-ddpm", "ddim", 10, (1, 1, 8, 8), 3, 1.5),
    ("digits-ddpm", "dpmpp-2m", 10, (1, 1, 8, 8), 7, 2.5),
    ("prior", "dpmpp-2m", 5, (1, 3, 48, 40), None, None),
]


# Pipeline, sampler, steps, scale of guidance, prompts and negative prompt (none is an empty one).
TEXT_CASES = [
    ("sd15", "ddim", 6, 7.5, ["a photograph of an astronaut riding a horse"], "!!!"),
    ("sd15", "pndm", 4, 3.0, ["Hi there", "A PHOTOGRAPH OF AN ASTRONAUT"], None),
    ("sd15-euler-ancestral", "euler-a", 5, 1.0, ["Hi there"], None),
]


def session(file):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Without the warning that defaults of inputs are no constants.
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def shortest(call, rounds=15):
    """The shortest of some calls, in milliseconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def feeds_of_network(network, sample):
    """Inputs of the network's size, for its time alone."""
    padded = [-(-side // 16) * 16 if side > 8 else side for side in sample.shape[2:]]
    sample = np.zeros((*sample.shape[:2], *padded), np.float32)
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    batch = {"x": sample.shape, "sigma": (sample.shape[0], 1, *sample.shape[2:])}
    shapes = {port.name: batch.get(port.name, ()) for port in network.get_inputs()}
    return {
        port.name: np.zeros(shapes[port.name] if len(port.shape) == 4 else sample.shape[:1], types[port.type])
        for port in network.get_inputs()
    }


def check(eddy, folder, model, sampler, steps, shape, label, scale):
    def run(*arguments):
        subprocess.run([eddy, *map(str, arguments), "--quiet"], cwd=folder, check=True)

    random = np.random.default_rng(5)
    sampling = ["--sampler", sampler, "--steps", steps]
    guidance = ["--guidance-scale", scale or 1]
    compiled = subprocess.run(
        [eddy, "compile", model, "-o", "whole.onnx", "--json", *map(str, sampling + guidance)], cwd=folder, check=True, capture_output=True
    )
    record = json.loads(compiled.stdout)
    onnx.checker.check_model(str(folder / "whole.onnx"), full_check=True)
    whole = session(folder / "whole.onnx")
    about = whole.get_modelmeta().custom_metadata_map
    taken = {port.name for port in whole.get_inputs()}
    x = random.standard_normal(shape).astype(np.float32) * np.float32(about["eddy.init_noise_sigma"])
    feeds = {"sample": x}
    np.save(folder / "x.npy", x)
    further = []
    if label is not None:
        feeds["class"] = np.full(shape[0], label, np.int64)
        further += ["--class", label]
    if "noise" in taken:
        feeds["noise"] = random.standard_normal((record["evaluations"], *shape)).astype(np.float32)
        np.save(folder / "z.npy", feeds["noise"])
        further += ["--noise", "z.npy"]
    if scale is None:
        run("sample", model, "--input", "x.npy", "-o", "y.npy", *sampling, *further)
    else:
        run("generate", "-m", model, "--initial-noise", "x.npy", "-o", "y.npy", *sampling, *further, *guidance)
    expected = np.load(folder / "y.npy").reshape(shape)
    (found,) = whole.run(None, feeds)
    result = found
    if scale is not None:
        # `eddy generate` gives images of 0 to 1.
        low, high = map(float, about["eddy.range"].split())
        result = np.clip((found - low) / (high - low), 0, 1)
    difference = np.abs(result - expected).max() / max(1, np.abs(expected).max())
    if scale is not None:
        # The default may be replaced.
        other = whole.run(None, feeds | {"guidance_scale": np.array(1, np.float32), "negative_class": np.array(0)})[0]
        plain = json.loads(subprocess.run([eddy, "compile", model, "-o", "plain.onnx", "--json", *map(str, sampling), "--guidance-scale", "1"],
                                          cwd=folder, check=True, capture_output=True).stdout)
        assert plain["guidance_scale"] is None
        conditional = session(folder / "plain.onnx").run(None, feeds)[0]
        difference = max(difference, np.abs(other - conditional).max())
    growth = record["bytes"] / record["network_bytes"]
    network = session(MODELS / model / f"{model}.onnx")
    sample = np.concatenate([x, x]) if scale else x
    alone = feeds_of_network(network, sample)
    took = shortest(lambda: whole.run(None, feeds))
    loop = shortest(lambda: [network.run(None, alone) for _ in range(record["evaluations"])])
    good = difference <= TOLERANCE and growth <= GROWTH
    what = f"{model} {sampler} {steps} {'x'.join(map(str, shape))}" + (f" guidance {scale}" if scale else "")
    print(f"{'ok  ' if good else 'FAIL'} {what:46} {difference:8.1e} {growth:7.4f} {took:9.2f} ms {loop:9.2f} ms", flush=True)
    return good


def check_text(eddy, folder, pipeline, sampler, steps, scale, prompts, negative):
    for file, at in json.loads((TEXT / "files.json").read_text())[pipeline].items():
        (folder / "p" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEXT / "folders" / at, folder / "p" / file)
    options = ["--sampler", sampler, "--steps", str(steps), "--guidance-scale", str(scale)]
    compiled = subprocess.run([eddy, "compile", "p", "-o", "whole.onnx", "--json", *options], cwd=folder, check=True, capture_output=True)
    record = json.loads(compiled.stdout)
    known = {it["text"]: it["ids"] for it in json.loads((TEXT / "tokens.json").read_text())["sd15/tokenizer"]["texts"]}
    onnx.checker.check_model(str(folder / "whole.onnx"), full_check=True)
    whole = session(folder / "whole.onnx")
    random = np.random.default_rng(5)
    count, sigma = len(prompts), np.float32(whole.get_modelmeta().custom_metadata_map["eddy.init_noise_sigma"])
    start = random.standard_normal((count, 4, 8, 12)).astype(np.float32)
    feeds = {"sample": start * sigma, "tokens": np.array([known[prompt] for prompt in prompts])}
    if negative is not None:
        feeds["negative_tokens"] = np.array([known[negative]])
    if any(port.name == "noise" for port in whole.get_inputs()):
        feeds["noise"] = random.standard_normal((record["evaluations"], *start.shape)).astype(np.float32)
    (found,) = whole.run(None, feeds)
    difference = 0.0
    for i, prompt in enumerate(prompts):
        np.save(folder / "x.npy", start[i : i + 1])
        further = [] if negative is None else ["--negative-prompt", negative]
        if "noise" in feeds:
            # The last step draws none.
            np.save(folder / "z.npy", feeds["noise"][:-1, i : i + 1])
            further += ["--noise", "z.npy"]
        size = ["--size", "96x64", "--prompt", prompt, "--initial-noise", "x.npy", "--quiet"]
        subprocess.run([eddy, "generate", "-m", "p", "-o", "y.npy", *size, *options, *further], cwd=folder, check=True)
        difference = max(difference, np.abs(np.clip(found[i] / 2 + 0.5, 0, 1) - np.load(folder / "y.npy")[0]).max())
    growth = record["bytes"] / record["network_bytes"]
    good = difference <= TOLERANCE and growth <= GROWTH_OF_SMALL
    print(f"{'ok  ' if good else 'FAIL'} {f'{pipeline} {sampler} {steps}, {count} prompts, guidance {scale}':46} {difference:8.1e} {growth:7.4f}", flush=True)
    return good


def main():
    eddy = pathlib.Path(sys.argv[1]).resolve()
    good = True
    print(f"     {'':46} {'differs':>8} {'size':>7} {'one graph':>12} {'calls':>12}")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            good &= check(eddy, pathlib.Path(folder), *case)
    for case in TEXT_CASES:
        with tempfile.TemporaryDirectory() as folder:
            good &= check_text(eddy, pathlib.Path(folder), *case)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
