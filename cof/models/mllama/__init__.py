"""Llama 3.2 Vision (Mllama): the decoder looks at tiles of the image through cross-attention."""

from cof.models.mllama.config import Config
from cof.models.mllama.load import identify, load, wrap
from cof.models.mllama.model import Mllama

__all__ = ["Config", "Mllama", "identify", "load", "wrap"]
