"""Every sampling field means what it means in the native engine, as the sampler is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensorium import LLM, SamplingParams
from sensorium.errors import InvalidRequest, SensoriumError
from tests.hf.checkpoints import gpt_neox, idefics3
from tests.hf.reference import GREEDY, answer, ask, picture

FREE = {"max_tokens": 12, "temperature": 3.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    with LLM(str(gpt_neox(tmp_path_factory.mktemp("neox"))), dtype="float32") as loaded:
        yield loaded


def tokens(llm: LLM, sampling: SamplingParams, index: int = 0) -> list[int]:
    return answer(llm, ask("Hello"), sampling).outputs[index].token_ids


def test_choices_are_drawn_as_if_each_were_alone(llm: LLM) -> None:
    together = answer(llm, ask("Hello"), SamplingParams(n=3, seed=5, **FREE)).outputs
    alone = [tokens(llm, SamplingParams(seed=5 + index, **FREE)) for index in range(3)]
    assert [choice.token_ids for choice in together] == alone
    assert len(set(map(tuple, alone))) == 3


def test_log_probabilities_and_bans(llm: LLM) -> None:
    output = answer(llm, ask("Hello"), SamplingParams(temperature=0, max_tokens=3, logprobs=2, ignore_eos=True))
    first = output.outputs[0].logprobs
    assert first is not None
    likeliest = output.outputs[0].token_ids[0]
    assert first[0][likeliest].rank == 1
    assert len(first[0]) == 2
    second = next(token_id for token_id in first[0] if token_id != likeliest)
    banned = SamplingParams(temperature=0, max_tokens=1, logit_bias={likeliest: -100.0})
    assert tokens(llm, banned) == [second]
    stopped = answer(llm, ask("Hello"), SamplingParams(temperature=0, stop_token_ids=[likeliest])).outputs[0]
    assert (stopped.finish_reason, stopped.stop_reason, stopped.token_ids) == ("stop", likeliest, [likeliest])


def test_stop_strings_end_the_answer(llm: LLM) -> None:
    whole = answer(llm, ask("Hello"), GREEDY).outputs[0].text
    stop = whole[3:5]
    stopped = answer(llm, ask("Hello"), SamplingParams(temperature=0, max_tokens=16, stop=[stop])).outputs[0]
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.stop_reason == stop


def test_what_generation_config_asks_for_beside_sampling_is_followed(llm: LLM, tmp_path: Path) -> None:
    likeliest = tokens(llm, GREEDY)[0]
    path = gpt_neox(tmp_path)
    config = {"suppress_tokens": [likeliest], "do_sample": True, "temperature": 9.0, "repetition_penalty": 1.5}
    (path / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 546}))
    with LLM(str(path), dtype="float32") as suppressed:
        assert suppressed.get_default_sampling_params().repetition_penalty == 1.5
        told = answer(suppressed, ask("Hello"), SamplingParams(temperature=0, max_tokens=1, logprobs=1)).outputs[0]
        assert told.token_ids[0] != likeliest
        # Neutral means neutral, whatever the file says: all but the banned token is as without the file.
        banned = SamplingParams(temperature=0, max_tokens=8, logit_bias={likeliest: -100.0}, ignore_eos=True)
        assert tokens(suppressed, SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)) == tokens(llm, banned)


def test_what_is_wrong_is_refused_by_name(llm: LLM) -> None:
    def param(prompt: object, sampling: SamplingParams = GREEDY, **more: object) -> str | None:
        with pytest.raises(InvalidRequest) as refused:
            llm.chat(prompt, sampling, use_tqdm=False, **more)  # type: ignore[arg-type]
        return refused.value.param

    assert param(ask("word " * 600)) == "messages"
    assert param(ask("hi"), SamplingParams(logit_bias={9999: 1.0})) == "logit_bias"
    assert param(ask("hi"), mm_processor_kwargs={"max_pixels": 9}) == "mm_processor_kwargs.max_pixels"
    assert len(tokens(llm, GREEDY)) == 16


def test_pictures_that_are_wrong_are_refused_by_name(tmp_path: Path) -> None:
    with LLM(str(idefics3(tmp_path)), dtype="float32") as llm:
        shown = {"multi_modal_data": {"image": picture()}}
        with pytest.raises(InvalidRequest, match="send the prompt as text"):
            llm.generate({"prompt_token_ids": [1, 2, 3], **shown}, GREEDY, use_tqdm=False)
        with pytest.raises(InvalidRequest, match=r"0 image placeholders \(<image>\), but 1 image items"):
            llm.generate({"prompt": "no place for it", **shown}, GREEDY, use_tqdm=False)
        with pytest.raises(InvalidRequest, match="1 image placeholders"):
            llm.generate({"prompt": "a place <image>, but no picture"}, GREEDY, use_tqdm=False)
        with pytest.raises(InvalidRequest, match="512"):
            answer(llm, ask("?", *[picture(n) for n in range(20)]))
        assert len(answer(llm, ask("?", picture())).outputs[0].token_ids) == 16


def test_a_request_on_which_the_model_fails_ends_alone(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.hf import engine

    begin = engine.begin

    def failing(model: object, prompt: object, max_tokens: int) -> object:
        if max_tokens == 13:
            raise RuntimeError("a secret of the library")
        return begin(model, prompt, max_tokens)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "begin", failing)
    before = tokens(llm, GREEDY)
    with pytest.raises(SensoriumError, match="the log says why") as failed:
        tokens(llm, SamplingParams(max_tokens=13))
    assert "secret" not in failed.value.message
    assert tokens(llm, GREEDY) == before
