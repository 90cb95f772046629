"""`trimtab train`: preference pairs (or a store's rewarded samples) to a policy, on a feature leash if one is given."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli import pairs
from trimtab.cli.assignments import numbers
from trimtab.cli.options import Chat, Device, Dtype, Json, emit


def train(
    data: pairs.Pairs,
    model: Annotated[str, typer.Option("--model", help="Model name or folder (see `trimtab models`).")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the trained policy.")],
    loss: Annotated[
        str, typer.Option("--loss", help="dpo, ipo, simpo, orpo, kto, sft, ... (see docs/methods).")
    ] = "dpo",
    beta: Annotated[float | None, typer.Option("--beta", help="The loss's beta; its default is the paper's.")] = None,
    loss_set: Annotated[
        list[str] | None, typer.Option("--loss-set", help="Another setting: gamma=0.5. Repeatable.")
    ] = None,
    sft_weight: Annotated[float, typer.Option("--sft-weight", help="Adds this times the NLL of the chosen.")] = 0.0,
    lora_rank: Annotated[int, typer.Option("--lora-rank", help="LoRA of this rank; 0 trains every weight.")] = 0,
    epochs: Annotated[float, typer.Option("--epochs")] = 1.0,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pairs an optimiser step.")] = 32,
    micro_tokens: Annotated[int | None, typer.Option("--micro-tokens", help="Padded tokens of one forward.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Prompt and answer together.")] = None,
    overlong: Annotated[str, typer.Option("--overlong", help="refuse or drop what exceeds --max-tokens.")] = "refuse",
    dtype: Dtype = None,
    device: Device = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations to save memory.")
    ] = False,
    reference: Annotated[str | None, typer.Option("--reference", help="Another reference than --model.")] = None,
    sae: Annotated[str, typer.Option("--sae", help="Feature leash: SAELens folder or params.npz (--loss fpo).")] = "",
    layer: Annotated[int | None, typer.Option("--layer", help="Leash: layer of the SAE, if its files lack it.")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Leash: strength of the penalty.")] = 0.5,
    top_k: Annotated[int, typer.Option("--top-k", help="Leash: the strongest features of either side.")] = 50,
    stop_gradient: Annotated[bool, typer.Option(help="Leash: no gradient through the chosen's drift.")] = True,
    hold: Annotated[list[int] | None, typer.Option("--hold", help="Leash: only these features. Repeatable.")] = None,
    free: Annotated[list[int] | None, typer.Option("--free", help="Leash: never these features. Repeatable.")] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Leash: use an SAE that fails its check.")] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    chat: Chat = False,
    reward: pairs.RewardName = "",
    split: pairs.Split = "",
    make: pairs.Make = "best_vs_worst",
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Train on pairs that lint would drop, too.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, print the memory plan and stop.")] = False,
    json: Json = False,
) -> None:
    """Train a policy on preferences; prints lint findings and a memory plan first. Run again to continue."""
    from trimtab.cli.train_checks import check_training
    from trimtab.learners.run import Compute, Encoding, Lora, Optim
    from trimtab.learners.token.trainer import train_policy
    from trimtab.lm.load import default_device

    device = device or default_device()  # the plan, the SAE's check and the training are of the same one
    settings = _loss_settings(beta, loss_set or ())
    check_training(
        model, out, lora=lora_rank > 0, dtype=dtype, device=device, overlong=overlong, epochs=epochs,
        batch_size=batch_size, learning_rate=learning_rate, reference=reference, loss=loss, settings=settings,
        leash=bool(sae),
    )  # fmt: skip
    rows = _load(data, loss, chat, reward, split, make)
    rows, lines, facts = _lint(rows, model, max_tokens, keep_all)
    lora = Lora(rank=lora_rank, alpha=2 * lora_rank) if lora_rank else None
    leash = None
    if sae:
        from trimtab.learners.feature.leash import FeatureLeash

        leash = FeatureLeash(sae, layer, alpha, top_k, stop_gradient, tuple(hold or ()), tuple(free or ()))
    width = leash.dictionary.width if leash else 0
    memory = _plan(rows, model, micro_tokens, dtype, device, lora, checkpointing, loss, width)
    for line in (*lines, str(memory)):
        typer.echo(line, err=json)
    facts |= {"plan_bytes": memory.total, "trained_parameters": memory.trained}
    if plan:
        emit(facts, "planned only, nothing was loaded", json)
        return
    if leash:
        _check(leash, model, rows, dtype, device, unchecked, json)
    folder = train_policy(
        rows, model=model, out=out, loss=loss, loss_settings=settings, sft_weight=sft_weight, leash=leash,
        reference=reference, lora=lora, optim=Optim(learning_rate, epochs, batch_size),
        encoding=Encoding(max_tokens, overlong), seed=seed,
        compute=Compute(dtype, device, micro_tokens, checkpointing=checkpointing),
    ).path  # fmt: skip
    last = _card(folder)["last"]
    shown = ", ".join(
        f"{k} {last[k]:.4g}" for k in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen") if k in last
    )
    emit({**facts, "out": str(folder), "last": last}, f"trained {folder}: {shown}", json)


def _load(data: str, loss: str, chat: bool, reward: str, split: str, make: str) -> list[Any]:
    from trimtab.data.preference import load_demonstrations, load_labelled
    from trimtab.data.rows import read_rows

    if Path(data).is_dir():
        if loss in ("kto", "sft"):
            return pairs.scored_groups(data, split, reward)
        return pairs.load(data, split=split, reward=reward, make=make)
    if loss == "kto":
        return load_labelled(data, chat=chat)
    if loss == "sft" and "completion" in next(iter(read_rows(data)))[1]:
        return load_demonstrations(data, chat=chat)
    return pairs.load(data, chat=chat)


def _lint(
    rows: list[Any], model: str, limit: int | None, keep_all: bool
) -> tuple[list[Any], list[str], dict[str, Any]]:
    from trimtab.data.lint import FATAL, lint_pairs, without
    from trimtab.lm.load import load_tokenizer
    from trimtab.types import Pair

    if not rows or not isinstance(rows[0], Pair):
        return rows, [], {"given": len(rows)}
    findings = lint_pairs(rows, load_tokenizer(model), limit)
    dropped = FATAL - {"overlong"}  # over-long pairs are the trainer's to refuse or drop
    kept = rows if keep_all else without(rows, findings, dropped)
    lines = [
        f"lint: {len(f.indices)} of {len(rows)} pairs: {f.explanation}"
        + (" (dropped)" if f.kind in dropped and not keep_all else "")
        for f in findings
    ]
    return kept, lines, {"given": len(rows), "kept": len(kept), "lint": {f.kind: len(f.indices) for f in findings}}


def _plan(
    rows: list[Any], model: str, micro: int | None, dtype: str | None, device: str, lora: Any,
    checkpointing: bool, loss: str, sae_width: int,
) -> Any:  # fmt: skip
    from trimtab.learners.precision import choose_precision
    from trimtab.learners.token.plan import plan_memory
    from trimtab.lm.catalog import described
    from trimtab.lm.chat import encode_completion, encode_prompt
    from trimtab.lm.load import load_tokenizer
    from trimtab.types import Pair

    tokenizer = load_tokenizer(model)
    longest = 0
    for row in rows:
        answers = [row.chosen, row.rejected] if isinstance(row, Pair) else row.completions
        sizes = [len(encode_completion(tokenizer, c, row.prompt)) for c in answers]
        longest = max(
            longest, len(encode_prompt(tokenizer, row.prompt)) + (sum(sizes) if isinstance(row, Pair) else max(sizes))
        )
    return plan_memory(
        described(model), longest_row=longest, device=device, micro_tokens=micro,
        dtype=str(choose_precision(dtype, device, lora=lora is not None)), lora=lora,
        checkpointing=checkpointing, live_reference=loss.startswith("tdpo"), sae_width=sae_width,
    )  # fmt: skip


def _check(
    leash: Any, model: str, rows: list[Any], dtype: str | None, device: str, unchecked: bool, as_json: bool
) -> None:
    """Measures the leash's SAE on the first pairs; refuses one that does not fit unless `unchecked`."""
    from trimtab.learners.feature.check import check_sae
    from trimtab.lm.load import load_lm

    found = check_sae(leash.dictionary, load_lm(model, dtype, device), rows[:50])
    typer.echo(f"SAE: {found}", err=as_json)
    if not unchecked:
        found.require()


def _loss_settings(beta: float | None, pairs: Any) -> dict[str, float]:
    settings = numbers("--loss-set", pairs, "name=number, such as gamma=0.5")
    return settings if beta is None else {"beta": beta, **settings}


def _card(folder: Path) -> dict[str, Any]:
    from trimtab.json_file import read_json

    return read_json(folder / "policy.json", "a policy's card", {"last": dict})
