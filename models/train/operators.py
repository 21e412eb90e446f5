"""Profiles a network's operators on the CPU with ONNX Runtime, and compares its rate with that of the fastest single convolution.

    python operators.py --model ../denoise-fast

Prints the operators as ONNX Runtime fuses them, with their share of the time; the multiply-adds; and `ratio`: the network's time over the time
that its multiply-adds would take at the rate of the best single 3x3 convolution of 64 or more channels. Those convolutions run in turn with the
network, in the same process and with as many threads, and only the kernel's time counts, not the change of layout around it. All times are
medians over the rounds.
"""

import argparse
import collections
import json
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

BARS = {"ratio": 1.3, "share": 0.10}  # limit of a network for the CPU
CANDIDATES = [(64, 240, 320), (64, 120, 160), (128, 120, 160), (128, 60, 80), (256, 60, 80)]  # channels, rows, columns
CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "NhwcFusedConv"}


class Profiled:
    """A session with ONNX Runtime's profiling, on random inputs."""

    def __init__(self, model, folder, threads, size):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.add_session_config_entry("session.force_spinning_stop", "1")  # otherwise the last session's threads hold the cores
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        self.inputs = {
            i.name: rng.random([dimension(d, size) for d in i.shape]).astype(kind[i.type]) for i in self.session.get_inputs()
        }

    def run(self):
        self.session.run(None, self.inputs)

    def finish(self, skip):
        """[(operator, node, shape, median microseconds)] and the median of whole runs, without the first `skip` runs."""
        events = json.loads(Path(self.session.end_profiling()).read_text())
        times = collections.OrderedDict()
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                shape = next(iter((event["args"]["output_type_shape"] or [{}])[0].values()), [])
                times.setdefault((event["args"]["op_name"], event["name"][: -len("_kernel_time")], tuple(shape)), []).append(event["dur"])
        runs = [event["dur"] for event in events if event["name"] == "model_run"]
        return [(*key, float(np.median(t[skip:]))) for key, t in times.items()], float(np.median(runs[skip:]))


def dimension(value, size):
    """A dimension of an input: fixed, or named by the exporter."""
    height, width, scale = size
    named = {"batch": 1, "height": height, "width": width, "large_height": scale * height, "large_width": scale * width}
    if isinstance(value, str) and value not in named:
        raise SystemExit(f"an input has a dimension called {value}; expected one of {', '.join(named)}, or a number")
    return named.get(value, value)


def multiply_adds(path, size):
    """Multiply-adds of all convolutions of a file for an input of this size."""
    model = onnx.load(path)
    for tensor in model.graph.input:
        for d in tensor.type.tensor_type.shape.dim:
            d.dim_value = dimension(d.dim_param or d.dim_value, size)
    del model.graph.value_info[:]
    for tensor in model.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.value_info, *graph.input, *graph.output]}
    weights = {w.name: list(w.dims) for w in graph.initializer}
    weights |= {n.output[0]: list(n.attribute[0].t.dims) for n in graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"}
    return sum(int(np.prod(shapes[n.output[0]])) * int(np.prod(weights[n.input[1]][1:])) for n in graph.node if n.op_type == "Conv")


def single_convolution(channels, rows, columns):
    """A model of one 3x3 convolution, and its multiply-adds."""
    shape, rng = [1, channels, rows, columns], np.random.default_rng(1)
    weight = onnx.numpy_helper.from_array(rng.normal(0, 0.02, (channels, channels, 3, 3)).astype(np.float32), "w")
    tensor = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "single", [tensor("x")], [tensor("y")], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString(), 9 * channels**2 * rows * columns


def profile(path, size, threads, rounds, skip=3):
    """The network's operators, its time, and the multiply-adds per second of each candidate, all from rounds in turn."""
    with tempfile.TemporaryDirectory() as folder:
        network = Profiled(str(path), folder, threads, size)
        singles = {c: single_convolution(*c) for c in CANDIDATES}
        running = {c: Profiled(model, folder, threads, size) for c, (model, _) in singles.items()}
        for _ in range(rounds + skip):
            network.run()
            for single in running.values():
                single.run()
        operators, time = network.finish(skip)
        rates = {}
        for c, single in running.items():
            kernel = next(t for op, _, _, t in single.finish(skip)[0] if op in CONVOLUTIONS)
            rates[c] = singles[c][1] / kernel / 1e3  # multiply-adds per microsecond -> 10^9 per second
        return operators, time, rates


def report(path, size, threads, rounds, nodes):
    operators, time, rates = profile(path, size, threads, rounds)
    macs = multiply_adds(path, size)
    if nodes:
        print("| operator | node | output | ms |\n|---|---|---|---|")
        for op, name, shape, t in operators:
            print(f"| {op} | {name} | {'x'.join(map(str, shape))} | {t / 1e3:.2f} |")
        print()
    by_kind, count = collections.Counter(), collections.Counter()
    for op, _, _, t in operators:
        by_kind[op] += t
        count[op] += 1
    print("| operator | nodes | ms | share |\n|---|---|---|---|")
    for op, t in by_kind.most_common():
        print(f"| {op} | {count[op]} | {t / 1e3:.2f} | {100 * t / time:.1f} % |")
    other = max(((t / time, op) for op, t in by_kind.items() if op not in CONVOLUTIONS), default=(0.0, "none"))
    best = max(rates, key=rates.get)
    ratio = time / 1e3 / (macs / rates[best] / 1e6)
    print(f"\nwhole run: {time / 1e3:.2f} ms at {size[1]}x{size[0]}, {threads} threads, median of {rounds}, ONNX Runtime {onnxruntime.__version__}")
    print(f"multiply-adds: {macs / 1e9:.3f} G, so {macs / time / 1e3:.1f} GMAC/s")
    print("best single 3x3 convolution: " + ", ".join(f"{c}x{h}x{w} {r:.1f}" for (c, h, w), r in rates.items()) + " GMAC/s")
    print(f"ratio: {ratio:.3f} (bar {BARS['ratio']})")
    print(f"largest other operator: {other[1]} {100 * other[0]:.1f} % (bar {100 * BARS['share']:.0f} %)")
    return ratio <= BARS["ratio"] and other[0] <= BARS["share"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../denoise-fast", help="folder of a model package, or an .onnx file")
    parser.add_argument("--precision", default="f32", help="which file of the package")
    parser.add_argument("--height", type=int, default=480, help="rows of the input")
    parser.add_argument("--width", type=int, default=640, help="columns of the input")
    parser.add_argument("--threads", type=int, default=2, help="threads of ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of the network and of each convolution")
    parser.add_argument("--nodes", action="store_true", help="print every node, too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    args = parser.parse_args()
    path, scale = Path(args.model), 1
    if path.is_dir():
        manifest = tomllib.loads((path / "model.toml").read_text())
        path, scale = path / manifest["files"][args.precision]["path"], manifest["scale"]
    kept = report(path, (args.height, args.width, scale), args.threads, args.rounds, args.nodes)
    if args.strict and not kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
