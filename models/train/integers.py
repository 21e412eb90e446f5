"""A denoiser's graph in 8-bit integers, as QDQ pairs that ONNX Runtime fuses to QLinearConv: unsigned activations, and signed
weights with a scale per output channel. (With signed activations it fuses nothing.)

In float stay the first and the last convolution, those after the last enlargement, and the sum that runs through them with what goes
into it before the first halving: at full resolution every rounding lands in the image. Quantized as well they cost 0.5 dB at sigma 15.

Processors without VNNI add pairs of 8-bit products in 16 bits, which can overflow; `eddy check` detects that.
"""

from collections import Counter, defaultdict

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLIPPED = 1e-3  # share of a tensor's values beyond either end of its range; rarer values cost more in steps than they are worth
LARGEST_WEIGHT = 127


def integer_convolutions(graph):
    """Names of the convolutions between the first one and the last enlargement, but for the one right before the first halving: in integers
    as well it costs `camera` 0.1 dB at sigma 10, and saves no time, since its output is a sum in float."""
    order = [n for n in graph.node if n.op_type in ("Conv", "Resize")]
    last = max(i for i, n in enumerate(order) if n.op_type == "Resize")
    halving = next(i for i, n in enumerate(order) if any(a.name == "strides" and max(a.ints) > 1 for a in n.attribute))
    return {n.name for i, n in enumerate(order[1:last], 1) if n.op_type == "Conv" and i != halving - 1}


def integer_nodes(graph):
    """Names of the nodes whose output is made in integers: those convolutions, and what ReLU, sums and enlargements make of their outputs alone."""
    chosen, made = integer_convolutions(graph), set()
    nodes = set(chosen)
    for node in graph.node:
        if node.op_type in ("Relu", "Resize", "Add") and all(i in made for i in node.input[: 2 if node.op_type == "Add" else 1]):
            nodes.add(node.name)
        if node.name in nodes:
            made.update(node.output)
    return chosen, nodes


def ranges(model, tensors, examples, session):
    """Lowest and highest value of each tensor over batches of inputs, without the rarest; zero is always inside."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output.extend(helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in tensors)
    running = session(model)
    names = [i.name for i in running.get_inputs()]
    lowest, highest = np.zeros(len(tensors)), np.zeros(len(tensors))
    for inputs in examples:
        for i, values in enumerate(running.run(tensors, dict(zip(names, inputs)))):
            low, high = np.quantile(values, [CLIPPED, 1 - CLIPPED])
            lowest[i], highest[i] = min(lowest[i], low), max(highest[i], high)
    return dict(zip(tensors, zip(lowest, highest)))


def pair(tensor):
    """The two nodes that round a tensor; what reads `tensor_rounded` sees the rounded values."""
    parameters = [f"{tensor}_scale", f"{tensor}_zero"]
    return [
        helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{tensor}_u8"], f"{tensor}_QuantizeLinear"),
        helper.make_node("DequantizeLinear", [f"{tensor}_u8", *parameters], [f"{tensor}_rounded"], f"{tensor}_DequantizeLinear"),
    ]


def rounded_weight(tensor):
    """A convolution's weight in int8, with a scale per output channel: the node that reads it, and its initializers."""
    weight, name = numpy_helper.to_array(tensor), tensor.name
    scale = (np.maximum(np.abs(weight).max((1, 2, 3)), 1e-12) / LARGEST_WEIGHT).astype(np.float32)
    integer = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    parts = {f"{name}_s8": integer, f"{name}_scale": scale, f"{name}_zero": np.zeros(len(scale), np.int8)}
    node = helper.make_node("DequantizeLinear", list(parts), [f"{name}_rounded"], f"{name}_DequantizeLinear", axis=0)
    return node, [numpy_helper.from_array(array, key) for key, array in parts.items()]


def quantized(model, examples, session):
    """The graph with QDQ pairs; ranges are those that `examples`, batches of inputs, take."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    chosen, nodes = integer_nodes(graph)
    maker = {o: n for n in graph.node for o in n.output}
    readers = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            readers[tensor].append(node)
    # A convolution's output in front of its ReLU is never rounded by itself: the two become one node.
    before_relu = {n.input[0] for n in graph.node if n.op_type == "Relu"}
    rounded = [o for n in graph.node for o in n.output if (n.name in nodes and o not in before_relu) or any(r.name in chosen for r in readers[o])]
    found = ranges(model, rounded, examples, session)
    # Enlarged values are on the same steps as the small ones.
    found |= {n.output[0]: found[n.input[0]] for n in graph.node if n.op_type == "Resize"}

    weights = {i.name: i for i in graph.initializer}
    ordered, added = [], []
    for node in graph.node:
        if node.name in chosen:
            reader, parts = rounded_weight(weights.pop(node.input[1]))
            ordered.append(reader)
            added += parts
            node.input[1] = reader.output[0]
        for i, tensor in enumerate(node.input):
            if tensor in found and (node.name in nodes or maker[tensor].name in nodes):
                node.input[i] = f"{tensor}_rounded"
        ordered.append(node)
        for tensor in node.output:
            if tensor in found:
                low, high = found[tensor]
                scale = np.float32((high - low) / 255)
                added.append(numpy_helper.from_array(np.array(scale), f"{tensor}_scale"))
                added.append(numpy_helper.from_array(np.array(np.round(-low / scale), np.uint8), f"{tensor}_zero"))
                ordered += pair(tensor)
    for field, values in ((graph.node, ordered), (graph.initializer, [*weights.values(), *added])):
        values = [type(v).FromString(v.SerializeToString()) for v in values]
        del field[:]
        field.extend(values)
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def operators(optimized):
    """How many of the convolutions are integer ones in the graph that ONNX Runtime runs; stops where none is."""
    counts = Counter(n.op_type for n in optimized.graph.node)
    if not counts["QLinearConv"]:
        raise SystemExit(f"ONNX Runtime fused no integer convolution; it runs {dict(counts)}")
    return f"{counts['QLinearConv']} integer and {counts['Conv'] + counts['FusedConv']} float convolutions"
