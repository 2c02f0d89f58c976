"""A checkpoint's tokenizer, and the ids that the original LLaVA's tokenizer gives.

Transformers 5 has one Llama tokenizer. The published code ran transformers 4.31, whose
`LlamaTokenizer` splits a text at its special tokens (`<s>`, `</s>`, `<unk>`) and hands every part
to sentencepiece on its own, which begins it with a blank (`▁`). `Ids` does the same, and
`check_ids` compares the outcome with what the tokenizer files say by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from cof import prompts
from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint, read_json

_BLANK = "▁"
_PROBES = (
    "red square",
    'A "quote", 12.5 % and {"bbox": [0.12, 0.34, 0.56, 0.78]}',
    "two  blanks\nand a line",
    "Größe: 图中",
)
_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token")
_SHOWN = 24  # ids and characters of an error message

Encode = Callable[[str], list[int]]


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own tokenizer.

    `AutoTokenizer` on an original LLaVA folder drops the leading-space piece, and every id that
    starts a chunk is wrong; sentencepiece files are therefore read by `LlamaTokenizer`.

    Raises:
        ModelError: no tokenizer files, damaged ones, no token for the beginning or end of a
            sequence, or `mm_use_im_start_end` without its tokens.
    """
    folder = checkpoint.folder
    kind = _settings(folder).get("tokenizer_class", "")
    pieces = (folder / "tokenizer.model").is_file()
    if not pieces and not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder}: no tokenizer.model and no tokenizer.json")
    reader: Any = AutoTokenizer
    if pieces or str(kind).startswith("LlamaTokenizer"):
        reader = LlamaTokenizer
    elif checkpoint.layout == "original" and kind == "PreTrainedTokenizerFast":
        reader = PreTrainedTokenizerFast  # the other one wonders about the model's type
    try:
        tokenizer = reader.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the tokenizer libraries raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the tokenizer cannot be loaded ({reason})") from error
    _check_tokens(checkpoint, tokenizer)
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


def _check_tokens(checkpoint: Checkpoint, tokenizer: Any) -> None:
    text = checkpoint.config.get("text_config") or checkpoint.config
    rows, known = text.get("vocab_size", len(tokenizer)), tokenizer.get_vocab()
    named = [(key, getattr(tokenizer, key)) for key in ("bos_token", "eos_token")]
    for key, token in named:
        if token is None or not known.get(token, rows) < rows:
            raise ModelError(
                f"{checkpoint.folder}: the tokenizer's {key} is {token!r}, which is not among its "
                f"{rows} tokens; name it in tokenizer_config.json (LLaVA's are <s> and </s>)"
            )
    wrap = (prompts.IMAGE_START, prompts.IMAGE_END)
    wrapped = checkpoint.config.get("mm_use_im_start_end", False)
    absent = [token for token in wrap if not known.get(token, rows) < rows]
    if wrapped and absent:
        raise ModelError(
            f"{checkpoint.folder}: config.json sets mm_use_im_start_end, but the tokenizer has no "
            f"{' and no '.join(absent)}; take the tokenizer files that the model was saved with"
        )


def encoder(tokenizer: Any, folder: Path) -> Encode:
    """Text -> ids, without the beginning-of-sequence token."""
    if not isinstance(tokenizer, LlamaTokenizer):
        return lambda text: list(tokenizer(text, add_special_tokens=False).input_ids)
    legacy = bool(_settings(folder).get("legacy", True))  # 4.31's default
    return Ids(tokenizer, legacy, _margins(tokenizer, folder))


@dataclass(frozen=True)
class Ids:
    """Text -> ids as transformers 4.31's `LlamaTokenizer` (with sentencepiece) gives them.

    Attributes:
        tokenizer: transformers 5's, of the same vocabulary.
        legacy: tokenizer_config.json's; if false, the part after a special token loses the blank
            that sentencepiece puts before it, and a piece that has no id without it is unknown.
        margins: token that is never split -> whether blanks on its left, on its right vanish.
    """

    tokenizer: Any
    legacy: bool
    margins: Mapping[str, tuple[bool, bool]]

    def __call__(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = []
        for number, part in enumerate(self._split(text)):
            if number % 2:
                ids.append(self.tokenizer.convert_tokens_to_ids(part))
            elif part:
                ids += self._part(part, first=number == 0)
        return ids

    def offsets(self, text: str) -> list[prompts.Span]:
        """Characters of the text that each of its ids stands for."""
        found: list[prompts.Span] = []
        place = 0
        for number, part in enumerate(self._split(text)):
            place = text.index(part, place)  # blanks beside a token that is never split may be gone
            if number % 2:
                found.append((place, place + len(part)))
            elif part:
                said = self.tokenizer(
                    _BLANK + part, add_special_tokens=False, return_offsets_mapping=True
                ).offset_mapping
                kept = said[-len(self._part(part, first=number == 0)) :]
                found += [(place + max(b - 1, 0), place + max(e - 1, 0)) for b, e in kept]
            place += len(part)
        return found

    def _split(self, text: str) -> list[str]:
        """Plain parts at even indices, tokens of `margins` at odd ones."""
        longest_first = sorted(self.margins, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        for index in range(1, len(parts), 2):
            left, right = self.margins[parts[index]]
            parts[index - 1] = parts[index - 1].rstrip() if left else parts[index - 1]
            parts[index + 1] = parts[index + 1].lstrip() if right else parts[index + 1]
        return parts

    def _part(self, text: str, first: bool) -> list[int]:
        """A part's ids; the blank is given, or transformers would merge it with the text's own."""
        ids = list(self.tokenizer(_BLANK + text, add_special_tokens=False).input_ids)
        piece = str(self.tokenizer.convert_ids_to_tokens(ids[0]))
        if self.legacy or first or text[0] in f" {_BLANK}" or not piece.startswith(_BLANK):
            return ids
        begin = piece.removeprefix(_BLANK)
        return [self.tokenizer.convert_tokens_to_ids(begin), *ids[1:]] if begin else ids[1:]


def _margins(tokenizer: Any, folder: Path) -> dict[str, tuple[bool, bool]]:
    """Tokens that are never split; 4.31 strips text beside those that it knows by name alone."""
    file = folder / "special_tokens_map.json"
    declared = read_json(file) if file.is_file() else {}
    names = {getattr(tokenizer, key) for key in _SPECIALS if key not in declared}
    margins = dict.fromkeys(names, (False, False))
    for value in declared.values():
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, dict):
                sides = bool(token.get("lstrip")), bool(token.get("rstrip"))
                margins[token.get("content", "")] = sides
    return {token: margins.get(token, (True, True)) for token in tokenizer.get_added_vocab()}


def check_ids(encode: Encode, tokenizer: Any, folder: Path, conv: str) -> None:
    """Compare prompts and some texts with the tokenizer files, read by their own libraries.

    Raises:
        ModelError: other ids, as of a byte-level tokenizer.json that is called LlamaTokenizer,
            which loses every blank.
    """
    chunks = prompts.around_image(_PROBES[1] + prompts.SHORT_ANSWER, conv)
    known = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else ()
    texts = [text for text in (*_PROBES, *chunks) if not any(token in text for token in known)]
    for file, reference in _references(folder):
        for text in texts:
            ours, theirs = encode(text), reference(text)
            if ours != theirs:
                raise ModelError(
                    f"{file}: {text[:_SHOWN]!r} has the ids {_cut(theirs)}, but loaded as "
                    f"{type(tokenizer).__name__} it gets {_cut(ours)}; correct tokenizer_class in "
                    "tokenizer_config.json (of a byte-level tokenizer.json: "
                    "PreTrainedTokenizerFast), or remove the tokenizer file that is not the model's"
                )


def _references(folder: Path) -> Iterator[tuple[Path, Encode]]:
    fast, pieces = folder / "tokenizer.json", folder / "tokenizer.model"
    if fast.is_file():
        from tokenizers import Tokenizer

        plain = Tokenizer.from_file(str(fast))
        yield fast, lambda text: list(plain.encode(text, add_special_tokens=False).ids)
    if pieces.is_file():
        from sentencepiece import SentencePieceProcessor

        yield pieces, SentencePieceProcessor(model_file=str(pieces)).encode


def _cut(ids: list[int]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{ids[:_SHOWN]}{more}"
