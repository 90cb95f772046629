"""Answers found in texts, by hand."""

import time

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
        ("last_number", "3,5 kg of it", "3.5"),
        ("last_number", "the point (3,5)", "5"),
        ("last_number", "2,6,11", "11"),
        ("last_number", "2,6,112", "112"),
        ("last_number", "$1,000-$2,000", "2000"),
        ("last_number", "version v1.2.3", None),
        ("last_number", "0,125 l", "0.125"),
        ("last_number", "1.234,56 €", "1234.56"),
        ("last_number", "Rs 12,34,567 in all", "1234567"),
        ("last_number", "1 000 euros", "1000"),
        ("last_number", r"\$1{,}250", "1250"),
        ("last_number", "in 2019 500 people came", "500"),
        ("last_number", "-$5 today", "-5"),
        ("last_number", "x = - 3", "-3"),
        ("last_number", "5 - 3", "3"),
        ("last_number", "so 3/4 of it", "0.75"),
        ("last_number", "one in three, 1/3", "1/3"),
        ("last_number", r"it is -\frac{1}{3}", "-1/3"),
        ("last_number", "1 3/8 cups", "1.375"),
        ("last_number", "8/10.", "0.8"),
        ("last_number", "about 3 × 10^{-2}", "0.03"),
        ("last_number", "1e-05", "0.00001"),
        ("last_number", "100 cm^2", "100"),
        ("last_number", "100 m2 of H2O", "100"),
        ("last_number", "x^{-3} + a_7", None),
        ("last_number", "<think>43</think>41", "41"),
        ("last_number", "<think>43", None),
        ("boxed", r"so \boxed 5", "5"),
        ("answer_tag", "<think><answer>43</answer></think><answer>41</answer>", "41"),
        ("final", "31 twice.\nThe final answer is: 62", "62"),
        ("final", "The answer is: **62**.", "62"),
        ("final", "**Answer**: 62", "62"),
        ("final", "**Final Answer:** 62", "62"),
        ("final", "### Final Answer\n\n$62$", "62"),
        ("final", r"<answer>\boxed{62}</answer>", "62"),
        ("final", "The answer is 62. So Ann has 62 coins in 4 boxes.", "62"),
        ("final", "the answer is 62 because 31*2=62.", "62"),
        ("final", "The answer is $1,250.", "1250"),
        ("final", r"The final answer is $x+1$. I hope it is correct.", "x+1"),
        ("final", r"\boxed{62}? No. Final answer: 63", "63"),
        ("final", "The answer is not 5. The answer is 6.", "6"),
        ("final", "The answer is New York because it is larger", "New York"),
        ("final", "The answer is yes, since it holds.", "yes"),
        ("final", "The answer:\n62", "62"),
        ("final", '{"answer": 62}', "62"),
        ("final", "<final_answer>62</final_answer>", "62"),
        ("final", '{"reason": "31 twice", "answer": "New York, USA", "sure": true}', "New York, USA"),
        ("final", "The answer is ) ]", ") ]"),
        ("final", "The answer is therefore 62.", "62"),
        ("final", "The answer comes to 62.", "62"),
        ("final", "The answer is U.S. Steel.", "U.S. Steel"),
        ("last_number", "62 345,67 in all", "62345.67"),
        ("last_number", "62 345, 7", "7"),
        ("final", "The answer is then equal to 62.", "62"),
        ("final", "<b>Answer:</b> <em>62</em>", "62"),
        ("final", "It took a while.\nAnswer – 62", "62"),
        ("final", "The answer - a long one - is 62.", "62"),
        ("final", "La respuesta es 62.", "62"),
        ("final", "答案是 62", "62"),
        ("final", "The answer is **62** coins.", "62 coins"),
        ("final", "Answer to the question: 62", "62"),
        ("final", "The answer is Dr. Who.", "Dr. Who"),
        ("final", "The answer is J. R. R. Tolkien.", "J. R. R. Tolkien"),
        ("final_number", "The answer would be 62, since 3 are gone", "62"),
        ("final", "<think>The answer is 43</think>The answer is 41", "41"),
        ("final_number", "The answer is 62 coins, 2 more than before", "62"),
        ("final_number", "The answer is 12 + 50 = 62", "62"),
        ("final_number", r"\boxed{62\text{ cm}^2}", "62"),
        ("final_number", "so she has 62", "62"),
        ("final_number", "5 and 6 make it. Answer: cannot be known", None),
        ("final", 'The answer is 7? {"reason": "no", "answer": "62"}', "62"),
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


LETTERS = {
    "A": ["I think it must be A", "The answer is: a) Rome", "It's A.", "The answer is A, not B.", "A",
          "So we choose A, because B and C are false."],
    "B": [
        r"A or B? \boxed{B}", "b. 30 kg", "Answer: b", "(b)", "Option (b)", r"\boxed{\text{(B)}}",
        "B, since A fails the test.",
        "A good question; the answer is B", "The answer is B because a bus moves.", "I pick B over C.", "Well.\n\nB",
        "The answer is B. Note that A is a common distractor.", '{"answer": "B"}', "Ｂ",
        "A) 3\nB) 4\nC) 5\nSo it is B",
        "<think>Answer: A? Let me check.</think> B",
    ],
    "C": [
        "C is correct, A and B are not.", "The correct one is C.", "A fails. Option B fails. The right one is C.",
        "<answer>C) 30 kg</answer>", r"\boxed{\textbf{(C)}\ 12}",
        "We are left with C after eliminating A, B and D.",
        "A is wrong, B is wrong, so C", "The answer is **C) Rome**", "The choice is __C__",
        "Not A but C", "答案是 C", "The answer is 'C'.",
        "答えはCです", r"Answer: $\textbf{(C)}\ 12$", "option c is right",
        "The answer is probably C, but could be B.",
    ],
    "D": [
        r"**Answer: D** since \boxed{\langle H\rangle = E}", "d", "(d) 12", "Answer: It is not B, the answer is D",
        "Is the answer A? No. It's D.", "None of A, B or C is right; D is.",
        "We exclude A and C. B does not hold. D.",
    ],
    "E": ["The correct answer is option E: 30 kg", "My choice: E"],
    "J": ["The answer is J."],
    None: ["no idea", "It could be A or B.",
           "The answer is either A or B", "The answer is a car.", "A train leaves.", "",
           "a bus", "<think>B"],
}  # fmt: skip


@pytest.mark.parametrize(("letter", "text"), [(x, text) for x, texts in LETTERS.items() for text in texts])
def test_letters(letter, text):
    assert EXTRACTORS["choice"](text) == letter


@pytest.mark.parametrize(
    "part", ["answer is ", "A or B ", r"\boxed{", "<answer>", "$", "1,", "- ", "9", "1/", "\n", " "]
)
def test_no_text_takes_long(part):
    text = (part * 60_000)[:60_000]
    began = time.perf_counter()
    for extract in EXTRACTORS.values():
        extract(text)
    assert time.perf_counter() - began < 6  # a pattern that backtracks takes minutes


def test_extractor_by_name():
    assert extractor("last_line") is EXTRACTORS["last_line"]
    assert extractor("trimtab.rewards.extract:boxed") is EXTRACTORS["boxed"]
    with pytest.raises(InputError, match="unknown answer extractor 'lastnumber'; did you mean 'last_number'"):
        extractor("lastnumber")
    with pytest.raises(InputError, match="cannot be imported"):
        extractor("trimtab.rewards.extract:nothing")
