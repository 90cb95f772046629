"""PAIRS to a reward model: a sequence classifier with one label, trained by Bradley-Terry, whole or by LoRA.

-log sigmoid(r(x, chosen) - r(x, rejected) - margin), with centring and label smoothing as options. The finetuned reward
model of Q-Probe's Table 1 and the pointwise student of West-of-N (arXiv 2401.12086). The folder it writes is a plain
Hugging Face model (a LoRA is merged into it), so transformers and vLLM read it. The frozen-backbone variant is a probe:
`fit_probe_pairs`. The loop is `trimtab.learners.loop`'s. It does not score (`rewards.RewardModel` does).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trimtab.errors import InputError, ModelError
from trimtab.learners.loop import fit, save, trainable
from trimtab.learners.precision import LOW
from trimtab.learners.run import Checkpoints, Compute, Encoding, Lora, Optim, Run, Trained, one_writer
from trimtab.learners.token.examples import Example, encode_pairs
from trimtab.lm.chat import end_tokens, template_hash, turn_end
from trimtab.lm.load import LM, load_classifier
from trimtab.lm.tree import length_buckets
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
    optim: Optim = Optim(),
    encoding: Encoding = Encoding(),
    compute: Compute = Compute(),
    checkpoints: Checkpoints = Checkpoints(),
    held_out: Sequence[Pair] = (),
    seed: int = 0,
) -> Trained:
    """Trains a reward model on preference pairs and writes it to `out`, which `RewardModel` and transformers load.

    model           a causal LM (gets a fresh head, drawn by `seed`) or a reward model to go on from.
    margin          asks each pair's own `margin` between its rewards. `center`, `label_smoothing`: see `reward_loss`.
    lora            trains adapters and the head; the merged model is what `out` holds.
    optim           `learning_rate` is 1e-5 by default (1e-4 with LoRA).
    Nothing is truncated: over `max_tokens` (default the context) is refused with a count, or dropped (`overlong`).
    The padding token is made one that ends no completion, since Hugging Face reads the last token that is not padding.
    `reward_model.json` holds settings, counts and the last log line. The same call again continues or returns at once.
    InputError, ModelError, SettingsChanged as `train_policy`.
    """
    if not 0 <= label_smoothing < 0.5 or center < 0:
        raise InputError(f"label_smoothing {label_smoothing:g} must be in [0, 0.5) and center {center:g} not below 0")
    if not pairs:
        raise InputError("no pairs to train on; a group whose rewards are all equal gives none")
    more = {"margin": margin, "center": center, "label_smoothing": label_smoothing}
    run = Run(Path(out), CARD, model, lora, optim, encoding, compute, checkpoints, seed, more)
    if done := run.begin(pairs):
        return done
    precision = run.precision
    lm = load_classifier(model, precision.weights, run.device, new_head=True, seed=seed)
    set_padding(lm)
    limit, overlong = encoding.limit(lm.context), encoding.overlong
    examples, held = (encode_pairs(p, lm.tokenizer, limit, overlong=overlong) if p else [] for p in (pairs, held_out))
    step = RewardStep(margin, center, label_smoothing, run.budget, lm.tokenizer.pad_token_id)
    network = trainable(lm.model, lora, seed, compute.checkpointing, "SEQ_CLS")
    autocast = precision.autocast
    if lora and precision.weights in LOW:  # the head is trained whole beside the adapters: in float32, as they are
        autocast = getattr(torch, precision.weights)
        for p in network.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    rate = optim.learning_rate or (1e-4 if lora else 1e-5)
    loop = fit(run, network, step, examples, held, rate=rate, autocast=autocast)
    card = save(run, loop, lm, {"given": len(pairs), "dropped": len(pairs) - len(examples)}, merge=lora is not None)
    card |= {"rendering": "tokens", "template": template_hash(lm.tokenizer)}
    run.write(card)
    return Trained(run.out, card, loop.state.log_history)


def set_padding(lm: LM) -> None:
    """Gives model and tokenizer a padding token that can end no completion.

    With padding = end token, Hugging Face's classifier skips the end token and reads the one before, while vLLM, which
    does not pad, reads the end token: the same text gets two rewards. ModelError when the tokenizer has no other token.
    """
    tokenizer = lm.tokenizer
    ends = {*end_tokens(tokenizer), *turn_end(tokenizer), tokenizer.bos_token_id}
    given = {"pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}
    special = [i for i, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
    known = [*given.values(), *special]
    pad = next((i for i in known if i is not None and i not in ends), None)
    if pad is None:
        raise ModelError(
            f"{lm.name}: its only special token ends texts, so none is left for padding; add one to the tokenizer "
            "(tokenizer.add_special_tokens) and resize the embeddings"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    lm.model.config.get_text_config().pad_token_id = pad


@dataclass(frozen=True)
class RewardStep:
    """What one optimiser step computes, from pairs to losses; the model comes as an argument."""

    margin: bool
    center: float
    label_smoothing: float
    budget: int
    pad: int

    def parts(self, examples: Sequence[Example]) -> list[list[int]]:
        """The micro-batches of a step, as indices of near-equal length."""
        return length_buckets([2 * e.longest for e in examples], self.budget)

    def whole_batch(self, model: Any, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Nothing: each pair's loss is its own."""
        return {}

    def losses(
        self, model: Any, examples: Sequence[Example], shared: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (B,) with gradient, and the metrics by TRL's names."""
        device = next(model.parameters()).device
        rows = [e.prompt + e.completions[s] for s in (0, 1) for e in examples]
        ids_BT, mask_BT = pad_right(rows, self.pad, device=device)
        chosen_B, rejected_B = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float().chunk(2)
        margin_B = torch.tensor([e.margin if self.margin else 0.0 for e in examples], device=device)
        loss_B = reward_loss(chosen_B, rejected_B, margin_B, center=self.center, label_smoothing=self.label_smoothing)
        chosen_B, rejected_B = chosen_B.detach(), rejected_B.detach()
        return loss_B, {
            "rewards/chosen": chosen_B, "rewards/rejected": rejected_B, "rewards/margins": chosen_B - rejected_B,
            "rewards/accuracies": (chosen_B > rejected_B).float(),
        }  # fmt: skip


__all__ = ["CARD", "RewardStep", "reward_loss", "set_padding", "train_reward_model"]
