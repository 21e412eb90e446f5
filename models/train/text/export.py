"""Writes a text-to-image system as a folder that Eddy runs.

    python export.py glide FOLDER --base base.pt --upsampler upsampler.pt
    python export.py imagen FOLDER --encoders layout.pt --base frozen-base.pt --upsampler upsampler.pt
    python export.py unclip FOLDER --encoders contrastive.pt --prior prior.pt --base decoder.pt --upsampler upsampler.pt

Weights of more than 256 values are stored as int8 with a scale per output channel; ONNX Runtime
expands them when it loads the network.
"""

import argparse
import json
from pathlib import Path

import networks
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from words import LENGTH, PADDING, UNKNOWN, VOCABULARY, tokenizer

SCHEDULER = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02,
    "beta_schedule": "linear", "prediction_type": "v_prediction", "timestep_spacing": "trailing",
    "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0,
}  # fmt: skip
# With noise that is drawn anew: DDIM would go on with that of the prediction before thresholding.
THRESHOLDED = SCHEDULER | {"_class_name": "DDPMScheduler", "variance_type": "fixed_small", "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}


def stored(graph):
    """Stores large f32 weights as int8, with a scale for each row (of a matrix product: column)."""
    consumers = {name: node for node in graph.node for name in node.input}
    kept, nodes = [], []
    for tensor in graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.size <= 256 or weights.ndim < 2:
            kept.append(tensor)
            continue
        # Convolutions and Gemm with transB have their outputs first; MatMul's are last.
        node = consumers[tensor.name]
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        outputs_first = node.op_type in ("Conv", "Gather") or transposed
        axes = tuple(range(1, weights.ndim)) if outputs_first else tuple(range(weights.ndim - 1))
        scale = np.maximum(np.abs(weights).max(axes, keepdims=True), 1e-12) / 127
        integers = np.rint(weights / scale).astype(np.int8)
        name = tensor.name
        kept += [numpy_helper.from_array(integers, name + ".i8"), numpy_helper.from_array(scale.astype(np.float32), name + ".scale")]
        nodes += [
            helper.make_node("Cast", [name + ".i8"], [name + ".cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [name + ".cast", name + ".scale"], [name]),
        ]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + others)


def write(network, path, inputs, outputs, arguments, batch):
    """Exports a network, whose batch is dynamic where `batch` names inputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "batch"} for name in batch}
    torch.onnx.export(network.eval(), arguments, path, input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
    stored(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def text(network, folder, outputs=("last_hidden_state", "pooler_output")):
    write(network, folder / "text_encoder/model.onnx", ["input_ids"], list(outputs), (torch.ones(1, LENGTH, dtype=torch.long),), ["input_ids", *outputs])
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer/tokenizer.json").write_text(tokenizer())
    settings = {"model_max_length": LENGTH, "pad_token": PADDING, "unk_token": UNKNOWN}
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(settings))


def base(network, folder):
    arguments = (torch.zeros(2, 3, 32, 32), torch.zeros(2), torch.zeros(2, LENGTH, networks.WIDTH))
    names = ["sample", "timestep", "encoder_hidden_states"]
    write(network, folder / "base/model.onnx", names, ["out_sample"], arguments, [*names, "out_sample"])


def upsampler(network, folder, has_level):
    names = ["sample", "timestep"] + ["class_labels"] * has_level
    arguments = (torch.zeros(2, 6, 64, 64), torch.zeros(2)) + (torch.zeros(2),) * has_level
    write(network, folder / "upsampler/model.onnx", names, ["out_sample"], arguments, [*names, "out_sample"])


def stage(name, side, steps, scale, concat="nothing", **more):
    return {
        "network": f"{name}/model.onnx", "state": {"fixed-image": [side, side]}, "scheduler": f"{name}/scheduler_config.json",
        "channels": 3, "concat": concat, "guidance": "classifier-free" if scale > 1 else "unguided", **more,
        "defaults": {"steps": steps, "guidance_scale": scale, "strength": 1.0, "size": [side, side]},
    }  # fmt: skip


def toml(spec):
    """A pipeline.toml, whose values are strings, numbers, lists and tables."""

    def inline(value):
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + " }"
        return json.dumps(value)

    lines = [f"{key} = {inline(value)}" for key, value in spec.items() if not isinstance(value, (dict, list))]
    for key, value in spec.items():
        tables = [(f"[{key}]", value)] if isinstance(value, dict) else [(f"[[{key}]]", v) for v in value] if isinstance(value, list) else []
        for head, table in tables:
            lines += ["", head, *(f"{k} = {inline(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def loaded(network, path, name):
    network.load_state_dict(torch.load(path)[name])
    return network


def schedules(folder, **of):
    for name, scheduler in of.items():
        (folder / name / "scheduler_config.json").write_text(json.dumps(scheduler, indent=1))


def described(folder, description, stages, main=0, is_projected=False):
    encoder = {"tokenizer": "tokenizer", "network": "text_encoder/model.onnx", "length": LENGTH}
    spec = {
        "name": folder.name,
        "description": f"Makes pictures of 64x64 pixels of colored shapes by a prompt, in {description}",
        "main": main,
        "text": [encoder | ({"is_projected": True} if is_projected else {})],
        "embedding": {"sequence": [[0]]} | ({"pooled": [0]} if is_projected else {}),
        "stages": stages,
    }
    (folder / "pipeline.toml").write_text(toml(spec))


def glide(args):
    folder = args.folder
    text(loaded(networks.Text(len(VOCABULARY)), args.base, "text"), folder)
    base(loaded(networks.Base(), args.base, "base"), folder)
    upsampler(loaded(networks.Upsampler(), args.upsampler, "upsampler"), folder, False)
    schedules(folder, base=SCHEDULER, upsampler=SCHEDULER)
    stages = [stage("base", 32, 20, 3.0), stage("upsampler", 64, 4, 1.0, {"enlarged": "bilinear-centers"})]
    described(folder, "GLIDE's form: text-conditioned diffusion and an upsampler", stages)


def imagen(args):
    folder = args.folder
    text(loaded(networks.Text(len(VOCABULARY)), args.encoders, "text"), folder)
    base(loaded(networks.Base(), args.base, "base"), folder)
    upsampler(loaded(networks.Upsampler(), args.upsampler, "upsampler"), folder, True)
    schedules(folder, base=THRESHOLDED, upsampler=SCHEDULER)
    larger = stage("upsampler", 64, 4, 1.0, {"enlarged": "bilinear-centers"}, low_res_scheduler="upsampler/scheduler_config.json")
    larger["defaults"]["noise_level"] = 60
    stages = [stage("base", 32, 20, 3.0), larger]
    described(folder, "Imagen's form: a frozen text encoder, dynamic thresholding, and an upsampler conditioned on the noise of its input", stages)


def unclip(args):
    folder = args.folder
    text(loaded(networks.ContrastiveText(len(VOCABULARY)), args.encoders, "text"), folder, ("text_embeds", "last_hidden_state"))
    image = loaded(networks.ContrastiveImage(), args.encoders, "image")
    write(image, folder / "image_encoder/model.onnx", ["pixel_values"], ["image_embeds"], (torch.zeros(1, 3, 64, 64),), ["pixel_values", "image_embeds"])
    prior = loaded(networks.Prior(), args.prior, "prior")
    names = ["hidden_states", "timestep", "proj_embedding", "encoder_hidden_states"]
    arguments = (torch.zeros(2, networks.EMBEDDING), torch.zeros(2), torch.zeros(2, networks.EMBEDDING), torch.zeros(2, LENGTH, networks.WIDTH))
    write(prior, folder / "prior/model.onnx", names, ["predicted_image_embedding"], arguments, [*names, "predicted_image_embedding"])
    for name, values in zip(("mean", "std"), torch.load(args.prior)["moments"], strict=True):
        np.save(folder / f"prior/{name}.npy", values.float().numpy())
    decoder = loaded(networks.Decoder(), args.base, "base")
    names = ["sample", "timestep", "image_embeds"]
    write(decoder, folder / "decoder/model.onnx", names, ["out_sample"], (torch.zeros(2, 3, 32, 32), torch.zeros(2), torch.zeros(2, networks.EMBEDDING)), [*names, "out_sample"])
    upsampler(loaded(networks.Upsampler(), args.upsampler, "upsampler"), folder, False)
    schedules(folder, prior=SCHEDULER | {"prediction_type": "sample"}, decoder=SCHEDULER, upsampler=SCHEDULER)
    before = stage("prior", 1, 10, 2.0) | {"state": {"vector": networks.EMBEDDING}, "channels": 1, "normalization": ["prior/mean.npy", "prior/std.npy"]}
    drawn = stage("decoder", 32, 20, 3.0, prior={"image-embedding": {"encoder": "image_encoder/model.onnx", "size": 64}})
    stages = [before, drawn, stage("upsampler", 64, 4, 1.0, {"enlarged": "bilinear-centers"})]
    described(folder, "DALL-E 2's form: a diffusion prior over the embedding of an image, and a decoder", stages, main=1, is_projected=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=["glide", "imagen", "unclip"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoders", type=Path)
    parser.add_argument("--prior", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--upsampler", type=Path)
    arguments = parser.parse_args()
    globals()[arguments.system](arguments)
