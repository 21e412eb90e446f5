"""The pipelines: which networks they are made of, and how each is called."""

import dataclasses

import diffusers
import numpy as np
import PIL.Image
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
)
from transformers import CLIPImageProcessor

import export
import networks
import tokens

BUILDERS = {}
PROMPT = "a photograph of an astronaut riding a horse, café at night"
NEGATIVE = "blurry, low quality, watermark"
SD = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)


@dataclasses.dataclass
class Case:
    """One call of a pipeline, with arguments as diffusers names them."""

    pipeline: object
    arguments: dict
    label: str = ""
    seed: int = 0
    folder: str = ""

    def call(self, generator):
        images = self.pipeline(**self.arguments, generator=generator, output_type="np").images
        return np.moveaxis(images, -1, 1)


@dataclasses.dataclass
class Made:
    """A pipeline, the calls of it, and how it is exported."""

    pipeline: object
    calls: list
    exporter: str = "optimum"
    shares: str = ""
    # Parts whose graphs hold for one size only.
    fixed: tuple = ()
    # Nine values that diffusers' tests publish: the last channel's last three rows and columns.
    published: tuple = ()
    # What is left to do with the folder; gets its path and the recorded calls.
    finish: object = None

    def runs(self):
        for arguments in self.calls:
            arguments = dict(arguments)
            label = arguments.pop("label", "")
            yield Case(self.pipeline, arguments, label)

    def export(self, folder, calls):
        if self.exporter == "optimum":
            export.by_optimum(self.pipeline, folder)
        else:
            export.by_torch(self.pipeline, calls, folder, self.fixed)
        if self.finish:
            self.finish(folder, calls)


def builder(*names):
    def register(function):
        for name in names:
            BUILDERS[name] = function
        return function

    return register


def build(name, merges):
    return BUILDERS[name](name, merges)


def picture(width, height, seed=0, channels="RGB"):
    """Soft blobs of color: an image of 8 bits."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    values = np.full((height, width, 3), 0.4)
    for _ in range(8):
        cx, cy, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(4, width / 2)
        color = random.uniform(-0.6, 0.6, 3)
        values += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)[..., None] * color
    return PIL.Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8)).convert(channels)


def mask(width, height):
    """White, which is to be painted, within a box that no multiple of 8 bounds."""
    values = np.zeros((height, width), np.uint8)
    values[height // 4 + 1 : height * 3 // 4 + 3, width // 3 : width * 5 // 6 - 1] = 255
    return PIL.Image.fromarray(values)


# Stable Diffusion


def sd_parts(merges, unet=None, text=None, pad="<|endoftext|>"):
    return dict(
        unet=networks.unet(**(unet or {})),
        vae=networks.vae(seed=1),
        text_encoder=networks.clip_text(seed=2, **(text or {})),
        tokenizer=tokens.clip(merges, pad=pad),
        safety_checker=None,
        feature_extractor=None,
    )


SD_SCHEDULERS = {
    "sd15": PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=False),
    "sd15-ddim": DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False),
    "sd15-euler": EulerDiscreteScheduler(**SD),
    "sd15-euler-leading": EulerDiscreteScheduler(**SD, timestep_spacing="leading"),
    "sd15-euler-ancestral": EulerAncestralDiscreteScheduler(**SD, timestep_spacing="leading"),
    "sd15-dpmpp": DPMSolverMultistepScheduler(**SD),
    "sd15-dpmpp-karras": DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True, timestep_spacing="leading"),
}


@builder(*SD_SCHEDULERS)
def sd15(name, merges):
    pipeline = diffusers.StableDiffusionPipeline(
        **sd_parts(merges), scheduler=SD_SCHEDULERS[name], requires_safety_checker=False
    )
    calls = [GUIDED | SIZE]
    if name == "sd15":
        plain = calls[0] | dict(negative_prompt=None)
        calls += [
            plain | dict(label="no-negative"),
            plain | dict(label="empty", prompt=""),
            plain | dict(label="no-guidance", guidance_scale=1.0),
            calls[0] | dict(label="long", prompt=" ".join(f"word {i} of many" for i in range(50))),
            calls[0] | dict(label="rescale", guidance_rescale=0.7),
        ]
    return Made(pipeline, calls, shares="" if name == "sd15" else "sd15")


SIZE = dict(width=96, height=64)
GUIDED = dict(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=6, guidance_scale=7.5)


@builder("sd15-img2img")
def sd15_img2img(name, merges):
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        **sd_parts(merges), scheduler=SD_SCHEDULERS["sd15"], requires_safety_checker=False
    )
    calls = [
        GUIDED | dict(image=picture(96, 64), strength=0.75),
        GUIDED | dict(label="weak", image=picture(96, 64), strength=0.3),
        GUIDED | dict(label="full", image=picture(96, 64), strength=1.0),
    ]
    return Made(pipeline, calls, shares="sd15")


@builder("sd15-inpaint4", "sd15-inpaint9")
def sd15_inpaint(name, merges):
    legacy = name == "sd15-inpaint4"
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        **sd_parts(merges, unet=dict(in_channels=4 if legacy else 9, seed=0 if legacy else 5)),
        scheduler=SD_SCHEDULERS["sd15" if legacy else "sd15-ddim"],
        requires_safety_checker=False,
    )
    inputs = dict(image=picture(96, 64), mask_image=mask(96, 64), **SIZE)
    calls = [
        GUIDED | inputs | dict(strength=1.0),
        GUIDED | inputs | dict(label="strength", strength=0.6),
    ]
    return Made(pipeline, calls, shares="sd15" if legacy else "")


SD2_UNET = dict(seed=6, attention_head_dim=(2, 4), use_linear_projection=True)
SD2_TEXT = dict(hidden_act="gelu", num_hidden_layers=2)


@builder("sd21")
def sd21(name, merges):
    pipeline = diffusers.StableDiffusionPipeline(
        **sd_parts(merges, SD2_UNET, SD2_TEXT, pad="!"),
        scheduler=DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"),
        requires_safety_checker=False,
    )
    return Made(pipeline, [GUIDED | SIZE, GUIDED | SIZE | dict(label="no-negative", negative_prompt=None)])


@builder("sd-turbo", "sd-turbo-img2img")
def sd_turbo(name, merges):
    kind = diffusers.StableDiffusionPipeline
    calls = [
        dict(prompt=PROMPT, num_inference_steps=1, guidance_scale=0.0, **SIZE),
        dict(label="four", prompt=PROMPT, num_inference_steps=4, guidance_scale=0.0, **SIZE),
    ]
    if name == "sd-turbo-img2img":
        kind = diffusers.StableDiffusionImg2ImgPipeline
        calls = [dict(prompt=PROMPT, num_inference_steps=4, guidance_scale=0.0, image=picture(96, 64), strength=0.5)]
    pipeline = kind(
        **sd_parts(merges, SD2_UNET, SD2_TEXT, pad="!"),
        scheduler=EulerDiscreteScheduler(**(SD | dict(steps_offset=1)), timestep_spacing="trailing"),
        requires_safety_checker=False,
    )
    return Made(pipeline, calls, shares="sd-turbo" if name == "sd-turbo-img2img" else "")


@builder("lcm", "lcm-img2img")
def lcm(name, merges):
    kind = diffusers.LatentConsistencyModelPipeline
    calls = [
        dict(prompt=PROMPT, num_inference_steps=4, guidance_scale=8.5, **SIZE),
        dict(label="one", prompt=PROMPT, num_inference_steps=1, guidance_scale=1.5, **SIZE),
    ]
    if name == "lcm-img2img":
        kind = diffusers.LatentConsistencyModelImg2ImgPipeline
        calls = [dict(prompt=PROMPT, num_inference_steps=4, guidance_scale=8.5, image=picture(96, 64), strength=0.8)]
    pipeline = kind(
        **sd_parts(merges, dict(seed=7, time_cond_proj_dim=256)),
        scheduler=LCMScheduler(**(SD | dict(steps_offset=0))),
        requires_safety_checker=False,
    )
    return Made(pipeline, calls, shares="lcm" if name == "lcm-img2img" else "")


# Stable Diffusion XL


def xl_parts(merges, refiner=False):
    time_ids, width = (5, 32) if refiner else (6, 64)
    return dict(
        unet=networks.unet(
            seed=8 + refiner,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=time_ids * 8 + 32,
            cross_attention_dim=width,
        ),
        vae=networks.vae(seed=1, scaling_factor=0.13025),
        text_encoder=None if refiner else networks.clip_text(seed=2),
        tokenizer=None if refiner else tokens.clip(merges),
        text_encoder_2=networks.clip_text(seed=3, projection=True, hidden_act="gelu", num_hidden_layers=4),
        tokenizer_2=tokens.clip(merges, pad="!"),
    )


XL_EULER = EulerDiscreteScheduler(**SD, timestep_spacing="leading")


@builder("sdxl", "sdxl-turbo")
def sdxl(name, merges):
    turbo = name == "sdxl-turbo"
    scheduler = EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing") if turbo else XL_EULER
    pipeline = diffusers.StableDiffusionXLPipeline(**xl_parts(merges), scheduler=scheduler, add_watermarker=False)
    guided = GUIDED | SIZE | dict(guidance_scale=5.0)
    calls = [
        guided,
        guided | dict(label="no-negative", negative_prompt=None),
        guided | dict(label="empty-negative", negative_prompt=""),
        guided | dict(label="empty", prompt="", negative_prompt=None),
        guided | dict(label="clip-skip", clip_skip=1),
        guided | dict(label="rescale", guidance_rescale=0.7),
    ]
    if turbo:
        plain = dict(prompt=PROMPT, guidance_scale=0.0, **SIZE)
        calls = [plain | dict(num_inference_steps=1), plain | dict(label="three", num_inference_steps=3)]
    return Made(pipeline, calls, shares="sdxl" if turbo else "")


@builder("sdxl-img2img", "sdxl-inpaint")
def sdxl_from_picture(name, merges):
    inpaint = name == "sdxl-inpaint"
    kind = diffusers.StableDiffusionXLInpaintPipeline if inpaint else diffusers.StableDiffusionXLImg2ImgPipeline
    pipeline = kind(**xl_parts(merges), scheduler=XL_EULER, add_watermarker=False)
    inputs = dict(image=picture(96, 64), guidance_scale=5.0)
    calls = [GUIDED | inputs | dict(strength=0.6)]
    if inpaint:
        inputs |= dict(mask_image=mask(96, 64), **SIZE)
        calls = [GUIDED | inputs | dict(strength=0.9999), GUIDED | inputs | dict(label="strength", strength=0.6)]
    return Made(pipeline, calls, shares="sdxl")


@builder("sdxl-refiner")
def sdxl_refiner(name, merges):
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        **xl_parts(merges, refiner=True),
        scheduler=XL_EULER,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    call = GUIDED | dict(image=picture(96, 64), guidance_scale=5.0, strength=0.6)
    return Made(pipeline, [call, call | dict(label="no-negative", negative_prompt=None)])


# Guided by an image


@builder("instruct-pix2pix")
def instruct_pix2pix(name, merges):
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
        **sd_parts(merges, dict(seed=10, in_channels=8)),
        scheduler=EulerAncestralDiscreteScheduler(**SD, timestep_spacing="leading"),
        requires_safety_checker=False,
    )
    call = GUIDED | dict(image=picture(96, 64), image_guidance_scale=1.5)
    return Made(pipeline, [call, call | dict(label="strong-picture", image_guidance_scale=2.5, guidance_scale=4.0)])


@builder("x4-upscaler")
def x4_upscaler(name, merges):
    parts = sd_parts(
        merges, dict(seed=11, in_channels=7, num_class_embeds=1000, attention_head_dim=(2, 4)), SD2_TEXT, "!"
    )
    pipeline = diffusers.StableDiffusionUpscalePipeline(
        **(parts | dict(vae=networks.vae(seed=12, widths=(4, 4, 8), scaling_factor=0.08333))),
        scheduler=DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"),
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02),
        max_noise_level=350,
    )
    call = GUIDED | dict(image=picture(24, 16), guidance_scale=9.0)
    return Made(pipeline, [call, call | dict(label="noise-level", noise_level=100)], exporter="torch")


@builder("controlnet", "controlnet-fused")
def controlnet(name, merges):
    parts = sd_parts(merges)
    pipeline = diffusers.StableDiffusionControlNetPipeline(
        **parts,
        controlnet=networks.controlnet(seed=13),
        scheduler=SD_SCHEDULERS["sd15-ddim"],
        requires_safety_checker=False,
    )
    call = GUIDED | dict(image=picture(96, 64, seed=4))
    calls = [call, call | dict(label="half", controlnet_conditioning_scale=0.5)]
    if name == "controlnet":
        return Made(pipeline, calls, exporter="torch")
    return Made(pipeline, calls[:1], exporter="torch", finish=export.fuse_controlnet)


@builder("sd15-taesd-img2img", "sd15-taesd")
def sd15_taesd(name, merges):
    parts = sd_parts(merges) | dict(vae=networks.tiny_vae(seed=14))
    settings = dict(scheduler=SD_SCHEDULERS["sd15-ddim"], requires_safety_checker=False)
    if name == "sd15-taesd":
        pipeline = diffusers.StableDiffusionPipeline(**parts, **settings)
        return Made(pipeline, [GUIDED | SIZE], "torch", shares="sd15-taesd-img2img")
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**parts, **settings)
    return Made(pipeline, [GUIDED | dict(image=picture(96, 64), strength=0.6)], "torch")


@builder("sd15-legacy")
def sd15_legacy(name, merges):
    pipeline = diffusers.StableDiffusionPipeline(
        **sd_parts(merges), scheduler=SD_SCHEDULERS["sd15"], requires_safety_checker=False
    )
    return Made(pipeline, [GUIDED | SIZE], exporter="torch", finish=export.as_converted)


# Transformers


def sd3_parts(merges, t5=True):
    return dict(
        transformer=networks.sd3_transformer(seed=20),
        vae=networks.vae(
            seed=21, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=networks.clip_text(seed=22, projection=True, hidden_size=24),
        tokenizer=tokens.clip(merges),
        text_encoder_2=networks.clip_text(seed=23, projection=True, hidden_act="gelu", num_hidden_layers=4),
        tokenizer_2=tokens.clip(merges, pad="!"),
        text_encoder_3=networks.t5(seed=24, width=64) if t5 else None,
        tokenizer_3=tokens.t5() if t5 else None,
    )


@builder("sd3", "sd3-no-t5")
def sd3(name, merges):
    pipeline = diffusers.StableDiffusion3Pipeline(
        **sd3_parts(merges, t5=name == "sd3"), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0)
    )
    call = GUIDED | SIZE | dict(guidance_scale=7.0)
    return Made(pipeline, [call, call | dict(label="no-negative", negative_prompt=None)])


@builder("sd3-img2img")
def sd3_img2img(name, merges):
    pipeline = diffusers.StableDiffusion3Img2ImgPipeline(
        **sd3_parts(merges), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0)
    )
    return Made(pipeline, [GUIDED | SIZE | dict(image=picture(96, 64), strength=0.6, guidance_scale=7.0)], shares="sd3")


@builder("flux-schnell", "flux-dev")
def flux(name, merges):
    dev = name == "flux-dev"
    pipeline = diffusers.FluxPipeline(
        transformer=networks.flux_transformer(seed=25 + dev, guidance_embeds=dev),
        vae=networks.vae(
            seed=21, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=networks.clip_text(seed=2),
        tokenizer=tokens.clip(merges),
        text_encoder_2=networks.t5(seed=24),
        tokenizer_2=tokens.t5(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev),
    )
    call = dict(prompt=PROMPT, num_inference_steps=4, guidance_scale=0.0, **SIZE)
    if dev:
        call |= dict(num_inference_steps=6, guidance_scale=3.5)
        return Made(pipeline, [call, call | dict(label="guidance", guidance_scale=1.5)])
    return Made(pipeline, [call, call | dict(label="square", width=128, height=128, num_inference_steps=1)])


@builder("pixart-alpha", "pixart-sigma")
def pixart(name, merges):
    alpha = name == "pixart-alpha"
    kind = diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline
    pipeline = kind(
        transformer=networks.pixart_transformer(seed=27, sample_size=128 if alpha else 8),
        vae=networks.vae(seed=1, scaling_factor=0.18215 if alpha else 0.13025),
        text_encoder=networks.t5(seed=24),
        tokenizer=tokens.t5(fast=False),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )
    call = GUIDED | SIZE | dict(guidance_scale=4.5, use_resolution_binning=False, clean_caption=False)
    return Made(pipeline, [call, call | dict(label="no-negative", negative_prompt="")], "torch", fixed=("transformer",))


@builder("sana")
def sana(name, merges):
    pipeline = diffusers.SanaPipeline(
        transformer=networks.sana_transformer(seed=28),
        vae=networks.dc_vae(seed=29),
        text_encoder=networks.gemma(seed=30),
        tokenizer=tokens.gemma(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    call = GUIDED | SIZE | dict(guidance_scale=4.5, use_resolution_binning=False, clean_caption=False)
    return Made(pipeline, [call, call | dict(label="no-instruction", complex_human_instruction=None)])


# Embeddings first: DALL-E 2's form


@builder("unclip")
def unclip(name, merges):
    pipeline = diffusers.UnCLIPPipeline(
        prior=networks.prior(seed=40),
        decoder=networks.pixel_unet(seed=41, cross_attention_dim=24, class_embed_type="identity"),
        text_encoder=networks.clip_text(seed=3, projection=True),
        tokenizer=tokens.clip(merges),
        text_proj=networks.text_projection(seed=42, width=24),
        super_res_first=networks.plain_unet(seed=43),
        super_res_last=networks.plain_unet(seed=44),
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range", prediction_type="epsilon"),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="epsilon"),
    )
    call = dict(
        prompt=PROMPT,
        prior_num_inference_steps=5,
        decoder_num_inference_steps=5,
        super_res_num_inference_steps=4,
        prior_guidance_scale=4.0,
        decoder_guidance_scale=4.0,
    )
    return Made(pipeline, [call, call | dict(label="empty", prompt="")], "torch", finish=export.save_clip_statistics)


@builder("kandinsky22")
def kandinsky22(name, merges):
    pipeline = diffusers.KandinskyV22CombinedPipeline(
        prior_prior=networks.prior(seed=45),
        prior_text_encoder=networks.clip_text(seed=3, projection=True),
        prior_tokenizer=tokens.clip(merges),
        prior_image_encoder=networks.clip_vision(seed=46),
        prior_image_processor=CLIPImageProcessor(size=16, crop_size=16),
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        unet=networks.pixel_unet(
            seed=47,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=32,
            addition_embed_type="image",
            encoder_hid_dim=32,
            encoder_hid_dim_type="image_proj",
        ),
        movq=networks.calmer(networks.movq(seed=48, block_out_channels=(32, 32))),
        scheduler=DDPMScheduler(
            beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
        ),
    )
    call = dict(
        prompt=PROMPT,
        num_inference_steps=5,
        guidance_scale=4.0,
        prior_num_inference_steps=5,
        prior_guidance_scale=4.0,
        width=96,
        height=64,
    )
    return Made(
        pipeline,
        [call, call | dict(label="negative", negative_prompt=NEGATIVE)],
        "torch",
        finish=export.save_clip_statistics,
    )


# Pixels: Imagen's form


IF_SCHEDULE = dict(beta_schedule="squaredcos_cap_v2", beta_start=0.0001, beta_end=0.02)
IF_SCHEDULER = DDPMScheduler(
    **IF_SCHEDULE,
    thresholding=True,
    dynamic_thresholding_ratio=0.95,
    sample_max_value=1.5,
    variance_type="learned_range",
)


def if_parts(**unet):
    return dict(
        text_encoder=networks.t5(seed=24),
        tokenizer=tokens.t5(fast=False),
        unet=networks.pixel_unet(
            act_fn="gelu",
            cross_attention_dim=32,
            encoder_hid_dim=32,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_norm="group_norm",
            **unet,
        ),
        scheduler=IF_SCHEDULER,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


@builder("if-base")
def if_base(name, merges):
    pipeline = diffusers.IFPipeline(**if_parts(seed=50))
    call = GUIDED | dict(guidance_scale=4.0, width=24, height=16, clean_caption=False)
    return Made(pipeline, [call, call | dict(label="no-negative", negative_prompt=None)], "torch")


@builder("if-superres")
def if_superres(name, merges):
    parts = if_parts(seed=51, in_channels=6, class_embed_type="timestep", mid_block_scale_factor=1.414)
    pipeline = diffusers.IFSuperResolutionPipeline(**parts, image_noising_scheduler=DDPMScheduler(**IF_SCHEDULE))
    call = GUIDED | dict(guidance_scale=4.0, image=picture(24, 16), width=96, height=64, clean_caption=False)
    return Made(pipeline, [call, call | dict(label="noise-level", noise_level=50)], "torch")


# Networks of diffusers' own tests, with the values these publish


def published_kandinsky(steps_offset):
    return dict(
        unet=networks.published_kandinsky_unet(),
        movq=networks.movq(seed=0),
        scheduler=DDIMScheduler(
            beta_schedule="linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=steps_offset,
        ),
    )


PUBLISHED_EMBEDDINGS = dict(
    image_embeds=networks.uniform(0, 1, 32), negative_image_embeds=networks.uniform(1, 1, 32), height=64, width=64
)


@builder("published-kandinsky22")
def published_kandinsky22(name, merges):
    pipeline = diffusers.KandinskyV22Pipeline(**published_kandinsky(steps_offset=1))
    call = PUBLISHED_EMBEDDINGS | dict(guidance_scale=4.0, num_inference_steps=2)
    slice_ = (0.3420, 0.9505, 0.3919, 1.0000, 0.5188, 0.3109, 0.6139, 0.5624, 0.6811)
    return Made(pipeline, [call], "torch", published=slice_)


@builder("published-kandinsky22-img2img")
def published_kandinsky22_img2img(name, merges):
    pipeline = diffusers.KandinskyV22Img2ImgPipeline(**published_kandinsky(steps_offset=0))
    black = PIL.Image.new("RGB", (256, 256))
    call = PUBLISHED_EMBEDDINGS | dict(image=black, guidance_scale=7.0, num_inference_steps=10, strength=0.2)
    slice_ = (0.5712, 0.5443, 0.4725, 0.6195, 0.5184, 0.4651, 0.4473, 0.4590, 0.5016)
    return Made(pipeline, [call], "torch", published=slice_)


@builder("published-dit")
def published_dit(name, merges):
    transformer, vae = networks.published_dit()
    pipeline = diffusers.DiTPipeline(transformer=transformer, vae=vae, scheduler=DDIMScheduler())
    call = dict(class_labels=[1], num_inference_steps=2)
    slice_ = (0.2946, 0.6601, 0.4329, 0.3296, 0.4144, 0.5319, 0.7273, 0.5013, 0.4457)
    calls = [call, call | dict(label="no-guidance", guidance_scale=1.0, num_inference_steps=4)]
    return Made(pipeline, calls, "torch", fixed=("transformer",), published=slice_)


@builder("published-ldm-superres")
def published_ldm_superres(name, merges):
    pipeline = diffusers.LDMSuperResolutionPipeline(
        unet=networks.plain_unet(
            seed=0,
            block_out_channels=(32, 64),
            layers_per_block=2,
            sample_size=32,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=32,
        ),
        vqvae=networks.published_vq(),
        scheduler=DDIMScheduler(),
    )
    call = dict(image=networks.uniform(0, 1, 3, 32, 32), num_inference_steps=2)
    slice_ = (0.8678, 0.8245, 0.6381, 0.6830, 0.4385, 0.5599, 0.4641, 0.6201, 0.5150)
    calls = [call, dict(label="picture", image=picture(64, 32), num_inference_steps=4)]
    return Made(pipeline, calls, "torch", published=slice_)


NAMES = list(BUILDERS)
