"""The reference's per-token log-probs, computed once and kept in a store, keyed by content.

A row's id is a hash of the prompt's and the completion's token ids; its table is named after the reference's weights
and type. So the cache survives reordering, subsets, other losses and other runs, and holds what credit maps need too.
The store is plain Parquet: `trl_columns` gives TRL's `ref_chosen_logps` and `ref_rejected_logps` from it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.learners.token.examples import Example
from trimtab.lm.forward import branch_logprobs, computed_in
from trimtab.lm.tree import TokenIds
from trimtab.progress import track
from trimtab.store import Store
from trimtab.types import fingerprint


def with_reference(
    examples: Sequence[Example], lm: Any, store: Store, *, budget: int = 4096, share_prompt: bool = True
) -> list[Example]:
    """Examples with log π_ref of their completions, from the store where it has them, else from `lm`'s forward."""
    wanted = [(e.prompt, (*e.completions, *([e.mismatched] if e.mismatched else []))) for e in examples]
    found = reference_logprobs(wanted, lm, store, budget=budget, share_prompt=share_prompt)
    out = []
    for e, rows in zip(examples, found, strict=True):
        sums = [math.fsum(row) for row in rows]
        n = len(e.completions)
        out.append(replace(e, reference=tuple(sums[:n]), mismatched_reference=sums[n] if e.mismatched else math.nan))
    return out


def reference_logprobs(
    rows: Sequence[tuple[TokenIds, Sequence[TokenIds]]], lm: Any, store: Store, *, budget: int = 4096,
    share_prompt: bool = True,
) -> list[list[list[float]]]:  # fmt: skip
    """Per-token log π_ref of each (prompt, completions), float32, through the store."""
    settings = {"reference": f"{Path(lm.name).name}@{lm.revision}", "dtype": computed_in(lm.model)}
    table = f"logprobs/{fingerprint(settings)[:12]}"
    with store.writer(table, settings) as writer:
        missing = [(p, [c for c in cs if content_id(p, c) not in writer.ids]) for p, cs in rows]
        missing = [(p, list(dict.fromkeys(map(tuple, cs)))) for p, cs in missing if cs]
        chunks = [missing[i : i + 64] for i in range(0, len(missing), 64)]
        for chunk in track(chunks, len(chunks), "reference log-probs"):
            prompts, branches = [p for p, _ in chunk], [cs for _, cs in chunk]
            logprobs = branch_logprobs(lm.model, prompts, branches, budget=budget, share_prompt=share_prompt)
            for p, completions, values in zip(prompts, branches, logprobs, strict=True):
                writer.append(
                    {"id": i, "tokens": list(c), "logprobs": v}
                    for c, v in zip(completions, values, strict=True)
                    for i in [content_id(p, c)]
                    if i not in writer.ids  # the same prompt and completion may stand in several pairs
                )
    kept = store.read(table, ["id", "logprobs"])
    known = dict(zip(kept["id"].to_pylist(), kept["logprobs"].to_pylist(), strict=True))
    return [[known[content_id(p, c)] for c in cs] for p, cs in rows]


def content_id(prompt: TokenIds, completion: TokenIds) -> str:
    """32 hex digits of the token ids of a prompt and a completion."""
    return fingerprint([list(prompt), list(completion)])


def trl_columns(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Tokenised preference rows with TRL's names, `ref_chosen_logps` and `ref_rejected_logps` (sums) included."""
    return [
        {
            "prompt_ids": list(e.prompt), "chosen_ids": list(e.completions[0]), "rejected_ids": list(e.completions[1]),
            "ref_chosen_logps": e.reference[0], "ref_rejected_logps": e.reference[1],
        }
        for e in examples
    ]  # fmt: skip
