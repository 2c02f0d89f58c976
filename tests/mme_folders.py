"""Small MME folders for tests: made-up questions in the shapes of the release."""

import json
import random

SUFFIX = " Please answer yes or no."
LLAVA = "\nAnswer the question using a single word or phrase."
SPLIT = ("artwork", "celebrity", "landmark", "posters", "scene")
PERCEPTION = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
]
COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]
ODD_ENDINGS = ("?", "? ", "", "？")


def make(root, images=4, subtasks=(*PERCEPTION, *COGNITION), with_images=True):
    """Write a release; returns {(subtask, image path, question): truth} in release order."""
    truths = {}
    for subtask in subtasks:
        suffix = ".png" if subtask in COGNITION else ".jpg"
        texts = pictures = root / subtask
        if subtask in SPLIT:
            texts, pictures = root / subtask / "questions_answers_YN", root / subtask / "images"
        for number in range(1, images + 1):
            texts.mkdir(parents=True, exist_ok=True)
            if with_images:
                pictures.mkdir(parents=True, exist_ok=True)
                (pictures / f"{number:04d}{suffix}").write_bytes(b"image")
            path = f"{subtask}/{'images/' if subtask in SPLIT else ''}{number:04d}{suffix}"
            ending = ODD_ENDINGS[number % len(ODD_ENDINGS)]
            asked = {
                f"Is {subtask} {number} so{ending}{SUFFIX}": "Yes",
                f"Is {subtask} {number} not so{ending}{SUFFIX}": "No",
            }
            tail = "\n\n" if number % 2 else ""
            lines = "\n".join(f"{text}\t{truth}" for text, truth in asked.items()) + tail
            (texts / f"{number:04d}.txt").write_text(lines, encoding="utf-8")
            truths |= {(subtask, path, text): truth for text, truth in asked.items()}
    return truths


def prompt(text):
    """A release question as LLaVA's file has it."""
    return text.replace(SUFFIX, "") + LLAVA


def make_template(folder, truths):
    """The official Your_Results folder: image, question, truth; no answer."""
    folder.mkdir(parents=True)
    for (subtask, path, text), truth in truths.items():
        with (folder / f"{subtask}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{path.split('/')[-1]}\t{text}\t{truth}\n")


def answers(truths, seed=0):
    """LLaVA's answer rows with right, wrong, wordy and useless answers."""
    rng = random.Random(seed)
    words = [
        "Yes",
        "No",
        "no, it is not",
        "not sure",
        "eyes",
        "  yes",
        "Religious",
        "",
        "YES.",
        "n",
    ]
    return [
        {
            "question_id": path,
            "prompt": prompt(text),
            "text": truth if rng.random() < 0.6 else rng.choice(words),
            "answer_id": f"random{rng.random()}",
            "model_id": "m",
            "metadata": {},
        }
        for (_, path, text), truth in truths.items()
    ]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
