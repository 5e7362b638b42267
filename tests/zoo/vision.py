"""Small networks for images, sound and diffusion, of transformers and diffusers, with random weights."""

from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.zoo.network import SAMPLES, Network, floats, named, tokens

_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip


def _images(size: int = 16, key: str = "pixel_values", channels: int = 3) -> Any:
    return lambda: [{key: each} for each in floats(channels, size, size)]


def _of(model: str, config: str, *, batches: Any = None, **options: Any) -> Any:
    def build() -> Network:
        made = getattr(hf, model)(getattr(hf, config)(**options))
        return Network(made, (batches or _images())())

    return build


def _mobile_vit() -> Network:
    options = {"image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 4, 8, 8, 12, 12, 16]}
    model = hf.MobileViTForImageClassification(hf.MobileViTConfig(num_attention_heads=2, **options))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)  # its own are so small that images hardly reach its end
    remark = "at this size some attentions have one position, and their keys reach nothing"
    return Network(model, _images(64)(), outputs=("classifier",), remark=remark)


def _detr() -> Network:
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = hf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, num_queries=5, num_labels=4,
    )  # fmt: skip
    return Network(hf.DetrForObjectDetection(config), [{"pixel_values": each} for each in floats(3, 32, 32)])


def _clip() -> Network:
    text = {**_VIT, "vocab_size": 50, "max_position_embeddings": 16}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=_VIT, projection_dim=8))
    pairs = zip(tokens(7), floats(3, 16, 16), strict=True)
    return Network(model, [{"input_ids": a, "pixel_values": b} for a, b in pairs])


def _diffusion(name: str, batch: Any, **options: Any) -> Any:
    def build() -> Network:
        import diffusers

        return Network(getattr(diffusers, name)(**options), [batch() for _ in range(2)], forward=named)

    return build


def _noisy(channels: int, size: int, **more: Any) -> Any:
    def batch() -> dict[str, Any]:
        sample = torch.randn(SAMPLES, channels, size, size, dtype=torch.float64)
        return {"timestep": torch.arange(1, SAMPLES + 1), **{key: make() for key, make in more.items()}, **_key(sample)}

    def _key(sample: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"hidden_states" if "class_labels" in more else "sample": sample}

    return batch


VISION = {
    "ViT": _of("ViTForImageClassification", "ViTConfig", **_VIT),
    "DeiT, distilled": _of("DeiTForImageClassificationWithTeacher", "DeiTConfig", **_VIT),
    "BEiT": _of("BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, **_VIT),
    "DINOv2": _of("Dinov2ForImageClassification", "Dinov2Config", **_VIT),
    "Swin": _of(
        "SwinForImageClassification", "SwinConfig", image_size=16, patch_size=2, embed_dim=8, depths=[2, 1],
        num_heads=[2, 2], window_size=4,
    ),
    "Swin v2": _of(
        "Swinv2ForImageClassification", "Swinv2Config", image_size=16, patch_size=2, embed_dim=8, depths=[2, 1],
        num_heads=[2, 2], window_size=4,
    ),
    "ConvNeXt": _of(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2,
        batches=_images(32),
    ),
    "ResNet": _of(
        "ResNetForImageClassification", "ResNetConfig", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
        batches=_images(32),
    ),
    "SegFormer": _of(
        "SegformerForSemanticSegmentation", "SegformerConfig", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1],
        hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=8,
    ),
    "MobileViT": _mobile_vit,
    "DETR": _detr,
    "CLIP": _clip,
    "wav2vec 2": _of(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, conv_dim=(8, 8), conv_kernel=(6, 3), conv_stride=(4, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, apply_spec_augment=False,
        batches=lambda: [{"input_values": each} for each in floats(200)],
    ),
    "Whisper": _of(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=50, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, num_mel_bins=8,
        max_source_positions=10, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
        batches=lambda: [
            {"input_features": a, "decoder_input_ids": b} for a, b in zip(floats(8, 20), tokens(5), strict=True)
        ],
    ),
    "DiT": _diffusion(
        "DiTTransformer2DModel", _noisy(4, 8, class_labels=lambda: torch.randint(0, 5, (SAMPLES,))),
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=5,
    ),
    "diffusion U-Net": _diffusion(
        "UNet2DModel", _noisy(3, 16), sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    "conditioned U-Net": _diffusion(
        "UNet2DConditionModel",
        _noisy(4, 8, encoder_hidden_states=lambda: torch.randn(SAMPLES, 5, 12, dtype=torch.float64)), sample_size=8,
        layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=12, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "autoencoder": _diffusion(
        "AutoencoderKL", lambda: {"sample": torch.randn(SAMPLES, 3, 16, 16, dtype=torch.float64)}, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
}  # fmt: skip
