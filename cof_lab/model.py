"""The embedded model's architecture: plain transformers LLaVA classes, sized to learn on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes. `vision_layers` counts the layers whose output is used: LLaVA-1.5 reads the
    second to last layer (feature layer -2), so the tower holds one more that nothing reads.
    """

    side: int = 140
    patch: int = 14
    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    width: int = 192
    layers: int = 5
    heads: int = 6
    mlp: int = 512
    vocabulary: int = 1024
    max_positions: int = 1024

    @property
    def grid(self) -> int:
        """Visual tokens along one side."""
        return self.side // self.patch


def llava_config(
    config: ModelConfig, image_token: int, bos: int, eos: int, pad: int
) -> LlavaConfig:
    """The transformers configuration of this model; token arguments are vocabulary ids."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=4 * config.vision_width,
        num_hidden_layers=config.vision_layers + 1,
        num_attention_heads=config.vision_heads,
        image_size=config.side,
        patch_size=config.patch,
        hidden_act="quick_gelu",
        projection_dim=config.vision_width,
    )
    text = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.max_positions,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=config.grid**2,
        tie_word_embeddings=False,
    )


def build(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """A freshly initialised float32 model; the same seed gives the same weights."""
    from transformers import LlavaForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).float()


def vision_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Patch features that the projector reads: [B, grid*grid, vision_width].

    Skips the last layer, which transformers runs and then throws away. The text path of a
    released model is untouched; this is for training, where the vision tower runs every step.
    """
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[:-1]:
        output = layer(hidden, attention_mask=None)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden[:, 1:]


def normalise_pixels(pixels: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] to CLIP's normalised floats."""
    mean = torch.tensor(IMAGE_MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(IMAGE_STD, device=pixels.device)[:, None, None]
    return (pixels.float() / 255 - mean) / std
