"""The stage computes what is missing once, answers from the store, refuses another embedder, and survives kill -9."""

import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from trimtab.embeddings import HiddenStates, Stored, from_card
from trimtab.errors import InputError, ModelError, SettingsChanged, StoreError
from trimtab.lm.load import load_lm
from trimtab.store import Store
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group

GROUPS = [Group(prompt(f"{i} + {i} ="), tuple(Completion(str(i + j), "m@0", j, j) for j in range(3))) for i in range(5)]


@dataclass(frozen=True)
class Lengths:
    """A plain embedder that counts its calls; `scale` is part of its card."""

    scale: float = 1.0
    calls: list = field(default_factory=list, compare=False, repr=False)

    @property
    def card(self):
        return {"kind": "lengths", "scale": self.scale}

    def __call__(self, groups):
        self.calls.append([g.prompt.id for g in groups])
        return [np.array([[self.scale * len(c.text), c.seed] for c in g.completions], np.float32) for g in groups]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    with store.writer("completions/test", {"model": "m"}) as w:
        w.append_groups(GROUPS)
    return store


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_lm(str(tiny_lm(tmp_path_factory.mktemp("lm"))), "float32")


def test_computed_once_and_read_without_the_embedder(store):
    e = Lengths()
    first = Stored(e, store, "test", batch=2)(GROUPS[:3])
    again = Stored(e, store, "test", batch=2)(GROUPS)
    assert [len(c) for c in e.calls] == [2, 1, 1, 1]  # fixed blocks of two: the second held one stored group
    read = Stored(None, store, "test")(GROUPS[::-1])[::-1]
    for want, *got in zip(Lengths()(GROUPS), again, read, strict=True):
        for g in got:
            np.testing.assert_array_equal(g, want)
    np.testing.assert_array_equal(first[0], again[0])
    assert Stored(None, store, "test").card == e.card
    assert Stored(None, store, "test")([GROUPS[1], GROUPS[1]])[1].shape == (3, 2)


def test_another_embedder_is_refused_also_when_nothing_is_missing(store):
    Stored(Lengths(), store, "test")(GROUPS)
    with pytest.raises(SettingsChanged, match="scale"):
        Stored(Lengths(2.0), store, "test")(GROUPS)
    Stored(Lengths(2.0), store, "test", suffix="twice")(GROUPS)
    assert store.tables("embeddings") == ["embeddings/test", "embeddings/test/twice"]


def test_missing_rows_and_unknown_keys(store):
    with pytest.raises(InputError, match="no table 'embeddings/test'"):
        Stored(None, store, "test")(GROUPS)
    Stored(Lengths(), store, "test")(GROUPS[:2])
    with pytest.raises(StoreError, match="run the embed step again"):
        Stored(None, store, "test")(GROUPS)
    with pytest.raises(InputError, match="did you mean 'vector'"):
        Stored(None, store, "test", keys=("vectr",))(GROUPS)


def test_hidden_states_store_every_layer_and_pooling(store, lm):
    embed = HiddenStates(lm, layers=(1, 2))
    got = Stored(embed, store, "test")(GROUPS)
    for a, b in zip(got, embed(GROUPS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"pass keys, any of: layer1.last, layer1.text, layer1.mean, layer2.last"):
        Stored(None, store, "test")(GROUPS)
    reader = Stored(None, store, "test", keys=("layer2.mean",))
    alone = HiddenStates(lm, layers=(2,), pooling="mean")
    assert reader.card == alone.card
    np.testing.assert_allclose(reader(GROUPS)[4], alone(GROUPS)[4], rtol=1e-4, atol=1e-4)
    assert Stored(alone, store, "test")(GROUPS)[0].shape == (3, 32)  # read: its layer and pooling are already there
    with pytest.raises(SettingsChanged, match="layers"):
        Stored(HiddenStates(lm, layers=(3,)), store, "test")(GROUPS)


def test_a_table_of_fewer_poolings_goes_on_with_those(store, lm):
    embed = HiddenStates(lm, layers=(1,))
    card = {k: v for k, v in embed.card.items() if k != "pooling"}
    with store.writer("embeddings/test", {"card": card, "keys": ["layer1.last"], "dtype": "float32"}):
        pass
    assert Stored(embed, store, "test")(GROUPS)[0].shape == (3, 32)
    assert {k for _, t in store.tensors("embeddings/test") for k in t} == {"layer1.last"}


def test_from_card(lm):
    embed = HiddenStates(lm.name, layers=(2,), pooling="mean", dtype="float32")
    assert from_card(embed.card) == embed
    with pytest.raises(ModelError, match=r"revision 'other' then, '.*' now"):
        from_card({**embed.card, "revision": "other"})
    with pytest.raises(InputError, match="unknown kind of embedder 'lengths'"):
        from_card(Lengths().card)


def test_half_precision_is_refused_where_it_does_not_fit(store):
    with pytest.raises(InputError, match=r"1e\+05 do not fit float16"):
        Stored(Lengths(1e5), store, "test", dtype="float16")(GROUPS)
    with pytest.raises(ModelError, match="NaN or infinity"):
        Stored(Lengths(float("inf")), store, "test", suffix="inf")(GROUPS)
    half = Stored(Lengths(), store, "test", suffix="half", dtype="float16")(GROUPS)
    assert half[0].dtype == np.float16


JOB = """
import functools, os, pathlib, random, signal, sys, time
import torch, transformers.models.llama.modeling_llama
from trimtab.embeddings import HiddenStates, Stored
from trimtab.lm.load import load_lm
from trimtab.store import Store

# Fresh processes by fork, made before torch has computed anything: importing torch 20 times would take minutes.
torch.set_num_threads(1)
Store.writer = functools.partialmethod(Store.writer, flush_s=0.0)  # a shard a block: many moments to be killed at
rng, killed = random.Random(0), 0
shards = lambda: sum(1 for _ in pathlib.Path(sys.argv[1], "embeddings", "test").glob("*.safetensors"))
while True:
    wanted = shards() + rng.randint(0, 15)  # killed by progress, not by the clock: a fast machine must not finish first
    child = os.fork()
    if not child:
        store, embed = Store(sys.argv[1]), HiddenStates(load_lm(sys.argv[2], "float32"), layers=(1, 3))
        Stored(embed, store, "test", batch=1)(store.groups("test"))
        os._exit(0)
    while killed < 20 and not (done := os.waitpid(child, os.WNOHANG))[0] and shards() < wanted:
        time.sleep(0.001)
    if killed < 20 and not done[0]:
        time.sleep(rng.uniform(0, 0.02))  # somewhere within the writing of the next
        os.kill(child, signal.SIGKILL)
        killed += 1
        os.waitpid(child, 0)
        continue
    status = done[1] if killed < 20 else os.waitpid(child, 0)[1]
    print(killed, os.waitstatus_to_exitcode(status))
    break
"""


def test_kill_9_loses_and_doubles_nothing(tmp_path, lm):
    groups = [Group(prompt(f"{i}?"), tuple(Completion(f"{i}{j}", "m@0", j, j) for j in range(4))) for i in range(400)]
    stores = Store(tmp_path / "killed"), Store(tmp_path / "whole")
    for s in stores:
        s.add_prompts([g.prompt for g in groups], "test")
        with s.writer("completions/test", {"model": "m"}) as w:
            w.append_groups(groups)
    argv = [sys.executable, "-c", JOB, str(stores[0].path), lm.name]
    out = subprocess.run(argv, capture_output=True, text=True, check=True)
    killed, code = map(int, out.stdout.split())
    assert (killed, code) == (20, 0), f"the job was too short to be killed 20 times, or failed:\n{out.stderr}"
    Stored(HiddenStates(lm, layers=(1, 3)), stores[1], "test", batch=1)(groups)
    rows = [[i for ids, _ in s.tensors("embeddings/test", keys=()) for i in ids] for s in stores]
    assert len(rows[0]) == 1600 and rows[0] == rows[1]  # none lost, none doubled, in the order of the groups
    keys = stores[1].settings("embeddings/test")["keys"]
    assert keys == [f"layer{n}.{p}" for n in (1, 3) for p in ("last", "text", "mean")]
    for key in keys:
        a, b = (s.tensor_rows("embeddings/test", key, rows[0]) for s in stores)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
