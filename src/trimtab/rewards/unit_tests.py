"""Programs to rewards: 1 when the program in a completion passes the prompt's tests in the sandbox, else 0.

The tests run in a process where no line of the program runs (sandbox/), so a reward cannot be forged by the
program; it can only answer rightly. Programs that read stdin and print are judged by what they print. NaN with a note
where nothing can be said about the program: broken tests, a dead sandbox. Not here: partial credit per test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.returned import no_reward, one_line
from trimtab.rewards.contest_cases import SITE, Cases, Unreadable, read_cases, same_output
from trimtab.rewards.programs import defines, extract_program, extract_script
from trimtab.rewards.thoughts import UNFINISHED, Tags, answer_to
from trimtab.sandbox.limits import Job, Limits
from trimtab.sandbox.shared import shared
from trimtab.types import Completion, Group, Prompt, Reward

if TYPE_CHECKING:
    from trimtab.sandbox.pool import Sandbox

TESTS = ("tests", "test_list", "test")
SETUP = ("setup", "test_setup_code", "test_imports", "import_statement")
AT_ONCE = 4  # cases of one program that are given to the sandbox before the first failure ends it
GOLD = ("code", "canonical_solution", "gold", "solution")


@dataclass(frozen=True)
class UnitTests:
    """1 if the completion's program passes the tests, else 0 (the note says what went wrong); NaN if nobody can know.

    The prompt's target holds `tests` (text or a list of texts; MBPP's `test_list` and HumanEval's `test` are known
    too), and may hold `setup`, `entry_point`, and `signature`: the code that the prompt began, which HumanEval calls
    `prompt` (its helpers are then the tests' own, whatever the program defines). Or it holds inputs and outputs, for
    stdin or for a function, in the columns of APPS, TACO, CodeContests or LiveCodeBench (`rewards.contest_cases`).
    `limits`: `timeout_s` wall-clock seconds a program (a case, where there are cases) and `memory_mb` of address space.
    One warm sandbox a process and setting is shared by all calls; it has `workers` workers (0: one a core) and isolates
    by `way`. EngineError: this machine gives no isolation.
    """

    timeout_s: float = 3.0
    memory_mb: int = 1024
    workers: int = 0
    way: str = "auto"
    unsafe: bool = False
    extract: bool = True
    """False takes the completion's text as the program, unread."""
    tags: Tags = ()
    """Pairs of tags around thoughts beside the usual ones (rewards/thoughts.py)."""

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        flat = [(g.prompt, c) for g in groups for c in g.completions]
        if not flat:
            return [[] for _ in groups]
        sandbox = shared(self.timeout_s, self.memory_mb, self.workers, self.way, self.unsafe)
        rewards: dict[int, Reward] = {}
        jobs: dict[int, Job] = {}
        scripts: dict[int, tuple[str, Cases]] = {}
        for i, (prompt, completion) in enumerate(flat):
            if self.extract and answer_to(prompt, completion, self.tags) is None:
                rewards[i] = Reward(0.0, UNFINISHED)
                continue
            try:
                cases = None if _plain_tests(prompt.columns) else read_cases(prompt.columns)
            except Unreadable as e:
                rewards[i] = no_reward(f"the tests cannot be read: {e}")
                continue
            if cases is None:
                jobs[i] = self.job(prompt, completion)
            elif cases.function:
                jobs[i] = self._call_job(prompt, completion, cases)
            else:
                scripts[i] = (extract_script(self._answer(prompt, completion)), cases)
        rewards |= dict(zip(jobs, map(_reward, sandbox.run(jobs.values())), strict=True))
        rewards |= _run_scripts(sandbox, scripts)
        flat_rewards = iter([rewards[i] for i in range(len(flat))])
        return [[next(flat_rewards) for _ in g.completions] for g in groups]

    def _answer(self, prompt: Prompt, completion: Completion) -> str:
        return (answer_to(prompt, completion, self.tags) or "") if self.extract else completion.text

    def _call_job(self, prompt: Prompt, completion: Completion, cases: Cases) -> Job:
        """A job for arguments and values of a function, or of a method of `class Solution`."""
        text, name = self._answer(prompt, completion), cases.function
        program = extract_program(text, name) if self.extract else text
        if self.extract and not defines(program, name):
            program = extract_program(text, "Solution")
        call = name if defines(program, name) or not defines(program, "Solution") else f"Solution().{name}"
        if "from __future__" not in program:
            program = SITE + program
        return Job(program, cases.tests(call), "" if "." in call else name)

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
        answer = self._answer(prompt, completion)
        program = extract_program(answer, wanted, signature) if self.extract else signature + answer
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
    return Reward(float("nan") if outcome.passed is None else float(outcome.passed), one_line(outcome.note))


def _run_scripts(sandbox: "Sandbox", scripts: Mapping[int, tuple[str, Cases]]) -> dict[int, Reward]:
    """Every script on its cases, some at a time; the first that fails ends it."""
    rewards: dict[int, Reward] = {}
    at, kept = 0, Limits().output_bytes
    while left := [i for i, (_, cases) in scripts.items() if i not in rewards and at < len(cases.pairs)]:
        asked = [(i, pair) for i in left for pair in scripts[i][1].pairs[at : at + AT_ONCE]]
        jobs = [Job(scripts[i][0], mode="script", stdin=given) for i, (given, _) in asked]
        for (i, (_, wanted)), outcome in zip(asked, sandbox.run(jobs), strict=True):
            if i not in rewards and (failure := _failure(outcome, wanted, kept)) is not None:
                rewards[i] = failure
        at += AT_ONCE
    return {i: rewards.get(i, Reward(1.0)) for i in scripts}


def _failure(outcome: Any, wanted: str, kept: int) -> Reward | None:
    """The reward that a case decides; None when it is passed."""
    if outcome.exit_code is None and not outcome.note.startswith("took longer"):
        return no_reward(outcome.note or "the sandbox gave no result")
    if len(wanted.encode()) >= kept:
        return no_reward(f"the output expected is longer than the {kept} bytes that are kept")
    if outcome.note:
        return Reward(0.0, one_line(outcome.note))
    if outcome.exit_code:
        last = outcome.stderr.strip().splitlines()[-1:] or [""]
        return Reward(0.0, one_line(f"ended with exit code {outcome.exit_code}: {last[0]}"))
    if same_output(outcome.stdout, wanted):
        return None
    return Reward(0.0, one_line(f"printed {outcome.stdout.strip()[:100]!r} where {wanted.strip()[:100]!r} is expected"))


def _plain_tests(columns: Mapping[str, Any]) -> bool:
    """Whether the target holds Python tests, which are texts that are no JSON."""
    tests = _first(columns, TESTS)
    texts = [tests] if isinstance(tests, str) else tests if isinstance(tests, list | tuple) else []
    return bool(texts) and all(isinstance(t, str) and not t.lstrip().startswith(("[", "{")) for t in texts)


def _first(columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((columns[n] for n in names if columns.get(n) is not None), None)


def _lines(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _called(tests: str) -> str:
    """The one function that the tests leave to the program; "" when they name none or several."""
    import builtins

    from trimtab.sandbox.inside.source import free_names

    try:
        names = sorted(n for n in free_names(tests) if not hasattr(builtins, n))
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return names[0] if len(names) == 1 else ""
