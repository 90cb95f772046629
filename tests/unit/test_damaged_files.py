"""Every kind of file that is read again, cut, flipped and edited: an error of ours or the right values, nothing else.

A kind is one row of the table: who makes its folder, who reads it, and which files may be hurt. Where a file's hash is
stored, another value is a failure too.
"""

import functools
import json
import os
import random
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.cli.config import load_task, read_sections
from trimtab.cli.sections import PoolTask
from trimtab.data.matrix.files import load_matrix
from trimtab.errors import TrimtabError
from trimtab.jobs.routing import encoder_of
from trimtab.learners.completion.probe.pairwise import PairwiseProbe
from trimtab.learners.completion.probe.probe import Probe
from trimtab.learners.completion.reranker.cues import same_text
from trimtab.learners.completion.reranker.reranker import Reranker
from trimtab.learners.completion.reranker.search import Form
from trimtab.learners.completion.west_of_n.west_of_n import _rows
from trimtab.learners.feature.sae import SAE, load_sae
from trimtab.learners.feature.train import check_of
from trimtab.learners.model.router import RewardRouter, load_router
from trimtab.learners.model.tags import _cached
from trimtab.learners.run import Checkpoints, Compute, Encoding, Optim, Run
from trimtab.learners.token.plan import plan_memory
from trimtab.lm import trained
from trimtab.lm.load import chosen_dtype, load_lm
from trimtab.rewards.reward_model import _card
from trimtab.store import Store
from trimtab.testing import prompt, tiny_lm, write_jsonl
from trimtab.types import Completion, Group, describe, fingerprint

SOAK = bool(os.environ.get("TRIMTAB_SOAK"))
EMBEDDER = {"kind": "toy", "layers": [1]}


def store(folder):
    run = Store(folder)
    asked = [prompt("one"), prompt("zwei")]
    run.add_prompts(asked, "test")
    groups = [Group(p, tuple(Completion(f"{p.id} {i}", "m", i, i) for i in range(2))) for p in asked]
    with run.writer("completions/test", {"model": "m"}) as w:
        w.append_groups(groups)
    ids = [i for row in run.sample_ids("test", groups) for i in row]
    with run.writer("rewards/test/r", {"reward": "r"}) as w:
        w.append({"id": i, "value": n / 2, "note": ""} for n, i in enumerate(ids))
    with run.writer("embeddings/test", {"model": "m"}) as w:
        w.append_tensors(ids, {"layer1.last": np.arange(12, dtype=np.float32).reshape(4, 3)})


def read_store(folder):
    run = Store(folder)
    groups = run.groups("test")
    tensors = [(ids, {k: v.tobytes() for k, v in t.items()}) for ids, t in run.tensors("embeddings/test")]
    run.writer("rewards/test/r", {"reward": "r"}).release()
    return repr(groups), tensors


def a_run(folder):
    return Run(folder, "policy.json", "m", None, Optim(), Encoding(), Compute("float32", "cpu"), Checkpoints(), 0, {})


def read_policy(folder):
    trained.check_whole(folder)
    a_run(folder).begin([1])
    said = trained.base_of(folder), trained.is_classifier(folder), _card(str(folder))
    return *said, str(chosen_dtype(str(folder), None, "cpu"))


def policy(folder):
    tiny_lm(folder.parent / "base", layers=1, hidden=8)
    settings = a_run(folder).identity() | {"data": fingerprint([1])}
    card = {"settings": settings, "finished": True, "last": {}, "examples": {}}
    (folder / "policy.json").write_text(json.dumps(card))
    (folder / "reward_model.json").write_text(json.dumps(card | {"template": "t", "rendering": "tokens"}))
    config = {"base_model_name_or_path": str(folder.parent / "base"), "revision": None, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def model(folder):
    tiny_lm(folder, layers=1, hidden=8)


def read_model(folder):
    plan_memory(folder, longest_row=4, device="cpu")
    return load_lm(str(folder), "float32", "cpu").model.config.vocab_size


def sae(folder):
    g = torch.Generator().manual_seed(0)
    w = torch.randn(4, 6, generator=g)
    SAE(w, torch.zeros(6), w.T.contiguous(), torch.zeros(4), layer=2, site="residual", model="m").save(folder)
    check = {"layer": 2, "fvu": 0.1, "l0": 3.0, "dead": 0.0, "tokens": 9, "elsewhere": {"1": 0.5}, "problems": []}
    (folder / "sae.json").write_text(json.dumps({"settings": {}, "states": 9, "check": check}))


def read_sae(folder):
    str(check_of(folder))
    return load_sae(folder).layer


def reranker(folder):
    card = {"kind": "reranker", "form": {"cues": ["count"], "states": None, "l2": 0.1, "pool": False},
            "same": describe(same_text), "embedder": None}  # fmt: skip
    Reranker(Form(("count",)), np.array([1.5]), np.zeros(0, np.float32), card).save(folder)


def read_reranker(folder):
    found = Reranker.load(folder)
    return found.cue_C.tobytes(), found.state_D.tobytes()


def router(folder):
    weights = {k: np.ones(s, np.float32) for k, s in {"W": (3, 2), "b": 2, "x_mean": 3, "x_scale": 3}.items()}
    RewardRouter(("a", "b"), "linear", weights, Toy(), {"width": 3, "encoder": Toy().card}).save(folder)


class Toy:
    @property
    def card(self):
        return {"kind": "hashed n-grams"}

    def embed_prompts(self, prompts):
        return np.ones((len(prompts), 3), np.float32)


def read_router(folder):
    encoder_of(str(folder), None)
    found = load_router(folder, Toy())
    return {k: v.tobytes() for k, v in found.weights.items()}


def pairs(folder):
    row = {"prompt_id": "p", "chosen_key": ["m", 0, 1], "rejected_key": ["m", 0, 2], "margin": 0.5, "confidence": 0.6,
           "logprob": None, "mean_logprob": -1.5}  # fmt: skip
    write_jsonl(folder / "pairs.jsonl", [row, row, {"counts": {"made": 2}, "groups": "abc"}])


def texts(folder):
    (folder / "task.json").write_text(
        json.dumps({"out": str(folder), "sample": {"train_n": 4}, "embed": {"layers": [3]}})
    )
    (folder / "pool.toml").write_text('out = "p"\nmax_tokens = 4\n[[models]]\nname = "lm"\nstop = ["x"]\n')
    write_jsonl(folder / "tags.jsonl", [{"text": "q", "tags": ["maths", "easy"]}, {"text": "é", "tags": []}])
    rows = [{"prompt_id": str(i), "prompt": f"Q{i}?", "model": m, "reward": 0.5} for i in range(3) for m in "ab"]
    write_jsonl(folder / "table.jsonl", rows)


def read_texts(folder):
    found = []
    for read in (
        lambda: load_task(None, {"out": str(folder)}), lambda: read_sections(PoolTask, folder / "pool.toml"),
        lambda: load_task(folder / "pool.toml"), lambda: _cached(folder / "tags.jsonl"),
        lambda: load_matrix(folder / "table.jsonl").models,
    ):  # fmt: skip
        try:
            found.append(read())
        except TrimtabError as e:
            found.append(e)
    return None


KINDS = {
    "store": (store, read_store, True),
    "probe": (
        lambda f: Probe(((np.ones((1, 3), np.float32), np.zeros(1, np.float32)),), {"embedder": EMBEDDER}).save(f),
        lambda f: [a.tobytes() for layer in Probe.load(f).layers for a in layer], True,
    ),
    "pairwise": (
        lambda f: PairwiseProbe({"linear_D": np.ones(3), "mean_D": np.ones(3)}, {"embedder": EMBEDDER}).save(f),
        lambda f: PairwiseProbe.load(f).weights_hash, True,
    ),
    "reranker": (reranker, read_reranker, True),
    "router": (router, read_router, True),
    "sae": (sae, read_sae, False),
    "policy": (policy, read_policy, False),
    "model": (model, read_model, False),
    "west-of-n": (pairs, lambda f: _rows(f / "pairs.jsonl"), False),
    "texts": (texts, read_texts, False),
}  # fmt: skip
ODD = [None, True, False, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "a" * 3000, [], [[]], [0],
       ["x"], {}, {"x": 1}, {"settings": 3}]  # fmt: skip


@functools.lru_cache
def made(kind):
    """The whole folder of a kind, and what is read from it."""
    folder = Path(tempfile.mkdtemp()) / "whole" / kind
    folder.mkdir(parents=True)
    KINDS[kind][0](folder)
    shutil.copytree(folder.parent, folder.parent.parent / "seen")  # reading may write
    return folder, KINDS[kind][1](folder.parent.parent / "seen" / kind)


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def edited(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is KeyError and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = edited(copy[path[0]], path[1:], new)
    return copy


def hurt(file, how, rng):
    data = file.read_bytes()
    if how == "edit" and file.suffix in (".json", ".jsonl"):
        lines = data.decode().splitlines() if file.suffix == ".jsonl" else [data.decode()]
        at = rng.randrange(len(lines))
        value = json.loads(lines[at])
        path = rng.choice(list(places(value)))
        new = rng.choice([*ODD, KeyError]) if path else rng.choice(ODD)
        lines[at] = json.dumps(edited(value, path, new))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif how == "cut":
        file.write_bytes(data[: rng.randrange(len(data))] if data else b"")
    elif how == "lose":
        file.unlink()
    elif data:
        for _ in range(rng.choice([1, 1, 5])):
            at = rng.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        file.write_bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@given(how=st.sampled_from(["edit", "edit", "flip", "cut", "lose"]), seed=st.integers(0, 2**32))
@settings(max_examples=1500 if SOAK else 30)
def test_a_damaged_file_is_an_error_of_ours_or_the_right_values(kind, how, seed):
    whole, wanted = made(kind)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        above = Path(temporary) / "copy"
        shutil.copytree(whole.parent, above)
        folder = above / kind
        file = rng.choice(sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")))
        hurt(file, how, rng)
        try:
            found = KINDS[kind][1](folder)
        except TrimtabError as e:
            assert str(e).strip()
            return
        if KINDS[kind][2] and file.suffix in (".parquet", ".safetensors") and file.exists():
            assert found == wanted, (file.name, how)
