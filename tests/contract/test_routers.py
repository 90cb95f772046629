"""Every routing method is a Router: covers its pool, is finite, the same alone or in a batch, whatever the order."""

import numpy as np
import pytest

from trimtab.data.matrix import ResponseMatrix
from trimtab.learners.model.fits import METHODS
from trimtab.learners.model.ngrams import HashedNgrams
from trimtab.learners.model.router import fit_router
from trimtab.testing import prompt

TEXTS = [f"{w} {i}" for i in range(12) for w in ("add the numbers", "write a function", "name a river")]
PROMPTS = tuple(prompt(t) for t in TEXTS)
TAGS = tuple((w,) for _ in range(12) for w in ("sums", "code", "facts"))
REWARD = np.tile(np.eye(3) * 0.7, (12, 1)) + 0.1 * np.random.default_rng(0).random((36, 3))
MATRIX = ResponseMatrix(PROMPTS, ("x", "y", "z"), REWARD, TAGS)


@pytest.mark.parametrize("method", METHODS)
def test_router_contract(method):
    router = fit_router(MATRIX, HashedNgrams(32), method=method, guard=False, seed=1)
    batch = router(PROMPTS)
    assert router([]) == [] and len(batch) == len(PROMPTS)
    assert all(set(row) == {"x", "y", "z"} for row in batch)
    assert np.isfinite([list(row.values()) for row in batch]).all()
    for p, row in zip(PROMPTS[:6], batch, strict=False):
        assert router([p])[0] == pytest.approx(row, abs=1e-5)
    again = fit_router(MATRIX, HashedNgrams(32), method=method, guard=False, seed=1)(PROMPTS)
    backwards = router(PROMPTS[::-1])[::-1]
    for row, same, back in zip(batch, again, backwards, strict=True):
        assert row == same and row == pytest.approx(back, abs=1e-5)
