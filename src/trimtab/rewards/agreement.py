"""COMPLETIONS to REWARDS: how far the programs of a group answer alike. No test and no expected answer is looked at.

Self-consistency for programs: as in majority vote the answers of the model itself are the only evidence. Two programs
"say the same" when they return the same for the same inputs (minimum Bayes risk by execution, Shi et al. 2022, arXiv
2204.11454; AlphaCode's clustering). A program can lie about its answers, so this chooses among samples of an
honest model; it is no verdict.
"""

import ast
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import unknown
from trimtab.returned import one_line
from trimtab.rewards.programs import extract_program
from trimtab.rewards.thoughts import answer_to
from trimtab.sandbox.limits import Job
from trimtab.sandbox.shared import shared
from trimtab.types import Completion, Group, Prompt, Reward, message_text

INPUTS = ("generic", "shown")
VALUES: tuple[Any, ...] = (
    0, 1, 2, 3, 5, 12, -4, 100, 2.5, "", "a", "abca", "Hello World 123", "aab", "10", [], [1, 2, 3], [3, 1, 2, 2, 5],
    [-1, 0, 7, 7, 12, 4], [[1, 2], [3, 4]], ["a", "bb", "a"], (1, 2, 3), (5, 5, 2, 8), [(1, 2), (3, 4)],
    [("a", 2), ("b", 1)], {"a": 1, "b": 2}, True,
)  # fmt: skip
"""What a function of any task may be called with; most calls fail, and failing alike says nothing."""
PROBE = """

def trimtab_answers():
    import copy, inspect, random
    space = globals()
    f = next((space[n] for n in {names!r} if callable(space.get(n))), None)
    if f is None:
        return None
    values, calls = {values!r}, {calls!r}
    if calls:
        wanted = [lambda c=c: eval(c, space) for c in calls]
    else:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        n = sum(p.default is p.empty and p.kind in kinds for p in inspect.signature(f).parameters.values())
        rng, sets = random.Random(n), [(v,) for v in values] if n == 1 else [()] if n == 0 else []
        if n > 1:
            sets = [tuple(rng.choice(values) for _ in range(n)) for _ in range(60)]
            for kind in (int, str, list, tuple):
                own = [v for v in values if type(v) is kind]
                sets += [tuple(rng.choice(own) for _ in range(n)) for _ in range(12)]
            numbers = [v for v in values if type(v) is int]
            many = [v for v in values if isinstance(v, (str, list, tuple))]
            sets += [(rng.choice(many), *(rng.choice(numbers) for _ in range(n - 1))) for _ in range(12)]
        wanted = [lambda a=a: f(*copy.deepcopy(a)) for a in sets]
    answers = []
    for call in wanted:
        try:
            answers.append(repr(call())[:300])
        except Exception:
            answers.append(None)
    return answers
"""


@dataclass(frozen=True)
class ExecutionAgreement:
    """Share of inputs on which a program answers as the group's others do, mean over the others, 0 to 1.

    Inputs on which neither of two programs answers are left out of their share; a program that answers nowhere earns 0,
    and so does one that is alone. `inputs` "generic" calls the function that most of the group define with a fixed
    assortment of values, as many as it takes arguments; "shown" uses the calls that the prompt itself shows (after
    `assert` or `>>>`), never what it says they give: that is told more, and a prompt that shows none is NaN with a
    note. The other fields are those of `UnitTests`.
    """

    inputs: str = "generic"
    timeout_s: float = 1.5
    memory_mb: int = 1024
    workers: int = 0
    way: str = "auto"
    unsafe: bool = False

    def __post_init__(self) -> None:
        if self.inputs not in INPUTS:
            raise unknown("kind of inputs", self.inputs, INPUTS)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. EngineError: this machine gives no isolation."""
        calls = [shown_calls(g.prompt) if self.inputs == "shown" else [] for g in groups]
        able = [bool(c) or self.inputs == "generic" for c in calls]
        asked = [g if a else Group(g.prompt, ()) for g, a in zip(groups, able, strict=True)]
        jobs = [job for g, c in zip(asked, calls, strict=True) for job in _jobs(g, c)]
        sandbox = shared(self.timeout_s, self.memory_mb, self.workers, self.way, self.unsafe)
        outcomes = iter(sandbox.run(jobs) if jobs else ())
        found = [[next(outcomes) for _ in g.completions] for g in asked]
        silent = Reward(math.nan, "the prompt shows no call of a function")
        return [
            _rewards(outs) if a else [silent] * len(g.completions)
            for g, a, outs in zip(groups, able, found, strict=True)
        ]


def shown_calls(prompt: Prompt) -> list[str]:
    """Calls that the prompt's text shows after `assert` or `>>>`, each once: the function's, not those around it."""
    calls = []
    for message in prompt.messages:
        for line in message_text(message).splitlines():
            head, _, code = line.partition("<|")[0].strip().partition(" ")  # a raw prompt's lines end in marks
            if head not in ("assert", ">>>"):
                continue
            try:
                tree = ast.parse(code, mode="eval")
            except SyntaxError:
                continue
            calls += [ast.unparse(x) for x in ast.walk(tree) if _is_own_call(x)][:1]
    return list(dict.fromkeys(calls))


def _is_own_call(node: ast.AST) -> bool:
    import builtins

    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not hasattr(builtins, node.func.id)


def _jobs(group: Group, calls: Sequence[str]) -> list[Job]:
    programs = [_program(group.prompt, c) for c in group.completions]
    common = Counter(n for p in programs for n in dict.fromkeys(_defined(p)))
    names = [n for n, _ in sorted(common.items(), key=lambda x: -x[1])]  # of equals the one defined first
    probe = PROBE.format(names=names, values=list(VALUES), calls=list(calls))
    return [Job(p + probe, entry_point="trimtab_answers", mode="value") for p in programs]


def _program(prompt: Prompt, completion: Completion) -> str:
    columns = prompt.columns
    entry, signature = str(columns.get("entry_point") or ""), str(columns.get("signature") or "")
    return extract_program(answer_to(prompt, completion) or "", entry, signature)


def _defined(program: str) -> list[str]:
    try:
        return [n.name for n in ast.parse(program).body if isinstance(n, ast.FunctionDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _rewards(outcomes: Sequence[Any]) -> list[Reward]:
    answers = [o.value if isinstance(o.value, list) else [] for o in outcomes]
    rewards = []
    for i, o in enumerate(outcomes):
        shares = [_share(answers[i], other) for j, other in enumerate(answers) if j != i]
        value = math.nan if o.passed is None else float(np.mean(shares)) if shares else 0.0
        rewards.append(Reward(value, one_line(o.note)))
    return rewards


def _share(a: list[Any], b: list[Any]) -> float:
    """Of the inputs that either answers, the share on which both answer the same; 0 for other numbers of inputs."""
    if len(a) != len(b):
        return 0.0
    told = [(x, y) for x, y in zip(a, b, strict=True) if x is not None or y is not None]
    return float(np.mean([x == y for x, y in told])) if told else 0.0
