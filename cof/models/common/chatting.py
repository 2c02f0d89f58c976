"""A model whose prompts are the chat template of its checkpoint."""

from __future__ import annotations

import logging

from cof.models.common.chat import Chat
from cof.models.common.replying import Replying

log = logging.getLogger(__name__)


class Chatting(Replying):
    """A model that is asked through a `Chat`.

    Attributes:
        chat: questions to prompts.
    """

    chat: Chat

    def answer_ids(self, text: str) -> list[int]:
        """Ids of a reply as they follow a prompt, the end of reply included."""
        end = self.tokenizer.eos_token_id
        return [*self.chat.reply_ids(text), end if end in self.stops else min(self.stops)]

    def warn_of_frame(self) -> None:
        """Say so where the frame of its boxes is a guess."""
        if self.frame.assumed:
            log.warning(
                "%s: how this family writes boxes, and how to ask it for them, is documented "
                "nowhere; replies are taken as fractions of the image (model.frame declares it)",
                self.name,
            )
