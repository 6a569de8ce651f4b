"""Every way of cutting the work gives the tokens of the plain way: greedy, fp32, token for token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import Any

import pytest
import torch

from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.families.family import EncoderInput, Layout, MediaSpan
from sensorium.model.config import DecoderConfig
from sensorium.model.decoder import Decoder
from sensorium.model.parking import tensors
from sensorium.types import SamplingParams

CONFIG = DecoderConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    max_position_embeddings=1024,
    qk_norm=True,
    num_deepstack_layers=1,
)
NUM_OUTPUT = 10


class FakeEncoder:
    """Two 'layers'; a picture's embeddings are its pixel values projected by a fixed matrix."""

    num_layers = 2
    out_features = 64

    def __init__(self, seed: int) -> None:
        self.matrix = torch.randn(4, self.out_features, generator=torch.Generator().manual_seed(seed))
        self.num_encoded = 0

    def load(self, weights: Any) -> None:
        raise AssertionError

    def encode(self, items: SequenceOf[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        self.num_encoded += len(items)
        yield None
        yield None
        yield [item.tensors["pixel_values"] @ self.matrix for item in items]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    generator = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * (0.3 if len(shape) > 1 else 1)

    c = CONFIG
    weights = {"embed_tokens.weight": random_tensor(300, 32), "norm.weight": random_tensor(32)}
    weights["lm_head.weight"] = random_tensor(300, 32)
    for index in range(c.num_hidden_layers):
        layer = f"layers.{index}."
        for name, shape in {
            "self_attn.q_proj": (32, 32),
            "self_attn.k_proj": (16, 32),
            "self_attn.v_proj": (16, 32),
            "self_attn.o_proj": (32, 32),
            "mlp.gate_proj": (64, 32),
            "mlp.up_proj": (64, 32),
            "mlp.down_proj": (32, 64),
            "self_attn.q_norm": (8,),
            "self_attn.k_norm": (8,),
            "input_layernorm": (32,),
            "post_attention_layernorm": (32,),
        }.items():
            weights[f"{layer}{name}.weight"] = random_tensor(*shape)
    return Decoder(c, weights)


def picture(number: int, num_tokens: int, values: int = 4) -> EncoderInput:
    pixels = torch.randn(num_tokens, values, generator=torch.Generator().manual_seed(number))
    return EncoderInput({"pixel_values": pixels}, Layout((1, num_tokens, 1), num_tokens), cost=num_tokens)


def tiles(number: int) -> EncoderInput:
    """Three tiles with tokens between them that are no slots, for the other encoder."""
    token_ids = [7, *[299] * 4, 8, *[299] * 3, 8, 8, *[299] * 4, 9]
    layout = Layout.of(token_ids, 299)
    return replace(picture(number, layout.num_slots), layout=layout, encoder="audio")


def prompt(number: int) -> Prompt:
    """A prompt of its own length; every second one has one or two pictures, some of them shared."""
    source = random.Random(number)
    ids = [source.randrange(300) for _ in range(source.choice((1, 5, 16, 31, 70, 130)))]
    if number % 2 == 0:
        return Prompt(ids)
    spans, inputs = [], []
    for which in range(source.choice((1, 2))):
        name = source.choice((100, 101, 102))
        item = tiles(name) if name == 101 else picture(name, 9 + name - 100)
        at = len(ids)
        ids += item.layout.token_ids or [299] * item.layout.num_slots
        ids += [source.randrange(299) for _ in range(3 + which)]
        spans.append(MediaSpan(at, f"picture {name}".encode(), item.layout))
        inputs.append(item)
    return Prompt(ids, tuple(spans), tuple(inputs))


def engine(decoder: Decoder, **limits: Any) -> Engine:
    return Engine(
        decoder,
        {"vision": FakeEncoder(9), "audio": FakeEncoder(8)},
        EngineLimits(**({"num_blocks": 400, "block_size": 16} | limits)),
    )


def run(
    decoder: Decoder, prompts: SequenceOf[Prompt], *, engine_: Engine | None = None, **limits: Any
) -> list[list[int]]:
    used = engine_ or engine(decoder, **limits)
    sequences = [
        Sequence((str(at), 0), item, SamplingParams(temperature=0, max_tokens=NUM_OUTPUT), NUM_OUTPUT, frozenset(), at)
        for at, item in enumerate(prompts)
    ]
    for sequence in sequences:
        assert used.add(sequence)
    for _ in range(5000):
        if not used.has_work:
            break
        for sequence, _sampled in used.step().tokens:
            if sequence.num_output_tokens == NUM_OUTPUT:
                used.remove(sequence)
    assert not used.has_work
    assert used.scheduler.pool.num_free == used.scheduler.pool.num_usable, "blocks leaked"
    return [sequence.token_ids[sequence.num_prompt_tokens :] for sequence in sequences]


@pytest.fixture(scope="module")
def plain(decoder: Decoder) -> list[list[int]]:
    """Each prompt alone, whole, without any cache."""
    return [run(decoder, [prompt(n)], prefix_caching=False, block_size=256, num_blocks=3)[0] for n in range(8)]


@pytest.mark.parametrize("chunk", [1, 7, 64, 2048])
@pytest.mark.parametrize("block_size", [16, 64])
def test_chunk_and_block_sizes(decoder: Decoder, plain: list[list[int]], chunk: int, block_size: int) -> None:
    limits = {"max_num_batched_tokens": chunk, "max_mixed_tokens": chunk, "block_size": block_size}
    assert run(decoder, [prompt(n) for n in range(8)], **limits) == plain


@pytest.mark.parametrize("limits", [{"max_num_seqs": 2}, {"encoder_share": 0}, {"max_encoder_patches": 1}])
def test_other_limits(decoder: Decoder, plain: list[list[int]], limits: dict[str, int]) -> None:
    assert run(decoder, [prompt(n) for n in range(8)], **limits) == plain


def test_preemption(decoder: Decoder, plain: list[list[int]]) -> None:
    small = engine(decoder, num_blocks=19)
    assert run(decoder, [prompt(n) for n in range(8)], engine_=small) == plain
    assert small.scheduler.num_preemptions > 0, "the pool was not small enough to test anything"


@pytest.mark.parametrize("seed", range(4))
def test_preemption_at_random_steps(decoder: Decoder, plain: list[list[int]], seed: int) -> None:
    source = random.Random(seed)
    shaken = engine(decoder, max_num_batched_tokens=40, prefix_caching=bool(seed % 2))
    step, scheduler = shaken.step, shaken.scheduler

    def step_and_preempt() -> Any:
        if scheduler.running and source.random() < 0.3:
            victim = scheduler.running.pop(source.randrange(len(scheduler.running)))
            scheduler._free(victim)
            scheduler.waiting.appendleft(victim)
        return step()

    shaken.step = step_and_preempt  # type: ignore[method-assign]
    assert run(decoder, [prompt(n) for n in range(8)], engine_=shaken) == plain


def test_prefix_cache_is_used_and_changes_nothing(decoder: Decoder, plain: list[list[int]]) -> None:
    warm = engine(decoder)
    prompts = [prompt(n) for n in range(8)]
    assert run(decoder, prompts, engine_=warm) == plain
    first = warm.num_computed_tokens
    assert run(decoder, prompts, engine_=warm) == plain
    assert warm.num_computed_tokens - first < first / 2


def test_the_same_picture_is_encoded_once(decoder: Decoder) -> None:
    used = engine(decoder)
    encoders = used._encoding._encoders.values()  # type: ignore[union-attr]
    run(decoder, [prompt(n) for n in (1, 3, 5, 7, 1)], engine_=used)
    wanted = {span.key for n in (1, 3, 5, 7) for span in prompt(n).spans}
    assert sum(encoder.num_encoded for encoder in encoders) == len(wanted)  # type: ignore[attr-defined]


def test_rows_go_to_slots_only(decoder: Decoder) -> None:
    """An item of one token is the same as its tokens around an item of one slot."""
    whole = replace(picture(1, 1), layout=Layout.of([7, 299, 9], 299))
    inner = picture(1, 1)
    prompts = [
        Prompt([1, 2, 7, 299, 9, 3], (MediaSpan(2, b"whole", whole.layout),), (whole,)),
        Prompt([1, 2, 7, 299, 9, 3], (MediaSpan(3, b"inner", inner.layout),), (inner,)),
    ]
    first, second = run(decoder, prompts)
    assert first == second


def test_pictures_of_one_size_but_other_content_differ(decoder: Decoder) -> None:
    def with_picture(number: int, key: bytes, salt: str = "") -> Prompt:
        item = picture(number, 12)
        ids = [5] * 20 + [299] * 12 + [6] * 20
        return Prompt(ids, (MediaSpan(20, key, item.layout),), (item,), cache_salt=salt)

    used = engine(decoder)
    first = run(decoder, [with_picture(1, b"one")], engine_=used)
    other = run(decoder, [with_picture(2, b"two")], engine_=used)
    assert first != other
    assert other == run(decoder, [with_picture(2, b"two")], prefix_caching=False)


def test_salts_share_no_blocks(decoder: Decoder) -> None:
    used = engine(decoder)
    ids = list(range(100))
    run(decoder, [Prompt(ids, cache_salt="a")], engine_=used)
    before = used.num_computed_tokens
    run(decoder, [Prompt(ids, cache_salt="b")], engine_=used)
    assert used.num_computed_tokens - before == 100 + NUM_OUTPUT - 1
    before = used.num_computed_tokens
    run(decoder, [Prompt(ids, cache_salt="a")], engine_=used)
    assert used.num_computed_tokens - before < 30


def test_abort_in_every_state_frees_everything(decoder: Decoder, plain: list[list[int]]) -> None:
    for stop_after in range(12):
        used = engine(decoder, max_num_batched_tokens=50, max_num_seqs=4, encoder_share=0)
        sequences = [
            Sequence((str(n), 0), prompt(n), SamplingParams(temperature=0), NUM_OUTPUT, frozenset(), 0)
            for n in range(8)
        ]
        for sequence in sequences:
            used.add(sequence)
        for _ in range(stop_after):
            used.step()
        for sequence in sequences:
            used.remove(sequence)
        assert used.scheduler.pool.num_free == used.scheduler.pool.num_usable
        assert run(decoder, [prompt(n) for n in range(8)], engine_=used) == plain


def test_a_big_picture_does_not_stop_others(decoder: Decoder) -> None:
    used = engine(decoder, encoder_share=0)
    talking = Sequence(("a", 0), Prompt([1, 2, 3]), SamplingParams(temperature=0), 50, frozenset(), 0)
    used.add(talking)
    used.step()
    item = picture(100, 40)
    looking = Sequence(
        ("b", 0),
        Prompt([299] * 40 + [1], (MediaSpan(0, b"big", item.layout),), (item,)),
        SamplingParams(temperature=0),
        50,
        frozenset(),
        0,
    )
    used.add(looking)
    for _ in range(3):  # two layers and the result, one a step: a token of the other sequence comes with each
        before = talking.num_output_tokens
        used.step()
        assert talking.num_output_tokens == before + 1
    used.step()
    assert looking.num_output_tokens == 1


def test_evicted_encoder_output_is_asked_for_again(decoder: Decoder) -> None:
    used = engine(decoder, encoder_cache_bytes=0)
    item = picture(100, 9)
    span = MediaSpan(0, b"gone", item.layout)
    run(decoder, [Prompt([299] * 9 + [1], (span,), (item,))], engine_=used)
    without = Prompt([299] * 9 + [1], (span,), (None,))
    assert not used.add(Sequence(("x", 0), without, SamplingParams(), 5, frozenset(), 0))
    assert not used.has_work


def test_a_poisoned_sequence_fails_alone(decoder: Decoder, plain: list[list[int]]) -> None:
    used = engine(decoder)
    poison = Sequence(("p", 0), Prompt([1, 2, 999]), SamplingParams(temperature=0), 5, frozenset(), 0)
    sequences = [
        Sequence((str(n), 0), prompt(n), SamplingParams(temperature=0), NUM_OUTPUT, frozenset(), 0) for n in range(8)
    ]
    for sequence in (*sequences[:3], poison, *sequences[3:]):
        used.add(sequence)
    failed = []
    for _ in range(200):
        if not used.has_work:
            break
        result = used.step()
        failed += result.failed
        for sequence in result.failed:
            used.remove(sequence)
        for sequence, _sampled in result.tokens:
            if sequence.num_output_tokens == NUM_OUTPUT:
                used.remove(sequence)
    assert failed == [poison]
    assert [s.token_ids[s.num_prompt_tokens :] for s in sequences] == plain


def test_an_encoder_failure_ends_only_those_who_need_it(decoder: Decoder, plain: list[list[int]]) -> None:
    used = engine(decoder)
    broken = picture(0, 9, values=3)  # the encoder wants four features
    poison = Sequence(
        ("p", 0),
        Prompt([299] * 9 + [1], (MediaSpan(0, b"broken", broken.layout),), (broken,)),
        SamplingParams(temperature=0),
        5,
        frozenset(),
        0,
    )
    used.add(poison)
    assert used.step().failed == [poison]
    used.remove(poison)
    assert run(decoder, [prompt(n) for n in range(8)], engine_=used) == plain


def test_an_item_that_an_encoder_fails_for_does_not_cost_those_encoded_with_it(decoder: Decoder) -> None:
    def one(name: str, item: EncoderInput) -> Sequence:
        asked = Prompt([299] * 9 + [1], (MediaSpan(0, name.encode(), item.layout),), (item,))
        return Sequence((name, 0), asked, SamplingParams(temperature=0), 2, frozenset(), 0)

    broken = picture(0, 9, values=3)  # the encoder wants four features
    used = engine(decoder)
    sequences = [one(name, broken if name in "be" else picture(5, 9)) for name in "abcde"]
    for sequence in sequences:
        used.add(sequence)
    failed: list[str] = []
    answered: list[str] = []
    for _ in range(100):
        if not used.has_work:
            break
        result = used.step()
        for sequence in result.failed:
            failed.append(sequence.id[0])
            used.remove(sequence)
        for sequence, _sampled in result.tokens:
            if sequence.num_output_tokens == 2:
                answered.append(sequence.id[0])
                used.remove(sequence)
    assert sorted(failed) == ["b", "e"]
    assert sorted(answered) == ["a", "c", "d"]


def test_after_sleep_and_wake_answers_are_the_same(decoder: Decoder) -> None:
    prompts = [prompt(number) for number in range(6)]
    wanted = run(decoder, prompts)
    one = engine(decoder)
    assert run(decoder, prompts, engine_=one) == wanted
    weights = list(tensors(decoder))
    before = [tensor.clone() for tensor in weights]
    for _ in range(2):
        one.sleep()
        assert all(not tensor.untyped_storage().nbytes() for tensor in weights), "every weight has left"
        assert one.encoder_cache.num_bytes == 0
        one.wake()
        assert all(torch.equal(*pair) for pair in zip(weights, before, strict=True))
        assert run(decoder, prompts, engine_=one) == wanted
