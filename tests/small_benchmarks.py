"""A few made-up questions in the containers of benchmarks that have no mini twin.

`write(name, kind, folder)` writes one and returns what `bench.root` is; kinds are `KINDS[name]`.
"""

import csv
import io
import json

import tables
from PIL import Image

KINDS = {
    "hallusionbench": ("release", "parquet", "tsv"),
    "mmvp": ("release", "parquet", "tsv"),
    "hrbench": ("tsv", "parquet"),
    "seedbench": ("release", "parquet", "tsv"),
    "scienceqa": ("release", "parquet", "tsv"),
    "cvbench": ("parquet",),
}


def picture(number):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (20 * number % 256, 90, 7 * number % 256)).save(buffer, "PNG")
    return buffer.getvalue()


def save(file, number):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(number))


def dump(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


# --- HallusionBench: (category, subcategory, set, figure, question, right answer) ---

HALLUSION = [
    *(("VD", "figure", 0, 0, 0, 1), ("VD", "figure", 0, 1, 0, 0)),
    *(("VD", "figure", 0, 0, 1, 1), ("VD", "figure", 0, 1, 1, 1)),
    *(("VS", "chart", 0, 1, 0, 0), ("VS", "chart", 0, 2, 0, 1)),
]


def hallusionbench(kind, folder):
    rows = []
    for number, (kind_, subject, subset, figure, asked, truth) in enumerate(HALLUSION):
        rows.append(
            {
                **{"category": kind_, "subcategory": subject, "visual_input": "1"},
                **{"set_id": str(subset), "figure_id": str(figure), "question_id": str(asked)},
                **{"question": f"Is it {asked}?", "gt_answer": str(truth), "number": number},
                "filename": f"./hallusion_bench/{kind_}/{subject}/{subset}_{figure}.png",
            }
        )
    figures = {row["filename"]: row["number"] for row in reversed(rows)}
    if kind == "release":
        for name, number in figures.items():
            save(folder / name, number)
        bare = {**rows[4], "visual_input": "0", "figure_id": "0", "filename": None}
        dump(folder / "HallusionBench.json", [*rows, bare])
        return folder
    for row in rows:
        row["image"] = picture(figures[row["filename"]])
    if kind == "parquet":
        tables.write_parquet(folder / "data/image-00000-of-00001.parquet", rows)
        tables.write_parquet(folder / "data/non_image-00000-of-00001.parquet", rows[:1])
        return folder
    names = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
    tabled = [
        {
            **{"index": "_".join(row[name] for name in names), "question": row["question"]},
            **{"answer": ("No", "Yes")[int(row["gt_answer"])], "image": row["image"]},
        }
        for row in rows
    ]
    return tables.write_tsv(folder / "HallusionBench.tsv", tabled)


# --- MMVP: (question, options, right letter) ---

MMVP = [
    *(("Which way?", ("Left", "Right"), "A"), ("Which way?", ("Left", "Right"), "B")),
    *(("How many (whole)?", ("One", "Two"), "B"), ("How many (whole)?", ("One", "Two"), "A")),
]


def mmvp(kind, folder):
    released = [
        {
            **{"Index": number, "Question": text, "Options": f"(a) {options[0]} (b) {options[1]}"},
            **{"Correct Answer": f"({letter.lower()})"},
        }
        for number, (text, options, letter) in enumerate(MMVP, start=1)
    ]
    if kind == "release":
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(released[0]))
            table.writeheader()
            table.writerows(released)
        for number in range(1, 5):
            save(folder / "MMVP Images" / f"{number}.jpg", number)
        return folder
    if kind == "parquet":
        rows = [{**row, "image": picture(row["Index"])} for row in released]
        return tables.write_parquet(folder / "data/test-00000-of-00001.parquet", rows)
    rows = [
        {"question": text, "A": a, "B": b, "answer": letter, "image": picture(number)}
        for number, (text, (a, b), letter) in enumerate(MMVP, start=1)
    ]
    return tables.write_tsv(folder / "MMVP.tsv", rows)


# --- HR-Bench: each question four times, its options permuted ---


def hrbench(kind, folder):
    rows = []
    for base, category in enumerate(("single", "cross")):
        options = ["red", "green", "blue", "grey"]
        for turn in range(4):
            turned = options[turn:] + options[:turn]
            rows.append(
                {
                    **{"index": len(rows), "question": "What colour?", "category": category},
                    **dict(zip("ABCD", turned, strict=True)),
                    **{"answer": "ABCD"[turned.index("green")], "cycle_category": f"cycle_{turn}"},
                    "image": picture(base),
                }
            )
    if kind == "tsv":
        return tables.write_tsv(folder / "hr_bench_4k.tsv", rows).parent
    return tables.write_parquet(folder / "hr_bench_4k.parquet", rows).parent


# --- SEED-Bench ---


def seedbench(kind, folder):
    rows = [
        {
            **{"question_id": str(100 + number), "question": "What?", "answer": letter},
            **{"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four"},
            **{"data_type": sort, "data_id": f"{number}.jpg", "question_type_id": place},
        }
        for number, (letter, sort, place) in enumerate(
            [("A", "image", 1), ("B", "image", 1), ("C", "video", 10), ("D", "image", 5)]
        )
    ]
    if kind == "release":
        dump(folder / "SEED-Bench.json", {"questions": rows, "question_type": {}})
        for number in (0, 1, 3):
            save(folder / "SEED-Bench-image" / f"{number}.jpg", number)
        return folder
    if kind == "tsv":
        tabled = [
            {
                **{"question": "What?", "answer": row["answer"], "category": "Spatial Relation"},
                **{letter: row[f"choice_{letter.lower()}"] for letter in "ABCD"},
                "image": picture(number),
            }
            for number, row in enumerate(rows)
            if row["data_type"] == "image"
        ]
        return tables.write_tsv(folder / "SEEDBench_IMG.tsv", tabled)
    packed = [{**row, "image": picture(number)} for number, row in enumerate(rows)]
    return tables.write_parquet(folder / "data/test-00000-of-00001.parquet", packed)


# --- ScienceQA ---

SCIENCE = {
    "3": {"image": "image.png", "hint": "Read it.", "answer": 1, "subject": "natural science"},
    "7": {"image": None, "hint": "", "answer": 0, "subject": "natural science"},
    "9": {"image": "image.png", "hint": "", "answer": 2, "subject": "social science"},
}


def scienceqa(kind, folder):
    problems = {
        name: {"question": f"Which {name}?", "choices": ["one", "two", "three"], **one}
        for name, one in SCIENCE.items()
    }
    if kind == "release":
        dump(folder / "problems.json", problems)
        dump(folder / "pid_splits.json", {"train": [], "test": list(problems)})
        for name in ("3", "9"):
            save(folder / "images" / "test" / name / "image.png", int(name))
        return folder
    rows = [
        {**one, "image": picture(int(name)) if one["image"] else None}
        for name, one in problems.items()
    ]
    if kind == "parquet":
        place = folder / "ScienceQA-IMG/test-00000-of-00001.parquet"
        tables.write_parquet(place, [row for row in rows if row["image"]])
        tables.write_parquet(folder / "ScienceQA-FULL/test-00000-of-00001.parquet", rows)
        return folder
    tabled = [
        {
            **{"question": row["question"], "hint": row["hint"], "image": row["image"]},
            **dict(zip("ABC", row["choices"], strict=True)),
            **{"answer": "ABC"[row["answer"]], "category": row["subject"]},
        }
        for row in rows
        if row["image"]
    ]
    return tables.write_tsv(folder / "ScienceQA_TEST.tsv", tabled)


# --- CV-Bench ---

CV = [
    *(("2D", "Count", "ADE20K", "(A)"), ("2D", "Count", "ADE20K", "(B)")),
    *(("2D", "Relation", "COCO", "(C)"),),
    *(("3D", "Depth", "Omni3D", "(A)"), ("3D", "Distance", "Omni3D", "(B)")),
]


def cvbench(kind, folder):
    rows = [
        {
            **{"idx": number, "type": sort, "task": task, "source": source, "answer": answer},
            **{"question": "How many?", "choices": ["0", "1", "2"], "image": picture(number)},
            **{"filename": f"img/{sort}/{number}.png"},
        }
        for number, (sort, task, source, answer) in enumerate(CV)
    ]
    for sort in ("2D", "3D"):
        some = [row for row in rows if row["type"] == sort]
        tables.write_parquet(folder / f"test_{sort.lower()}.parquet", some)
    return folder


def write(name, kind, folder):
    return globals()[name](kind, folder)
