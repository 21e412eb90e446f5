"""Stores the weights of a package's f32 file in 16 bits (with --coarse those of coarse scales in 8), makes its f16 file, and with
--int8 its int8 file, and lists them in its model.toml.

    python precision.py ../denoise-fast
    python precision.py ../denoise-fast --int8 --pool out/pool
    python precision.py ../camera --int8 --photos PHOTOS/train --clips out/clips --validation PHOTOS/validation

All are checked against the f32 file as it was with ONNX Runtime on the CPU, by the validation figures of training, on synthesized images, or on the validation set for networks trained on photographs.
Nothing is written where a file loses more than LARGEST_LOSS, or where an int8 file is not LEAST_GAIN times as fast.
"""

import argparse
import hashlib
import math
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import integers
import jobs
import images
import textures

LARGEST_LOSS = {"f32": 0.005, "f16": 0.02, "int8": 0.3}  # dB, of any of the validation figures
LEAST_GAIN = 1.1
COARSE = 30_000  # weights of a convolution from which it is stored in 8 bits
HALF_TOLERANCE = 0.025  # processors with f16 arithmetic add in 16 bits, too: up to 0.0124 from the f32 file's output on an Arm Cortex-A76
FRAME = (480, 640)
ROUNDS = 25


def half(model):
    """The graph with every float in it a float16: inputs, outputs, weights, constants and casts. Scales of `Resize` stay float32, as ONNX requires."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:] if name}
    # Weights in 8 bits become f32 when the graph is loaded, which the CPU can do, and then f16.
    wide = [node for node in graph.node if node.op_type == "Mul" and node.input[1].endswith(".scale")]
    kept |= {name for node in wide for name in node.input}

    def halved(tensor):
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))

    for tensor in graph.initializer:
        halved(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and not kept.intersection(node.output):
                halved(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT and node.output[0] not in kept:
                attribute.i = TensorProto.FLOAT16
    for node in wide:
        name = node.output[0]
        node.output[0] = f"{name}.f32"
        graph.node.insert(list(graph.node).index(node) + 1, helper.make_node("Cast", [f"{name}.f32"], [name], to=TensorProto.FLOAT16))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def lean(model):
    """The graph with its weights in 16 bits, from which casts make 32 when it is loaded: half as large, and computed in f32 as before."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= 64:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.f16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    return beginning_with(casts, model)


def beginning_with(nodes, model):
    """The model with these nodes before all others, checked."""
    graph = model.graph
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + rest)
    onnx.checker.check_model(model, full_check=True)
    return model


def is_lean(model):
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)


def coarse(model):
    """The graph of `lean` with the weights of large convolutions, which are those of coarse scales, in 8 bits with a scale for each
    output channel: computed in f32 as before. They are most of a network's weights, and the least sensitive."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    large = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16 and math.prod(t.dims) >= COARSE}
    nodes = []
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in large:
            consumer = next(n for n in graph.node if node.output[0] in n.input)
            if consumer.op_type != "Conv":
                continue
            tensor, name = large[node.input[0]], node.output[0]
            values = numpy_helper.to_array(tensor).astype(np.float32)
            scale = least_squares_scale(values)
            integers = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}.i8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            graph.node.remove(node)
            nodes += [
                helper.make_node("Cast", [f"{name}.i8"], [f"{name}.integers"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}.integers", f"{name}.scale"], [name]),
            ]
    return beginning_with(nodes, model)


def least_squares_scale(weights):
    """The step of integers from -127 to 127 for each output channel, of several, at which rounding and clipping change weights least."""
    axes = tuple(range(1, weights.ndim))
    steps = [np.abs(weights).max(axes, keepdims=True) * part / 127 for part in (1, 0.97, 0.94, 0.9, 0.86, 0.82)]
    errors = [((np.clip(np.rint(weights / step), -127, 127) * step - weights) ** 2).sum(axes, keepdims=True) for step in steps]
    return np.take_along_axis(np.stack(steps), np.argmin(errors, 0)[None], 0)[0].astype(np.float32)


def is_coarse(model):
    return any(tensor.data_type == TensorProto.INT8 and tensor.name.endswith(".i8") for tensor in model.graph.initializer)


def session(model, optimized=None, threads=2):
    """Threads that do not spin when idle: sessions that take turns would steal each other's cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def run(running, arrays):
    """The first output in float32, of inputs in the graph's order."""
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    feed = {i.name: np.asarray(a).astype(kinds[i.type]) for i, a in zip(running.get_inputs(), arrays)}
    return running.run(None, feed)[0].astype(np.float32)


def watched(job, running, clean):
    """The job's validation figures in dB, mean over its validation set: images [1, 3, H, W], or examples."""
    network = lambda *inputs: torch.from_numpy(run(running, inputs))
    return np.mean([job.validate(network, image) for image in clean], 0)


def synthesized(seed, count, size=256):
    """Images that are in no training set, [count, 3, size, size] in [0, 1]."""
    rng = np.random.default_rng([seed, 0xE])
    bank = textures.bank(rng, images.BANK_SIZE)
    drawn = np.stack([images.image(rng, bank, size) for _ in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div(255).contiguous()


def calibration(job, args):
    """Inputs as training draws them, of 4 images of each of up to 8 shards of a pool, or of new ones."""
    rng, pool = np.random.default_rng(11), args.pool
    if hasattr(job, "pool"):
        source = job.pool(args)
        for _ in range(24):
            yield [t.numpy() for t in source.batch(rng, 4, 96)[0]]
        return
    shards = sorted(Path(pool).glob("pool-*.npy"))[:8] if pool else []
    if pool and not shards:
        raise SystemExit(f"{pool} holds no pool-*.npy; make one with images.py, or leave --pool out")
    clean = [torch.from_numpy(np.load(s, mmap_mode="r")[:4].copy()).permute(0, 3, 1, 2).float() / 255 for s in shards] or synthesized(12, 32).split(4)
    for batch in clean:
        yield [t.numpy() for t in job.example(rng, batch)[0]]


def seconds(sessions):
    """Seconds of the processor for a frame in each session, [sessions, rounds], one after the other in turn; not of the clock, since what
    else runs on a machine moves that."""
    rng = np.random.default_rng(13)
    x, sigma = (i.shape[1] for i in sessions[0].get_inputs()[:2])
    height, width = (side // (2 if x == 6 else 1) for side in FRAME)
    inputs = [rng.random((1, x, height, width)), np.full((1, sigma, height, width), 0.1)]
    taken = np.zeros((len(sessions), ROUNDS + 3))
    for turn in range(ROUNDS + 3):
        for i, running in enumerate(sessions):
            start = time.process_time()
            run(running, inputs)
            taken[i, turn] = time.process_time() - start
    return taken[:, 3:]


def rounded_up(value):
    """To two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.1e}"


def record(folder, precision, path, tolerance):
    """Writes or replaces a file's table in model.toml, in front of [check]."""
    manifest = folder / "model.toml"
    text = re.sub(rf"\[files\.{precision}\]\n(?:[^\[\n].*\n|\n)*", "", manifest.read_text())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    table = f'[files.{precision}]\npath = "{path.name}"\nsha256 = "{sha256}"\n'
    table += f"tolerance = {tolerance}\n\n" if tolerance else "\n"
    # The most exact first.
    place = "[files." if precision == "f32" and "[files." in text else "[check]"
    manifest.write_text(text.replace(place, table + place, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the package: model.toml and the f32 file that it names")
    parser.add_argument("--int8", action="store_true", help="the int8 file as well; for denoise-fast and camera")
    parser.add_argument("--coarse", action="store_true", help="weights of coarse scales in 8 bits, for networks that are large in the binary")
    parser.add_argument("--pool", help="images for calibration, as images.py writes them; default: a few new ones")
    parser.add_argument("--photos", help="for camera: the folder of photographs that it learned from, for calibration")
    parser.add_argument("--clips", default="out/clips", help="for camera: as for train.py")
    parser.add_argument("--validation", help="for camera: as for train.py")
    args = parser.parse_args()
    torch.set_num_threads(1)
    package = tomllib.loads((args.folder / "model.toml").read_text())
    config = tomllib.loads((Path(__file__).parent / f"configs/{package['name']}.toml").read_text())["model"]
    job = jobs.JOBS[config["job"]](config)
    model = onnx.load(args.folder / package["files"]["f32"]["path"])
    if hasattr(job, "pool") and not (args.photos and args.validation):
        raise SystemExit(f"{package['name']} learned from photographs: --photos and --validation are needed")
    f32 = session(model)
    clean = job.validation(args)["planes"] if hasattr(job, "pool") else list(synthesized(10, 8).split(1))
    before = watched(job, f32, clean)
    pair = [np.load(args.folder / package["check"][k]) for k in ("sample", "sigma", "condition", "denoised") if k in package["check"]]
    print("f32  " + " ".join(f"{b:.2f}" for b in before) + " dB")

    wanted = [] if is_lean(model) else [lean]
    wanted += [coarse] if args.coarse and not is_coarse(model) else []
    for make in wanted:
        path = args.folder / package["files"]["f32"]["path"]
        smaller = make(model)
        change = watched(job, session(smaller), clean) - before
        print(f"{make.__name__:6} " + " ".join(f"{c:+.4f}" for c in change) + " dB of what it was", flush=True)
        if np.abs(change).max() > LARGEST_LOSS["f32"]:
            raise SystemExit(f"weights in fewer bits change a figure by {np.abs(change).max():.3f} dB; at most {LARGEST_LOSS['f32']} dB was to be accepted")
        model = smaller
        onnx.save(smaller, path)
        record(args.folder, "f32", path, None)
        pair[-1] = run(session(smaller), pair[:-1])
        np.save(args.folder / package["check"]["denoised"], pair[-1])
    made = {"f16": half(model)}
    if args.int8:
        made["int8"] = integers.quantized(model, calibration(job, args), session)
    for precision, other in made.items():
        path = args.folder / f"{package['name']}-{precision}.onnx"
        optimized = path.with_suffix(".optimized")
        running = session(other, optimized if precision == "int8" else None)
        change = watched(job, running, clean) - before
        print(f"{precision:4} " + " ".join(f"{c:+.3f}" for c in change) + " dB of f32", flush=True)
        if np.abs(change).max() > LARGEST_LOSS[precision]:
            raise SystemExit(f"{precision} changes a figure by {np.abs(change).max():.3f} dB; at most {LARGEST_LOSS[precision]} dB was to be accepted")
        if precision == "int8":
            operators = integers.operators(onnx.load(optimized))
            optimized.unlink()
            slow, fast = seconds([f32, running])
            gain = np.median(slow / fast)
            print(f"{operators}; a {FRAME[1]}x{FRAME[0]} frame takes {1e3 * np.median(slow):.0f} ms in f32, {1e3 * np.median(fast):.0f} ms in int8: {gain:.2f} times as fast")
            if gain < LEAST_GAIN:
                raise SystemExit(f"int8 is {gain:.2f} times as fast as f32; {LEAST_GAIN} was expected: the processor lacks 8-bit dot products (VNNI), or is busy")
        onnx.save(other, path)
        worst = float(np.abs(run(running, pair[:-1]) - pair[-1]).max())
        record(args.folder, precision, path, HALF_TOLERANCE if precision == "f16" else rounded_up(2 * worst))
        print(f"{path.name}: {path.stat().st_size} bytes; within {worst:.1e} of the recorded output")


if __name__ == "__main__":
    main()
