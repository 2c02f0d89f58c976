"""`lmms-eval --model cof`: lmms-eval's questions through both stages."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api import instance
from lmms_eval.api.model import lmms
from loguru import logger

from cof.errors import AnswerError, ConfigError
from cof.harness.arguments import read_arguments
from cof.harness.lmms_eval import requests as read
from cof.harness.session import Asked, Session


class CofModel(lmms):  # type: ignore[misc]
    """CoF as one of lmms-eval's models; simple requests, one picture each.

    Args:
        batch_size: lmms-eval's: a number, or `auto`.
        device: lmms-eval's, `model.device` of a config; None is `auto`.
        max_batch_size: lmms-eval's bound of `auto`; ours is the memory there is.
        strict: stop at the first question that fails; otherwise its answer is "", and counted.
        given: of `--model_args`, see `cof.harness.arguments`. Records go to `<out>/<name>`; by
            default beside lmms-eval's own output, in a folder with the date.
    """

    is_simple = True

    def __init__(
        self,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        strict: bool = False,
        **given: Any,
    ) -> None:
        super().__init__()
        options = {**given, "batch_size": _batch_size(batch_size)}
        config = read_arguments({**options, "device": device} if device else options)
        if "out" not in given:
            config = config.with_({"out": _output_path() or config.general.out})
        self.accelerator = Accelerator(cpu=config.model.device == "cpu")
        self._rank, self._world_size = (
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        [name] = _agreed([config.general.name or time.strftime("cof-records-%Y%m%d-%H%M%S")])
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        self.session = Session(config, Path(config.general.out) / name, command, strict)
        self.batch_size = config.general.batch_size
        self._told: set[str] = set()

    @property
    def device(self) -> Any:
        """Where lmms-eval's own counts of requests go."""
        return self.accelerator.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer a request, in their order; "" for a question that failed.

        Raises:
            ConfigError: sampling; DataError: not one picture.
        """
        default = self.session.config.limits
        ways = [read.decoding(one.args[1], default) for one in requests]
        asked = [self._asked(one, way) for one, way in zip(requests, ways, strict=True)]
        unique = {read.key(one): one for one in asked}
        results = dict(zip(unique, self.session.ask(list(unique.values())), strict=True))
        said = []
        for request, one, way in zip(requests, asked, ways, strict=True):
            result = results[read.key(one)]
            self._warn(f"{one.id}: {result.error}" if result.error else "")
            full = result.cof.text if result.cof else ""
            said.append(way.cut(full))
            self.session.notes["answers cut at `until`"] += said[-1] != full
            self.cache_hook.add_partial("generate_until", request.args[:2], said[-1])
        return said

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Of each continuation (mean loss, whether it is the answer that would be given).

        The loss is in nats a token, end of reply included, under the highlight: lmms-eval takes the
        lowest, as of its own LLaVA.

        Raises:
            AnswerError: a question failed: of losses that are all the same the first would win.
        """
        documents, default = self.task_dict, self.session.config.limits
        extra = {"asks": "loglikelihood"}
        asked = [read.question(one.args, documents, default, extra) for one in requests]
        texts = [read.continuation(one.args, documents).strip() for one in requests]
        groups: dict[str, list[int]] = {}
        for row, one in enumerate(asked):
            groups.setdefault(read.key(one), []).append(row)
        found: dict[int, Any] = {}
        for rows in groups.values():
            result, weighed = self.session.weigh(asked[rows[0]], [texts[row] for row in rows])
            said = result.cof.text if result.cof else None
            for row, answer in zip(rows, weighed, strict=True):
                if answer.error:
                    raise AnswerError(f"{asked[row].id}: {answer.error}")
                loss = -sum(answer.logprobs) / len(answer.logprobs)
                found[row] = _pair(loss, texts[row] == said)
        return [found[row] for row in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("CoF answers one question about one picture: no tasks of several rounds")

    def clean(self) -> None:
        """lmms-eval has all answers: write what was noted."""
        logger.info(f"CoF: {self.session.close()}")
        super().clean()

    def _asked(self, request: Any, way: read.Decoding) -> Asked:
        for one in way.ignored:
            self._warn(f"task {request.args[4]}: gen_kwargs {one} is not known here, and ignored")
            self.session.notes[f"requests with gen_kwargs {one}, ignored"] += 1
        return read.question(request.args, self.task_dict, way.limits, {"until": list(way.until)})

    def _warn(self, text: str) -> None:
        """Once, however often it is found."""
        if text and text not in self._told:
            self._told.add(text)
            logger.warning(f"CoF: {text}")


def _pair(loss: float, greedy: bool) -> Any:
    """As this lmms-eval takes it: 0.7 makes a text of a bare pair, but opens its own type."""
    wrapped = getattr(instance, "GenerationResult", None)
    return (loss, greedy) if wrapped is None else wrapped((loss, greedy))


def _batch_size(given: int | str) -> int | str:
    """lmms-eval's `auto:N` is our `auto`.

    Raises:
        ConfigError: neither a number nor `auto`.
    """
    text = str(given)
    if text.partition(":")[0] == "auto":
        return "auto"
    if not text.isdecimal():
        raise ConfigError(f"batch_size={text}: needs a number, or auto")
    return int(text)


def _output_path() -> str | None:
    """`--output_path` of the command line: lmms-eval does not tell its models."""
    words = sys.argv[1:]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--output_path":
            return value if equals else after
    return None


def _agreed(names: list[str]) -> list[str]:
    """Those of the first process, in every process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(names)
    return names
