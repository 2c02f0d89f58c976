"""LLaVA's own package as it is installed here: what of it is used, its version and its source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from cof.errors import ModelError, cut

INSTALL = "pip install --no-deps llava-torch && pip install requests shortuuid einops"
_DISTRIBUTIONS = ("llava-torch", "llava")
"""Its name on PyPI, and in a checkout of its repository."""

_SOURCES = ("constants.py", "conversation.py", "mm_utils.py", "model/**/*.py")
"""Files that a reply may depend on."""


@dataclass(frozen=True)
class Package:
    """The parts that are used.

    Attributes:
        label: distribution, version, and digest of the source: what tells two installations apart.
        load: `(path, base, name, device=..., **options) -> tokenizer, network, image processor,
            length`; the options reach `from_pretrained`.
        process_images: `(images, image processor, config)` -> float [B, 3, side, side].
        tokenizer_image_token: `(prompt, tokenizer)` -> ids, `image_token` where the image goes.
        image_token: that id.
        conversations: name -> template.
    """

    label: str
    load: Callable[..., Any]
    process_images: Callable[..., Any]
    tokenizer_image_token: Callable[..., list[int]]
    image_token: int
    conversations: Mapping[str, Any]


def installed() -> Package:
    """The package.

    Raises:
        ModelError: it, or a part of it, is missing; one line with the command that installs it.
    """
    conversation, tools = _part("conversation"), _part("mm_utils")
    return Package(
        label(),
        _part("model.builder").load_pretrained_model,
        tools.process_images,
        tools.tokenizer_image_token,
        _part("constants").IMAGE_TOKEN_INDEX,
        conversation.conv_templates,
    )


@cache
def label() -> str:
    """`llava-torch 1.2.2.post1 sha256:0123456789ab`.

    Raises:
        ModelError: see `installed`.
    """
    root = Path(str(_part("constants").__file__)).parent
    seen = hashlib.sha256()
    for file in sorted({file for pattern in _SOURCES for file in root.glob(pattern)}):
        seen.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return f"{_version()} sha256:{seen.hexdigest()[:12]}"


def _version() -> str:
    for name in _DISTRIBUTIONS:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "llava, version unknown"


def _part(name: str) -> Any:
    try:
        return import_module(f"llava.{name}")
    except ImportError as error:
        raise ModelError(
            f"model.name=llava_package needs LLaVA's own package ({cut(str(error))}); {INSTALL}"
        ) from error
