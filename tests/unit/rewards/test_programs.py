"""From answers to programs: every form that models answer in, with what must come out."""

# ruff: noqa: E501  (programs read better whole)

import pytest

from trimtab.rewards.programs import extract_program, fenced_blocks

F = "def f(x):\n    return x + 1\n"
SIGNATURE = 'from typing import List\n\ndef helper(x):\n    return x\n\ndef f(x: int) -> int:\n    """Adds one."""\n'


def run(code: str, name: str = "f"):
    space: dict = {}
    exec(code, space)
    return space[name]


@pytest.mark.parametrize(
    "answer",
    [
        F,
        f"```python\n{F}```",
        f"```\n{F}```\n",
        f"Sure! Here it is:\n\n```python\n{F}```\nIt adds one. `f(1)` is 2.",
        f"```python\r\n{F}```".replace("\n", "\r\n"),
        f"~~~py\n{F}~~~",
        f"````python\n{F}````",
        f"```python\n{F}",  # cut off by the token limit
        f"{F}```\n\nThis function adds one.",  # the prompt ended with ```python
        f"{F}```\n\nUse it so:\n```python\nprint(f(1))\n```",
        f"Here is the function:\n\n{F}\nIt adds one to x.",
        f"```bash\npip install x\n```\n```python\n{F}```\n```python\nprint(f(3))\nassert f(1) == 2\n```",
        f"```json\n{{}}\n```\nNo Python there, so:\n```py\n{F}```",
        f"```python\n{F.rstrip()}```",  # closed at the end of the last line
        f"- ```python\n  {F.replace(chr(10), chr(10) + '  ')}\n  ```",
        f"> ```python\n> {F.replace(chr(10), chr(10) + '> ')}\n> ```",
        f"```python\n\ufeff{F}```",
        f"Here it is.\n<answer>\n{F}</answer>",
        f"[PYTHON]\n{F}[/PYTHON]\nIt adds one.",
        "`def f(x): return x + 1`",
        '```python\ndef f(x):\n    """Adds one:\n\n    ```python\n    f(1)\n    ```\n    """\n    return x + 1\n```',
        f"1. First:\n\n   ```python\n   {F.replace(chr(10), chr(10) + '   ')}\n   ```",
    ],
)
def test_the_function_is_found(answer):
    assert run(extract_program(answer, "f"))(1) == 2
    assert run(extract_program(answer))(1) == 2


def test_of_several_definitions_the_last_wins_and_brings_what_it_uses():
    answer = "Naive:\n```python\ndef f(x):\n    return 0\n```\nHelper:\n```python\nimport math\ndef g(x):\n    return math.floor(x)\n```\n"
    answer += "Final:\n```python\ndef f(x):\n    return g(x) + 1\n```\nExample:\n```python\nf('boom')\n```"
    assert run(extract_program(answer, "f"))(1) == 2


def test_function_split_over_blocks_is_joined():
    answer = "```python\nimport math\n```\nthen\n```python\nc = math.pi\n```"
    assert extract_program(answer, "f") == "import math\n\nc = math.pi\n"


@pytest.mark.parametrize(
    "answer",
    [
        "    return x + 1\n",
        "return x + 1",
        "    y = x\n    return y + 1\n\n\ndef other():\n    pass\n",
        "    return x + 1\n\nThe function adds one to its argument.\n",
        "```python\n    return x + 1\n```",
        f"```python\n{F}```",
        "def f(x: List) -> int:\n    return helper(x) + 1",
    ],
)
def test_signature_is_supplied_where_it_is_missing(answer):
    assert run(extract_program(answer, "f", SIGNATURE))(1) == 2


def test_nonsense_stays_what_it_is_so_that_running_it_says_why():
    for text in ("", "I cannot do that.", "def f(x) return", "```python\n```", "(" * 500, "\0", "x" * 100_000):
        assert isinstance(extract_program(text, "f"), str)
    assert extract_program("def f(x) return x", "f") == "def f(x) return x"


def test_fences_inside_strings_of_another_kind_do_not_end_the_block():
    code = 'def f(x):\n    """~~~"""\n    return x + 1\n'
    assert fenced_blocks(f"```python\n{code}```") == [code]
