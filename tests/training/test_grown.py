"""A model with fewer visual layers goes on being trained as a deeper one."""

import torch

from training import model

IDS = {"<|im_end|>": 2, "<|endoftext|>": 0, "<|image_pad|>": 5, "<|video_pad|>": 6}
IDS |= {"<|vision_start|>": 3, "<|vision_end|>": 4}


def test_new_visual_layers_change_nothing_at_first() -> None:
    torch.manual_seed(0)
    net = model.build_model(32, IDS).eval()
    last = net.config.vision_config.depth - 1
    state = {name: value for name, value in net.state_dict().items() if f"visual.blocks.{last}." not in name}
    net.load_state_dict(model.grown(state, net))
    grid = torch.tensor([[1, 4, 4]])
    pixels = torch.randn(16, 3 * 2 * model.PATCH**2)
    with torch.inference_mode():
        deep = net.model.visual(pixels, grid).pooler_output
        del net.model.visual.blocks[last]
        assert torch.equal(deep, net.model.visual(pixels, grid).pooler_output)
