"""Writes tests/data/folders: pipelines of diffusers as torch.onnx exports them, with tiny random networks, and the images that diffusers
itself draws with them.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python tests/golden/make_folders.py

Never run by a test. Each folder is what `save_pretrained` writes, with an ONNX file in place of the weights of each network: `unet/model.onnx` (inputs
`sample`, `timestep` and, where classes are told, `class_labels`; output `out_sample`) and, where latents are drawn, `vqvae/model.onnx` (input
`latent_sample`, output `sample`: `VQModel.decode`). `initial.npy` is the noise that the pipeline drew first, `fresh.npy` that of its steps, `small.npy` the small
image where one is enlarged, in 65535ths; `expected.npy` [images, C, H, W] is what it drew, black 0 and white 1.
"""

import pathlib
import shutil
import warnings

import numpy as np
import onnx
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMPipeline, LDMSuperResolutionPipeline, UNet2DModel, VQModel
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion_superresolution
from diffusers.schedulers import scheduling_ddpm

PLACE = pathlib.Path(__file__).parents[1] / "data" / "folders"
STEPS = 6
CLASSES = [2, 0, 1]


def unet(seed, channels_in=3, **further):
    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=8,
        in_channels=channels_in,
        out_channels=3,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
        **further,
    )
    return network.eval()


def autoencoder(seed, **further):
    """Enlarges four times. Its codes are far enough from each other that rounding does not choose among them."""
    torch.manual_seed(seed)
    network = VQModel(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=3,
        num_vq_embeddings=8,
        norm_num_groups=2,
        **further,
    )
    torch.nn.init.normal_(network.quantize.embedding.weight)
    return network.eval()


class Denoise(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, sample, timestep, class_labels=None):
        return self.network(sample, timestep, class_labels).sample


class Decode(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, latent_sample):
        return self.network.decode(latent_sample).sample


def export(module, path, inputs, output):
    free = {0: "batch", 2: "height", 3: "width"}
    axes = {name: free if value.ndim == 4 else {0: "batch"} for name, value in inputs.items() if value.ndim > 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={**axes, output: free},
        )
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
    onnx.save(model, path)


def save(pipeline, name):
    """The folder, with ONNX files in place of weights."""
    folder = PLACE / name
    pipeline.save_pretrained(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    config = pipeline.unet.config
    inputs = {"sample": torch.zeros(2, config.in_channels, 8, 12), "timestep": torch.tensor(1)}
    if config.num_class_embeds:
        inputs["class_labels"] = torch.zeros(2, dtype=torch.long)
    export(Denoise(pipeline.unet), folder / "unet" / "model.onnx", inputs, "out_sample")
    if hasattr(pipeline, "vqvae"):
        latent = {"latent_sample": torch.randn(2, 3, 8, 12)}
        export(Decode(pipeline.vqvae), folder / "vqvae" / "model.onnx", latent, "sample")
    return folder


class Noise:
    """Noise in place of a module's randn_tensor: kept, in the order in which it was asked for."""

    def __init__(self, *modules):
        self.drawn, self.generator = [], torch.Generator().manual_seed(20261125)
        for module in modules:
            module.randn_tensor = self

    def __call__(self, shape, **_):
        self.drawn.append(torch.randn(shape, generator=self.generator))
        return self.drawn[-1]


def keep(folder, noise, pictures, **further):
    initial, *fresh = noise.drawn
    arrays = {"initial": initial, "expected": torch.as_tensor(pictures), **further}
    if fresh:
        # The last step draws nothing.
        arrays["fresh"] = torch.stack(fresh)
    for name, values in arrays.items():
        values = np.ascontiguousarray(values.numpy(), np.float32)
        assert np.isfinite(values).all()
        np.save(folder / f"{name}.npy", values)
    spread = arrays["expected"].std()
    assert spread > 0.05, (folder, spread)


def channels_first(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def latents_are_safe(pipeline, latents):
    """Stops where two codes are so nearly as near as each other that rounding would choose."""
    values = latents.permute(0, 2, 3, 1).reshape(-1, 3)
    distances = torch.cdist(values, pipeline.vqvae.quantize.embedding.weight).sort(1).values
    gap = (distances[:, 1] - distances[:, 0]).min().item()
    assert gap > 1e-4, gap


def watched(pipeline):
    """The same pipeline, which looks at the latents before it decodes them."""
    decode = pipeline.vqvae.decode

    def look(latents, *args, **kwargs):
        latents_are_safe(pipeline, latents)
        return decode(latents, *args, **kwargs)

    pipeline.vqvae.decode = look
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main():
    shutil.rmtree(PLACE, ignore_errors=True)
    scheduler = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0155, "clip_sample": False}

    pipeline = DDPMPipeline(unet(1), DDPMScheduler())
    folder, noise = save(pipeline, "ddpm"), Noise(pipeline_ddpm, scheduling_ddpm)
    keep(folder, noise, channels_first(pipeline(batch_size=2, num_inference_steps=STEPS, output_type="np").images))

    pipeline = DDIMPipeline(unet(2), DDIMScheduler())
    folder, noise = save(pipeline, "ddim"), Noise(pipeline_ddim)
    keep(folder, noise, channels_first(pipeline(batch_size=2, num_inference_steps=STEPS, output_type="np").images))

    # No pipeline of pixels tells classes; this is DDIMPipeline's loop with them.
    network = unet(3, num_class_embeds=len(CLASSES))
    pipeline = DDIMPipeline(network, DDIMScheduler())
    folder, noise = save(pipeline, "classes"), Noise()
    x = noise((len(CLASSES), 3, 8, 8))
    pipeline.scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for t in pipeline.scheduler.timesteps:
            x = pipeline.scheduler.step(network(x, t, torch.tensor(CLASSES)).sample, t, x).prev_sample
    keep(folder, noise, (x / 2 + 0.5).clamp(0, 1))

    pipeline = LDMPipeline(autoencoder(4, scaling_factor=0.5), unet(5), DDIMScheduler(**scheduler))
    folder, noise = save(pipeline, "latents"), Noise(pipeline_latent_diffusion_uncond)
    drawn = watched(pipeline)(batch_size=2, num_inference_steps=STEPS, output_type="np").images
    keep(folder, noise, channels_first(drawn))

    pipeline = LDMSuperResolutionPipeline(autoencoder(6), unet(7, channels_in=6), DDIMScheduler(**scheduler))
    folder, noise = save(pipeline, "superresolution"), Noise(pipeline_latent_diffusion_superresolution)
    small = (torch.rand((1, 3, 10, 14), generator=torch.Generator().manual_seed(8)) * 65535).round() / 65535
    drawn = watched(pipeline)(2 * small - 1, num_inference_steps=STEPS, output_type="np").images
    keep(folder, noise, channels_first(drawn), small=small)

    size = sum(path.stat().st_size for path in PLACE.rglob("*") if path.is_file())
    print(f"{size} bytes")


if __name__ == "__main__":
    main()
