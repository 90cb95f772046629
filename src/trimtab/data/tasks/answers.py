"""Named tasks to PROMPTS: maths, instructions and exact answers (GSM8K, SVAMP, IFEval, BBH), each with what its reward
needs as target. `code.py` has the tasks judged by running programs.

Rows come from a local file (`path`: any that `data.rows` reads) or from the hub by name through the
optional package `datasets`. A task does not sample, extract or score; its docstring names the reward that fits it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.data.rows import from_hub, kind_of, read_rows, refuse_name
from trimtab.errors import InputError, unknown
from trimtab.types import Prompt

ASKS = {
    "steps": "Think step by step, and put your final answer within \\boxed{}.",
    "direct": "Answer with the number alone.",
}
PAL_SHOTS: tuple[tuple[str, str, str], ...] = (
    ("Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
     "money = 23\n    bagels = 5\n    price = 3", "money - bagels * price"),
    ("Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many golf balls "
     "did he have at the end of wednesday?",
     "balls = 58\n    lost_tuesday = 23\n    lost_wednesday = 2", "balls - lost_tuesday - lost_wednesday"),
    ("There were nine computers in the server room. Five more computers were installed each day, from monday to "
     "thursday. How many computers are now in the server room?",
     "computers = 9\n    per_day = 5\n    days = 4", "computers + per_day * days"),
    ("Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have now?",
     "toys = 5\n    from_mom = 2\n    from_dad = 2", "toys + from_mom + from_dad"),
    ("Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did "
     "Jason give to Denny?", "before = 20\n    after = 12", "before - after"),
    ("Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
     "leah = 32\n    sister = 42\n    eaten = 35", "leah + sister - eaten"),
    ("If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
     "cars = 3\n    arriving = 2", "cars + arriving"),
    ("There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there "
     "will be 21 trees. How many trees did the grove workers plant today?",
     "before = 15\n    after = 21", "after - before"),
)  # fmt: skip
"""The eight questions of program-aided GSM8K (PAL, Gao et al., arXiv 2211.10435); the programs are our own."""


def gsm8k(
    part: str = "test", *, path: str = "openai/gsm8k", form: str = "steps", size: int = 0, seed: int = 0
) -> list[Prompt]:
    r"""Grade-school maths (Cobbe et al., arXiv 2110.14168): 7,473 "train" and 1,319 "test" questions.

        {"question": "Natalia sold clips to 48 of her friends ...", "answer": "... altogether.\n#### 72"}

    form "steps": a chat question that asks for a \boxed{} answer after thinking, for the reward math_answer; "direct":
    one that asks for the number alone. form "pal": raw text, eight questions answered by a program `solution()` and
    then this one, for unit_tests, which runs it; stop at "\n\n\n". The target has `answer`, `solution` and, for
    "pal", `tests`.
    """
    rows = task_rows(path, part, config="main")
    return _maths(
        "gsm8k", part, rows, lambda r: (r["question"], r["answer"].split("####")[-1], r["answer"]), form, size, seed
    )


def svamp(
    part: str = "test", *, path: str = "ChilleD/SVAMP", form: str = "steps", size: int = 0, seed: int = 0
) -> list[Prompt]:
    """SVAMP's one-step word problems (Patel et al., arXiv 2103.07191), forms and rewards as for `gsm8k`.

    {"ID": "chal-1", "Body": "Each pack of dvds costs 76 dollars. ...", "Question": "How much ...?", "Answer": 51.0}
    """

    def read(r: Mapping[str, Any]) -> tuple[str, Any, str]:
        body = str(r["Body"]).strip()
        return (
            body + (" " if body.endswith((".", "?", "!")) else ". ") + r["Question"],
            r["Answer"],
            r.get("Equation", ""),
        )

    return _maths("svamp", part, task_rows(path, part), read, form, size, seed)


def ifeval(part: str = "train", *, path: str = "google/IFEval", size: int = 0, seed: int = 0) -> list[Prompt]:
    """IFEval's 541 prompts with verifiable instructions (Zhou et al., arXiv 2311.07911), for the reward instructions.

    {"key": 1001, "prompt": "I am planning a trip ...", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    """
    prompts = []
    for r in task_rows(path, part):
        fields = [{k: v for k, v in kwargs.items() if v is not None} for kwargs in r["kwargs"]]  # the hub fills in None
        target = {"instruction_id_list": list(r["instruction_id_list"]), "kwargs": fields, "prompt": r["prompt"]}
        prompts.append(Prompt(f"ifeval/{r['key']}", ({"role": "user", "content": r["prompt"]},), target, "ifeval"))
    return some(prompts, size, seed)


def bbh(part: str, *, path: str = "lukaemon/bbh", size: int = 0, seed: int = 0) -> list[Prompt]:
    """One of BIG-Bench Hard's 27 tasks (Suzgun et al., arXiv 2210.09261), e.g. "date_understanding", for exact_match
    with extract="last_line". `path`: its file, or the folder that holds <task>.json.

    {"input": "Today is Christmas Eve of 1937. ... Options:\\n(A) 12/11/1937 ...", "target": "(B)"}
    """
    folder = Path(path)
    if folder.is_dir():
        found = sorted(folder.glob("*.json*"))
        by_name = {f.name.split(".")[0]: f for f in found}
        if part not in by_name:
            raise unknown("BBH task", part, by_name)
        path = str(by_name[part])
    rows = task_rows(path, "test", config=part)
    ask = "\nThink briefly, then give the answer alone on the last line."
    prompts = [
        Prompt(
            f"bbh/{part}/{n}", ({"role": "user", "content": r["input"] + ask},), {"answer": r["target"]}, f"bbh/{part}"
        )
        for n, r in enumerate(rows)
    ]
    return some(prompts, size, seed)


TASKS: dict[str, Callable[..., list[Prompt]]] = {"gsm8k": gsm8k, "svamp": svamp, "ifeval": ifeval, "bbh": bbh}


def task_rows(path: str, part: str, *, config: str | None = None) -> list[Mapping[str, Any]]:
    """The rows of a file, or of the `part` of a data set on the hub. A JSON file is a list, or an object whose one list
    is meant (`examples`). InputError: whatever `data.rows` refuses."""
    if kind_of(path):
        return [row for _, row in read_rows(path)]
    if Path(path).suffix and path.count("/") != 1:
        refuse_name(path)
    return list(from_hub(path, part, config))


def some(prompts: list[Prompt], size: int, seed: int) -> list[Prompt]:
    """`size` prompts drawn by the seed, in the order of the data; all for 0. InputError when there are fewer."""
    if not size:
        return prompts
    if size > len(prompts):
        raise InputError(f"{prompts[0].source} has {len(prompts)} prompts, {size} were asked for")
    return [prompts[i] for i in sorted(np.random.default_rng(seed).permutation(len(prompts))[:size])]


def pal_prompt(question: str) -> str:
    """Eight questions answered by programs, then `question`: the model goes on after `def solution():`."""
    head = "Q: {}\n\n# solution in Python:\n\n\n"
    program = 'def solution():\n    """{}"""\n    {}\n    result = {}\n    return result'
    shots = [head.format(q) + program.format(q, body, result) for q, body, result in PAL_SHOTS]
    return "\n\n\n\n\n\n".join([*shots, head.format(question)])


def _maths(
    name: str, part: str, rows: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], tuple[str, Any, str]],
    form: str, size: int, seed: int,
) -> list[Prompt]:  # fmt: skip
    prompts = []
    for n, row in enumerate(rows):
        try:
            question, answer, solution = read(row)
            number = float(re.sub(r"[,$\s]", "", str(answer)))
        except (KeyError, ValueError, AttributeError) as e:
            raise InputError(f"{name}, row {n + 1}: not a row of {name} ({type(e).__name__}: {e})") from e
        target: dict[str, Any] = {"answer": f"{number:.10g}", "solution": solution}
        if form == "pal":
            target = {
                "tests": f"assert abs(float(solution()) - {number!r}) < 1e-3",
                "entry_point": "solution",
                **target,
            }
            target["reference"] = target.pop("solution")  # prose: no program that check_gold could run
            messages = ({"role": "text", "content": pal_prompt(question)},)
        elif form in ASKS:
            messages = ({"role": "user", "content": f"{question}\n{ASKS[form]}"},)
        else:
            raise unknown(f"form of {name}", form, (*ASKS, "pal"))
        prompts.append(Prompt(f"{name}/{part}/{row.get('ID', n)}", messages, target, name))
    return some(prompts, size, seed)
