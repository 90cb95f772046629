"""A process holds a model once, whoever reads it; what no longer fits goes, oldest first; a trainer has its own."""

import gc
import threading
import weakref

import pytest
import torch
import transformers

from trimtab.embeddings import HiddenStates
from trimtab.learners.run import Compute, Optim
from trimtab.learners.token.policy import load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm import load
from trimtab.lm.forward import watched
from trimtab.lm.load import load_lm, release, resident, resident_tokenizer
from trimtab.rewards.choices import PromptReward
from trimtab.rewards.reward_model import RewardModel
from trimtab.samplers import HF
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, Pair, SamplingParams

GROUP = Group(prompt("1 + 1 ="), (Completion("2", "m", 0, 0), Completion("three", "m", 0, 1)))


@pytest.fixture
def loads(monkeypatch):
    """Folders whose weights transformers reads, in order; the cache is empty before and after."""
    read = []

    def counted(plain):
        return lambda folder, **how: (read.append(folder.name), plain(folder, **how))[1]

    for kind in (transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", counted(kind.from_pretrained))
    release()
    yield read
    release()


def test_sampler_embedder_rewards_and_policies_hold_one_copy(tmp_path, loads):
    name = str(tiny_lm(tmp_path / "base"))
    (group,) = HF(name, dtype="float32")([GROUP.prompt], 2, SamplingParams(max_tokens=3))
    embed = HiddenStates(name, layers=(2,), dtype="float32")
    embed([group]), embed.card, PromptReward(name, dtype="float32")([group])
    assert loads == ["base"]
    assert embed.lm().model is HF(name, device="cpu", dtype="float32")._lm.model
    before = {k: v.clone() for k, v in embed.lm().model.state_dict().items()}
    pair = Pair(GROUP.prompt, *GROUP.completions)
    optim, compute = Optim(learning_rate=1e-2), Compute(dtype="float32")
    train_policy([pair] * 2, model=name, out=tmp_path / "run", optim=optim, compute=compute)
    assert all(torch.equal(v, before[k]) for k, v in embed.lm().model.state_dict().items())
    assert not any(p.requires_grad for p in embed.lm().model.parameters())
    loaded = load_policy(tmp_path / "run", dtype="float32")
    assert loaded.reference.lm is embed.lm() and loaded.policy.lm is not embed.lm()
    assert not torch.equal(loaded.policy.lm.model.lm_head.weight, before["lm_head.weight"])
    assert loads == ["base", "base", "run"]  # once for all readers, once for the trainer, and what it made


def test_a_classifier_is_held_once_and_is_not_the_language_model(tmp_path, loads):
    name = str(tmp_path / "rm")
    lm = load.load_classifier(str(tiny_lm(tmp_path / "base")), "float32", new_head=True)
    lm.model.save_pretrained(name), lm.tokenizer.save_pretrained(name)
    loads.clear()
    reward = RewardModel(name, dtype="float32")
    assert reward([GROUP]) == RewardModel(name, dtype="float32", batch_tokens=64)([GROUP])
    assert loads == ["rm"] and resident(name, "float32", classifier=True) is reward.lm()


def test_the_copy_follows_type_name_and_contents(tmp_path, loads, monkeypatch):
    name = str(tiny_lm(tmp_path / "lm", seed=0))
    first = resident(name, "float32")
    assert resident(first, "bfloat16") is first and resident(name, torch.float32, "cpu") is first
    assert resident(name, "bfloat16").model.dtype == torch.bfloat16 and loads == ["lm", "lm"]
    monkeypatch.chdir(tmp_path)
    assert resident("lm", "float32").model is first.model and resident("lm", "float32").name == "lm"
    tokenizer = resident_tokenizer(name)
    assert tokenizer is resident_tokenizer(name) and resident_tokenizer(first) is first.tokenizer
    tiny_lm(tmp_path / "lm", seed=1)
    again = resident(name, "float32")
    assert again.revision != first.revision and len(loads) == 3
    assert [k[1] for k in load._RESIDENT] == ["torch.bfloat16", "torch.float32"]  # the old contents went


def test_what_does_not_fit_is_dropped_the_oldest_first(tmp_path, loads, monkeypatch):
    a, b, c = (str(tiny_lm(tmp_path / n, seed=i)) for i, n in enumerate("abc"))
    size = load_lm(a, "float32").memory_bytes
    monkeypatch.setattr(load, "RESIDENT_SHARE", 2.5 * size / load._memory("cpu"))
    held = {}
    for name in (a, b, a, c):  # b is now the one used longest ago
        HiddenStates(name, layers=(1,), dtype="float32")([GROUP])  # the checks of a model do not keep it
        held[name] = weakref.ref(resident(name, "float32").model)
    gc.collect()
    assert held[b]() is None and held[a]() is not None and held[c]() is not None
    assert loads == ["a", "a", "b", "c"]
    monkeypatch.setattr(load, "RESIDENT_SHARE", 0.0)
    assert resident(b, "float32").id.endswith(resident(b, "float32").revision) and len(loads) == 5  # one always stays


def test_without_memory_the_others_go_and_it_tries_again(tmp_path, loads, monkeypatch):
    a, b = (str(tiny_lm(tmp_path / n)) for n in "ab")
    resident(a, "float32")
    plain, full = transformers.AutoModelForCausalLM.from_pretrained, [True]

    def once(folder, **how):
        if full.pop() if full else False:
            raise torch.OutOfMemoryError("no room")
        return plain(folder, **how)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", once)
    assert resident(b, "float32").name == b and [k[0] for k in load._RESIDENT] == [b]


def test_threads_share_the_copy_and_do_not_see_each_others_forward(tmp_path, loads):
    name, got = str(tiny_lm(tmp_path / "lm")), []
    threads = [threading.Thread(target=lambda: got.append(resident(name, "float32"))) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert loads == ["lm"] and len({id(x.model) for x in got}) == 1
    lm, ids = got[0], torch.tensor([[5, 6, 7]])
    with torch.no_grad(), watched(lm.model, [1]) as seen:
        other = threading.Thread(target=lambda: lm.model(ids[:, :2]))
        other.start(), other.join()
        assert seen == {}
        lm.model(ids)
        assert seen[1].shape[1] == 3
