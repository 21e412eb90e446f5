"""Writes tiny pipelines of diffusers as ONNX folders, and what diffusers itself makes with them.

    python make.py --merges bpe_simple_vocab_16e6.txt.gz --out FOLDER [NAME...]

FOLDER/folders/NAME is the exported pipeline: by optimum's exporter where it knows the networks, otherwise by
torch.onnx.export with optimum's names. FOLDER/ref/NAME has what the PyTorch pipeline did in f32: `args.json` (how it
was called, and each draw of noise in order), `initial-noise.npy` (the first draw), `noise.npy` (the others, on axis 0;
flat, where their shapes differ), `out.npy` ([1, 3, H, W], 0 to 1), the input images as PNG, and `trace.npz`: token
ids, embeddings, timesteps, sigmas, states. FOLDER/STATUS.md gets lines on each. Without names, everything is made, and
twice the same to the bit. CLIP's list of merges is in the package open-clip-torch.
"""

import argparse
import contextlib
import json
import pathlib
import shutil

import diffusers
import numpy as np
import PIL.Image
import torch

import cases
import export
import record
import tokens

# Keys of a call that args.json spells as Eddy's options.
RENAMED = {"num_inference_steps": "steps"}


def with_fast_tokenizers(pipeline):
    """Replaces a pipeline's tokenizers by their fast forms; returns what undoes it."""
    places = [(pipeline, name) for name in pipeline.components if name.startswith("tokenizer")]
    if hasattr(pipeline, "prior_pipe"):
        places.append((pipeline.prior_pipe, "tokenizer"))
    before = [(pipe, name, getattr(pipe, name)) for pipe, name in places]
    for pipe, name, tokenizer in before:
        setattr(pipe, name, tokens.fast_of(tokenizer))
    return lambda: [setattr(*values) for values in before]


def call(case, *contexts):
    """Calls the pipeline within contexts; returns its image, [1, 3, H, W]."""
    restore = with_fast_tokenizers(case.pipeline)
    case.pipeline.set_progress_bar_config(disable=True)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for context in contexts:
                stack.enter_context(context)
            picture = case.call(torch.Generator("cpu").manual_seed(case.seed))
    finally:
        restore()
    assert picture.ndim == 4 and picture.shape[1] == 3, picture.shape
    return np.ascontiguousarray(picture, np.float32)


def run(case, place):
    """Runs the PyTorch pipeline once and writes its reference; returns its trace and its image."""
    place.mkdir(parents=True, exist_ok=True)
    trace, draws = record.Trace(case.pipeline), record.Draws()
    picture = call(case, draws.active(), trace.active())
    np.save(place / "out.npy", picture)
    record.save_draws(draws, place)
    np.savez_compressed(place / "trace.npz", **trace.arrays())
    described = {"folder": case.folder, "class": type(case.pipeline).__name__}
    described |= {n: type(c).__name__ for n, c in case.pipeline.components.items() if hasattr(c, "step")}
    for name, value in case.arguments.items():
        if isinstance(value, PIL.Image.Image):
            value.save(place / f"{name}.png")
            value = f"{name}.png"
        if isinstance(value, torch.Tensor):
            np.save(place / f"{name}.npy", value.numpy())
            value = f"{name}.npy"
        described[RENAMED.get(name, name)] = value
    described["size"] = list(picture.shape[:1:-1])
    described["draws"] = [f"{where} {list(value.shape)}" for where, value in zip(draws.places, draws.values)]
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in described.items()]
    (place / "args.json").write_text("{\n  " + ",\n  ".join(lines) + "\n}\n", encoding="utf-8")
    return trace, picture


def make(name, out, merges):
    """Builds, runs, exports and checks one pipeline; returns lines for a report."""
    folder = out / "folders" / name
    shutil.rmtree(folder, ignore_errors=True)
    made = cases.build(name, merges)
    runs, calls = [], []
    for case in made.runs():
        case.folder = name
        place = out / "ref" / (f"{name}+{case.label}" if case.label else name)
        shutil.rmtree(place, ignore_errors=True)
        trace, picture = run(case, place)
        runs.append((case, place, picture, len(trace.steps)))
        calls += trace.calls
    if made.shares:
        export.link_folder(out / "folders" / made.shares, folder)
        export.save_settings(made.pipeline, folder)
    else:
        made.export(folder, calls)
    export.tidy(folder)
    return report(name, folder, made, runs, calls)


def report(name, folder, made, runs, calls):
    """What was made, how it looks, and how near the graphs are to PyTorch, alone and within the pipeline."""
    graphs = export.Graphs(folder)
    worst = export.check(calls, graphs)
    lines = []
    for index, (case, place, picture, steps) in enumerate(runs):
        off = float(np.abs(call(case, graphs.within(case.pipeline)) - picture).max())
        others = [np.abs(picture - other).max() for _, _, other, _ in runs[:index] if other.shape == picture.shape]
        clipped = float(np.mean((picture <= 0) | (picture >= 1)))
        line = (
            f"  - run `{place.name}`: {steps} steps, mean {picture.mean():.3f}, deviation {picture.std():.3f}, "
            f"clipped {clipped:.0%}; with the graphs in place of PyTorch off by {off:.1e}"
        )
        if others:
            line += f"; at least {min(others):.3f} from the runs before"
        if made.published and index == 0:
            error = np.abs(picture[0, -1, -3:, -3:].ravel() - np.array(made.published)).max()
            line += f"; off the published values by {error:.5f}"
        worst[place.name] = off
        lines.append(line)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    ok = all(value < 2e-5 for value in worst.values())
    checked = ", ".join(f"{part} {value:.1e}" for part, value in worst.items() if (folder / part).exists())
    title = (
        f"- **{name}**: {'ok' if ok else 'ODD'}, {size:.1f} MB, by {made.exporter}; graphs against PyTorch: {checked}"
    )
    return [title, *lines, *export.describe(folder)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(cases.NAMES)}")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--merges", type=pathlib.Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    for name in options.names or cases.NAMES:
        with open(options.out / "STATUS.md", "a", encoding="utf-8") as status:
            for line in make(name, options.out, options.merges):
                print(line, file=status, flush=True)
                print(line, flush=True)


if __name__ == "__main__":
    main()
