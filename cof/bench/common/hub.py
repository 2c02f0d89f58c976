"""From the Hugging Face Hub to the published layouts on disk, which the readers read.

Needs `cof[hub]`, the package `datasets`, and a network; what is kept as the Hub has it
(`_as_it_is`) needs huggingface_hub alone. Image files are written as they are stored, never
re-encoded. Column names are those of the lmms-lab copies.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cof.bench._mmbench_table import COLUMNS
from cof.bench._pope_files import SETTINGS
from cof.bench.common.files import write_jsonl, write_text
from cof.bench.common.rows import inside
from cof.errors import ConfigError, DataError, cut, shown
from cof.files import write_whole

HubRow = Mapping[str, Any]


def fetch_benchmark(name: str, out: Path, repository: str = "", split: str = "") -> Path:
    """Write benchmark `name` below `out`; returns the file or folder that was written.

    Args:
        name: a key of `RECIPES`.
        out: a folder, made where needed.
        repository: a copy with the same columns, or a folder of its files; "" is the usual one.
        split: for benchmarks that have several; "" is the usual one.

    Raises:
        ConfigError: no recipe of that name.
        DataError: `datasets` is not installed, the repository cannot be read, or a split of a
            benchmark that has none to choose.
    """
    if name not in RECIPES:
        raise ConfigError(f"{name}: not on the Hub; there is: {', '.join(RECIPES)}")
    usual, write = RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    return write(repository or usual, out, split)


def read_hub(repository: str, subset: str | None, split: str) -> Iterator[HubRow]:
    """Rows of a dataset, images as {bytes, path}."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{repository}: needs the package datasets: pip install 'cof[hub]'"
        ) from error
    try:
        table = datasets.load_dataset(repository, subset, split=split)
        for column, kind in table.features.items():
            if isinstance(kind, datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
        yield from table
    except (OSError, ValueError) as error:  # datasets raises subclasses of these
        raise DataError(f"{repository}: {str(error).splitlines()[0]}") from error


def _mme(repository: str, out: Path, split: str) -> Path:
    texts: dict[Path, list[str]] = defaultdict(list)
    for row in read_hub(repository, None, split or "test"):
        image = out / inside(row["question_id"], repository)
        _save(image, row["image"])
        side = "questions_answers_YN" if image.parent.name == "images" else ""
        folder = image.parent.parent / side if side else image.parent
        texts[folder / f"{image.stem}.txt"].append(f"{row['question']}\t{row['answer']}\n")
    for file, lines in texts.items():
        write_text(file, "".join(lines))
    return out


def _pope(repository: str, out: Path, split: str) -> Path:
    for setting in SETTINGS:
        rows = []
        for number, row in enumerate(read_hub(repository, "Full", setting), start=1):
            name = f"{Path(row['image_source']).stem}.jpg"
            _save(out / "val2014" / name, row["image"])
            head = {"question_id": number, "image": name}
            rows.append({**head, "text": row["question"], "label": row["answer"]})
        write_jsonl(out / f"coco_pope_{setting}.json", rows)
    return out


def _mmbench(repository: str, out: Path, split: str) -> Path:
    subset, _, part = (split or "en/dev").partition("/")
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, COLUMNS, delimiter="\t", restval="", extrasaction="ignore")
    table.writeheader()
    for row in read_hub(repository, subset, part):
        cells = {key.replace("L2-", "l2-"): value for key, value in row.items()}
        image = base64.b64encode(_bytes(row["image"])).decode()
        table.writerow({**cells, "image": image})
    return write_text(out / f"mmbench_{subset}_{part}.tsv", buffer.getvalue())


def _as_it_is(repository: str, out: Path, split: str) -> Path:
    """Every file of the repository; there are no splits to choose from."""
    if split:
        raise DataError(f"--split {shown(split)}: {repository} is kept as it is; leave --split out")
    return _files(repository, out, None)


def _scienceqa(repository: str, out: Path, split: str) -> Path:
    split = split or "test"
    if not split.isalpha():
        raise DataError(f"--split {shown(split)}: expected train, validation or test")
    return _files(repository, out, f"ScienceQA-IMG/{split}-*")


def _files(repository: str, out: Path, pattern: str | None) -> Path:
    """Files of a repository on the Hub, or all of a folder, below `out`.

    Raises:
        DataError: the Hub cannot be reached or has no such repository, or no such file came.
    """
    folder = Path(repository)
    if folder.is_dir():
        try:
            _copy(folder, out, pattern)
        except OSError as error:  # shutil.Error too
            raise DataError(f"{repository}: cannot be copied to {out} ({error})") from error
    else:
        _download(repository, out, pattern)
    hidden = (".cache", ".gitattributes")  # the Hub's own
    found = (one for one in out.glob(pattern or "*") if one.name not in hidden)
    if not any(found):
        raise DataError(
            f"{repository}: no file {pattern or ''} came to {out}; is it the right one?"
        )
    return out


def _copy(folder: Path, out: Path, pattern: str | None) -> None:
    """Copy a folder's files; nothing where it is `out` itself."""
    if folder.resolve() == out.resolve():
        return
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{out}: lies in {folder}, which would be copied into itself")
    for file in sorted(folder.glob(pattern or "**/*")):
        if file.is_file():
            place = out / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)


def _download(repository: str, out: Path, pattern: str | None) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(f"{repository}: needs huggingface_hub: pip install 'cof[hub]'") from error
    try:
        snapshot_download(repository, repo_type="dataset", local_dir=out, allow_patterns=pattern)
    except (OSError, ValueError, RuntimeError) as error:  # the Hub's errors are subclasses of these
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{repository}: no such folder, and the Hub does not give it: {cut(why[0], 200)}"
        ) from error


def _textvqa(repository: str, out: Path, split: str) -> Path:
    data = []
    for row in read_hub(repository, None, split or "validation"):
        name = inside(f"{row['image_id']}.jpg", repository)
        _save(out / "train_images" / name, row["image"])
        names = ("question_id", "image_id", "question", "answers", "ocr_tokens")
        data.append({name: row[name] for name in names if row.get(name) is not None})
    return write_text(out / "TextVQA_0.5.1_val.json", json.dumps({"data": data}))


def _gqa(repository: str, out: Path, split: str) -> Path:
    split = split or "testdev"
    for row in read_hub(repository, f"{split}_balanced_images", split):
        _save(out / "images" / inside(f"{row['id']}.jpg", repository), row["image"])
    names = ("question", "imageId", "answer", "isBalanced", "types")
    questions = {
        row["id"]: {name: row[name] for name in names if name in row}
        for row in read_hub(repository, f"{split}_balanced_instructions", split)
    }
    return write_text(out / f"{split}_balanced_questions.json", json.dumps(questions))


def _refcoco(repository: str, out: Path, split: str) -> Path:
    from PIL import Image

    split, rows = split or "val", []
    for row in read_hub(repository, None, split):
        named = inside(row["file_name"], repository)
        name = re.sub(r"^(COCO_train2014_\d{12})_\d+", r"\1", named)
        _save(out / "train2014" / name, row["image"])
        with Image.open(io.BytesIO(_bytes(row["image"]))) as image:
            width, height = image.size
        x, y, w, h = row["bbox"]
        box = {"bbox": [x, y, x + w, y + h], "width": width, "height": height}
        rows += [{"image": name, "sent": phrase, **box} for phrase in row["answer"]]
    return write_jsonl(out / f"refcoco_{split}.jsonl", rows)


def _save(file: Path, image: Mapping[str, Any]) -> None:
    """Write an image's own bytes, once."""
    if not file.is_file():
        write_whole(file, _bytes(image))


def _bytes(image: Mapping[str, Any]) -> bytes:
    data: bytes = image["bytes"] or Path(image["path"]).read_bytes()
    return data


RECIPES: Mapping[str, tuple[str, Callable[[str, Path, str], Path]]] = {
    "mme": ("lmms-lab/MME", _mme),
    "pope": ("lmms-lab/POPE", _pope),
    "mmbench": ("lmms-lab/MMBench", _mmbench),
    "vstar": ("craigwu/vstar_bench", _as_it_is),
    "refcoco": ("lmms-lab/RefCOCO", _refcoco),
    "textvqa": ("lmms-lab/textvqa", _textvqa),
    "gqa": ("lmms-lab/GQA", _gqa),
    "hallusionbench": ("lmms-lab/HallusionBench", _as_it_is),
    "mmvp": ("MMVP/MMVP", _as_it_is),
    "hrbench": ("DreamMr/HR-Bench", _as_it_is),
    "seedbench": ("lmms-lab/SEED-Bench", _as_it_is),
    "scienceqa": ("lmms-lab/ScienceQA", _scienceqa),
    "cvbench": ("nyu-visionx/CV-Bench", _as_it_is),
}
"""Benchmark -> the usual repository, and what writes it."""
