"""The loader: float16 whatever is wanted, and a class by the model's name."""

import torch
from transformers import AutoTokenizer, CLIPImageProcessor

from llava.model import LlavaLlamaForCausalLM


def load_pretrained_model(path, base, name, device_map="auto", device="cuda", **options):
    if "llava" not in name:
        raise ValueError(f"{name} would be loaded as a language model")
    options |= {"torch_dtype": torch.float16}
    options["device_map"] = device_map if device == "cuda" else {"": device}
    tokenizer = AutoTokenizer.from_pretrained(path)
    network = LlavaLlamaForCausalLM.from_pretrained(path, **options)
    if getattr(network.config, "mm_use_im_patch_token", True):
        tokenizer.add_tokens(["<im_patch>"], special_tokens=True)
    network.resize_token_embeddings(len(tokenizer))
    network.get_vision_tower().load_model(device_map)
    processor = CLIPImageProcessor.from_pretrained(network.get_vision_tower().name)
    return tokenizer, network, processor, 2048
