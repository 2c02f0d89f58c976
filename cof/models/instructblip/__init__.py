"""InstructBLIP (Vicuna): its Q-Former looks at the image, the highlight acts where it looks."""

from cof.models.instructblip.config import Config
from cof.models.instructblip.load import identify, load, wrap
from cof.models.instructblip.model import InstructBlip

__all__ = ["Config", "InstructBlip", "identify", "load", "wrap"]
