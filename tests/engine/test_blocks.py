"""The block pool against a model of it: no block is lost, handed out twice, or forgotten too early."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.engine.blocks import BlockPool


def test_block_zero_is_padding() -> None:
    pool = BlockPool(4)
    assert sorted(pool.allocate() for _ in range(3)) == [1, 2, 3]
    assert pool.num_free == 0
    with pytest.raises(IndexError):
        pool.allocate()


def test_a_hashed_block_survives_release_and_is_reused_last() -> None:
    pool = BlockPool(4)
    first, second = pool.allocate(), pool.allocate()
    pool.remember(first, b"a")
    pool.release([first, second])
    assert pool.find(b"a") == first
    assert pool.allocate() != first  # unhashed blocks go first
    assert pool.allocate() != first
    assert pool.allocate() == first
    assert pool.find(b"a") is None


def test_the_end_of_a_prompt_is_forgotten_before_its_beginning() -> None:
    pool = BlockPool(4)
    blocks = [pool.allocate() for _ in range(3)]
    for block, key in zip(blocks, (b"1", b"2", b"3"), strict=True):
        pool.remember(block, key)
    pool.release(blocks)
    pool.allocate()
    assert pool.find(b"3") is None
    assert pool.find(b"1") == blocks[0]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), num_blocks=st.integers(2, 24))
def test_random_use_loses_nothing(seed: int, num_blocks: int) -> None:
    random_source = random.Random(seed)
    pool = BlockPool(num_blocks)
    owners: list[list[int]] = []
    content: dict[bytes, int] = {}
    for turn in range(300):
        action = random_source.random()
        if action < 0.45 and pool.num_free:
            block = pool.allocate()
            assert all(block not in owner for owner in owners), "handed out while in use"
            content = {key: at for key, at in content.items() if at != block}
            owners.append([block])
            if random_source.random() < 0.6:
                key = str(turn).encode()
                pool.remember(block, key)
                content[key] = block
        elif action < 0.65 and content:
            key = random_source.choice(sorted(content))
            found = pool.find(key)
            assert found == content[key]
            pool.take(found)
            owners.append([found])
        elif owners:
            pool.release(owners.pop(random_source.randrange(len(owners))))
        in_use = {block for owner in owners for block in owner}
        assert pool.num_free == num_blocks - 1 - len(in_use)
        assert all(pool.find(key) == at for key, at in content.items())
    for owner in owners:
        pool.release(owner)
    assert pool.num_free == pool.num_usable
