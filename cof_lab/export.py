"""Write a trained model as a checkpoint folder: transformers' layout, or the original LLaVA's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cof.files import whole_folder, write_whole
from cof.prompts import SYSTEMS
from cof_lab.original_layout import image_settings, write_json, write_original

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast


CHAT_TEMPLATE = """{%- macro text(said) -%}
  {%- if said is string -%}
    {{ said }}
  {%- else -%}
    {%- for part in said if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
    {%- for part in said if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}
  {{ "SYSTEM " }}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{ text(message.content) ~ ' ' }}
  {%- elif message.role == 'user' -%}
    {{ 'USER: ' ~ text(message.content) ~ ' ' }}
  {%- else -%}
    {{ 'ASSISTANT: ' ~ text(message.content) ~ '</s>' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ 'ASSISTANT:' }}
{%- endif -%}
""".replace("SYSTEM", SYSTEMS["vicuna_v1"])
"""vicuna_v1 as transformers' processors and servers take it. This code does not (`model.conv`)."""


def export_checkpoint(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    layout: Literal["transformers", "original"] = "transformers",
) -> None:
    """Save weights in float16, tokenizer and image settings.

    Args:
        model: float32 or float16, on any device; left as it is.
        tokenizer: of cof_lab.tokenizer.
        folder: made if need be; files of the same names are overwritten.
        layout: `original` is what LLaVA's own code reads, see `cof_lab.original_layout`.
    """
    with whole_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)
        if layout == "original":
            write_original(model.config, _half(model), fresh, folder.resolve())
        else:
            _transformers(model, fresh)


def _half(model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: value.detach().to("cpu", torch.float16).clone() for name, value in state.items()}


def _transformers(model: LlavaForConditionalGeneration, folder: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    from cof.models.common.loading import without_bars

    config: Any = type(model.config).from_dict(model.config.to_dict())
    clone = LlavaForConditionalGeneration(config).half()
    clone.load_state_dict(_half(model))
    with without_bars():
        clone.save_pretrained(folder)
    text = config.text_config
    ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", {**ids, "do_sample": False})
    write_whole(folder / "chat_template.jinja", CHAT_TEMPLATE)
    side = config.vision_config.image_size
    write_json(folder / "preprocessor_config.json", image_settings(side))
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": "default",
        },
    )
