"""What a training left is a model like any other: by every engine, wherever its folder was moved, and exported."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.unit.learners.token.conftest import grouped, make_groups, make_pairs
from trimtab.embeddings import HiddenStates
from trimtab.errors import InputError, ModelError
from trimtab.learners.run import Compute, Lora
from trimtab.learners.token.policy import Policy, load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm import catalog, trained
from trimtab.lm.export import export_model, write_folder, write_gguf
from trimtab.lm.load import load_classifier, load_lm, load_tokenizer
from trimtab.samplers import HF, OpenVINO
from trimtab.testing import tiny_lm
from trimtab.types import SamplingParams

GROUPS = make_groups(4)
TINY = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 128, "pad_token_id": 256, "eos_token_id": 257}  # fmt: skip
GREEDY = SamplingParams(temperature=0, max_tokens=6)


def logprobs(lm) -> np.ndarray:
    return np.concatenate([row for g in Policy(lm).logprobs(GROUPS) for row in g])


def assert_same(a: Path, b: Path) -> None:
    ours, theirs = (logprobs(load_lm(str(f), "float32")) for f in (a, b))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def adapted(base: Path, folder: Path, seed: int = 0, **config) -> Path:
    """A plain peft folder on `base`, with weights that matter."""
    torch.manual_seed(seed)
    auto = AutoModelForSequenceClassification if config.get("task_type") == "SEQ_CLS" else AutoModelForCausalLM
    more = {"num_labels": 1} if auto is AutoModelForSequenceClassification else {}
    settings = {"r": 4, "task_type": "CAUSAL_LM", "target_modules": "all-linear", "init_lora_weights": False, **config}
    model = get_peft_model(auto.from_pretrained(base, dtype=torch.float32, **more), LoraConfig(**settings))
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """base, an adapter of peft's own beside it, and one optimiser step each of a LoRA and of all weights."""
    root = tmp_path_factory.mktemp("home")
    base = tiny_lm(root / "base", layers=2)
    adapted(base, root / "plain")
    common = {"model": str(base), "batch_size": 4, "learning_rate": 1e-2, "dtype": "float32"}
    train_policy(make_pairs(4), out=root / "lora", lora=Lora(rank=4), **grouped(**common))
    train_policy(make_pairs(4), out=root / "full", **grouped(**common))
    return root


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


def rename(config: dict, revision: str | None, name: str = "org/name") -> str:
    return json.dumps(config | {"base_model_name_or_path": name, "revision": revision})


@pytest.mark.parametrize("name", ["plain", "lora", "full"])
def test_every_room_takes_the_folder(home, name):
    folder, base = str(home / name), load_lm(str(home / "base"), "float32")
    lm = load_lm(folder, "float32")
    assert np.abs(logprobs(lm) - logprobs(base)).max() > 1e-2, "it is not the base"
    assert lm.id == f"{folder}@{catalog.revision(folder)}" and lm.revision != base.revision
    ours, theirs = (HF(m, dtype="float32")([g.prompt for g in GROUPS], 1, GREEDY) for m in (folder, str(home / "base")))
    assert [c.model for g in ours for c in g.completions] == [lm.id] * len(GROUPS)
    assert [g.completions[0].logprobs for g in ours] != [g.completions[0].logprobs for g in theirs]
    states, plain = (HiddenStates(m, layers=(2,), dtype="float32")(GROUPS)[0] for m in (folder, str(home / "base")))
    assert np.abs(states - plain).max() > 1e-2
    assert HiddenStates(folder, layers=(2,)).card["revision"] == lm.revision


@pytest.mark.parametrize("name", ["plain", "full"])
def test_openvino_samples_what_torch_does(home, name):
    pytest.importorskip("openvino_genai")
    folder, prompts = str(home / name), [g.prompt for g in GROUPS]
    ours, theirs = OpenVINO(folder, cache_gb=1)(prompts, 1, GREEDY), HF(folder, dtype="float32")(prompts, 1, GREEDY)
    for a, b in zip(ours, theirs, strict=True):
        assert a.completions[0].tokens == b.completions[0].tokens
        np.testing.assert_allclose(a.completions[0].logprobs, b.completions[0].logprobs, atol=5e-3)


@pytest.mark.parametrize("engine", ["hf", "openvino"])
def test_a_folder_trained_again_is_another_model_in_the_same_program(tmp_path, engine):
    if engine == "openvino":
        pytest.importorskip("openvino_genai")
    sampler = (
        HF(str(tmp_path / "lm"), dtype="float32") if engine == "hf" else OpenVINO(str(tmp_path / "lm"), cache_gb=1)
    )
    said = []
    for seed in (0, 1):
        tiny_lm(tmp_path / "lm", layers=1, seed=seed)
        (group,) = sampler([GROUPS[0].prompt], 1, GREEDY)
        said.append((group.completions[0].model, group.completions[0].logprobs))
    assert said[0][0] != said[1][0] and said[0][1] != said[1][1]


def test_peft_itself_agrees_and_a_merged_folder_is_the_adapter(home, tmp_path):
    from peft import PeftModel

    ids = torch.tensor([[1, 2, 3, 4, 5]])
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "base"), str(home / "lora"))
    want = theirs(input_ids=ids).logits
    assert torch.allclose(load_lm(str(home / "lora"), "float32").model(ids).logits, want, atol=1e-4)
    merged = write_folder(str(home / "lora"), tmp_path / "merged")
    assert torch.allclose(load_lm(str(merged), "float32").model(ids).logits, want, atol=1e-4)
    assert load_policy(home / "lora", dtype="float32").policy.lm.revision != catalog.revision(home / "base")


@pytest.mark.parametrize("name", ["plain", "lora"])
def test_a_folder_that_was_moved_finds_its_base_beside_it(home, tmp_path, monkeypatch, name):
    want = logprobs(load_lm(str(home / name), "float32"))
    there = tmp_path / "other machine"
    for part in ("base", name):
        shutil.copytree(home / part, there / part)
    hidden = home.with_name("hidden")
    home.rename(hidden)
    try:
        assert np.array_equal(logprobs(load_lm(str(there / name), "float32")), want)
        monkeypatch.chdir(there)
        assert np.array_equal(logprobs(load_lm(name, "float32")), want)
        if name == "lora":
            assert load_policy(there / name, dtype="float32").reference.lm.name == str(there / "base")
            tiny_lm(there / "base", layers=2, seed=9)
            with pytest.raises(ModelError, match=r"was trained on .*base@[0-9a-f]{12}, but .* is now"):
                load_lm(str(there / name))
        shutil.rmtree(there / "base")
        with pytest.raises(ModelError, match="which is not here: put its folder beside this one"):
            load_lm(str(there / name))
    finally:
        hidden.rename(home)


def test_an_adapter_names_its_base_so_that_it_travels(home, tmp_path, monkeypatch):
    config = json.loads((home / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(home / "base")
    assert config["revision"] == catalog.revision(home / "base")
    entry = catalog.CATALOG["smollm2-135m"]
    assert trained.portable("smollm2-135m", entry.revision) == ("smollm2-135m", entry.revision)
    old = adapted(home / "base", tmp_path / "old")
    config = json.loads((old / "adapter_config.json").read_text())
    cached = f"/home/somebody/.cache/trimtab/models/smollm2-135m-{entry.revision}/torch"
    for named, revision in ((cached, None), ("smollm2-135m", None), ("smollm2-135m", entry.revision)):
        (old / "adapter_config.json").write_text(rename(config, revision, named))
        assert trained.base_of(old) == "smollm2-135m"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    shutil.copytree(home / "base", snapshot)
    monkeypatch.setattr(catalog, "from_hub", lambda repo: snapshot)
    assert trained.portable("org/name", "whatever") == ("org/name", commit)
    for revision in (commit, "main", None):
        (old / "adapter_config.json").write_text(rename(config, revision))
        assert trained.base_of(old) == "org/name"
    (old / "adapter_config.json").write_text(rename(config, "f" * 40))
    with pytest.raises(ModelError, match=f"but org/name is now {commit}"):
        trained.base_of(old)


def test_the_card_tells_what_it_is(home):
    text = (home / "lora" / "README.md").read_text()
    facts = (str(home / "base"), catalog.revision(home / "base"), "dpo", "beta 0.1", "r", "4 examples", "unknown",
             "PeftModel.from_pretrained", "samplers.HF", "trimtab export")  # fmt: skip
    assert all(f in text for f in facts) and "More Information Needed" not in text
    assert json.loads((home / "lora" / "policy.json").read_text())["settings"]["data"] in text
    full = (home / "full" / "README.md").read_text()
    assert "library_name: transformers" in full and "vllm serve FOLDER" in full and "Peft" not in full


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_checkpoints_are_models_and_unfinished_runs_are_not(home, tmp_path, lora):
    run = tmp_path / "run"
    settings = {"model": str(home / "base"), "batch_size": 4, "learning_rate": 1e-2, "dtype": "float32"}
    train_policy(make_pairs(4), out=run, lora=lora, **grouped(**settings))
    (last,) = (run / "checkpoints").iterdir()
    np.testing.assert_allclose(
        logprobs(load_lm(str(last), "float32")), logprobs(load_lm(str(run), "float32")), atol=1e-4
    )
    with pytest.raises(ModelError, match="holds checkpoints: name one, such as .*checkpoint-1"):
        load_lm(str(run / "checkpoints"))
    card = json.loads((run / "policy.json").read_text())
    (run / "policy.json").write_text(json.dumps(card | {"finished": False}))
    sampled, converted = (lambda f: HF(f)([GROUPS[0].prompt], 1, GREEDY)), (lambda f: catalog.locate(f, "openvino"))
    for load in (load_lm, load_policy, sampled, converted):
        with pytest.raises(ModelError, match="training is not finished"):
            load(str(run))
    assert load_tokenizer(str(last)).eos_token == load_tokenizer(str(home / "base")).eos_token
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (run / file).unlink()
    assert load_tokenizer(str(last)).eos_token == load_tokenizer(str(home / "base")).eos_token


def test_adapters_that_cannot_be_merged_are_refused(home, tmp_path):
    soft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(home / "base"), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=2)
    )
    soft.save_pretrained(tmp_path / "soft")
    with pytest.raises(ModelError, match="PROMPT_TUNING adapter"):
        load_lm(str(tmp_path / "soft"))
    pickled = adapted(home / "base", tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="is a pickle"):
        load_lm(str(pickled))
    (pickled / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_lm(str(pickled))


def test_an_adapter_of_a_reward_model_is_one(home, tmp_path):
    folder = adapted(home / "base", tmp_path / "rm", task_type="SEQ_CLS")
    lm = load_classifier(str(folder), "float32")
    assert lm.model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 1)
    again = load_classifier(str(folder), "float32", seed=5)
    assert torch.equal(lm.model.score.weight, again.model.score.weight), "the head is the adapter's, not drawn"
    with pytest.raises(ModelError, match="take it as a reward model"):
        load_lm(str(folder))


def test_an_exported_folder_is_the_adapter_on_its_base(home, tmp_path):
    out = export_model(str(home / "lora"), tmp_path / "new" / "merged", gguf="f32")
    assert_same(out, home / "lora")
    assert not (out / "adapter_config.json").exists() and AutoTokenizer.from_pretrained(out).chat_template
    text = (out / "README.md").read_text()
    assert "library_name: transformers" in text and "beta 0.1" in text and "llama-server" in text
    half = export_model(str(home / "plain"), tmp_path / "half", "bfloat16")
    assert load_lm(str(half), "float32").model.dtype == torch.float32
    assert AutoModelForCausalLM.from_pretrained(half).dtype == torch.bfloat16
    with pytest.raises(InputError, match="not empty"):
        export_model(str(home / "lora"), out)
    with pytest.raises(InputError, match="q8_0"):
        export_model(str(home / "lora"), tmp_path / "x", gguf="q4")
    assert not (tmp_path / "x").exists()


def test_a_gguf_file_of_ours_reads_back_to_the_same_weights(home, tmp_path):
    """Through transformers' own reader of GGUF, which turns rows and vocabulary back."""
    folder = shutil.copytree(home / "full", tmp_path / "full", ignore=shutil.ignore_patterns("store", "checkpoints"))
    (folder / "policy.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(262, mean_resizing=False)
    model.save_pretrained(folder)
    plain = json.loads((folder / "tokenizer.json").read_text())
    plain["model"]["vocab"]["ab"], plain["model"]["merges"] = 256, [["a", "b"]]
    for token in plain["added_tokens"]:
        token["id"] += 1
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    lm = load_lm(str(write_gguf(str(folder), tmp_path / "model.gguf", "f32")), "float32")
    want = load_lm(str(folder), "float32")
    assert lm.tokenizer("cabab")["input_ids"] == want.tokenizer("cabab")["input_ids"] == [66, 256, 256]
    assert lm.tokenizer.eos_token == "<|end|>" and lm.tokenizer.chat_template == want.tokenizer.chat_template
    for name, value in want.model.state_dict().items():  # our torch form of a GGUF file goes through Q8_0
        assert (lm.model.state_dict()[name] - value).abs().max() < 0.51 / 127 * value.abs().max(), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2Config(vocab_size=261, n_embd=32, n_layer=1, n_head=2), "gpt2 models are not written as GGUF"),
        (LlamaConfig(**TINY, attention_bias=True), "a Llama with biases"),
        (LlamaConfig(**TINY, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "'linear'"),
        (Qwen2Config(**TINY, use_sliding_window=True, sliding_window=8), "sliding window"),
    ],
)
def test_what_cannot_be_a_gguf_file_is_refused(tmp_path, config, message):
    folder = tiny_lm(tmp_path / "lm", layers=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(ModelError, match=f"{message}.*engine hf"):
        write_gguf(str(folder), tmp_path / "x.gguf")


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config])
def test_openvino_reads_other_architectures_of_ours(tmp_path, config):
    pytest.importorskip("openvino_genai")
    folder, prompts = tiny_lm(tmp_path / "lm", layers=1), [g.prompt for g in GROUPS[:2]]
    model = AutoModelForCausalLM.from_config(config(**TINY, tie_word_embeddings=False, head_dim=16))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else torch.nn.init.uniform_(p, 0.5, 1.5)
    model.save_pretrained(folder)
    ours, theirs = (
        s([*prompts], 1, GREEDY) for s in (OpenVINO(str(folder), cache_gb=1), HF(str(folder), dtype="float32"))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.completions[0].tokens == b.completions[0].tokens
        np.testing.assert_allclose(a.completions[0].logprobs, b.completions[0].logprobs, atol=2e-2)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_a_flipped_bit_in_trained_weights_is_refused(home, tmp_path, lora):
    pairs = make_pairs(4)
    out = train_policy(
        pairs, model=str(home / "base"), out=tmp_path / "run", lora=lora, compute=Compute(device="cpu", dtype="float32")
    ).path
    load_policy(out)
    (file,) = out.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ModelError, match=f"{file.name} is not the one that was trained"):
        load_policy(out)
