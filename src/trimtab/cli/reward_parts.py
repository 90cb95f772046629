"""What `trimtab reward check` and `trimtab reward judge` are put together from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trimtab.types import Group, Pair, Reward, RewardFn, Sampler

BACKENDS = ("float32", "bfloat16", "one-by-one", "transformers")


def backends(
    model: str,
    rendering: str | None,
    names: list[str] | None,
    served: str,
    served_name: str,
    pairs: Sequence[Pair],
    device: str | None = None,
) -> tuple[dict[str, RewardFn], list[str]]:
    """The backends by name, float32 first, and notes on what will make engines disagree."""
    from trimtab.errors import unknown
    from trimtab.rewards.reward_model import RewardModel

    wanted = ["float32", *(n for n in names or ("one-by-one", "transformers", "bfloat16") if n != "float32")]
    base = RewardModel(model, rendering=rendering, dtype="float32", device=device)
    made: dict[str, Any] = {
        "float32": base, "bfloat16": replace(base, dtype="bfloat16"), "one-by-one": replace(base, batch_tokens=1),
        "transformers": Transformers(base),
    }  # fmt: skip
    for name in wanted:
        if name not in made:
            raise unknown("backend", name, BACKENDS)
    scorers = {name: made[name] for name in wanted}
    if served:
        from trimtab.rewards.served import ServedReward

        scorers["served"] = ServedReward(served, served_name, model, base.chosen_rendering())
    return scorers, _notes(base, pairs)


@dataclass(frozen=True)
class Transformers:
    """The model's own forward on each text alone, tokenised by the template's own call."""

    base: Any

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


def _notes(base: Any, pairs: Sequence[Pair]) -> list[str]:
    lm = base.lm()
    pad, notes = lm.model.config.get_text_config().pad_token_id, []
    rows = [base.tokens(p.prompt, c) for p in pairs for c in (p.chosen, p.rejected)]
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


def judged(
    ours: str, theirs: str, questions: str, sampler: Sampler, graded: bool, limit: int, skills: bool = False
) -> tuple[dict[str, Any], str]:
    """Facts and text of a judgement: pairwise with a baseline, else ratings from 1 to 10, or of the rows' skills."""
    import numpy as np

    from trimtab.data.chat_evals import against, load_answers
    from trimtab.errors import InputError
    from trimtab.evaluation.reward_models.win_rate import win_rates
    from trimtab.intervals import figure
    from trimtab.rewards.judge import Judge, summarise
    from trimtab.rewards.verdicts import GRADED_TEMPLATE, PAIR_TEMPLATE

    mine = load_answers(ours, questions)
    mine = mine[:limit] if limit else mine
    if not theirs:
        return _rated(mine, sampler, skills)
    if skills:
        raise InputError("--skills rates answers alone (FLASK): leave the baseline out")
    groups = against(mine, load_answers(theirs, questions))
    judge = Judge(sampler, template=GRADED_TEMPLATE if graded else PAIR_TEMPLATE)
    said = judge.compare(groups, [np.array([[0, 1]])] * len(groups))
    flat = [row[0] for row in said]
    lengths = np.array([[len(c.text) for c in g.completions] for g in groups])
    rates = win_rates(
        [c.preference for c in flat], lengths[:, 0], lengths[:, 1],
        weight_P=[c.weight if c.weight == c.weight else 1.0 for c in flat] if graded else None,
    )  # fmt: skip
    s = summarise(said)
    text = (
        f"win rate {rates.win_rate}\nlength-controlled {rates.length_controlled} (characters; longer by "
        f"{rates.mean_length_difference:.0f})\n{s.comparisons} pairs, {s.unparsed} unread, {s.calls} calls, "
        f"{s.tokens} tokens; position bias {figure(s.position_bias, '+.3f')}, "
        f"orders agree on {figure(s.consistent, '.2f')}"
    )
    return {"win_rates": rates, "summary": asdict(s)}, text


def _rated(groups: Sequence[Group], sampler: Sampler, skills: bool) -> tuple[dict[str, Any], str]:
    """Mean rating, and what it consists of: of every turn of a conversation (MT-Bench), or of every skill (FLASK)."""
    import json

    from trimtab.evaluation.metrics import mean_interval
    from trimtab.rewards.judge import RatingJudge, SkillJudge

    rows = [row[0] for row in (SkillJudge(sampler) if skills else RatingJudge(sampler))(groups)]
    known = [(g, r) for g, r in zip(groups, rows, strict=True) if r.value == r.value]
    parts: dict[str, list[float]] = {}
    for g, r in known:
        turn = sum(m["role"] == "user" for m in g.prompt.messages)
        for name, value in (json.loads(r.note) if skills else {f"turn {turn}": r.value}).items():
            parts.setdefault(name, []).append(value)
    rating = mean_interval([r.value for r in rows], draws=2000)
    by_part = {name: mean_interval(values, draws=2000) for name, values in sorted(parts.items())}
    lines = [f"rating {rating}, {len(rows) - len(known)} of {len(rows)} unread"]
    if skills or len(by_part) > 1:
        lines += [f"{name}: {mean}, {mean.n} answers" for name, mean in by_part.items()]
    facts = {"rating": rating, "skills" if skills else "turns": by_part, "unread": len(rows) - len(known)}
    return facts, "\n".join(lines)
