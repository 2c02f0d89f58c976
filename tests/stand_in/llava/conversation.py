"""Templates of two roles: what one says is followed by a blank, what the other by an end."""

from dataclasses import dataclass, field, replace

SYSTEM = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)


@dataclass
class Conversation:
    system: str
    roles: tuple = ("USER", "ASSISTANT")
    messages: list = field(default_factory=list)

    def copy(self):
        return replace(self, messages=list(self.messages))

    def append_message(self, role, message):
        self.messages.append((role, message))

    def get_prompt(self):
        ends = (" ", "</s>")
        turns = [
            f"{role}: {said}{ends[number % 2]}" if said else f"{role}:"
            for number, (role, said) in enumerate(self.messages)
        ]
        return f"{self.system} {''.join(turns)}"


conv_templates = {
    "vicuna_v1": Conversation(SYSTEM.format("user")),
    "llava_v1": Conversation(SYSTEM.format("human")),
}
