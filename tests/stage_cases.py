"""A batch of three questions about three noisy pictures, and regions, for the tests of stages."""

import torch
from PIL import Image, ImageFilter

from cof.batch import Batch
from cof.models.base import Limits
from cof.regions.boxes import BoxConfig
from cof.regions.mask import focus
from cof.types import Box, Question, Region

TEXTS = ["What is it?", "Where is the red cup, and what is beside it?", "Is it?"]
BOXES = [(Box(0.1, 0.2, 0.2, 0.4),), (), (Box(0.6, 0.6, 0.7, 0.7), Box(0.8, 0.5, 0.9, 0.6))]
SIZES = [(90, 60), (40, 70), (64, 64)]


def picture(size, seed):
    noise = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy()).filter(ImageFilter.GaussianBlur(3))


def batch_of(model, limits=5):
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    images = [picture(size, i) for i, size in enumerate(SIZES)]
    return Batch.of(model, asked, images, Limits(limits))


def resized_batch_of(model, limits):
    """The same picture in three sizes."""
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    images = [picture((90, 80), 1).resize(size) for size in SIZES]
    return Batch.of(model, asked, images, Limits(limits))


def spots_of(batch, boxes=BOXES):
    regions = [Region(some, "test") for some in boxes]
    return [focus(one, view, BoxConfig()) for one, view in zip(regions, batch.views, strict=True)]


def tokens(answers):
    return [one.tokens for one in answers]
