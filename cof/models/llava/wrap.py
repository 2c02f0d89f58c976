"""A LLaVA around a network that the caller has loaded: quantised, trained, or placed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import LlavaForConditionalGeneration

from cof.errors import ModelError
from cof.models.common.checkpoint import find
from cof.models.common.loaded import as_loaded, check_same, facts, kind_of, origin
from cof.models.llava.config import Config
from cof.models.llava.inputs import read_config, read_inputs
from cof.models.llava.model import Llava, check_conv

_SAME = (
    *("vision_config.image_size", "vision_config.patch_size", "text_config.vocab_size"),
    "vision_feature_layer",
    "vision_feature_select_strategy",
)
"""What the network's config and that of its tokenizer's folder have to agree on."""


def wrap(network: Any, config: Config) -> Llava:
    """Take a loaded network; tokenizer and image settings are those of `config.path`.

    The network is put into eval mode, its decoder's attention is replaced (`cof.attention.attach`)
    and so is its generation config, as `load` does with a network of its own.

    Args:
        network: transformers' `LlavaForConditionalGeneration`, adapters merged.
        config: `path` "" is where transformers loaded the network from; device, dtype, device_map
            and quantization are the network's own business.

    Raises:
        ModelError: something else, no path, or a path that speaks of another network.
    """
    if not isinstance(network, LlavaForConditionalGeneration):
        raise ModelError(
            f"a loaded network has to be a LlavaForConditionalGeneration, not {kind_of(network)}"
        )
    path = origin(network, config)
    check_conv(config.conv)
    checkpoint = find(path)
    inputs = read_inputs(checkpoint, config.conv)
    check_same(facts(network.config, _SAME), facts(read_config(checkpoint), _SAME), path)
    checkpoint = as_loaded(checkpoint, network)
    return Llava(network.eval(), inputs, checkpoint, replace(config, path=path))
