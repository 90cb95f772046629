"""`trimtab credit`: a trained policy and pairs to a heat map of token credit."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json, emit


def credit(
    policy: Annotated[str, typer.Argument(help="Folder that `trimtab train` wrote.")],
    data: Annotated[str, typer.Argument(help="Pairs: .jsonl, .parquet or hub data set.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The HTML file.")] = "credit.html",
    limit: Annotated[int, typer.Option("--limit", help="The first so many pairs.")] = 20,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Prompts that are text become user messages.")] = False,
    json: Json = False,
) -> None:
    """Show what each token of chosen and rejected answers is worth: beta (log pi - log pi_ref), as one offline page."""
    from trimtab.data.preference import load_pairs
    from trimtab.evaluation.heatmap import heatmap_html, heatmap_text
    from trimtab.learners.token.credit import token_credit
    from trimtab.learners.token.policy import load_policy
    from trimtab.types import Group

    pairs = load_pairs(data, chat=chat)[:limit]
    loaded = load_policy(policy, dtype=dtype, device=device)
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in pairs]
    credits = token_credit(groups, loaded.policy, loaded.reference, beta=loaded.beta)
    texts = {p.prompt.id: "\n".join(m["content"] for m in p.prompt.messages) for p in pairs}
    Path(out).write_text(heatmap_html(credits, texts), encoding="utf-8")
    right = sum(a.reward > b.reward for a, b in credits)
    facts = {
        "out": out, "pairs": len(pairs), "beta": loaded.beta, "chosen_above_rejected": right,
        "rewards": [[c.reward for c in group] for group in credits],
    }  # fmt: skip
    if sys.stdout.isatty() and not json and credits:
        from rich.console import Console

        for name, one in zip(("chosen", "rejected"), credits[0], strict=True):
            Console().print(f"[bold]{name}[/bold] {one.reward:+.3f}", heatmap_text(one))
    emit(facts, f"{out}: {len(pairs)} pairs, the chosen answer earns more in {right}", json)
