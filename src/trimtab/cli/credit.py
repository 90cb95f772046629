"""`trimtab credit`: a trained policy and pairs to a heat map of token credit."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli import pairs
from trimtab.cli.options import Chat, Device, Dtype, Json, emit
from trimtab.jobs import checks


def credit(
    policy: Annotated[str, typer.Argument(help="Folder that `trimtab train` wrote.")],
    data: pairs.Pairs,
    out: Annotated[str, typer.Option("--out", "-o", help="The HTML file.")] = "credit.html",
    limit: Annotated[int, typer.Option("--limit", help="The first so many pairs.")] = 20,
    dtype: Dtype = None,
    device: Device = None,
    chat: Chat = False,
    reward: pairs.RewardName = "",
    split: pairs.Split = "",
    make: pairs.Make = "best_vs_worst",
    json: Json = False,
) -> None:
    """Show what each token of chosen and rejected answers is worth: beta (log pi - log pi_ref), as one offline page."""
    from trimtab.evaluation.pages.heatmap import heatmap_html, heatmap_text
    from trimtab.evaluation.pages.report import prompt_text
    from trimtab.learners.token.credit import token_credit
    from trimtab.learners.token.policy import load_policy
    from trimtab.publish import publish_text
    from trimtab.types import Group

    checks.device_and_dtype(device, dtype)
    checks.writable_file(out)
    found = pairs.load(data, chat=chat, split=split, reward=reward, make=make)[:limit]
    loaded = load_policy(policy, dtype=dtype, device=device)
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in found]
    credits = token_credit(groups, loaded.policy, loaded.reference, beta=loaded.beta)
    texts = {p.prompt.id: prompt_text(p.prompt.messages) for p in found}
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    publish_text(Path(out), heatmap_html(credits, texts))
    right = sum(a.reward > b.reward for a, b in credits)
    facts = {
        "out": out, "pairs": len(found), "beta": loaded.beta, "chosen_above_rejected": right,
        "rewards": [[c.reward for c in group] for group in credits],
    }  # fmt: skip
    if sys.stdout.isatty() and not json and credits:
        from rich.console import Console

        for name, one in zip(("chosen", "rejected"), credits[0], strict=True):
            Console().print(f"[bold]{name}[/bold] {one.reward:+.3f}", heatmap_text(one))
    emit(facts, f"{out}: {len(found)} pairs, the chosen answer earns more in {right}", json)
