"""What a config says of an InstructBLIP beyond what every model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cof.models import base
from cof.models.common.loading import Quantization
from cof.prompts import with_suffix

Place = Literal["qformer", "llm", "hybrid"]


@dataclass(frozen=True)
class Config(base.Config):
    """Which InstructBLIP to load and how; see `cof.models.base.Config` for the rest.

    Attributes:
        dtype: `auto` is the checkpoint's own half precision on CUDA, float32 on the CPU.
        highlight: where the region's weight acts: on the patches in the cross-attention of the
            Q-Former (`qformer`, as Prompt Highlighter's InstructBLIP script has it); on the query
            tokens in the language model (`llm`, ours), each by how much it looks at the region; or
            both.
        quantization: None, or `bnb4`, `bnb8`: bitsandbytes quantises the weights while they are
            loaded, to 4 bits (NF4) or 8.
        prompt: what both tokenizers are given. `{question}` is the question as the benchmark asks
            it; `{core}` the same without the line that benchmarks put behind it for LLaVA
            (`cof.prompts.SUFFIXES`). The default is the question alone.
    """

    path: str = "Salesforce/instructblip-vicuna-7b"
    highlight: Place = "qformer"
    prompt: str = "{question}"
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if self.prompt.count("{question}") + self.prompt.count("{core}") != 1:
            raise ValueError(f"prompt={self.prompt!r} needs {{question}} or {{core}}, once")

    def ask(self, question: str) -> str:
        """The prompt of a question."""
        core = with_suffix(question, "")
        place, text = ("{core}", core) if "{core}" in self.prompt else ("{question}", question)
        return self.prompt.replace(place, text)
