"""LLaVA as its authors publish it, and Yi-VL: made from a llava-hf checkpoint, renamed, with the tower on its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint

Kind = Literal["llava", "llava_legacy", "yi_vl"]
Tensors = dict[str, torch.Tensor]

TOKENIZERS = Path(__file__).parent / "prompt" / "sentencepiece_golden"
TOWERS = {
    "llava": "openai/clip-vit-large-patch14-336",
    "llava_legacy": "openai/clip-vit-large-patch14-336",
    "yi_vl": "./vit/clip-vit-H-14-laion2B-s32B-b79K-yi-vl-6B-448",
}
VOCAB_SIZE = 640  # as many as the tokenizers have pieces: the picture's token has no row
_WIDTH, _HIDDEN = 32, 64


def write_llava_llama(hf: Path, folder: Path, kind: Kind) -> Path:
    """Write one model twice: into `hf` for transformers, and below `folder` as the authors do.

    In `hf` the picture's token has id 640 and a row of its own. The projector of "yi_vl", which transformers does not
    have, is in `hf`/projector.safetensors, by the names of a `torch.nn.Sequential`.

    Returns:
        The checkpoint's folder; LLaVA's tower lies beside it.
    """
    make_checkpoint("llava", hf)
    tensors = load_file(hf / "model.safetensors")
    noise = torch.Generator().manual_seed(7)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        more = torch.randn(VOCAB_SIZE + 1 - len(tensors[name]), _HIDDEN, generator=noise) / 8
        tensors[name] = torch.cat([tensors[name], more])
    config = json.loads((hf / "config.json").read_text())
    config["image_token_index"] = VOCAB_SIZE
    config["text_config"]["vocab_size"] = VOCAB_SIZE + 1
    config["vision_config"]["hidden_act"] = "gelu" if kind == "yi_vl" else "quick_gelu"
    _write(hf / "config.json", config)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    projector = _projector(tensors, kind, noise)
    save_file(projector, hf / "projector.safetensors")

    main = folder / "checkpoint"
    main.mkdir(parents=True)
    text = {n.removeprefix("language_model."): t for n, t in tensors.items() if n.startswith("language_model.")}
    text |= {n: text[n][:VOCAB_SIZE].clone() for n in ("model.embed_tokens.weight", "lm_head.weight")}
    text |= {f"model.mm_projector.{name}": tensor for name, tensor in projector.items()}
    _write_shards(main, text, "safetensors" if kind == "yi_vl" else "bin")
    _write(main / "config.json", _config(config, kind))
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _write(main / "generation_config.json", {"_from_model_config": True, "do_sample": True, **ends})
    golden = json.loads((TOKENIZERS / "golden.json").read_text())["slow"][kind]
    shutil.copy(TOKENIZERS / f"{golden['model']}.model", main / "tokenizer.model")
    _write(main / "tokenizer_config.json", golden["config"])
    tower = main / TOWERS[kind] if kind == "yi_vl" else folder / Path(TOWERS[kind]).name
    _write_tower(tower, tensors, config["vision_config"], hf / "preprocessor_config.json", whole=kind != "yi_vl")
    return main


def _projector(tensors: Tensors, kind: Kind, noise: torch.Generator) -> Tensors:
    places = ("0", "3") if kind == "yi_vl" else ("0", "2")
    found = {
        f"{place}.{part}": tensors[f"multi_modal_projector.linear_{number}.{part}"]
        for number, place in zip("12", places, strict=True)
        for part in ("weight", "bias")
    }
    if kind == "yi_vl":
        for place in "14":
            found[f"{place}.weight"] = 1 + 0.1 * torch.randn(_HIDDEN, generator=noise)
            found[f"{place}.bias"] = 0.1 * torch.randn(_HIDDEN, generator=noise)
    return found


def _config(hf: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The flat config.json of the authors' class."""
    return hf["text_config"] | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "mm_hidden_size": _WIDTH,
        "mm_projector_type": "mlp2x_gelu_Norm" if kind == "yi_vl" else "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": TOWERS[kind],
        "torch_dtype": "float32",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }


def _write_tower(path: Path, tensors: Tensors, vision: dict[str, Any], preprocessor: Path, whole: bool) -> None:
    """Write the CLIP tower; `whole`: with the text tower beside it, as on the hub."""
    path.mkdir(parents=True)
    shutil.copy(preprocessor, path / "preprocessor_config.json")
    own = {n.removeprefix("vision_tower."): t for n, t in tensors.items() if n.startswith("vision_tower.")}
    if not whole:
        _write(path / "config.json", vision | {"architectures": ["CLIPVisionModel"]})
        save_file(own, path / "model.safetensors", metadata={"format": "pt"})
        return
    other = {"text_model.final_layer_norm.weight": torch.ones(3), "logit_scale": torch.tensor(2.0)}
    other |= {"visual_projection.weight": torch.ones(2, 2), "vision_model.embeddings.position_ids": torch.arange(17)}
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "text_config": {"hidden_size": 3}}
    _write(path / "config.json", config | {"vision_config": vision})
    torch.save(own | other, path / "pytorch_model.bin")


def _write_shards(path: Path, tensors: Tensors, suffix: Literal["bin", "safetensors"]) -> None:
    names = sorted(tensors)
    stem = "pytorch_model" if suffix == "bin" else "model"
    weight_map = {}
    for index, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"{stem}-{index:05d}-of-00002.{suffix}"
        chosen = {name: tensors[name].contiguous() for name in part}
        if suffix == "bin":
            torch.save(chosen, path / file)
        else:
            save_file(chosen, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    _write(path / f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
