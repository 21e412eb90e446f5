"""Writes tests/data/pipelines: tiny pipelines in the diffusers layout, and what diffusers' own schedulers make of them.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python tests/golden/make_pipelines.py

Never run by a test. Each folder holds a random convolutional U-Net of a few KB, `unet/model.onnx`, and a
`scheduler/scheduler_config.json` as a scheduler's save_pretrained writes it; the other samplers' schedulers are made
from that file by from_config. The loop is that of a diffusers pipeline around an ONNX network: `latents` in f32 (for
Euler, already multiplied by init_noise_sigma), scale_model_input, the network in ONNX Runtime with the timestep cast to
the type of its input, step. All start from `start.npy`; step i draws row i of `noise.npy`. `cases.json` lists the runs,
and `<pipeline>/expected.npy` holds their ends in the same order. The schedulers are also run in f64 around the same
network: where that differs by more than 5e-6 of the largest value, since the published ones have lost the image at a
sigma of hundreds, `<pipeline>/exact.npy` holds that end too, and the case by how much the published one is off
(`rounding`).

`published*.onnx` stand for the network of diffusers' own test-suite, `sample * t / (t + 1)`. `conditional.onnx` wants a
text as well.
"""

import json
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm, scheduling_dpmsolver_multistep, scheduling_euler_discrete
from make_samplers import TorchInDouble, in_double
from onnx import TensorProto, helper, numpy_helper

PLACE = pathlib.Path(__file__).parents[1] / "data" / "pipelines"
SHAPE = (2, 3, 7, 12)
WIDTH = 8
RUNS = [("ddim", 0.0), ("ddim", 0.7), ("ddpm", 0.0), ("euler", 0.0), ("dpmpp-2m", 0.0)]
STEPS = (1, 4, 10, 50)
CLASSES = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp-2m": DPMSolverMultistepScheduler,
}
UPCASTING = (scheduling_euler_discrete, scheduling_dpmsolver_multistep)
F32, F16, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {
    "sd-epsilon": DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "sd-v": DDIMScheduler(**SD, clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing"),
    "ddpm-v": DDPMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
    "euler-sample": EulerDiscreteScheduler(**SD, prediction_type="sample"),
    "solver-epsilon": DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True),
}
SKIPS = {"epsilon": 0.9, "v_prediction": 0.0, "sample": 0.1}
# Element type of the network, element type and shape of its timestep, scheduler.
PIPELINES = {
    "int64-scalar": (F32, I64, [], "sd-epsilon"),
    "int64-one": (F32, I64, [1], "ddpm-v"),
    "int64-batch": (F32, I64, ["batch"], "euler-sample"),
    "float32-scalar": (F32, F32, [], "solver-epsilon"),
    "float32-batch": (F32, F32, ["batch"], "sd-v"),
    "float16": (F16, I64, ["batch"], "sd-epsilon"),
}


def save(path, nodes, constants, element, timestep, channels=3, further=()):
    """Saves a graph from `sample` and `timestep` to `out_sample`."""
    picture = ["batch", channels, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "unet",
        [
            helper.make_tensor_value_info("sample", element, picture),
            helper.make_tensor_value_info("timestep", *timestep),
            *(helper.make_tensor_value_info(*value) for value in further),
        ],
        [helper.make_tensor_value_info("out_sample", element, picture)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def save_unet(path, seed, element, timestep, skip=0.0, further=()):
    """Two convolutions, between them an embedding of the timestep in sines and cosines; `skip` times `sample` is added.

    Without a skip, a network that predicts epsilon would have images of any size, all clipped where clipping is on.
    """
    dtype = helper.tensor_dtype_to_np_dtype(element)
    random = np.random.default_rng(seed)

    def normal(*shape, scale):
        return (random.standard_normal(shape) * scale).astype(dtype)

    constants = {
        "frequencies": (10.0 ** -np.linspace(0.5, 3.0, WIDTH // 2))[None].astype(np.float32),
        "column": np.array([-1, 1], np.int64),
        "plane": np.array([2, 3], np.int64),
        "embed.weight": normal(WIDTH, WIDTH, scale=0.5),
        "embed.bias": normal(WIDTH, scale=0.1),
        "in.weight": normal(WIDTH, 3, 3, 3, scale=27**-0.5),
        "in.bias": normal(WIDTH, scale=0.1),
        "out.weight": normal(3, WIDTH, 3, 3, scale=0.5 * (9 * WIDTH) ** -0.5),
        "out.bias": normal(3, scale=0.1),
        "skip": np.array(skip, dtype),
    }
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["timestep"], ["t"], to=F32),
        helper.make_node("Reshape", ["t", "column"], ["t_column"]),
        helper.make_node("Mul", ["t_column", "frequencies"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["sines"]),
        helper.make_node("Cos", ["angles"], ["cosines"]),
        helper.make_node("Concat", ["sines", "cosines"], ["waves_f32"], axis=1),
        helper.make_node("Cast", ["waves_f32"], ["waves"], to=element),
        helper.make_node("Gemm", ["waves", "embed.weight", "embed.bias"], ["embedding"], transB=1),
        helper.make_node("Unsqueeze", ["embedding", "plane"], ["embedding_plane"]),
        helper.make_node("Conv", ["sample", "in.weight", "in.bias"], ["features"], **conv),
        helper.make_node("Add", ["features", "embedding_plane"], ["told"]),
        helper.make_node("Sigmoid", ["told"], ["gate"]),
        helper.make_node("Mul", ["told", "gate"], ["hidden"]),
        helper.make_node("Conv", ["hidden", "out.weight", "out.bias"], ["rest"], **conv),
        helper.make_node("Mul", ["sample", "skip"], ["skipped"]),
        helper.make_node("Add", ["skipped", "rest"], ["out_sample"]),
    ]
    save(path, nodes, constants, element, timestep, further=further)


def save_published(path):
    """The network of diffusers' tests: `sample * t / (t + 1)`."""
    nodes = [
        helper.make_node("Add", ["timestep", "one"], ["next"]),
        helper.make_node("Div", ["timestep", "next"], ["factor"]),
        helper.make_node("Mul", ["sample", "factor"], ["out_sample"]),
    ]
    save(path, nodes, {"one": np.array(1.0, np.float32)}, F32, (F32, []))


def save_published_euler(path, scheduler):
    """The same as diffusers' test of Euler uses it, for the 10 steps of that test.

    It takes each step from the scaled input y = x / sqrt(sigma^2 + 1) rather than from the state x itself. A pipeline
    does not, so that the difference, y - x over the length of the step, is made a part of the network.
    """
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double().numpy()
    t = scheduler.timesteps.double().numpy()
    factors = t / (t + 1) + (1 - np.sqrt(sigmas[:-1] ** 2 + 1)) / np.diff(sigmas)
    nodes = [
        helper.make_node("Sub", ["timesteps", "timestep"], ["differences"]),
        helper.make_node("Abs", ["differences"], ["distances"]),
        helper.make_node("ArgMin", ["distances"], ["nearest"], axis=0, keepdims=0),
        helper.make_node("Gather", ["factors", "nearest"], ["factor"]),
        helper.make_node("Mul", ["sample", "factor"], ["out_sample"]),
    ]
    constants = {"timesteps": t.astype(np.float32), "factors": factors.astype(np.float32)}
    save(path, nodes, constants, F32, (F32, []))


class Network:
    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
        sample, timestep = self.session.get_inputs()
        self.dtype, self.timestep_dtype = types[sample.type], types[timestep.type]
        self.timestep_shape = [SHAPE[0] if length == "batch" else length for length in timestep.shape]

    def __call__(self, x, t):
        inputs = {
            "sample": x.numpy().astype(self.dtype),
            "timestep": np.full(self.timestep_shape, t.item()).astype(self.timestep_dtype),
        }
        return torch.from_numpy(self.session.run(["out_sample"], inputs)[0]).to(x.dtype)


def run(folder, network, sampler, eta, steps, start, noise):
    """init_noise_sigma and the end of a run, in the type of `start`, f32 or f64."""
    is_double = start.dtype == torch.float64
    scheduler = CLASSES[sampler].from_config(CLASSES[sampler].load_config(folder / "scheduler"))
    scheduler.set_timesteps(steps)
    scale = torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float32)
    # The input of a run is f32 in either case.
    x = (start.float() * scale).to(start.dtype)
    if is_double:
        in_double(scheduler)
        for module in UPCASTING:
            module.torch = TorchInDouble()
    for i, t in enumerate(scheduler.timesteps):
        scheduling_ddpm.randn_tensor = lambda *_, i=i, **__: noise[i]
        output = network(scheduler.scale_model_input(x, t), t)
        extra = {"eta": eta, "variance_noise": noise[i]} if eta > 0 else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
    # The tables of the next scheduler are f32 again.
    for module in UPCASTING:
        module.torch = torch
    assert x.dtype == start.dtype and torch.isfinite(x).all(), (folder, sampler, steps)
    return scale.item(), x.double().numpy()


def main():
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    generator = torch.Generator().manual_seed(20261124)
    start = torch.randn(SHAPE, generator=generator)
    noise = torch.randn((max(STEPS), *SHAPE), generator=generator)
    np.save(PLACE / "start.npy", start.numpy())
    np.save(PLACE / "noise.npy", noise.numpy())
    cases = []
    for seed, (name, (element, timestep, shape, scheduler)) in enumerate(PIPELINES.items()):
        folder = PLACE / name
        prediction = SCHEDULERS[scheduler].config.prediction_type
        save_unet(folder / "unet" / "model.onnx", seed, element, (timestep, shape), SKIPS[prediction])
        SCHEDULERS[scheduler].save_pretrained(folder / "scheduler")
        network = Network(folder / "unet" / "model.onnx")
        ends, exact = [], []
        for (sampler, eta), steps in ((run, steps) for run in RUNS for steps in STEPS):
            scale, end = run(folder, network, sampler, eta, steps, start, noise)
            _, double = run(folder, network, sampler, eta, steps, start.double(), noise.double())
            case = {"pipeline": name, "sampler": sampler, "eta": eta, "steps": steps, "row": len(ends)}
            case |= {"prediction": prediction, "scale": float(f"{scale:.9g}")}
            rounding = np.abs(end - double).max() / np.abs(double).max()
            if element == F32 and rounding > 5e-6:
                case |= {"rounding": float(f"{rounding:.4g}"), "exact_row": len(exact)}
                exact.append(double)
            ends.append(end)
            cases.append(case)
        np.save(folder / "expected.npy", np.stack(ends).astype(np.float32))
        if exact:
            np.save(folder / "exact.npy", np.stack(exact).astype(np.float32))
    with (PLACE / "cases.json").open("w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    betas = {"num_train_timesteps": 1100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    save_published(PLACE / "published.onnx")
    save_published_euler(PLACE / "published-euler.onnx", EulerDiscreteScheduler(**betas))
    save_published_euler(
        PLACE / "published-euler-karras.onnx", EulerDiscreteScheduler(**betas, use_karras_sigmas=True)
    )
    text = ("encoder_hidden_states", F32, ["batch", 77, 768])
    save_unet(PLACE / "conditional.onnx", 99, F32, (I64, []), further=[text])
    size = sum(path.stat().st_size for path in PLACE.rglob("*") if path.is_file())
    print(f"{len(cases)} cases, {size} bytes")


if __name__ == "__main__":
    main()
