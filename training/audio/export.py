"""Writes tiny-audio in the layout of the Hugging Face hub."""

import argparse
import json
from pathlib import Path

import torch

from .. import tokenizer
from . import model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>"]
LONGEST = 2048
TEMPLATE = """{%- macro render(content) -%}
{%- if content is string -%}{{- content -}}
{%- elif content is not none -%}
{%- for part in content -%}
{%- if part is string -%}{{- part -}}
{%- elif part.type == 'audio' or part.type == 'audio_url' or 'audio' in part or 'audio_url' in part -%}
<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif 'text' in part -%}{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{{- render(message.content) -}}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
TEXT = [
    "attention_dropout",
    "eos_token_id",
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
AUDIO = [
    "activation_function",
    "d_model",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "encoder_layers",
    "initializer_range",
    "max_source_positions",
    "model_type",
    "num_mel_bins",
]


def _write(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def hub_config(config) -> dict:
    """The keys that Qwen2-Audio checkpoints on the hub have, in their older spelling of the rope."""
    text = {k: getattr(config.text_config, k) for k in TEXT}
    text |= {"dtype": "bfloat16", "rope_theta": config.text_config.rope_parameters["rope_theta"]}
    return {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "audio_token_index": config.audio_token_id,
        "text_config": dict(sorted(text.items())),
        "audio_config": {k: getattr(config.audio_config, k) for k in AUDIO},
        "dtype": "bfloat16",
    }


def hub_name(name: str) -> str:
    """`model.language_model.x` -> `language_model.model.x`, and so on."""
    bare = name.removeprefix("model.")
    if bare.startswith("language_model."):
        return "language_model.model." + bare.removeprefix("language_model.")
    return bare


def export(net, tok, folder: Path) -> None:
    """`net` is the part without the head, which is a copy of the embeddings: transformers does not tie it here."""
    from safetensors.torch import save_file

    folder = Path(folder)
    named = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    tokenizer.save(tok, folder, SPECIAL, TEMPLATE, named, LONGEST)
    # transformers' processor reads its template from here; without it, it takes one of Qwen2-Audio's own.
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tensors = {hub_name(k): v.detach().to(torch.bfloat16).contiguous() for k, v in net.state_dict().items()}
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    _write(folder / "config.json", hub_config(net.config))
    _write(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "Qwen2AudioProcessor",
            "feature_size": model.MELS,
            "sampling_rate": 16000,
            "hop_length": 160,
            "n_fft": 400,
            "chunk_length": model.SECONDS,
            "n_samples": 16000 * model.SECONDS,
            "nb_max_frames": 100 * model.SECONDS,
            "padding_side": "right",
            "padding_value": 0.0,
            "dither": 0.0,
            "return_attention_mask": True,
        },
    )
    ids = tokenizer.ids(tok, SPECIAL)
    _write(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "max_new_tokens": 128,
        },
    )


def main():
    """Exports the newest saved state of a training that still runs."""
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tok = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    net = model.build_model(tok.get_vocab_size(), tokenizer.ids(tok, SPECIAL)).model
    net.load_state_dict(torch.load(args.work / "answer.pt", weights_only=False)["net"])
    export(net, tok, args.out)


if __name__ == "__main__":
    main()
