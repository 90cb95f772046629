"""A response matrix to another one with other rows: joined splits, balanced tags, no n-gram shared with a test set.

The paper's data recipe (DivInstruct; Lu et al. 2024, section 4.1) is `balanced`, then `without_overlap`. Splits are
in matrix.py.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trimtab.data.matrix.matrix import ResponseMatrix, overlap
from trimtab.errors import InputError


def join_matrices(parts: Sequence[ResponseMatrix]) -> ResponseMatrix:
    """The prompts of several matrices over one pool, in order; an id that was there before gets "#2", "#3", ...

    For test sides of several splits, which share prompts. InputError when the pools differ or there is no part.
    """
    if not parts or any(p.models != parts[0].models for p in parts):
        raise InputError("matrices can be joined only over the same models in the same order; use .pool() first")
    count: dict[str, int] = {}
    prompts = []
    for prompt in (q for p in parts for q in p.prompts):
        count[prompt.id] = count.get(prompt.id, 0) + 1
        n = count[prompt.id]
        prompts.append(prompt if n == 1 else replace(prompt, id=f"{prompt.id}#{n}"))
    texts = tuple(row for p in parts for row in p.text_PM) if all(p.text_PM for p in parts) else ()
    reward, tokens, price, latency = (
        np.concatenate([np.asarray(getattr(p, k)) for p in parts])
        for k in ("reward_PM", "tokens_PM", "price_PM", "latency_PM")
    )
    tags = tuple(row for p in parts for row in p.tags)
    return ResponseMatrix(tuple(prompts), parts[0].models, reward, tags, tokens, price, latency, texts)


def balanced(matrix: ResponseMatrix, per_tag: int = 10, seed: int = 0) -> ResponseMatrix:
    """DivInstruct's sampling: up to `per_tag` random prompts of each tag, each prompt once, in the matrix's order.

    A prompt with several tags counts for each of them. InputError when no prompt has a tag or per_tag < 1.
    """
    if per_tag < 1 or not any(matrix.tags):
        raise InputError("balanced sampling needs tags and per_tag >= 1; give task labels or make tags with a tagger")
    order = np.random.default_rng(seed).permutation(len(matrix))
    taken: set[int] = set()
    for tag in sorted({t for row in matrix.tags for t in row}):
        taken.update([int(i) for i in order if tag in matrix.tags[i]][:per_tag])
    return matrix.rows(sorted(taken))


def without_overlap(
    train: ResponseMatrix, test: ResponseMatrix | Sequence[ResponseMatrix], n: int = 6
) -> tuple[ResponseMatrix, int]:
    """(clean, dropped): the training prompts that share no n-gram of words with any evaluation set, and how many do.

    The paper's decontamination, n = 6. InputError when nothing is left.
    """
    shared = np.zeros(len(train), bool)
    for side in [test] if isinstance(test, ResponseMatrix) else test:
        shared |= overlap(train, side, n)[1]
    if shared.all():
        raise InputError(
            f"every one of {len(train)} training prompts shares {n} words in a row with the evaluation set"
        )
    return train.rows(~shared), int(shared.sum())
