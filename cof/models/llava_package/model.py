"""A LLaVA of the original package, with this code's decoding and highlight around it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from accelerate import init_empty_weights
from PIL.Image import Image
from torch import Tensor
from transformers import LlamaForCausalLM

from cof import prompts
from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint, find
from cof.models.common.feeding import stacked
from cof.models.common.loading import pick_device, pick_dtype, quantized
from cof.models.common.transformers_files import image_processor
from cof.models.llava.inputs import Inputs, read_inputs
from cof.models.llava.model import Llava, check_conv
from cof.models.llava.showing import Chunks
from cof.models.llava.tokenizer import Encode
from cof.models.llava_package.config import Config
from cof.models.llava_package.installed import Package, installed, label
from cof.models.llava_package.loading import build, quiet

log = logging.getLogger(__name__)


def identify(config: Config) -> dict[str, str]:
    """`weights` (of the files and of the package), `dtype` and kind of `device` of `load`.

    Raises:
        ModelError: no such checkpoint, of another layout, or no package.
    """
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    return {
        "weights": _find(config.path, label()).revision,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device).partition(":")[0],
    }


def load(config: Config) -> PackagedLlava:
    """Load the model that a config names.

    Raises:
        ModelError: as `cof.models.llava.load`; and the package is missing, or cannot load it.
    """
    with quiet():
        package = installed()
    checkpoint = quantized(_find(config.path, package.label), config.quantization)
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    check_conv(config.conv)
    inputs = read_inputs(checkpoint, config.conv)
    spread = config.device_map is not None
    network = build(package.load, checkpoint, dtype, device, spread)
    _check_rows(network, inputs, checkpoint)
    log.info("loaded %s with %s (%s, %s)", config.path, package.label, device, dtype)
    return PackagedLlava(network, package, inputs, checkpoint, config)


def _find(path: str, package: str) -> Checkpoint:
    """A checkpoint of the original layout; its revision names the package, which a reply is of."""
    checkpoint = find(path)
    if checkpoint.layout != "original":
        raise ModelError(
            f"{checkpoint.folder}: of transformers' layout, and LLaVA's own code reads its own: "
            f"take liuhaotian/llava-v1.5-7b for llava-hf/llava-1.5-7b-hf, use model.name=llava, "
            "or export cof-tiny (cof tiny export base_models/cof-tiny OUT --layout original)"
        )
    return replace(checkpoint, revision=f"{checkpoint.revision} {package}")


def _check_rows(network: Any, inputs: Inputs, checkpoint: Checkpoint) -> None:
    """The builder cuts the embeddings to the tokenizer that it has loaded, or adds random ones."""
    rows, ids = network.get_input_embeddings().weight.shape[0], len(inputs.tokenizer)
    there = checkpoint.config["vocab_size"]
    if not ids <= rows <= there:
        raise ModelError(
            f"{checkpoint.folder}: LLaVA's own code makes {rows} embeddings for {ids} tokens, and "
            f"the checkpoint has {there}; correct mm_use_im_patch_token in config.json (false, if "
            "the tokenizer has no <im_patch>) or tokenizer_class in tokenizer_config.json"
        )


@dataclass(frozen=True)
class _Speaks:
    """The published ids, as a tokenizer is called: transformers 5 would give others for a folder
    whose model_type is `llava` (see `cof.models.llava.tokenizer`).
    """

    encode: Encode
    bos_token_id: int

    def __call__(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[self.bos_token_id, *self.encode(text)])


class PackagedLlava(Llava):
    """A loaded LLaVA; what is said of `Llava` holds.

    Attributes:
        package: LLaVA's own code.
        packaged: its network; the CLIP tower is a part of its decoder.
        processor: transformers' image processor of the tower, on Pillow, which is what the
            package's had been before transformers 5.
    """

    def __init__(
        self,
        network: Any,
        package: Package,
        inputs: Inputs,
        checkpoint: Checkpoint,
        config: Config,
    ) -> None:
        self.package, self.packaged = package, network
        self.processor = image_processor(checkpoint.folders[-1])
        self._speaks = _Speaks(inputs.encode, inputs.tokenizer.bos_token_id)
        super().__init__(_shell(network), inputs, checkpoint, config, network.get_model())

    def prepare(self, image: Image) -> Tensor:
        """The image as the package's `process_images` makes it, float [3, side, side]."""
        pixels = self.package.process_images([image], self.processor, self.packaged.config)
        return pixels[0]  # type: ignore[no-any-return]

    def features(self, frames: Sequence[Tensor]) -> Tensor:
        """Visual tokens of B prepared images by the package's `encode_images`, float [B, T, D]."""
        pixels = stacked(frames, self.packaged.get_vision_tower().device)
        return self.packaged.encode_images(pixels.to(self.packaged.dtype))  # type: ignore[no-any-return]

    def token_ids(self, question: str) -> Chunks:
        """Ids before and after the image, by the package's template and its cut at the image."""
        talk = self.package.conversations[self.conv].copy()
        wrap = (prompts.IMAGE_START, prompts.IMAGE_END) if self.start_end else ("", "")
        talk.append_message(talk.roles[0], f"{wrap[0]}{prompts.IMAGE}{wrap[1]}\n{question}")
        talk.append_message(talk.roles[1], None)
        ids = self.package.tokenizer_image_token(talk.get_prompt(), self._speaks)
        place = ids.index(self.package.image_token)
        return ids[:place], ids[place + 1 :]

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the model."""
        return {**super().describe(), "package": self.package.label}


def _shell(network: Any) -> LlamaForCausalLM:
    """Transformers' own class around the package's decoder and head.

    The package's class has the arguments of transformers 4, and from 5.24 on its `generate` fails.
    """
    with init_empty_weights():
        shell = LlamaForCausalLM(network.config)
    shell.model, shell.lm_head = network.get_model(), network.lm_head
    shell.generation_config = network.generation_config
    return shell.eval()  # type: ignore[no-any-return]
