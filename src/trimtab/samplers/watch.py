"""Answers that look whole and are worthless: counted over a call, and told once each, with figures."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.types import Group, Prompt, SamplingParams

FEW = 4
"""Fewer equal answers than these may well be what was asked for."""
CANNED, PROMPTS = 20, 8
"""Characters of one and the same answer to so many prompts that are no yes and no no."""


@dataclass
class Watch:
    """What one call saw. `tell` warns of what a user would want to know before paying for more."""

    where: str
    asked_model: str
    params: SamplingParams
    counts: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    """First answers: of different prompts, so they differ."""

    def answer(self, payload: Any, asked: int, given: int) -> None:
        """One answer: the model that it names, and choices beyond or below those asked for."""
        name = payload.get("model") if isinstance(payload, dict) else None
        if isinstance(name, str) and name and not _same(name, self.asked_model):
            self.models[name] += 1
        self.counts["answers"] += 1
        self.counts["more" if given > asked else "fewer" if given < asked else ""] += 1

    def group(self, group: Group) -> None:
        """A finished group."""
        good = [c for c in group.completions if not c.failed]
        self.failures.update(c.note for c in group.completions if c.failed)
        self.counts["failed prompts"] += len(good) < len(group.completions)
        self.counts["completions"] += len(good)
        self.counts["thoughts"] += sum("only reasoning" in c.note for c in good)
        self.counts["empty"] += sum(not c.text.strip() for c in good)
        self.counts["empty and cut"] += sum(not c.text.strip() and c.finish == "length" for c in good)
        self.texts.update(c.text for c in good[:1] if len(c.text) >= CANNED)
        asked = _asked(group.prompt)
        self.counts["echoes"] += sum(len(asked) >= 12 and c.text.strip().startswith(asked) for c in good)
        if len(good) > 1 and self.params.temperature > 0:
            self.counts["groups"] += 1
            same = len({c.text for c in good}) == 1 and bool(good[0].text.strip())
            self.counts["equal"] += same
            self.counts["equal completions"] += len(good) if same else 0

    def tell(self) -> None:
        """One warning for each kind of thing that was seen."""
        for line in self._lines():
            warnings.warn(f"{self.where}: {line}", stacklevel=2)

    def _lines(self) -> Sequence[str]:
        n, lines = self.counts, []
        if self.failures:
            note, _ = self.failures.most_common(1)[0]
            lines.append(
                f"{self.failures.total()} completions of {n['failed prompts']} prompts failed and have no text "
                f"(finish 'error'): {note[:300]}. They have no reward; the next run asks for them again"
            )
        if n["thoughts"]:
            lines.append(
                f"{n['thoughts']} of {n['completions']} answers are only reasoning, without text: raise max_tokens "
                f"({self.params.max_tokens}), or turn thinking off (extra)"
            )
        empty = n["empty"] - n["thoughts"]
        if empty > 0 and (2 * empty >= n["completions"] or n["empty and cut"] > n["thoughts"]):
            lines.append(
                f"{empty} of {n['completions']} answers are empty: does the server know this model's template?"
            )
        if n["equal"] and n["equal"] == n["groups"] and n["equal completions"] >= FEW:
            lines.append(
                f"all completions of a prompt are the same text, in {n['equal']} of {n['groups']} prompts, at "
                f"temperature {self.params.temperature:g}: the server ignores temperature, or answers from a cache"
            )
        if len(self.texts) == 1 and self.texts.total() >= PROMPTS:
            lines.append(
                f"all of {self.texts.total()} prompts got one and the same answer: {next(iter(self.texts))[:80]!r}"
            )
        if n["echoes"] and 2 * n["echoes"] >= n["completions"]:
            lines.append(f"{n['echoes']} of {n['completions']} answers repeat the prompt first: is echo set?")
        if n["fewer"]:
            lines.append(
                f"{n['fewer']} of {n['answers']} answers had fewer choices than asked for; the rest is asked for apart"
            )
        if n["more"]:
            lines.append(
                f"{n['more']} of {n['answers']} answers had more choices than asked for; they are dropped, but paid"
            )
        if self.models:
            name, times = self.models.most_common(1)[0]
            lines.append(f"asked for model {self.asked_model!r}, {times} of {n['answers']} answers are by {name!r}")
        return lines


def _same(a: str, b: str) -> bool:
    """Whether two names may mean one model: a date, a path or a vendor more."""
    x, y = (name.lower().strip("/") for name in (a, b))
    return x in y or y in x or x.rsplit("/", 1)[-1] in y or y.rsplit("/", 1)[-1] in x


def _asked(prompt: Prompt) -> str:
    content = prompt.messages[-1].get("content")
    return content.strip() if isinstance(content, str) else ""
