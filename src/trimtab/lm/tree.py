"""Token sequences to rows that compute every shared token once, and the one mask that keeps each to its own past.

Two layouts. A forest merges the sequences of many prompts into one row without padding: for reading. Branch rows hold
one prompt and its completions each, padded: for training, where gradients and the order of completions matter. A causal
model gives each token the state of a forward pass of its sequence alone (to float rounding). This is tree attention, as
speculative decoders use it (SpecInfer, arXiv 2305.09781). It runs no model.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.tensors import pad_right

TokenIds = Sequence[int]


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

    @property
    def sees_TT(self) -> npt.NDArray[np.bool_]:
        """Row t is true at the node itself and its ancestors."""
        size = len(self.token_T)
        sees_TT = np.zeros((size, size), dtype=bool)
        for node, parent in enumerate(self.parent_T):  # parents come before their children
            if parent >= 0:
                sees_TT[node] = sees_TT[parent]
            sees_TT[node, node] = True
        return sees_TT


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


class BranchRows(NamedTuple):
    """Prompts with their completions laid out so that a prompt is run once: row b = prompt, branch 1, branch 2, ...

    `position_BT` restarts after the prompt for each branch. Entry x of the flat arrays is one completion token:
    its logits stand at `source_X` (an index into B·T), it is token `target_X`, and it belongs to completion `owner_X`
    (numbered through all rows).
    """

    ids_BT: Tensor
    position_BT: Tensor
    branch_BT: Tensor
    """0 = prompt, 1, 2, ... = branch, -1 = padding."""
    source_X: Tensor
    target_X: Tensor
    owner_X: Tensor
    owners: int

    def to(self, device: torch.device | str) -> "BranchRows":
        """The same rows on another device."""
        return self._replace(**{k: v.to(device) for k, v in self._asdict().items() if k != "owners"})

    def sums(self, values_X: Tensor) -> Tensor:
        """Sum of per-token values over each completion, shape (owners, ...) for values of shape (X, ...)."""
        return values_X.new_zeros((self.owners, *values_X.shape[1:])).index_add(0, self.owner_X, values_X)

    @property
    def sees_BTT(self) -> Tensor:
        """Row t is true at the earlier tokens of the prompt and of one's own branch, and at itself. Padding sees itself
        alone, so that no row of the softmax is empty."""
        query, key = self.branch_BT[:, :, None], self.branch_BT[:, None, :]
        causal = torch.ones(key.shape[-1], key.shape[-1], dtype=torch.bool, device=key.device).tril()
        own = torch.eye(key.shape[-1], dtype=torch.bool, device=key.device)
        return causal & ((key == 0) | (key == query)) & (key >= 0) & (query >= 0) | own

    @property
    def own_X(self) -> Tensor:
        """Where each completion token itself stands (an index into B·T), in the order of `target_X`."""
        return (self.branch_BT > 0).flatten().nonzero()[:, 0]

    @property
    def length_C(self) -> Tensor:
        """Tokens of each completion, shape (owners,)."""
        return self.sums(torch.ones_like(self.owner_X))


def branch_rows(prompts: Sequence[Sequence[int]], branches: Sequence[Sequence[Sequence[int]]], pad: int) -> BranchRows:
    """Token ids of B prompts and of each one's completions to `BranchRows`, padded on the right with id `pad`.

    The first token of every branch is predicted at the prompt's last token: the shift of next-token prediction is here.
    ValueError for an empty prompt (nothing would predict the first token).
    """
    ids, positions, kinds, source, target, owner = [], [], [], [], [], []
    width = max((len(p) + sum(map(len, bs)) for p, bs in zip(prompts, branches, strict=True)), default=0)
    owners = 0
    for b, (prompt, completions) in enumerate(zip(prompts, branches, strict=True)):
        if not prompt:
            raise ValueError(f"row {b}: the prompt has no tokens, so nothing predicts the first token")
        n = len(prompt)
        row, position, kind = [*prompt], [*range(n)], [0] * n
        for i, completion in enumerate(completions, start=1):
            start = b * width + len(row)
            if len(completion):
                source += [b * width + n - 1, *range(start, start + len(completion) - 1)]
            target += completion
            owner += [owners] * len(completion)
            owners += 1
            row += completion
            position += range(n, n + len(completion))
            kind += [i] * len(completion)
        ids.append(row)
        positions.append(position)
        kinds.append(kind)
    flat = (torch.tensor(x, dtype=torch.long) for x in (source, target, owner))
    padded = (pad_right(x, value)[0] for x, value in ((ids, pad), (positions, 0), (kinds, -1)))
    return BranchRows(*padded, *flat, owners)  # pyright: ignore[reportCallIssue]


def length_buckets(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Indices in batches of near-equal length: rows × longest ≤ `budget` tokens, at most `most` rows, at least one.

    Longest first, so that what does not fit in memory fails at once. Deterministic.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        last = batches[-1] if batches else None
        if last and lengths[last[0]] * (len(last) + 1) <= budget and (most is None or len(last) < most):
            last.append(i)
        else:
            batches.append([i])
    return batches


def lay_out(prompts: Sequence[TokenIds], branches: Sequence[Sequence[TokenIds]], *, share_prompt: bool) -> BranchRows:
    """Rows for `hidden_at`: one row a prompt with all its completions, or (`share_prompt=False`) one a completion.

    Completions are numbered the same way in both.
    """
    if share_prompt:
        return branch_rows(prompts, branches, 0)
    flat = [(p, [c]) for p, completions in zip(prompts, branches, strict=True) for c in completions]
    return branch_rows([p for p, _ in flat], [c for _, c in flat], 0)


KNOWN = {"full_attention", "sliding_attention"}


def layer_windows(config: Any) -> dict[str, int | None]:
    """The window of each kind of layer, in positions a token sees back (itself included); None = all of them.

    The kinds are those of the configuration's `layer_types`. A model without these has one kind, "", with the window
    of its configuration. What the class does not declare is a leftover and bounds nothing. ModelError for layers that
    follow no such mask (recurrent, chunked).
    """
    known = dir(type(config))  # what the class declares, its forward reads
    kinds = set((getattr(config, "layer_types", None) if "layer_types" in known else None) or ())
    if kinds - KNOWN:
        raise ModelError(
            f"{config.model_type} has layers of type {', '.join(sorted(kinds - KNOWN))}, not only attention with or "
            "without a window: texts cannot share a row; pass share_prompt=False (shared=False for embeddings)"
        )
    declared = "sliding_window" in known and getattr(config, "use_sliding_window", True)
    window = (getattr(config, "sliding_window", None) or None) if declared else None
    if not kinds:
        return {"": window}
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


def attention(model: Any, sees_BQK: Tensor, query_BQ: Tensor, key_BK: Tensor) -> dict[str, Any]:
    """The mask and positions that a forward takes: query q sees those keys of `sees_BQK` that its layer's window holds.

    `query_BQ` and `key_BK` are positions. The mask is one, or one a kind of layer where kinds differ.
    """
    config = model.config.get_text_config()
    windows = layer_windows(config)
    made = {}
    for window in set(windows.values()):
        may = sees_BQK if window is None else sees_BQK & (query_BQ[:, :, None] - key_BK[:, None, :] < window)
        if config._attn_implementation != "sdpa" or may.device.type == "cpu":  # a CPU would add it anew in every layer
            may = torch.zeros_like(may, dtype=model.dtype).masked_fill_(~may, -torch.inf)
        made[window] = may[:, None]
    mask = made.popitem()[1] if len(made) == 1 else {kind: made[window] for kind, window in windows.items()}
    return {"attention_mask": mask, "position_ids": query_BQ}


@contextlib.contextmanager
def narrowed(config: Any, most: int) -> Iterator[None]:
    """Within the block a sliding window is at most so many positions wide, so that a check on a short text meets it."""
    wide = getattr(config, "sliding_window", None)
    if not wide or wide <= most:
        yield
        return
    config.sliding_window = most
    try:
        yield
    finally:
        config.sliding_window = wide
