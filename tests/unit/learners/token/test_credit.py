import numpy as np
import pytest
import torch

from trimtab.data.pairs import best_vs_worst
from trimtab.decoders.completion import BestOfN, SoftmaxPolicy
from trimtab.errors import ModelError
from trimtab.learners.token.credit import Credit, auroc, pieces_of, token_credit
from trimtab.learners.token.policy import ImplicitReward, Policy, load_policy
from trimtab.learners.token.trainer import Lora, train_policy
from trimtab.models.load import load_lm
from trimtab.rewards import score
from trimtab.testing import check_scorer, prompt, tiny_lm
from trimtab.types import Completion, Group

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
    check_scorer(ImplicitReward(*policies), [GROUP, *make_groups(3)])


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
        pairs, model=lm_folder, out=tmp_path / "run", loss="dpo", loss_settings={"beta": 0.2}, lora=lora, epochs=3,
        batch_size=8, learning_rate=1e-2 if lora else 1e-3, dtype="float32",
    )  # fmt: skip
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
