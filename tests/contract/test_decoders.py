"""Every lever: one answer a prompt in order, n = 1 is plain sampling, NaN never chosen, seeded; alone as in a batch,
whoever drives it; what fails loses no neighbour, caps hold, and the trace adds up to usage and price."""

import asyncio
import math
import pickle
import warnings
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
import pytest

from trimtab import decoders
from trimtab.adapters import score_answered
from trimtab.decoders.drive import Caps, Run, drive
from trimtab.errors import CapReached, InputError
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Ask, Group, Price, Prompt, Reward, SamplingParams, Usage

PARAMS = SamplingParams(seed=3, max_tokens=8)
PROMPTS = [prompt(f"question {i}") for i in range(12)]
PRICE = Price(0.01, 3.0, None, 15.0)


def answer(p: Prompt, rng: np.random.Generator) -> str:
    return " ".join(str(rng.integers(5)) for _ in range(rng.integers(1, 6)))


def reward(groups):
    """Half the completions are unscored."""

    def one(text):
        return Reward(math.nan, "unlucky") if len(text) % 4 == 1 else Reward(float(sum(map(int, text.split()))))

    return [[one(c.text) for c in g.completions] for g in groups]


def last(text: str) -> str | None:
    return text.split()[-1] if len(text) % 4 != 1 else None


def router(prompts):
    return [{"fake@0": 0.5, "other": float(p.id[-1] in "13579")} for p in prompts]


@dataclass(frozen=True)
class Counted:
    """A sampler that counts what it gives, remembers its calls, and raises where a prompt of `bad` is among others."""

    sampler: FakeSampler
    bad: tuple[str, ...] = ()
    calls: list = field(default_factory=list, compare=False)

    @property
    def model(self):
        return self.sampler.model

    def __call__(self, prompts, n, params):
        if odd := [p.id for p in prompts if p.id in self.bad]:
            raise InputError(f"{odd[0]} does not fit")
        self.calls.append((len(prompts), n))
        groups = self.sampler(prompts, n, params)
        return [replace(g, completions=tuple(self.counted(c, n) for c in g.completions)) for g in groups]

    def counted(self, c, n):
        return replace(c, usage=Usage(10 / n, 0.0, len(c.logprobs), 1 / n, 0.25 / n))


SAMPLER = FakeSampler(answer)
OTHER = FakeSampler(answer, "other")
MADE = {
    "Plain": lambda n, s, o: decoders.Plain(s, PRICE),
    "Greedy": lambda n, s, o: decoders.Greedy(s, PRICE),
    "BestOfN": lambda n, s, o: decoders.BestOfN(s, reward, n, PRICE),
    "SoftmaxPolicy": lambda n, s, o: decoders.SoftmaxPolicy(s, reward, n, 0.5, PRICE),
    "SoftmaxPolicy beta=0": lambda n, s, o: decoders.SoftmaxPolicy(s, reward, n, 0.0, PRICE),
    "Majority": lambda n, s, o: decoders.Majority(s, last, n, PRICE),
    "LogprobRerank mean": lambda n, s, o: decoders.LogprobRerank(s, n, "mean", PRICE),
    "LogprobRerank sum": lambda n, s, o: decoders.LogprobRerank(s, n, "sum", PRICE),
    "Longest": lambda n, s, o: decoders.Longest(s, n, PRICE),
    "RejectionSampler": lambda n, s, o: decoders.RejectionSampler(s, reward, 5.0, 2.0, n, n, price=PRICE),
    "RejectionSampler rounds": lambda n, s, o: decoders.RejectionSampler(s, reward, 1.0, 1e9, 3 * n, n, price=PRICE),
    "Routed": lambda n, s, o: decoders.Routed(router, {"fake@0": s, "other": o}, {"fake@0": 0.1, "other": 0.2}),
    "Ranked": lambda n, s, o: decoders.Ranked({"fake@0": s, "other": o}, reward, {"fake@0": 0.1, "other": 0.2}),
}
SAMPLERS = {"BeamSearch", "ChunkedBestOfN"}
ROUTES = {"Routed", "Ranked"}


def made(name, n, **kw):
    return MADE[name](n, Counted(SAMPLER, **kw), Counted(OTHER, **kw))


def same(a):
    """An answer but for its rewards, whose NaN equals nothing, and the names of its readers."""
    return a.completion, a.group.completions, repr(a.group.rewards), a.note, a.usage, a.price, len(a.trace)


def test_the_list_is_complete():
    levers = {n for n in decoders.__all__ if n[0].isupper() and "steps" in vars(getattr(decoders, n))}
    assert {name.split()[0] for name in MADE} == levers
    assert levers | SAMPLERS | {"Caps"} == {n for n in decoders.__all__ if n[0].isupper()}


@pytest.mark.parametrize("name", MADE)
def test_contract(name):
    decoder = MADE[name](8, SAMPLER, OTHER)
    answers = decoder(PROMPTS, PARAMS)
    assert [a.group.prompt for a in answers] == PROMPTS
    assert all(a.completion in a.group.completions for a in answers)
    assert all(a.tokens == sum(len(c.logprobs) for c in a.group.completions) for a in answers)
    assert decoder(PROMPTS, PARAMS) == answers == pickle.loads(pickle.dumps(decoder))(PROMPTS, PARAMS)
    assert [decoder([p], PARAMS)[0] for p in PROMPTS[::-1]][::-1] == answers  # alone or in a batch
    assert decoder([], PARAMS) == []
    for a in answers:
        given = dict(zip(a.group.completions, a.group.rewards, strict=False)).get(a.completion)
        assert given is None or not math.isnan(given.value) or np.isnan(a.group.reward_N).all()


@pytest.mark.parametrize("name", [n for n in MADE if n not in ROUTES])
def test_n_of_one_is_the_plain_sampler(name):
    params = replace(PARAMS, temperature=0) if name == "Greedy" else PARAMS
    plain = [a.completion.text for a in decoders.Plain(SAMPLER)(PROMPTS, params)]
    if name == "RejectionSampler rounds":  # it draws on
        assert [a.group.completions[0].text for a in made(name, 1)(PROMPTS, PARAMS)] == plain
    else:
        assert [a.completion.text for a in made(name, 1)(PROMPTS, PARAMS)] == plain


def test_softmax_to_zero_is_best_of_n():
    best = decoders.BestOfN(SAMPLER, reward, 8)(PROMPTS, PARAMS)
    cold = decoders.SoftmaxPolicy(SAMPLER, reward, 8, 1e-9)(PROMPTS, PARAMS)
    zero = decoders.SoftmaxPolicy(SAMPLER, reward, 8, 0.0)(PROMPTS, PARAMS)
    assert zero == best == cold


@pytest.mark.parametrize("name", MADE)
def test_the_trace_adds_up_and_many_prompts_share_few_calls(name):
    first, other = Counted(SAMPLER), Counted(OTHER)
    answers = MADE[name](4, first, other)(PROMPTS, PARAMS)
    for a in answers:
        asks = [s for s in a.trace if s.kind == "ask"]
        assert a.usage == reduce(add, [s.usage for s in a.trace]) and a.usage.calls == pytest.approx(len(asks))
        assert a.usage.seconds == pytest.approx(sum(s.usage.seconds for s in a.trace))
        assert a.price == sum(s.price for s in a.trace) > 0
        if name not in ROUTES:
            assert a.price == pytest.approx(PRICE(a.usage)) and a.usage.prompt_tokens == pytest.approx(10 * len(asks))
        assert sum(s.n for s in asks) == len(a.group.completions)
    rounds = max(sum(s.kind == "ask" for s in a.trace) for a in answers)
    assert len(first.calls) <= rounds and len(other.calls) <= rounds
    assert sum(p for p, _ in first.calls + other.calls) == sum(s.kind == "ask" for a in answers for s in a.trace)


@pytest.mark.parametrize("name", MADE)
def test_a_prompt_whose_sampler_raises_loses_no_neighbour(name):
    bad = ("question 3", "question 10")
    whole = made(name, 4)(PROMPTS, PARAMS)
    with pytest.warns(UserWarning, match="raised for 2 of" if name != "Routed" else "raised for 1 of"):
        answers = made(name, 4, bad=bad)(PROMPTS, PARAMS)
    for p, a, b in zip(PROMPTS, answers, whole, strict=True):
        if p.id in bad:
            assert a.completion.failed and f"{p.id} does not fit" in a.note and math.isnan(a.tokens)
        else:
            assert same(a) == same(b)
    with pytest.raises(InputError, match="question 0 does not fit"):
        made(name, 4, bad=tuple(p.id for p in PROMPTS))(PROMPTS, PARAMS)


@pytest.mark.parametrize("caps", [Caps(tokens=50), Caps(calls=2), Caps(dollars=0.021), Caps(tokens=8)], ids=repr)
@pytest.mark.parametrize("name", MADE)
def test_caps_hold(name, caps):
    for p in PROMPTS:
        try:
            (a,) = drive(made(name, 16), [p], PARAMS, caps)
        except CapReached as error:  # not one completion fits
            assert "raise the cap" in str(error) and caps.dollars < 0.1 and name in ROUTES
            continue
        assert a.usage.calls <= caps.calls + 1e-9 and a.tokens <= caps.tokens and a.price <= caps.dollars
        assert not a.completion.failed and a.completion in a.group.completions
        if caps.tokens == 8:
            assert len(a.group.completions) == 1 and (name in ("Plain", "Greedy", "Routed") or "cap" in a.note.lower())
    free = drive(made(name, 16), PROMPTS, PARAMS, Caps(calls=99, tokens=10**6, dollars=99.0))
    assert list(map(same, free)) == list(map(same, made(name, 16)(PROMPTS, PARAMS)))


def test_unknown_counts_are_unknown_prices_and_count_as_the_most_under_a_cap():
    lever = decoders.RejectionSampler(SAMPLER, reward, 1.0, 1e9, 12, 4, price=Price(million_in=1.0))
    (a,) = lever([PROMPTS[0]], PARAMS)
    assert math.isnan(a.price) and "price unknown: prompt_tokens not counted" in a.note
    assert a.usage.prompt_tokens is None and a.usage.calls == 3
    (a,) = drive(lever, [PROMPTS[0]], PARAMS, Caps(dollars=25 / 1e6))  # "question 0" is 10 bytes
    assert len(a.group.completions) == 8


async def asked(run: Run, seen: list) -> None:
    """A driver for one prompt among others: a server's, without a server."""
    while run.want is not None:
        want = run.want
        await asyncio.sleep(0)
        seen.append(run.prompt.id)
        if isinstance(want, Ask):
            run.asked(want.model([want.prompt], want.n, want.params)[0], want.model.model)
        else:
            (row,) = score_answered([want.group], want.by)
            run.read(Group(want.group.prompt, want.group.completions, tuple(row)), "reward", Usage(0, 0, 0, 0, 0))


@pytest.mark.parametrize("name", MADE)
def test_an_async_driver_gives_the_same_answers_and_may_stop_early(name):
    lever, seen = made(name, 4), []

    async def all_of_them():
        runs = [Run(p, lever.steps(p, PARAMS)) for p in PROMPTS]
        await asyncio.gather(*(asked(r, seen) for r in runs))
        return [r.answer for r in runs]

    assert list(map(same, asyncio.run(all_of_them()))) == list(map(same, lever(PROMPTS, PARAMS)))
    assert seen[:2] == [PROMPTS[0].id, PROMPTS[1].id]  # side by side
    steps = lever.steps(PROMPTS[0], PARAMS)
    next(steps)
    steps.close()  # the client is gone: nothing more is asked
    with pytest.raises(StopIteration):
        next(steps)


def test_an_error_of_one_prompt_keeps_the_best_so_far_and_one_of_all_is_raised():
    @dataclass(frozen=True)
    class Picky:
        refuses: str

        def steps(self, p, params):
            group = yield Ask(SAMPLER, p, 4, params)
            if p.id.startswith(self.refuses):
                raise InputError("not this one")
            return decoders.completion.answer(group, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = drive(Picky("question 1"), PROMPTS, PARAMS)
    assert [a.completion.index for a in answers] == [0 if p.id.startswith("question 1") else 3 for p in PROMPTS]
    assert answers[1].note == "stopped, the best so far: not this one"
    with pytest.raises(InputError, match="not this one"):
        drive(Picky("question"), PROMPTS, PARAMS)
