"""Tiny random networks, each from a seed, in the sizes of diffusers' own tests."""

import random

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    PriorTransformer,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.models.attention_processor import SpatialNorm
from diffusers.pipelines.unclip.text_proj import UnCLIPTextProjModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    T5Config,
    T5EncoderModel,
)


def seeded(seed, kind, **settings):
    torch.manual_seed(seed)
    return kind(**settings).eval()


def unet(seed=0, **settings):
    defaults = dict(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=32,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return seeded(seed, UNet2DConditionModel, **(defaults | settings))


def vae(seed=0, widths=(4, 4, 8, 8), **settings):
    """As many blocks as widths; each but the last halves the image."""
    defaults = dict(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=widths,
        norm_num_groups=2,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        sample_size=8 * 2 ** (len(widths) - 1),
    )
    return seeded(seed, AutoencoderKL, **(defaults | settings))


def tiny_vae(seed=0):
    """TAESD's form, of factor 8: no posterior, latents near -3 to 3, scaling factor 1."""
    widths = dict(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8))
    blocks = dict(num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1))
    model = seeded(seed, AutoencoderTiny, **widths, **blocks)
    # The decoder's last layer answers around 0, which is black.
    last = model.decoder.layers[-1]
    last.weight.data *= 8
    last.bias.data.fill_(0.5)
    return model


def clip_text(seed=0, projection=False, **settings):
    defaults = dict(
        vocab_size=2000,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        layer_norm_eps=1e-5,
        max_position_embeddings=77,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    torch.manual_seed(seed)
    return larger(kind(CLIPTextConfig(**(defaults | settings))).eval())


def larger(model, factor=5):
    """Enlarges all matrices: transformers starts from 0.02, which leaves texts nearly alike."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= factor
    return model


def t5(seed=0, vocabulary=1020, width=32):
    """T5 1.1's encoder."""
    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=37,
            num_heads=4,
            num_layers=2,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=8,
            pad_token_id=0,
            eos_token_id=1,
        )
    ).eval()


def gemma(seed=0, vocabulary=1000, width=16):
    torch.manual_seed(seed)
    return Gemma2Model(
        Gemma2Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            attn_implementation="eager",
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    ).eval()


def sd3_transformer(seed=0, **settings):
    defaults = dict(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        pos_embed_max_size=16,
    )
    return seeded(seed, SD3Transformer2DModel, **(defaults | settings))


def flux_transformer(seed=0, **settings):
    defaults = dict(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return seeded(seed, FluxTransformer2DModel, **(defaults | settings))


def pixart_transformer(seed=0, **settings):
    defaults = dict(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
    )
    return seeded(seed, PixArtTransformer2DModel, **(defaults | settings))


def sana_transformer(seed=0, **settings):
    defaults = dict(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
    )
    return seeded(seed, SanaTransformer2DModel, **(defaults | settings))


def dc_vae(seed=0):
    """A deep-compression autoencoder of factor 4."""
    return seeded(
        seed,
        AutoencoderDC,
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


def controlnet(seed=0, **settings):
    """Fits `unet()`; what starts as zeros is random here, since zeros would hide its effect."""
    defaults = dict(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=32,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(4, 4, 8, 8),
    )
    return without_zeros(seeded(seed, ControlNetModel, **(defaults | settings)))


def without_zeros(model, deviation=0.2):
    """Gives random values to all weights that are zero throughout."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=deviation)
    return model


class FusedControlNet(torch.nn.Module):
    """A U-Net with its ControlNets, with inputs as diffusers' converter of ControlNets names them."""

    def __init__(self, unet, controlnets):
        super().__init__()
        self.unet, self.controlnets = unet, torch.nn.ModuleList(controlnets)

    def forward(self, sample, timestep, encoder_hidden_states, controlnet_conds, conditioning_scales):
        down, mid = None, None
        for picture, scale, network in zip(controlnet_conds, conditioning_scales, self.controlnets):
            answer = network(sample, timestep, encoder_hidden_states, picture, scale, return_dict=False)
            down = answer[0] if down is None else [a + b for a, b in zip(down, answer[0])]
            mid = answer[1] if mid is None else mid + answer[1]
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]


def prior(seed=0):
    """A transformer over embeddings of 32 numbers; the mean and deviation of these are random, too."""
    model = seeded(seed, PriorTransformer, num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=2)
    torch.nn.init.normal_(model.clip_mean, std=0.2)
    torch.nn.init.uniform_(model.clip_std, 0.5, 1.5)
    return without_zeros(model)


def text_projection(seed=0, width=24):
    model = seeded(seed, UnCLIPTextProjModel, clip_embeddings_dim=32, time_embed_dim=64, cross_attention_dim=width)
    return without_zeros(model)


def clip_vision(seed=0):
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=32,
        image_size=16,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        patch_size=8,
        projection_dim=32,
    )
    return larger(CLIPVisionModelWithProjection(config).eval())


def pixel_unet(seed=0, **settings):
    """A U-Net whose second half of channels is the variance, with attention as Karlo, Kandinsky and IF have it."""
    defaults = dict(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift",
    )
    return seeded(seed, UNet2DConditionModel, **(defaults | settings))


def plain_unet(seed=0, **settings):
    """A U-Net without text, from a noisy and an enlarged image."""
    defaults = dict(
        sample_size=32,
        in_channels=6,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
    )
    return seeded(seed, UNet2DModel, **(defaults | settings))


def movq(seed=0, **settings):
    defaults = dict(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    return seeded(seed, VQModel, **(defaults | settings))


def calmer(model):
    """Lessens what a decoder's norms take from the latents, which otherwise saturates the image."""
    for module in model.modules():
        if isinstance(module, SpatialNorm):
            module.conv_y.weight.data *= 0.1
            module.conv_y.bias.data.fill_(1)
            module.conv_b.weight.data *= 0.1
    return model


def uniform(seed, *shape):
    """Numbers from 0 to 1 as diffusers' tests draw them, with Python's own generator."""
    generator = random.Random(seed)
    return torch.tensor([generator.random() for _ in range(torch.Size(shape).numel())]).view(shape)


def published_kandinsky_unet():
    return pixel_unet(
        seed=0,
        sample_size=None,
        in_channels=4,
        out_channels=8,
        block_out_channels=(32, 64),
        norm_num_groups=32,
        cross_attention_dim=32,
        addition_embed_type="image",
        encoder_hid_dim=32,
        encoder_hid_dim_type="image_proj",
    )


def published_dit():
    """Both from one seed, the transformer first."""
    transformer = seeded(
        0,
        DiTTransformer2DModel,
        sample_size=16,
        num_layers=2,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return transformer, AutoencoderKL().eval()


def published_vq():
    return seeded(
        0,
        VQModel,
        block_out_channels=[32, 64],
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=3,
    )
