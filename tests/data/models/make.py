"""Makes the networks of this folder, a few hundred bytes each: `pip install onnx==1.23.2` and run it here.

Each is one case of a correct or incorrect model; tests/common/place.rs writes the manifests.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

here = Path(__file__).parent
F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16
FREE = [1, 3, "height", "width"]
MAP = [1, 1, "height", "width"]


def save(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [helper.make_tensor(constant, element, [], [value]) for constant, element, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, here / f"{name}.onnx")


def denoiser(name, sample=("x", F32, FREE), element=F32, shape=FREE, map_shape=MAP, extra=()):
    """`denoised = x - sigma / 2`: darker by half of sigma, everywhere."""
    nodes = [
        helper.make_node("Mul", ["sigma", "half"], ["less"]),
        helper.make_node("Sub", [sample[0], "less"], ["denoised"]),
    ]
    inputs = [sample, ("sigma", element, map_shape), *extra]
    save(name, nodes, inputs, [("denoised", element, shape)], [("half", element, 0.5)])


denoiser("darker")
denoiser("darker-f16", ("x", F16, FREE), F16)
denoiser("gray", ("x", F32, MAP), shape=MAP)
denoiser("fixed", ("x", F32, [1, 3, 32, 32]), shape=[1, 3, 32, 32], map_shape=[1, 1, 32, 32])
denoiser("names", ("pixels", F32, FREE))
denoiser("extra", extra=[("mask", F32, MAP)])
denoiser("rank", ("x", F32, [1, 1, *FREE]), shape=[1, 1, *FREE])
denoiser("no-batch", ("x", F32, FREE[1:]), shape=FREE[1:], map_shape=MAP[1:])

# The mean of 3x3 pixels, without padding.
save(
    "unpadded",
    [helper.make_node("AveragePool", ["x"], ["mean"], kernel_shape=[3, 3])],
    [("x", F32, FREE)],
    [("mean", F32, [1, 3, "high", "wide"])],
)

# Gives back what it gets; sigma takes part without a say.
save(
    "identity",
    [helper.make_node("Mul", ["sigma", "none"], ["nothing"]), helper.make_node("Add", ["x", "nothing"], ["denoised"])],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("none", F32, 0.0)],
)

# Divides the smallest integer by -1 once it is evaluated, which overflows.
save(
    "overflow",
    [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Neg", ["batch"], ["minus"]),
        helper.make_node("Div", ["smallest", "minus"], ["large"]),
        helper.make_node("Cast", ["large"], ["float"], to=F32),
        helper.make_node("Mul", ["float", "none"], ["zero"]),
        helper.make_node("Mul", ["sigma", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("smallest", TensorProto.INT64, -(1 << 63)), ("none", F32, 0.0)],
)

# Gives back what it gets, after it filled a GiB that no shape in the manifest tells of.
save(
    "greedy",
    [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Mul", ["batch", "count"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Mul", ["sigma", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("count", TensorProto.INT64, 1 << 28)],
)

# Gives back what it gets, or black where that is brighter than 0.5 on average.
save(
    "black",
    [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Greater", ["mean", "half"], ["bright"]),
        helper.make_node("Mul", ["sigma", "none"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["same"]),
        helper.make_node("Where", ["bright", "none", "same"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("none", F32, 0.0), ("half", F32, 0.5)],
)

# `darker` as `onnxruntime.quantization` writes it: 8-bit samples and weights of a 1x1 convolution (which changes nothing
# here), everything else and both ends float32. `x` is rounded to 1/255 on its way.
graph = helper.make_graph(
    [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "step", "zero"], ["x32"]),
        helper.make_node("DequantizeLinear", ["weights", "steps", "zeros"], ["w32"], axis=0),
        helper.make_node("Conv", ["x32", "w32"], ["same"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["same", "step", "zero"], ["same8"]),
        helper.make_node("DequantizeLinear", ["same8", "step", "zero"], ["same32"]),
        helper.make_node("Mul", ["sigma", "half"], ["less"]),
        helper.make_node("Sub", ["same32", "less"], ["denoised"]),
    ],
    "darker-int8",
    [helper.make_tensor_value_info("x", F32, FREE), helper.make_tensor_value_info("sigma", F32, MAP)],
    [helper.make_tensor_value_info("denoised", F32, FREE)],
    [
        helper.make_tensor("step", F32, [], [1 / 255]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [0]),
        helper.make_tensor("weights", TensorProto.INT8, [3, 3, 1, 1], [100, 0, 0, 0, 100, 0, 0, 0, 100]),
        helper.make_tensor("steps", F32, [3], [0.01] * 3),
        helper.make_tensor("zeros", TensorProto.INT8, [3], [0] * 3),
        helper.make_tensor("half", F32, [], [0.5]),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, here / "darker-int8.onnx")

# Enlarges twice: the mean of the small image's nearest-neighbor enlargement and of the state.
save(
    "larger",
    [
        helper.make_node("Constant", [], ["factors"], value=helper.make_tensor("factors", F32, [4], [1, 1, 2, 2])),
        helper.make_node("Resize", ["low", "", "factors"], ["near"], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
        helper.make_node("Add", ["near", "x"], ["both"]),
        helper.make_node("Mul", ["both", "half"], ["mean"]),
        helper.make_node("Mul", ["sigma", "none"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP), ("low", F32, [1, 3, "small_height", "small_width"])],
    [("denoised", F32, FREE)],
    [("half", F32, 0.5), ("none", F32, 0.0)],
)

# Takes whole numbers.
save(
    "integers",
    [
        helper.make_node("Cast", ["x"], ["real"], to=F32),
        helper.make_node("Sub", ["real", "sigma"], ["denoised"]),
    ],
    [("x", TensorProto.INT32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
)
# Half the size comes out.
save(
    "smaller",
    [
        helper.make_node("Sub", ["x", "sigma"], ["full"]),
        helper.make_node("AveragePool", ["full"], ["denoised"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, [1, 3, "h", "w"])],
)
# The logarithm of a negative number.
save(
    "nan",
    [
        helper.make_node("Sub", ["sigma", "two"], ["negative"]),
        helper.make_node("Log", ["negative"], ["nan"]),
        helper.make_node("Add", ["x", "nan"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("two", F32, 2.0)],
)
# An operator that no runtime has.
graph = helper.make_graph(
    [helper.make_node("Undreamt", ["x", "sigma"], ["denoised"], domain="nowhere")],
    "operator",
    [helper.make_tensor_value_info("x", F32, FREE), helper.make_tensor_value_info("sigma", F32, MAP)],
    [helper.make_tensor_value_info("denoised", F32, FREE)],
)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), here / "operator.onnx")

# Outputs of perfect networks of each kind for normal data of variance 0.25, with the noise level as a scalar input; see
# tests/sample/parameterizations.rs.
LEVEL = ("level", F32, [])


def closed_form(name, output, steps):
    """`steps` are (operator, inputs, output) from `x`, `level` and constants that are written as numbers."""
    numbers = {value for _, inputs, _ in steps for value in inputs if value.replace(".", "").isdigit()}
    nodes = [helper.make_node(operator, inputs, [result]) for operator, inputs, result in steps]
    constants = [(number, F32, float(number)) for number in sorted(numbers)]
    save(name, nodes, [("x", F32, FREE), LEVEL], [(output, F32, FREE)], constants)


SQUARE = ("Mul", ["level", "level"], "square")
TOTAL = ("Add", ["square", "0.25"], "total")
# D = v / (v + sigma^2) y
closed_form("normal-denoised", "denoised", [SQUARE, TOTAL, ("Div", ["0.25", "total"], "part"), ("Mul", ["x", "part"], "denoised")])
# -y / (v + sigma^2)
closed_form("normal-score", "score", [SQUARE, TOTAL, ("Neg", ["x"], "less"), ("Div", ["less", "total"], "score")])
# (1 - t) y * (t - v (1 - t)) / (v (1 - t)^2 + t^2)
closed_form(
    "normal-flow",
    "velocity",
    [
        SQUARE,
        ("Sub", ["1", "level"], "rest"),
        ("Mul", ["rest", "0.25"], "some"),
        ("Sub", ["level", "some"], "above"),
        ("Mul", ["some", "rest"], "one"),
        ("Add", ["one", "square"], "below"),
        ("Div", ["above", "below"], "part"),
        ("Mul", ["x", "part"], "velocity"),
    ],
)
# EDM with sigma_data 1, told ln(sigma) / 4: y / sqrt(sigma^2 + 1) * (sigma^2 + 1) / sigma * (v / (v + sigma^2) - 1 / (sigma^2 + 1))
closed_form(
    "normal-edm",
    "residual",
    [
        ("Mul", ["level", "4"], "log"),
        ("Exp", ["log"], "sigma"),
        ("Mul", ["sigma", "sigma"], "square"),
        TOTAL,
        ("Add", ["square", "1"], "norm"),
        ("Div", ["0.25", "total"], "mean"),
        ("Div", ["1", "norm"], "skip"),
        ("Sub", ["mean", "skip"], "difference"),
        ("Div", ["norm", "sigma"], "factor"),
        ("Mul", ["factor", "difference"], "part"),
        ("Mul", ["x", "part"], "residual"),
    ],
)

# Loops for ever: the condition never changes. What it gives in the end is `x`.
body = helper.make_graph(
    [
        helper.make_node("Identity", ["on_in"], ["on_out"]),
        helper.make_node("Add", ["turn_in", "tiny"], ["turn_out"]),
    ],
    "body",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("on_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("turn_in", F32, []),
    ],
    [
        helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("turn_out", F32, []),
    ],
    [helper.make_tensor("tiny", F32, [], [1e-9])],
)
save(
    "endless",
    [
        # Known only when it runs, so that nothing is folded.
        helper.make_node("ReduceMax", ["sigma"], ["start"], keepdims=0),
        helper.make_node("Less", ["start", "huge"], ["on"]),
        helper.make_node("Loop", ["", "on", "start"], ["turns"], body=body),
        helper.make_node("Mul", ["turns", "none"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("huge", F32, 1e30), ("none", F32, 0.0)],
)


def nested(depth):
    """An If within an If: ONNX Runtime looks at the innermost 2 ** depth times when it loads it."""
    output = helper.make_tensor_value_info(f"out{depth}", F32, FREE)
    if depth == 0:
        node = helper.make_node("Identity", ["x"], ["out0"])
    else:
        other = f"else{depth}"
        shallow = helper.make_graph(
            [helper.make_node("Identity", ["x"], [other])], other, [], [helper.make_tensor_value_info(other, F32, FREE)]
        )
        node = helper.make_node("If", ["on"], [output.name], then_branch=nested(depth - 1), else_branch=shallow)
    return helper.make_graph([node], f"depth{depth}", [], [output])


save(
    "nested",
    [
        helper.make_node("ReduceMax", ["sigma"], ["most"], keepdims=0),
        helper.make_node("Less", ["most", "huge"], ["on"]),
        *nested(30).node,
        helper.make_node("Add", ["out30", "most"], ["denoised"]),
    ],
    [("x", F32, FREE), ("sigma", F32, MAP)],
    [("denoised", F32, FREE)],
    [("huge", F32, 1e30)],
)

# The mean of three frames of a video.
save(
    "window",
    [
        helper.make_node("Split", ["x"], ["before", "middle", "after"], axis=1),
        helper.make_node("Mean", ["before", "middle", "after"], ["denoised"]),
    ],
    [("x", F32, [1, 9, "height", "width"])],
    [("denoised", F32, FREE)],
)
