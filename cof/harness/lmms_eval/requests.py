"""lmms-eval's requests -> questions; what cannot be done is an error, or noted.

A request's arguments are (context, gen_kwargs, doc_to_visual, doc_id, task, split); of a
likelihood the continuation, or a function of the document, stands in the place of gen_kwargs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from cof.errors import ConfigError, DataError, shown
from cof.harness.session import NO_SAMPLING, Asked
from cof.images import to_rgb
from cof.models.base import Limits
from cof.prompts import IMAGE

_LIMITS = ("max_new_tokens", "num_beams")
_GREEDY = ("do_sample", "temperature", "top_p", "top_k")
"""Without effect on a greedy answer."""

PARTS = 6
"""Arguments of a request about a document."""

Documents = Mapping[str, Any]
"""lmms-eval's `task_dict`: task -> split -> documents."""


@dataclass(frozen=True)
class Decoding:
    """What a task's `gen_kwargs` come to.

    Attributes:
        limits: how the answer is decoded.
        until: texts that end it; it is cut before the first of them.
        ignored: what is not known here, as `key=value`.
    """

    limits: Limits
    until: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def cut(self, text: str) -> str:
        """An answer up to the first text of `until`."""
        ends = [place for one in self.until if (place := text.find(one)) >= 0]
        return text[: min(ends)] if ends else text


def decoding(given: Mapping[str, Any] | None, default: Limits) -> Decoding:
    """Read `gen_kwargs`; what they leave open is as in `default`.

    Raises:
        ConfigError: sampling, or a value that cannot be.
    """
    kwargs = dict(given or {})
    temperature = kwargs.get("temperature")
    sampled = kwargs.get("do_sample", bool(temperature)) and temperature != 0
    if sampled:
        said = f"do_sample={kwargs.get('do_sample')}, temperature={temperature}"
        raise ConfigError(f"gen_kwargs: {said}: {NO_SAMPLING}")
    until = kwargs.pop("until", None) or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    limits = {key: kwargs.pop(key) for key in _LIMITS if kwargs.get(key) is not None}
    try:
        read = replace(default, **{key: int(value) for key, value in limits.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"gen_kwargs: {shown(limits)}: {error}") from error
    known = (*_LIMITS, *_GREEDY)
    ignored = tuple(f"{key}={kwargs[key]}" for key in sorted(kwargs) if key not in known)
    return Decoding(read, tuple(text for text in until if text), ignored)


def question(
    arguments: Sequence[Any], documents: Documents, limits: Limits, extra: Mapping[str, Any]
) -> Asked:
    """The question of a request; its picture is opened later.

    `<image>` at the head of the context is the picture's own place, and left out.

    Raises:
        DataError: a request without a document, as `acc_mutual_info` makes.
    """
    if len(arguments) != PARTS:
        raise DataError(
            f"a request of {len(arguments)} parts, {shown(arguments)}: CoF asks about a picture, "
            "and this names no document; leave acc_mutual_info out of the task"
        )
    context, _, visual, document, task, split = arguments
    text = context.removeprefix(IMAGE).removeprefix("\n") if context.startswith(IMAGE) else context
    name = f"{task}/{split}/{document}"
    read = partial(picture, visual, documents, (task, split, document))
    return Asked(name, text, read, limits, {"task": task, "doc_id": document, **extra})


def picture(
    visual: Callable[[Any], Any], documents: Documents, place: tuple[str, str, Any]
) -> Image.Image:
    """The one picture of a document.

    Raises:
        DataError: it has none, several, or something else, such as a video; or it is damaged.
    """
    task, split, document = place
    try:
        found = list(visual(documents[task][split][document]) or ())
    except OSError as error:  # Pillow's, of a file that is no picture, or cut off
        said = f"task {task}, document {document}: its picture cannot be read ({error})"
        raise DataError(said) from error
    if len(found) != 1 or not isinstance(found[0], Image.Image):
        kinds = ", ".join(type(one).__name__ for one in found[:4]) or "none"
        raise DataError(
            f"task {task}, document {document}: CoF asks about one picture, this has {len(found)} "
            f"({kinds}); choose a task of single images"
        )
    return to_rgb(found[0])


def continuation(arguments: Sequence[Any], documents: Documents) -> str:
    """The answer that a likelihood is asked of."""
    _, target, _, document, task, split = arguments
    text = target(documents[task][split][document]) if callable(target) else target
    return str(text)


def key(asked: Asked) -> str:
    """What two requests have in common that have one answer: repetitions, and padding of ranks."""
    return json.dumps([asked.id, asked.text, asdict(asked.limits)])
