from inspect import signature

import numpy as np
import pytest
import torch

from trimtab.data.pairs import best_vs_worst
from trimtab.decoders.completion import BestOfN, SoftmaxPolicy
from trimtab.errors import ModelError
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.credit import Credit, auroc, pieces_of, token_credit
from trimtab.learners.token.losses import PAIR_LOSSES, SINGLE_LOSSES
from trimtab.learners.token.policy import ImplicitReward, LoadedPolicy, Policy, load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.load import load_lm
from trimtab.rewards import score
from trimtab.testing import check_learned_reward, prompt, tiny_lm
from trimtab.types import Completion, Group, describe

from .conftest import make_groups, make_pairs


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return [Policy(load_lm(str(tiny_lm(folder / str(s), seed=s)), "float32")) for s in (1, 2)]


GROUP = Group(
    prompt("why?"),
    (Completion("because", "x", 0, 0), Completion("é∑ so", "x", 0, 1), Completion("cut", "x", 0, 2, "length")),
)


def test_credit_is_the_logratio_and_sums_to_the_implicit_reward(policies):
    policy, reference = policies
    (credits,) = token_credit([GROUP], policy, reference, beta=0.3)
    (rewards,) = ImplicitReward(policy, reference, 0.3)([GROUP])
    ids, completions = policy.encode(GROUP)
    for credit, reward, completion in zip(credits, rewards, completions, strict=True):
        with torch.no_grad():
            a, b = (
                p.lm.model(torch.tensor([[*ids, *completion]])).logits[0].log_softmax(-1) for p in (policy, reference)
            )
        want = [0.3 * (a - b)[len(ids) + t - 1, c].item() for t, c in enumerate(completion)]
        np.testing.assert_allclose(credit.advantage_T, want, atol=1e-5)
        np.testing.assert_allclose(credit.value_T, np.cumsum(want), atol=1e-4)
        assert credit.reward == pytest.approx(reward.value, abs=1e-5)
    assert [r.note != "" for r in rewards] == [False, False, True]
    assert credits[0].ended and not credits[2].ended
    assert "".join(credits[1].pieces) == "é∑ so<|end|>" and len(credits[1].pieces) == len(completions[1])


def test_a_policy_equal_to_its_reference_earns_nothing(policies):
    (rewards,) = ImplicitReward(policies[0], policies[0])([GROUP])
    assert [r.value for r in rewards] == [0.0, 0.0, 0.0]


def test_the_implicit_reward_keeps_the_scorer_contract(policies):
    check_learned_reward(ImplicitReward(*policies), [GROUP, *make_groups(3)])


def test_nothing_to_score_is_nan(policies):
    (rewards,) = ImplicitReward(*policies)([Group(prompt("a"), (Completion("", "x", 0, 0, "length"),))])
    assert np.isnan(rewards[0].value) and rewards[0].note


def test_next_logprobs(policies):
    rows = [[1, 2, 3], [4]]
    got = policies[0].next_logprobs(rows)
    for row, value in zip(rows, got, strict=True):
        with torch.no_grad():
            want = policies[0].lm.model(torch.tensor([row])).logits[0, -1].log_softmax(-1)
        np.testing.assert_allclose(value, want.numpy(), atol=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_a_trained_run_is_a_reward_that_prefers_what_was_chosen(tmp_path, lm_folder, lora):
    pairs = make_pairs(32)
    out = train_policy(
        pairs,
        model=lm_folder,
        out=tmp_path / "run",
        loss="dpo",
        loss_settings={"beta": 0.2},
        lora=lora,
        optim=Optim(epochs=3, batch_size=8, learning_rate=1e-2 if lora else 1e-3),
        compute=Compute(dtype="float32"),
    ).path
    loaded = load_policy(out, dtype="float32")
    assert loaded.beta == 0.2
    held = [Group(p.prompt, (p.chosen, p.rejected)) for p in make_pairs(24, seed=5)]
    rewards = loaded.reward(held)
    assert np.mean([a.value > b.value for a, b in rewards]) > 0.8

    def sampler(prompts, n, params):
        return held[: len(prompts)]

    sampler.model = "x"
    chosen = BestOfN(sampler, loaded.reward, n=2)([g.prompt for g in held])
    assert np.mean([a.completion.index == 0 for a in chosen]) > 0.8
    softmax = [SoftmaxPolicy(sampler, loaded.reward, 2, beta)([g.prompt for g in held]) for beta in (0.0, 100.0)]
    sharp, flat = (np.mean([a.completion.index == 0 for a in answers]) for answers in softmax)
    assert sharp > 0.8 and sharp > flat  # beta 0 is the argmax, a large one the sampler
    west = best_vs_worst(score(held, loaded.reward))
    assert np.mean([p.chosen.index == 0 for p in west]) > 0.8 and len(west) == len(held)


def by_hand(kind: str, ours, theirs, beta: float) -> float:
    ratio = np.sum(ours) - np.sum(theirs)
    return beta * {"sum": ratio, "mean": ratio / len(ours), "own sum": np.sum(ours), "own mean": np.mean(ours)}[kind]


REWARDS = {
    "dpo": "sum", "cdpo": "sum", "robust": "sum", "hinge": "sum", "kto": "sum", "ln_dpo": "mean", "fpo": "mean",
    "ipo": "mean", "simpo": "own mean", "orpo": "own mean", "cpo": "own sum",
}  # fmt: skip


@pytest.mark.parametrize("name", [*PAIR_LOSSES, *SINGLE_LOSSES])
def test_a_policy_is_read_by_the_reward_of_its_own_loss(policies, name):
    loss = {**PAIR_LOSSES, **SINGLE_LOSSES}[name]
    settings = {n: p.default for n, p in signature(loss).parameters.items() if p.kind is p.KEYWORD_ONLY}
    loaded = LoadedPolicy(*policies, 0.7, {"settings": {"loss": {"name": describe(loss), **settings, "beta": 0.7}}})
    if name not in REWARDS:
        with pytest.raises(ModelError, match=f"losses:{name} has no reward"):
            _ = loaded.reward
        return
    ours, theirs = (p.logprobs([GROUP])[0] for p in policies)
    want = [by_hand(REWARDS[name], a, b, 0.7) for a, b in zip(ours, theirs, strict=True)]
    (rewards,) = loaded.reward([GROUP])
    assert [r.value for r in rewards] == pytest.approx(want, abs=1e-5)
    assert [r.note != "" for r in rewards] == [False, False, True]


def test_settings_of_the_loss_count_and_unknown_losses_are_named(policies):
    card = {"settings": {"loss": {"name": describe(PAIR_LOSSES["ipo"]), "beta": 0.5, "per_token": False}}}
    ours, theirs = (p.logprobs([GROUP])[0] for p in policies)
    (rewards,) = LoadedPolicy(*policies, 0.5, card).reward([GROUP])
    assert rewards[0].value == pytest.approx(by_hand("sum", ours[0], theirs[0], 0.5), abs=1e-5)
    with pytest.raises(ModelError, match="mine:loss, whose reward is unknown"):
        _ = LoadedPolicy(*policies, 0.5, {"settings": {"loss": {"name": "mine:loss"}}}).reward
    (own,) = ImplicitReward(*policies, 2.0, PAIR_LOSSES["simpo"])([GROUP])
    assert own[1].value == pytest.approx(2 * np.mean(ours[1]), abs=1e-5)


@pytest.mark.parametrize("name", ["simpo", "ln_dpo", "orpo"])
def test_a_trained_run_orders_completions_as_its_loss_does(tmp_path, lm_folder, name):
    pairs = make_pairs(8)
    out = train_policy(
        pairs,
        model=lm_folder,
        out=tmp_path / "run",
        loss=name,
        optim=Optim(batch_size=8),
        compute=Compute(dtype="float32"),
    ).path
    loaded = load_policy(out, dtype="float32")
    held = [Group(p.prompt, (p.chosen, p.rejected)) for p in make_pairs(6, seed=5)]
    rows = zip(loaded.policy.logprobs(held), loaded.reference.logprobs(held), loaded.reward(held), strict=True)
    for ours, theirs, rewards in rows:
        want = [by_hand(REWARDS[name], a, b, loaded.beta) for a, b in zip(ours, theirs, strict=True)]
        assert [r.value for r in rewards] == pytest.approx(want, abs=1e-5)


def test_folders_that_are_no_run_are_refused(tmp_path, lm_folder):
    with pytest.raises(ModelError, match=r"no policy\.json"):
        load_policy(lm_folder)
    (tmp_path / "policy.json").write_text('{"settings": {}}')
    with pytest.raises(ModelError, match="not finished"):
        load_policy(tmp_path)


def test_pieces_join_over_long_texts_and_split_characters(policies):
    tokenizer = policies[0].lm.tokenizer
    text = "naïve ∑ 🙂 " * 20
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces_of(tokenizer, ids)) == text


def test_auroc_by_hand():
    assert auroc([3.0, 1.0, 2.0, 0.0], [True, False, True, False]) == 1.0
    assert auroc([1.0, 1.0, 0.0], [True, False, False]) == 0.75  # one tie, one win
    assert np.isnan(auroc([1.0], [True]))


def test_credit_by_hand():
    credit = Credit("p", 0, ("a", "b"), (-1.0, -2.0), (-1.5, -1.0), 0.1, True)
    np.testing.assert_allclose(credit.advantage_T, [0.05, -0.1])
    np.testing.assert_allclose(credit.value_T, [0.05, -0.05])
