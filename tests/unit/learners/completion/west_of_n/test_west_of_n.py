import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.errors import InputError, SettingsChanged
from trimtab.learners.completion.west_of_n.pseudo_pairs import (
    PseudoPair,
    contrast_pairs,
    filter_pairs,
    judged_pairs,
    mix,
    pseudo_pairs,
)
from trimtab.learners.completion.west_of_n.west_of_n import PairwiseFit, ProbeFit, RewardModelFit, west_of_n
from trimtab.learners.run import Checkpoints, Compute, Optim
from trimtab.rewards import RewardModel
from trimtab.testing import FakeSampler, prompt, tiny_lm
from trimtab.types import Completion, Group, Pair, Prompt, Reward, SamplingParams


@dataclass(frozen=True)
class Numbers:
    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "numbers"}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.array([c.text.split() for c in g.completions], dtype=np.float32) for g in groups]


def completion(vector, index: int, logprobs=(-0.5, -0.25)) -> Completion:
    return Completion(" ".join(f"{v:.3f}" for v in vector), "m", 0, index, logprobs=tuple(logprobs))


def world(prompts: int, n: int, seed: int = 0, dim: int = 6) -> list[Group]:
    """The reward is the first coordinate; the others are noise."""
    rng = np.random.default_rng(seed)
    out = []
    for p in range(prompts):
        x = rng.normal(size=(n, dim))
        completions = tuple(completion(v, i) for i, v in enumerate(x))
        out.append(Group(prompt(f"s{seed}q{p}"), completions, tuple(Reward(float(v[0])) for v in x)))
    return out


def labelled(groups: Sequence[Group], flip: float = 0.0, seed: int = 0) -> list[Pair]:
    rng, out = np.random.default_rng(seed), []
    for g in groups:
        better = int(g.reward_N[1] > g.reward_N[0]) ^ int(rng.random() < flip)
        out.append(Pair(g.prompt, g.completions[better], g.completions[1 - better]))
    return out


def by_reward(groups):
    return [list(g.rewards) for g in groups]


def test_pairings_by_hand():
    g = Group(
        prompt("q"),
        tuple(completion([v], i) for i, v in enumerate((1, 5, 3, -1))),
        tuple(map(Reward, (1.0, 5.0, 3.0, -1.0))),
    )
    (best,), counts = pseudo_pairs([g], by_reward)
    assert (best.pair.chosen.index, best.pair.rejected.index, best.pair.margin) == (1, 3, 6.0)
    assert best.confidence == pytest.approx(1 / (1 + math.exp(-6))) and counts.comparisons == 0
    assert best.logprob == -1.5 and best.mean_logprob == -0.75
    (two,), _ = pseudo_pairs([g], by_reward, pairing="first_two")
    assert (two.pair.chosen.index, two.pair.rejected.index) == (1, 0)
    (random,), _ = pseudo_pairs([g], by_reward, pairing="best_vs_random")
    assert random.pair.chosen.index == 1 and random.pair.margin == 5 - g.reward_N[random.pair.rejected.index]
    with pytest.raises(InputError, match="did you mean 'best_vs_worst'"):
        pseudo_pairs([g], by_reward, pairing="best_worst")


def test_ties_equal_texts_and_unscored_groups_give_no_pair():
    tied = Group(prompt("a"), tuple(completion([i], i) for i in range(3)), (Reward(1.0),) * 3)
    same = Group(prompt("b"), (completion([1], 0), completion([1], 1)), (Reward(0.0), Reward(1.0)))
    lost = Group(prompt("c"), tuple(completion([i], i) for i in range(3)), (Reward(math.nan, "x"),) * 3)
    made, counts = pseudo_pairs([tied, same, lost], by_reward)
    assert made == [] and counts.undecided == 3


def made(confidences, logprobs, lengths) -> list[PseudoPair]:
    p = Pair(prompt("q"), completion([1], 0), completion([0], 1))
    return [
        PseudoPair(Pair(p.prompt, p.chosen, p.rejected, math.log(c / (1 - c))), c, s, s / n)
        for c, s, n in zip(confidences, logprobs, lengths, strict=True)
    ]


def test_filters_by_hand():
    pairs = made([0.6, 0.9, 0.7, 0.8], [-10.0, -40.0, -20.0, -30.0], [1, 8, 4, 10])
    assert filter_pairs(pairs) == pairs and filter_pairs([]) == []
    assert filter_pairs(pairs, confidence=0.5) == [pairs[1], pairs[3]]
    assert filter_pairs(pairs, logprob=0.5, normalise="sum") == [pairs[0], pairs[2]]  # short texts
    assert filter_pairs(pairs, logprob=0.5) == pairs[1:]  # a token at a time: -10, -5, -5, -3
    assert filter_pairs(pairs, confidence=0.5, logprob=0.5) == [pairs[1], pairs[3]]
    with pytest.raises(InputError, match="1 of 1 pairs have no log-probs"):
        filter_pairs(made([0.7], [math.nan], [1]), logprob=0.5)
    with pytest.raises(InputError, match="quantiles"):
        filter_pairs(pairs, confidence=1.0)


def test_mix_is_one_to_one_and_leaves_nothing_out():
    base, synthetic = labelled(world(3, 2)), labelled(world(8, 2, 1))
    out = mix(base, synthetic)
    assert len(out) == 16 and out[8:] == synthetic and {id(p) for p in out[:8]} == {id(p) for p in base}
    assert len(mix(synthetic, base)) == 16 and mix(base, synthetic, 0) == base and mix(base, []) == base
    assert len(mix(base, synthetic, 2.0)) == 4 + 8 and mix(base, synthetic) == out


def test_judged_and_contrast_pairs():
    groups = world(4, 3)
    pairs, undecided = judged_pairs(groups, lambda gs, asked: [np.array([x]) for x in (0.9, 0.2, 0.5, math.nan)])
    assert (
        undecided == 2 and [p.chosen.index for p in pairs] == [0, 1] and pairs[0].margin == pytest.approx(math.log(9))
    )
    sampler = FakeSampler(lambda p, rng: p.messages[-1]["content"].split()[0])
    (pair,) = contrast_pairs([prompt("why?")], sampler, SamplingParams(), good="kindly", bad="rudely")
    assert (pair.chosen.text, pair.rejected.text, pair.prompt.messages[0]["content"]) == ("kindly", "rudely", "why?")


def run(out: Path, samples: int = 8, **settings):
    base, pool = labelled(world(30, 2, 1), 0.1), world(40, samples, 2)
    fits = {"teacher": ProbeFit(Numbers()), "student": ProbeFit(Numbers())}
    return west_of_n(base, pool, out, **{**fits, **settings})


def weights(scorer) -> list[float]:
    return scorer.layers[0][0][0].tolist()


def test_student_and_pairs_of_two_rounds(tmp_path):
    result = run(tmp_path / "a", rounds=2, confidence=0.25)
    first = result.rounds[0]
    assert first.counts["made"] == 40 and first.counts["kept"] == 30 and first.counts["mixed"] == 60
    rows = [json.loads(x) for x in (tmp_path / "a" / "round2" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 41 and {"prompt", "chosen", "rejected", "confidence"} <= rows[0].keys()
    assert weights(run(tmp_path / "a", rounds=2, confidence=0.25).student) == weights(result.student)
    assert weights(run(tmp_path / "b", rounds=2, confidence=0.25).student) == weights(result.student)
    with pytest.raises(SettingsChanged, match="confidence: 0.25 then, 0.5 now"):
        run(tmp_path / "a", rounds=2, confidence=0.5)


def test_pseudo_labels_get_better_with_n_and_stay_above_the_bound(tmp_path):
    """Right share of (best, worst) by a teacher that errs now and then: rises with N (theorem 4.1)."""
    pool = world(300, 32, 5)
    shares = []
    for n in (2, 4, 32):
        result = run(tmp_path / str(n), samples=32, n=n, teacher=PairwiseFit(Numbers(), hidden=0, steps=60))
        teacher = result.rounds[0].teacher
        got, _ = pseudo_pairs([Group(g.prompt, g.completions[:n], g.rewards[:n]) for g in pool], teacher)
        reward = {(g.prompt.id, c.index): r for g in pool for c, r in zip(g.completions, g.reward_N, strict=True)}
        shares.append(
            np.mean(
                [
                    reward[p.pair.prompt.id, p.pair.chosen.index] > reward[p.pair.prompt.id, p.pair.rejected.index]
                    for p in got
                ]
            )
        )
    assert shares[0] + 0.02 < shares[1] < shares[2] and shares[2] > 0.9


@dataclass(frozen=True)
class Dice:
    """A teacher that knows nothing."""

    def __call__(self, pairs, folder):
        return lambda groups: [
            [
                Reward(float(x))
                for x in np.random.default_rng(len(g.completions[0].text) + i).normal(size=len(g.completions))
            ]
            for i, g in enumerate(groups)
        ]


def test_a_random_teacher_gives_a_student_that_ties_with_the_null(tmp_path):
    test, accuracies = world(400, 2, 9), []
    for seed in range(6):
        noise = labelled(world(30, 2, 20 + seed), 0.5, seed)  # labels by coin: the base knows nothing either
        student = west_of_n(
            noise, world(200, 8, 40 + seed), tmp_path / str(seed), teacher=Dice(), student=ProbeFit(Numbers())
        ).student
        accuracies.append(
            np.mean(
                [
                    (r[0].value > r[1].value) == (g.reward_N[0] > g.reward_N[1])
                    for g, r in zip(test, student(test), strict=True)
                ]
            )
        )
    assert abs(np.mean(accuracies) - 0.5) < 2.5 * np.std(accuracies) / math.sqrt(len(accuracies)) + 0.02


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="no labelled pairs"):
        west_of_n([], world(2, 2), tmp_path, teacher=Dice(), student=Dice())
    flat = [Group(Prompt("x", ({"role": "user", "content": "x"},)), (completion([1] * 6, 0), completion([1] * 6, 1)))]
    with pytest.raises(InputError, match="no pair is left of 1 groups"):
        west_of_n(labelled(world(4, 2)), flat, tmp_path, teacher=ProbeFit(Numbers()), student=ProbeFit(Numbers()))
    with pytest.raises(InputError, match="n = 9 are asked for"):
        run(tmp_path / "n", n=9)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
import torch, test_west_of_n as t
from trimtab import publish

def at(step, path):  # the second thing that a run publishes never comes to be
    global done
    done += step == "renamed" and not path.parent.name.startswith(".tmp-")
    if done == 1 and step == "rename":
        os.kill(os.getpid(), 9)

for n in range(20):
    done, publish.at = 0, at
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)
        t.run(t.Path(sys.argv[1]), rounds=2)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print("ended after", n, "kills")
        break
"""


def test_killed_in_every_stage_resumes_to_the_same(tmp_path):
    """kill -9 wherever a stage is written: base, and teacher, pairs, student of two rounds; each run does one stage."""
    whole = run(tmp_path / "whole", rounds=2)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), str(Path(__file__).parent)]
    assert "ended after 7 kills" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    resumed = run(tmp_path / "cut", rounds=2)
    assert weights(resumed.student) == weights(whole.student) and weights(resumed.base) == weights(whole.base)
    assert [r.counts for r in resumed.rounds] == [r.counts for r in whole.rounds]
    assert not [*(tmp_path / "cut").rglob(".tmp-*"), *(tmp_path / "cut").rglob(".old-*")]


def test_teacher_and_student_may_be_whole_reward_models(tmp_path):
    lm = str(tiny_lm(tmp_path / "lm", layers=1))

    def words(n: int, name: str, seed: int) -> list[Group]:
        rng = np.random.default_rng(seed)
        texts = [
            [("yes " if rng.random() < 0.5 else "no ") * int(rng.integers(1, 4)) for _ in range(4)] for _ in range(n)
        ]
        return [
            Group(prompt(f"{name}{i}"), tuple(Completion(t, "m", 0, k) for k, t in enumerate(row)))
            for i, row in enumerate(texts)
        ]

    base = [
        Pair(prompt(f"b{i}"), Completion("yes " * (i % 3 + 1), "m", 0, 0), Completion("no " * (i % 2 + 1), "m", 0, 1))
        for i in range(8)
    ]
    settings = {"optim": Optim(3e-3, 12, 8), "compute": Compute("float32"), "checkpoints": Checkpoints(1000)}
    fit = RewardModelFit(lm, lambda folder: RewardModel(folder, dtype="float32"), settings)
    pool = words(6, "u", 1)
    result = west_of_n(base, pool, tmp_path / "run", teacher=fit, student=fit, confidence=0.2)
    test = [g for g in words(12, "t", 2) if len({c.text.split()[0] for c in g.completions}) == 2]
    for g, rewards in zip(test, result.student(test), strict=True):
        best = g.completions[int(np.argmax([r.value for r in rewards]))]
        assert best.text.startswith("yes")
    again = west_of_n(base, pool, tmp_path / "run", teacher=fit, student=fit, confidence=0.2)
    assert [r.value for r in again.student(test)[0]] == [r.value for r in result.student(test)[0]]
