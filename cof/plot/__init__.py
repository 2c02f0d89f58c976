"""Pictures of one question: the two stages, and where the answer looks."""

from cof.plot.attention import draw_attention
from cof.plot.stages import draw_two_stages

__all__ = ["draw_attention", "draw_two_stages"]
