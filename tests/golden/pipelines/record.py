"""Records a diffusers pipeline's random draws and its networks' inputs and outputs."""

import contextlib
import functools
import inspect
import pathlib

import numpy as np
import torch

# A network that runs at every step is recorded at its first calls only; states are recorded at all.
CALLS_KEPT = 4


def drawn_by():
    """Where a draw comes from: the first caller that is not torch or diffusers' helper around it."""
    for frame in inspect.stack()[2:]:
        if pathlib.Path(frame.filename).name not in ("record.py", "torch_utils.py"):
            return f"{pathlib.Path(frame.filename).stem}.{frame.function}"
    return ""


@contextlib.contextmanager
def replaced(owner, name, value):
    """`owner.name` is `value` meanwhile."""
    before = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


class Draws:
    """Every tensor of normal noise drawn while it is active, in order, and where it was drawn."""

    def __init__(self):
        self.values, self.places = [], []

    @contextlib.contextmanager
    def active(self):
        def recording(original):
            def draw(*args, **kwargs):
                value = original(*args, **kwargs)
                self.values.append(value.detach().cpu().numpy().copy())
                self.places.append(drawn_by())
                return value

            return draw

        # diffusers' randn_tensor, under whichever name a module imported it, ends in torch.randn.
        with contextlib.ExitStack() as stack:
            for name in ("randn", "randn_like"):
                stack.enter_context(replaced(torch, name, recording(getattr(torch, name))))
            yield self


def tensors(value, name="", copied=True):
    """The tensors within `value` by dotted name, copies unless told otherwise; numbers become f32 scalars."""
    if isinstance(value, torch.Tensor):
        return {name: value.detach().clone() if copied else value}
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return {}
    if isinstance(value, (int, float)):
        return {name: torch.tensor(float(value))}
    if hasattr(value, "parameters") and hasattr(value, "mode"):
        return tensors(value.parameters, "latent_parameters", copied)
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (tuple, list)):
        items = ((str(index), item) for index, item in enumerate(value))
    else:
        return {}
    found = {}
    for key, item in items:
        found |= tensors(item, f"{name}.{key}" if name else str(key), copied)
    return found


def entered_by(module):
    """The methods by which pipelines enter a network: an autoencoder's two, otherwise forward."""
    return ("encode", "decode") if hasattr(module, "decode") else ("forward",)


def arguments_of(signature, args, kwargs):
    """A call's arguments by name, without those that are no input of the network."""
    bound = signature.bind(*args, **kwargs).arguments
    bound |= bound.pop("kwargs", {})
    return {name: value for name, value in bound.items() if name not in ("generator", "return_dict")}


class Call:
    """One call of a network: `module.method(**arguments)`, the tensors among them, and what it answered."""

    def __init__(self, part, module, method, arguments, answer):
        self.part, self.module, self.method = part, module, method
        self.arguments = arguments
        self.inputs, self.outputs = tensors(arguments), tensors(answer)


class Trace:
    """Calls of a pipeline's networks and the states before and after each step of its schedulers."""

    def __init__(self, pipeline):
        self.pipeline, self.calls, self.steps, self.counts = pipeline, [], [], {}

    @contextlib.contextmanager
    def active(self):
        with contextlib.ExitStack() as stack:
            for part, component in self.pipeline.components.items():
                if isinstance(component, torch.nn.Module):
                    for method in entered_by(component):
                        replacement = self.recording_call(part, component, method)
                        stack.enter_context(replaced(component, method, replacement))
                elif hasattr(component, "step"):
                    stack.enter_context(replaced(component, "step", self.recording_step(part, component)))
            yield self

    def recording_call(self, part, component, method):
        original = getattr(component, method)
        signature = inspect.signature(original)

        @functools.wraps(original)
        def call(*args, **kwargs):
            answer = original(*args, **kwargs)
            key = part, method
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.counts[key] <= CALLS_KEPT:
                arguments = arguments_of(signature, args, kwargs)
                self.calls.append(Call(part, component, method, arguments, answer))
            return answer

        return call

    def recording_step(self, part, scheduler):
        original = scheduler.step
        signature = inspect.signature(original)

        @functools.wraps(original)
        def step(*args, **kwargs):
            bound = signature.bind(*args, **kwargs).arguments
            before = tensors({k: bound[k] for k in ("model_output", "timestep", "sample") if k in bound})
            answer = original(*args, **kwargs)
            after = answer[0] if isinstance(answer, tuple) else answer.prev_sample
            self.steps.append((part, before | {"prev_sample": after.detach().clone()}))
            return answer

        return step

    def arrays(self):
        """Everything by name: NNN.part.method.in.NAME, NNN.part.method.out.NAME, step.NNN.scheduler.NAME."""
        named = {}
        for index, call in enumerate(self.calls):
            for side, values in (("in", call.inputs), ("out", call.outputs)):
                for name, value in values.items():
                    named[f"{index:03}.{call.part}.{call.method}.{side}.{name}"] = value.numpy()
        for index, (part, values) in enumerate(self.steps):
            for name, value in values.items():
                named[f"step.{index:03}.{part}.{name}"] = value.numpy()
        for part, component in self.pipeline.components.items():
            for name in ("timesteps", "sigmas"):
                value = getattr(component, name, None)
                if hasattr(component, "step") and isinstance(value, torch.Tensor):
                    named[f"{part}.{name}"] = value.numpy()
        return named


def save_draws(draws, folder):
    """The first draw as initial-noise.npy; the others, along axis 0, as noise.npy; flat where their shapes differ."""
    first, further = draws.values[0], draws.values[1:]
    np.save(folder / "initial-noise.npy", first)
    if further:
        alike = len({value.shape[1:] for value in further}) == 1
        np.save(folder / "noise.npy", np.concatenate(further if alike else [value.ravel() for value in further]))
