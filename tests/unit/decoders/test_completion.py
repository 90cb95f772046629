"""What each decoder takes from a group whose values are known, what it costs, and what it says."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from trimtab import decoders
from trimtab.errors import InputError
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Completion, Group, Prompt, Reward, SamplingParams, completion_seed

NAN = math.nan
P = prompt("q")


@dataclass(frozen=True)
class Fixed:
    """Always the same completions, the first n of them."""

    completions: tuple[Completion, ...]
    model: str = "fixed@1"

    def __call__(self, prompts, n, params):
        return [Group(p, self.completions[:n]) for p in prompts]


def fixed(*texts, logprobs=None):
    logprobs = logprobs or [(-1.0,) * (len(t.split()) or 1) for t in texts]
    return Fixed(
        tuple(
            Completion(t, "fixed@1", i, i, logprobs=lp) for i, (t, lp) in enumerate(zip(texts, logprobs, strict=True))
        )
    )


@dataclass(frozen=True)
class ByText:
    values: dict

    def __call__(self, groups):
        return [
            [
                Reward(self.values[c.text], "" if self.values[c.text] == self.values[c.text] else "why")
                for c in g.completions
            ]
            for g in groups
        ]


def test_best_of_n_takes_the_highest_and_counts_every_token():
    sampler = fixed("a", "b b", "c c c")
    (a,) = decoders.BestOfN(sampler, ByText({"a": 0.1, "b b": 0.9, "c c c": NAN}), n=3)([P])
    assert (a.completion.text, a.tokens, a.note) == ("b b", 6, "")
    np.testing.assert_array_equal(a.group.reward_N, [0.1, 0.9, NAN])


def test_all_unscored_is_said_and_seeded():
    d = decoders.BestOfN(fixed("a", "b", "c"), ByText(dict.fromkeys("abc", NAN)), n=3)
    prompts = [prompt(f"{i}") for i in range(60)]
    answers = d(prompts)
    assert {a.note for a in answers} == {"all completions are unscored; chosen at random"}
    assert {a.completion.text for a in answers} == {"a", "b", "c"} and d(prompts) == answers


def test_ties_spread_over_prompts_and_seeds():
    d = decoders.BestOfN(fixed("a", "b"), ByText({"a": 1.0, "b": 1.0}), n=2)
    prompts = [prompt(f"{i}") for i in range(400)]
    share = np.mean([a.completion.text == "a" for a in d(prompts)])
    assert abs(share - 0.5) < 0.1
    other = d(prompts, SamplingParams(seed=1))
    assert [a.completion.text for a in other] != [a.completion.text for a in d(prompts)]


def test_softmax_policy_draws_with_softmax():
    d = decoders.SoftmaxPolicy(fixed("a", "b"), ByText({"a": 0.0, "b": math.log(3)}), n=2, beta=1.0)
    texts = [a.completion.text for a in d([prompt(f"{i}") for i in range(1000)])]
    assert abs(texts.count("b") / 1000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 1000)


def test_majority_logprob_longest():
    sampler = fixed("x 3", "y 4 4 4", "z 3", "none", logprobs=[(-1.0, -3.0), (-1.0,) * 4, (-2.5,), None])
    last = lambda t: t.split()[-1] if t[-1].isdigit() else None  # noqa: E731
    assert decoders.Majority(sampler, last, n=4)([P])[0].completion.text in ("x 3", "z 3")
    (none,) = decoders.Majority(sampler, lambda t: None, n=4)([P])
    assert none.note.startswith("no completion gave an answer; chosen at random")
    (mean,) = decoders.LogprobRerank(sampler, n=4)([P])
    assert mean.completion.text == "y 4 4 4"
    assert math.isnan(mean.tokens) and mean.note == "tokens of 1 completions are unknown"
    (total,) = decoders.LogprobRerank(sampler, n=4, normalise="sum")([P])
    assert total.completion.text == "z 3"
    assert decoders.Longest(sampler, n=3)([P])[0].completion.text == "y 4 4 4"  # tokens
    assert decoders.Longest(fixed("short", "longer still", logprobs=[None, None]), n=2)([P])[0].completion.index == 1


def test_what_is_refused():
    with pytest.raises(InputError, match=r"fixed@1 gives none; samplers\.HF"):
        decoders.LogprobRerank(fixed("a", "b", logprobs=[None, None]), n=2)([P])
    with pytest.raises(InputError, match="'mean' or 'sum'"):
        decoders.LogprobRerank(fixed("a"), normalise="average")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="M must be positive"):
        decoders.RejectionSampler(fixed("a"), ByText({}), M=0.0)
    with pytest.raises(InputError, match="batch=9"):
        decoders.RejectionSampler(fixed("a"), ByText({}), batch=9, max_draws=8)
    with pytest.raises(InputError, match="infinitely many draws"):
        decoders.RejectionSampler(fixed("a"), ByText({}), beta=0.0)
    with pytest.raises(InputError, match="no completions to choose from"):
        decoders.BestOfN(fixed(), ByText({}), n=3)([P])


WORDS, BASE, Q = ("a", "b", "c"), (0.5, 0.3, 0.2), {"a": 0.0, "b": 0.5, "c": 1.0}
TILTED = np.array([p * math.exp(Q[w] / 0.5) for w, p in zip(WORDS, BASE, strict=True)])
TILTED /= TILTED.sum()


def word(p: Prompt, rng: np.random.Generator) -> str:
    return str(rng.choice(WORDS, p=BASE))


@pytest.mark.parametrize("bound", [math.exp(1.0 / 0.5), 3 * math.exp(1.0 / 0.5), None])
def test_rejection_sampler_draws_from_the_tilted_distribution(bound):
    """Q-Probe 4.2: p0(a) exp(Q(a)/beta) / Z, which the softmax policy reaches only for n to infinity."""
    # without a bound, a first batch of 24 misses the word of highest reward in 0.5 % of the prompts
    batch = 24 if bound is None else 4
    d = decoders.RejectionSampler(FakeSampler(word), ByText(Q), beta=0.5, M=bound, batch=batch)
    n = 600 if bound else 300
    answers = d([prompt(f"{i}") for i in range(n)])
    counts = np.array([sum(a.completion.text == w for a in answers) for w in WORDS])
    chi2 = ((counts - n * TILTED) ** 2 / (n * TILTED)).sum()
    assert chi2 < 18.4, (counts, n * TILTED)  # 2 degrees of freedom, p = 1e-4
    assert d([answers[0].group.prompt]) == answers[:1]
    assert all(a.note.startswith("accepted draw") for a in answers)
    if bound:  # the mean number of draws is M / E[exp(Q/beta)]
        draws = np.array([a.completion.index + 1 for a in answers])
        rate = sum(p * math.exp(Q[w] / 0.5) for w, p in zip(WORDS, BASE, strict=True)) / bound
        assert abs(draws.mean() - 1 / rate) < 4 * math.sqrt(1 - rate) / rate / math.sqrt(n)


@pytest.mark.parametrize(("beta", "highest"), [(0.5, 1.0), (0.25, 1.0), (0.5, 1.4), (0.001, 1.0)])
def test_a_bound_on_the_reward_is_m_and_the_samples_are_exact(beta, highest):
    prompts = [prompt(f"{i}") for i in range(400)]
    d = decoders.RejectionSampler(FakeSampler(word), ByText(Q), beta=beta, bound=highest, batch=8, max_draws=512)
    answers = d(prompts)
    if beta > 0.01:  # there exp(1 / beta) is a number
        given = decoders.RejectionSampler(FakeSampler(word), ByText(Q), beta, math.exp(highest / beta), 512, 8)
        assert [a.completion for a in answers] == [a.completion for a in given(prompts)]
    weight = np.array([p * math.exp((Q[w] - 1) / beta) for w, p in zip(WORDS, BASE, strict=True)])
    want = 400 * weight / weight.sum()
    counts = np.array([sum(a.completion.text == w for a in answers) for w in WORDS])
    assert ((counts - want) ** 2 / np.maximum(want, 1e-9)).sum() < 18.4 and "not exact" not in answers[0].note


def test_without_a_bound_the_note_says_that_the_samples_are_not_exact():
    rare = ByText({"a": 0.0, "b": 0.0, "c": 4.0})
    d = decoders.RejectionSampler(FakeSampler(word), rare, beta=1.0, batch=2, max_draws=64)
    notes = [a.note for a in d([prompt(f"{i}") for i in range(20)])]
    assert all("M is the largest of 2 first draws, so the samples are not exact: give bound" in n for n in notes)
    for wrong in ({"bound": 1.0, "M": 2.0}, {"bound": math.inf}, {"bound": NAN}):
        with pytest.raises(InputError, match="RejectionSampler"):
            decoders.RejectionSampler(FakeSampler(word), rare, **wrong)


def test_the_softmax_policy_is_biased_at_small_n_where_rejection_is_not():
    d = decoders.SoftmaxPolicy(FakeSampler(word), ByText(Q), n=2, beta=0.5)
    counts = np.array([sum(a.completion.text == w for a in d([prompt(f"{i}") for i in range(1000)])) for w in WORDS])
    assert ((counts - 1000 * TILTED) ** 2 / (1000 * TILTED)).sum() > 18.4


def test_rejection_sampler_tells_its_draws_and_gives_up_in_time():
    reward = ByText({"a": 0.0, "b": 0.0, "c": 0.0})
    hard = decoders.RejectionSampler(FakeSampler(word), reward, beta=1.0, M=1e9, batch=8, max_draws=20)
    (a,) = hard([P])
    assert len(a.group.completions) == 20 and [c.index for c in a.group.completions] == list(range(20))
    assert len({c.seed for c in a.group.completions}) == 20
    assert a.note == "none of 20 draws accepted, chosen by the softmax policy; 1e+09 draws expected"
    (low,) = decoders.RejectionSampler(
        FakeSampler(word), ByText({"a": 1.0, "b": 1.0, "c": 1.0}), beta=1.0, M=1.0, batch=4
    )([P])
    assert low.note == "accepted draw 1; 1 draws expected; 4 draws exceeded M, where the tilt is flattened"
    (nan,) = decoders.RejectionSampler(FakeSampler(word), ByText(dict.fromkeys("abc", NAN)), batch=4, max_draws=12)([P])
    assert nan.note == "all completions are unscored; chosen at random" and len(nan.group.completions) == 12


def test_greedy_is_temperature_zero_and_plain_is_the_sampler():
    sampler = FakeSampler(lambda p, rng: str(rng.integers(1000)))
    (g,) = decoders.Greedy(sampler)([P])
    assert g.completion.seed == completion_seed(0, P.id, 0)
    params = SamplingParams(seed=5)
    assert decoders.Plain(sampler)([P], params)[0].group == sampler([P], 1, params)[0]
