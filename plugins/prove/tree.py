"""Compute one hash over many leaves, and the few hashes that prove that a leaf is one of them.

A Merkle tree as in RFC 6962: if a level has an odd number of nodes, the last one goes up unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import zip_longest


def leaf_hash(content: bytes) -> bytes:
    return hashlib.sha256(b"\0" + content).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """The hashes of all leaves and nodes: 64 bytes per leaf, and Python's overhead."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """leaves: their hashes, at least one."""
        self._levels = [leaves]
        while len(level := self._levels[-1]) > 1:
            pairs = zip_longest(level[::2], level[1::2])
            self._levels.append([_node_hash(*pair) if pair[1] else pair[0] for pair in pairs])

    @property
    def root(self) -> bytes:
        return self._levels[-1][0]

    def path(self, position: int) -> list[bytes]:
        """Return the sibling hashes on the way from a leaf to the root."""
        path = []
        for level in self._levels[:-1]:
            if (neighbour := position ^ 1) < len(level):
                path.append(level[neighbour])
            position //= 2
        return path


def root_from(leaf: bytes, path: Sequence[bytes], *, position: int, num_leaves: int) -> bytes | None:
    """Return the root of the tree with this leaf at this position; None if the path does not fit."""
    left, node = list(path), leaf
    while num_leaves > 1:
        if position ^ 1 < num_leaves:
            if not left:
                return None
            neighbour = left.pop(0)
            node = _node_hash(neighbour, node) if position % 2 else _node_hash(node, neighbour)
        position, num_leaves = position // 2, (num_leaves + 1) // 2
    return None if left else node
