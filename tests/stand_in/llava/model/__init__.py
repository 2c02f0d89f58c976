"""A Llama that holds its vision tower and projector within its decoder."""

import torch
from torch import nn
from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM, LlamaModel


class LlavaConfig(LlamaConfig):
    model_type = "llava_llama"


class Tower(nn.Module):
    """Empty until it is loaded, so that no checkpoint can fill it."""

    def __init__(self, name, layer):
        super().__init__()
        self.name, self.layer = name, layer

    def load_model(self, device_map=None):
        self.vision_tower = CLIPVisionModel.from_pretrained(self.name, device_map=device_map)

    @property
    def device(self):
        return self.vision_tower.device

    @torch.no_grad()
    def forward(self, images):
        own = images.to(self.device, self.vision_tower.dtype)
        states = self.vision_tower(own, output_hidden_states=True).hidden_states
        return states[self.layer][:, 1:].to(images.dtype)


class LlavaLlamaModel(LlamaModel):
    config_class = LlavaConfig

    def __init__(self, config):
        super().__init__(config)
        wide, out = config.mm_hidden_size, config.hidden_size
        self.vision_tower = Tower(config.mm_vision_tower, config.mm_vision_select_layer)
        self.mm_projector = nn.Sequential(nn.Linear(wide, out), nn.GELU(), nn.Linear(out, out))


class LlavaLlamaForCausalLM(LlamaForCausalLM):
    config_class = LlavaConfig

    def __init__(self, config):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = LlavaLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self):
        return self.model

    def get_vision_tower(self):
        return self.model.vision_tower

    def encode_images(self, images):
        return self.model.mm_projector(self.model.vision_tower(images))

    def generate(self, *given, **named):
        raise NotImplementedError("the package's own, which nobody is to call")
