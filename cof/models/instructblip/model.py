"""InstructBLIP with a LLaMA decoder (Vicuna): vision tower, Q-Former, language model.

The image is stretched to a square; a class token and its patches are the keys of the Q-Former's
cross-attention, whose few queries (32) are all that the language model sees of it. The Q-Former
reads the question too, so that the tower runs once an image, and everything behind it once a
prompt. Visual tokens, to the stages, are the patches: they are what has a place in the image.

It has been trained to write boxes nowhere that is documented, so it is not asked for any
(`grounding` is empty): regions come from a file, from where the Q-Former looks, or are controls.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import align_module_device
from PIL.Image import Image
from torch import Tensor
from transformers import set_seed

from cof.attention import NAME, attach, highlighted, watched
from cof.errors import ModelError
from cof.models.base import Counters, Encoded, Limits, Mix
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.checks import refusal
from cof.models.common.crossed import active_bias, check_whole, nobody, scaled
from cof.models.common.decoding import Greedy, Row
from cof.models.common.loading import runs_on
from cof.models.common.outer import Prompts, padded
from cof.models.common.recording import recorded
from cof.models.common.replying import Replying, token_ids_only
from cof.models.common.scoring import padded as padded_right
from cof.models.instructblip.config import Config
from cof.models.instructblip.files import Tokenizers
from cof.models.instructblip.qformer import Looks, states
from cof.regions.bias import Highlight
from cof.regions.frame import Frame
from cof.regions.mask import grid_cells
from cof.types import Answer, View

IDENTITY = ("family", "revision", "dtype", "quantization", "prompt", "images", "stops")
"""Of what a model says about itself, what a greedy reply depends on."""

WHOLE = (0.0, 0.0, 1.0, 1.0)


class InstructBlip(Replying):
    """A loaded InstructBLIP.

    Attributes:
        whole: transformers' InstructBlipForConditionalGeneration, in eval mode.
        network: its language model.
        qformer: its Q-Former, the cross-attention of which is highlighted.
        layers: cross-attentions of the Q-Former, which `locate.name=attention` looks at.
        heads: of each.
        positions: most positions that prompt and reply may take together.
    """

    space = "cross"
    narrows = False
    grounding = ""
    frame = Frame("image", assumed=True)

    def __init__(
        self,
        network: Any,
        processor: Any,
        tokenizers: Tokenizers,
        checkpoint: Checkpoint,
        config: Config,
    ) -> None:
        self.whole, self.network, self.qformer = network, network.language_model, network.qformer
        self.processor, self.checkpoint, self.config = processor, checkpoint, config
        self.tokenizer, self.asking = tokenizers
        self.name = config.path
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self.decoder = network.get_decoder()
        attach(self.qformer)
        if config.highlight != "qformer":
            attach(self.decoder)
        self.layers = len(Looks(self.qformer).layers)
        self.heads = self.qformer.config.num_attention_heads
        self.positions = int(self.decoder.config.max_position_embeddings)
        self.queries = int(network.config.num_query_tokens)
        vision = network.config.vision_config
        side = vision.image_size // vision.patch_size
        self.grid = (side, side)
        self.tokenizer.model_max_length = self.asking.model_max_length = sys.maxsize
        said = self.network.generation_config.eos_token_id
        self.network.generation_config = token_ids_only(self.tokenizer, said, add_end=True)

    @torch.inference_mode()
    def look(self, images: Sequence[Image]) -> list[View]:
        """Run the vision tower over RGB images of any sizes; features float [K, E]."""
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        tower = self.whole.vision_model
        where = runs_on(tower.embeddings.patch_embedding)
        seen = tower(pixel_values=pixels.to(where, tower.dtype)).last_hidden_state
        self.counters.images += len(images)
        self.counters.vision_calls += 1
        shown = (pixels.shape[3], pixels.shape[2])
        if seen.shape[1] != 1 + self.grid[0] * self.grid[1]:
            raise ModelError(
                f"{self.name}: {seen.shape[1]} tokens of the vision tower, but a class token and "
                f"{self.grid} places; are its image settings its own?"
            )
        cells = grid_cells(self.grid, WHOLE)
        return [
            View(one, cells, self.grid, image.size, shown)
            for one, image in zip(seen, images, strict=True)
        ]

    @torch.inference_mode()
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Prompts:
        """Prompts, padded on the left; in front of each the places of its queries.

        What the language model is given there is computed when the prompts are run, since the
        highlight acts before. A question that cannot be asked is left empty.
        """
        asked = [self.config.ask(one) for one in questions]
        pairs = [self._ids(text) for text in asked]
        whys = {row: self._refusal(question, *pairs[row]) for row, question in enumerate(questions)}
        refused = {row: why for row, why in whys.items() if why}
        pairs = [self._ids("") if row in refused else pair for row, pair in enumerate(pairs)]
        pad = self.network.generation_config.pad_token_id
        rows = [[pad] * self.queries + ids for ids, _ in pairs]
        ids, mask = padded(rows, pad, self.device)
        asking, real = padded_right([ids for _, ids in pairs], mask)
        keys = 1 + self.grid[0] * self.grid[1]
        return Prompts(
            {"input_ids": ids, "asking_ids": asking, "asking_mask": real},
            mask,
            (torch.arange(1, keys),) * len(rows),
            keys=keys,
            refused=refused,
            room=tuple(self.positions - len(row) for row in rows),
            views=tuple(views),
        )

    def _ids(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a prompt for the language model, and for the Q-Former."""
        return list(self.tokenizer(text).input_ids), list(self.asking(text).input_ids)

    def _refusal(self, question: str, ids: list[int], asking: list[int]) -> str:
        why = refusal(question, self.queries + len(ids), self.positions)
        most = self.qformer.config.max_position_embeddings
        if why or len(asking) <= most:
            return why
        return (
            f"the prompt takes {len(asking)} positions of the Q-Former, which has {most}; "
            "shorten the question"
        )

    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Highlight patches inside the `with` block, where `model.highlight` says.

        Raises:
            ModelError: a highlight of some queries, layers or heads.
        """
        check_whole(self.name, highlight)
        return highlighted(self.qformer, highlight)

    @contextmanager
    def shown(self, encoded: Encoded) -> Iterator[Encoded]:
        """The prompts with the image in place, `inputs_embeds`, to be run inside the block.

        The Q-Former has run, under the highlight that is on around the block; inside it the
        decoder has its own, where `model.highlight` gives it one.
        """
        embeds, bias = self._embed(encoded)
        ready = replace(encoded, inputs={"inputs_embeds": embeds}, scale=())
        with watched(nobody):  # what is recorded are the patches
            if bias is None:
                yield ready
            else:
                with highlighted(self.decoder, Highlight(bias)):
                    yield ready

    def _embed(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """Input embeddings [B, S, D], and what is added to keys of the decoder, [B, S] or None."""
        bias, where, keep = active_bias(self.qformer, encoded), self.config.highlight, recorded()
        inside = None if where == "llm" else bias
        deeper = None if where == "qformer" else bias
        looks = Looks(self.qformer)
        with highlighted(self.qformer, None), looks.on(keep is not None or deeper is not None):
            found = self._ask(encoded, inside)
        if keep is not None:
            keep.update(looks.maps(inside))
        ids, mask = encoded.inputs["input_ids"], encoded.attention_mask
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        places = mask.argmax(1, keepdim=True) + torch.arange(self.queries, device=ids.device)
        embeds = self.network.get_input_embeddings()(ids)
        embeds[rows, places] = found.to(embeds)
        if deeper is None:
            return embeds, None
        added = torch.zeros(ids.shape, device=ids.device)
        added[rows, places] = looks.weigh(deeper).log().to(ids.device)
        return embeds, added

    def _ask(self, encoded: Encoded, bias: Tensor | None) -> Tensor:
        """What the language model is given of the images, float [B, Q, D]."""
        assert isinstance(encoded, Prompts)
        where = runs_on(self.qformer.embeddings.layernorm)
        images = torch.stack([view.features for view in encoded.views]).to(where)
        if encoded.scale:
            images = scaled(images, encoded.scale, encoded.visual)
        text = (encoded.inputs["asking_ids"], encoded.inputs["asking_mask"])
        with align_module_device(self.whole, where):  # it may be offloaded
            queries = self.whole.query_tokens.to(where)
        found = states(
            self.qformer,
            queries,
            images,
            (text[0].to(images.device), text[1].to(images.device)),
            bias,
        )
        return self.whole.language_projection(found[:, : self.queries])  # type: ignore[no-any-return]

    def loop(
        self,
        encoded: Encoded,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> Greedy:
        """Greedy decoding of prompts that are `shown`."""
        closing = self.closing if done else frozenset()
        given = (self.network, self.decoder, self.counters, self.stops, self.text)
        return Greedy(*given, closing, done, keep_logits, mix)

    @torch.inference_mode()
    def greedy(
        self,
        encoded: Encoded,
        max_new_tokens: int,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> list[Row]:
        """Greedy decoding: tokens (and logits) of every row."""
        with self.shown(encoded) as ready:
            return super().greedy(ready, max_new_tokens, done, keep_logits, mix)

    @torch.inference_mode()
    def score(self, encoded: Encoded, texts: Sequence[str]) -> list[Answer]:
        """Weigh one given answer a row, its end of reply included."""
        with self.shown(encoded) as ready:
            return super().score(ready, texts)

    @torch.inference_mode()
    def generate_raw(self, encoded: Encoded, limits: Limits, **options: Any) -> Tensor:
        """Transformers' own `generate`: ids of the replies [B, n]; options go through."""
        if limits.temperature > 0:
            set_seed(limits.seed)
            options |= {"do_sample": True, "temperature": limits.temperature, "top_k": 0}
        with self.shown(encoded) as ready:
            return self.network.generate(  # type: ignore[no-any-return]
                inputs_embeds=ready.inputs["inputs_embeds"],
                attention_mask=ready.attention_mask,
                max_new_tokens=limits.max_new_tokens,
                num_beams=limits.num_beams,
                **options,
            )

    @property
    def device(self) -> torch.device:
        """Where ids go."""
        return runs_on(self.network.get_input_embeddings())

    def answer_ids(self, text: str) -> list[int]:
        """Ids of a reply as it was trained: tokenized by itself, the end of reply behind."""
        said = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*said, self.tokenizer.eos_token_id]

    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on."""
        said = self.describe()
        return {name: said[name] for name in IDENTITY}

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the model."""
        return {
            "name": self.name,
            "family": self.whole.config.model_type,
            "layout": self.checkpoint.layout,
            "revision": self.checkpoint.revision,
            "device": str(self.device),
            "dtype": self.dtype,
            "attention": f"sdpa ({NAME}), highlighted: {self.config.highlight}",
            "frame": "none (it is not asked for boxes)",
            "prompt": self.config.prompt,
            "quantization": self.checkpoint.quantization,
            "images": json.loads(self.processor.to_json_string()),
            "stops": sorted(self.stops),
        }
