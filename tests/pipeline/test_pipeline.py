"""Pipeline on the bundled model: pictures by file, data URL and HTTP, and results that grow."""

from __future__ import annotations

import base64
import functools
import itertools
import logging
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sensorium import ModelConfig, ModelFactory, Pipeline
from sensorium.errors import ConfigurationError, InvalidRequest, MediaError, SensoriumError
from tests.checkpoints import make_checkpoint

DOCS = Path(__file__).parents[2] / "docs"
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
ASK = TURN.format("<img/>What is in this picture?")
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
GREEDY = {"top_k": 1, "max_new_tokens": 100}


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    options = {"allowed_local_media_path": str(DOCS), "allow_private_media": True, "dtype": "float32"}
    model = ModelFactory.from_huggingface("tiny-vl", model_config=ModelConfig(max_seq_len=2048, options=options))
    made = Pipeline(model, model.tokenizer)
    yield made
    made.stop()
    made.stop()
    with pytest.raises(SensoriumError, match="closed"):
        list(made(ASK, urls=[str(DOCS / "shapes.png")]))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(DOCS)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def last(pipeline: Pipeline, prompt: str, **arguments: Any) -> str:
    arguments.setdefault("generate_config", GREEDY)
    (text,) = list(pipeline(prompt, **arguments))[-1].batch_response
    return text


def test_results_grow_until_the_answer_is_complete(pipeline: Pipeline) -> None:
    results = list(pipeline(ASK, urls=[str(DOCS / "shapes.png")], generate_config=GREEDY))
    texts = [result.batch_response[0] for result in results]
    assert texts[-1] == SHAPES
    assert len(texts) > 5
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert [result.finished for result in results] == [False] * (len(results) - 1) + [True]
    end = results[-1]
    assert end.generate_texts == end.batch_response
    output = end.generate_outputs.generate_outputs[0]
    assert pipeline.tokenizer.decode(output.output_ids, skip_special_tokens=True) == SHAPES
    assert output.aux_info.output_len == len(output.output_ids)
    assert output.aux_info.input_len > 25  # the picture alone
    assert output.aux_info.cost_time > 0
    assert results[0].generate_outputs.generate_outputs[0].output_ids == output.output_ids[:1]


def test_increments_add_up(pipeline: Pipeline) -> None:
    results = pipeline(ASK, urls=[str(DOCS / "shapes.png")], return_incremental=True, **GREEDY)
    assert "".join(result.batch_response[0] for result in results) == SHAPES


def test_pictures_come_from_everywhere(pipeline: Pipeline, address: str) -> None:
    data = "data:image/png;base64," + base64.b64encode((DOCS / "shapes.png").read_bytes()).decode()
    assert last(pipeline, ASK, urls=[f"{address}/shapes.png"]) == SHAPES
    assert last(pipeline, ASK, urls=[data]) == SHAPES
    assert last(pipeline, ASK, images=[[(DOCS / "shapes.png").as_uri()]]) == SHAPES
    assert last(pipeline, TURN.format(f"<img>{address}/shapes.png</img>What is in this picture?")) == SHAPES
    assert "star" in last(pipeline, ASK, urls=[f"{address}/star.png"])
    assert last(pipeline, [TURN.format("Who are you?")]).startswith("I am tiny-vl")  # type: ignore[arg-type]


def test_several_answers_to_one_prompt(pipeline: Pipeline) -> None:
    config = {**GREEDY, "num_return_sequences": 2}
    results = list(pipeline(ASK, urls=[str(DOCS / "shapes.png")], generate_config=config))
    assert results[-1].batch_response == [SHAPES, SHAPES]
    assert results[-1].finished


def test_wrong_calls_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"1 picture tags .* 0 URLs"):
        pipeline(ASK)
    with pytest.raises(InvalidRequest, match=r"LLM\.generate"):
        pipeline(["a", "b"])
    with pytest.raises(InvalidRequest, match="prompt"):
        pipeline("")
    with pytest.raises(InvalidRequest, match="num_beams"):
        pipeline("a", num_beams=2)
    with pytest.raises(InvalidRequest) as refused:
        pipeline("a", generate_config={"max_new_tokens": 0})
    assert refused.value.param == "max_new_tokens"
    (tmp_path / "secret.png").write_bytes((DOCS / "shapes.png").read_bytes())
    with pytest.raises(MediaError, match=r"urls\[0\]"):
        list(pipeline(ASK, urls=[str(tmp_path / "secret.png")]))


def test_a_pipeline_can_be_left(pipeline: Pipeline) -> None:
    results = pipeline(ASK, urls=[str(DOCS / "shapes.png")], ignore_me=1, **{**GREEDY, "max_new_tokens": 1000})
    next(results)
    results.close()
    assert last(pipeline, ASK, urls=[str(DOCS / "shapes.png")]) == SHAPES


def test_ids_and_text(pipeline: Pipeline) -> None:
    ids = pipeline.encode("a red circle")
    assert "".join(pipeline.decode(token_id) for token_id in ids) == "a red circle"


def test_settings_become_options(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO)
    make_checkpoint("llama", tmp_path)
    config = ModelConfig(ckpt_path=str(tmp_path), act_type="bf16", max_seq_len=256, sp_type="vanilla")
    model = ModelFactory.from_model_config(config)
    try:
        assert (model.llm.info.dtype, model.llm.info.max_model_len) == ("bfloat16", 256)
        assert not model.is_multimodal()
        assert any("sp_type" in record.getMessage() for record in caplog.records)
        assert last(Pipeline(model, model.tokenizer), "Once", generate_config={"max_new_tokens": 3, "top_k": 1})
        with pytest.raises(InvalidRequest, match="takes text"):
            list(Pipeline(model)("a", urls=["http://x"]))
    finally:
        model.stop()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig(ptuning_path="/x"), "ptuning_path"),
        (ModelConfig(act_type="int8"), "int8"),
        (ModelConfig(tokenizer_path="/x"), "tokenizer_path"),
        (ModelConfig(), "ckpt_path is empty"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(config: ModelConfig, words: str) -> None:
    if words != "ckpt_path is empty":
        config.ckpt_path = "tiny-vl"
    with pytest.raises(ConfigurationError, match=words):
        ModelFactory.from_model_config(config)
