"""Compare this code with recorded numbers of the published code (`cof doctor --parity FOLDER`).

A folder holds a tiny checkpoint in the original layout, images, and for each case what the
published script computed: token ids, region mask, and the logits of every decoding step of the
coarse pass, the plain pass and the highlighted pass. Everything here starts from the image file,
the question's text and the raw coarse reply. Its `prompt_highlighter/`, where there is one, holds
cases of that script: lit positions, both branches' first logits, and the guided scores; its
`qformer/` those of a Q-Former (`cof.evaluate.parity_qformer`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from cof import prompts
from cof.errors import DataError
from cof.evaluate import parity_qformer
from cof.evaluate.comparison import TOLERANCE, Comparison, ParityReport
from cof.images import load_image, to_model_frame
from cof.locate.prompt import read_reply
from cof.models import llava
from cof.models.base import Encoded, Limits
from cof.refine import guided, highlight
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus
from cof.regions.parse import parse_reference
from cof.regions.published import reference_mask
from cof.types import Region, View

if TYPE_CHECKING:
    from torch import Tensor


class Parity:
    """One folder of recorded numbers and the model in it.

    Raises:
        DataError: the folder has no cases.json.
    """

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "float32") -> None:
        if not (folder / "cases.json").is_file():
            raise DataError(f"{folder}: no cases.json; is it a folder of recorded numbers?")
        self.folder = folder
        self.model = llava.load(llava.Config(str(folder / "checkpoint"), device, dtype))
        self.checks: dict[str, Comparison] = {}

    def run(self, tolerance: float = TOLERANCE) -> ParityReport:
        """Every check that the folder has files for, without TF32 (it rounds far above 1e-4).

        Raises:
            DataError: a file that cases.json promises is missing or damaged.
        """
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, False
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                return self._run(tolerance)
        finally:
            matmul.allow_tf32 = before

    def _run(self, tolerance: float) -> ParityReport:
        for name in CHECKS:
            self.checks[name] = Comparison(name, binding=name != "beam tokens")
        self._pixels()
        self._prompts()
        self._mask_rows()
        for case in self._json("cases.json"):
            self._case(case)
        for case in self._json("beam_cases.json"):
            self._beam(case)
        for case in self._json(f"{GUIDED}/cases.json"):
            self._guided(case)
        if cases := self._json(f"{parity_qformer.FOLDER}/cases.json"):
            parity_qformer.check(self.folder, cases, self.checks, self.model.network)
        return ParityReport(list(self.checks.values()), tolerance)

    def _json(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        except ValueError as error:
            raise DataError(f"{file}: not JSON ({error})") from error

    def _tensors(self, case: dict[str, Any], folder: str = "cases") -> dict[str, Tensor]:
        file = self.folder / folder / f"{case['id']}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{file}: missing or damaged, but cases.json names it") from error

    def _pixels(self) -> None:
        how = self.model.pixels
        red, green, blue = (int(255 * value) for value in how.mean)
        for folder, pad in (("preprocessed", True), ("preprocessed_no_pad", False)):
            for file in sorted((self.folder / folder).glob("*.png")):
                image = load_image(self.folder / "images" / file.name, exif="ignore")
                ours = np.asarray(to_model_frame(image, how.side, (red, green, blue), pad=pad))
                self.checks["pixels"].arrays(ours, np.asarray(Image.open(file)))

    def _prompts(self) -> None:
        for row in self._json("prompts.json"):
            self._template(row["conv_mode"], row["mm_use_im_start_end"])
            self._ids(row["question"], row["input_ids_answer"], row["prompt_answer"])
            asked = prompts.grounding_question(row["question"])
            self._ids(asked, row["input_ids_grounding"], row["prompt_grounding"])

    def _template(self, conv: str, start_end: bool) -> None:
        self.model.conv, self.model.start_end = conv, start_end

    def _ids(self, question: str, ids: Iterable[int], text: str) -> None:
        before, after = self.model.token_ids(question)
        self.checks["prompt ids"].items([*before, -200, *after], ids)
        said = prompts.full_prompt(question, self.model.conv, self.model.start_end)
        self.checks["prompt text"].items([said], [text])

    def _mask_rows(self) -> None:
        """Every recorded reply, on its grid; where the published code crashed, all tokens."""
        rows = self._json("mask_cases.json")
        file = self.folder / "mask_cases.safetensors"
        if not rows or not file.is_file():
            return
        tensors = load_file(file)
        for row, mask in zip(rows, tensors["masks"], strict=True):
            self._mask_row(row, torch.ones_like(mask) if row["error"] else mask)
        for name, masks in tensors.items():
            found = re.fullmatch(r"masks_rows(\d+)_(\d+)_shape_.*", name)
            chosen = rows[int(found[1]) : int(found[2]) + 1] if found else []
            for row, mask in zip(chosen, masks, strict=bool(chosen)):
                self._mask_row(row, torch.ones_like(mask) if row["error"] else mask)

    def _mask_row(self, row: dict[str, Any], mask: Tensor) -> None:
        grid = (mask.shape[0], mask.shape[1])
        quad, said = parse_reference(row["raw"]), (row["expansion_rate"], row["square_bbox"])
        ours = reference_mask(quad, grid, *said)
        self.checks["mask rows"].arrays(ours.int().numpy(), mask.flatten().numpy())

    def _case(self, case: dict[str, Any]) -> None:
        recorded = self._tensors(case)
        self._template(
            case["settings"]["conv_mode"],
            bool(self.model.checkpoint.config.get("mm_use_im_start_end", False)),
        )
        question, model = case["question"], self.model
        asked = prompts.grounding_question(question)
        self._ids(question, recorded["input_ids_answer"].tolist(), case["prompt_answer"])
        self._ids(asked, recorded["input_ids_grounding"].tolist(), case["prompt_grounding"])
        view = model.look([load_image(self.folder / case["image"], exif="ignore")])[0]
        if "image_features" in recorded:
            self.checks["image features"].numbers(view.features, recorded["image_features"])
        limits = Limits(case["settings"]["max_new_tokens"])
        self._decode("coarse", model.encode([view], [asked]), limits, recorded, "grounding")
        encoded = model.encode([view], [question])
        self._decode("plain", encoded, limits, recorded, "plain")
        encoded, plan = self._highlight(case, view, encoded, recorded["mask"])
        if "hl_inputs_embeds" in recorded:
            self.checks["decoder input"].numbers(
                model.embeds(encoded)[0], recorded["hl_inputs_embeds"]
            )
        with model.highlighted(plan):
            self._decode("highlighted", encoded, limits, recorded, "hl")

    def _highlight(
        self, case: dict[str, Any], view: View, encoded: Encoded, mask: Tensor
    ) -> tuple[Encoded, highlight.Highlight]:
        said = case["settings"]
        region: Region = read_reply(self.model, case["raw_grounding_output"], view)
        rules = BoxConfig("reference", said["expansion_rate"], said["square_bbox"])
        spot = focus(region, view, rules)
        self.checks["region mask"].arrays(spot.mask.int().numpy(), mask.flatten().numpy())
        config = highlight.Config(said["attention_weight"], perturb=said["perturb_weight"])
        encoded = highlight.perturbed(encoded, [spot.mask], config.perturb)
        return encoded, highlight.plan(encoded, [spot.mask], config)

    def _decode(
        self, stage: str, encoded: Encoded, limits: Limits, recorded: Any, key: str
    ) -> None:
        row = self.model.greedy(encoded, limits.max_new_tokens, keep_logits=True)[0]
        logits = torch.stack(row.logits)
        self.checks[f"{stage} logits"].numbers(logits, recorded[f"{key}_logits"])
        self.checks[f"{stage} tokens"].items(row.tokens, recorded[f"{key}_tokens"].tolist())

    def _beam(self, row: dict[str, Any]) -> None:
        case = next((c for c in self._json("cases.json") if c["id"] == row["case"]), None)
        if case is None:
            return
        recorded = self._tensors(case)
        limits = replace(Limits(case["settings"]["max_new_tokens"]), num_beams=row["num_beams"])
        view = self.model.look([load_image(self.folder / case["image"], exif="ignore")])[0]
        encoded = self.model.encode([view], [case["question"]])
        config = highlight.Config(case["settings"]["attention_weight"])
        mask = recorded["mask"].flatten().bool()
        encoded = highlight.perturbed(encoded, [mask], case["settings"]["perturb_weight"])
        plan = highlight.plan(encoded, [mask], config)
        with self.model.highlighted(plan):
            tokens = self.model.generate_raw(encoded, limits)[0].tolist()
        self.checks["beam tokens"].items(tokens, row["hl_tokens"])

    def _guided(self, case: dict[str, Any]) -> None:
        """One case of Prompt Highlighter: `guided` on the positions that it lit, text's too."""
        recorded, model = self._tensors(case, GUIDED), self.model
        self._template(case["conv_mode"], self.model.start_end)
        before, after = model.token_ids(case["question"])
        self.checks["prompt ids"].items([*before, -200, *after], recorded["input_ids"][0].tolist())
        kept = model.pixels
        model.pixels = replace(kept, pad=case["image_padding"])
        image = load_image(self.folder / case["image"], exif="ignore")
        views = model.look([image, image])
        model.pixels = kept
        encoded = model.encode(views, [case["question"]] * 2)
        every = torch.arange(encoded.keys, device=encoded.attention_mask.device)
        encoded = replace(encoded, visual=(every, every))  # any position of the prompt may be lit
        lit = [recorded["used_token_map"].bool()] * 2
        how = (case["attention_weight"], case["guidance_scale"], case["use_log"])
        config = guided.Config(*how, perturb=case["perturb_weight"])
        encoded, plan = guided.branches(encoded, lit, config)
        with model.highlighted(plan):
            rows = model.greedy(encoded, 1, keep_logits=True)
            steps = len(recorded["tokens"])
            said = model.greedy(encoded, steps, keep_logits=True, mix=guided.guide(config))[0]
        first = torch.stack([row.logits[0] for row in rows])
        self.checks["guided branches"].numbers(first, recorded["branch_logits_first_step"])
        self.checks["guided scores"].numbers(torch.stack(said.logits), recorded["guided_scores"])
        self.checks["guided tokens"].items(said.tokens, recorded["tokens"].tolist())


GUIDED = "prompt_highlighter"
"""Folder, inside one of recorded numbers, of Prompt Highlighter's."""

CHECKS = (
    "pixels",
    "prompt text",
    "prompt ids",
    "mask rows",
    "image features",
    "region mask",
    "decoder input",
    "coarse logits",
    "coarse tokens",
    "plain logits",
    "plain tokens",
    "highlighted logits",
    "highlighted tokens",
    "beam tokens",
    "guided branches",
    "guided scores",
    "guided tokens",
    *parity_qformer.CHECKS,
)
"""Names of the checks, in the order of the pipeline; beam search is informational."""
