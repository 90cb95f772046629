"""Every embedder: one (N, D) finite float array a group, the same alone, in a batch and in any order; a stable card."""

import json
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest

from trimtab.embeddings import Encoder, Endpoint, HiddenStates, StaticVectors, Stored
from trimtab.store import Store
from trimtab.testing import prompt, scripted_server, tiny_lm
from trimtab.types import Completion, Embedder, Group


def group(text, *texts):
    return Group(prompt(text), tuple(Completion(t, "m@0", i, i) for i, t in enumerate(texts)))


GROUPS = [
    group("1 + 1 =", "2", "two", "2"),
    group("Say nothing.", ""),
    group("1 + 2 =", "3", "It is three, or nearly so.", "<3>", "\U0001f600"),
]


def hashed(number, asked):
    """A server's answer: vectors from a hash of the text."""
    rows = [{"index": i, "embedding": [crc32(t.encode()) / 2**32, 1.0]} for i, t in enumerate(asked.body["input"])]
    return 200, {}, {"data": rows}


@pytest.fixture
def server():
    with scripted_server(hashed) as (url, _):
        yield url


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory):
    return str(tiny_lm(tmp_path_factory.mktemp("lm")))


@pytest.fixture(
    params=[
        "last",
        "mean",
        "unshared",
        "endpoint",
        "stored",
        "static",
        pytest.param("encoder", marks=pytest.mark.model),
    ]
)
def embedder(request, lm_folder, tmp_path, server):
    states = HiddenStates(lm_folder, layers=(1, 3), dtype="float32")
    if request.param == "stored":
        store = Store(tmp_path / "run")
        with store.writer("completions/test", {}):
            pass
        return Stored(states, store, "test", batch=2)
    return {
        "last": states,
        "mean": replace(states, pooling="mean"),
        "unshared": replace(states, shared=False),
        "endpoint": Endpoint(server, "hashed", batch=2),
        "static": StaticVectors(lm_folder),
        "encoder": Encoder(),
    }[request.param]


def test_contract(embedder):
    assert isinstance(embedder, Embedder)
    vectors = embedder(GROUPS)
    assert [len(v) for v in vectors] == [len(g.completions) for g in GROUPS]
    assert len({v.shape[1] for v in vectors}) == 1
    assert all(np.issubdtype(v.dtype, np.floating) and np.isfinite(v).all() for v in vectors)
    np.testing.assert_array_equal(vectors[0][0], vectors[0][2])  # identical completions
    assert np.abs(vectors[0][0] - vectors[0][1]).max() > 1e-4
    assert np.abs(vectors[0][0] - vectors[2][0]).max() > 1e-4
    backwards = embedder([Group(g.prompt, g.completions[::-1]) for g in GROUPS[::-1]])
    for g, v, b in zip(GROUPS, vectors, backwards[::-1], strict=True):
        np.testing.assert_allclose(embedder([g])[0], v, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b[::-1], v, rtol=1e-4, atol=1e-5)
    assert embedder([]) == []


def test_card_is_plain_and_stable(embedder):
    embedder(GROUPS)
    assert json.loads(json.dumps(embedder.card)) == embedder.card == embedder.card
    assert embedder.card["kind"]
