"""Word problems by rule with true worked answers, and answers with one planted error whose tokens are known.

A problem has three steps of plus and minus; its answer writes them out:

    Q: Ada has 47 shells. Ada finds 25, loses 18, buys 33. How many now?
    A: 47 + 25 = 72. 72 - 18 = 54. 54 + 33 = 87. The answer is 87.

Errors come in two kinds, a fact (a number of the question copied wrongly) and a step (a result added up wrongly), and
in two ways: `carried` goes on consistently from the error, `alone` changes one number and leaves the rest as it was.
"""

import re
from dataclasses import dataclass

import numpy as np

from trimtab.types import Completion, Prompt

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kim", "Lea", "Max", "Nia", "Oli")
THINGS = ("shells", "coins", "cards", "books", "pens", "eggs", "stamps", "nuts", "keys", "cups", "seeds", "stones")
MORE = ("finds", "buys", "gets", "wins")
LESS = ("loses", "sells", "gives away", "drops")
FINAL = re.compile(r"[Tt]he answer is\s*(-?\d+)")


@dataclass(frozen=True)
class Problem:
    """The start and three signed changes; `who`, `what` and `verbs` only dress it."""

    start: int
    changes: tuple[int, ...]
    who: str
    what: str
    verbs: tuple[str, ...]

    @property
    def answer(self) -> int:
        return self.start + sum(self.changes)

    @property
    def prompt(self) -> Prompt:
        deeds = ", ".join(f"{v} {abs(c)}" for v, c in zip(self.verbs, self.changes, strict=True))
        text = f"Q: {self.who} has {self.start} {self.what}. {self.who} {deeds}. How many now?\nA:"
        return Prompt(text, ({"role": "text", "content": text},), self.answer)

    def worked(self) -> list[str]:
        """The numbers and signs of the true answer in order of writing: a, ±, b, =, c of every step, and the last."""
        parts, total = [], self.start
        for c in self.changes:
            parts += [str(total), "+" if c > 0 else "-", str(abs(c)), "=", str(total := total + c)]
        return [*parts, str(total)]


def problems(n: int, seed: int) -> list[Problem]:
    """`n` different problems; totals stay between 2 and 199."""
    rng = np.random.default_rng(seed)
    found: dict[str, Problem] = {}
    while len(found) < n:
        start, changes = int(rng.integers(10, 100)), []
        total = start
        for _ in range(3):
            c = int(rng.integers(5, 60)) * (1 if rng.random() < 0.5 else -1)
            c = abs(c) if total + c < 2 else -abs(c) if total + c > 199 else c
            changes.append(c)
            total += c
        verbs = tuple(str(rng.choice(MORE if c > 0 else LESS)) for c in changes)
        p = Problem(start, tuple(changes), str(rng.choice(NAMES)), str(rng.choice(THINGS)), verbs)
        if 2 <= total <= 199:
            found.setdefault(p.prompt.id, p)
    return list(found.values())


def written(parts: list[str]) -> str:
    """The answer's text of `Problem.worked`'s parts."""
    steps = [" ".join(parts[i : i + 5]) + "." for i in range(0, len(parts) - 1, 5)]
    return f" {' '.join(steps)} The answer is {parts[-1]}."


def true_completion(problem: Problem) -> Completion:
    return Completion(written(problem.worked()), "rule", 0, 0)


@dataclass(frozen=True)
class Planted:
    """An answer with one wrong number: `span` are its characters in `completion.text`, from the first changed digit."""

    problem: Problem
    completion: Completion
    span: tuple[int, int]
    kind: str
    way: str


def plant(problem: Problem, kind: str, way: str, rng: np.random.Generator) -> Planted:
    """One error. A wrong step is off by 1, 2, 3 or 10; a wrong fact has one digit changed. Numbers keep their length
    where they can, so that length gives nothing away."""
    parts = problem.worked()
    step = int(rng.integers(0, 3))
    at = 5 * step + (4 if kind == "step" else 2)
    true = int(parts[at])
    near = [d for d in ((-10, -3, -2, -1, 1, 2, 3, 10) if kind == "step" else (-20, -10, -3, -2, -1, 1, 2, 3, 10, 20))
            if true + d > 1]  # fmt: skip
    same = [d for d in near if len(str(true + d)) == len(str(true))]
    parts[at] = str(true + int(rng.choice(same or near)))
    if way == "carried":
        for i in range(0, 15, 5):
            if i >= 5:
                parts[i] = parts[i - 1]
            if i + 4 != at:
                b = int(parts[i + 2])
                parts[i + 4] = str(int(parts[i]) + (b if parts[i + 1] == "+" else -b))
        parts[15] = parts[14]
    text = written(parts)
    before = written([*parts[:at], "\x00", *parts[at + 1 :]]).index("\x00")
    first = next((i for i, (a, b) in enumerate(zip(parts[at], str(true), strict=False)) if a != b), len(str(true)))
    span = (before + min(first, len(parts[at]) - 1), before + len(parts[at]))
    return Planted(problem, Completion(text, "rule", 0, 0), span, kind, way)


def reward(text: str, target: int) -> float:
    """1 when the last "The answer is N" is right, else 0 (an answer without one is wrong)."""
    found = FINAL.findall(text)
    return float(bool(found) and int(found[-1]) == target)
