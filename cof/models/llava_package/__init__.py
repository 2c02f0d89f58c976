"""LLaVA-1.5 through the original `llava` package, in this process; base_models/llava has more.

Its own loader, image processing, conversation templates and `encode_images`; the decoding and the
highlight are ours, as is the tokenizer, whose ids are those of the published code.
"""

from cof.models.llava_package.config import Config
from cof.models.llava_package.model import PackagedLlava, identify, load

__all__ = ["Config", "PackagedLlava", "identify", "load"]
