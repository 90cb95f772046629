"""Answers found in texts, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.rewards.extract import EXTRACTORS, extractor, number


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("last_number", "4 - 1 = 3.", "3"),
        ("last_number", "4 - 7 = -3", "-3"),
        ("last_number", "x = −7", "-7"),
        ("last_number", "12-3", "3"),
        ("last_number", "(2)-5", "5"),
        ("last_number", "costs $1,250.50 in all", "1250.5"),
        ("last_number", "about 1.5e3", "1500"),
        ("last_number", "007 and 3.00", "3"),
        ("last_number", "-0", "0"),
        ("last_number", "none here", None),
        ("boxed", r"so \boxed{\frac{1}{2}} and \boxed{ {a}b }.", "{a}b"),
        ("boxed", r"\boxed{3", None),
        ("boxed", r"\boxed{}", None),
        ("answer_tag", "<answer>4</answer> no, <answer> 5\n</answer>", "5"),
        ("answer_tag", "<answer></answer>", None),
        ("last_line", "a\n b \n\n", "b"),
        ("last_line", "", None),
        ("whole", " a\nb ", "a\nb"),
        ("whole", " ", None),
        ("choice", "The answer is (C).", "C"),
        ("choice", "B) Paris", "B"),
        ("choice", "Answer: **D**", "D"),
        ("choice", "I think it must be A", "A"),
        ("choice", "A good question; the answer is B", "B"),
        ("choice", r"A or B? \boxed{B}", "B"),
        ("choice", "no idea", None),
        ("final", "work\nThe answer is **12**.", "12"),
        ("final", "6 * 7\n#### 42", "42"),
        ("final", r"maybe 5, so \boxed{6}", "6"),
        ("final", "step\n42", "42"),
    ],
)
def test_by_hand(name, text, found):
    assert EXTRACTORS[name](text) == found


@given(st.text())
def test_any_text_is_survived(text):
    for extract in EXTRACTORS.values():
        found = extract(text)
        assert found is None or (found and found == found.strip())


@given(st.integers(-(10**9), 10**9))
def test_numbers_come_back(n):
    assert EXTRACTORS["last_number"](f"so it is {n:,}.") == str(n) == number(f"{n:,}") == number(f" {n}.0")


def test_extractor_by_name():
    assert extractor("last_line") is EXTRACTORS["last_line"]
    assert extractor("trimtab.rewards.extract:boxed") is EXTRACTORS["boxed"]
    with pytest.raises(InputError, match="unknown answer extractor 'lastnumber'; did you mean 'last_number'"):
        extractor("lastnumber")
    with pytest.raises(InputError, match="cannot be imported"):
        extractor("trimtab.rewards.extract:nothing")
