"""The pool of KV cache blocks: who uses which, and which full blocks can be used again.

A block is free (in LRU order, possibly still holding a hashed prefix), or used by one or more sequences. A
block that held a full, hashed piece of a prompt keeps its content after it is freed until it is handed out anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class BlockPool:
    """Counts references to `num_blocks` blocks and remembers hashed ones.

    Block 0 is never handed out: padding in gathered block tables points at it.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))  # least recently used first
        self._hash_of: dict[int, bytes] = {}
        self._by_hash: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that can be handed out now, hashed ones included."""
        return len(self._free)

    @property
    def num_usable(self) -> int:
        """Blocks one sequence could have if it were alone."""
        return self.num_blocks - 1

    def allocate(self) -> int:
        """Take the least recently used free block; what it held is forgotten.

        Raises:
            IndexError: no block is free; ask `num_free` first.
        """
        if not self._free:
            raise IndexError("no free block")
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._references[block] = 1
        return block

    def find(self, block_hash: bytes) -> int | None:
        """Return the block that holds this content, without taking it."""
        return self._by_hash.get(block_hash)

    def is_free(self, block: int) -> bool:
        """Whether taking `block` would use up a free block."""
        return block in self._free

    def take(self, block: int) -> None:
        """Use a block found by `find`, together with whoever uses it already."""
        if self._references[block] == 0:
            del self._free[block]
        self._references[block] += 1

    def remember(self, block: int, block_hash: bytes) -> None:
        """Note that `block` is full and holds the content `block_hash` stands for."""
        if block_hash not in self._by_hash and block not in self._hash_of:
            self._by_hash[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Iterable[int]) -> None:
        """Give back one reference to each block of a sequence, given in prompt order.

        The end of a prompt is freed before its beginning, so that the beginning, which more prompts share,
        is reused last.
        """
        for block in reversed(list(blocks)):
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._hash_of:
                    self._free[block] = None
                else:
                    self._free[block] = None
                    self._free.move_to_end(block, last=False)  # nothing to remember: hand it out first

    def _forget(self, block: int) -> None:
        block_hash = self._hash_of.pop(block, None)
        if block_hash is not None:
            del self._by_hash[block_hash]
