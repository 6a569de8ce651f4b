"""The documents' Python snippets, with the import's name and the model's path changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sensorium import LLM, AutoTokenizer, SamplingParams
from sensorium.model_factory import ModelConfig, ModelFactory
from sensorium.pipeline import Pipeline
from tests.checkpoints import make_checkpoint
from tests.examples.test_examples import QUESTIONS, run
from tests.minicpm_checkpoints import make_minicpm
from tests.seeds.serving import FILES, MODELS, make_model


def test_rows_10_and_11_and_12_pipeline(tmp_path: Path) -> None:
    (tmp_path / "demo.jpeg").write_bytes(FILES["demo.jpeg"])
    make_model("qwen-vl-chat", tmp_path / "model")
    config = ModelConfig(max_seq_len=1024, options={"allowed_local_media_path": str(tmp_path)})
    model = ModelFactory.from_huggingface(str(tmp_path / "model"), model_config=config)
    pipeline = Pipeline(model, model.tokenizer)
    generate_config = {"top_k": 1, "max_new_tokens": 10}
    try:
        asked = pipeline("Picture 1:<img/>\n这是什么", urls=["demo.jpeg"], generate_config=generate_config)
        apart = [res.batch_response for res in asked]
        asked = pipeline("Picture 1:<img>demo.jpeg</img>\n这是什么", generate_config=generate_config)
        inline = [res.batch_response for res in asked]
    finally:
        pipeline.stop()
    assert apart == inline
    assert 0 < len(apart) <= 10
    assert len(apart[-1]) == 1


def test_row_22_offline_with_a_rendered_prompt(tmp_path: Path) -> None:
    make_minicpm("2.6", tmp_path)
    image = Image.new("RGB", (60, 40), "red")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=True)
    llm = LLM(
        model=str(tmp_path),
        max_model_len=2048,
        trust_remote_code=True,
        disable_mm_preprocessor_cache=True,
        limit_mm_per_prompt={"image": 5},
    )
    messages = [{"role": "user", "content": "(<image>./</image>)\n请描述这张图片的内容"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = {"prompt": prompt, "multi_modal_data": {"image": image}}
    stop_token_ids = [tokenizer.convert_tokens_to_ids(i) for i in ["<|im_end|>", "<|endoftext|>"]]
    sampling_params = SamplingParams(stop_token_ids=stop_token_ids, temperature=0.7, top_p=0.7, max_tokens=8, seed=1)
    try:
        outputs = llm.generate(inputs, sampling_params=sampling_params)
        batch = llm.generate([inputs, inputs], sampling_params=sampling_params)  # type: ignore[list-item]
        two = tokenizer.apply_chat_template(
            [{"role": "user", "content": "(<image>./</image>)\n(<image>./</image>)\n请描述这张图片的内容"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        pair = llm.generate({"prompt": two, "multi_modal_data": {"image": [image, image]}}, sampling_params)
    finally:
        llm.close()
    text = outputs[0].outputs[0].text
    assert [output.outputs[0].text for output in batch] == [text, text]
    assert len(pair[0].prompt_token_ids) > len(outputs[0].prompt_token_ids) + 5  # another picture, and its marks


@pytest.mark.parametrize(
    ("model_type", "family", "modality"),
    [
        ("qwen2_5_vl", "qwen2_5_vl", "image"),
        ("qwen2_5_vl", "qwen2_5_vl", "video"),
        ("internvl_chat", "InternVL2_5", "image"),
    ],
)
def test_rows_23_and_24_the_offline_runner(model_type: str, family: str, modality: str, tmp_path: Path) -> None:
    if family in MODELS:
        tmp_path = tmp_path / "model"
        make_model(family, tmp_path)
    else:
        make_checkpoint(family, tmp_path)
    arguments = ["--num-prompts", "2", "--num-frames", "4", "--max-tokens", "8", "--temperature", "0"]
    printed = run("vision_language.py", "-m", model_type, "--model", str(tmp_path), "--modality", modality, *arguments)
    asked = QUESTIONS[modality]
    assert [printed.count(f"{question}\n    ") for question in asked] == [1, 1]
    assert len(printed) > len("".join(asked)) + 20  # random weights say something, whatever it is
