"""Which extractor a majority vote uses when nobody names one."""

import pytest

from trimtab import rewards
from trimtab.rewards import Clip, ExactMatch, Instructions, MathAnswer, MultipleChoice, UnitTests, Weighted, lift
from trimtab.types import Prompt


def brevity(_prompt, completion):
    return -len(completion.text)


@pytest.mark.parametrize(
    "reward, golds, name",
    [
        (MathAnswer(), ["72", "1,250", "-0.5"], "final_number"),
        (MathAnswer(), ["72", r"\sqrt{2}"], "final"),
        (MathAnswer(), ["48 and 24. #### 72"], "final_number"),
        (MathAnswer(), ["72", r"\frac{1}{2}"], "final_number"),
        (MathAnswer(), [72, 0.5], "final_number"),
        (ExactMatch(), ["Rome", "Oslo"], "final"),
        (ExactMatch(), [["12", "twelve"]], "final_number"),
        (ExactMatch(extract="last_line"), ["12"], "last_line"),
        (MultipleChoice(), ["A"], "choice"),
        (lift(brevity), ["(B)", "c"], "choice"),
        (lift(brevity), [None], None),
        (None, ["12"], "final_number"),
        (UnitTests(), ["12"], None),
        (Instructions(), ["12"], None),
        (Clip(MathAnswer()), ["12"], "final_number"),
        (Weighted({lift(brevity): 0.1, ExactMatch(extract="boxed"): 1.0}), [None], "boxed"),
    ],
)
def test_by_hand(reward, golds, name):
    prompts = [Prompt(str(i), (), {"answer": g}) for i, g in enumerate(golds)]
    assert rewards.extractor_for(reward, prompts) == name
