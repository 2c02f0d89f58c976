"""Images to pixels, and a prompt with one image to ids."""

import torch
from PIL import ImageOps

from llava.constants import IMAGE_TOKEN_INDEX


def process_images(images, image_processor, config):
    if getattr(config, "image_aspect_ratio", None) == "pad":
        colour = tuple(int(255 * mean) for mean in image_processor.image_mean)
        images = [_square(image, colour) for image in images]
    return torch.cat([image_processor(one, return_tensors="pt").pixel_values for one in images])


def _square(image, colour):
    long = max(image.size)
    left, top = (long - image.width) // 2, (long - image.height) // 2
    borders = (left, top, long - image.width - left, long - image.height - top)
    return ImageOps.expand(image.convert("RGB"), borders, colour)


def tokenizer_image_token(prompt, tokenizer, image_token_index=IMAGE_TOKEN_INDEX):
    first, *others = (tokenizer(part).input_ids for part in prompt.split("<image>"))
    for ids in others:
        first = [*first, image_token_index, *ids[1:]]
    return first
