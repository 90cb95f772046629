"""Reward models trained, reported on, checked over their backends and run on RewardBench files; answers judged.

Reports stand beside null rankers. Pairs come from a file, a data set of the hub or a run directory; see `inputs`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.data.chat_evals import against, load_answers
from trimtab.errors import InputError, unknown
from trimtab.evaluation.metrics import Interval, mean_interval
from trimtab.evaluation.reward_models.check import BackendRow, compare_backends, table
from trimtab.evaluation.reward_models.report import RewardReport, reward_report
from trimtab.evaluation.reward_models.rewardbench import SubsetScore, load_rewardbench, rewardbench
from trimtab.evaluation.reward_models.win_rate import WinRates, win_rates
from trimtab.intervals import figure
from trimtab.jobs import checks, make
from trimtab.jobs.inputs import Data, pairs, scored_groups
from trimtab.jobs.training import check_settings
from trimtab.rewards.judge import Judge, JudgeSummary, RatingJudge, SkillJudge, summarise
from trimtab.rewards.verdicts import GRADED_TEMPLATE, PAIR_TEMPLATE
from trimtab.types import Group, Pair, Reward, RewardFn, Sampler

if TYPE_CHECKING:
    from trimtab.learners.run import Compute, Encoding, Lora, Optim, Trained
    from trimtab.rewards.reward_model import RewardModel


def train(
    data: Data, *, model: str, out: str | Path, margin: bool = False, center: float = 0.0, label_smoothing: float = 0.0,
    lora: "Lora | None" = None, optim: "Optim | None" = None, encoding: "Encoding | None" = None,
    compute: "Compute | None" = None, seed: int = 0,
) -> "Trained":  # fmt: skip
    """Trains a reward model by Bradley-Terry once its settings are looked at; see `learners.train_reward_model`."""
    from trimtab.learners.completion.reward_model import train_reward_model
    from trimtab.learners.run import Compute, Encoding, Optim

    optim, encoding, compute = optim or Optim(), encoding or Encoding(), compute or Compute()
    check_settings(model, out, lora=lora, optim=optim, encoding=encoding, compute=compute)
    return train_reward_model(
        pairs(data), model=model, out=out, margin=margin, center=center, label_smoothing=label_smoothing, lora=lora,
        optim=optim, encoding=encoding, compute=compute, seed=seed,
    )  # fmt: skip


def report(
    data: Data, *, model: str, gold: Data = (), confident: float = 0.5, rendering: str | None = None,
    dtype: str | None = None, device: str | None = None,
) -> RewardReport:  # fmt: skip
    """A reward model on pairs it has not seen: accuracy, sure pairs, best of N by `gold`, calibration, length bias.

    gold        a run's independently scored samples; "test" of them if none are named.
    confident   the quantile of |margin| from which pairs are sure.
    """
    groups, given = scored_groups(gold, prefer="test"), pairs(data, prefer="test")
    asked = _reward_model(model, rendering, dtype, device)
    return reward_report(given, {"reward model": asked}, gold=groups, confident=confident)


def bench(
    data: str, *, model: str, rendering: str | None = None, dtype: str | None = None, device: str | None = None
) -> list[SubsetScore]:
    """Accuracy of a reward model on RewardBench-style rows by subset, beside longest, shortest and random."""
    return rewardbench(load_rewardbench(data), {"reward model": _reward_model(model, rendering, dtype, device)})


def _reward_model(model: str, rendering: str | None, dtype: str | None, device: str | None) -> "RewardModel":
    from trimtab.rewards.reward_model import RewardModel

    return RewardModel(model, rendering=rendering, dtype=dtype, device=device)


@dataclass(frozen=True)
class BackendCheck:
    """Every backend against the first, and notes on what will make engines disagree."""

    against: str
    rows: list[BackendRow]
    notes: list[str]

    def __str__(self) -> str:
        return "\n".join([table(self.against, self.rows), *self.notes])


def check(
    data: Data, *, model: str, backends: Sequence[str] = ("one-by-one", "transformers", "bfloat16"), served: str = "",
    served_name: str = "", rendering: str | None = None, device: str | None = None,
) -> BackendCheck:  # fmt: skip
    """The same pairs through each backend: the largest difference to float32, and the pairs that are turned round.

    served      base URL of a server with /pooling (vLLM), which calls the model `served_name` (the folder if empty).
    """
    given = pairs(data, prefer="test")
    base = _reward_model(model, rendering, "float32", device)
    known: dict[str, RewardFn] = {
        "float32": base, "bfloat16": replace(base, dtype="bfloat16"), "one-by-one": replace(base, batch_tokens=1),
        "transformers": Transformers(base),
    }  # fmt: skip
    for name in backends:
        if name not in known:
            raise unknown("backend", name, known)
    backed = {name: known[name] for name in ("float32", *backends)}
    if served:
        from trimtab.rewards.served import ServedReward

        backed["served"] = ServedReward(served, served_name or model, model, base.chosen_rendering())
    notes = _notes(base, given)
    return BackendCheck("float32", compare_backends(given, backed), notes)


@dataclass(frozen=True)
class Transformers:
    """The model's own forward on each text alone, tokenised by the template's own call."""

    base: "RewardModel"

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        import torch

        lm, out = self.base.lm(), []
        for g in groups:
            row = []
            for c in g.completions:
                ids = self.base.tokens(g.prompt, c)
                if self.base.chosen_rendering() == "template" and g.prompt.messages[0]["role"] != "text":
                    messages = [*map(dict, g.prompt.messages), {"role": "assistant", "content": c.text}]
                    ids = lm.tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
                with torch.no_grad():
                    row.append(Reward(lm.model(input_ids=torch.tensor([ids])).logits[0, 0].item()))
            out.append(row)
        return out


def _notes(base: "RewardModel", given: Sequence[Pair]) -> list[str]:
    lm = base.lm()
    pad, notes = lm.model.config.get_text_config().pad_token_id, []
    rows = [base.tokens(p.prompt, c) for p in given for c in (p.chosen, p.rejected)]
    skipped = sum(r[-1] == pad for r in rows if r)
    if skipped:
        notes.append(
            f"{skipped} of {len(rows)} texts end with the padding token: transformers reads the token before it, a "
            "server that does not pad (vLLM) reads the token itself; give the model another pad_token_id"
        )
    long = sum(len(r) > lm.context for r in rows)
    if long:
        notes.append(f"{long} of {len(rows)} texts exceed the context of {lm.context} tokens and are unscored")
    return notes


@dataclass(frozen=True)
class Preferred:
    """How often answers win over a baseline's, also at equal length, and what the judging was like."""

    win_rates: WinRates
    summary: JudgeSummary

    def __str__(self) -> str:
        rates, s = self.win_rates, self.summary
        return (
            f"win rate {rates.win_rate}\nlength-controlled {rates.length_controlled} (characters; longer by "
            f"{rates.mean_length_difference:.0f})\n{s.comparisons} pairs, {s.unparsed} unread, {s.calls} calls, "
            f"{s.tokens} tokens; position bias {figure(s.position_bias, '+.3f')}, "
            f"orders agree on {figure(s.consistent, '.2f')}"
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `--json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Rated:
    """The mean rating, and what it consists of: of every turn of a conversation (MT-Bench), or every skill (FLASK)."""

    rating: Interval
    kind: str
    parts: Mapping[str, Interval]
    unread: int
    answers: int

    def __str__(self) -> str:
        lines = [f"rating {self.rating}, {self.unread} of {self.answers} unread"]
        if self.kind == "skills" or len(self.parts) > 1:
            lines += [f"{name}: {mean}, {mean.n} answers" for name, mean in self.parts.items()]
        return "\n".join(lines)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `--json` prints."""
        return {"rating": self.rating, self.kind: self.parts, "unread": self.unread}


def judge(
    ours: str, theirs: str = "", *, by: str | Sampler, questions: str = "", graded: bool = False,
    skills: bool = False, limit: int | None = None, **settings: Any,
) -> Preferred | Rated:  # fmt: skip
    """Answers of an AlpacaEval, Arena-Hard or MT-Bench file judged by a language model, a baseline's beside them.

    With `theirs` pairs in both orders (`graded`: Arena-Hard's five grades); without, ratings from 1 to 10, or of each
    skill that a row names (`skills`, FLASK). `by` is a sampler, or a model's name with the `settings` of
    `make.sampler`.
    """
    if isinstance(by, str):
        checks.sampler(by, **settings)
    by = make.sampler(by, **settings)
    mine = load_answers(ours, questions)[:limit]
    if not theirs:
        return _rated(mine, by, skills)
    if skills:
        raise InputError("--skills rates answers alone (FLASK): leave the baseline out")
    groups = against(mine, load_answers(theirs, questions))
    asked = Judge(by, template=GRADED_TEMPLATE if graded else PAIR_TEMPLATE)
    said = asked.compare(groups, [np.array([[0, 1]])] * len(groups))
    flat = [row[0] for row in said]
    lengths = np.array([[len(c.text) for c in g.completions] for g in groups])
    rates = win_rates(
        [c.preference for c in flat], lengths[:, 0], lengths[:, 1],
        weight_P=[c.weight if c.weight == c.weight else 1.0 for c in flat] if graded else None,
    )  # fmt: skip
    return Preferred(rates, summarise(said))


def _rated(groups: Sequence[Group], by: Sampler, skills: bool) -> Rated:
    rows = [row[0] for row in (SkillJudge(by) if skills else RatingJudge(by))(groups)]
    known = [(g, r) for g, r in zip(groups, rows, strict=True) if r.value == r.value]
    parts: dict[str, list[float]] = {}
    for g, r in known:
        turn = sum(m["role"] == "user" for m in g.prompt.messages)
        for name, value in (json.loads(r.note) if skills else {f"turn {turn}": r.value}).items():
            parts.setdefault(name, []).append(value)
    means = {name: mean_interval(values, draws=2000) for name, values in sorted(parts.items())}
    rating = mean_interval([r.value for r in rows], draws=2000)
    return Rated(rating, "skills" if skills else "turns", means, len(rows) - len(known), len(rows))
