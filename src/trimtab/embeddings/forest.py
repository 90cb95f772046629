"""Token sequences to prefix forests: many completions in one forward pass, every shared token computed once.

Prompt and completions of a group, and the chat template's opening of all prompts, begin alike. The sequences are merged
into a trie; the trie's nodes become one sequence without padding, each node attending to itself and its ancestors only,
at the position it has in its own sequence. A causal model gives each node the state that it has in a forward pass of
that sequence alone (to float rounding). Identical completions are the same path. The idea is tree attention, which
speculative decoders use (SpecInfer, arXiv 2305.09781); here nothing is generated. It knows nothing of models.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Forest:
    """The merged sequences: per node its token, parent (-1 for none) and position; per sequence its path of nodes."""

    token_T: npt.NDArray[np.int64]
    parent_T: npt.NDArray[np.int64]
    position_T: npt.NDArray[np.int64]
    paths: tuple[tuple[int, npt.NDArray[np.int64]], ...]
    """(number of the sequence, its nodes from first to last token)."""

    @property
    def is_chain(self) -> bool:
        """Whether every node's parent is the node before it: plain causal attention is enough."""
        return bool((self.parent_T == np.arange(-1, len(self.parent_T) - 1)).all())

    def mask_TT(self, window: int | None = None) -> npt.NDArray[np.bool_]:
        """Row t is true at the node itself and its ancestors, with `window` only at those less than `window` before."""
        size = len(self.token_T)
        mask_TT = np.zeros((size, size), dtype=bool)
        for node, parent in enumerate(self.parent_T):  # parents come before their children
            if parent >= 0:
                mask_TT[node] = mask_TT[parent]
            mask_TT[node, node] = True
        if window is not None:
            mask_TT &= self.position_T[:, None] - self.position_T[None, :] < window
        return mask_TT


def forests(sequences: Sequence[Sequence[int]], limit: int) -> Iterator[Forest]:
    """Merges consecutive non-empty sequences into forests of at most `limit` nodes (one sequence may exceed it)."""
    builder = _Builder()
    for number, tokens in enumerate(sequences):
        new = builder.new_nodes(tokens)
        if builder.paths and len(builder.tokens) + new > limit:
            yield builder.done()
            builder = _Builder()
        builder.add(number, tokens)
    if builder.paths:
        yield builder.done()


def single(sequences: Iterable[Sequence[int]]) -> Iterator[Forest]:
    """One chain a sequence, nothing shared: for models whose layers do not take a mask (recurrent, ALiBi)."""
    for number, tokens in enumerate(sequences):
        builder = _Builder()
        builder.add(number, tokens)
        yield builder.done()


class _Builder:
    def __init__(self) -> None:
        self.children: dict[tuple[int, int], int] = {}
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.positions: list[int] = []
        self.paths: list[tuple[int, npt.NDArray[np.int64]]] = []

    def new_nodes(self, tokens: Sequence[int]) -> int:
        """How many nodes `add` would make."""
        node = -1
        for depth, token in enumerate(tokens):
            if (node := self.children.get((node, token), -2)) == -2:
                return len(tokens) - depth
        return 0

    def add(self, number: int, tokens: Sequence[int]) -> None:
        node, path = -1, []
        for depth, token in enumerate(tokens):
            child = self.children.get((node, token))
            if child is None:
                child = self.children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(node)
                self.positions.append(depth)
            node = child
            path.append(node)
        self.paths.append((number, np.array(path, dtype=np.int64)))

    def done(self) -> Forest:
        tokens, parents, positions = (np.array(x, np.int64) for x in (self.tokens, self.parents, self.positions))
        return Forest(tokens, parents, positions, tuple(self.paths))
