"""What a checkpoint says about its inputs; read, and refused if need be, before its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlavaConfig

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint
from cof.models.llava.original import original_config
from cof.models.llava.pixels import Pixels, read_pixels
from cof.models.llava.refuse import refuse
from cof.models.llava.template import Kind, chat_template
from cof.models.llava.tokenizer import Encode, Ids, check_ids, encoder, load_tokenizer
from cof.prompts import Span


@dataclass(frozen=True)
class Inputs:
    """How text and images become the model's input.

    Attributes:
        tokenizer: a transformers tokenizer.
        encode: text -> ids, without the beginning-of-sequence token.
        pixels: image settings.
        chat_template: what kind comes with the checkpoint; it is not used.
    """

    tokenizer: Any
    encode: Encode
    pixels: Pixels
    chat_template: Kind | None = None

    def offsets(self, text: str) -> list[Span]:
        """Characters of a text that each id of `encode` stands for."""
        if isinstance(self.encode, Ids):
            return self.encode.offsets(text)
        said = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(said.offset_mapping)


def read_inputs(checkpoint: Checkpoint, conv: str) -> Inputs:
    """Read everything but the weights.

    Raises:
        ModelError: the checkpoint is refused (see `cof.models.llava.refuse`), or a file of its
            tokenizer or image settings is missing or contradicts another.
    """
    config = read_config(checkpoint)
    refuse(checkpoint, config)
    vision: Any = config.vision_config
    pixels = read_pixels(checkpoint, vision.image_size)
    tokenizer = load_tokenizer(checkpoint)
    encode = encoder(tokenizer, checkpoint.folder)
    check_ids(encode, tokenizer, checkpoint.folder, conv)
    return Inputs(tokenizer, encode, pixels, chat_template(checkpoint, tokenizer, conv))


def read_config(checkpoint: Checkpoint) -> LlavaConfig:
    """Either layout's config.json as transformers' config."""
    try:
        if checkpoint.layout == "original":
            return original_config(checkpoint)
        return LlavaConfig.from_dict(checkpoint.config)
    except ModelError:
        raise
    except Exception as error:  # transformers' checks of values have no base in common
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{checkpoint.folder}/config.json: cannot be read ({reason})") from error
