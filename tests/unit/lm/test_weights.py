"""What a model's files lack, hold too much of, or do not agree on is refused by name; nothing is drawn at random."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from trimtab.errors import ModelError
from trimtab.lm.load import load_classifier, load_lm
from trimtab.lm.weights import not_finite
from trimtab.testing import tiny_lm

MATRIX, NORM = "model.layers.1.mlp.down_proj.weight", "model.norm.weight"


@pytest.fixture
def folder(tmp_path):
    return tiny_lm(tmp_path / "lm", layers=2)


def rewrite(folder, change):
    """Applies `change` to the tensors of a folder and saves them."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, file, metadata={"format": "pt"})


def configure(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def sharded(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors")), folder / "model.safetensors.index.json"


def lost_shard(folder):
    sharded(folder)[0][1].unlink()


def swapped_shards(folder):
    """Two shards of two copies: each whole, with the other's name."""
    files, _ = sharded(folder)
    held = [f.read_bytes() for f in files[:2]]
    files[0].write_bytes(held[1]), files[1].write_bytes(held[0])


def broken_index(folder):
    sharded(folder)[1].write_text('{"weight_map": ')


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:9000])


def untied_without_head(folder):
    configure(folder, tie_word_embeddings=False)


def more_words(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<another pad>"})
    tokenizer.save_pretrained(folder)


def integers(folder):
    rewrite(folder, lambda w: w.update({MATRIX: (w[MATRIX] * 10).to(torch.int8)}))


def float8(folder):
    rewrite(folder, lambda w: w.update({MATRIX: w[MATRIX].to(torch.float8_e4m3fn)}))


BROKEN = {
    "a tensor missing": (lambda f: rewrite(f, lambda w: w.pop(MATRIX)), f"lack {MATRIX}"),
    "a vector missing": (lambda f: rewrite(f, lambda w: w.pop(NORM)), f"lack {NORM}"),
    "an untied head missing": (untied_without_head, r"lack lm_head\.weight"),
    "a layer missing": (lambda f: configure(f, num_hidden_layers=3), r"lack model\.layers\.2\..*and 5 more"),
    "a layer too many": (lambda f: configure(f, num_hidden_layers=1), r"hold model\.layers\.1\..*no place"),
    "a bias too many": (
        lambda f: rewrite(f, lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})),
        r"hold model\.layers\.0\.self_attn\.q_proj\.bias",
    ),
    "an adapter left in": (
        lambda f: rewrite(f, lambda w: w.update({"model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(4, 32)})),
        "hold .*lora_A",
    ),
    "a code's scale": (
        lambda f: rewrite(f, lambda w: w.update({f"{MATRIX}_scale": torch.ones(1)})), "hold .*weight_scale"
    ),
    "other names": (
        lambda f: rewrite(f, lambda w: [w.update({k.replace("model.", "gpt."): w.pop(k)}) for k in list(w)]),
        r"lack .*model\.embed.*hold gpt\.",
    ),
    "another shape": (
        lambda f: rewrite(f, lambda w: w.update({MATRIX: w[MATRIX][:, :60]})),
        rf"do not fit config.json: {MATRIX} is \[32, 60\], the configuration wants \[32, 64\]",
    ),
    "another vocabulary": (lambda f: configure(f, vocab_size=300), r"embed_tokens.weight is \[261, 32\].*\[300, 32\]"),
    "a token without a row": (more_words, "261 token rows.*<another pad>"),
    "NaN": (lambda f: rewrite(f, lambda w: w[MATRIX].view(-1)[7:8].fill_(torch.nan)), f"NaN or infinite: {MATRIX}"),
    "infinity": (lambda f: rewrite(f, lambda w: w[NORM][3:4].fill_(torch.inf)), f"NaN or infinite: {NORM}"),
    "integers": (integers, f"{MATRIX}: weights are quantised"),
    "eight-bit floats": (float8, f"{MATRIX}: weights are quantised"),
    "an unknown quantisation": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}), "cannot load"
    ),
    "a shard lost": (lost_shard, r"the file model-00002-of-\d+\.safetensors named in .*index.json is missing"),
    "shards of two copies": (swapped_shards, "index.json and its files do not fit each other"),
    "an index cut short": (broken_index, "index.json: cannot be read, it is not JSON"),
    "a file cut short": (cut, "model.safetensors: is no whole safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("load", [load_lm, lambda n, d: load_classifier(n, d, new_head=True)], ids=["lm", "classifier"])
def test_a_folder_that_is_no_whole_model_is_refused(folder, name, load, request):
    if name == "an untied head missing" and "classifier" in request.node.callspec.id:
        pytest.skip("a classifier has no such head")
    breaks, says = BROKEN[name]
    breaks(folder)
    with pytest.raises(ModelError, match=says):
        load(str(folder), "float32")


def test_what_may_differ_is_read(folder, caplog):
    """Tied heads, whole shards, another task's head, a vision tower, an unused token beyond the rows."""
    want = load_lm(str(folder), "float32").model.model.norm.weight
    sharded(folder)
    assert torch.equal(load_lm(str(folder), "float32").model.model.norm.weight, want)
    tower = {"vision_tower.layers.0.norm.weight": torch.ones(4), "score.weight": torch.ones(1, 32)}
    file = next(folder.glob("model-00001-of-*"))
    save_file({**load_file(file), **tower}, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    given = json.loads(index.read_text())
    given["weight_map"] |= dict.fromkeys(tower, file.name)
    index.write_text(json.dumps(given))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    with caplog.at_level(logging.WARNING, "trimtab"):
        load_lm(str(folder), "float32")
    assert "tokens beyond them that texts must not hold: <image>" in caplog.text
    assert "left aside: score.weight, vision_tower.layers.0.norm.weight" in caplog.text


def test_a_distinct_head_is_kept_though_the_configuration_ties_it(folder):
    head = torch.arange(261 * 32.0).view(261, 32)
    rewrite(folder, lambda w: w.update({"lm_head.weight": head}))
    assert torch.equal(load_lm(str(folder), "float32").model.lm_head.weight, head)


def test_only_the_head_of_a_new_reward_model_is_drawn(folder):
    with pytest.raises(ModelError, match=r"no reward head \(score.weight"):
        load_classifier(str(folder), "float32")
    a, b = (load_classifier(str(folder), "float32", new_head=True, seed=4).model for _ in range(2))
    assert torch.equal(a.score.weight, b.score.weight)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"score.weight is \[3, 32\], the configuration wants \[1, 32\]"):
        load_classifier(str(folder), "float32", new_head=True)


def test_the_check_of_numbers_reads_each_weight_once():
    """Large weights whose sum overflows are numbers all the same."""
    layer = torch.nn.Linear(64, 64)
    assert not_finite(layer) == []
    with torch.no_grad():
        layer.weight.fill_(3e38)
    assert not_finite(layer) == []
    with torch.no_grad():
        layer.bias[5] = -torch.inf
    assert not_finite(layer) == ["bias"]


def test_a_gguf_file_that_lacks_a_tensor_is_no_model(folder, tmp_path):
    """transformers draws it at random, and the converted folder would show no trace of that."""
    import gguf

    from trimtab.lm.convert import to_torch
    from trimtab.lm.export import write_gguf

    whole, part = write_gguf(str(folder), tmp_path / "whole.gguf", "f16"), tmp_path / "part.gguf"
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        if tensor.name != "blk.1.ffn_up.weight":
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    with pytest.raises(ModelError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        to_torch(part, tmp_path / "broken")
