"""A checkpoint as transformers alone runs it: its own processor, its own attention; an oracle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AttentionInterface, AutoProcessor
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from cof.models.common.transformers_files import image_processor
from cof.models.common.transformers_model import Transformers

ORACLE = "cof_oracle"

Row = tuple[Mapping[str, Any], Tensor, Sequence[int]]
"""A prompt as the processor makes it, the bias of its positions float [S], ids of the reply."""


@contextmanager
def attention(network: Any, name: str) -> Iterator[None]:
    """Give the decoder another attention inside the block, by transformers' name for it."""
    with switched(network.get_decoder().config, name):
        yield


@contextmanager
def switched(config: Any, name: str) -> Iterator[None]:
    """Give the part that a config is of another attention inside the block."""
    before = config._attn_implementation
    config._attn_implementation = {"": name}
    try:
        yield
    finally:
        config._attn_implementation = {"": before}


def processor(folder: Path) -> Any:
    """Transformers' whole processor, its image processor on Pillow as ours is.

    Raises:
        Exception: whatever transformers raises where it cannot be built: several kinds insist on
            a video processor, which needs torchvision.
    """
    made = AutoProcessor.from_pretrained(folder)
    made.image_processor = image_processor(folder)
    return made


def asked(processor: Any, image: Image, question: str, **options: Any) -> dict[str, Any]:
    """What transformers' processor makes of one question about an image, unpadded."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return dict(
        processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )
    )


def as_ours(model: Transformers, image: Image, question: str) -> dict[str, Any]:
    """The same with the ids of our own prompt, where transformers' processor cannot be had."""
    family, [view] = model.family, model.look([image])
    seen = dict(family.processor(family.images(image), return_tensors="pt", **family.options()))
    encoded = model.encode([view], [question])
    return {
        "attention_mask": encoded.attention_mask,
        **encoded.inputs,
        **{name: seen[name] for name in family.features},
    }


def oracle(network: Any, rows: Iterable[Row]) -> list[Tensor]:
    """Logits behind the prompt and each token but the last of a reply, in double precision.

    softmax(q k' s + mask + bias[key]), written out; no cache: each row is computed whole, alone.

    Args:
        network: in float32, and in float32 again afterwards.
        rows: prompts, biases and replies.

    Returns:
        Of each row double [len(reply), V].
    """
    bias = torch.zeros(0)  # of the row that is computed

    def written_out(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **more: Any
    ) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        scores = query.double() @ key.double().transpose(2, 3) * more["scaling"] + mask.double()
        scores[..., : len(bias)] += bias
        return (scores.softmax(-1) @ value.double()).transpose(1, 2).contiguous(), None

    AttentionInterface.register(ORACLE, written_out)
    AttentionMaskInterface.register(ORACLE, eager_mask)
    found = []
    try:
        network.double()
        with attention(network, ORACLE), torch.no_grad():
            for given, added, tokens in rows:
                bias = added.double()
                found.append(_whole(network, given, tokens))
    finally:
        network.float()
    return found


def _whole(network: Any, given: Mapping[str, Any], tokens: Sequence[int]) -> Tensor:
    """Logits of the last positions of a prompt and the reply behind it."""
    length = given["input_ids"].shape[1]
    reply = torch.tensor([tokens[:-1]], dtype=torch.long)
    longer = {"input_ids": reply, "attention_mask": torch.ones_like(reply)}
    longer |= {key: torch.zeros_like(reply) for key in ("token_type_ids", "mm_token_type_ids")}
    told = {
        key: torch.cat([value, longer[key].to(value)], 1) if key in longer else value
        for key, value in given.items()
    }
    told["pixel_values"] = told["pixel_values"].double()
    return network(**told, use_cache=False).logits[0, length - 1 :]  # type: ignore[no-any-return]
