"""CoF in VLMEvalKit, without changing it: this registers the model `cof`, then runs its run.py.

    python examples/vlmevalkit.py VLMEVALKIT pretrained=cof-tiny weight=4.5 --data MME POPE

VLMEVALKIT is its checkout; KEY=VALUE as in `cof.harness.arguments`; all from the first `--` on is
run.py's. Yes-no questions are asked as LLaVA-1.5 is: with its suffix, not "Please answer yes or
no." Records go to `<out>/<name>`, by default beside its own output. Under torchrun give a `name=`.
"""

import argparse
import atexit
import contextlib
import os
import runpy
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from cof.errors import AnswerError, ConfigError, DataError
from cof.harness.arguments import read_arguments
from cof.harness.session import Asked, Session
from cof.images import load_image
from cof.prompts import SHORT_ANSWER
from cof.store.launch import Ranks

LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def make_class() -> type:
    """The model as VLMEvalKit has models; it can be imported by now."""
    from vlmeval.dataset import DATASET_TYPE
    from vlmeval.vlm.base import BaseModel

    class Cof(BaseModel):
        """One picture, one question, one answer."""

        INTERLEAVE = False

        def __init__(self, session: Session) -> None:
            super().__init__()
            self.session = session

        def use_custom_prompt(self, dataset: str) -> bool:
            """Yes-no questions get LLaVA's suffix."""
            return DATASET_TYPE(dataset) == "Y/N"

        def build_prompt(self, line: Any, dataset: str) -> list[dict[str, str]]:
            """The picture and the question of a row of a yes-no benchmark."""
            images = self.dump_image(line, dataset)
            asked = line["question"].strip().removesuffix("Please answer yes or no.").strip()
            pictures = [{"type": "image", "value": path} for path in images]
            return [*pictures, {"type": "text", "value": asked + SHORT_ANSWER}]

        def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
            """Answer, and record.

            Raises:
                DataError: not one picture.
                AnswerError: the question failed; an empty answer would be scored.
            """
            return answer(self.session, message, dataset or "")

    return Cof


def answer(session: Session, message: list[dict[str, str]], dataset: str) -> str:
    """See `generate_inner`."""
    parts = {kind: [one["value"] for one in message if one["type"] == kind] for kind in KINDS}
    if len(parts["image"]) != 1 or len(message) != sum(map(len, parts.values())):
        kinds = ", ".join(one["type"] for one in message)
        raise DataError(f"{dataset}: CoF asks about one picture; this message has {kinds}")
    [path], text = parts["image"], "\n".join(parts["text"])
    read = partial(load_image, path, exif="ignore")
    file = "/".join(Path(path).parts[-2:])  # MME's names are unique within a category
    extra = {"task": dataset, "file": file}
    asked = Asked(f"{dataset}/{file}", text, read, session.config.limits, extra)
    [result] = session.ask([asked], shown=False)
    if result.cof is None:
        raise AnswerError(f"{asked.id}: {result.error}")
    return result.cof.text


KINDS = ("image", "text")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Each process loads a model of its own: VLMEvalKit gives it its GPUs, and deals the rows."""
    kept = {name: os.environ.pop(name) for name in LAUNCH if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def builder(options: dict[str, str], theirs: list[str]) -> Callable[..., Any]:
    """What VLMEvalKit calls for the model: built once, it calls again after a failed benchmark."""
    config, ranks = read_arguments(options), Ranks.here()
    if ranks.size > 1 and not config.general.name:
        raise ConfigError("several processes: give the folder of the records a name=")
    name = config.general.name or time.strftime("cof-records-%Y%m%d-%H%M%S")
    records, command = Path(options.get("out", work_dir(theirs))) / name, shlex.join(sys.argv)

    @cache
    def build() -> Any:
        with alone():
            session = Session(config, records, command, ranks=ranks)
        atexit.register(lambda: print(f"CoF: {session.close()}"))
        return make_class()(session)

    return lambda **_: build()


def work_dir(theirs: list[str]) -> str:
    """Where VLMEvalKit writes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work-dir", default="./outputs")
    return os.environ.get("MMEVAL_ROOT") or parser.parse_known_args(theirs)[0].work_dir


def with_model(theirs: list[str]) -> list[str]:
    """Its command line, which names the model by itself or in a `--config`."""
    given = {word.partition("=")[0] for word in theirs}
    return theirs if given & {"--model", "--config"} else [*theirs, "--model", "cof"]


def main() -> None:
    """Read the command line, register, run."""
    words = sys.argv[1:]
    split = next((row for row, word in enumerate(words) if word.startswith("--")), len(words))
    if not split or not (Path(words[0]) / "run.py").is_file():
        raise SystemExit(f"{__doc__}\nno run.py in {words[0] if split else 'nothing'}")
    folder, theirs = Path(words[0]).resolve(), words[split:]
    build = builder(dict(word.partition("=")[::2] for word in words[1:split]), theirs)
    sys.path[0] = str(folder)  # as `python run.py` has it
    from vlmeval.config import supported_VLM

    supported_VLM["cof"] = build
    sys.argv = [str(folder / "run.py"), *with_model(theirs)]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
