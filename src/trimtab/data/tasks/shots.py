"""Scored GROUPS and PROMPTS to prompts with examples in front: the model's own successes as k-shot, Q-Probe's baseline.

"5-shot on successes" of arXiv 2402.14688: what was right among the training completions becomes the examples of the
test prompts. The new prompts are sampled, scored and read as any others, so a probe on top of them is "few-shot and
probe together". It samples and scores nothing.
"""

from collections.abc import Sequence

import numpy as np

from trimtab.errors import InputError
from trimtab.types import Completion, Group, Message, Prompt, completion_seed


def own_successes(groups: Sequence[Group], *, above: float = 0.0) -> list[tuple[Prompt, Completion]]:
    """For each prompt that has one, the completion of the highest reward, if that is above `above`.

    Of equally good ones the likeliest by mean log-prob is taken, without log-probs the first. Completions that were cut
    at the token limit are no examples. InputError when no prompt has a success.
    """
    found = []
    for g in groups:
        best: tuple[float, float, int] | None = None
        for i, (c, r) in enumerate(zip(g.completions, g.rewards, strict=True)):
            if r.value > above and c.finish == "stop" and c.text.strip():  # NaN is above nothing
                likely = float(np.mean(c.logprobs)) if c.logprobs else 0.0
                best = max(best or (r.value, likely, -i), (r.value, likely, -i))
        if best is not None:
            found.append((g.prompt, g.completions[-best[2]]))
    if not found:
        raise InputError(f"not one of {len(groups)} prompts has a completion of reward above {above:g} to show")
    return found


def with_shots(
    prompts: Sequence[Prompt], shots: Sequence[tuple[Prompt, Completion]], k: int = 5, seed: int = 0
) -> list[Prompt]:
    """Each prompt after k of the `shots`, drawn by the seed and the prompt's id, never one of its own.

    Chat prompts get the examples as earlier turns (after their system message), raw text as text in front, separated
    by an empty line. Id and target stay, so the same rewards and splits hold. InputError for fewer than k other shots,
    or shots of the other kind (chat or raw) than the prompt.
    """
    out = []
    for p in prompts:
        others = [s for s in shots if s[0].id != p.id]
        if len(others) < k:
            raise InputError(f"prompt {p.id!r}: {k} shots were asked for, {len(others)} of other prompts are there")
        rng = np.random.default_rng(completion_seed(seed, p.id))
        chosen = [others[i] for i in rng.choice(len(others), k, replace=False)]
        out.append(Prompt(p.id, _before(p, chosen), p.target, p.source))
    return out


def _before(prompt: Prompt, shots: Sequence[tuple[Prompt, Completion]]) -> tuple[Message, ...]:
    raw = prompt.messages[0]["role"] == "text"
    if any((s.messages[0]["role"] == "text") != raw for s, _ in shots):
        raise InputError(f"prompt {prompt.id!r}: shots and prompt must both be chat messages or both raw text")
    if raw:
        parts = [s.messages[0]["content"] + c.text.strip("\n") for s, c in shots]
        return ({"role": "text", "content": "\n\n".join([*parts, prompt.messages[0]["content"]])},)
    first = [m for m in prompt.messages[:1] if m["role"] in ("system", "developer")]
    turns: list[Message] = []
    for s, c in shots:
        turns += [m for m in s.messages if m["role"] not in ("system", "developer")]
        turns.append({"role": "assistant", "content": c.text})
    return (*first, *turns, *prompt.messages[len(first) :])
