"""Teach the whole model to answer and to locate, in packed batches."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cof_lab import wording
from cof_lab.batches import Look, Packed, Rows, pack_segments
from cof_lab.curriculum import CURRICULUM, LanguageConfig
from cof_lab.loop import Schedule
from cof_lab.model import ModelConfig, normalise_pixels, vision_features
from cof_lab.packing import install, packed
from cof_lab.position_code import BOX_CODE
from cof_lab.render import render
from cof_lab.reply_tokens import token_kinds
from cof_lab.segments import Diet, Sample, Tokens, samples, tokenize
from cof_lab.vision import Readout, mixture, patch_loss, patch_targets
from cof_lab.world import Scenes, describe

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast


class LanguageStage:
    """The projector and the language model, and the vision tower at a lower rate."""

    name = "language"

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        readout: Readout,
        tokenizer: PreTrainedTokenizerFast,
        config: ModelConfig,
        language: LanguageConfig,
        schedule: Schedule,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.model, self.readout, self.tokenizer = model, readout, tokenizer
        self.config, self.language, self.schedule = config, language, schedule
        self.seed, self.device = seed, device
        torch.manual_seed(seed)
        # thrown away at the end, like the readout
        self.pointer = nn.Linear(config.width, BOX_CODE).to(device)
        self.modules: dict[str, nn.Module] = {
            "model": model,
            "readout": readout,
            "pointer_readout": self.pointer,
        }
        tower = language.vision_scale
        model.model.vision_tower.requires_grad_(tower > 0)
        readout.requires_grad_(tower > 0)
        self.scales = {"model.model.vision_tower": tower, "readout": tower}
        before = tokenizer(wording.OPENING)["input_ids"]
        self.first_image = len(before)
        self.prefix = before + [model.config.image_token_index] * config.grid**2
        self.kinds, self.coordinates = token_kinds(tokenizer)
        install(model)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss on the fresh batch of this step."""
        done = step / self.schedule.steps
        _, shares, diet = next(stage for stage in CURRICULUM if done < stage[0])
        scenes = mixture(
            step + 1_000_000, self.schedule.images, shares, seed=self.seed, side=self.config.side
        )
        batch = self.batch(scenes, diet, f"{self.seed}-{step}", _easy(shares, len(scenes)))
        stops = (self.language.attention_until, self.language.boxes_until)
        attend = self.language.attention > 0
        looks = [
            look
            for look, stop in zip(batch.looks, stops, strict=True)
            if attend and done < stop and len(look.target)
        ]
        return self.batch_loss(batch, scenes, tuple(looks))

    def batch(
        self, scenes: Scenes, diet: Diet, salt: str, easy: list[bool] | None = None
    ) -> Packed:
        """Questions about these scenes, packed; `salt` seeds what is asked."""
        diet = replace(diet, kinds=self.language.kinds)
        short, long = [], []
        for row in range(len(scenes)):
            random = Random(f"{salt}-{row}")
            few, many = samples(scenes.things(row), random, diet, scenes.side)
            short += few
            long += many
        groups = self._groups(short, diet.short) + self._groups(long, diet.long)
        silent = [not e for e in easy] if easy and self.language.reader == "easy" else None
        return pack_segments(
            groups, self.prefix, scenes, self.config.patch, self.first_image, self.kinds,
            (self.language.attention_layer, self.language.boxes_layer), silent=silent,
        )  # fmt: skip

    def _groups(self, flat: list[Sample], count: int) -> list[list[list[Tokens]]]:
        """Token segments [group][image][2], sorted by length so that padding stays small."""
        tokens = tokenize(flat, self.tokenizer)
        rows = [tokens[k : k + count] for k in range(0, len(tokens), count)]
        rows = [sorted(row, key=lambda segment: len(segment.ids)) for row in rows]
        return [[row[k : k + 2] for row in rows] for k in range(0, count, 2)]

    def forward(
        self, batch: Packed, scenes: Scenes, looks: tuple[Look, ...] = ()
    ) -> tuple[list[Tensor], Tensor]:
        """Hidden states after every layer (the last one normed), and the patch features.

        The attention of the rows in `looks` is left in their probes.
        """
        pixels = normalise_pixels(render(scenes, self.device))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.language.vision_scale > 0):
            features = vision_features(self.model, pixels)
        core = self.model.model
        embeds = core.get_input_embeddings()(batch.ids.to(self.device))
        visual = core.multi_modal_projector(features)
        start, stop = self.first_image, batch.layout.prefix
        embeds = torch.cat([embeds[:, :start], visual, embeds[:, stop:]], 1)
        with packed(batch.layout, tuple(look.probe for look in looks)):
            output = core.language_model(
                inputs_embeds=embeds,
                position_ids=batch.layout.positions(self.device),
                use_cache=False,
                output_hidden_states=True,
            )
        return list(output.hidden_states), features

    def batch_loss(
        self, batch: Packed, scenes: Scenes, looks: tuple[Look, ...] = ()
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of reply, hint, attention and patch losses."""
        config = self.language
        hidden, features = self.forward(batch, scenes, looks)
        reply, report = self._reply_loss(hidden[-1], batch)
        total = reply
        norm = self.model.model.language_model.norm
        for name, layer, weight in (
            ("hints", config.hints_layer, config.hints),
            ("names", config.names_layer, config.names),
        ):
            rows = getattr(batch, name)
            if not len(rows.target):  # every image is silent
                continue
            inner = hidden[layer] if layer == len(hidden) - 1 else norm(hidden[layer])
            nll, right = self._nll(inner, rows)
            total = total + weight * nll.mean()
            report[name] = float(right.float().mean())
        if config.points and len(batch.points[0]):
            image, row, code = batch.points
            guess = self.pointer(norm(hidden[config.names_layer])[image, row])
            gap = F.smooth_l1_loss(guess, code, beta=0.2)
            total = total + config.points * gap
            report["point"] = float(gap.detach())
        for look in looks:
            gap = -(look.target[:, None] * look.probe.log_mass).sum(-1).mean()  # type: ignore[operator]
            total = total + config.attention * gap
            report[f"look/{look.probe.layer}"] = float(gap.detach())
        if config.patches:
            targets = patch_targets(scenes, self.config.patch, self.device)
            patches, seen = patch_loss(self.readout(features), targets, 3.0)
            total = total + config.patches * patches
            report["patch_glyph"] = seen["glyph"]
        report["reply"] = float(reply.detach())
        return total, report

    def _nll(self, hidden: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        logits = self.model.lm_head(hidden[rows.image, rows.row])
        nll = F.cross_entropy(logits, rows.target, reduction="none")
        return nll, logits.argmax(-1) == rows.target

    def _reply_loss(self, hidden: Tensor, batch: Packed) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy on replies; neighbouring coordinates share the target (sigma = 1)."""
        rows = batch.replies
        logits = self.model.lm_head(hidden[rows.image, rows.row])
        log_prob = logits.log_softmax(-1)
        nll = -log_prob.gather(1, rows.target[:, None])[:, 0]
        number = self.coordinates.hundredths(rows.target)
        soft = number >= 0
        grid = torch.arange(len(self.coordinates.ids))
        kernel = torch.exp(-0.5 * (grid[None] - number[soft][:, None]) ** 2)
        kernel = kernel / kernel.sum(-1, keepdim=True)
        near = -(kernel * log_prob[soft][:, self.coordinates.ids]).sum(-1)
        nll = nll.masked_scatter(soft, near)
        report = self._accuracy(logits.detach().argmax(-1), batch)
        return (nll * rows.weight).sum() / rows.weight.sum(), report

    def _accuracy(self, guess: Tensor, batch: Packed) -> dict[str, float]:
        """Teacher-forced: share of right first tokens by kind, and the mean coordinate error."""
        rows = batch.replies
        table = {
            (i, r): k
            for k, (i, r) in enumerate(zip(rows.image.tolist(), rows.row.tolist(), strict=True))
        }
        right = (guess == rows.target).tolist()
        tally: dict[str, list[bool]] = {}
        for image, row, tokens in batch.answers:
            at = table.get((image, row))
            if at is not None and tokens.sample.reading:
                tally.setdefault(tokens.sample.kind, []).append(right[at])
        report = {f"acc/{kind}": sum(v) / len(v) for kind, v in tally.items()}
        truth, value = self.coordinates.hundredths(rows.target), self.coordinates.hundredths(guess)
        both = (truth >= 0) & (value >= 0)
        if both.any():
            report["coordinate"] = float((truth - value)[both].abs().float().mean()) / 100
        return report

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Teacher-forced dev metrics by difficulty, on the final diet."""
        report = {}
        diet = replace(CURRICULUM[-1][2], dense=0.0)
        for name in ("easy", "fine", "crowded"):
            scenes = describe(range(self.schedule.dev), name, split="dev", side=self.config.side)
            batch = self.batch(scenes, diet, f"dev-{name}")
            _, scores = self.batch_loss(batch, scenes)
            report.update({f"{name}/{k}": round(v, 4) for k, v in scores.items()})
        return report


def _easy(shares: tuple[tuple[str, float], ...], images: int) -> list[bool]:
    """Which images of a mixture are starter or easy scenes (as `mixture` deals them)."""
    edges, total = [0], 0.0
    for _, share in shares:
        total += share
        edges.append(round(total * images))
    flags: list[bool] = []
    for (name, _), low, high in zip(shares, edges[:-1], edges[1:], strict=True):
        flags += [name in ("starter", "easy")] * (high - low)
    return flags
