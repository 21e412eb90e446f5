#!/usr/bin/env python3
"""Writes small ONNX networks of the forms found in the wild, and their output for an image.

`make_forms.py FOLDER` needs numpy and onnx. The folder gets the networks, their inputs, the expected outputs and `forms.json`, a
list with an entry each:

    name       what form it is
    file       the network
    task       denoise, upscale, deblur, inpaint, stream (denoise, several frames), sample or generate
    flags      what has to be said of it, at most four tokens
    options    further options of the command
    inputs     images (16-bit PNG) or states (.npy)
    expected   .npy of float32, [1, C, H, W] in 0..1, of streams [6, C, H, W]; of `sample` the state, unclipped
    crop       [y0, x0, y1, x1]: compare this much, because the borders of a convolution are another matter
    tolerance  largest difference
    tile       whether tiles of 48 pixels have to give the same
    direct     whether it is to run straight from the .onnx, too
    refused    whether an image cannot be its input

What is expected is computed in numpy, in f64, by the network's formula, never by the runtime that is under test. Most are one
restorer that is better than nothing: the high frequencies `n = x - blur(x)` are taken out as far as they are smaller than a
threshold t, `y = x - clip(n, -t, t)`, by convolutions and ReLUs alone.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support import write_png

H, W = 88, 112
EDGE = 8
THRESHOLD = 0.15
PER_SIGMA = 1.5
BLUR = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
SIGMA = 25 / 255
IR = {9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
FREE = ["batch", 3, "height", "width"]


# Images


def picture(height=H, width=W, shift=0.0):
    """Gradients, discs and bars, [3, height, width] within 0.1..0.9."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x = x + shift
    image = np.stack([0.25 + 0.4 * x / width, 0.65 - 0.35 * y / height, 0.3 + 0.3 * (x + y) / (width + height)])
    for cy, cx, radius, color in [(0.3, 0.25, 0.18, (0.8, 0.3, 0.25)), (0.6, 0.7, 0.25, (0.2, 0.5, 0.8)), (0.8, 0.3, 0.12, (0.85, 0.8, 0.3))]:
        distance = np.hypot(y - cy * height, x - cx * width) - radius * min(height, width)
        inside = np.clip(0.5 - distance / 2, 0, 1)
        image = image * (1 - inside) + np.array(color)[:, None, None] * inside
    bars = np.clip(np.sin(x / 3.5) * 4, -1, 1) * (np.abs(y - 0.12 * height) < 5)
    return np.clip(image + 0.12 * bars, 0.1, 0.9)


def noisy(seed, height=H, width=W, sigma=SIGMA, shift=0.0):
    return picture(height, width, shift) + sigma * np.random.default_rng(seed).standard_normal((3, height, width))


# The arithmetic, on [..., C, H, W]


def conv(x, weight):
    """A convolution that keeps the size, zeros beyond the borders. `weight` is [out, in, k, k]."""
    k = weight.shape[-1] // 2
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(k, k), (k, k)])
    height, width = x.shape[-2:]
    result = 0
    for dy in range(2 * k + 1):
        for dx in range(2 * k + 1):
            result = result + np.einsum("oi,...ihw->...ohw", weight[:, :, dy, dx], padded[..., dy:dy + height, dx:dx + width])
    return result


def diagonal(kernel, channels=3):
    """`kernel` on every channel by itself."""
    return np.einsum("oi,yx->oiyx", np.eye(channels), np.asarray(kernel, dtype=np.float64))


def high_pass(channels=3):
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    return diagonal(delta - BLUR, channels)


def noise_of(x, t):
    """What the restorer takes out."""
    return np.clip(conv(x, high_pass(x.shape[-3])), -t, t)


def restored(x, t=THRESHOLD):
    return x - noise_of(x, t)


# Graphs


class Graph:
    """A graph under construction; each method returns the name of a tensor."""

    def __init__(self, opset=17, prefix="t"):
        self.opset, self.prefix = opset, prefix
        self.nodes, self.weights, self.inputs, self.outputs = [], [], [], []

    def input(self, name, shape=FREE, kind=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, tensor, name, shape=FREE, kind=TensorProto.FLOAT):
        self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def const(self, value, kind=np.float32):
        name = f"{self.prefix}.w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def op(self, kind, *inputs, **attributes):
        outputs = attributes.pop("outputs", 1)
        names = [f"{self.prefix}.{len(self.nodes)}" + (f".{i}" if i else "") for i in range(outputs)]
        inputs = [i if isinstance(i, str) else self.const(i) for i in inputs]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, weight, kind=np.float32, **attributes):
        pad = weight.shape[-1] // 2
        attributes.setdefault("pads", [pad] * 4)
        return self.op("Conv", x, self.const(weight, kind), **attributes)

    def noise(self, x, t, channels=3, kind=np.float32):
        """clip(n, -t, t) as relu(n + t) - relu(n - t) - t; t is a number or a tensor."""
        t = t if isinstance(t, str) else self.const(t, kind)
        n = self.conv(x, high_pass(channels), kind)
        above = self.op("Relu", self.op("Add", n, t))
        below = self.op("Relu", self.op("Sub", n, t))
        return self.op("Sub", self.op("Sub", above, below), t)

    def restore(self, x, t=THRESHOLD, channels=3, kind=np.float32):
        return self.op("Sub", x, self.noise(x, t, channels, kind))

    def reshape(self, x, *shape):
        return self.op("Reshape", x, self.const(shape, np.int64))

    def model(self):
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR[self.opset])
        onnx.checker.check_model(model)
        return model


class Folder:
    """The folder that is made."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.forms = []

    def png(self, name, image):
        return write_png(self.path / name, image)

    def npy(self, name, array):
        np.save(self.path / name, np.asarray(array, dtype=np.float32))
        return name

    def add(self, name, task, graph, inputs, expected, flags=(), options=(), crop=True, tolerance=1e-4, tile=None, direct=False, file=None):
        """One form. `crop` is True for all but the borders, which are EDGE pixels of the input."""
        if file is None:
            file = f"{name}.onnx"
            onnx.save(graph.model(), self.path / file)
        assert (self.path / file).stat().st_size < 100_000, name
        flags = [str(flag) for flag in flags]
        assert len(flags) <= 5, name
        expected = np.asarray(expected)
        expected = expected if expected.ndim == 4 else expected[None]
        if task not in ("sample",):
            expected = np.clip(expected, 0, 1)
        if crop is True:
            edge = EDGE * expected.shape[-1] // W if task == "upscale" else EDGE
            crop = [edge, edge, expected.shape[-2] - edge, expected.shape[-1] - edge]
        tile = task in ("denoise", "upscale") if tile is None else tile
        self.npy(f"{name}.expected.npy", expected)
        self.forms.append({"name": name, "file": file, "task": task, "flags": flags, "options": list(options), "inputs": inputs,
                           "expected": f"{name}.expected.npy", "crop": crop or None, "tolerance": tolerance, "tile": tile,
                           "direct": direct, "refused": False})

    def refuse(self, name, data):
        file = f"{name}.onnx"
        (self.path / file).write_bytes(data if isinstance(data, bytes) else data.model().SerializeToString())
        self.forms.append({"name": name, "file": file, "refused": True})


def denoisers(folder, noisy_image):
    """Networks that know nothing of the noise level."""
    x, inputs = noisy_image, ["noisy.png"]

    g = Graph(17)
    g.output(g.restore(g.input("image")), "restored")
    folder.add("blind-direct", "denoise", g, inputs, restored(x), direct=True)

    g = Graph(13, "onnx::Conv_")
    g.output(g.noise(g.input("input.1"), THRESHOLD), "31")
    folder.add("blind-residual", "denoise", g, inputs, restored(x))

    for opset in (9, 23):
        g = Graph(opset)
        g.output(g.restore(g.input("0")), "1")
        folder.add(f"opset-{opset}", "denoise", g, inputs, restored(x))

    # Two outputs, of which the second is wanted.
    g = Graph(14)
    image = g.input("x")
    edges = g.op("Abs", g.conv(image, np.full((1, 3, 1, 1), 1 / 3) * np.array([[-1, 0, 1]] * 3)[None, None]))
    g.output(edges, "first", ["batch", 1, "height", "width"])
    g.output(g.restore(image), "second")
    folder.add("second-output", "denoise", g, inputs, restored(x), ["--output-name", "second"])

    # A free number.
    g = Graph(16)
    image, strength = g.input("x"), g.input("strength", [])
    g.output(g.op("Sub", image, g.op("Mul", strength, g.noise(image, THRESHOLD))), "y")
    folder.add("strength", "denoise", g, inputs, x - 0.5 * noise_of(x, THRESHOLD), ["--input", "strength=0.5"])

    # Every pixel depends on all: no tiles.
    g = Graph(17)
    image = g.input("x")
    mean = g.op("GlobalAveragePool", image)
    g.output(g.op("Add", g.restore(image), g.op("Mul", g.op("Sub", mean, 0.5), 0.1)), "y")
    folder.add("global-mean", "denoise", g, inputs, restored(x) + 0.1 * (x.mean((1, 2), keepdims=True) - 0.5), tile=False)

    # Weights beside the graph.
    g = Graph(17)
    g.output(g.restore(g.input("x")), "y")
    model = g.model()
    (folder.path / "external-one").mkdir(exist_ok=True)
    onnx.save(model, folder.path / "external-one/net.onnx", save_as_external_data=True, location="weights.pb", size_threshold=0)
    folder.add("external-one", "denoise", None, inputs, restored(x), file="external-one/net.onnx")
    model = g.model()
    (folder.path / "external-many/tensors").mkdir(parents=True, exist_ok=True)
    for tensor in model.graph.initializer:
        location = f"tensors/{tensor.name}"
        (folder.path / "external-many" / location).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    (folder.path / "external-many/net.onnx").write_bytes(model.SerializeToString())
    folder.add("external-many", "denoise", None, inputs, restored(x), file="external-many/net.onnx")


def noise_levels(folder, noisy_image):
    """Networks that are told the noise level, in many ways."""
    x, inputs, options = noisy_image, ["noisy.png"], ["--sigma", "25"]
    expected = restored(x, PER_SIGMA * SIGMA)

    def shaped(name, shape, names, opset=17, factor=PER_SIGMA, before=None, flags=(), direct=False):
        g = Graph(opset)
        image, sigma = g.input(names[0]), g.input(names[1], shape)
        level = sigma if len(shape) == 4 else g.reshape(sigma, -1, 1, 1, 1)
        level = before(g, level) if before else level
        g.output(g.restore(image, g.op("Mul", level, factor)), names[2])
        folder.add(name, "denoise", g, inputs, expected, flags, options, direct=direct)

    shaped("sigma-scalar", [], ("x", "sigma", "y"))
    shaped("sigma-one", [1], ("input", "noise_level", "output"), 13)
    shaped("sigma-batch", ["batch"], ("a", "b", "c"))
    shaped("sigma-1111", [1, 1, 1, 1], ("arg0", "arg1", "out"), 18)
    shaped("sigma-map", ["batch", 1, "height", "width"], ("input.1", "input.3", "87"), 12, direct=True)
    shaped("sigma-255", ["batch"], ("x", "sigma", "y"), factor=PER_SIGMA / 255, flags=["--sigma-factor", "255"])
    shaped("sigma-log", ["batch"], ("x", "log_sigma", "y"), 20, before=lambda g, level: g.op("Exp", level), flags=["--sigma-encoding", "log"])

    # The map is the fourth channel of the image.
    g = Graph(15)
    both = g.input("x", ["batch", 4, "height", "width"])
    image, sigma = (g.conv(both, np.eye(4)[rows][:, :, None, None]) for rows in (slice(0, 3), slice(3, 4)))
    g.output(g.restore(image, g.op("Mul", sigma, PER_SIGMA)), "y")
    folder.add("sigma-channel", "denoise", g, inputs, expected, ["--inputs", "sample=x,sigma=x"], options)


def values(folder, noisy_image):
    """Other values, colors and axes. These shrink a little toward the middle gray, as means do, so that the range shows."""
    x, inputs = noisy_image, ["noisy.png"]

    def shrunk(y, middle=0.5):
        return 0.96 * y + 0.04 * middle

    def shrink(g, y, middle):
        return g.op("Add", g.op("Mul", y, 0.96), 0.04 * middle)

    for name, low, high, names, flags in [("range-255", 0, 255, ("x", "y"), []),
                                          ("range-255-said", 0, 255, ("input.1", "9"), ["--value-range", "0,255"]),
                                          ("range-signed", -1, 1, ("x", "y"), ["--value-range=-1,1"])]:
        g = Graph(17)
        y = g.restore(g.input(names[0]), THRESHOLD * (high - low))
        g.output(shrink(g, y, (low + high) / 2), names[1])
        # Zeros beyond the border stand for other grays: another reason to compare the inside.
        folder.add(name, "denoise", g, inputs, shrunk(restored(x)), flags, direct=name == "range-255-said")

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    g = Graph(17)
    image = g.op("Add", g.op("Mul", g.input("pixel_values"), std.reshape(1, 3, 1, 1)), mean.reshape(1, 3, 1, 1))
    g.output(shrink(g, g.restore(image), 0.5), "restored")
    folder.add("imagenet", "denoise", g, inputs, shrunk(restored(x)), ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"])

    # Blue is cleaned more than red.
    thresholds = np.array([0.3, 0.15, 0.08]).reshape(3, 1, 1)
    g = Graph(17)
    g.output(g.restore(g.input("x"), thresholds[None]), "y")
    folder.add("bgr", "denoise", g, inputs, restored(x[::-1], thresholds)[::-1], ["--colors", "bgr"])

    # Luma alone: chroma stays.
    g = Graph(17)
    shape = ["batch", 1, "height", "width"]
    g.output(g.restore(g.input("x", shape), channels=1), "y", shape)
    luma = np.tensordot([0.299, 0.587, 0.114], x, 1)[None]
    folder.add("luma", "denoise", g, inputs, x + restored(luma) - luma, ["--colors", "luma"])

    last = ["batch", "height", "width", 3]
    g = Graph(17)
    y = g.restore(g.op("Transpose", g.input("x", last), perm=[0, 3, 1, 2]))
    g.output(g.op("Transpose", y, perm=[0, 2, 3, 1]), "y", last)
    folder.add("nhwc", "denoise", g, inputs, restored(x))

    # Bytes. The blur's weights are whole multiples of 1/256, so that f32 computes without any error.
    byte = np.round(np.clip(picture() + SIGMA * np.random.default_rng(8).standard_normal((3, H, W)), 0, 1) * 255)
    assert np.array_equal(np.round(folder.png("bytes.png", byte / 255) * 255), byte)
    g = Graph(13)
    image = g.op("Transpose", g.op("Cast", g.input("image", last, TensorProto.UINT8), to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    y = g.op("Clip", g.op("Add", g.restore(image, 40), 0.5), g.const(0), g.const(255.5))
    y = g.op("Transpose", g.op("Cast", g.op("Floor", y), to=TensorProto.UINT8), perm=[0, 2, 3, 1])
    g.output(y, "result", last, TensorProto.UINT8)
    folder.add("nhwc-uint8", "denoise", g, ["bytes.png"], np.floor(np.clip(restored(byte, 40) + 0.5, 0, 255.5)) / 255)

    g = Graph(17)
    g.output(g.restore(g.input("x", FREE, TensorProto.FLOAT16), kind=np.float16), "y", FREE, TensorProto.FLOAT16)
    folder.add("float16", "denoise", g, inputs, restored(x), tolerance=3e-3)


def dct(size=8):
    k, n = np.mgrid[0:size, 0:size]
    return np.sqrt(np.where(k == 0, 1, 2) / size) * np.cos(np.pi * (2 * n + 1) * k / (2 * size))


def sizes(folder):
    """Networks that take one size, or multiples of a number."""
    inputs = ["noisy.png"]
    x = folder.png("noisy.png", noisy(1))
    g = Graph(17)
    g.output(g.restore(g.input("x", [1, 3, 64, 64])), "y", [1, 3, 64, 64])
    folder.add("fixed-64", "denoise", g, inputs, restored(x), tile=False)

    # The cosine transform of blocks of 8 x 8, whose small coefficients go. What SpaceToDepth cannot divide is an error.
    height, width = 90, 109
    x = folder.png("odd.png", noisy(2, height, width))
    one = dct()
    basis = np.einsum("ay,bx->abyx", one, one).reshape(64, 64)
    t = np.full(64, THRESHOLD)
    t[0] = 0
    g = Graph(17)
    image = g.input("x")
    shape = g.op("Shape", image)
    sides = g.op("Slice", shape, g.const([2], np.int64), g.const([4], np.int64))
    planes = g.op("Reshape", image, g.op("Concat", g.const([-1, 1], np.int64), sides, axis=0))
    blocks = g.op("SpaceToDepth", planes, blocksize=8)
    c = g.conv(blocks, basis.reshape(64, 64, 1, 1))
    level = g.const(t.reshape(1, 64, 1, 1))
    small = g.op("Sub", g.op("Sub", g.op("Relu", g.op("Add", c, level)), g.op("Relu", g.op("Sub", c, level))), level)
    noise = g.op("DepthToSpace", g.conv(small, basis.T.reshape(64, 64, 1, 1)), blocksize=8, mode="DCR")
    g.output(g.op("Sub", image, g.op("Reshape", noise, shape)), "y")
    h, w = height // 8 * 8, width // 8 * 8
    blocks = x[:, :h, :w].reshape(3, h // 8, 8, w // 8, 8)
    c = np.clip(np.einsum("ay,cuyvx,bx->cuavb", one, blocks, one), -t.reshape(8, 1, 8), t.reshape(8, 1, 8))
    noise = np.einsum("ay,cuavb,bx->cuyvx", one, c, one).reshape(3, h, w)
    expected = x.copy()
    expected[:, :h, :w] -= noise
    folder.add("multiple-of-8", "denoise", g, ["odd.png"], expected, crop=[0, 0, h, w])


def shapes(folder):
    """Networks without padding, without a batch, that pad by themselves, and of several outputs."""
    x = folder.png("noisy.png", noisy(1))
    inputs = ["noisy.png"]

    # No padding: the output lacks two pixels on each side, of one that enlarges one pixel.
    g = Graph(17)
    image = g.input("x")
    inner = g.op("Slice", image, g.const([2, 2], np.int64), g.const([-2, -2], np.int64), g.const([2, 3], np.int64))
    n = g.conv(image, high_pass(), pads=[0] * 4)
    t = g.const(THRESHOLD)
    n = g.op("Sub", g.op("Sub", g.op("Relu", g.op("Add", n, t)), g.op("Relu", g.op("Sub", n, t))), t)
    g.output(g.op("Sub", inner, n), "y", ["batch", 3, "high", "wide"])
    mirrored = np.pad(x, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    folder.add("unpadded", "denoise", g, inputs, restored(mirrored)[:, 2:-2, 2:-2], crop=False, direct=True)

    small = folder.png("small.png", picture(60, 76))
    tent = np.outer([1, 2, 1], [1, 2, 1]) / 16
    weight = np.einsum("oi,pyx->opiyx", np.eye(3), np.stack([tent] * 4)).reshape(12, 3, 3, 3)
    g = Graph(15)
    g.output(g.op("DepthToSpace", g.conv(g.input("x"), weight, pads=[0] * 4), blocksize=2, mode="CRD"), "y", ["batch", 3, "high", "wide"])
    mirrored = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    folder.add("unpadded-enlarge", "upscale", g, ["small.png"], conv(mirrored, diagonal(tent))[:, 1:-1, 1:-1].repeat(2, 1).repeat(2, 2), crop=False)

    def batched(g, x, *axes):
        return g.op("Unsqueeze", x, g.const(axes, np.int64))

    g = Graph(17)
    y = g.restore(batched(g, g.input("image", [3, "h", "w"]), 0))
    g.output(g.op("Squeeze", y, g.const([0], np.int64)), "result", [3, "h", "w"])
    folder.add("no-batch", "denoise", g, inputs, restored(x))

    g = Graph(17)
    y = g.restore(batched(g, g.input("image", ["h", "w"]), 0, 1), channels=1)
    g.output(g.op("Squeeze", y, g.const([0, 1], np.int64)), "result", ["h", "w"])
    luma = np.tensordot([0.299, 0.587, 0.114], x, 1)[None]
    folder.add("no-channels", "denoise", g, inputs, x + restored(luma) - luma)

    # A part of the means of blocks goes, too. One takes multiples of 12 alone; one pads to blocks of 8 with the last pixels by itself.
    def blocks(g, image, size):
        means = g.op("AveragePool", image, kernel_shape=[size, size], strides=[size, size])
        return g.op("Resize", means, "", g.const([1, 1, size, size]), mode="nearest", coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor")

    def darker(x, size):
        height, width = (-side % size for side in x.shape[1:])
        padded = np.pad(x, ((0, 0), (0, height), (0, width)), mode="edge")
        means = padded.reshape(3, padded.shape[1] // size, size, -1, size).mean((2, 4)).repeat(size, 1).repeat(size, 2)
        return restored(x) - 0.05 * (means[:, :x.shape[1], :x.shape[2]] - 0.5)

    g = Graph(17)
    image = g.input("x")
    g.output(g.op("Sub", g.restore(image), g.op("Mul", g.op("Sub", blocks(g, image, 12), 0.5), 0.05)), "y")
    folder.add("multiple-of-12", "denoise", g, inputs, darker(x, 12), crop=[EDGE, EDGE, 76, 100])

    odd = folder.png("odd.png", noisy(2, 90, 109))
    g = Graph(17)
    image = g.input("x")
    sides = g.op("Slice", g.op("Shape", image), g.const([2], np.int64), g.const([4], np.int64))
    lack = g.op("Mod", g.op("Neg", sides), g.const([8, 8], np.int64))
    padded = g.op("Pad", image, g.op("Concat", g.const([0, 0, 0, 0, 0, 0], np.int64), lack, axis=0), mode="edge")
    means = g.op("Slice", blocks(g, padded, 8), g.const([0, 0], np.int64), sides, g.const([2, 3], np.int64))
    g.output(g.op("Sub", g.restore(image), g.op("Mul", g.op("Sub", means, 0.5), 0.05)), "y")
    folder.add("pads-to-8", "denoise", g, ["odd.png"], darker(odd, 8), crop=False)

    # The quarter first, then a result that is hardly restored, then the best.
    g = Graph(17)
    image = g.input("x")
    n = g.noise(image, THRESHOLD)
    g.output(g.op("AveragePool", image, kernel_shape=[4, 4], strides=[4, 4]), "coarse", ["batch", 3, "h4", "w4"])
    g.output(g.op("Sub", image, g.op("Mul", n, 0.1)), "stage1")
    g.output(g.op("Sub", image, n), "stage2")
    folder.add("best-output", "denoise", g, inputs, restored(x))

    # A map of sigma with a plane for each color, by itself and after the image.
    options, expected = ["--sigma", "25"], restored(x, PER_SIGMA * SIGMA)
    g = Graph(17)
    image, sigma = g.input("x"), g.input("noise_map")
    g.output(g.restore(image, g.op("Mul", sigma, PER_SIGMA)), "y")
    folder.add("sigma-map-3", "denoise", g, inputs, expected, options=options)

    g = Graph(17)
    both = g.input("x", ["batch", 6, "height", "width"])
    image, sigma = (g.conv(both, np.eye(6)[rows][:, :, None, None]) for rows in (slice(0, 3), slice(3, 6)))
    g.output(g.restore(image, g.op("Mul", sigma, PER_SIGMA)), "y")
    folder.add("sigma-channels-3", "denoise", g, inputs, expected, ["--inputs", "sample=x,sigma=x"], options)


def enlargers(folder):
    """Networks whose output is larger than their input."""
    height, width = 60, 76
    x = folder.png("small.png", picture(height, width))
    inputs = ["small.png"]
    shape = ["batch", 3, "high", "wide"]

    # By 2: each of the four phases is a kernel of its own, then DepthToSpace in torch's order.
    taps = {0: np.array([0, 0.25, 0.75, 0, 0]), 1: np.array([0, 0, 0.75, 0.25, 0])}
    sharper = np.array([0, -0.25, 1.5, -0.25, 0])
    taps = {phase: np.convolve(tap, sharper, "same") for phase, tap in taps.items()}
    phases = np.stack([np.outer(taps[p], taps[q]) for p in (0, 1) for q in (0, 1)])
    weight = np.einsum("oi,pyx->opiyx", np.eye(3), phases).reshape(12, 3, 5, 5)
    g = Graph(13)
    g.output(g.op("DepthToSpace", g.conv(g.input("lr"), weight), blocksize=2, mode="CRD"), "sr", shape)
    expected = conv(x, weight).reshape(3, 2, 2, height, width).transpose(0, 3, 1, 4, 2).reshape(3, 2 * height, 2 * width)
    folder.add("enlarge-2", "upscale", g, inputs, expected, direct=True, flags=[])

    # By 3: a transposed convolution with the triangle of bilinear interpolation.
    triangle = np.array([1, 2, 3, 2, 1]) / 3
    g = Graph(11)
    g.output(g.op("ConvTranspose", g.input("0"), np.tile(np.outer(triangle, triangle), (3, 1, 1, 1)), group=3, strides=[3, 3],
                  pads=[1, 1, 1, 1]), "1", shape)
    spread = np.zeros((3, 3 * height, 3 * width))
    spread[:, 1::3, 1::3] = x
    folder.add("enlarge-3", "upscale", g, inputs, conv(spread, diagonal(np.outer(triangle, triangle))))

    # By 4: the nearest pixel, and two convolutions with a ReLU between that smooth it.
    box = diagonal(np.full((5, 5), 1 / 25))
    g = Graph(17)
    image = g.op("Resize", g.input("input"), "", g.const([1, 1, 4, 4]), mode="nearest", coordinate_transformation_mode="asymmetric",
                 nearest_mode="floor")
    g.output(g.conv(g.op("Relu", g.conv(image, box)), box), "output", shape)
    large = x.repeat(4, 1).repeat(4, 2)
    folder.add("enlarge-4", "upscale", g, inputs, conv(np.maximum(conv(large, box), 0), box))


def repairs(folder):
    """Sharpening and filling."""
    blurred = folder.png("blurred.png", conv(np.pad(picture(), ((0, 0), (4, 4), (4, 4)), mode="edge"), diagonal(BLUR))[:, 4:-4, 4:-4])
    g = Graph(17)
    image = g.input("blurred")
    detail = g.conv(image, high_pass())
    g.output(g.op("Add", image, g.op("Mul", detail, 1.2)), "sharp")
    folder.add("deblur", "deblur", g, ["blurred.png"], blurred + 1.2 * conv(blurred, high_pass()), ["--task", "deblur"], direct=True)

    # Missing pixels become the mean of the known ones around.
    mask = np.zeros((1, H, W))
    mask[:, 20:70, 30:34] = 1
    mask[:, 40:44, 12:100] = 1
    folder.png("mask.png", mask)
    x = folder.png("holes.png", np.where(mask == 1, 1, picture()))
    kernel = np.ones((1, 1, 9, 9)) / 81
    g = Graph(17)
    image, missing = g.input("image"), g.input("mask", ["batch", 1, "height", "width"])
    known = g.op("Sub", 1.0, missing)
    kept = g.op("Mul", image, known)
    total, weight = g.conv(kept, diagonal(kernel[0, 0])), g.conv(known, kernel)
    g.output(g.op("Add", kept, g.op("Mul", missing, g.op("Div", total, g.op("Add", weight, 1e-4)))), "filled")
    filled = conv(x * (1 - mask), diagonal(kernel[0, 0])) / (conv(1 - mask, kernel) + 1e-4)
    folder.add("inpaint", "inpaint", g, ["holes.png"], np.where(mask == 1, filled, x), options=["--mask", "mask.png"])

    # The mask is the fourth channel of the image; or bytes, as the image is.
    def fill(g, image, missing):
        known = g.op("Sub", 1.0, missing)
        kept = g.op("Mul", image, known)
        total, weight = g.conv(kept, diagonal(kernel[0, 0])), g.conv(known, kernel)
        return g.op("Add", kept, g.op("Mul", missing, g.op("Div", total, g.op("Add", weight, 1e-4))))

    g = Graph(17)
    both = g.input("x", ["batch", 4, "height", "width"])
    g.output(fill(g, *(g.conv(both, np.eye(4)[rows][:, :, None, None]) for rows in (slice(0, 3), slice(3, 4)))), "y")
    folder.add("inpaint-channel", "inpaint", g, ["holes.png"], np.where(mask == 1, filled, x), ["--inputs", "sample=x,mask=x"], ["--mask", "mask.png"])

    g = Graph(17)
    image, missing = g.input("image", kind=TensorProto.UINT8), g.input("mask", ["batch", 1, "height", "width"], TensorProto.UINT8)
    image, missing = (g.op("Div", g.op("Cast", tensor, to=TensorProto.FLOAT), 255.0) for tensor in (image, missing))
    y = g.op("Cast", g.op("Floor", g.op("Add", g.op("Mul", fill(g, image, missing), 255.0), 0.5)), to=TensorProto.UINT8)
    g.output(y, "filled", kind=TensorProto.UINT8)
    folder.add("inpaint-bytes", "inpaint", g, ["holes.png"], np.where(mask == 1, filled, x), options=["--mask", "mask.png"], tolerance=0.01)


def streams(folder):
    """Networks of several frames."""
    inputs = [f"frame-{i}.png" for i in range(6)]
    frames = np.stack([folder.png(name, noisy(20 + i, shift=0.3 * i)) for i, name in enumerate(inputs)])
    before, after = frames[[0, 0, 1, 2, 3, 4]], frames[[1, 2, 3, 4, 5, 5]]
    merged = 0.2 * before + 0.5 * frames + 0.3 * after
    expected = restored(merged, 0.08)

    def merge(g, parts):
        parts = [g.op("Mul", part, weight) for part, weight in zip(parts, (0.2, 0.5, 0.3))]
        return g.restore(g.op("Add", g.op("Add", parts[0], parts[1]), parts[2]), 0.08)

    def pick(g, x, axis, i, length):
        return g.op("Slice", x, g.const([i], np.int64), g.const([i + length], np.int64), g.const([axis], np.int64))

    g = Graph(17)
    x = g.input("x", [1, 9, "height", "width"])
    g.output(merge(g, [pick(g, x, 1, 3 * i, 3) for i in range(3)]), "y", [1, 3, "height", "width"])
    folder.add("frames-stacked", "stream", g, inputs, expected, ["--frames", "3"])

    # [B, T, C, H, W]
    g = Graph(17)
    x = g.input("x", [1, 3, 3, "height", "width"])
    flat = g.op("Reshape", x, g.op("Concat", g.const([0, 9], np.int64), pick(g, g.op("Shape", x), 0, 3, 2), axis=0))
    g.output(merge(g, [pick(g, flat, 1, 3 * i, 3) for i in range(3)]), "y", [1, 3, "height", "width"])
    folder.add("frames-5d", "stream", g, inputs, expected, ["--frames", "3"])

    g = Graph(17)
    g.output(merge(g, [g.input(name) for name in ("prev", "cur", "next")]), "out")
    folder.add("frames-separate", "stream", g, inputs, expected)

    # The state is the mean of the frames so far, at most 4, and their number: y = (n h + x) / (n + 1).
    g = Graph(17)
    x, h = g.input("x"), g.input("h", ["batch", 4, "height", "width"])
    mean, n = pick(g, h, 1, 0, 3), pick(g, h, 1, 3, 1)
    y = g.op("Div", g.op("Add", g.op("Mul", n, mean), x), g.op("Add", n, 1.0))
    more = g.op("Sub", g.op("Add", n, 1.0), g.op("Relu", g.op("Sub", n, 3.0)))
    g.output(g.restore(y, 0.05), "y")
    g.output(g.op("Concat", y, more, axis=1), "h_out", ["batch", 4, "height", "width"])
    expected, mean, n = [], 0, 0
    for frame in frames:
        mean, n = (n * mean + frame) / (n + 1), min(n + 1, 4)
        expected.append(restored(mean, 0.05))
    folder.add("recurrent", "stream", g, inputs, expected)

    # The same with the mean in one state and the number in another of half the size.
    g = Graph(17)
    x, mean, n = g.input("src"), g.input("r1i", ["batch", 3, "height", "width"]), g.input("r2i", ["batch", 2, "h2", "w2"])
    grown = g.op("Resize", pick(g, n, 1, 0, 1), "", g.const([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric",
                 nearest_mode="floor")
    y = g.op("Div", g.op("Add", g.op("Mul", grown, mean), x), g.op("Add", grown, 1.0))
    more = g.op("Sub", g.op("Add", n, 1.0), g.op("Relu", g.op("Sub", n, 3.0)))
    g.output(more, "r2o", ["batch", 2, "c", "d"])
    g.output(y, "r1o", ["batch", 3, "a", "b"])
    g.output(g.restore(y, 0.05), "fgr")
    folder.add("states-said", "stream", g, inputs, expected, ["--states", "r1i=r1o,r2i=r2o"])


def diffusion(folder):
    """Networks that samplers run."""
    shape = ["batch", 3, "height", "width"]
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((2, 3, 16, 16)).astype(np.float32).astype(np.float64)
    folder.npy("noise.npy", noise)
    folder.npy("noise-80.npy", (80 * noise).astype(np.float32))
    folder.npy("noise-one.npy", noise[:1])
    large = (80 * noise).astype(np.float32).astype(np.float64)
    schedule = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
                "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "leading"}
    for name, kind in (("epsilon", "epsilon"), ("v", "v_prediction")):
        (folder.path / f"{name}.json").write_text(json.dumps(schedule | {"prediction_type": kind}))
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    mix = 0.3 * rng.standard_normal((3, 3, 3, 3)).astype(np.float32)

    def body(g, x, level=None):
        """tanh(conv(x)) + 0.5 x + level"""
        y = g.op("Add", g.op("Tanh", g.conv(x, mix)), g.op("Mul", x, 0.5))
        return y if level is None else g.op("Add", y, level)

    def formula(x, level=0.0):
        return np.tanh(conv(x, mix.astype(np.float64))) + 0.5 * x + level

    def ddim(network, clean_of, x, steps=2):
        """Equation 12 of Song, Meng and Ermon (2021), eta 0, at the timesteps 500 and 0."""
        stride = 1000 // steps
        for t in range(1000 - stride, -1, -stride):
            a, before = alphas[t], alphas[t - stride] if t >= stride else 1.0
            x0 = clean_of(x, network(x, t), a)
            x = np.sqrt(before) * x0 + np.sqrt(1 - before) * (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        return x

    def by_epsilon(x, out, a):
        return (x - np.sqrt(1 - a) * out) / np.sqrt(a)

    def by_v(x, out, a):
        return np.sqrt(a) * x - np.sqrt(1 - a) * out

    def timestep(g, name="timestep"):
        t = g.op("Cast", g.input(name, ["batch"], TensorProto.INT64), to=TensorProto.FLOAT)
        return g.reshape(g.op("Mul", t, 0.001), -1, 1, 1, 1)

    ddim_options = ["--sampler", "ddim", "--steps", "2"]

    g = Graph(17)
    g.output(body(g, g.input("sample", shape), timestep(g)), "out_sample", shape)
    epsilon_flags = ["--prediction=epsilon", "--schedule=epsilon.json"]
    expected = ddim(lambda x, t: formula(x, t / 1000), by_epsilon, noise)
    folder.add("epsilon", "sample", g, ["noise.npy"], expected, epsilon_flags, ddim_options, crop=False)

    g = Graph(14)
    y = body(g, g.input("x", shape), timestep(g, "t"))
    g.output(g.op("Concat", y, g.op("Tanh", y), axis=1), "y", ["batch", 6, "height", "width"])
    folder.add("learned-variance", "sample", g, ["noise.npy"], expected, epsilon_flags, ddim_options, crop=False)

    g = Graph(17)
    g.output(body(g, g.input("sample", shape), timestep(g)), "out_sample", shape)
    folder.add("v", "sample", g, ["noise.npy"], ddim(lambda x, t: formula(x, t / 1000), by_v, noise),
               ["--prediction=v_prediction", "--schedule=v.json"], ddim_options, crop=False)

    # Extra conditions: four numbers, and a class.
    table = (0.2 * rng.standard_normal((10, 3))).astype(np.float32)
    to_colors = (0.5 * rng.standard_normal((4, 3))).astype(np.float32)
    g = Graph(17)
    x, level, cond = g.input("sample", shape), timestep(g), g.input("cond", ["batch", 4])
    g.output(body(g, x, g.op("Add", level, g.reshape(g.op("MatMul", cond, to_colors), -1, 3, 1, 1))), "out_sample", shape)
    extra = (np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32).astype(np.float64) @ to_colors).reshape(3, 1, 1)
    folder.add("condition", "sample", g, ["noise.npy"], ddim(lambda x, t: formula(x, t / 1000 + extra), by_epsilon, noise),
               [*epsilon_flags, "--input", "cond=0.1,0.2,0.3,0.4"], ddim_options, crop=False)

    # Classifier-free guidance by a condition that is not a class: zeros mean none.
    g = Graph(17)
    x, level, cond = g.input("sample", shape), timestep(g), g.input("cond", ["batch", 4])
    g.output(body(g, x, g.op("Add", level, g.reshape(g.op("MatMul", cond, to_colors), -1, 3, 1, 1))), "out_sample", shape)

    def guided(x, t):
        with_it, without = formula(x, t / 1000 + extra), formula(x, t / 1000)
        return without + 3 * (with_it - without)

    folder.add("guided", "generate", g, ["noise-one.npy"], ddim(guided, by_epsilon, noise[:1]),
               [*epsilon_flags, "--value-range=0,1", "--input=cond=0.1,0.2,0.3,0.4", "--unconditional=cond=0"],
               [*ddim_options, "--guidance-scale", "3", "--size", "16x16"], crop=False)

    g = Graph(17)
    x, level, label = g.input("sample", shape), timestep(g), g.input("class_labels", ["batch"], TensorProto.INT64)
    g.output(body(g, x, g.op("Add", level, g.reshape(g.op("Gather", g.const(table), label), -1, 3, 1, 1))), "out_sample", shape)
    extra = table[3].reshape(3, 1, 1).astype(np.float64)
    folder.add("class", "generate", g, ["noise-one.npy"], ddim(lambda x, t: formula(x, t / 1000 + extra), by_epsilon, noise[:1]),
               [*epsilon_flags, "--classes=10", "--value-range=0,1"], [*ddim_options, "--class", "3", "--size", "16x16"], crop=False)

    def euler(clean, x, sigmas):
        for sigma, after in zip(sigmas, [*sigmas[1:], 0.0]):
            x = x + (after - sigma) * (x - clean(x, sigma)) / sigma
        return x

    euler_options = ["--sampler", "euler", "--steps", "2"]

    # EDM's raw F, which is told sigma itself and not ln(sigma) / 4.
    def edm(x, sigma, data=0.5):
        norm = np.hypot(sigma, data)
        return data**2 / norm**2 * x + sigma * data / norm * formula(x / norm, np.tanh(sigma / 10))

    g = Graph(17)
    x, sigma = g.input("x", shape), g.input("sigma", ["batch"])
    level = g.op("Tanh", g.op("Div", g.reshape(sigma, -1, 1, 1, 1), 10.0))
    g.output(body(g, x, level), "F", shape)
    folder.add("edm-by-sigma", "sample", g, ["noise-80.npy"], euler(edm, large, [80, 0.002]),
               ["--prediction=edm=0.5", "--sigma-range=0.002,80", "--sigma-encoding=linear"], euler_options, crop=False)

    # A consistency model: the clean image, by sigma.
    def consistent(x, sigma):
        norm = np.hypot(sigma, 0.5)
        return 0.25 / ((sigma - 0.002) ** 2 + 0.25) * x + (sigma - 0.002) * 0.5 / norm * np.tanh(conv(x / norm, mix.astype(np.float64)))

    g = Graph(18)
    x, sigma = g.input("noisy", shape), g.input("sigma", ["batch"])
    sigma = g.reshape(sigma, -1, 1, 1, 1)
    from_low = g.op("Sub", sigma, 0.002)
    norm = g.op("Sqrt", g.op("Add", g.op("Mul", sigma, sigma), 0.25))
    skip = g.op("Div", 0.25, g.op("Add", g.op("Mul", from_low, from_low), 0.25))
    change = g.op("Tanh", g.conv(g.op("Div", x, norm), mix))
    out = g.op("Div", g.op("Mul", from_low, 0.5), norm)
    g.output(g.op("Add", g.op("Mul", skip, x), g.op("Mul", out, change)), "denoised", shape)
    for steps, sigmas in ((1, [80]), (2, [80, 0.002])):
        folder.add(f"consistency-{steps}", "sample", g, ["noise-80.npy"], euler(consistent, large, sigmas),
                   ["--prediction=denoised", "--sigma-range=0.002,80"], ["--sampler", "euler", "--steps", str(steps)], crop=False)


def nonsense(folder):
    """What no image goes through."""
    g = Graph(17)
    tokens = g.input("input_ids", ["batch", 128], TensorProto.INT64)
    table = np.random.default_rng(0).standard_normal((100, 8))
    g.output(g.op("ReduceMean", g.op("Gather", g.const(table), tokens), axes=[1], keepdims=0), "logits", ["batch", 8])
    folder.refuse("text", g)

    g = Graph(17)
    image, a, b = g.input("x"), g.input("a", ["batch", 7]), g.input("b", ["batch", 5])
    both = g.reshape(g.op("Add", g.op("MatMul", a, np.ones((7, 3))), g.op("MatMul", b, np.ones((5, 3)))), -1, 3, 1, 1)
    g.output(g.op("Add", image, both), "y")
    folder.refuse("two-vectors", g)

    g = Graph(17)
    g.output(g.op("Flatten", g.op("GlobalAveragePool", g.input("x"))), "scores", ["batch", 3])
    folder.refuse("other-rank", g)

    g = Graph(17)
    g.output(g.restore(g.input("x")), "y")
    whole = g.model().SerializeToString()
    folder.refuse("truncated", whole[:len(whole) * 2 // 3])
    folder.refuse("not-onnx", b"This is a text and no network.\n" * 20)
    folder.refuse("empty", b"")


def main():
    folder = Folder(sys.argv[1])
    x = folder.png("noisy.png", noisy(1))
    denoisers(folder, x)
    noise_levels(folder, x)
    values(folder, x)
    sizes(folder)
    shapes(folder)
    enlargers(folder)
    repairs(folder)
    streams(folder)
    diffusion(folder)
    nonsense(folder)
    (folder.path / "forms.json").write_text(json.dumps(folder.forms, indent=1) + "\n")
    print(f"{len(folder.forms)} forms")


if __name__ == "__main__":
    main()
