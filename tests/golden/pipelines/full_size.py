"""Measures pipelines of full size, with random weights, in Eddy and in optimum.

    python full_size.py make --merges bpe_simple_vocab_16e6.txt.gz --out FOLDERS [sd15|sd-turbo ...]
    python full_size.py measure --eddy EDDY FOLDERS/sd15-f32 ...

`make` writes FOLDERS/NAME-f32, NAME-f16 (exported in that type) and NAME-int8 (the weights of matrix products as bytes)
as optimum exports them: Stable Diffusion 1.5 and SD-Turbo in the sizes of their published configurations. It takes
10 GB of memory, 6 GB of disk for each NAME beside what it writes, and the packages of requirements.txt.

`measure` runs Eddy, optimum's pipeline and a bare session of the denoiser in turn, as often as `--rounds` says, with as
many threads each, and prints a table in Markdown: medians, and the ratios that the medians have. Start is the time from
the start of the process to the first evaluation of the denoiser; a step is one evaluation for both conditions. Peak
memory is the largest resident set, which counts mapped pages of weight files; anonymous memory leaves these out. Times
of Eddy are read from its progress bar, which is exact to half a second.
"""

import argparse
import gc
import json
import os
import pathlib
import pty
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

NAMES = ("sd15", "sd-turbo")
PROMPT = "a lighthouse in a storm"


# Folders. torch is imported here only, since what measures must stay small: a process that is started inherits the peak
# of its parent.


def pipeline(name, merges):
    import tokens
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    betas = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    ids = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1)
    torch.manual_seed(0)
    if name == "sd15":
        unet = dict(cross_attention_dim=768, attention_head_dim=8)
        text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
        scheduler = PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **betas)
    else:
        unet = dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
        text = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=23)
        text |= dict(projection_dim=512, hidden_act="gelu")
        scheduler = EulerDiscreteScheduler(timestep_spacing="trailing", **betas)
    return StableDiffusionPipeline(
        # What is not given here is as in Stable Diffusion by default.
        unet=UNet2DConditionModel(sample_size=64, **unet),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, **ids)),
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=512,
        ),
        tokenizer=tokens.clip(merges, tokens.CLIP_FULL, pad="<|endoftext|>" if name == "sd15" else "!"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make(name, merges, out):
    import torch
    from optimum.exporters.onnx import main_export

    for kind, dtype in (("f32", "fp32"), ("f16", "fp16")):
        made = pipeline(name, merges)
        if kind == "f16":
            made.to(torch.float16)
        with tempfile.TemporaryDirectory(dir=out) as saved:
            made.save_pretrained(saved)
            del made
            gc.collect()
            folder = out / f"{name}-{kind}"
            settings = dict(task="text-to-image", library_name="diffusers", do_validation=False)
            main_export(saved, folder, dtype=dtype, **settings)
    quantize(out / f"{name}-f32", out / f"{name}-int8")


def quantize(folder, target):
    """Copies a folder with the weights of its matrix products as bytes, as onnxruntime's dynamic quantization does."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("model.onnx*"))
    for graph in sorted(folder.glob("*/model.onnx")):
        quantize_dynamic(
            graph,
            target / graph.relative_to(folder),
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            use_external_data_format=graph.parent.name == "unet",
            extra_options=dict(MatMulConstBOnly=True),
        )


# What is measured, each in a process of its own. They print the times of their evaluations.


def run_optimum(folder, options):
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTStableDiffusionPipeline

    torch.set_num_threads(options.threads)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    made = ORTStableDiffusionPipeline.from_pretrained(folder, session_options=session_options)
    times, evaluate = [], made.unet.forward

    def timed(*args, **kwargs):
        begun = time.monotonic()
        answer = evaluate(*args, **kwargs)
        times.append([begun, time.monotonic()])
        return answer

    made.unet.forward = timed
    made.set_progress_bar_config(disable=True)
    size = dict(width=options.size, height=options.size)
    made(PROMPT, num_inference_steps=options.steps, guidance_scale=options.guidance_scale, **size)
    print(json.dumps(times))


def run_bare(folder, options):
    import numpy as np
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    path = pathlib.Path(folder) / "unet" / "model.onnx"
    session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    batch = 2 if options.guidance_scale > 1 else 1
    elements = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    feeds = {}
    for given in session.get_inputs():
        rank = len(given.shape)
        free = [batch, 4, options.size // 8, options.size // 8] if rank == 4 else [batch, 77, 0][:rank]
        shape = [side if isinstance(side, int) else free[axis] for axis, side in enumerate(given.shape)]
        values = random.standard_normal(shape) if rank > 1 else np.full(shape, 500)
        feeds[given.name] = values.astype(elements[given.type])
    times = []
    for _ in range(options.steps + 1):
        begun = time.monotonic()
        session.run(None, feeds)
        times.append([begun, time.monotonic()])
    print(json.dumps(times))


# Measuring


class Run:
    """A process, how much memory it had at most, and when evaluations of its denoiser began and ended."""

    def __init__(self, command, terminal=False):
        self.anonymous = 0
        self.shown = []
        begun = time.monotonic()
        if terminal:
            own, its = pty.openpty()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its)
            os.close(its)
            reader = threading.Thread(target=self.read_bar, args=(own, begun))
        else:
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            reader = None
        ended = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(process.pid, ended))
        for thread in filter(None, (reader, watcher)):
            thread.start()
        output = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watcher.join()
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))} failed with {process.returncode}")
        if reader:
            reader.join()
            # The bar may not show the last evaluation, nor begin anew after the first.
            times = [at for _, at in self.shown]
            self.step = statistics.median(b - a for a, b in zip(times, times[1:]))
            self.start = times[0] - self.step
        else:
            times = json.loads(output.strip().splitlines()[-1])
            self.step = statistics.median(end - start for start, end in times[1:])
            self.start = times[0][0] - begun
        self.peak = usage.ru_maxrss / 1e6

    def watch(self, pid, ended):
        while not ended.wait(0.2):
            try:
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            found = re.search(r"^Anonymous:\s+(\d+)", rollup, re.MULTILINE)
            self.anonymous = max(self.anonymous, int(found[1]) / 1e6) if found else self.anonymous

    def read_bar(self, terminal, begun):
        while True:
            try:
                text = os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                return
            for percent in re.findall(r"(\d+) %", text):
                percent = int(percent)
                if percent and (not self.shown or percent > self.shown[-1][0]):
                    self.shown.append((percent, time.monotonic() - begun))


def measure(folder, options):
    """Runs everything in turn; returns one list of runs for each of Eddy, optimum and the bare session."""
    with tempfile.TemporaryDirectory() as place:
        size = f"{options.size}x{options.size}"
        settings = ["--size", size, "--steps", options.steps, "--threads", options.threads]
        settings += ["--guidance-scale", options.guidance_scale]
        eddy = [options.eddy, "generate", "-m", folder, "--prompt", PROMPT, "-o", f"{place}/out.png", *settings]
        own = [sys.executable, __file__, "run", folder, *settings[2:], "--size", options.size]
        commands = [eddy, [*own, "--what", "optimum"], [*own, "--what", "bare"]]
        rounds = []
        for _ in range(options.rounds):
            rounds.append([Run(list(map(str, command)), command is eddy) for command in commands])
            values = [f"{run.peak:.2f} GB, {run.start:.1f} s, {run.step:.2f} s" for run in rounds[-1]]
            print(f"{folder}: {'; '.join(values)}", file=sys.stderr, flush=True)
    return list(zip(*rounds))


def row(folder, runs):
    def median(index, value):
        return statistics.median(getattr(run, value) for run in runs[index])

    def pair(value, digits):
        eddy, optimum = median(0, value), median(1, value)
        return [f"{eddy:.{digits}f}", f"{optimum:.{digits}f}", f"{eddy / optimum:.2f}"]

    size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e9
    steps = [median(index, "step") for index in range(3)]
    cells = [pathlib.Path(folder).name, f"{size:.1f}", *pair("peak", 2), *pair("anonymous", 2), *pair("start", 1)]
    cells += [*(f"{step:.2f}" for step in steps), f"{steps[0] / steps[2]:.2f}"]
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("names", nargs="*", choices=[*NAMES, []], default=["sd15"])
    making.add_argument("--merges", type=pathlib.Path, required=True, help="of the package open-clip-torch")
    making.add_argument("--out", type=pathlib.Path, required=True)
    for command in (commands.add_parser("measure"), commands.add_parser("run")):
        command.add_argument("folders", nargs="+")
        command.add_argument("--size", type=int, default=256)
        command.add_argument("--steps", type=int, default=4)
        command.add_argument("--threads", type=int, default=os.cpu_count())
        command.add_argument("--guidance-scale", type=float, default=7.5)
        command.add_argument("--rounds", type=int, default=3)
        command.add_argument("--eddy", default="eddy", help="the binary")
        command.add_argument("--what", choices=["optimum", "bare"], help="of the command run")
    options = parser.parse_args()
    if options.command == "make":
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.names:
            make(name, options.merges, options.out)
    elif options.command == "run":
        (run_bare if options.what == "bare" else run_optimum)(options.folders[0], options)
    else:
        heads = ["folder", "GB on disk"]
        for value in ("peak GB", "anonymous GB", "start s"):
            heads += [f"{value}: Eddy", "optimum", "ratio"]
        heads += ["step s: Eddy", "optimum", "bare", "Eddy / bare"]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
        for folder in options.folders:
            print(row(folder, measure(folder, options)), flush=True)


if __name__ == "__main__":
    main()
