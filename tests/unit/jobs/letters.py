"""What the tests of jobs fit without a model: vectors of letters, and a reward that they can tell."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Letters:
    @property
    def card(self):
        return {"kind": "letters"}

    def __call__(self, groups):
        return [np.array([[c.text.count(x) for x in "abc"] for c in g.completions], np.float32) for g in groups]


def more_a_than_b(prompt, completion):
    return float(completion.text.count("a") > completion.text.count("b"))
