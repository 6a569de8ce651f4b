"""Seed 004: what fine-tuning left, served by `--ckpt_dir`: an adapter beside its base, and merged weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sensorium import LLM, SamplingParams
from sensorium.lora.merge import merge
from sensorium.registry.model_types import MODEL_TYPES
from tests.e2e.running import Running, serve
from tests.lora.writing import decoder_layers, merge_by_hand, write_adapter
from tests.registry.fake_modelscope import fake_modelscope
from tests.seeds.serving import deploy, make_model
from tests.seeds.wire import encoded, parts, post, said

QWEN_VL = "qwen-vl-chat"
LAYERS = {
    QWEN_VL: ("attn.c_attn", "attn.c_proj", "mlp.w1"),
    "yi-vl-6b-chat": ("q_proj", "v_proj", "up_proj"),
    "minicpm-v-v2_5-chat": ("q_proj", "v_proj", "up_proj"),
}
QUESTION = parts(("image", f"data:image/png;base64,{encoded('cat.png')}"), "这是什么？")
NUM_TOKENS = 10


def tuned(name: str, folder: Path, **notes: str) -> Path:
    """Write a base into `folder`/model and an adapter where swift would, with swift's notes; return the latter."""
    base = folder / "model"
    make_model(name, base)
    checkpoint = folder / "output" / name / "v0-20241121-101010" / "checkpoint-10"
    write_adapter(checkpoint, base, decoder_layers(base, *LAYERS[name]), strength=1.0)
    told = {"model_type": name, "model_id_or_path": str(base), "template_type": MODEL_TYPES[name].template}
    told |= {"sft_type": "lora", "dtype": "fp32", **notes}
    (checkpoint / "sft_args.json").write_text(json.dumps(told))
    return checkpoint


def names(running: Running) -> list[str]:
    return [card.id for card in running.client().models.list().data]


def answer(running: Running, model: str) -> str:
    sampling = {"max_tokens": NUM_TOKENS, "temperature": 0, "ignore_eos": True}
    return said(post(running, {"model": model, "messages": [QUESTION], **sampling}))


def plain_answer(model: Path) -> str:
    """What the base says without its adapter."""
    with LLM(str(model), dtype="float32", max_model_len=1024) as llm:
        (output,) = llm.chat([QUESTION], SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True))
    return output.outputs[0].text


@pytest.mark.parametrize("name", LAYERS)
def test_rows_28_and_29_the_adapter_answers_and_so_do_merged_weights(name: str, tmp_path: Path) -> None:
    checkpoint = tuned(name, tmp_path)
    with deploy(tmp_path, "--ckpt_dir", str(checkpoint)) as running:
        assert names(running) == [name, "default-lora"]
        adapted = answer(running, name)  # what clients that ask for the first of the list get
        assert answer(running, "default-lora") == adapted
    assert adapted != plain_answer(tmp_path / "model")
    merged = merge(str(checkpoint), None, checkpoint.with_name("checkpoint-10-merged"))
    with deploy(tmp_path, "--ckpt_dir", str(merged)) as running:
        assert names(running) == [name]
        assert answer(running, name) == adapted


def test_row_28_a_base_on_modelscope_is_fetched_and_merged(tmp_path: Path) -> None:
    checkpoint = tuned(QWEN_VL, tmp_path, model_id_or_path="qwen/Qwen-VL-Chat", model_revision="master")
    wanted = merge_by_hand(tmp_path / "model", checkpoint, tmp_path / "by-hand")
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    shutil.rmtree(tmp_path / "model")
    line = ["--ckpt_dir", str(checkpoint), "--merge_lora", "true"]
    merged = checkpoint.with_name("checkpoint-10-merged")
    with fake_modelscope(files, "qwen/Qwen-VL-Chat") as hub:
        variables = {"MODELSCOPE_ENDPOINT": hub.url, "HF_ENDPOINT": "http://127.0.0.1:9"}
        with serve(line, tmp_path / "home", ("sensorium", "deploy"), variables) as running:
            assert names(running) == [QWEN_VL]
            assert answer(running, QWEN_VL)
    expected, found = (load_file(folder / "model.safetensors") for folder in (wanted, merged))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert json.loads((merged / "sft_args.json").read_text())["sft_type"] == "full"
