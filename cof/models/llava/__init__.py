"""LLaVA-1.5 in the transformers layout, the original layout, and cof-tiny."""

from cof.models.llava.config import Config
from cof.models.llava.model import Llava, identify, load
from cof.models.llava.wrap import wrap

__all__ = ["Config", "Llava", "identify", "load", "wrap"]
