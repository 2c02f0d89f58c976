"""Benchmarks put into the tables of others: parquet as on the Hub, TSV as VLMEvalKit has them."""

import base64
import csv
from pathlib import Path


def write_parquet(path, rows, picture="image"):
    """Rows with a picture's bytes under `picture`, in row groups of three."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [
        {**row, picture: row[picture] and {"bytes": row[picture], "path": None}}
        if picture in row
        else row
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), path, row_group_size=3)
    return path


def write_tsv(path, rows):
    """Rows with a picture's bytes under `image`; one that was there before is named by its row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(["index", *(key for row in rows for key in row)]))
        table = csv.DictWriter(file, columns, delimiter="\t", restval="")
        table.writeheader()
        for number, row in enumerate(rows):
            row = {"index": number, **row}
            owner = seen.setdefault(row["image"], row["index"]) if row.get("image") else None
            cell = base64.b64encode(row.get("image") or b"").decode()
            table.writerow(row | {"image": owner if owner not in (None, row["index"]) else cell})
    return path


def mme_rows(root, questions):
    """As lmms-lab has them, in another order than the release's."""
    for question in sorted(questions, key=lambda one: (one.category, one.id), reverse=False):
        text = question.text.partition("\n")[0] + " Please answer yes or no."
        yield {
            **{"question_id": question.image, "image": (root / question.image).read_bytes()},
            **{"question": text, "answer": question.reference, "category": question.category},
        }


def pope_rows(root, questions):
    for question in questions:
        yield {
            **{"question": question.text.partition("\n")[0], "answer": question.reference},
            **{"image_source": Path(question.image).stem, "category": question.category},
            "question_id": question.id.rpartition("/")[2],
            "image": (root / question.image).read_bytes(),
        }


def mmbench_rows(file):
    """Of a TSV, whose image cells hold the images."""
    with file.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened, delimiter="\t"):
            cells = {key: value or None for key, value in row.items()}
            cells["L2-category"] = cells.pop("l2-category")
            yield cells | {"index": int(row["index"]), "image": base64.b64decode(row["image"])}
