"""What came of a question: `Result` for records, and `Outcome`, which `CoF` returns to a caller."""

from cof.outcome.outcome import Outcome
from cof.outcome.results import result_of

__all__ = ["Outcome", "result_of"]
