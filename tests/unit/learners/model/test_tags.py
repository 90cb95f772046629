"""Tag smoothing by hand, in both forms; taggers."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.learners.model.losses import silver
from trimtab.learners.model.tags import asking, cluster_tags, keyword_tags, llm_tags, smooth, tag_means
from trimtab.testing import FakeSampler

S = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
TAGS = [["a"], ["a", "b"], ["b"]]


def test_tag_means_by_hand():
    found = tag_means(S, TAGS)
    assert found.names == ("a", "b")
    np.testing.assert_allclose(found.mean_TM, [[0.6, 0.4], [0.25, 0.75]])


def test_two_tags_are_averaged_uniformly():
    # prompt 1: 0.3 · (0.4, 0.6) + 0.7 · ((0.6, 0.4) + (0.25, 0.75)) / 2
    np.testing.assert_allclose(smooth(S, TAGS, 0.3)[1], [0.3 * 0.4 + 0.7 * 0.425, 0.3 * 0.6 + 0.7 * 0.575])
    np.testing.assert_allclose(smooth(S, TAGS, 0.3).sum(1), 1)


def test_beta_one_is_plain_and_zero_is_tags_alone():
    np.testing.assert_array_equal(smooth(S, TAGS, 1.0), S)
    np.testing.assert_allclose(smooth(S, TAGS, 0.0), [[0.6, 0.4], [0.425, 0.575], [0.25, 0.75]])


def test_the_two_forms_differ():
    import torch

    reward = np.array([[2.0, 0.0], [0.0, 2.0]])
    naacl = smooth(silver(torch.tensor(reward)).numpy(), [["t"], ["t"]], 0.5)
    v1 = silver(torch.tensor(smooth(reward, [["t"], ["t"]], 0.5))).numpy()
    p = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(naacl[0], [0.5 * p + 0.25, 0.5 * (1 - p) + 0.25])
    np.testing.assert_allclose(v1[0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_untagged_prompts_and_missing_cells():
    out = smooth(np.array([[1.0, np.nan], [0.0, 0.5], [3.0, 4.0]]), [["t"], ["t"], []], 0.0)
    np.testing.assert_allclose(
        out, [[0.5, np.nan], [0, 0.5], [3, 4]]
    )  # the second knows a model that the first does not
    with pytest.raises(InputError, match="no prompt has a tag"):
        smooth(S, [[], [], []], 0.3)
    with pytest.raises(InputError, match="beta must lie"):
        smooth(S, TAGS, 1.3)
    with pytest.raises(InputError, match="2 rows of tags for 3 prompts"):
        smooth(S, TAGS[:2], 0.3)


def test_taggers(tmp_path):
    assert keyword_tags(["Write Python code", "defend it"], {"code": ["python", "def"]}) == [["code"], []]
    X = np.r_[np.zeros((5, 2)), np.ones((5, 2))] + 0.01 * np.random.default_rng(0).normal(size=(10, 2))
    tags, centre = cluster_tags(X, 2)
    assert len({t for (t,) in tags[:5]}) == 1 and tags[0] != tags[9] and centre.shape == (2, 2)
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return ["Maths, word problem.\nmore"] * len(prompts)

    cache = tmp_path / "tags.jsonl"
    assert llm_tags(["q", "q"], ask, cache) == [["maths", "word problem"]] * 2
    assert llm_tags(["q", "r"], ask, cache)[0] == ["maths", "word problem"]
    assert len(asked) == 2  # q once, r once


def test_an_llm_tagger_keeps_every_batch_and_a_killed_run_goes_on(tmp_path):
    calls = []

    def ask(prompts):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise RuntimeError("killed")
        return ["a, b, a"] * len(prompts)

    cache = tmp_path / "deep" / "tags.jsonl"
    with pytest.raises(RuntimeError):
        llm_tags(["p", "q", "r"], ask, cache, batch=2)
    assert llm_tags(["p", "q", "r"], ask, cache, batch=2) == [["a", "b"]] * 3 and calls == [2, 1, 1]
    cache.write_text("{broken\n")
    with pytest.raises(InputError, match=r"tags\.jsonl:1"):
        llm_tags(["p"], ask, cache)


def test_a_sampler_can_be_asked():
    sampler = FakeSampler(lambda p, rng: f"{len(p.messages[0]['content'])}, maths")
    assert asking(sampler)(["four", "five!"]) == ["4, maths", "5, maths"]
