"""Every routing method is a Router: covers its pool, is finite, the same alone or in a batch, whatever the order."""

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.learners.model.fits import METHODS
from trimtab.learners.model.router import SINGLE, fit_router
from trimtab.testing import check_router, prompt

TEXTS = [f"{w} {i}" for i in range(12) for w in ("add the numbers", "write a function", "name a river")]
PROMPTS = tuple(prompt(t) for t in TEXTS)
TAGS = tuple((w,) for _ in range(12) for w in ("sums", "code", "facts"))
REWARD = np.tile(np.eye(3) * 0.7, (12, 1)) + 0.1 * np.random.default_rng(0).random((36, 3))
PRICE = np.tile([2.0, 1.0, 3.0], (36, 1))
MATRIX = ResponseMatrix(PROMPTS, ("x", "y", "z"), REWARD, TAGS, price_PM=PRICE)


@pytest.mark.parametrize("method", [*METHODS, *SINGLE])
def test_router_contract(method):
    options = {"model": "y"} if method == "always" else {}
    fit = lambda: fit_router(MATRIX, HashedNgrams(32), method=method, guard=False, seed=1, **options)  # noqa: E731
    check_router(fit(), PROMPTS, MATRIX.models)
    assert fit()(PROMPTS) == fit()(PROMPTS), "same data and seed, same router"


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (lambda prompts: [{"x": 1.0} for _ in prompts], "exactly the pool"),
        (lambda prompts: [{"x": float("nan"), "y": 0.0, "z": 0.0} for _ in prompts], "finite"),
        (lambda prompts: [dict.fromkeys("xyz", float(len(prompts))) for _ in prompts], "batch"),
        (lambda prompts: [dict.fromkeys("xyz", float(i)) for i, _ in enumerate(prompts)], "must not depend"),
        (lambda prompts: [dict.fromkeys("xyz", 0.0)], "no prompts give no rows"),
    ],
)
def test_the_check_catches_bad_routers(router, said):
    with pytest.raises(AssertionError, match=said):
        check_router(router, PROMPTS[:3], ("x", "y", "z"))
