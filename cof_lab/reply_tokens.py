"""Which tokens are coordinates, and what else a reply is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cof_lab.tokenizer import EOS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class CoordinateTokens:
    """Token ids of 0.00 .. 1.00, and back."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        self.ids = torch.tensor(ids)
        self._hundredths = torch.full((vocabulary,), -1)
        self._hundredths[self.ids] = torch.arange(len(ids))

    def hundredths(self, tokens: Tensor) -> Tensor:
        """Hundredths of each token, or -1."""
        return self._hundredths[tokens]


def token_kinds(tokenizer: PreTrainedTokenizerFast) -> tuple[dict[int, str], CoordinateTokens]:
    """Loss-weight class of tokens that are not plain words."""
    word: Any = tokenizer.convert_tokens_to_ids
    numbers = [word(f"{k / 100:.2f}") for k in range(101)]
    kinds = dict.fromkeys(numbers, "coordinate")
    samples = [' {"bbox": ' + body for body in ("[0.10, 0.10]}", "[[0.10], [0.10]]}", "[]}")]
    for text in samples:
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            kinds.setdefault(token, "syntax")
    kinds.update({word("ĠYes"): "yes_no", word("ĠNo"): "yes_no", EOS: "eos"})
    return kinds, CoordinateTokens(numbers, len(tokenizer))
