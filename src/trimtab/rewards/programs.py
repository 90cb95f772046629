"""A chat answer or a raw continuation to the Python program in it: pure functions, nothing is run.

Handles fenced blocks, several of them, a fence that was opened in the prompt or never closed, prose around bare code,
and continuations that lack the signature (HumanEval's form). What cannot be parsed is still returned: running it says
why.
"""

import ast
import re
import textwrap
import warnings

FENCE = re.compile(r"^[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(```+|~~~+)[ \t]*([\w+.-]*)[^\n`]*$", re.MULTILINE)
PYTHON = {"", "python", "py", "python3", "py3", "python2", "ipython", "jupyter"}
START = re.compile(r"^(?:def|async def|class|import|from|@)\b|^@", re.MULTILINE)
WRAPPED = re.compile(
    r"(?:<(answer|code|solution)>|\[PYTHON\])((?:(?!<\1>|\[PYTHON\]).)*?)(?:</\1>|\[/PYTHON\])",
    re.DOTALL | re.IGNORECASE,
)
ENDS = re.compile(r"(?<=[^\s`])```+[ \t]*$", re.MULTILINE)
INLINE = re.compile(r"\s*`+(?:python\b)?\s*([^`]*)`+\s*")
PRINTS = re.compile(r"\b(?:print|stdout|write)\b")
TRIES = 400  # lines cut off the end in the search for text that parses


def extract_program(text: str, entry_point: str = "", signature: str = "") -> str:
    """The program of an answer.

    `entry_point` is the function wanted: among several fenced blocks the last that defines it is taken, with what it
    uses from earlier blocks. `signature` is the code that the prompt began (imports, helpers, `def f(...):` and its
    docstring): it is put in front of an answer that only goes on with the body, and what stands before the
    function (its imports and helpers) in front of one that repeats it. Line ends become "\\n".
    """
    text = _tidy(text)
    signature = signature.replace("\r\n", "\n")
    blocks = fenced_blocks(text)
    program = _choose(blocks, entry_point) if blocks else _bare(text)
    if signature and entry_point:
        if defines(program, entry_point):
            return _before(signature, entry_point) + program
        return _continue(signature, program if blocks else text)
    return program


def extract_script(text: str) -> str:
    """The program of an answer that reads stdin and prints: the last fenced block that prints, with what it uses."""
    text = _tidy(text)
    blocks = fenced_blocks(text)
    if not blocks:
        return _bare(text)
    having = [i for i, b in enumerate(blocks) if PRINTS.search(b) and parses(b)]
    return _with_earlier(blocks, having[-1]) if having else blocks[-1]


def fenced_blocks(text: str) -> list[str]:
    """The Python blocks of a Markdown answer, in order; a fence that the prompt opened or nobody closed counts."""
    marks = list(FENCE.finditer(text))
    if not marks:
        return []
    blocks, start, fence, language = [], None, "", ""
    first = marks[0]
    if first[2] == "" and START.search(text[: first.start()]) and parses(text[: first.start()]):
        blocks.append(text[: first.start()])  # the prompt ended with an open fence, and this closes it
        marks = marks[1:]
    for mark in marks:
        if start is None:
            start, fence, language = mark.end() + 1, mark[1], mark[2].lower()
        elif mark[2] == "" and mark[1][0] == fence[0] and len(mark[1]) >= len(fence):
            if _indent(mark) > 3 and not parses(textwrap.dedent(text[start : mark.start()])):
                continue  # an example in a docstring
            if language in PYTHON:
                blocks.append(_block(text[start : mark.start()]))
            start = None
    if start is not None and language in PYTHON:
        blocks.append(_block(text[start:]))
    return [b for b in blocks if b.strip()]


def _tidy(text: str) -> str:
    """Line ends as "\\n", no byte order marks, fences out of a quotation."""
    text = text.replace("\r\n", "\n").replace("\ufeff", "")
    return re.sub(r"^> ?", "", text, flags=re.MULTILINE) if re.search(r"^> ?```", text, re.MULTILINE) else text


def _block(code: str) -> str:
    """What a fence holds; a closing fence may stand at the end of the last line."""
    code = textwrap.dedent(code)
    ends = ENDS.search(code)
    return code[: ends.start()] if ends and not parses(code) else code


def _indent(mark: re.Match[str]) -> int:
    return len(mark[0]) - len(mark[0].lstrip())


def parses(code: str) -> bool:
    """Whether `code` is a Python program that says anything at all."""
    return bool(_tree(code).body)


def defines(code: str, name: str) -> bool:
    """Whether `code` binds `name` at its top level by def, class, import or assignment."""
    return name in _bound(code)


def _tree(code: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in what a model wrote are its own affair
            tree = ast.parse(code)
            compile(tree, "<program>", "exec")  # finds what parsing does not, such as a return outside a function
            return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _bound(code: str) -> set[str]:
    names: set[str] = set()
    for node in _tree(code).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def _used(code: str) -> set[str]:
    return {n.id for n in ast.walk(_tree(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _choose(blocks: list[str], entry_point: str) -> str:
    """The block with the answer, after the earlier blocks that it needs."""
    if len(blocks) == 1:
        return blocks[0]
    if entry_point:
        having = [i for i, b in enumerate(blocks) if defines(b, entry_point)]
    else:  # a block of definitions rather than of examples
        having = [i for i, b in enumerate(blocks) if re.search(r"^(?:def|class)\b", b, re.MULTILINE)][:1]
    if not having:
        return "\n".join(blocks)
    return _with_earlier(blocks, having[-1])


def _with_earlier(blocks: list[str], index: int) -> str:
    """A block after the earlier ones that define what it uses."""
    chosen = blocks[index]
    for block in reversed(blocks[:index]):
        if (_bound(block) - _bound(chosen)) & _used(chosen):
            chosen = block.rstrip() + "\n" + chosen
    return chosen


def _bare(text: str) -> str:
    """Code in prose without fences: from the first line that starts like code, as far as it parses."""
    if parses(text):
        return text
    if inline := INLINE.fullmatch(text):
        return inline[1]
    if wrapped := list(WRAPPED.finditer(text)):
        return textwrap.dedent(wrapped[-1][2].strip("\n"))
    start = START.search(text)
    if start is None:
        return text
    found = _longest(text[start.start() :])
    return found or text


def _longest(text: str) -> str:
    """The longest beginning of `text`, in whole lines, that parses; "" when none does."""
    lines = text.split("\n")
    for end in range(len(lines), max(0, len(lines) - TRIES), -1):
        if parses(part := "\n".join(lines[:end])):
            return part
    return ""


def _before(signature: str, entry_point: str) -> str:
    """Imports and helpers that the prompt gave in front of the function itself."""
    found = re.search(rf"^(?:async )?def {re.escape(entry_point)}\b", signature, re.MULTILINE)
    head = signature[: found.start()] if found else ""
    return head if parses(head) else ""


def _continue(signature: str, body: str) -> str:
    """Signature and body joined, the body indented if it is not, cut where it stops being code."""
    head = signature.rstrip("\n") + "\n"
    for candidate in (head + body.lstrip("\n"), head + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")):
        if len(found := _longest(candidate)) > len(head):
            return found
    return head + body
