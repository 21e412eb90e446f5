"""Makes a package's other files from its f32 one: float16, and on request 8-bit integers.

    python precision.py ../denoise
    python precision.py ../denoise-fast --int8 --pool out/pool

The f16 file is half throughout: inputs, outputs, weights. The int8 file is a QDQ graph (`QuantizeLinear`, `DequantizeLinear`): uint8
activations, int8 weights for each output channel, float32 at both ends and on the fine level; it is calibrated on synthetic pictures. Each is measured against f32 on synthetic pictures that calibration did not see and is only kept when it loses no more than
its bar (0.02 dB, 0.3 dB) and, for int8, is at least 1.3 times as fast here. `model.toml` gets the files' entries.
"""

import argparse
import hashlib
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import shrink

LEVELS = (15, 25, 50)
F16_LOSS, INT8_LOSS, INT8_SPEEDUP = 0.02, 0.3, 1.3


def session(model, optimised=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    # Sessions that wait in turn would otherwise spin on each other's cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])


class Examples:
    """Inputs made of synthetic pictures, and how well a session answers them."""

    def __init__(self, manifest, pool):
        self.manifest, self.scale = manifest, manifest.get("scale", 1)
        shards = sorted(Path(pool).glob("pool-*.npy"))
        if not shards:
            raise SystemExit(f"no pool-*.npy in {pool}: make some with pictures.py --out {pool}")
        self.pictures = np.concatenate([np.load(s)[:32] for s in shards[:4]])

    def make(self, index, level):
        """Inputs and the clean picture, float32; `level` is sigma in 8-bit units."""
        clean = torch.from_numpy(self.pictures[index].copy()).permute(2, 0, 1).float() / 255
        low, high = self.manifest["range"]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1000 * level + index))
        sigma = level / 255 * (high - low) if self.scale == 1 else self.manifest["sigma"]["max"]
        if self.manifest["name"] == "prior":
            sigma *= 10  # its work begins where a denoiser's ends
        x = clean * (high - low) + low + sigma * noise
        inputs = {"x": x[None].numpy(), "sigma": np.full((1, 1, *clean.shape[1:]), sigma, np.float32)}
        if self.scale > 1:
            inputs["low"] = shrink.resize(clean, self.scale, "bicubic").clamp(0, 1)[None].numpy()
        return inputs, (clean * (high - low) + low)[None].numpy()

    def psnr(self, running, indices, dtype=np.float32):
        """Mean PSNR in dB over pictures and levels."""
        (low, high), scores = self.manifest["range"], []
        for level in LEVELS:
            for i in indices:
                inputs, clean = self.make(i, level)
                result = running.run(None, {n: a.astype(dtype) for n, a in inputs.items()})[0].astype(np.float32)
                scores.append(-10 * np.log10(np.mean((result.clip(low, high) - clean) ** 2) / (high - low) ** 2))
        return float(np.mean(scores))


class Calibration(CalibrationDataReader):
    def __init__(self, examples, indices):
        self.feeds = iter([examples.make(i, level)[0] for i in indices for level in (5, 15, 25, 40, 55)])

    def get_next(self):
        return next(self.feeds, None)


def to_half(source, target):
    """Every float of the graph becomes half, but for the factors of `Resize`, which are float32 by definition."""
    model = onnx.load(source)
    graph = model.graph
    factors = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    constants = [(n.output[0], a.t) for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.TENSOR]
    for name, tensor in [*constants, *((i.name, i) for i in graph.initializer)]:
        if tensor.data_type == onnx.TensorProto.FLOAT and name not in factors:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def to_int8(source, target, calibration):
    """Quantises the convolutions of the middle and coarse levels. What the fine level carries on has the picture's brightness in it, and
    256 steps of that are too few for its noise: with the fine level quantised too, `denoise-fast` lost 1.0 dB."""
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    fine = [n.name for n in onnx.load(target).graph.node if re.search(r"head|tail|down\.0|up\.0|halve|lift", n.name)]
    quantize_static(
        str(target), str(target), calibration, quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"], nodes_to_exclude=fine, calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip


def milliseconds(sessions, rounds=12):
    """Medians at 640x480, the sessions in turn."""
    x = np.random.default_rng(0).random((1, 3, 480, 640), dtype=np.float32)
    feed, times = {"x": x, "sigma": np.full_like(x[:, :1], 0.1)}, [[] for _ in sessions]
    for i in range(rounds + 2):
        for running, taken in zip(sessions, times):
            start = time.perf_counter()
            running.run(None, feed)
            if i >= 2:
                taken.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(t)) for t in times]


def recorded_difference(folder, manifest, running, dtype=np.float32):
    """The largest difference from the recorded output."""
    check, names = manifest["check"], manifest["inputs"]
    feed = {names[k]: np.load(folder / check[k]).astype(dtype) for k in ("sample", "sigma", "condition") if k in names}
    return float(np.abs(running.run(None, feed)[0].astype(np.float32) - np.load(folder / check["denoised"])).max())


def enter(folder, precision, path, tolerance):
    """Writes a file's entry into model.toml, in place of an older one, before [check]."""
    toml = folder / "model.toml"
    text = re.sub(rf"\[files\.{precision}\]\n(.+\n)+\n", "", toml.read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = f'[files.{precision}]\npath = "{path.name}"\nsha256 = "{digest}"\ntolerance = {tolerance:.1g}\n\n'
    toml.write_text(text.replace("[check]\n", entry + "[check]\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="the package's folder")
    parser.add_argument("--pool", default="out/validation", help="folder of pool-*.npy to measure on, and to calibrate with")
    parser.add_argument("--int8", action="store_true", help="make the int8 file too (denoisers alone)")
    args = parser.parse_args()
    torch.set_num_threads(2)
    folder = Path(args.package)
    manifest = tomllib.loads((folder / "model.toml").read_text())
    name, source = manifest["name"], folder / manifest["files"]["f32"]["path"]
    examples, held_out = Examples(manifest, args.pool), range(24, 32)
    running = session(source)
    reference = examples.psnr(running, held_out)

    half = folder / f"{name}-f16.onnx"
    to_half(source, half)
    loss = reference - examples.psnr(session(half), held_out, np.float16)
    difference = recorded_difference(folder, manifest, session(half), np.float16)
    print(f"f32 {reference:.3f} dB, {source.stat().st_size} bytes; f16 loses {loss:.4f} dB, {half.stat().st_size} bytes, differs by {difference:.1e}")
    if loss > F16_LOSS:
        half.unlink()
        raise SystemExit(f"f16 loses more than {F16_LOSS} dB: not kept")
    enter(folder, "f16", half, 2 * difference)

    if args.int8:
        eighth = folder / f"{name}-int8.onnx"
        to_int8(source, eighth, Calibration(examples, range(24)))
        optimised = folder / "optimised.onnx"
        quantised = session(eighth, optimised)
        kinds = [n.op_type for n in onnx.load(optimised).graph.node]
        optimised.unlink()
        loss = reference - examples.psnr(quantised, held_out)
        difference = recorded_difference(folder, manifest, quantised)
        plain, fast = milliseconds([running, quantised])
        print(f"int8 loses {loss:.3f} dB, {eighth.stat().st_size} bytes, differs by {difference:.1e}; {kinds.count('QLinearConv')} QLinearConv, {kinds.count('Conv')} Conv")
        print(f"640x480, 2 threads: f32 {plain:.1f} ms, int8 {fast:.1f} ms, {plain / fast:.2f} times as fast")
        if loss > INT8_LOSS or plain < INT8_SPEEDUP * fast:
            eighth.unlink()
            raise SystemExit(f"int8 has to lose at most {INT8_LOSS} dB and be {INT8_SPEEDUP} times as fast: not kept")
        enter(folder, "int8", eighth, 2 * difference)


if __name__ == "__main__":
    main()
