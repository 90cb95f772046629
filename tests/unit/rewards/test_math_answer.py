"""Which mathematical answers are one, by hand; no gold is read in part, and every gold of MATH accepts itself alone."""

import gzip
import json
import math
import os
import random
import time
from pathlib import Path

import pytest

from trimtab import rewards
from trimtab.rewards import marks
from trimtab.rewards.math_answer import MathAnswer
from trimtab.types import Completion, Group, Prompt

ROOT = Path(os.environ.get("TRIMTAB_DATA") or Path(__file__).parents[4] / "shared" / "data")
NAN = "nan"


def reward(gold, text, **options):
    prompt = Prompt("p", ({"role": "user", "content": "q"},), {"answer": gold})
    ((r,),) = MathAnswer(**options)([Group(prompt, (Completion(text, "m", 0, 0),))])
    assert r.note or r.value == r.value
    return NAN if math.isnan(r.value) else r.value


PLAIN = {  # gold: (equal to it, different from it), each shown in a box
    r"\frac{1}{2}": (
        [r"\dfrac12", "1/2", "0.5", ".5", r"50\%", r"x = \tfrac{1}{2}", r"\frac{2}{4}"], ["2", "1", r"\frac{1}{3}"]
    ),
    r"2\frac{3}{5}": ([r"\frac{13}{5}", "2.6", "2 3/5"], [r"\frac{3}{5}", r"\frac{6}{5}", "2"]),
    "4,000": (["4000", r"4{,}000", r"4\!,000", "4 000", r"4\,000", r"4 \times 10^3"], ["4", "0", "4,0"]),
    r"13,\! 222,\! 111": (["13222111"], ["13", "111"]),
    r"\$41.90": (["41.9", r"\$41.90", "41.90 dollars"], ["41", "90"]),
    r"45^\circ": (["45", r"45^{\circ}", r"45\text{ degrees}"], ["54"]),
    r"6 \text{ cm}^2": (["6", r"6\text{ square cm}", "6 m", r"6\,\mathrm{cm}^2"], ["2", "36"]),
    r"37\%": (["37", "0.37", r"37\%"], ["38", "3.7"]),
    r"6\sqrt{7}": ([r"\sqrt{252}", "6√7", r"6\sqrt7", "15.874508"], ["6", "7", "15.87", r"\sqrt{7}"]),
    r"9 - 4i": (["-4i+9"], ["4", "9", "9+4i"]),
    "3^{11}": (["177147", "3^11", r"3 \cdot 3^{10}"], ["3", "11", "33"]),
    "3^{2011}": ([r"3\cdot 3^{2010}"], ["2011", "3^{2012}"]),
    "6!": (["720"], ["6"]),
    r"\frac{5\pi}{2}": ([r"\frac{5}{2}\pi", "5π/2", r"5/2\pi", "2.5\\pi"], [r"\frac{5}{2}", "5"]),
    r"\cos 50^\circ": ([r"\sin 40^\circ"], [r"\cos 50", r"\sin 50^\circ"]),
    r"\log_3 81": (["4"], ["3"]),
    "x^2+6x+9": (["(x+3)^2", "9+6x+x^2"], ["x^2+6x+8", "(x-3)^2"]),
    r"\sin^2 x + \cos^2 x": (["1"], ["x"]),
    "P": ([r"\text{P}"], ["p", "Q"]),
    "2n+3": ([r"3+2n"], ["2k+3", "2n"]),
    "3120_4": (["3120_{4}", "3120"], ["3120_5", "216"]),
    "(1, 8]": ([r"\left(1,8\right]", r"1 < x \le 8", r"x \in (1,8]"], ["(1,8)", "[1,8]", "8", "(8,1]"]),
    "(3, 7)": (["(3,7)", "3, 7"], ["(7,3)", r"\{3,7\}", "[3,7]", "3"]),
    r"\{3, 7\}": ([r"\{7,3\}", "3,7"], ["(3,7)", r"\{3\}", r"\{3,7,8\}"]),
    "4,5,12": (
        ["12, 4, 5", r"\{4,5,12\}", r"x=4, x=5 \text{ or } x=12", "x = 4, 5, 12"],
        ["4", "4,5", "4,5,5", "4,5,13"],
    ),
    r"2 \pm \sqrt{3}": ([r"2-\sqrt3, 2+\sqrt3"], [r"2+\sqrt{3}"]),
    r"(-\infty,1)\cup(4,\infty)": (
        [r"(4,\infty)\cup(-\infty,1)", r"x<1 \text{ or } x>4"],
        [r"(-\infty,1]\cup(4,\infty)", "1"],
    ),
    "x > 9": (["9 < x", r"(9,\infty)"], [r"x \ge 9", "x < 9", "9", "y > 9"]),
    "2x + y > 4": (["4 < y + 2x", "4x + 2y > 8"], ["2x + y < 4", "4"]),
    "y = 3x - 8": (["3x - 8 = y", "3x-8", "3x - y = 8", "2y = 6x - 16"], ["8", "-8", "y=3x+8", "3"]),
    "2a-3b+7=0": (["3b = 2a+7"], ["7", "0", "3a+2b+7=0"]),
    "x = 6": (["6"], ["y = 6", "x=7"]),
    "6": (["x = 6", "2 \\cdot 3 = 6", "2+4=6"], ["x^2+y^2=6", "6.0001"]),
    r"\begin{pmatrix} 1 & 5 \\ 2 & 3 \end{pmatrix}": (
        [r"\begin{bmatrix}1&5\\2&3\end{bmatrix}", r"\begin{pmatrix} 1.0 & 5 \\ 4/2 & 3 \end{pmatrix}"],
        [r"\begin{pmatrix} 1 & 5 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 5 \end{pmatrix}", "3"],
    ),
    r"\text{Odette}": (["Odette", r"\text{odette}", r"\mbox{Odette}."], [r"\text{Otto}", "o"]),
    r"\text{(B)}": (["B", r"\textbf{(B)}", "(B)"], ["C"]),
    r"\text{A,D}": (["A, D", "D, A"], ["A", "A, C"]),
    r"\text{3:15 p.m.}": ([r"3:15 \text{ PM}"], ["3", "15", r"3:15 \text{ AM}"]),
    "5:2": (["5:2"], ["2:5", "5"]),
    "|x|": [["|-x|"], ["x", "-x"]],
    "x = 2, y = 5": [["(2,5)", "2, 5", "y=5, x=2"], ["5, 2", "(5,2)", "x=5, y=2", "2"]],
    "(x,y) = (2,5)": [["(2,5)", "(x,y)=(2,5)"], ["(5,2)"]],
    "23": [["23_{10}", "+23"], ["10", "32"]],
    r"\frac{2}{5} + \frac{1}{5}i": [["0.4+0.2i", r"\frac{2+i}{5}"], [r"\frac25", "0.4 - 0.2i"]],
    r"x^2+y^2=10": [["y^2 = 10 - x^2"], ["10", "x^2+y^2=11"]],
    "f(3) < f(1)": [["f(1) > f(3)"], ["f(1) < f(3)"]],
    "yes": ([r"\text{Yes}"], ["no"]),
    r"0.1\overline{6}": ([r"\frac{1}{6}"], ["0.16"]),
    r"\textbf{0.75}": [[r"\frac34", '"0.75"', r"\color{red}{0.75}"], ["75"]],
    r"\{x \mid x > 4\}": [[r"(4,\infty)", "x>4"], ["4", "x<4"]],
    r"1, 2, \ldots, 12": [[r"\{1, 2, ..., 12\}"], ["1, 2, 12"]],
    "(4,7]": [["(4,7]"], ["4,7", "(4,7)"]],
    r"\infty": ([r"\infty"], [r"-\infty", "8"]),
    "4ab": ([r"4 a b", "4ba", r"2a \cdot 2b"], ["4", "4a", "4ab^2"]),
    "7xyz": (["7 x y z"], ["7"]),
    "18": (["18 km/h", "18 m/s", "18 m/s^2", "18 Ω",
            "eighteen (18)", "18 days (2 weeks)", "18 dollars per hour", "18cm", "18 sq ft"], ["18ab", "18 + a"]),
    r"1 - \frac{1}{\mathrm{e}^2}": ([r"1-\frac{1}{e^2}", "1-e^{-2}", r"1 - \mathrm{e}^{-2}"], [r"1 + \frac{1}{e^2}"]),
    r"5 - 2\mathrm{i}": (["5-2i", r"-2\,\mathrm{i}+5"], ["5+2i", "5-2e"]),
    r"\operatorname{arctan} 3": ([r"\arctan 3", r"\mathrm{arctan}(3)"], [r"\tan 3"]),
    r"\text{ln } 5": ([r"\ln 5", r"\mathrm{ln}\,5"], ["5"]),
    r"\mathbb{R}": ([r"\mathbb R"], [r"\mathbb{Q}"]),
    "q-s": (["q - s", "-s+q"], ["s-q", "q+s"]),
    "47": (["4m + n = 47", "a+b=47"], ["2a = 47", "x+y=47"]),
}  # fmt: skip


@pytest.mark.parametrize("gold", PLAIN)
def test_equal_and_different(gold):
    equal, different = PLAIN[gold]
    assert {t: reward(gold, rf"Thus \boxed{{{t}}}.") for t in (gold, *equal)} == dict.fromkeys((gold, *equal), 1.0)
    assert {t: reward(gold, rf"Thus \boxed{{{t}}}.") for t in different} == dict.fromkeys(different, 0.0)


@pytest.mark.parametrize(
    ("gold", "equal", "different"),
    [
        (1e-06, ["0.000001", "10^{-6}", "1e-6"], ["1", "0", "2e-6", "6"]),
        (0.1 + 0.7, ["0.8", r"\frac45"], ["0.81"]),
        (66.66666666666667, [r"\frac{200}{3}", "66.6666667"], ["66.7", "66.6677"]),
        (98765432109876543210, ["98765432109876543210"], ["98765432109876543211"]),
        (2000000, ["2,000,000", "2000000.0", "2e6"], ["2000001", "1999999"]),
        (2000000.5, ["2000000.5"], ["2000000.6", "2000000"]),
        (3e200, [r"3 \times 10^{200}"], ["3"]),
        (True, ["True", r"\text{true}"], ["False", "1"]),
        ([3, 8, 9], ["9, 3, 8"], ["3", "3, 8"]),
        (["3/4", "0.75"], [r"\frac{3}{4}"], ["3"]),
        ([8], ["8"], ["9"]),
    ],
)
def test_golds_from_json_by_value(gold, equal, different):
    assert [reward(gold, rf"\boxed{{{t}}}") for t in equal] == [1.0] * len(equal)
    assert [reward(gold, rf"\boxed{{{t}}}") for t in different] == [0.0] * len(different)


@pytest.mark.parametrize(
    ("gold", "text", "want"),
    [
        ("62", "31 + 31 = 62 ...(ii)\n\n---\n\nFinal Answer: **62**", 1.0),
        ("62", "She pays $18 in all and then $62 more.", 1.0),
        ("62", "The answer is $62.", 1.0),
        ("62", "The answer is 62 coins because 31*2=62.", 1.0),
        ("62", "#### 62", 1.0),
        ("62", "The answer is $62 remaining after 2 years.", 1.0),
        ("62", "The answer is that each of 2 gets 62.", 0.0),
        ("62", "The answer is 4 * 15 + 2 = 60 + 2 = 62", 1.0),
        ("31 + 31 = 62\n#### 62", "It is 62.", 1.0),
        ("3,4,9", "They are $3$, $4$, and $9$.", 1.0),
        ("3,4,9", r"\boxed{3}, \boxed{4} and \boxed{9}", 1.0),
        ("9", r"first \boxed{3}, later on \boxed{9}", 1.0),
        (r"\frac{2}{7}", r"So $x^2 = 4$ and $x = \frac27$.", 1.0),
        (r"so \boxed{\frac{2}{7}}", "2/7", 1.0),
        ("$7$", "7", 1.0),
        ("41", "<think>I get \\boxed{41}, no, a sign is wrong.</think>\nThe answer is 43.", 0.0),
        ("43", "<think>I get \\boxed{41}, no, a sign is wrong.</think>\nThe answer is 43.", 1.0),
        ("41", "<think>So it is \\boxed{41}", 0.0),
        ("41", "", 0.0),
        ("41", "no idea", 0.0),
        (r"\pi", r"\boxed{\pi + __import__('os').getpid()*0}", 0.0),
        ("7", r"\boxed{9^{9^{9^{9}}}}", NAN),
        ("7", r"\boxed{10^{10^{10}}}", NAN),
        ("7", r"\boxed{88888888!}", NAN),
        ("7", r"\boxed{e^{e^{e^{e^{e}}}}}", NAN),
        ("7", r"\boxed{\sqrt[1000000]{7}}", 0.0),
        (r"9^{9^{9^{9}}}", r"\boxed{9^{9^{9^{9}}}}", 1.0),
        ("", "7", NAN),
        ("  ", "7", NAN),
        (None, "7", NAN),
        (math.nan, "7", NAN),
        ("I cannot say", "7", NAN),
        ("N/A", "7", NAN),
        ("nan", "7", NAN),
        ([], "7", NAN),
        ([None], "7", NAN),
        ("D", "The answer is D) 30 kg", 1.0),
        ("The farmer sold 5 of 12 goats", "5", NAN),
        ("3 + ", "3", NAN),
    ],
)
def test_completions_by_hand(gold, text, want):
    assert reward(gold, text) == want


def test_further_tags_of_thoughts():
    assert reward("43", "<plan>41</plan>43") == 1.0 and reward("41", r"<plan>\boxed{41}</plan>43") == 1.0
    assert reward("41", r"<plan>\boxed{41}</plan>43", tags=(("<plan>", "</plan>"),)) == 0.0


def test_a_hard_answer_takes_no_neighbour_with_it():
    texts = (r"\boxed{7^{7^{7^{7}}}}", r"\boxed{7}", r"\boxed{8}")
    prompt = Prompt("p", ({"role": "user", "content": "q"},), {"answer": "7"})
    group = Group(prompt, tuple(Completion(t, "m", i, i) for i, t in enumerate(texts)))
    (scored,) = rewards.score([group], MathAnswer(), workers=0, progress=False)
    assert math.isnan(scored.rewards[0].value) and "too many digits" in scored.rewards[0].note
    assert [r.value for r in scored.rewards[1:]] == [1.0, 0.0]


@pytest.mark.parametrize("part", ["$", r"\(", r"\[ ", "(", "1,", r"\frac", r"\boxed{", r"\boxed{1} ", "x=", "^", " "])
def test_no_text_takes_long(part):
    text, began = (part * 50_000)[:50_000], time.perf_counter()
    reward("7", text), reward(text[:900], "7")
    assert time.perf_counter() - began < 5  # what backtracks takes minutes


def test_golds_of_math_accept_themselves_and_no_other():
    if not (file := ROOT / "math_word" / "math.test.json.gz").exists():
        pytest.skip("MATH is not here; TRIMTAB_DATA names the folder that holds math_word/")
    with gzip.open(file, "rt") as rows:
        golds = [g for row in rows if (g := marks.boxed(json.loads(row)["solution"]))][::4]
    own = [g for g in dict.fromkeys(golds) if reward(g, rf"Thus \boxed{{{g}}}.") != 1.0]
    rng = random.Random(0)
    pairs = [p for p in ((rng.choice(golds), rng.choice(golds)) for _ in range(1000)) if p[0] != p[1]]
    assert len(golds) > 1200 and not own
    assert sum(reward(a, rf"Thus \boxed{{{b}}}.") != 0.0 for a, b in pairs) <= 2
