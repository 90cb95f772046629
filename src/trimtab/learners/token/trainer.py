"""PAIRS to a trained policy: the one training loop for every preference loss, for KTO and for SFT, full or LoRA.

The loop, checkpoints, resume, mixed precision, FSDP, callbacks and trackers are `transformers.Trainer`'s; what a step
computes is `trimtab.learners.token.step`'s. It does not sample, score or judge pairs.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

from trimtab.errors import InputError, ModelError, SettingsChanged
from trimtab.json_file import read_json
from trimtab.learners.token.checkpoints import checkpoints, clear_staging, one_writer
from trimtab.learners.token.examples import Example, encode_pairs, encode_singles, one_by_one, with_mismatched
from trimtab.learners.token.heartbeat import Heartbeat
from trimtab.learners.token.loop import unwrapped
from trimtab.learners.token.losses import Loss, fpo, kto, orpo, sft
from trimtab.learners.token.precision import choose_precision, optimizer_for
from trimtab.learners.token.reference import with_reference
from trimtab.learners.token.run_card import describe_run
from trimtab.learners.token.step import PolicyTrainer, StepTerms, bare_loss, loss_needs, resolve_loss
from trimtab.lm import trained
from trimtab.lm.export import write_folder
from trimtab.lm.forward import check_forward
from trimtab.lm.load import LM, default_device, load_lm, only_errors
from trimtab.lm.weights import not_finite, some
from trimtab.progress import working
from trimtab.publish import publish_text, reporting
from trimtab.store import Store
from trimtab.types import Group, Pair, describe, fingerprint

CARD = "policy.json"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the linear layers of the blocks (peft), instead of training every weight."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    """peft's `target_modules`; "all-linear" leaves the output layer out."""


@one_writer
def train_policy(
    data: Sequence[Pair] | Sequence[Group],
    *,
    model: str,
    out: str | Path,
    loss: str | Loss = "dpo",
    loss_settings: Mapping[str, float] | None = None,
    sft_weight: float = 0.0,
    lora: Lora | None = None,
    epochs: float = 1.0,
    learning_rate: float | None = None,
    batch_size: int = 32,
    micro_tokens: int | None = None,
    micro_rows: int | None = None,
    max_tokens: int | None = None,
    overlong: str = "refuse",
    desirable_above: float = 0.5,
    shuffle: bool = True,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    checkpointing: bool = False,
    share_prompt: bool = True,
    reference: str | None = None,
    reference_store: str | Path | None = None,
    leash: Any = None,
    held_out: Sequence[Pair] | Sequence[Group] = (),
    save_steps: float = 0.25,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> Path:
    """Trains a policy on preference pairs, or on scored groups (KTO, SFT); returns `out`, ready to load.

    `out` gets the model (or, with `lora`, the adapter) and the tokenizer in Hugging Face's layout, `policy.json`
    (settings and results), `log.jsonl` (TRL's metric names), `checkpoints/` and `store/` (the reference's log-probs).
    Running the same call again continues from the last checkpoint or returns at once; other settings are refused.

    loss            a name of PAIR_LOSSES or SINGLE_LOSSES, or a function like them; `loss_settings` are its keywords.
    sft_weight      adds this times the mean NLL of the chosen completion.
    batch_size      examples an optimiser step and device; memory follows `micro_tokens` (padded tokens of one forward,
                    default 512 on CPU and 8192 elsewhere) or `micro_rows`, and neither changes the result.
    learning_rate   default 1e-6 (5e-5 with LoRA; for SFT ten times these), linear to 0.
    reference       another model than `model` as it starts. `reference_store` shares the cache between runs.
    leash           a FeatureLeash: its penalty lowers the loss's margin (FPO = "fpo" with a leash). The reference's
                    features are cached like its log-probs.
    save_steps      a fraction of the run (< 1) or a number of steps. `trainer` are further TrainingArguments.

    InputError for bad settings, over-long examples (counted) or no data; ModelError when the architecture cannot share
    prompts; SettingsChanged when `out` holds a run with other settings.
    """
    out = Path(out)
    fn = resolve_loss(loss, loss_settings)
    needs = loss_needs(fn)
    _check_leash(fn, leash)
    device = device or default_device()
    precision = choose_precision(dtype, device, lora=lora is not None, before=begun_in(out, CARD), trainer=trainer)
    dtype = str(precision)
    settings = _settings(locals(), fn)
    if (done := _begin(out, settings, data, device)) is not None:
        return done
    load = partial(load_lm, dtype=precision.weights, device=device)
    lm = load(model)
    budget = micro_tokens or micro_budget(device)
    limit = min(max_tokens or lm.context, lm.context)
    encode = partial(_encode, fn=fn, lm=lm, limit=limit, overlong=overlong, above=desirable_above, seed=seed)
    (examples, counts), (held, _) = encode(data), encode(held_out) if held_out else ([], {})
    longest = max(examples, key=lambda e: e.longest)
    check_forward(lm.model, longest.prompt, longest.completions, share_prompt=share_prompt)
    step = StepTerms(fn, needs, sft_weight, budget, micro_rows, share_prompt)
    with precision.computing(device):
        if any(n.startswith("ref_") for n in needs):
            source = load(reference) if reference else lm
            store = Store(reference_store or out / "store")
            examples = with_reference(examples, source, store, budget=budget, share_prompt=share_prompt)
            held = with_reference(held, source, store, budget=budget, share_prompt=share_prompt) if held else held
            if step.live and not (lora and source is lm):  # KL needs the reference's whole distribution at every step
                step = replace(step, reference=(source if reference else load(model)).model)
            del source  # a reference that is only cached must not stay in memory
        if leash is not None:
            leash = leash.on(lm.model)
            source = load(reference) if reference else lm
            store = Store(reference_store or out / "store")
            features = partial(leash.with_features, lm=source, store=store, budget=budget, share_prompt=share_prompt)
            examples, held = features(examples), features(held) if held else held
            step = replace(step, leash=leash)
            del source
    policy = _trainable(lm.model, lora, seed, checkpointing)
    rate = learning_rate or (5e-5 if lora else 1e-6) * (10 if bare_loss(fn) is sft else 1)
    arguments = _arguments(out, epochs, rate, batch_size, seed, save_steps, shuffle, device, bool(held), trainer or {})
    run = PolicyTrainer(
        policy, arguments, train_dataset=examples, eval_dataset=held or None, data_collator=_as_batch,
        callbacks=list(callbacks), step_terms=step, autocast=precision.autocast,
        optimizer_cls_and_kwargs=optimizer_for(precision, policy, arguments, "optim" in (trainer or {})),
    )  # fmt: skip
    run.remove_callback(PrinterCallback)  # the log is a file; a terminal shows our bar
    run_training(run, out)
    _finish(out, run, lm, counts)
    return out


def run_training(run: Any, out: Path) -> None:
    """Trains from the last checkpoint on; what was logged is kept also when the training diverges."""
    clear_staging(out / "checkpoints")
    before = checkpoints(out / "checkpoints")
    with only_errors(), reporting(out), working("training") as work:
        run.add_callback(Heartbeat(work))
        try:
            run.train(resume_from_checkpoint=str(before[-1]) if before else None)
            if bad := not_finite(unwrapped(run.model)):
                raise ModelError(
                    f"the training diverged: weights are NaN or infinite ({some(bad)}); lower learning_rate"
                )
        finally:
            publish_text(out / LOG, "".join(json.dumps(x) + "\n" for x in run.state.log_history))


def micro_budget(device: str) -> int:
    """Padded tokens of one forward, where `micro_tokens` does not say: more than keep the device busy."""
    return 512 if device.startswith("cpu") else 8192


def _as_batch(examples: list[Example]) -> dict[str, list[Example]]:
    return {"examples": examples}


def _encode(
    data: Sequence[Any], *, fn: Loss, lm: LM, limit: int, overlong: str, above: float, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """Examples of the shape the loss takes, and how many were given and dropped."""
    if not data:
        raise InputError("no pairs to train on; a group whose rewards are all equal gives none")
    paired, name = isinstance(data[0], Pair), bare_loss(fn)
    if paired and name is kto:
        raise InputError("KTO learns from single completions: pass scored groups, not pairs")
    if not paired and name not in (kto, sft):
        raise InputError(f"the loss {name.__name__} needs pairs: make them with data.best_vs_worst(groups)")
    if paired:
        examples, given = encode_pairs(data, lm.tokenizer, limit, overlong=overlong), len(data)
        if name is sft:
            examples = [Example(e.prompt, e.completions[:1]) for e in examples]
    else:
        singles = one_by_one(data, above, only_desirable=name is sft)
        examples, given = encode_singles(singles, lm.tokenizer, limit, overlong=overlong), len(singles)
        if name is kto:
            examples = with_mismatched(examples, seed)
    return examples, {"given": given, "dropped": given - len(examples)}


def _trainable(model: Any, lora: Lora | None, seed: int, checkpointing: bool, task: str = "CAUSAL_LM") -> Any:
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if lora is None:
        if any(not p.is_floating_point() for p in model.parameters()):
            raise ModelError(
                f"{model.name_or_path}: its weights are quantised; train a LoRA on them, or load it unquantised"
            )
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=task
        )  # pyright: ignore[reportCallIssue]
        return get_peft_model(model, config)


def _arguments(
    out: Path, epochs: float, rate: float, batch_size: int, seed: int, save_steps: float,
    shuffle: bool, device: str, held_out: bool,
    more: Mapping[str, Any],
) -> TrainingArguments:  # fmt: skip
    defaults: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"), "num_train_epochs": epochs, "learning_rate": rate,
        "per_device_train_batch_size": batch_size, "per_device_eval_batch_size": batch_size, "seed": seed,
        "data_seed": seed, "save_strategy": "steps", "save_steps": save_steps, "save_total_limit": 1,
        "logging_steps": 1, "logging_strategy": "steps", "report_to": "none", "disable_tqdm": True,
        "remove_unused_columns": False, "use_cpu": device == "cpu", "lr_scheduler_type": "linear", "weight_decay": 0.0,
        "train_sampling_strategy": "random" if shuffle else "sequential", "average_tokens_across_devices": False,
        "eval_strategy": "steps" if held_out else "no", "eval_steps": save_steps,
        "dataloader_pin_memory": device != "cpu", "logging_nan_inf_filter": False,
    }  # fmt: skip
    more = {k: v for k, v in more.items() if k != "bf16"}  # `Precision` computes in it
    return TrainingArguments(**{**defaults, **more})


def _settings(given: Mapping[str, Any], fn: Loss) -> dict[str, Any]:
    """The part of the arguments that decides the result; how it is computed (micro-batches, paths) is left out."""
    free = {"data", "out", "loss", "loss_settings", "micro_tokens", "micro_rows", "share_prompt", "checkpointing",
            "reference_store", "held_out", "save_steps", "callbacks", "fn", "needs", "device", "leash"}  # fmt: skip
    kept = {k: v for k, v in given.items() if k not in free}
    defaults = {n: p.default for n, p in inspect.signature(fn).parameters.items() if p.kind is p.KEYWORD_ONLY}
    kept["loss"] = {"name": describe(bare_loss(fn)), **defaults}
    kept["lora"] = repr(given["lora"])
    return kept if given["leash"] is None else {**kept, "leash": given["leash"].card}


def _check_leash(fn: Loss, leash: Any) -> None:
    """A leash lies on a margin that is linear in the rejected log-prob: InputError for a loss that has none."""
    if leash is None and bare_loss(fn) is fpo:
        raise InputError("fpo is a loss with a leash: pass leash=FeatureLeash(sae, layer=...), or use ln_dpo without")
    if leash is not None and bare_loss(fn) in (orpo, sft, kto):
        raise InputError(
            f"{bare_loss(fn).__name__} has no margin for a feature leash to lie on; fpo, simpo, dpo, ipo and tdpo2 do"
        )


def begun_in(out: Path, name: str) -> str | None:
    """The precision that the run in `out` began with, which it keeps on every device; None where there is none."""
    return _run_in(out, name).get("settings", {}).get("dtype")


def _run_in(out: Path, name: str) -> dict[str, Any]:
    """The card of a run that has a checkpoint or is finished; one refused before (bad data) has nothing to lose."""
    card = out / name
    old = (
        read_json(card, "a run's card", {**trained.KINDS, "settings": dict}, do="restore it, or use another directory")
        if card.exists()
        else {}
    )
    return old if old.get("finished") or checkpoints(out / "checkpoints") else {}


def _begin(out: Path, settings: dict[str, Any], data: Sequence[Any], device: str, name: str = CARD) -> Path | None:
    """Writes the card of a new run; `out` itself when this very run is finished; SettingsChanged for another run.

    A run that was refused before its first checkpoint has nothing to lose: other settings take its place. The card
    lists the kinds of device a run was computed on, which do not decide what it is.
    """
    wanted = json.loads(json.dumps({**settings, "data": fingerprint(list(data))}, default=str))
    kind = torch.device(device).type
    if old := _run_in(out, name):
        if old.get("finished") and old["settings"].get("dtype", "") is None:  # of a version that wrote what was asked
            wanted["dtype"] = None
        if old["settings"] != wanted:
            changed = [k for k in {**old["settings"], **wanted} if old["settings"].get(k) != wanted.get(k)]
            lines = "\n".join(f"  {k}: {old['settings'].get(k)!r} then, {wanted.get(k)!r} now" for k in changed)
            raise SettingsChanged(
                f"{out} holds a run with other settings:\n{lines}\nUse another directory, or delete it."
            )
        if old.get("finished"):
            return out
    out.mkdir(parents=True, exist_ok=True)
    devices = [d for d in old.get("devices", []) if d != kind]
    text = json.dumps({**old, "settings": wanted, "devices": [*devices, kind]}, indent=2, ensure_ascii=False)
    publish_text(out / name, text)
    return None


def _finish(out: Path, run: PolicyTrainer, lm: LM, counts: Mapping[str, int]) -> None:
    import transformers

    history = run.state.log_history
    with reporting(out):
        unwrapped(run.model).save_pretrained(out)
        lm.tokenizer.save_pretrained(out)
    card = read_json(out / CARD, "a run's card", {"settings": dict})
    steps = [x for x in history if "loss" in x]
    card |= {
        "finished": True, "model": lm.id, trained.SUMS: trained.sums(out), "examples": dict(counts),
        "steps": run.state.global_step, "last": steps[-1] if steps else {},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    text = json.dumps(card, indent=2, ensure_ascii=False)
    describe_run(out, card)
    publish_text(out / CARD, text)


def merge_adapter(adapter: str | Path, out: str | Path) -> Path:
    """Merges a LoRA adapter into its base model, in float32; the result is a plain model folder."""
    return write_folder(str(adapter), out)
