"""InstructBLIP (Vicuna): its Q-Former looks at the image, the highlight acts where it looks."""

from cof.models.instructblip.config import Config
from cof.models.instructblip.model import InstructBlip, identify, load

__all__ = ["Config", "InstructBlip", "identify", "load"]
