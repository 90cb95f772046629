"""Scored GROUPS to a Reranker: a nearly linear choice among k completions that starts from the log-prob null.

Q-Probe (arXiv 2402.14688) reads one state and is often worse than the highest mean log-prob, which it never prints. A
reranker adds up what is cheap: cues of the group (`cues`) and a linear probe on states, both relative to the
group, with weights from a listwise loss; then it may add up the chances of the completions that say the same. Which
cues, which states, how much of them: chosen by cross-validation over prompts among forms of which the mean log-prob
alone is one. It does not sample or embed, and its values compare completions of one group only.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, ModelError
from trimtab.fitted import load_fitted, save_fitted
from trimtab.json_file import NUMBER, Kinds
from trimtab.learners.completion.probe.data import prompt_marks
from trimtab.learners.completion.probe.probe import check_card
from trimtab.learners.completion.reranker.cues import (
    CUES,
    LOGPROB_CUES,
    Same,
    cue_rows,
    have_logprobs,
    same_class,
    same_text,
)
from trimtab.learners.completion.reranker.search import Form, Rows, Search, choose, pooled
from trimtab.learners.completion.reranker.solve import Floats
from trimtab.types import Embedder, Group, Reward, RewardFn, canonical_json, describe, fingerprint
from trimtab.version import __version__

CUE_SETS: tuple[tuple[str, ...], ...] = (
    ("mean_logprob",),
    ("mean_logprob", "sum_logprob", "length"),
    ("mean_logprob", "likeness"),
    ("mean_logprob", "sum_logprob", "min_logprob", "length", "agreement", "likeness"),
)
"""Simplest first. Without log-probs the log-prob cues are left out of each."""
L2S = (10.0, 3.0, 1.0, 0.3)
"""Ridge strengths on states standardised within the prompt: strong, for hundreds of prompts and a thousand columns."""

FILE, CARD, KIND = "reranker.safetensors", "card.json", "reranker"
_NEEDS: Kinds = {
    "form": dict, "form.cues": list, "form.states?": (str, type(None)), "form.l2?": NUMBER, "form.pool?": bool,
    "same": str, "embedder": (dict, type(None)), "signals?": dict,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reranker:
    """Value of a completion relative to its group; a RewardFn. Higher is better; one group's values are log-odds.

    `cue_C` weighs the cues `form.cues`, `state_D` the embedding (empty: no states are read, and no embedder is needed).
    """

    form: Form
    cue_C: Floats
    state_D: npt.NDArray[np.float32]
    card: Mapping[str, Any]
    embed: Embedder | None = None
    same: Same = same_text
    signals: Mapping[str, RewardFn] = field(default_factory=dict)
    """Rewards that the form reads as cues, by name."""

    def __repr__(self) -> str:
        """Short, and the same for the same reranker: it is the manifest's entry."""
        weights = hashlib.sha256(self.cue_C.tobytes() + self.state_D.tobytes()).hexdigest()[:32]
        return f"Reranker({self.form!r}, weights={weights!r}, same={describe(self.same)!r})"

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. ModelError when states are read and the embedder is missing or not the card's."""
        states: list[Any] = [None] * len(groups)
        if len(self.state_D):
            if self.embed is None:
                raise ModelError("this reranker reads states and has no embedder: Reranker.load(folder, embed)")
            check_card(self.card["embedder"], self.embed.card)
            states = self.embed(groups)
        said_R = cue_rows(groups, self.form.cues, self.same, self.signals) @ self.cue_C
        parts = np.split(said_R, np.cumsum([len(g.completions) for g in groups], dtype=int)[:-1])
        return [
            [_reward(v) for v in self._values(g, said_N, x)] if g.completions else []
            for g, said_N, x in zip(groups, parts, states, strict=True)
        ]

    def _values(self, group: Group, value_N: Floats, state_ND: npt.NDArray[Any] | None) -> Floats:
        """The values of one group's completions from what its cues say, shape (N,), and its embedding."""
        if len(self.state_D):
            state_ND = np.asarray(state_ND, dtype=np.float64)
            if state_ND.shape != (len(group.completions), len(self.state_D)):
                raise InputError(
                    f"prompt {group.prompt.id!r}: states of shape {state_ND.shape}, this reranker takes "
                    f"{(len(group.completions), len(self.state_D))}"
                )
            value_N = value_N + (state_ND - state_ND.mean(0)) @ self.state_D.astype(np.float64)
        return pooled(value_N, same_class(group, self.same)) if self.form.pool else value_N

    def save(self, folder: str | Path) -> Path:
        """Writes reranker.safetensors and card.json into `folder` (made if needed); returns it."""
        return save_fitted(Path(folder), {"cues": self.cue_C, "states": self.state_D}, self.card, FILE, CARD)

    @classmethod
    def load(
        cls, folder: str | Path, embed: Embedder | None = None, same: Same = same_text,
        signals: Mapping[str, RewardFn] | None = None,
    ) -> "Reranker":  # fmt: skip
        """The reranker of `folder`, with the same rewards as when it was saved. InputError when files are missing or
        broken; ModelError, with the difference, when `embed`, `same` or `signals` are not those it was fitted with."""
        folder = Path(folder)
        card, tensors = load_fitted(folder, FILE, CARD, what="reranker", kind=KIND, needs=_NEEDS)
        try:
            form = Form(**{**card["form"], "cues": tuple(card["form"]["cues"])})
            cue_C, state_D = tensors["cues"], tensors["states"]
        except (KeyError, TypeError) as e:
            raise InputError(f"{folder} holds no readable reranker: {e}; fit it again") from e
        if describe(same) != card["same"]:
            raise ModelError(f"{folder}: fitted with same={card['same']}, given {describe(same)}; give that function")
        if embed is not None and card["embedder"] is not None:
            check_card(card["embedder"], embed.card)
        given = {n: describe(f) for n, f in (signals or {}).items()}
        for name, wanted in card.get("signals", {}).items():
            if given.get(name) != wanted:
                raise ModelError(
                    f"{folder}: it reads the signal {name!r}, {wanted}; given {given.get(name, 'none of that name')}"
                )
        return cls(
            form, cue_C, state_D, card, embed, same, {n: f for n, f in (signals or {}).items() if n in form.cues}
        )


def fit_reranker(
    groups: Sequence[Group], embeds: Embedder | Mapping[str, Embedder] | None = None, *,
    cues: Sequence[Sequence[str]] = CUE_SETS, same: Same = same_text, signals: Mapping[str, RewardFn] | None = None,
    l2s: Sequence[float] = L2S, pool: Sequence[bool] = (False, True), margin: float = 1.0, folds: int = 5,
    seed: int = 0,
) -> Reranker:  # fmt: skip
    """Fit a reranker to scored groups; its form is the best over folds of prompts, no more complex than it pays for.

    embeds: name -> embedder, or one, or None for cues alone; each is tried by itself (an embedder of several layers
    concatenates them). cues: the sets tried, () for states alone. signals: name -> any reward, read as one more cue (a
    prompted model's yes, how far programs answer alike); each set is tried without and with all of them. `pool`:
    whether to try adding up completions of which `same` says the same. A form that learns more must be `margin`
    standard errors better, held out, than a simpler one (0 takes the highest figure, which overfits with few prompts).
    The same data and seed give the same weights, in any order of the groups. card["selection"]: each form's held-out
    reward; the best of many is optimistic, judge on other prompts. card["metrics"]: the chosen form's and the null's,
    which is the mean log-prob alone, or a random choice where there are no log-probs. Unscored completions count in the
    cues and are not learnt from. InputError: fewer than two prompts whose rewards differ, fewer than three folds, a
    prompt in two groups, unknown cues, embeddings that do not fit.
    """
    if not isinstance(embeds, Mapping):
        embeds = {} if embeds is None else {"states": embeds}
    rows = Rows.of(groups, folds, seed)
    signals = dict(signals or {})
    if taken := signals.keys() & CUES.keys():
        raise InputError(f"a signal cannot have the name of a cue: {', '.join(sorted(taken))}")
    sets = [tuple(names) for names in cues]
    if not have_logprobs(rows.groups):
        sets = [tuple(c for c in names if c not in LOGPROB_CUES) for names in sets]
    sets = list(dict.fromkeys([*sets, *((*names, *signals) for names in sets)]))
    if not any(sets) and not embeds:
        raise InputError("nothing to read: no embedder, and no cue that needs no log-probs; see learners CUES")
    states = {name: np.concatenate([np.asarray(x) for x in e(rows.groups)]) for name, e in embeds.items()}
    search = Search.of(rows, list(dict.fromkeys(c for s in sets for c in s)), same, states, l2s, signals)
    tried = list(search.forms(sets, pool))
    best, reward_P = choose(tried, margin)
    cue_C, state_D = search.weights(best)
    embed = embeds[best.states] if best.states is not None else None
    heard = {n: f for n, f in signals.items() if n in best.cues}
    card = {
        "kind": KIND, "form": asdict(best), "same": describe(same),
        "signals": {n: describe(f) for n, f in heard.items()}, "margin": margin, "folds": folds, "seed": seed,
        "embedder": None if embed is None else json.loads(canonical_json(dict(embed.card))),
        "prompts": len(rows.groups), "learnable_prompts": int((rows.fold_P >= 0).sum()),
        "completions": len(rows.reward_R), "unscored": int(np.isnan(rows.reward_R).sum()),
        "data_hash": fingerprint([[g.prompt.id, [c.text for c in g.completions], [*g.reward_N]] for g in rows.groups]),
        "metrics": {"held_out_reward": float(reward_P.mean()), **_null(rows, same)},
        "selection": [{**asdict(form), "reward": float(value_P.mean())} for form, value_P in tried],
        "trained_on": prompt_marks(rows.groups), "trimtab": __version__,
    }  # fmt: skip
    return Reranker(best, cue_C, state_D, card, embed, same, heard)


def _null(rows: Rows, same: Same) -> dict[str, Any]:
    """What the same prompts give without anything learnt, and what that is called."""
    if have_logprobs(rows.groups):
        value_R = cue_rows(rows.groups, ("mean_logprob",), same)[:, 0]
        return {"held_out_null": float(rows.chosen(value_R).mean()), "null": "mean_logprob"}
    even = [np.nanmean(g.reward_N) for g, fold in zip(rows.groups, rows.fold_P, strict=True) if fold >= 0]
    return {"held_out_null": float(np.mean(even)), "null": "random choice"}


def _reward(value: float) -> Reward:
    return Reward(float(value)) if np.isfinite(value) else Reward(float("nan"), "the reranker's value is not finite")
