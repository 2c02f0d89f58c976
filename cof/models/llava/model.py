"""LLaVA-1.5: one adapter for the transformers layout, the original layout and cof-tiny.

Preprocessing, prompt and tokenization are the original code's, whatever the source: the image is
padded to a square before CLIP's resize, the text before and after the image is tokenized apart,
and the beginning-of-sequence token stands once. Boxes in replies are fractions of that square.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import GenerationConfig, set_seed

from cof import prompts
from cof.attention import NAME, attach, highlighted
from cof.errors import ModelError
from cof.images import frame_bytes, normalised
from cof.models import base
from cof.models.base import BoxForm, Counters, Encoded, Frame, Limits, Mix
from cof.models.common.box_decoding import write_boxes
from cof.models.common.checkpoint import Checkpoint, find
from cof.models.common.checks import Watch, fail_together, overrun, refusal
from cof.models.common.decoding import Greedy, Row
from cof.models.common.feeding import side_by_side, stacked
from cof.models.common.grammar import Grammar, bounds
from cof.models.common.graphs import graphs_for
from cof.models.common.kv_cache import Prefix, Start, together
from cof.models.common.loading import load_transformers, pick_device, pick_dtype, quantized
from cof.models.common.saliency import saliency
from cof.models.common.scoring import continuation_logprobs
from cof.models.common.words import places
from cof.models.llava.config import Config
from cof.models.llava.inputs import Inputs, read_inputs
from cof.models.llava.original import load_original
from cof.regions.bias import Highlight
from cof.regions.boxes import centre_crop, padded_square
from cof.regions.mask import cells_of_part, grid_cells
from cof.types import Answer, Box, Quad, View

Chunks = tuple[list[int], list[int]]
"""Ids before the image and after it."""

_STEP = 512
"""Pixels; a grammar of replies in pixels is made for images up to the next multiple."""

IDENTITY = ("revision", "dtype", "quantization", "conv", "pixels", "stops")
"""Of what a LLaVA says about itself, what a greedy reply depends on."""

BOX_FORM = (
    BoxForm("[", "]"),
    BoxForm("[", "]", "[", "]", ", "),
    BoxForm('{"bbox": [', "]}"),
    BoxForm('{"bbox": [', "]}", "[", "]", ", "),
)
"""LLaVA-1.5 is trained on bare lists; asked for JSON, checkpoints name them (cof-tiny). One box is
flat, several are nested; which of the four it is, the model chooses by its own scores."""

log = logging.getLogger(__name__)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give.

    Raises:
        ModelError: no such checkpoint, not LLaVA, an unknown device or dtype.
    """
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    return {
        "weights": find(config.path).revision,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device).partition(":")[0],
    }


def load(config: Config) -> Llava:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, not LLaVA, one that would be measured as another model
            than it is, an unknown device, dtype or chat template.
    """
    checkpoint = quantized(find(config.path), config.quantization)
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    check_conv(config.conv)
    inputs = read_inputs(checkpoint, config.conv)
    if checkpoint.layout == "original":
        network = load_original(checkpoint, dtype, device, config.device_map)
    else:
        where, quantization = config.device_map or {"": device}, config.quantization
        network = load_transformers(checkpoint, dtype, where, quantization=quantization)
    log.info("loaded %s (%s layout, %s, %s)", config.path, checkpoint.layout, device, dtype)
    return Llava(network.eval(), inputs, checkpoint, config)


def check_conv(conv: str) -> None:
    """Raise ModelError for a chat template that is unknown."""
    if conv not in prompts.SYSTEMS:
        raise ModelError(f"conv {conv!r}: there is {', '.join(sorted(prompts.SYSTEMS))}")


class Llava(base.Model):
    """A loaded LLaVA.

    Attributes:
        network: transformers' LlavaForConditionalGeneration, in eval mode; with a `decoder` given
            whatever has its embeddings, `lm_head`, generation config and `generate`.
        inputs: tokenizer, image settings.
        frame: `padded_square`, or `centre_crop` for checkpoints that do not pad.
        positions: most positions that prompt and reply may take together.
    """

    box_form = BOX_FORM
    lights_words = "inputs"
    joins = True

    def __init__(
        self,
        network: Any,
        inputs: Inputs,
        checkpoint: Checkpoint,
        config: Config,
        decoder: Any = None,
    ) -> None:
        self.network, self.inputs, self.checkpoint = network, inputs, checkpoint
        self.tokenizer, self.pixels = inputs.tokenizer, inputs.pixels
        self.name, self.conv = config.path, config.conv
        self.frame = Frame("padded_square" if self.pixels.pad else "centre_crop")
        self.start_end = bool(checkpoint.config.get("mm_use_im_start_end", False))
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self._grammars: dict[tuple[Frame, int], Grammar] = {}
        self.decoder = network.model.language_model if decoder is None else decoder
        text = attach(self.decoder)
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self.positions = int(text.max_position_embeddings)
        self.tokenizer.model_max_length = sys.maxsize  # `encode` holds lengths against the model's
        network.generation_config = self._generation_config()
        self.graphs = graphs_for(network, self.decoder, config.decode)

    def _generation_config(self) -> GenerationConfig:
        """Token ids only: sampling settings that checkpoints ship must not leak in."""
        tokens = self.tokenizer
        stop = self.network.generation_config.eos_token_id or tokens.eos_token_id
        pad = tokens.pad_token_id if tokens.pad_token_id is not None else tokens.eos_token_id
        return GenerationConfig(
            bos_token_id=tokens.bos_token_id, eos_token_id=stop, pad_token_id=pad
        )

    def prepare(self, image: Image) -> Tensor:
        """The image at the tower's size, uint8 [side, side, 3]."""
        return frame_bytes(image, self.pixels.side, self.pixels.mean, pad=self.pixels.pad)

    @torch.inference_mode()
    def look(self, images: Sequence[Image], prepared: Sequence[Tensor] | None = None) -> list[View]:
        """Run the vision tower and projector once over RGB images of any sizes."""
        frames = side_by_side(self.prepare, images) if prepared is None else prepared
        features = self.features(frames)
        self.counters.images += len(images)
        self.counters.vision_calls += 1
        return self._views(features, images)

    def features(self, frames: Sequence[Tensor]) -> Tensor:
        """Visual tokens of what `prepare` made of B images, float [B, T, D]."""
        tower = self.network.model.vision_tower
        pixels = normalised(stacked(frames, tower.device), self.pixels.mean, self.pixels.std)
        found = self.network.get_image_features(pixel_values=pixels.to(tower.dtype))
        return torch.stack(list(found.pooler_output))

    def _views(self, features: Tensor, images: Sequence[Image]) -> list[View]:
        """Views of the images, which share the keys and values of their prompts' beginnings."""
        pixels, side = self.pixels.side, math.isqrt(features.shape[1])
        before = self.token_ids("")[0]
        opening = self._embed(before).expand(len(images), -1, -1)
        start = torch.cat([opening, features.to(opening)], dim=1)
        prefix = Prefix(self.decoder, start, tuple(before), self.counters)
        return [
            View(
                feature,
                grid_cells((side, side), self.rectangle(image.size)),
                (side, side),
                image.size,
                (pixels, pixels),
                Start(prefix, (row,)),
            )
            for row, (feature, image) in enumerate(zip(features, images, strict=True))
        ]

    def token_ids(self, question: str) -> Chunks:
        """Ids before and after the image, the two chunks tokenized apart, BOS once."""
        before, after = prompts.around_image(question, self.conv, self.start_end)
        opening = [self.tokenizer.bos_token_id, *self.inputs.encode(before)]
        return opening, self.inputs.encode(after)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        embed = self.network.get_input_embeddings()
        return embed(torch.tensor(ids, device=embed.weight.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Encoded:
        """Chat prompts with the images' features in place.

        Rows are padded between the image and the question, so that the prompt starts (system
        prompt and image) that rows of equal images share stay aligned. A
        question that cannot be asked is left empty: it must not make the others' padding long.
        """
        ids = [self.token_ids(question) for question in questions]
        refused = self._refused(views, questions, ids)
        ids = [self.token_ids("") if row in refused else pair for row, pair in enumerate(ids)]
        longest = max(
            len(view.features) + len(after) for view, (_, after) in zip(views, ids, strict=True)
        )
        rows = [self._row(view, *pair, longest) for view, pair in zip(views, ids, strict=True)]
        embeds, mask = (torch.stack(parts) for parts in zip(*rows, strict=True))
        begin = len(ids[0][0])
        visual = tuple(torch.arange(begin, begin + len(view.features)) for view in views)
        return Encoded(
            {"inputs_embeds": embeds},
            mask,
            visual,
            keys=mask.shape[1],
            shared=together([view.shared for view in views], ids[0][0]),
            refused=refused,
            room=tuple(self.positions - _length(*pair) for pair in zip(views, ids, strict=True)),
        )

    def _refused(
        self, views: Sequence[View], questions: Sequence[str], ids: Sequence[Chunks]
    ) -> dict[int, str]:
        """Rows that cannot be asked, and why."""
        rows = enumerate(zip(views, questions, ids, strict=True))
        whys = {
            row: refusal(question, _length(view, pair), self.positions)
            for row, (view, question, pair) in rows
        }
        return {row: why for row, why in whys.items() if why}

    def _row(
        self, view: View, before: list[int], after: list[int], longest: int
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [S, D] and mask [S] of a prompt, image and question padded to `longest`."""
        text = self._embed([*before, *after])
        opening, question = text[: len(before)], text[len(before) :]
        padding = text.new_zeros(longest - len(view.features) - len(after), text.shape[1])
        row = torch.cat([opening, view.features.to(text), padding, question])
        mask = torch.ones(len(row), dtype=torch.long, device=row.device)
        mask[len(row) - len(after) - len(padding) : len(row) - len(after)] = 0
        return row, mask

    def words(
        self,
        encoded: Encoded,
        questions: Sequence[str],
        spans: Sequence[Sequence[prompts.Span]],
    ) -> list[Tensor]:
        """Positions of the tokens that hold some characters of the questions, per row int64 [n]."""
        texts = [prompts.around_image(one, self.conv, self.start_end)[1] for one in questions]
        for text, question in zip(texts, questions, strict=True):
            if self.inputs.encode(text) != self.token_ids(question)[1]:
                raise ModelError(f"{self.name}: its prompt of {question!r} is not {text!r}")
        begins = [text.index("\n") + 1 for text in texts]
        return places(encoded, begins, [self.inputs.offsets(text) for text in texts], spans)

    def gradient(self, encoded: Encoded) -> Tensor:
        """How much the first token depends on each visual token, see `saliency`."""
        embeds = encoded.inputs["inputs_embeds"].clone().requires_grad_(True)
        prompt = replace(encoded, inputs={"inputs_embeds": embeds}, shared=None)
        return saliency(self._loop(), prompt, embeds)[0, encoded.visual[0].cpu()]

    def join(self, whole: View, part: View, window: Box) -> View:
        """Both images' tokens behind each other, nothing between them, in the image's place.

        LLaVA-1.5 was trained on one image a prompt; ViCrop (arXiv 2502.17422) asks it so.
        """
        return View(
            torch.cat([whole.features, part.features.to(whole.features)]),
            torch.cat([whole.cells, cells_of_part(part.cells, window).to(whole.cells)]),
            None,
            whole.size,
            whole.shown,
        )

    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Highlight the decoder's attention inside the `with` block."""
        return highlighted(self.decoder, highlight)

    def generate(
        self,
        encoded: Encoded,
        limits: Limits,
        done: Callable[[str], bool] | None = None,
        mix: Mix | None = None,
    ) -> list[Answer]:
        """Decode one answer a row; greedy, sampling or beams as `limits` says."""
        started = time.perf_counter()
        if limits.num_beams == 1 and limits.temperature == 0:
            rows = self.greedy(encoded, limits.max_new_tokens, done, mix=mix)
        elif mix is not None:
            raise ModelError("mixing the scores of rows needs num_beams=1 and temperature=0")
        else:
            watch = Watch(min(self.stops))
            tokens = self.generate_raw(encoded, limits, logits_processor=[watch]).tolist()
            sound = watch.sound(len(tokens))
            rows = [Row(i, one, sound=sound[i]) for i, one in enumerate(tokens)]
        share = (time.perf_counter() - started) / len(rows)
        answers = [self._answer(encoded, row, share) for row in rows]
        return answers if mix is None else fail_together(answers, getattr(mix, "rows", 2))

    def generate_boxes(
        self, encoded: Encoded, views: Sequence[View], max_new_tokens: int
    ) -> list[Answer]:
        """Decode one reply of boxes a row, in one of `BOX_FORM`."""
        started = time.perf_counter()
        largest = [bounds(self.frame, view) for view in views]
        grammar = self._grammar(max(map(max, largest)))
        boxes = grammar.fits(max_new_tokens)
        cursors = [grammar.cursor(one, boxes) for one in largest]
        written = write_boxes(self._loop(), encoded, cursors, max_new_tokens)
        share = (time.perf_counter() - started) / len(written)
        answers = [self._answer(encoded, one.row, share) for one in written]
        return [
            answer if answer.error else replace(answer, logprobs=(), notes=one.notes())
            for answer, one in zip(answers, written, strict=True)
        ]

    def _grammar(self, top: int) -> Grammar:
        """The grammar of numbers up to `top`; of pixels one for each `_STEP`, not for each size."""
        if self.frame.unit is None:
            top = -(-top // _STEP) * _STEP
        key = (self.frame, top)
        if key not in self._grammars:
            stop = min(self.stops)
            self._grammars[key] = Grammar(self.box_form, self.frame, top, self._reply_ids, stop)
        return self._grammars[key]

    def greedy(
        self,
        encoded: Encoded,
        max_new_tokens: int,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> list[Row]:
        """Greedy decoding on shared keys and values: tokens (and logits) of every row."""
        return self._loop(done, keep_logits, mix).run(encoded, max_new_tokens)

    def score(self, encoded: Encoded, texts: Sequence[str]) -> list[Answer]:
        """Weigh one given answer a row, its end of reply included.

        As V*Bench's published script: the tokens that the chat template puts behind `ASSISTANT:`,
        the end-of-sequence token among them.
        """
        started = time.perf_counter()
        ids = [self._answer_ids(text) for text in texts]
        whys = {row: overrun(len(one), encoded.room[row]) for row, one in enumerate(ids)}
        whys = {row: why for row, why in whys.items() if why} | dict(encoded.refused)
        asked = [ids[row][-1:] if row in whys else ids[row] for row in range(len(ids))]
        found = continuation_logprobs(self._loop(), encoded, asked)
        share = (time.perf_counter() - started) / len(ids)
        for row, logprobs in enumerate(found):
            if row not in whys and not math.isfinite(sum(logprobs)):
                whys[row] = self.not_finite()
        return [
            Answer("", seconds=share, error=whys[row])
            if row in whys
            else Answer(text, tuple(ids[row]), share, logprobs=found[row])
            for row, text in enumerate(texts)
        ]

    def _answer_ids(self, text: str) -> list[int]:
        """Ids of an answer as it follows the prompt, its end included."""
        return [*self._reply_ids(text), self.tokenizer.eos_token_id]

    def _reply_ids(self, text: str) -> list[int]:
        """Ids of a text as it follows the prompt; tokenized behind its last word."""
        head, both = map(self.inputs.encode, ("ASSISTANT:", f"ASSISTANT: {text}"))
        return both[len(head) :]

    def embeds(self, encoded: Encoded) -> Tensor:
        """Input embeddings of the prompts, float [B, S, D], as the decoder gets them."""
        return self._loop().prompt(encoded)

    def _loop(
        self,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> Greedy:
        return Greedy(
            self.network,
            self.decoder,
            self.counters,
            self.stops,
            self._text,
            self.closing if done else frozenset(),
            done,
            keep_logits,
            mix,
            self.graphs,
        )

    @torch.inference_mode()
    def generate_raw(self, encoded: Encoded, limits: Limits, **options: Any) -> Any:
        """Transformers' own `generate` on an encoded batch; `options` go through as they are."""
        if limits.temperature > 0:
            set_seed(limits.seed)
            options |= {"do_sample": True, "temperature": limits.temperature, "top_k": 0}
        return self.network.generate(
            inputs_embeds=self.embeds(encoded),
            attention_mask=encoded.attention_mask,
            max_new_tokens=limits.max_new_tokens,
            num_beams=limits.num_beams,
            **options,
        )

    @cached_property
    def stops(self) -> frozenset[int]:
        """Ids that end a reply."""
        stop = self.network.generation_config.eos_token_id
        return frozenset(stop if isinstance(stop, list) else [stop])

    @cached_property
    def closing(self) -> frozenset[int]:
        """Ids whose text holds a bracket that may close a box."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        byte_pieces = {"<0x5D>", "<0x7D>"}
        return frozenset(
            index
            for index, piece in enumerate(pieces)
            if piece and ("]" in piece or "}" in piece or piece in byte_pieces)
        )

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _answer(self, encoded: Encoded, row: Row, seconds: float) -> Answer:
        tokens = row.tokens
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stops), len(tokens))
        error = encoded.refused.get(row.index) or ("" if row.sound else self.not_finite())
        error = error or overrun(end, encoded.room[row.index])
        if error:
            return Answer("", seconds=seconds, error=error)
        text, logprobs = self._text(tokens[:end]).strip(), tuple(row.logprobs[:end])
        margin = min(row.margins[:end], default=None)
        return Answer(text, tuple(tokens[:end]), seconds, logprobs=logprobs, margin=margin)

    def rectangle(self, size: tuple[int, int]) -> Quad:
        """The rectangle that the model sees of an image, in fractions of it."""
        return padded_square(size) if self.pixels.pad else centre_crop(size, self.pixels.side)

    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on.

        In half precision that is the way of decoding too: another one's kernels round differently.
        """
        said = self.describe()
        rounds = self.graphs is not None and self.dtype != "float32"
        return {name: said[name] for name in (*IDENTITY, *(["decode"] if rounds else []))}

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the model."""
        return {
            "name": self.name,
            "layout": self.checkpoint.layout,
            "revision": self.checkpoint.revision,
            "device": str(self.network.device),
            "dtype": self.dtype,
            "attention": f"sdpa ({NAME})",
            "conv": self.conv,
            "frame": self.frame.name,
            "decode": "eager" if self.graphs is None else "graph",
            "quantization": self.checkpoint.quantization,
            "pixels": self.pixels.to_json(),
            "chat_template": self.inputs.chat_template,
            "stops": sorted(self.stops),
        }


def _length(view: View, ids: Chunks) -> int:
    """Positions of a prompt without padding."""
    return len(view.features) + sum(map(len, ids))
