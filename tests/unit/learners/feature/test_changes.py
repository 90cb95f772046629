from dataclasses import replace

import numpy as np
import pytest
import torch

from trimtab.errors import InputError
from trimtab.evaluation.pages.features import feature_changes, features_html
from trimtab.learners.feature.changes import contrast, feature_scale, mean_features, top_snippets
from trimtab.learners.feature.states import hidden_rows, token_rows
from trimtab.lm.load import load_lm
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group

from .conftest import make_sae

GROUPS = [
    Group(prompt(f"say {i}"), tuple(Completion(t, "x", 0, n) for n, t in enumerate((f"ab{i}", "cdefg", "h"))))
    for i in range(6)
]


def test_means_weigh_every_completion_the_same(lm):
    sae = make_sae()
    got = mean_features(lm, sae, GROUPS, budget=60)
    for row_F, group in zip(got, GROUPS, strict=True):
        ((prompt_ids, completions),) = token_rows(lm.tokenizer, [group])
        each = [
            sae.encode(torch.cat([s[2] for s in hidden_rows(lm, [(prompt_ids, [c])], [2])])).mean(0)
            for c in completions
        ]
        np.testing.assert_allclose(row_F, torch.stack(each).mean(0).numpy(), atol=1e-5)


def test_snippets_show_the_token_that_excites(lm):
    sae = make_sae()
    found = top_snippets(lm, sae, GROUPS, [3, 7], count=2, context=4)
    for feature, snippets in found.items():
        values = []
        for group in GROUPS:
            ((prompt_ids, completions),) = token_rows(lm.tokenizer, [group])
            for c in completions:
                states = torch.cat([s[2] for s in hidden_rows(lm, [(prompt_ids, [c])], [2])])
                value, at = sae.encode(states)[:, feature].max(0)
                values.append((value.item(), lm.tokenizer.decode([c[at]])))
        values.sort(key=lambda x: -x[0])
        assert [s.value for s in snippets] == pytest.approx([v for v, _ in values[:2] if v > 0], abs=1e-4)
        assert [s.token for s in snippets] == [t for v, t in values[:2] if v > 0]


def test_the_unit_of_alpha_follows_the_scale_of_the_features(lm):
    sae = make_sae(kind="relu")
    twice = replace(sae, w_enc_DF=2 * sae.w_enc_DF, b_enc_F=2 * sae.b_enc_F)
    one, four = (feature_scale(lm, x, GROUPS, k=5) for x in (sae, twice))
    top = np.sort(mean_features(lm, sae, GROUPS) ** 2, axis=1)[:, -5:]
    assert one == pytest.approx(top.mean(), rel=1e-5)
    assert four == pytest.approx(4 * one, rel=1e-5)


def test_contrast_finds_the_planted_feature(lm):
    these = ["aaaaaaaa" + "bcd"[i % 3] * 3 for i in range(8)]
    those = ["hhhhhhhh" + "bcd"[i % 3] * 3 for i in range(8)]
    sae = make_sae()
    found = contrast(lm, sae, these, those, count=5)
    assert found
    gap = mean_features(lm, sae, these).mean(0) - mean_features(lm, sae, those).mean(0)
    assert (gap[found] > 0).all()
    assert not set(found) & set(contrast(lm, sae, those, these, count=5))
    with pytest.raises(InputError, match="two texts"):
        contrast(lm, sae, these[:1], those)


def test_a_model_did_not_change_from_itself_and_another_did(lm, tmp_path):
    sae = make_sae()
    same = feature_changes(lm, lm, sae, GROUPS)
    assert same.changes == ()
    assert same.distance.mean == 0
    other = load_lm(str(tiny_lm(tmp_path, seed=4)), "float32")
    found = feature_changes(lm, other, sae, GROUPS, top=5, names=("start", "<b>tuned</b>"))
    assert len(found.changes) == 5
    a, b = mean_features(lm, sae, GROUPS).mean(0), mean_features(other, sae, GROUPS).mean(0)
    for c in found.changes:
        assert c.difference.mean == pytest.approx(b[c.feature] - a[c.feature], abs=1e-5)
        assert c.difference.lower <= c.difference.mean <= c.difference.upper
    page = features_html(found)
    assert "&lt;b&gt;tuned" in page
    assert "<b>tuned" not in page
    assert all(f"<td>{c.feature}</td>" in page for c in found.changes)
    assert found.plain()["changes"][0]["snippets"]
    assert "features moved by" in str(found)
