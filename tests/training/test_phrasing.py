"""The wordings of the training must stay apart from those of the test of tiny-vl."""

import random
import re

import pytest

from training import patterns_en, patterns_zh, phrasing, wordings_en, wordings_zh

PLACES = {
    "en": (wordings_en, patterns_en.PATTERNS),
    "zh": (wordings_zh, patterns_zh.PATTERNS),
}


@pytest.mark.parametrize("lang", PLACES)
def test_no_wording_of_the_training_is_held_out(lang: str) -> None:
    listed, _ = PLACES[lang]
    rng = random.Random(0)
    kept = phrasing.held_out(lang)
    assert len(kept) > 40
    for task, wordings in listed.TRAIN.items():
        assert not {phrasing.plain(text) for text in wordings} & kept, task
        for _ in range(500):
            assert phrasing.plain(phrasing.train(rng, lang, task)) not in kept


@pytest.mark.parametrize("lang", PLACES)
def test_composed_wordings_have_the_slots_of_the_listed_ones(lang: str) -> None:
    listed, composed = PLACES[lang]
    for task, wordings in listed.TRAIN.items():
        slots = {slot for text in wordings for slot in re.findall(r"\{(\w+)\}", text)} | {"p"}
        for pattern in composed[task]:
            assert set(re.findall(r"\{(\w+)\}", pattern)) <= slots, pattern


def test_a_pattern_stands_for_all_its_texts() -> None:
    rng = random.Random(0)
    found = {phrasing.expand(rng, "(What|Which colo(u|)r) is it (here|)?") for _ in range(200)}
    assert found == {
        f"{first} is it{last}?" for first in ("What", "Which color", "Which colour") for last in ("", " here")
    }


@pytest.mark.parametrize("lang", PLACES)
def test_a_disturbed_wording_keeps_its_slots(lang: str) -> None:
    rng = random.Random(0)
    for text in PLACES[lang][0].TRAIN["relation"]:
        changed = phrasing.disturbed(rng, lang, text)
        assert "{the}" in changed
        assert "{other}" in changed
