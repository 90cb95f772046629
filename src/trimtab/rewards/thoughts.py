"""A completion's text to the answer it shows: thoughts between tags, or before a lone closing tag, are no answer.

All that read completions (mathematics, extractors, choices, verdicts, programs, instructions) read what this leaves.
A tag in a code span, in a fenced block or right after an opening quote is mentioned, not used, and stays.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from trimtab.types import Completion, Prompt

Tags = Sequence[Sequence[str]]
TAGS: Tags = (
    ("<think>", "</think>"),  # DeepSeek, Qwen and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<reflection>", "</reflection>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThoughts
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel|>commentary", "<|channel|>final<|message|>"),
)
"""Pairs of tags around thoughts, told in any case. An answer that must hold one of them shows it as code."""

UNFINISHED = "no answer: the thinking is unfinished"
"""The note of a completion of which `answer_of` is None."""

_ONE_FAMILY = {"</think>", "</thinking>", "</thought>", "</thoughts>"}  # models close one with another
_CODE = r"(?m:(?:^|(?<=[>\]▷]))[ \t]*```[^`\n]*\n(?:(?![ \t]*```).*\n)*[ \t]*```[ \t]*$)|`[^`\n]+`"
_OPENS_QUOTE = re.compile(r"(?:^|[\s(\[{=,:+/]|\b[rRbBfF])[\"'`]$|[“‘«]$")
_ENDS = re.compile(r"(?:\s*<\|(?:return|end|end_of_solution)\|>)+\s*$|^\s*<\|begin_of_solution\|>")
_BARE_HARMONY = re.compile(r"\s*analysis(?=[^a-z\s]|.*assistantfinal)", re.DOTALL)


def answer_of(text: str, tags: Tags = ()) -> str | None:
    """What a text says outside its thoughts; None when it ends while still thinking, "" when it only thought.

    `tags` are pairs (opening, closing) beside the usual ones, `TAGS`. A closing tag without an opening one ends
    thoughts that began with the text or in the prompt. A text without tags is given back as it is.
    """
    text = _with_marks(text)
    closing, tag, tag_or_code = _patterns(tuple(map(tuple, tags)))
    if not tag.search(text):
        return text
    kept: list[str] = []
    start, at, inside = 0, 0, ""  # `inside`: the tag that would end the thoughts we are in
    while found := (tag if inside else tag_or_code).search(text, at):
        at, word = found.end(), found[0].lower()
        if word.startswith("`") or word.lstrip(" \t").startswith("```"):
            continue
        if _OPENS_QUOTE.search(text[max(0, found.start() - 3) : found.start()]):
            at = _after_mention(text, at, "" if inside else closing.get(word, ""))
        elif inside:
            if word == inside or {word, inside} <= _ONE_FAMILY:
                inside, start = "", at
        elif word in closing:
            kept.append(text[start : found.start()])
            inside = closing[word]
        else:
            kept, start = [], at
    if inside:
        return None
    if not start:
        return text
    return re.sub(r"^\s*\n", "", _ENDS.sub("", "".join([*kept, text[start:]])))


def answer_to(prompt: Prompt, completion: Completion, tags: Tags = ()) -> str | None:
    """`answer_of` a completion, whose thoughts may begin in the prompt: one that ends with an opening tag."""
    content = prompt.messages[-1]["content"] if prompt.messages else ""
    opening = next((o for o, _ in (*TAGS, *tags) if isinstance(content, str) and content.rstrip().endswith(o)), "")
    return answer_of(opening + completion.text, tags)


def names_tag(pattern: str) -> bool:
    """True for a regular expression that itself looks for thoughts, as a reward for a form does."""
    plain = re.sub(r"\\(?!\w)", "", pattern)
    return any(tag in plain for pair in TAGS for tag in pair)


def _after_mention(text: str, at: int, close: str) -> int:
    """Where to read on after a tag that is mentioned: after its closing tag when that stands in the same line."""
    line = text[at : (text.find("\n", at) + 1 or len(text) + 1) - 1]
    found = line.lower().find(close) if close else -1
    return at if found < 0 else at + found + len(close)


def _with_marks(text: str) -> str:
    """gpt-oss's text with its marks, where an engine left out special tokens: "analysis...assistantfinal..."."""
    if not (bare := _BARE_HARMONY.match(text)):
        return text
    return "<|channel|>analysis" + text[bare.end() :].replace("assistantfinal", "<|channel|>final<|message|>")


@lru_cache(maxsize=16)
def _patterns(more: tuple[tuple[str, ...], ...]) -> tuple[dict[str, str], re.Pattern[str], re.Pattern[str]]:
    """Closing tags by opening ones, a pattern of any tag, and one of any tag or piece of code."""
    pairs = [(o.lower(), c.lower()) for o, c in (*TAGS, *more)]
    words = sorted({w for pair in pairs for w in pair}, key=len, reverse=True)
    tag = f"(?i:{'|'.join(map(re.escape, words))})"
    return dict(pairs), re.compile(tag), re.compile(f"{_CODE}|{tag}")
