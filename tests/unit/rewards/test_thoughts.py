"""What a completion shows once its thoughts are gone, and what merely mentions a tag."""

import time

import pytest

from trimtab.rewards.thoughts import TAGS, answer_of, answer_to, names_tag
from trimtab.types import Completion, Prompt

FENCE = "```python\ntext.split('</think>')[1]\n```"


@pytest.mark.parametrize("opening, closing", TAGS)
def test_every_usual_pair_of_tags_encloses_thoughts(opening, closing):
    assert answer_of(f"{opening}is it 43?{closing}It is 41.") == "It is 41."
    assert answer_of(f"is it 43?{closing}\n\nIt is 41.") == "It is 41."
    assert answer_of(f"{opening}is it 43?") is None


@pytest.mark.parametrize(
    "text, left",
    [
        ("", ""),
        ("No tags: 3 < 4 [x].\n", "No tags: 3 < 4 [x].\n"),
        ("<think>a</think>", ""),
        ("<THINK>a</Think> 41", " 41"),
        ("Sure. <think>a</think>B <think>c</think>D", "Sure. B D"),
        ("It is 41. <think>Let me check", None),
        ("<think>a</think>41\n<think>again", None),
        ("<think>a <think>b</think> c</think>d", "d"),
        ("<think>first a, then </think> too soon</think>d", "d"),
        ("a</think>b</think>c", "c"),
        ("<think>it must hold `</think>` and", None),
        ("<think>it must hold `</think>` and</think>41", "41"),
        ("<think><reasoning>a</reasoning> still thinking", None),
        ("<think>```python\nx = 1\n</think>\n```python\nx = 2\n```", "```python\nx = 2\n```"),
        ('<think>a</think>"In quotes."', '"In quotes."'),
        ('<think>she said "yes"</think>41', "41"),
        ("<think>a</thinking>41", "41"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>41<|end_of_solution|>", "41"),
        ("<think>a</think>\n\n    return x\n", "    return x\n"),
        ("<|channel|>analysis<|message|>43?<|end|><|start|>assistant<|channel|>final<|message|>41<|return|>", "41"),
        ("<|channel|>analysis<|message|>43?<|end|><|start|>assistant<|channel|>commentary<|message|>x", None),
        ("analysisWe try 43.assistantfinalIt is 41.", "It is 41."),
        ("analysisthe user asks. 43?assistantfinal41", "41"),
        ("analysisWe try 43, but", None),
        ("analysis of the text: good", "analysis of the text: good"),
    ],
)
def test_thoughts_are_gone(text, left):
    assert answer_of(text) == left


@pytest.mark.parametrize(
    "text",
    [
        FENCE,
        "Use this:\n" + FENCE + "\nIt keeps what comes after `</think>`.",
        "Models write `<think>...</think>` first. The answer is 41.",
        're.sub(r"<think>.*?</think>", "", text)',
        "text.partition('</think>')[2]",
        "The tag “</think>” ends thoughts: 41",
        'x = {"open": "<think>", "close": "</think>"}',
        "```xml\n<think>\n</think>\n```\n41",
    ],
)
def test_a_mentioned_tag_stays(text):
    assert answer_of(text) == text
    assert answer_of(f"<think>43</think>{text}") == text


def test_further_tags():
    assert answer_of("<plan>43</plan>41") == "<plan>43</plan>41"
    assert answer_of("<plan>43</plan>41", [["<plan>", "</plan>"]]) == "41"
    assert answer_of("<plan>43", (("<plan>", "</plan>"),)) is None


def test_thoughts_that_begin_in_the_prompt():
    raw = Prompt("p", ({"role": "text", "content": "2+2?\n<think>\n"},))
    assert answer_to(raw, Completion("is it 5", "m", 0, 0)) is None
    assert answer_to(raw, Completion("is it 5</think>4", "m", 0, 0)) == "4"
    chat = Prompt("p", ({"role": "user", "content": "2+2?"},))
    assert answer_to(chat, Completion("it is 5", "m", 0, 0)) == "it is 5"


def test_a_pattern_that_looks_for_thoughts():
    assert names_tag(r"(?s)^<think>.*<\/think>\s*\d+$")
    assert not names_tag(r"(?i)\byes\b")


@pytest.mark.parametrize("part", ["`", "```", "```\n", "<think>", "</think>", "\n", '"<think>', "a ", "<", "analysis"])
def test_long_texts_take_no_long_time(part):
    text = (part * 200_000)[:200_000]
    began = time.perf_counter()
    answer_of(text), answer_of("<think>" + text)
    assert time.perf_counter() - began < 2
