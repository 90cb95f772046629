"""Programs to rewards: 1 when the program in a completion passes the prompt's tests in the sandbox, else 0.

The tests run in a process where no line of the program runs (rewards/sandbox), so a reward cannot be forged by the
program; it can only answer rightly. NaN with a note where nothing can be said about the program: broken tests, a dead
sandbox. Not here: reading programs from stdin to stdout, and partial credit per test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError
from trimtab.rewards.programs import defines, extract_program
from trimtab.rewards.sandbox.limits import Job, escape
from trimtab.rewards.sandbox.shared import shared
from trimtab.types import Completion, Group, Prompt, Reward

TESTS = ("tests", "test_list", "test")
SETUP = ("setup", "test_setup_code", "test_imports")
GOLD = ("code", "canonical_solution", "gold", "solution")


@dataclass(frozen=True)
class UnitTests:
    """1 if the completion's program passes the tests, else 0 (the note says what went wrong); NaN if nobody can know.

    The prompt's target holds `tests` (text or a list of texts; MBPP's `test_list` and HumanEval's `test` are known
    too), and may hold `setup`, `entry_point`, and `signature`: the code that the prompt began, which HumanEval calls
    `prompt` (its helpers are then the tests' own, whatever the program defines). `limits`: `timeout_s` wall-clock
    seconds and `memory_mb` of address space a program. One warm sandbox a process and setting is shared by all calls;
    it has `workers` workers (0: one a core) and isolates by `way`. EngineError: this machine gives no isolation.
    """

    timeout_s: float = 3.0
    memory_mb: int = 1024
    workers: int = 0
    way: str = "auto"
    unsafe: bool = False
    extract: bool = True
    """False takes the completion's text as the program, unread."""

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        jobs = [self.job(g.prompt, c) for g in groups for c in g.completions]
        if not jobs:
            return [[] for _ in groups]
        sandbox = shared(self.timeout_s, self.memory_mb, self.workers, self.way, self.unsafe)
        outcomes = sandbox.run(jobs)
        return [[_reward(next(outcomes)) for _ in g.completions] for g in groups]

    def job(self, prompt: Prompt, completion: Completion) -> Job:
        """What the sandbox is asked to run; InputError when the prompt has no tests."""
        columns = prompt.columns
        tests, setup = _first(columns, TESTS), _first(columns, SETUP)
        if tests is None:
            raise InputError(
                f"prompt {prompt.id}: its target has no column 'tests' ({', '.join(columns) or 'it is empty'})"
            )
        entry, signature = str(columns.get("entry_point") or ""), str(columns.get("signature") or "")
        if not signature and entry and isinstance(columns.get("prompt"), str):
            signature = columns["prompt"]
        if not defines(signature, entry):  # prose, as in MBPP's prompts
            signature = ""
        text = "\n".join([*_lines(setup), *_lines(tests)])
        if entry and "def check(" in text and f"check({entry})" not in text:
            text += f"\ncheck({entry})\n"  # HumanEval's tests define check and leave the call to the harness
        wanted = entry or _called(text)
        program = extract_program(completion.text, wanted, signature) if self.extract else signature + completion.text
        return Job(program, text, entry, signature)


def check_gold(prompts: Sequence[Prompt], reward: UnitTests | None = None) -> Iterator[tuple[str, str]]:
    """(prompt id, note) for each prompt whose own reference solution does not earn 1.

    The solution is the target's column `code`, `canonical_solution`, `gold` or `solution`; prompts without one are
    skipped. A data set is checked so when it is loaded with --check-gold.
    """
    fn = reward or UnitTests(timeout_s=30.0)
    having = [(p, str(gold)) for p in prompts if (gold := _first(p.columns, GOLD)) is not None]
    groups = [Group(p, (Completion(gold, "gold@0", 0, 0),)) for p, gold in having]
    for group, (result,) in zip(groups, fn(groups), strict=True):
        if result.value != 1.0:
            yield group.prompt.id, result.note


def _reward(outcome: Any) -> Reward:
    value = float("nan") if outcome.passed is None else float(outcome.passed)
    return Reward(value, escape(outcome.note, 500))


def _first(columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((columns[n] for n in names if columns.get(n) is not None), None)


def _lines(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _called(tests: str) -> str:
    """The one function that the tests leave to the program; "" when they name none or several."""
    import builtins

    from trimtab.rewards.sandbox.inside.source import free_names

    try:
        names = sorted(n for n in free_names(tests) if not hasattr(builtins, n))
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return names[0] if len(names) == 1 else ""
