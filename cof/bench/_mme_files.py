"""MME's folders and files: the release, its template and result folders, LLaVA's questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cof.bench.common import finding
from cof.bench.common.answers import Given, reworded, with_boxes
from cof.bench.common.containers import Found, Reader
from cof.bench.common.files import read_jsonl, read_lines
from cof.bench.common.rows import Row, inside
from cof.bench.common.tables import Entry
from cof.errors import DataError, cut, shown
from cof.prompts import SHORT_ANSWER
from cof.types import Question

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
SUBTASKS = PERCEPTION + COGNITION
"""In the order of the published scorer, which is the order of summation."""

RELEASE_SUFFIX = " Please answer yes or no."

_IMAGES = (".jpg", ".jpeg", ".png")
_SPLIT = ("posters", "celebrity", "scene", "landmark", "artwork")
_ROOTS = (".", "MME_Benchmark", "MME_Benchmark_release_version")
_TEMPLATES = (".", "Your_Results", "eval_tool/Your_Results")


def ask(original: str) -> str:
    """A release question as LLaVA asks it; a second space before the suffix stays."""
    return original.removesuffix(RELEASE_SUFFIX) + SHORT_ANSWER


def key(subtask: str, image: str, text: str) -> tuple[str, str, str]:
    """How answers are matched: subtask, stem, and the question without either suffix."""
    bare = text.replace(SHORT_ANSWER.strip(), "").replace(RELEASE_SUFFIX.strip(), "")
    return subtask, PurePosixPath(image).stem, bare.strip()


def row_key(row: Row, name: str) -> tuple[str, str, str]:
    """The key of a row of LLaVA's files, whose question_id is the path in the release."""
    path = row.text("question_id")
    return key(PurePosixPath(path).parts[0] if path else "", path, row.text(name))


def release_path(question: Question) -> str:
    """The image's path in the release: from its subtask on."""
    parts = PurePosixPath(question.image).parts
    return "/".join(parts[parts.index(question.category) :])


def release_root(root: Path) -> Path | None:
    """The folder that holds the subtasks, `root` or a known level below it; None without one."""
    places = [root / a / b for a in _ROOTS for b in _ROOTS]
    return next((one for one in places if any((one / name).is_dir() for name in SUBTASKS)), None)


def tables(root: str) -> list[Path]:
    """The parquet files or the TSV that hold MME.

    Raises:
        DataError: neither, nor a release, which the caller has looked for.
    """
    looked = f"subtask folders ({', '.join(SUBTASKS[:4])}, ...), *.parquet, MME.tsv"
    return finding.tables("mme", root, looked, [r"(^|/)test$", "."])


def from_rows(rows: Iterable[Entry], config: Any) -> Iterator[Found]:
    """The questions of a table in the release's order, whatever its own.

    The path in the release is the `question_id` of lmms-lab, the `image_path` of VLMEvalKit; a
    copy that leaves out the `images/` of the subtasks that have such a folder gets it.
    """
    pictures: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for row in rows:
        path = inside(row.text("question_id", "image_path"), row.where)
        subtask, *rest = PurePosixPath(path).parts
        if subtask not in SUBTASKS or not rest:
            raise DataError(f"{row.where}: {shown(path)} is no path in the release of MME")
        within = f"images/{rest[0]}" if subtask in _SPLIT and len(rest) == 1 else "/".join(rest)
        pictures[SUBTASKS.index(subtask), within].append(row)
    for (place, path), asked in sorted(pictures.items(), key=lambda one: (one[0][0], _stem(one))):
        if len(asked) % 2:
            raise DataError(f"{asked[0].where}: {len(asked)} questions; {_TWO}")
        for number, row in enumerate(asked, start=1):
            yield _question(SUBTASKS[place], path, number, row), row.picture


READER = Reader("mme", from_rows, ("question_id|image_path", "question", "answer", "category"))


def _stem(item: tuple[tuple[int, str], object]) -> str:
    return PurePosixPath(item[0][1]).stem


def _question(subtask: str, path: str, number: int, row: Entry) -> Question:
    truth = row.text("answer").strip()
    if truth.lower() not in ("yes", "no"):
        raise DataError(f"{row.where}: answer {shown(truth)}, expected Yes or No")
    return Question(
        id=f"{subtask}/{PurePosixPath(path).name}#{number}",
        image=f"{subtask}/{path}",
        text=ask(row.row.asked("question")),
        category=subtask,
        reference=truth,
    )


_TWO = "MME asks two (yes and no) of an image"


def ground_truth(root: str) -> list[Question]:
    """Questions to score against: of the template folder, a release without its images, a table."""
    for place in (Path(root) / name for name in _TEMPLATES):
        if any((place / f"{name}.txt").is_file() for name in SUBTASKS):
            return list(_template(place))
    folder = release_root(Path(root))
    if folder is None:
        return [question for question, _ in from_rows(READER.rows(tables(root)), None)]
    return list(release(folder, Path(root), strict=False))


def release(folder: Path, root: Path, strict: bool) -> Iterator[Question]:
    """Questions of every subtask folder present; `strict` wants each text's image, and back."""
    for subtask in SUBTASKS:
        if not (folder / subtask).is_dir():
            continue
        texts, images = _files(folder / subtask, strict)
        for stem in sorted(texts):
            image = images.get(stem, texts[stem])
            for number, (text, truth) in enumerate(_pair_lines(texts[stem]), start=1):
                yield Question(
                    id=f"{subtask}/{image.name}#{number}",
                    image=image.relative_to(root).as_posix(),
                    text=ask(text),
                    category=subtask,
                    reference=truth,
                )


def _files(folder: Path, strict: bool) -> tuple[dict[str, Path], dict[str, Path]]:
    """Texts and images of a subtask by stem, from either shape of folder."""
    split = [folder / "questions_answers_YN", folder / "images"]
    sides = [side if any(part.is_dir() for part in split) else folder for side in split]
    texts = _by_stem(sides[0], (".txt",))
    images = _by_stem(sides[1], _IMAGES) if sides[1].is_dir() else {}
    if strict:
        for stem in sorted(texts.keys() ^ images.keys()):
            found = texts.get(stem) or images[stem]
            raise DataError(f"{found}: has no {'image' if stem in texts else 'text'} beside it")
    if not texts:
        raise DataError(f"{folder}: no questions, expected one .txt an image")
    return texts, images


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files with one of the suffixes by stem; hidden files are nobody's."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            if file.stem in found:
                raise DataError(f"{file}: {found[file.stem].name} has the same stem")
            found[file.stem] = file
    return found


def _pair_lines(file: Path) -> list[tuple[str, str]]:
    """(question, Yes|No) of one image's text."""
    rows = []
    for line, where in read_lines(file):
        text, *truth = line.split("\t")
        if len(truth) != 1 or truth[0].strip().lower() not in ("yes", "no"):
            raise DataError(f"{where}: {shown(line)} is not question TAB Yes|No")
        rows.append((text, truth[0].strip()))
    if not rows or len(rows) % 2:
        raise DataError(f"{file}: {len(rows)} questions; {_TWO}")
    return rows


def _columns(file: Path, counts: tuple[int, ...]) -> list[tuple[list[str], str]]:
    """TAB-separated lines with the third column Yes|No, each with its file:line."""
    rows = []
    for line, where in read_lines(file):
        fields = line.split("\t")
        if len(fields) not in counts:
            wanted = "image, question, Yes|No" + (", answer" if 4 in counts else "")
            raise DataError(f"{where}: {len(fields)} TAB-separated fields, expected {wanted}")
        if fields[2].strip().lower() not in ("yes", "no"):
            raise DataError(f"{where}: ground truth {shown(fields[2])}, expected Yes or No")
        rows.append((fields, where))
    if len(rows) % 2:
        raise DataError(f"{file}: {len(rows)} lines; MME has two an image")
    return rows


def _template(folder: Path) -> Iterator[Question]:
    """Questions of the official template: image, question, Yes|No (a fourth field is ignored)."""
    for subtask in SUBTASKS:
        file = folder / f"{subtask}.txt"
        asked: dict[str, int] = defaultdict(int)
        for (name, text, truth, *_), _where in _columns(file, (3, 4)) if file.is_file() else []:
            asked[name] += 1
            yield Question(
                id=f"{subtask}/{name}#{asked[name]}",
                image=f"{subtask}/{name}",
                text=ask(text),
                category=subtask,
                reference=truth.strip(),
            )


def result_folder(folder: Path) -> list[tuple[Question, str, str]]:
    """(question, answer, file:line) of every line; lines 2k and 2k+1 are a pair."""
    rows = []
    for subtask in SUBTASKS:
        file = folder / f"{subtask}.txt"
        lines = _columns(file, (4,)) if file.is_file() else []
        for number, ((name, text, truth, answer), where) in enumerate(lines):
            question = Question(
                id=f"{subtask}/{number // 2 + 1}#{number % 2 + 1}",
                image=f"{subtask}/{name}",
                text=ask(text),
                category=subtask,
                reference=truth.strip(),
            )
            rows.append((question, answer, where))
    if not rows:
        raise DataError(f"{folder}: no result files ({SUBTASKS[0]}.txt, {SUBTASKS[1]}.txt, ...)")
    return rows


def with_regions(questions: Sequence[Question], root: Path) -> list[Question]:
    """The release's questions with the boxes of a regions.jsonl (image, question as released)."""
    keys = [key(question.category, question.image, question.text) for question in questions]
    return with_boxes(questions, root, keys, _region_key)


def _region_key(row: Row) -> tuple[str, str, str]:
    path = PurePosixPath(row.inside("image"))
    return key(path.parts[0], path.name, row.text("question"))


def as_llava(file: Path, questions: Sequence[Question]) -> list[Question]:
    """The questions of a llava_mme.jsonl, in its order, with the release's ids and answers.

    Raises:
        DataError: as `reworded`; one of an image's two questions without the other.
    """
    keys = [key(question.category, question.image, question.text) for question in questions]
    rows = read_jsonl(file)
    asked = [Given(row_key(row, "text"), row.text("text"), row.where) for row in rows]
    found = reworded(questions, keys, asked)
    counts = Counter((question.category, question.image) for question in found)
    for (_, image), count in counts.items():
        if count % 2:
            raise DataError(
                f"{file}: {count} questions about {cut(image)}; MME asks two (yes and no)"
            )
    return found
