"""`trimtab train`: preference pairs (or a store's rewarded samples) to a policy, on a feature leash if one is given."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli.assignments import numbers
from trimtab.cli.options import (
    BatchSize,
    Chat,
    Device,
    Dtype,
    Epochs,
    Json,
    LanguageModel,
    LearningRate,
    Make,
    MaxTokens,
    Overlong,
    Pairs,
    RewardName,
    Seed,
    Split,
    emit,
    progress,
)

if TYPE_CHECKING:
    from trimtab.jobs.training import Planned


def train(
    data: Pairs,
    model: LanguageModel,
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
    epochs: Epochs = 1.0,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = 32,
    micro_tokens: Annotated[int | None, typer.Option("--micro-tokens", help="Padded tokens of one forward.")] = None,
    max_tokens: MaxTokens = None,
    overlong: Overlong = "refuse",
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
    seed: Seed = 0,
    chat: Chat = False,
    reward: RewardName = "",
    split: Split = "",
    make: Make = "best_vs_worst",
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Train on pairs that lint would drop, too.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, print the memory plan and stop.")] = False,
    json: Json = False,
) -> None:
    """Train a policy on preferences; prints lint findings and a memory plan first. Run again to continue."""
    from trimtab.jobs import training
    from trimtab.jobs.inputs import Source
    from trimtab.learners.feature.leash import FeatureLeash
    from trimtab.learners.run import Compute, Encoding, Lora, Optim

    settings = {} if beta is None else {"beta": beta}
    settings |= numbers("--loss-set", loss_set, "name=number, such as gamma=0.5")
    held, freed = tuple(hold or ()), tuple(free or ())
    shared: dict[str, Any] = {
        "model": model, "out": out, "loss": loss, "loss_settings": settings,
        "leash": FeatureLeash(sae, layer, alpha, top_k, stop_gradient, held, freed) if sae else None,
        "reference": reference, "lora": Lora(lora_rank, 2 * lora_rank) if lora_rank else None,
        "optim": Optim(learning_rate, epochs, batch_size), "encoding": Encoding(max_tokens, overlong),
        "compute": Compute(dtype, device, micro_tokens, checkpointing=checkpointing),
        "despite": ["lint"] * keep_all + ["sae"] * unchecked, "say": progress(json),
    }  # fmt: skip
    source = Source(data, split, reward, make, chat)
    if plan:
        emit(_facts(training.plan(source, **shared)), "planned only, nothing was loaded", json)
        return
    planned, done = training.train(source, sft_weight=sft_weight, seed=seed, **shared)
    last, names = done.card["last"], ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen")
    shown = ", ".join(f"{k} {last[k]:.4g}" for k in names if k in last)
    emit({**_facts(planned), "out": str(done.path), "last": last}, f"trained {done.path}: {shown}", json)


def _facts(planned: "Planned") -> dict[str, Any]:
    linted = {} if planned.lint is None else {"kept": len(planned.rows), "lint": planned.lint}
    memory = {"plan_bytes": planned.memory.total, "trained_parameters": planned.memory.trained}
    return {"given": planned.given, **linted, **memory}
