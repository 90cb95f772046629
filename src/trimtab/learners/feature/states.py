"""Pairs, groups or texts to the tokens whose features count, and a MODEL's hidden states of these, batch by batch.

The tokens that count are the completions'; a text is its own completion.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.forward import hidden_at, watched
from trimtab.lm.load import LM
from trimtab.lm.tree import BranchRows, lay_out, length_buckets
from trimtab.types import Group, Pair

Rows = Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]
"""Token ids of each prompt and of its completions."""


def token_rows(tokenizer: Any, data: Iterable[Any]) -> Rows:
    """(prompt ids, completions' ids) of pairs, groups or texts. A text's first token stands as its prompt: models put
    states there that are unlike any other's."""
    rows = []
    for item in data:
        if isinstance(item, (Pair, Group)):
            completions = (item.chosen, item.rejected) if isinstance(item, Pair) else item.completions
            answers = [encode_completion(tokenizer, c, item.prompt) for c in completions]
            rows.append((encode_prompt(tokenizer, item.prompt), answers))
        elif len(ids := tokenizer(item)["input_ids"]) > 1:
            rows.append((ids[:1], [ids[1:]]))
    return rows


@torch.no_grad()
def hidden_rows(lm: LM, rows: Rows, layers: Sequence[int], *, budget: int = 2048) -> Iterator[dict[int, Tensor]]:
    """Hidden states of the completions' tokens, batch by batch: {layer: (X, D)}; -1 is behind the final norm.

    Tokens come in the order of the batches (longest first). InputError for a row longer than the context.
    """
    if (worst := max((len(p) + max(map(len, cs)) for p, cs in rows), default=0)) > lm.context:
        raise InputError(f"a text of {worst} tokens exceeds the context of {lm.name}, {lm.context}: cut it first")
    for _, _, states in laid_out(lm, rows, layers, budget):
        yield states


def laid_out(
    lm: LM, rows: Rows, layers: Sequence[int], budget: int
) -> Iterator[tuple[list[int], BranchRows, dict[int, Tensor]]]:
    """Batches of row numbers with their layout and the hidden states of their completions' tokens, {layer: (X, D)}."""
    device = next(lm.model.parameters()).device
    for batch in length_buckets([len(p) + sum(map(len, cs)) for p, cs in rows], budget):
        laid = lay_out([rows[i][0] for i in batch], [rows[i][1] for i in batch], share_prompt=True).to(device)
        with watched(lm.model, layers) as seen:
            hidden_at(lm.model, laid)
        yield batch, laid, {n: state.flatten(0, 1)[laid.own_X] for n, state in seen.items()}
