"""`trimtab reward`: train a reward model, report on it beside null rankers, check its backends, run RewardBench files.

trimtab reward train pairs.jsonl --model smollm2-135m --out runs/rm
trimtab reward report held_out.jsonl --model runs/rm
trimtab reward check held_out.jsonl --model runs/rm --served http://localhost:8000 --served-name rm
trimtab reward bench rewardbench.jsonl --model runs/rm
trimtab reward judge ours.json theirs.json --base-url http://localhost:8000/v1 --judge-model gpt
"""

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import (
    BatchSize,
    Chat,
    Device,
    Dtype,
    Engine,
    Epochs,
    Json,
    LearningRate,
    Make,
    MaxTokens,
    Overlong,
    Pairs,
    Rendering,
    RewardFolder,
    RewardName,
    Seed,
    Split,
    emit,
)

reward = typer.Typer(
    help="Train, report on and check reward models and judges.", no_args_is_help=True, rich_markup_mode=None
)


@reward.command()
def train(
    data: Pairs,
    model: Annotated[str, typer.Option("--model", help="Language model or reward model to start from.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the reward model.")],
    lora_rank: Annotated[int, typer.Option("--lora-rank", help="LoRA of this rank, merged at the end; 0: all.")] = 0,
    margin: Annotated[bool, typer.Option("--margin", help="Ask each pair's own margin between its rewards.")] = False,
    center: Annotated[float, typer.Option("--center", help="Weight of (r_chosen + r_rejected)^2.")] = 0.0,
    label_smoothing: Annotated[float, typer.Option("--label-smoothing")] = 0.0,
    epochs: Epochs = 1.0,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = None,
    overlong: Overlong = "refuse",
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = 0,
    chat: Chat = False,
    reward_name: RewardName = "",
    split: Split = "",
    make: Make = "best_vs_worst",
    json: Json = False,
) -> None:
    """Train a reward model by Bradley-Terry; transformers and vLLM load the folder. Run again to continue."""
    from trimtab.jobs import judging
    from trimtab.jobs.inputs import Source
    from trimtab.learners.run import Compute, Encoding, Lora, Optim

    done = judging.train(
        Source(data, split, reward_name, make, chat), model=model, out=out, margin=margin, center=center,
        label_smoothing=label_smoothing, lora=Lora(lora_rank, 2 * lora_rank) if lora_rank else None,
        optim=Optim(learning_rate, epochs, batch_size), encoding=Encoding(max_tokens, overlong),
        compute=Compute(dtype, device), seed=seed,
    )  # fmt: skip
    last = done.card["last"]
    shown = ", ".join(f"{k} {last[k]:.4g}" for k in ("loss", "rewards/accuracies") if k in last)
    facts = {"out": str(done.path), "examples": done.card["examples"], "last": last}
    emit(facts, f"trained {done.path}: {shown}", json)


@reward.command()
def report(
    data: Pairs,
    model: RewardFolder,
    gold: Annotated[str, typer.Option("--gold", help="Run directory with independently scored samples.")] = "",
    gold_split: Annotated[
        str, typer.Option("--gold-split", help="Which completions of --gold; test if it has them.")
    ] = "",
    gold_reward: Annotated[str, typer.Option("--gold-reward", help="The gold reward, if --gold has several.")] = "",
    reward_name: RewardName = "",
    split: Split = "",
    make: Make = "best_vs_worst",
    confident: Annotated[
        float, typer.Option("--confident", help="Quantile of |margin| from which pairs are sure.")
    ] = 0.5,
    rendering: Rendering = "",
    dtype: Dtype = None,
    device: Device = None,
    chat: Chat = False,
    json: Json = False,
) -> None:
    """Accuracy, sure pairs, best of N, calibration and length bias, beside longest, shortest, random and log-prob."""
    from trimtab.jobs import judging
    from trimtab.jobs.inputs import Source

    if not Path(data).is_dir():  # then --split and --reward can only mean --gold's
        gold_split, gold_reward = gold_split or split, gold_reward or reward_name
    found = judging.report(
        Source(data, split, reward_name, make, chat), model=model, rendering=rendering or None, confident=confident,
        gold=Source(gold, gold_split, gold_reward) if gold else (), dtype=dtype, device=device,
    )  # fmt: skip
    emit(found.as_dict(), str(found), json)


@reward.command()
def check(
    data: Pairs,
    model: RewardFolder,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="float32, bfloat16, one-by-one, transformers. Repeatable.")
    ] = None,
    served: Annotated[str, typer.Option("--served", help="Base URL of a server with /pooling (vLLM).")] = "",
    served_name: Annotated[
        str, typer.Option("--served-name", help="The model's name there; the folder if absent.")
    ] = "",
    rendering: Rendering = "",
    device: Device = None,
    chat: Chat = False,
    reward_name: RewardName = "",
    split: Split = "",
    make: Make = "best_vs_worst",
    json: Json = False,
) -> None:
    """The same pairs through each backend: largest difference to float32, and the pairs that are turned round."""
    from trimtab.jobs import judging
    from trimtab.jobs.inputs import Source

    found = judging.check(
        Source(data, split, reward_name, make, chat), model=model, served=served, served_name=served_name,
        rendering=rendering or None, device=device, **({"backends": backend} if backend else {}),
    )  # fmt: skip
    emit(found, str(found), json)


@reward.command()
def bench(
    data: Annotated[str, typer.Argument(help="RewardBench-style rows: prompt, chosen, rejected, subset.")],
    model: RewardFolder,
    rendering: Rendering = "",
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Accuracy by subset (one against one, best of 4, ties) beside longest, shortest and random."""
    from trimtab.evaluation.reward_models.rewardbench import table
    from trimtab.jobs import judging

    scores = judging.bench(data, model=model, rendering=rendering or None, dtype=dtype, device=device)
    emit({"scores": scores}, table(scores), json)


@reward.command()
def judge(
    ours: Annotated[str, typer.Argument(help="Answers: AlpacaEval, Arena-Hard or MT-Bench file.")],
    theirs: Annotated[str, typer.Argument(help="The baseline's answers in the same form; '' rates alone.")] = "",
    questions: Annotated[str, typer.Option("--questions", help="Question file (Arena-Hard, MT-Bench).")] = "",
    judge_model: Annotated[str | None, typer.Option("--judge-model", help="Model that judges.")] = None,
    engine: Engine = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="OpenAI-compatible server of the judge.")] = None,
    device: Device = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="File (TOML) whose [model] judges; flags lie over it.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of that file: --set model.retries=2. Repeatable.")
    ] = None,
    graded: Annotated[bool, typer.Option("--graded", help="Arena-Hard's five grades.")] = False,
    skills: Annotated[bool, typer.Option("--skills", help="Rate each skill a row names (FLASK), no baseline.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="First so many prompts; 0 takes all.")] = 0,
    json: Json = False,
) -> None:
    """Win rate and length-controlled win rate over a baseline, or a mean rating, by an LLM judge in both orders."""
    from trimtab.cli.config import load_model
    from trimtab.jobs import judging

    engine = engine or ("openai" if base_url else None)
    flags = {"model.name": judge_model, "model.base_url": base_url, "model.engine": engine, "model.device": device}
    by = load_model(config, flags, sets or ())
    found = judging.judge(
        ours, theirs, by=by.name, questions=questions, graded=graded, skills=skills, limit=limit or None,
        **{k: v for k, v in vars(by).items() if k != "name"},
    )  # fmt: skip
    emit(found.facts, str(found), json)
