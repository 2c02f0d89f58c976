"""cof-tiny's chat template: stock transformers asks with it as this code asks without."""

from pathlib import Path

import pytest
import torch
from committed import ROOT
from PIL import Image

from cof import prompts
from cof.batch import Batch
from cof.bench import mme
from cof.images import load_image
from cof.models.base import Limits
from cof.models.llava import Config, load
from cof_lab.export import CHAT_TEMPLATE
from cof_lab.mini import mme as mini_mme
from cof_lab.mini.common import MiniConfig

TINY = ROOT / "base_models" / "cof-tiny"
QUESTION = f"Is the shape marked 8 red?{prompts.SHORT_ANSWER}"


@pytest.fixture(scope="module")
def processor():
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(TINY)


def turn(*content, role="user"):
    return {"role": role, "content": list(content)}


IMAGE = {"type": "image"}


def text(said):
    return {"type": "text", "text": said}


def test_the_template_is_vicuna_v1_word_for_word(processor):
    assert (TINY / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE
    wanted = prompts.full_prompt(QUESTION, "vicuna_v1")
    for content in ([IMAGE, text(QUESTION)], [text(QUESTION), IMAGE]):
        assert processor.apply_chat_template([turn(*content)], add_generation_prompt=True) == wanted


def test_a_second_turn_and_a_system_message(processor):
    said = turn(text("No"), role="assistant")
    turns = [turn(text("Be brief."), role="system"), turn(IMAGE, text("Red?")), said]
    found = processor.apply_chat_template([*turns, turn(text("Sure?"))], add_generation_prompt=True)
    wanted = "Be brief. USER: <image>\nRed? ASSISTANT: No</s>USER: Sure? ASSISTANT:"
    assert found == wanted
    plain = {"role": "user", "content": "Red?"}  # as text alone is sent to a server
    found = processor.tokenizer.apply_chat_template([plain], tokenize=False)
    assert found == f"{prompts.SYSTEMS['vicuna_v1']} USER: Red? "


def square(image):
    """Padded as this model was trained; the stock processor crops instead."""
    side = max(image.size)
    padded = Image.new("RGB", (side, side), (122, 116, 104))
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


@torch.inference_mode()
def stock(network, processor, image, question):
    """An answer by transformers alone."""
    content = [{"type": "image", "image": square(image)}, text(question)]
    given = processor.apply_chat_template(
        [turn(*content)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = network.generate(**given, max_new_tokens=16)[0, given["input_ids"].shape[1] :]
    return processor.decode(tokens, skip_special_tokens=True).strip()


@pytest.mark.slow
def test_stock_transformers_gives_our_plain_answers(processor, tmp_path):
    from transformers import LlavaForConditionalGeneration

    root = tmp_path / "MiniMME"
    mini_mme.write(root, MiniConfig(size=6, difficulty="fine"))
    asked = mme.read(mme.Config(str(root)))
    images = {name: load_image(Path(root) / name) for name in {one.image for one in asked}}
    model = load(Config("cof-tiny", "cpu", "float32"))
    ours = Batch.of(model, asked, [images[one.image] for one in asked], Limits(16)).plain
    network = LlavaForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32).eval()
    theirs = [stock(network, processor, images[one.image], one.text) for one in asked]
    assert len(asked) == 60
    assert theirs == [answer.text for answer in ours]
    assert any(image.width != image.height for image in images.values())
    assert len(set(theirs)) > 1
