"""MiniPOPE: is this thing there? Three label files that differ in where absent things come from.

The yes questions are the same in all three, as in POPE: absent names are drawn at random, from
the names most frequent in the whole set, or by recombining what is in the picture.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from cof.bench.pope import SETTINGS
from cof_lab import wording
from cof_lab.mini.common import MiniConfig, Picture, pictures, write_lines
from cof_lab.world import COLORS, SHAPES

PART = 10
EACH = 3  # present and absent names an image
ASKED = wording.TEMPLATES["existence"][1]  # POPE's words


def write(folder: Path, config: MiniConfig) -> int:
    """Write coco_pope_<setting>.json (JSON lines), val2014/*.jpg and regions.jsonl."""
    source = pictures(config, PART)
    chosen: list[Picture] = []
    while len(chosen) < config.size:
        picture = next(source)
        if len(picture.things) >= EACH:
            chosen.append(picture)
    names = [image_name(k) for k in range(len(chosen))]
    for picture, name in zip(chosen, names, strict=True):
        picture.save(folder / "val2014" / name)
    regions: dict[tuple[str, str], dict[str, Any]] = {}
    for setting in SETTINGS:
        rows = _rows(chosen, names, setting, config.seed, regions)
        write_lines(folder / f"coco_pope_{setting}.json", rows)
    write_lines(folder / "regions.jsonl", list(regions.values()))
    return 3 * 2 * EACH * len(chosen)


def image_name(number: int) -> str:
    """A file name in COCO's form."""
    return f"COCO_val2014_{number + 1:012d}.jpg"


def _rows(
    chosen: list[Picture],
    names: list[str],
    setting: str,
    seed: int,
    regions: dict[tuple[str, str], dict[str, Any]],
) -> list[dict[str, Any]]:
    popular = Counter(thing.name for picture in chosen for thing in picture.things)
    rows: list[dict[str, Any]] = []
    for picture, image in zip(chosen, names, strict=True):
        index = range(len(picture.things))
        present = Random(f"{seed}-{picture.index}").sample(index, EACH)
        absent = _absent(picture, setting, popular, Random(f"{seed}-{setting}-{picture.index}"))
        for k, name in zip(present, absent, strict=True):
            for noun, label, region in ((picture.things[k].name, "yes", [k]), (name, "no", [])):
                text = ASKED.format(an=wording.article(noun), a=noun)
                row = {"image": image, "text": text, "label": label}
                rows.append({"question_id": len(rows) + 1, **row})
                boxes = picture.boxes(region)
                regions[image, text] = {
                    "image": f"val2014/{image}",
                    "question": text,
                    "answer": label.capitalize(),
                    "boxes": boxes,
                    "scene": picture.index,
                }
    return rows


def _absent(picture: Picture, setting: str, popular: Counter[str], random: Random) -> list[str]:
    """Three names of things that are not in the picture."""
    there = {thing.name for thing in picture.things}
    everything = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in there]
    random.shuffle(everything)
    if setting == "popular":
        everything.sort(key=lambda name: -popular[name])
    if setting == "adversarial":  # both halves of the name seen here, then one of them
        words = {word for name in there for word in name.split()}
        everything.sort(key=lambda name: -sum(word in words for word in name.split()))
    return everything[:EACH]
