"""`trimtab credit`: a trained policy and pairs to a heat map of token credit."""

import sys
from typing import Annotated

import typer

from trimtab.cli.options import Chat, Device, Dtype, Json, Make, Pairs, RewardName, Split, emit


def credit(
    policy: Annotated[str, typer.Argument(help="Folder that `trimtab train` wrote.")],
    data: Pairs,
    out: Annotated[str, typer.Option("--out", "-o", help="The HTML file.")] = "credit.html",
    limit: Annotated[int, typer.Option("--limit", help="The first so many pairs.")] = 20,
    dtype: Dtype = None,
    device: Device = None,
    chat: Chat = False,
    reward: RewardName = "",
    split: Split = "",
    make: Make = "best_vs_worst",
    json: Json = False,
) -> None:
    """Show what each token of chosen and rejected answers is worth: beta (log pi - log pi_ref), as one offline page."""
    from trimtab.evaluation.pages.heatmap import heatmap_text
    from trimtab.jobs import training
    from trimtab.jobs.inputs import Source

    source = Source(data, split, reward, make, chat)
    found = training.credit(policy, source, out=out, limit=limit, dtype=dtype, device=device)
    facts = {
        "out": out, "pairs": len(found.credits), "beta": found.beta, "chosen_above_rejected": found.right,
        "rewards": [[c.reward for c in group] for group in found.credits],
    }  # fmt: skip
    if sys.stdout.isatty() and not json and found.credits:
        from rich.console import Console

        for name, one in zip(("chosen", "rejected"), found.credits[0], strict=True):
            Console().print(f"[bold]{name}[/bold] {one.reward:+.3f}", heatmap_text(one))
    emit(facts, f"{out}: {len(found.credits)} pairs, the chosen answer earns more in {found.right}", json)
