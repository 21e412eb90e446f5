"""Exports a pipeline's networks to a folder in optimum's layout, and checks the graphs against recorded calls."""

import contextlib
import functools
import inspect
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch

import networks
import record

OPSET = 18
# How optimum names what diffusers names otherwise.
INPUT_NAMES = {
    "added_cond_kwargs.text_embeds": "text_embeds",
    "added_cond_kwargs.time_ids": "time_ids",
    "added_cond_kwargs.image_embeds": "image_embeds",
    "added_cond_kwargs.resolution": "resolution",
    "added_cond_kwargs.aspect_ratio": "aspect_ratio",
}
FLOAT_SCALARS = ("timestep", "timesteps")


def by_optimum(pipeline, folder):
    """What `optimum-cli export onnx -m PIPELINE --library-name diffusers FOLDER` does."""
    from optimum.exporters.onnx import main_export, onnx_export_from_model

    if getattr(pipeline, "text_encoder_3", True) is None:
        # diffusers loads such a folder only if its index says that there is no third encoder.
        onnx_export_from_model(pipeline, folder, task="text-to-image", library_name="diffusers", do_validation=False)
        return
    with tempfile.TemporaryDirectory() as saved:
        pipeline.save_pretrained(saved)
        main_export(saved, folder, task="text-to-image", library_name="diffusers", do_validation=False)


def part_folder(part, method):
    """vae/encode is vae_encoder, vae/decode vae_decoder; a decoder alone of another kind keeps its name."""
    if part == "vae":
        return {"encode": "vae_encoder", "decode": "vae_decoder"}[method]
    return f"{part}_encoder" if method == "encode" else part


def input_name(call, name):
    if call.method == "decode":
        return "latent_sample"
    if call.method == "encode":
        return "sample"
    return INPUT_NAMES.get(name, name)


def free_dimensions(name, rank, fixed=False):
    """Dimensions of an input or output that may have any size: batch; positions of tokens; height and width."""
    if rank == 4:
        return {0: "batch_size"} if fixed else {0: "batch_size", 2: "height", 3: "width"}
    if rank == 3:
        return {0: "batch_size", 1: "sequence_length"}
    if rank == 2 and (name == "input_ids" or name.endswith("mask")):
        return {0: "batch_size", 1: "sequence_length"}
    if rank == 2 and name in ("txt_ids", "img_ids"):
        return {0: f"{name}_length"}
    return {0: "batch_size"} if rank else {}


class ByPosition(torch.nn.Module):
    """`module.method` as a function of the tensors of one recorded call, in their order."""

    def __init__(self, call, outputs):
        super().__init__()
        self.module = call.module
        self.call, self.outputs = call, outputs

    def forward(self, *values):
        arguments = replace_tensors(self.call.arguments, dict(zip(self.call.inputs, values)))
        takes = inspect.signature(getattr(type(self.module), self.call.method)).parameters
        if "return_dict" in takes:
            arguments["return_dict"] = True
        answer = getattr(self.module, self.call.method)(**arguments)
        if hasattr(answer, "latent_dist"):
            return answer.latent_dist.parameters
        if isinstance(answer, (torch.Tensor, tuple)):
            return answer
        found = dict(answer.items())
        flat = {}
        for name, value in found.items():
            if isinstance(value, (tuple, list)):
                flat |= {f"{name}.{index}": item for index, item in enumerate(value)}
            else:
                flat[name] = value
        return tuple(flat[name] for name in self.outputs)


def replace_tensors(value, tensors, name=""):
    if isinstance(value, dict):
        return {k: replace_tensors(v, tensors, f"{name}.{k}" if name else k) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(replace_tensors(v, tensors, f"{name}.{k}" if name else str(k)) for k, v in enumerate(value))
    return tensors.get(name, value)


def by_torch(pipeline, calls, folder, fixed=()):
    """Exports each network that `calls` has, with that call's inputs; graphs of `fixed` keep its width and height."""
    done = set()
    for call in calls:
        place = part_folder(call.part, call.method)
        if place in done:
            continue
        done.add(place)
        export_call(call, folder / place, place in fixed)
    save_settings(pipeline, folder)


def save_settings(pipeline, folder):
    """model_index.json, tokenizers and schedulers, as diffusers saves them; what is there and linked is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        saved = pathlib.Path(saved)
        pipeline.save_config(saved)
        for part, component in pipeline.components.items():
            if hasattr(component, "save_pretrained") and not isinstance(component, torch.nn.Module):
                component.save_pretrained(saved / part)
        for path in saved.rglob("*"):
            if path.is_file():
                place = folder / path.relative_to(saved)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                shutil.copy(path, place)


def tidy(folder):
    """Removes the names of temporary folders from settings."""
    for path in folder.rglob("*.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("_name_or_path", None) is not None:
            replace_file(path, settings)


def export_call(call, folder, fixed=False):
    """Writes folder/model.onnx and folder/config.json."""
    kept = default_outputs(call)
    names = [input_name(call, name) for name in call.inputs]
    values = [value.to(torch.float32) if name in FLOAT_SCALARS else value for name, value in call.inputs.items()]
    free = {name: free_dimensions(name, value.ndim, fixed) for name, value in zip(names, values)}
    module = ByPosition(call, list(kept))
    with torch.no_grad():
        answers = module(*values)
        answers = answers if isinstance(answers, tuple) else (answers,)
        free |= {name: free_dimensions(name, value.ndim, fixed) for name, value in zip(kept.values(), answers)}
    free = {name: axes for name, axes in free.items() if axes}
    write_graph(module, dict(zip(names, values)), list(kept.values()), free, folder)
    save_network_config(call.module, folder)


def save_network_config(module, folder):
    if hasattr(module, "save_config"):
        module.save_config(folder)
    else:
        module.config.save_pretrained(folder)


def default_outputs(call):
    """Optimum's names: the network's result is out_sample, an encoder's latent_parameters, a decoder's sample."""
    if call.method == "encode":
        kind = "latent_parameters" if "latent_parameters" in call.outputs else "latent_sample"
        return {"latent_parameters" if kind == "latent_parameters" else "latents": kind}
    if call.method == "decode":
        return {"sample": "sample"}
    kind = type(call.module).__name__
    if kind.startswith("UNet") or "Transformer2D" in kind:
        out = "out_sample" if "sample" in call.inputs else "out_hidden_states"
        return {"sample": out}
    if kind == "UnCLIPTextProjModel":
        names = ("encoder_hidden_states", "additive_clip_time_embeddings")
        return {name: name for name in names}
    if kind == "ControlNetModel":
        names = [f"down_block_res_samples.{index}" for index in range(len(call.outputs) - 1)]
        return {name: name for name in [*names, "mid_block_res_sample"]}
    if kind == "CLIPTextModelWithProjection":
        return {"text_embeds": "text_embeds", "last_hidden_state": "last_hidden_state"}
    if kind == "CLIPTextModel":
        return {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"}
    if kind == "PriorTransformer":
        return {"predicted_image_embedding": "predicted_image_embedding"}
    if kind == "CLIPVisionModelWithProjection":
        return {"image_embeds": "image_embeds"}
    if kind.startswith("T5"):
        return {"last_hidden_state": "last_hidden_state"}
    return {name: name for name in call.outputs}


def fuse_controlnet(folder, calls):
    """Replaces U-Net and ControlNet by one graph in unet/, as diffusers' converter of ControlNets writes it."""
    call = next(call for call in calls if call.part == "controlnet")
    unet = next(call for call in calls if call.part == "unet").module
    fused = networks.FusedControlNet(unet, [call.module]).eval()
    shutil.rmtree(folder / "controlnet")
    image = call.inputs["controlnet_cond"]
    values = {
        "sample": call.inputs["sample"],
        "timestep": call.inputs["timestep"].float().reshape(1),
        "encoder_hidden_states": call.inputs["encoder_hidden_states"],
        "controlnet_conds": image[None],
        "conditioning_scales": torch.ones(1, 1),
    }
    free = {
        "sample": {0: "2B", 2: "H", 3: "W"},
        "encoder_hidden_states": {0: "2B"},
        "controlnet_conds": {1: "2B", 3: "8H", 4: "8W"},
    }
    write_graph(fused, values, ["noise_pred"], free, folder / "unet")
    name_converted(folder, ("text_encoder", "unet", "vae_decoder"))


def save_clip_statistics(folder, calls):
    """Writes what turns a prior's result into an embedding, and is in no graph: clip_mean.npy and clip_std.npy."""
    for call in calls:
        if type(call.module).__name__ == "PriorTransformer":
            for name in ("clip_mean", "clip_std"):
                np.save(folder / call.part / f"{name}.npy", getattr(call.module, name).detach().numpy())


def as_converted(folder, calls):
    """Makes `folder` what diffusers' converter of Stable Diffusion writes: other names, no settings of networks.

    Ids are int32, the timestep is int64 with a batch's length, the encoder samples within its graph.
    """
    parts = {(call.part, call.method): call for call in reversed(calls)}
    text = parts["text_encoder", "forward"]
    unet = parts["unet", "forward"]
    vae = parts["vae", "decode"].module
    write_graph(
        Answers(text.module, "last_hidden_state", "pooler_output"),
        {"input_ids": text.inputs["input_ids"].to(torch.int32)},
        ["last_hidden_state", "pooler_output"],
        {"input_ids": {0: "batch", 1: "sequence"}},
        folder / "text_encoder",
    )
    sizes = {0: "batch", 1: "channels", 2: "height", 3: "width"}
    write_graph(
        Answers(unet.module, "sample"),
        {
            "sample": unet.inputs["sample"],
            "timestep": torch.tensor([0, 1]),
            "encoder_hidden_states": unet.inputs["encoder_hidden_states"],
        },
        ["out_sample"],
        {"sample": sizes, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}},
        folder / "unet",
    )
    write_graph(
        Sampled(vae),
        {"sample": torch.zeros(1, 3, 64, 96)},
        ["latent_sample"],
        {"sample": sizes},
        folder / "vae_encoder",
    )
    name_converted(folder, ("text_encoder", "unet", "vae_encoder", "vae_decoder"))


def name_converted(folder, parts):
    """Rewrites model_index.json as diffusers' converters do, and removes the networks' settings."""
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "OnnxStableDiffusionPipeline"
    for name in ("vae", "controlnet", "image_encoder"):
        index.pop(name, None)
    index |= {part: ["diffusers", "OnnxRuntimeModel"] for part in parts}
    replace_file(folder / "model_index.json", index)
    for part in parts:
        (folder / part / "config.json").unlink(missing_ok=True)


class Answers(torch.nn.Module):
    """A network that answers with the named fields of its output."""

    def __init__(self, module, *fields):
        super().__init__()
        self.module, self.fields = module, fields

    def forward(self, *values):
        answer = self.module(*values)
        return tuple(answer[field] for field in self.fields)


class Sampled(torch.nn.Module):
    """An autoencoder's encoder that draws from its posterior."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.encode(sample).latent_dist.sample()


def write_graph(module, values, outputs, free, folder):
    """Writes folder/model.onnx by tracing `module` on `values`, which are named as the graph's inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            module.eval(),
            tuple(values.values()),
            folder / "model.onnx",
            input_names=list(values),
            output_names=outputs,
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )


class Graphs:
    """The graphs of a folder, in place of the networks of a pipeline."""

    def __init__(self, folder):
        self.folder, self.sessions = folder, {}

    def session(self, part, method):
        path = self.folder / part_folder(part, method) / "model.onnx"
        if path not in self.sessions:
            self.sessions[path] = (
                onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
                if path.exists()
                else None
            )
        return self.sessions[path]

    def run(self, call, controlnet=None):
        """What the graph answers to a recorded call, by output name; nothing where there is no graph."""
        session = self.session(call.part, call.method)
        if session is None:
            return {}
        given = {input_name(call, name): value for name, value in call.inputs.items()}
        if controlnet is not None:
            given["controlnet_conds"] = controlnet.inputs["controlnet_cond"][None]
            given["conditioning_scales"] = controlnet.inputs["conditioning_scale"].reshape(1, 1)
        feed = {}
        for value in session.get_inputs():
            array = given[value.name].numpy().astype(ELEMENTS[value.type])
            feed[value.name] = array.reshape(1) if array.ndim < len(value.shape) == 1 else array
        return dict(zip((output.name for output in session.get_outputs()), session.run(None, feed)))

    @contextlib.contextmanager
    def within(self, pipeline):
        """Has every network of the pipeline answer with what its graph answers."""
        controlnet = None

        def answering(part, module, method):
            original = getattr(module, method)
            signature = inspect.signature(original)

            @functools.wraps(original)
            def call(*args, **kwargs):
                nonlocal controlnet
                answer = original(*args, **kwargs)
                made = record.Call(part, module, method, record.arguments_of(signature, args, kwargs), answer)
                if part == "controlnet":
                    controlnet = made
                overwrite(answer, self.run(made, controlnet if part == "unet" else None), made)
                return answer

            return call

        with contextlib.ExitStack() as stack:
            for part, module in pipeline.components.items():
                if isinstance(module, torch.nn.Module):
                    for method in record.entered_by(module):
                        replacement = answering(part, module, method)
                        stack.enter_context(record.replaced(module, method, replacement))
            yield


ELEMENTS = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": bool}


def overwrite(answer, outputs, call):
    """Puts a graph's outputs into the tensors that a network answered with."""
    places = record.tensors(answer, copied=False)
    for name, value in outputs.items():
        key = recorded_name(call, name, list(outputs))
        if key is not None:
            places[key].copy_(torch.from_numpy(value))
    posterior = answer[0] if isinstance(answer, tuple) else getattr(answer, "latent_dist", None)
    if hasattr(posterior, "parameters") and hasattr(posterior, "mode"):
        posterior.__init__(posterior.parameters)


def check(calls, graphs):
    """The largest difference of each graph from its recorded calls, relative to the largest value or 1."""
    worst = {}
    controlnet = next((call for call in calls if call.part == "controlnet"), None)
    for call in calls:
        outputs = graphs.run(call, controlnet if call.part == "unet" else None)
        for name, answer in outputs.items():
            key = recorded_name(call, name, list(outputs))
            if key is not None:
                expected = call.outputs[key].float().numpy()
                difference = float(np.abs(answer - expected).max() / max(1.0, np.abs(expected).max()))
                place = part_folder(call.part, call.method)
                worst[place] = max(worst.get(place, 0.0), difference)
    return worst


def recorded_name(call, name, names):
    """Under which name a call recorded what the graph's output `name` of `names` holds; none where it did not."""
    if name in call.outputs:
        return name
    if len(call.outputs) == len(names) or name == names[0]:
        return list(call.outputs)[names.index(name)]
    return None


def session_options():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def describe(folder):
    """Inputs and outputs of every graph in `folder`: name, element type, dimensions."""
    lines = []
    for path in sorted(folder.rglob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        sides = []
        constants = {value.name for value in graph.initializer}
        for values in (graph.input, graph.output):
            described = []
            for value in values:
                if value.name in constants:
                    continue
                kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
                shape = ", ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
                described.append(f"{value.name} {kind} [{shape}]")
            sides.append("; ".join(described))
        lines.append(f"  - `{path.relative_to(folder)}` ({path.stat().st_size // 1024} KB): {sides[0]} -> {sides[1]}")
    return lines


def link_folder(source, target):
    """`target` as `source`, with hard links in place of copies."""
    if target.exists():
        shutil.rmtree(target)
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


def replace_file(path, text):
    """Writes `path` anew, so that a file it was hard-linked to keeps its content."""
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text, indent=2) + "\n")
