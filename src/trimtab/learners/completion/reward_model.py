"""PAIRS to a reward model: a sequence classifier with one label, trained by Bradley-Terry, whole or by LoRA.

-log sigmoid(r(x, chosen) - r(x, rejected) - margin), with centring and label smoothing as options. The finetuned reward
model of Q-Probe's Table 1 and the pointwise student of West-of-N (arXiv 2401.12086). The folder it writes is a plain
Hugging Face model (a LoRA is merged into it), so transformers and vLLM read it. The frozen-backbone variant is a probe:
`fit_probe_pairs`. The loop is `transformers.Trainer`'s. It does not score (`rewards.RewardModel` does).
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PrinterCallback, Trainer

from trimtab.errors import InputError, ModelError
from trimtab.json_file import read_json
from trimtab.learners.token.checkpoints import one_writer
from trimtab.learners.token.examples import encode_pairs
from trimtab.learners.token.loop import SteadyTrainer, unwrapped
from trimtab.learners.token.precision import LOW, choose_precision, optimizer_for
from trimtab.learners.token.trainer import Lora, _arguments, _begin, _trainable, begun_in, micro_budget, run_training
from trimtab.lm import trained
from trimtab.lm.chat import end_tokens, template_hash, turn_end
from trimtab.lm.load import LM, default_device, load_classifier
from trimtab.lm.tree import length_buckets
from trimtab.publish import publish_text, reporting
from trimtab.tensors import pad_right
from trimtab.types import Pair

CARD = "reward_model.json"


def reward_loss(
    chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor | None = None, *, center: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Bradley-Terry loss of each pair of rewards, shape (B,).

    z = r_chosen - r_rejected - margin; (1 - s)·-log sigmoid(z) + s·-log sigmoid(-z) with `label_smoothing` s in
    [0, 0.5), plus center·(r_chosen + r_rejected)² which pins the level that Bradley-Terry leaves free (TRL's
    center_rewards_coefficient). A margin is subtracted, as in Llama 2 (arXiv 2307.09288, eq. 2).
    """
    z_B = chosen_B - rejected_B if margin_B is None else chosen_B - rejected_B - margin_B
    loss_B = -logsigmoid(z_B)
    if label_smoothing:
        loss_B = (1 - label_smoothing) * loss_B - label_smoothing * logsigmoid(-z_B)
    return loss_B + center * (chosen_B + rejected_B) ** 2 if center else loss_B


@dataclass(frozen=True)
class RankedPair:
    """Token ids of prompt and completion, (chosen, rejected), and the margin asked between their rewards."""

    rows: tuple[tuple[int, ...], tuple[int, ...]]
    margin: float = 0.0


@one_writer
def train_reward_model(
    pairs: Sequence[Pair],
    *,
    model: str,
    out: str | Path,
    margin: bool = False,
    center: float = 0.0,
    label_smoothing: float = 0.0,
    lora: Lora | None = None,
    epochs: float = 1.0,
    learning_rate: float | None = None,
    batch_size: int = 32,
    micro_tokens: int | None = None,
    max_tokens: int | None = None,
    overlong: str = "refuse",
    shuffle: bool = True,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    checkpointing: bool = False,
    held_out: Sequence[Pair] = (),
    save_steps: float = 0.25,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> Path:
    """Trains a reward model on preference pairs; returns `out`, a folder that `RewardModel` and transformers load.

    model           a causal LM (gets a fresh head, drawn by `seed`) or a reward model to go on from.
    margin          asks each pair's own `margin` between its rewards. `center`, `label_smoothing`: see `reward_loss`.
    lora            trains adapters and the head; the merged model is what `out` holds.
    learning_rate   default 1e-5 (1e-4 with LoRA), linear to 0; `trainer` are further TrainingArguments.
    batch_size      pairs an optimiser step; cut into micro-batches of `micro_tokens` padded tokens (512 on CPU, 8192
                    elsewhere) and near-equal length, which does not change the result.
    Nothing is truncated: over `max_tokens` (default the context) is refused with a count, or dropped (`overlong`).
    The padding token is made one that ends no completion, since Hugging Face reads the last token that is not padding.
    `reward_model.json` holds settings, counts and the last log line. The same call again continues or returns at once.
    InputError, ModelError, SettingsChanged as `train_policy`.
    """
    out = Path(out)
    if not 0 <= label_smoothing < 0.5 or center < 0:
        raise InputError(f"label_smoothing {label_smoothing:g} must be in [0, 0.5) and center {center:g} not below 0")
    device = device or default_device()
    precision = choose_precision(dtype, device, lora=lora is not None, before=begun_in(out, CARD), trainer=trainer)
    dtype = str(precision)
    settings = _settings(locals())
    if not pairs:
        raise InputError("no pairs to train on; a group whose rewards are all equal gives none")
    if (done := _begin(out, settings, pairs, device, CARD)) is not None:
        return done
    lm = load_classifier(model, precision.weights, device, new_head=True, seed=seed)
    set_padding(lm)
    limit = min(max_tokens or lm.context, lm.context)
    examples = _examples(pairs, lm, limit, overlong, margin)
    held = _examples(held_out, lm, limit, overlong, margin) if held_out else None
    step = _Step(center, label_smoothing, micro_tokens or micro_budget(device), lm.tokenizer.pad_token_id)
    network = _trainable(lm.model, lora, seed, checkpointing, "SEQ_CLS")
    if lora and precision.weights in LOW:  # the head is trained whole beside the adapters: in float32, as they are
        precision = replace(precision, products=precision.weights)
        for p in network.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    rate = learning_rate or (1e-4 if lora else 1e-5)
    arguments = _arguments(out, epochs, rate, batch_size, seed, save_steps, shuffle, device, bool(held), trainer or {})
    run = _RewardTrainer(
        network, arguments, train_dataset=examples, eval_dataset=held, data_collator=_as_batch,
        callbacks=list(callbacks), step=step, autocast=precision.autocast,
        optimizer_cls_and_kwargs=optimizer_for(precision, network, arguments, "optim" in (trainer or {})),
    )  # fmt: skip
    run.remove_callback(PrinterCallback)
    run_training(run, out)
    _finish(out, run, lm, lora is not None, {"given": len(pairs), "dropped": len(pairs) - len(examples)})
    return out


def set_padding(lm: LM) -> None:
    """Gives model and tokenizer a padding token that can end no completion.

    With padding = end token, Hugging Face's classifier skips the end token and reads the one before, while vLLM, which
    does not pad, reads the end token: the same text gets two rewards. ModelError when the tokenizer has no other token.
    """
    tokenizer = lm.tokenizer
    ends = {*end_tokens(tokenizer), *turn_end(tokenizer), tokenizer.bos_token_id}
    given = {"pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}
    special = [i for i, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
    candidates = [*given.values(), *special]
    pad = next((i for i in candidates if i is not None and i not in ends), None)
    if pad is None:
        raise ModelError(
            f"{lm.name}: its only special token ends texts, so none is left for padding; add one to the tokenizer "
            "(tokenizer.add_special_tokens) and resize the embeddings"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    lm.model.config.get_text_config().pad_token_id = pad


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    free = {"pairs", "out", "micro_tokens", "checkpointing", "held_out", "save_steps", "callbacks", "device"}
    return {**{k: v for k, v in given.items() if k not in free}, "lora": repr(given["lora"])}


def _examples(pairs: Sequence[Pair], lm: LM, limit: int, overlong: str, margin: bool) -> list[RankedPair]:
    encoded = encode_pairs(pairs, lm.tokenizer, 2**31)
    fitting = [(e, p) for e, p in zip(encoded, pairs, strict=True) if e.longest <= limit]
    if len(fitting) < len(encoded) and (overlong != "drop" or not fitting):
        encode_pairs(pairs, lm.tokenizer, limit, overlong=overlong)  # the error that counts them
    return [
        RankedPair((e.prompt + e.completions[0], e.prompt + e.completions[1]), p.margin if margin else 0.0)
        for e, p in fitting
    ]


def _as_batch(examples: list[RankedPair]) -> dict[str, list[RankedPair]]:
    return {"examples": examples}


@dataclass(frozen=True)
class _Step:
    """Losses of a micro-batch of pairs; the model comes as an argument."""

    center: float
    label_smoothing: float
    budget: int
    pad: int

    def parts(self, examples: Sequence[RankedPair]) -> list[list[int]]:
        return length_buckets([2 * max(map(len, e.rows)) for e in examples], self.budget)

    def __call__(self, model: Any, examples: Sequence[RankedPair]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, reward of chosen, reward of rejected, each (B,)."""
        device = next(model.parameters()).device
        ids_BT, mask_BT = pad_right([e.rows[s] for s in (0, 1) for e in examples], self.pad, device=device)
        chosen_B, rejected_B = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float().chunk(2)
        margin_B = torch.tensor([e.margin for e in examples], device=device)
        loss_B = reward_loss(chosen_B, rejected_B, margin_B, center=self.center, label_smoothing=self.label_smoothing)
        return loss_B, chosen_B.detach(), rejected_B.detach()


class _RewardTrainer(SteadyTrainer):
    """transformers.Trainer whose step is `_Step`."""

    def __init__(self, *args: Any, step: _Step, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.step = step

    def gradients(self, model: Any, examples: Sequence[RankedPair]) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        parts = self.step.parts(examples)
        for n, part in enumerate(parts):
            with contextlib.nullcontext() if n == len(parts) - 1 else self.accelerator.no_sync(model):
                loss = self._loss(model, [examples[i] for i in part]) / len(examples)
                loss = loss / self.current_gradient_accumulation_steps
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        examples = inputs["examples"]
        parts = self.step.parts(examples)
        loss = sum(self._loss(model, [examples[i] for i in p]) for p in parts) / len(examples)
        return (loss, {}) if return_outputs else loss

    def _loss(self, model: Any, examples: Sequence[RankedPair]) -> Tensor:
        with self.compute_loss_context_manager():
            loss_B, chosen_B, rejected_B = self.step(model, examples)
        self._means.add({
            "rewards/chosen": chosen_B, "rewards/rejected": rejected_B, "rewards/margins": chosen_B - rejected_B,
            "rewards/accuracies": (chosen_B > rejected_B).float(),
        })  # fmt: skip
        return loss_B.sum()


def _finish(out: Path, run: Trainer, lm: LM, merge: bool, counts: Mapping[str, int]) -> None:
    import transformers

    history = run.state.log_history
    model: Any = unwrapped(run.model)
    # in float32: what an adapter adds to a weight is mostly below the last place of a bfloat16
    model = model.float().merge_and_unload() if merge else model
    with reporting(out):
        model.save_pretrained(out)
        lm.tokenizer.save_pretrained(out)
    steps = [x for x in history if "loss" in x]
    card = read_json(out / CARD, "a run's card", {"settings": dict}) | {
        "finished": True, "model": lm.id, trained.SUMS: trained.sums(out),
        "rendering": "tokens", "template": template_hash(lm.tokenizer),
        "examples": dict(counts), "steps": run.state.global_step, "last": steps[-1] if steps else {},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    publish_text(out / CARD, json.dumps(card, indent=2, ensure_ascii=False))


__all__ = ["CARD", "RankedPair", "reward_loss", "set_padding", "train_reward_model"]
