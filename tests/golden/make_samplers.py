"""Writes samplers.json: diffusers' own schedulers on a network with a closed form.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python tests/golden/make_samplers.py

Never run by a test. Each case holds the numbers of the schedulers as they are published, which compute in f32 (`result`).
The same schedulers are also run in f64 on the same f32 tables, with square roots that are rounded correctly: where that
differs by more than 1e-6 of the largest value, a case holds those numbers too (`exact`) and by how much the published ones
are off (`rounding`). There are two causes: cancellation (at sigma = 4096, f32 has lost the image), and torch's f32 square
root, whose last bit depends on the machine and which the rescaling to zero terminal SNR amplifies. The network is

    F(x, t) = 0.3 x + 0.1 sin(3 x + 0.01 t)

and the loop is the one of a diffusers pipeline: `latents` before its first step (for euler, euler-a and heun, already
multiplied by init_noise_sigma), then scale_model_input, the network, step. Noise is one bank, [50, 1, 2, 4, 4]; step i reads
row i. Heun's `timesteps` are those of its evaluations, 2 steps - 1 of them.

`eta` is what ddim and tcd are given (tcd's paper calls it gamma), 1 for euler-a, and 0 for the others. diffusers' euler-a has
no "sample" prediction: it is told the epsilon that says the same. HeunDiscreteScheduler, LCMScheduler and TCDScheduler have
beta_start and beta_end of their own where a file names none, so their cases always name them.
"""

import itertools
import json
import pathlib

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import (
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
    scheduling_k_dpm_2_ancestral_discrete,
    scheduling_lcm,
    scheduling_tcd,
)

SHAPE = (1, 2, 4, 4)
STEPS = (1, 2, 3, 5, 10, 20, 50)
SPACINGS = ("leading", "linspace", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
CLASSES = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp-2m": DPMSolverMultistepScheduler,
    "euler-a": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "dpmpp-2m-sde": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
    "tcd": TCDScheduler,
    "unipc": UniPCMultistepScheduler,
    "deis": DEISMultistepScheduler,
    "dpmpp-3m": DPMSolverMultistepScheduler,
    "dpmpp-single": DPMSolverSinglestepScheduler,
    "pndm": PNDMScheduler,
    "lms": LMSDiscreteScheduler,
    "kdpm2": KDPM2DiscreteScheduler,
    "kdpm2-a": KDPM2AncestralDiscreteScheduler,
}
MULTISTEP = ("unipc", "deis", "dpmpp-3m", "dpmpp-single", "pndm", "lms", "kdpm2", "kdpm2-a")
# What a name says by itself.
IMPLIED = {"dpmpp-2m-sde": {"algorithm_type": "sde-dpmsolver++"}, "dpmpp-3m": {"solver_order": 3}}
EXPLODING = ("euler", "euler-a", "heun", "lms", "kdpm2", "kdpm2-a")
# Those that know no "sample" prediction, and so are told the epsilon that says the same.
CONVERTED = ("euler-a", "kdpm2", "kdpm2-a", "pndm")
# Those that upcast to f32, and those that draw their own noise.
UPCASTING = (scheduling_euler_discrete, scheduling_euler_ancestral_discrete, scheduling_dpmsolver_multistep)
DRAWING = (
    scheduling_ddpm,
    scheduling_euler_ancestral_discrete,
    scheduling_k_dpm_2_ancestral_discrete,
    scheduling_lcm,
    scheduling_tcd,
)

# Beta schedules in use: DDPM's, Stable Diffusion's, the cosine one, and one that was "trained".
BETAS = {
    "linear": {"beta_schedule": "linear"},
    "sd": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": [round(0.001 + 0.039 * (i / 99) ** 1.5, 6) for i in range(100)],
                "num_train_timesteps": 100},
}
PLAIN = {"clip_sample": False}
# "linear" as it is where a class has no other default.
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02}
VARIANTS = {
    "ddim": [
        ("linear", {"clip_sample": True}),
        ("sd", {"clip_sample": True, "clip_sample_range": 0.5, "steps_offset": 1, "set_alpha_to_one": False}),
        ("cosine", PLAIN),
        ("trained", PLAIN),
        ("sd", PLAIN | {"rescale_betas_zero_snr": True}),
        ("linear", {"clip_sample": True, "rescale_betas_zero_snr": True}),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}),
        ("linear", PLAIN | {"set_alpha_to_one": False, "num_train_timesteps": 777, "steps_offset": 3}),
    ],
    "ddpm": [
        ("linear", {"clip_sample": True}),
        ("sd", PLAIN | {"variance_type": "fixed_large", "steps_offset": 1}),
        ("sd", {"clip_sample": True, "clip_sample_range": 2.0, "variance_type": "fixed_small_log"}),
        ("cosine", {"clip_sample": True}),
        ("trained", PLAIN),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 2.0}),
        ("sd", PLAIN | {"rescale_betas_zero_snr": True}),
    ],
    "euler": [
        ("sd", {"steps_offset": 1, "use_karras_sigmas": True}),
        ("sd", {"use_exponential_sigmas": True}),
        ("linear", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0}),
        ("sd", {"final_sigmas_type": "sigma_min"}),
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {}),
        ("trained", {}),
    ],
    "dpmpp-2m": [
        ("sd", {"steps_offset": 1, "lower_order_final": False}),
        ("sd", {"solver_order": 1}),
        ("sd", {"use_karras_sigmas": True}),
        ("sd", {"use_exponential_sigmas": True}),
        ("sd", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("linear", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
        ("linear", {"solver_type": "heun"}),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}),
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {"lambda_min_clipped": -5.1}),
        ("cosine", {"use_karras_sigmas": True, "lambda_min_clipped": -5.1}),
        ("trained", {}),
    ],
    "euler-a": [
        ("sd", {"steps_offset": 1}),
        ("linear", {}),
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {}),
        ("trained", {}),
    ],
    "heun": [
        ("sd", {"steps_offset": 1, "use_karras_sigmas": True}),
        ("linear", LINEAR | {"use_karras_sigmas": True}),
        ("sd", {"use_exponential_sigmas": True}),
        ("linear", LINEAR | {"clip_sample": True, "clip_sample_range": 0.8}),
        ("cosine", {}),
        ("trained", {}),
    ],
    "dpmpp-2m-sde": [
        ("sd", {"solver_order": 1}),
        ("sd", {"solver_order": 1, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
        ("sd", {"solver_type": "heun"}),
        ("sd", {"use_karras_sigmas": True}),
        ("sd", {"use_karras_sigmas": True, "solver_type": "heun"}),
        ("sd", {"use_exponential_sigmas": True}),
        ("sd", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("linear", {"final_sigmas_type": "sigma_min", "solver_type": "heun"}),
        ("linear", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}),
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {"lambda_min_clipped": -5.1, "euler_at_final": True, "final_sigmas_type": "sigma_min"}),
        ("trained", {}),
    ],
    # lcm and tcd know neither a spacing nor an offset, and always end in the same way; the last of each says so.
    "lcm": [
        ("linear", LINEAR | {"timestep_scaling": 0.01}),
        ("linear", LINEAR | {"clip_sample": True, "clip_sample_range": 0.8, "timestep_scaling": 0.003}),
        ("linear", LINEAR | {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}),
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {"original_inference_steps": 30}),
        ("trained", {"timestep_scaling": 1.0}),
        ("linear", LINEAR | {"num_train_timesteps": 777, "steps_offset": 3, "timestep_spacing": "trailing",
                             "set_alpha_to_one": False}),
    ],
    "tcd": [
        ("sd", {"rescale_betas_zero_snr": True}),
        ("cosine", {"original_inference_steps": 30}),
        ("trained", {}),
        ("linear", LINEAR | {"num_train_timesteps": 777, "steps_offset": 3, "timestep_spacing": "trailing",
                             "set_alpha_to_one": False, "clip_sample": True, "clip_sample_range": 0.5}),
    ],
}
# Of each, with every prediction: the spacing, the number of steps.
MULTISTEP_VARIANTS = {
    "unipc": [
        ("sd", {"solver_order": 1}, "leading", 4),
        ("sd", {"solver_order": 3, "steps_offset": 1}, "leading", 20),
        ("sd", {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, "linspace", 10),
        # diffusers' bh1 is infinite times nothing at the clean image.
        ("sd", {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}, "trailing", 10),
        ("linear", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, "linspace", 10),
        ("sd", {"use_karras_sigmas": True}, "linspace", 10),
        ("sd", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, "linspace", 5),
        ("sd", {"use_exponential_sigmas": True, "solver_order": 3}, "linspace", 10),
        ("linear", {"solver_order": 3, "predict_x0": False, "final_sigmas_type": "sigma_min"}, "linspace", 10),
        ("linear", {"disable_corrector": [0, 2]}, "linspace", 5),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, "linspace", 10),
        ("sd", {"rescale_betas_zero_snr": True}, "trailing", 10),
        ("cosine", {}, "linspace", 10),
        ("trained", {}, "leading", 5),
    ],
    "deis": [
        ("sd", {"solver_order": 1}, "leading", 4),
        ("sd", {"solver_order": 3, "steps_offset": 1}, "leading", 20),
        ("sd", {"solver_order": 3, "lower_order_final": False}, "linspace", 10),
        ("sd", {"solver_order": 3}, "trailing", 10),
        ("sd", {"use_karras_sigmas": True}, "linspace", 10),
        ("sd", {"use_exponential_sigmas": True, "solver_order": 3}, "linspace", 10),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, "linspace", 10),
        ("cosine", {}, "linspace", 10),
        ("trained", {}, "leading", 5),
    ],
    "dpmpp-3m": [
        ("sd", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, "linspace", 10),
        ("sd", {"solver_type": "heun", "steps_offset": 1}, "leading", 20),
        ("sd", {"use_karras_sigmas": True}, "linspace", 10),
        ("linear", {"use_exponential_sigmas": True, "euler_at_final": True}, "linspace", 20),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, "linspace", 10),
        ("sd", {"rescale_betas_zero_snr": True}, "trailing", 10),
        ("cosine", {"lambda_min_clipped": -5.1}, "linspace", 10),
    ],
    "dpmpp-single": [
        ("sd", {"solver_order": 1}, "linspace", 4),
        ("sd", {"solver_order": 3}, "linspace", 9),
        ("sd", {"solver_order": 3, "final_sigmas_type": "sigma_min"}, "linspace", 9),
        ("sd", {"solver_order": 3, "solver_type": "heun", "final_sigmas_type": "sigma_min"}, "linspace", 10),
        ("sd", {"solver_order": 3, "solver_type": "heun"}, "linspace", 11),
        ("sd", {"solver_type": "heun", "lower_order_final": True}, "linspace", 10),
        ("sd", {"use_karras_sigmas": True, "solver_order": 3}, "linspace", 10),
        ("linear", {"use_exponential_sigmas": True}, "linspace", 5),
        ("linear", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, "linspace", 10),
        ("cosine", {"lambda_min_clipped": -5.1}, "linspace", 10),
    ],
    "pndm": [
        ("sd", {"skip_prk_steps": False}, "leading", 4),
        ("sd", {"skip_prk_steps": False, "steps_offset": 1}, "leading", 10),
        ("sd", {"skip_prk_steps": False, "set_alpha_to_one": True}, "linspace", 10),
        ("sd", {"skip_prk_steps": False}, "trailing", 7),
        ("sd", {"skip_prk_steps": True, "set_alpha_to_one": True}, "trailing", 7),
        ("linear", {}, "leading", 20),
        ("cosine", {"skip_prk_steps": True}, "leading", 10),
        ("trained", {"skip_prk_steps": False}, "leading", 5),
    ],
    "lms": [
        ("sd", {"use_karras_sigmas": True}, "leading", 10),
        ("linear", {"use_karras_sigmas": True}, "linspace", 20),
        ("sd", {"use_exponential_sigmas": True}, "linspace", 10),
        ("sd", {"steps_offset": 1}, "leading", 4),
        ("trained", {}, "trailing", 10),
    ],
    "kdpm2": [
        ("sd", {"use_karras_sigmas": True}, "linspace", 10),
        ("sd", {"use_exponential_sigmas": True}, "linspace", 5),
        ("sd", {"steps_offset": 1}, "leading", 4),
        ("cosine", {}, "leading", 5),
        ("trained", {}, "trailing", 10),
    ],
    "kdpm2-a": [
        ("sd", {"use_karras_sigmas": True}, "linspace", 10),
        ("sd", {"steps_offset": 1}, "leading", 4),
        ("trained", {}, "trailing", 10),
    ],
}
# With every prediction and spacing; more steps with one of them each.
MULTISTEP_STEPS = (1, 4, 10)
MORE_MULTISTEP_STEPS = (2, 3, 5, 20, 50)
VARIANT_STEPS = (1, 4, 20)
LATER_VARIANT_STEPS = (4, 20)
CONSISTENCY_STEPS = (1, 2, 3, 4, 8, 50)
CONSISTENCY_VARIANT_STEPS = (1, 4, 8)
GAMMAS = (0.0, 0.3, 1.0)


class PureNoise(Exception):
    """epsilon does not determine the image in pure noise: diffusers divides by zero, Eddy refuses."""


def network(x, t):
    return 0.3 * x + 0.1 * torch.sin(3 * x + 0.01 * float(t))


class TorchInDouble:
    """Stands for `torch` within a scheduler, so that what it upcasts to f32 becomes f64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_double(scheduler):
    """Makes a scheduler compute in f64, on the f32 tables that it has."""
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and name != "timesteps":
            setattr(scheduler, name, value.double())


    if isinstance(scheduler, KDPM2AncestralDiscreteScheduler):
        # Its tables of what lies below are differences of squares: in f32 they have lost digits.
        sigmas = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1:-1:2]])
        following = torch.cat([sigmas[1:], torch.zeros(1)])
        up = (following**2 * (sigmas**2 - following**2) / sigmas**2) ** 0.5
        down = (following**2 - up**2).clamp(min=0.0) ** 0.5
        up[-1] = down[-1] = 0.0
        between = sigmas.log().lerp(down.log(), 0.5).exp()
        between[-2:] = 0.0
        tables = {"sigmas_up": up, "sigmas_down": down, "sigmas_interpol": between}
        for name, table in tables.items():
            setattr(scheduler, name, torch.cat([table[:1], table[1:].repeat_interleave(2), table[-1:]]))


TORCH_SQRT = torch.Tensor.sqrt


def run(name, config, steps, eta, start, bank):
    is_double = start.dtype == torch.float64
    if is_double:
        torch.Tensor.sqrt = lambda tensor: TORCH_SQRT(tensor.double()).to(tensor.dtype)
    is_converted = name in CONVERTED and config["prediction_type"] == "sample"
    told = {"prediction_type": "epsilon"} if is_converted else {}
    # That class knows no spacing.
    unknown = ("timestep_spacing",) if name == "dpmpp-single" else ()
    keys = config | IMPLIED.get(name, {}) | told
    scheduler = CLASSES[name](**{key: value for key, value in keys.items() if key not in unknown})
    torch.Tensor.sqrt = TORCH_SQRT
    scheduler.set_timesteps(steps)
    for module in UPCASTING:
        module.torch = TorchInDouble() if is_double else torch
    if is_double:
        in_double(scheduler)
    if name != "pndm" and len(scheduler.timesteps) > 1 and scheduler.timesteps[0] == scheduler.timesteps[1]:
        # With two equal timesteps at the start, diffusers would begin at the second and run over the end.
        scheduler.set_begin_index(0)
    if name in ("ddim", "ddpm", "lcm", "tcd") and config["prediction_type"] == "epsilon":
        if scheduler.alphas_cumprod[scheduler.timesteps[0]] == 0:
            raise PureNoise
    x = start * scheduler.init_noise_sigma
    first = x
    for i, t in enumerate(scheduler.timesteps):
        for module in DRAWING:
            module.randn_tensor = lambda *_, i=i, **__: bank[i]
        model_output = network(scheduler.scale_model_input(x, t), t)
        if is_converted:
            model_output = implied_noise(scheduler, i, t, x, model_output)
        extra = {"eta": eta, "variance_noise": bank[i]} if name == "ddim" and eta > 0 else {}
        if name == "dpmpp-2m-sde":
            extra = {"variance_noise": bank[i]}
        if name == "tcd":
            extra = {"eta": eta}
        x = scheduler.step(model_output, t, x, **extra).prev_sample
    assert x.dtype == start.dtype
    for module in UPCASTING:
        module.torch = torch
    return first, scheduler.timesteps.tolist(), x


def implied_noise(scheduler, i, t, x, x0):
    if hasattr(scheduler, "sigmas_interpol"):
        in_between = not scheduler.state_in_first_order
        # The ancestral one counts them from one less.
        shift = 0 if not in_between or isinstance(scheduler, KDPM2DiscreteScheduler) else 1
        return (x - x0) / (scheduler.sigmas_interpol[i - shift] if in_between else scheduler.sigmas[i])
    if hasattr(scheduler, "sigmas"):
        return (x - x0) / scheduler.sigmas[i]
    alpha = scheduler.alphas_cumprod[int(t)]
    return (x - alpha**0.5 * x0) / (1 - alpha) ** 0.5


def flat(tensor):
    return [float(f"{v:.9g}") for v in tensor.flatten().tolist()]


def requests():
    """(sampler, name of betas, further keys, steps, eta) of every case."""
    for name in CLASSES:
        if name in ("lcm", "tcd"):
            yield from consistency_requests(name)
            continue
        if name in MULTISTEP:
            yield from multistep_requests(name)
            continue
        fixed = 1.0 if name == "euler-a" else 0.0
        for prediction, spacing, steps in itertools.product(PREDICTIONS, SPACINGS, STEPS):
            grid = {"prediction_type": prediction, "timestep_spacing": spacing}
            clip = PLAIN if name in ("ddim", "ddpm") else {}
            yield name, "sd", grid | clip, steps, fixed
            if name == "ddim":
                if steps in (2, 10, 50):
                    yield name, "linear", grid | clip, steps, 0.7
                    yield name, "linear", grid | {"set_alpha_to_one": False}, steps, 1.0
        is_later = name in ("euler-a", "heun", "dpmpp-2m-sde")
        for (betas, extra), prediction, spacing, steps in itertools.product(
            VARIANTS[name], PREDICTIONS, SPACINGS, LATER_VARIANT_STEPS if is_later else VARIANT_STEPS
        ):
            yield name, betas, extra | {"prediction_type": prediction, "timestep_spacing": spacing}, steps, fixed


def consistency_requests(name):
    etas = GAMMAS if name == "tcd" else (0.0,)
    for prediction, steps, eta in itertools.product(PREDICTIONS, CONSISTENCY_STEPS, etas):
        yield name, "sd", {"prediction_type": prediction}, steps, eta
    for (betas, extra), prediction, steps, eta in itertools.product(
        VARIANTS[name], PREDICTIONS, CONSISTENCY_VARIANT_STEPS, etas
    ):
        yield name, betas, extra | {"prediction_type": prediction}, steps, eta


def multistep_requests(name):
    fixed = 1.0 if name == "kdpm2-a" else 0.0
    # The first step that diffusers' pipelines skip is skipped.
    base = {"skip_prk_steps": True} if name == "pndm" else {}
    spacings = ("linspace",) if name == "dpmpp-single" else SPACINGS
    for prediction, spacing, steps in itertools.product(PREDICTIONS, spacings, MULTISTEP_STEPS):
        yield name, "sd", base | {"prediction_type": prediction, "timestep_spacing": spacing}, steps, fixed
    # The bank of noise has a row for each evaluation of 25 steps.
    more = [steps for steps in MORE_MULTISTEP_STEPS if name != "kdpm2-a" or steps <= 25]
    for steps, prediction, spacing in zip(more, PREDICTIONS * 2, spacings * 5):
        yield name, "sd", base | {"prediction_type": prediction, "timestep_spacing": spacing}, steps, fixed
    for betas, extra, spacing, steps in MULTISTEP_VARIANTS[name]:
        for prediction in PREDICTIONS:
            # Sigmas of the others' default.
            ends = LINEAR if name.startswith("kdpm2") and betas == "linear" else {}
            grid = {"prediction_type": prediction, "timestep_spacing": spacing}
            if name == "pndm" and steps < 4:
                continue
            yield name, betas, base | ends | extra | grid, steps, fixed


def main():
    generator = torch.Generator().manual_seed(20261124)
    start = torch.randn(SHAPE, generator=generator)
    bank = torch.randn((50, *SHAPE), generator=generator)
    cases, left_out = [], 0
    for name, betas, extra, steps, eta in requests():
        config = BETAS[betas] | extra
        try:
            first, timesteps, x = run(name, config, steps, eta, start, bank)
            _, _, exact = run(name, config, steps, eta, start.double(), bank.double())
        except PureNoise:
            left_out += 1
            continue
        if name == "euler-a" and torch.isfinite(exact).all() and not torch.isfinite(x).all():
            # sigma_up, in f32, came out above sigma_to; sigma_down is the square root of what is left.
            left_out += 1
            continue
        assert torch.isfinite(x).all(), (name, config, steps)
        case = {"sampler": name, "betas": betas, "config": extra, "steps": steps, "eta": eta}
        if name in EXPLODING:
            case["scale"] = float(f"{(first.flatten()[0] / start.flatten()[0]).item():.9g}")
        case["timesteps"] = [float(f"{t:.9g}") for t in timesteps]
        case["result"] = flat(x)
        rounding = ((x - exact).abs().max() / exact.abs().max()).item()
        if rounding > 1e-6:
            case["rounding"] = float(f"{rounding:.4g}")
            case["exact"] = flat(exact)
        cases.append(case)
    document = {"shape": SHAPE, "start": flat(start), "noise": flat(bank), "betas": BETAS, "cases": cases}
    path = pathlib.Path(__file__).with_name("samplers.json")
    with path.open("w") as file:
        head = {k: v for k, v in document.items() if k != "cases"}
        file.write(json.dumps(head, separators=(",", ":"))[:-1] + ',"cases":[\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))
        file.write("\n]}\n")
    print(f"{len(cases)} cases, {left_out} left out, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
