"""Writes a checkpoint in the layout of the Hugging Face hub."""

import json
from pathlib import Path

import torch

from . import motion, tokenizer
from .model import MAX_PIXELS, MERGE, MIN_PIXELS, PATCH, VIDEO_PIXELS


def _write(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


TEXT = [
    "attention_bias",
    "attention_dropout",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
]
VISION = [
    "deepstack_visual_indexes",
    "depth",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "initializer_range",
    "intermediate_size",
    "model_type",
    "num_heads",
    "num_position_embeddings",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
]
IDS = ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"]


def hub_config(config) -> dict:
    """The keys that Qwen3-VL checkpoints on the hub have, in their older spelling of the rope."""
    text = {k: getattr(config.text_config, k) for k in TEXT}
    rope = dict(config.text_config.rope_parameters)
    text |= {"dtype": "bfloat16", "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **{k: getattr(config, k) for k in IDS},
        "text_config": dict(sorted(text.items())),
        "vision_config": {k: getattr(config.vision_config, k) for k in VISION} | {"temporal_patch_size": 1},
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


def export(net, tok, folder: Path) -> None:
    from safetensors.torch import save_file

    folder = Path(folder)
    tokenizer.save(tok, folder)
    tensors = {}
    for name, value in net.state_dict().items():
        if name != "lm_head.weight":  # tied to the embedding
            if name.endswith("patch_embed.proj.weight"):
                # Trained on still pictures, given twice. Seen once, a picture needs the sum of both filters; and every
                # frame of a video is seen by itself.
                value = value.detach().sum(2, keepdim=True)
            tensors[name] = value.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    _write(folder / "config.json", hub_config(net.config))
    common = {
        "patch_size": PATCH,
        "temporal_patch_size": 1,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "processor_class": "Qwen3VLProcessor",
    }
    picture = {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}}
    picture |= {"image_processor_type": "Qwen2VLImageProcessorFast"}
    _write(folder / "preprocessor_config.json", picture | common)
    fewest, most = motion.FRAMES
    low, high = VIDEO_PIXELS
    video = {"size": {"shortest_edge": low, "longest_edge": high}, "fps": 2, "min_frames": fewest, "max_frames": most}
    video |= {"do_sample_frames": True, "video_processor_type": "Qwen3VLVideoProcessor"}
    _write(folder / "video_preprocessor_config.json", video | common)
    ids = tokenizer.ids(tok)
    _write(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "max_new_tokens": 256,
        },
    )


def main():
    """Exports the newest saved state of a training that still runs."""
    import argparse

    from tokenizers import Tokenizer

    from . import model

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok))
    net.load_state_dict(torch.load(args.work / "answer.pt", weights_only=False)["net"])
    export(net, tok, args.out)


if __name__ == "__main__":
    main()
