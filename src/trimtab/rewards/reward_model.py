"""COMPLETIONS to REWARDS by a trained reward model: a sequence classifier with one label, its raw output the reward.

Batches are cut by length and by padded tokens, nothing is truncated: a text over the model's limit is NaN with a note
that counts its tokens. Which token is read is Hugging Face's rule, the last one that is not padding. It does not train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from trimtab.errors import ModelError, unknown
from trimtab.json_file import read_json
from trimtab.lm.chat import encode_completion, encode_dialogue, encode_prompt, template_hash
from trimtab.lm.load import LM, resident
from trimtab.lm.tree import length_buckets
from trimtab.tensors import pad_right
from trimtab.types import Completion, Group, Prompt, Reward

RENDERINGS = ("tokens", "template")


@dataclass(frozen=True)
class RewardModel:
    """A reward model by name, folder or already loaded; a `RewardFn`.

    `rendering` is how a text becomes tokens: "tokens" (prompt with generation prompt, then the completion's own tokens:
    how `train_reward_model` trains) or "template" (the finished dialogue through the chat template: how TRL and most
    published models do). None takes the card's beside the weights, else "template".
    """

    model: str | LM
    rendering: str | None = None
    batch_tokens: int = 4096
    """Padded tokens of one forward pass. A text longer than this runs alone."""
    max_tokens: int | None = None
    """Prompt and completion together; at most the model's context."""
    dtype: str | None = None
    device: str | None = None
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        if self.rendering is not None and self.rendering not in RENDERINGS:
            raise unknown("rendering", self.rendering, RENDERINGS)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. ModelError when the tokenizer's template is not the card's."""
        rows = [self.tokens(g.prompt, c) for g in groups for c in g.completions]
        flat = iter(self.score_tokens(rows))
        return [[next(flat) for _ in g.completions] for g in groups]

    def tokens(self, prompt: Prompt, completion: Completion) -> list[int]:
        """The token ids that the model reads for one completion."""
        lm, rendering = self.lm(), self.chosen_rendering()
        if rendering == "template":
            return encode_dialogue(lm.tokenizer, prompt, completion)
        return encode_prompt(lm.tokenizer, prompt) + encode_completion(lm.tokenizer, completion, prompt)

    @torch.inference_mode()
    def score_tokens(self, rows: Sequence[Sequence[int]]) -> list[Reward]:
        """One reward a row of token ids, in the order given, whatever the batches."""
        lm = self.lm()
        limit = min(self.max_tokens or lm.context, lm.context)
        out = [_over(len(r), limit) for r in rows]
        pad = lm.model.config.get_text_config().pad_token_id
        if pad is None and len(rows) > 1:
            raise ModelError(f"{lm.name} has no padding token in its config.json: set pad_token_id (see set_padding)")
        fitting = [i for i in range(len(rows)) if out[i] is None]
        for part in length_buckets([len(rows[i]) for i in fitting], self.batch_tokens):
            places = [fitting[i] for i in part]
            ids_BT, mask_BT = pad_right([rows[i] for i in places], pad or 0, device=lm.model.device)
            value_B = lm.model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float().tolist()
            for i, value in zip(places, value_B, strict=True):
                note = "" if math.isfinite(value) else f"the reward model returned {value}"
                out[i] = Reward(value if math.isfinite(value) else math.nan, note)
        return [r or Reward(math.nan, "not scored") for r in out]

    def lm(self) -> LM:
        """The model itself; a named one is held once by the process."""
        return resident(self.model, self.dtype, self.device, classifier=True)

    def chosen_rendering(self) -> str:
        """The rendering in use. ModelError when the card was written with another chat template."""
        name = self.model.name if isinstance(self.model, LM) else self.model
        card = _card(name)
        if card.get("template") and card["template"] != template_hash(self.lm().tokenizer):
            raise ModelError(
                f"{name} was trained with another chat template than its tokenizer has now; restore the tokenizer "
                "files that train_reward_model saved"
            )
        return self.rendering or card.get("rendering") or "template"


def _over(length: int, limit: int) -> Reward | None:
    if length == 0:
        return Reward(math.nan, "the text has no tokens")
    return Reward(math.nan, f"over-long: {length} tokens of at most {limit}") if length > limit else None


def _card(name: str) -> dict[str, Any]:
    file = Path(name) / "reward_model.json"
    if not file.is_file():
        return {}
    kinds = {"template?": str, "rendering?": str}
    return read_json(file, "a reward model's card", kinds, do="restore it, or delete it and give rendering=")
