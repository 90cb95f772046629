"""Every form of SAE file is read to the hand-worked features, or refused in words that name what is not known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trimtab.errors import InputError, ModelError
from trimtab.learners.feature.changes import mean_features
from trimtab.learners.feature.check import check_sae
from trimtab.learners.feature.leash import FeatureLeash
from trimtab.learners.feature.sae import SAE, layer_of, load_sae
from trimtab.learners.feature.sae_files import ARCHITECTURES
from trimtab.learners.feature.states import hidden_rows, token_rows

from .conftest import make_sae

D, F = 6, 10
RNG = torch.Generator().manual_seed(11)
W_ENC, W_DEC = torch.randn(D, F, generator=RNG), torch.randn(F, D, generator=RNG)
B_ENC, B_DEC = torch.randn(F, generator=RNG) / 4, torch.randn(D, generator=RNG)
HIDDEN = torch.randn(9, D, generator=RNG) * 2
PLAIN = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
CFG = {"architecture": "standard", "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": True,
       "normalize_activations": "none",
       "metadata": {"model_name": "m", "hook_name": "blocks.3.hook_resid_post"}}  # fmt: skip


def saelens(folder, cfg=None, weights=None, **change):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps({**(cfg or CFG), **change}))
    save_file({k: v.contiguous() for k, v in {**PLAIN, **(weights or {})}.items()}, folder / "sae_weights.safetensors")
    return folder


def acts(act, centered=True):
    return act((HIDDEN - B_DEC if centered else HIDDEN) @ W_ENC + B_ENC)


def topk(k):
    return lambda z: torch.zeros_like(z).scatter(-1, z.topk(k).indices, z.topk(k).values.relu())


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.24.hook_resid_post", 25), ("blocks.24.hook_resid_pre", 24), ("blocks.0.hook_resid_pre", 0),
        ("blocks.7.hook_out", 8), ("blocks.7.hook_in", 7), ("model.layers.24", 25), ("model.layers.24.output", 25),
        ("model.language_model.layers.3.output.0", 4), ("model.layers.9.input", 9), ("transformer.h.5", 6),
        ("gpt_neox.layers.2", 3), ("layers.5", 6), ("h.0", 1), ("resid_post_layer_11", 12), ("resid_pre_layer_11", 11),
        ("blocks.24.hook_mlp_out", None), ("blocks.8.attn.hook_z", None), ("layers.5.mlp", None), ("hook_embed", None),
        ("blocks.4.hook_resid_mid", None), ("model.layers.2.post_feedforward_layernorm.output", None), ("", None),
        ("model.layers.12.self_attn.o_proj.input", None), ("encoder.block.3", None),
    ],
)  # fmt: skip
def test_layers_of_hooks(hook, layer):
    assert layer_of(hook) == ((layer, "residual") if layer is not None else (None, hook))


@pytest.mark.parametrize(
    ("cfg", "want"),
    [
        ({"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "activation_fn_str": "relu"}, ("relu", 8)),
        ({"hook_name": "blocks.8.hook_resid_post", "hook_layer": 8, "activation_fn": "relu"}, ("relu", 9)),
        ({"hook_name": "blocks.1.hook_resid_post", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}},
         ("topk", 2)),
        ({"architecture": "topk", "k": 4, "metadata": {"hook_name": "model.layers.1.output"}}, ("topk", 2)),
        ({"architecture": "topk", "k": 4.0, "normalize_activations": None, "metadata": {"hf_hook_name": "h.1"}},
         ("topk", 2)),
        ({"normalize_activations": False, "hook_name": "blocks.0.hook_resid_pre"}, ("relu", 0)),
        ({"dtype": "torch.bfloat16"}, ("relu", None)),
    ],
)  # fmt: skip
def test_saelens_of_every_version(tmp_path, cfg, want):
    got = load_sae(saelens(tmp_path, {"model_name": "gpt2-small", "d_in": D, "d_sae": F, **cfg}))
    assert (got.kind, got.layer) == want
    torch.testing.assert_close(got.encode(HIDDEN), acts(topk(4) if got.kind == "topk" else torch.relu))


def test_the_encoder_alone_may_see_the_raw_input(tmp_path):
    got = load_sae(saelens(tmp_path, apply_b_dec_to_input=False))
    torch.testing.assert_close(got.encode(HIDDEN), acts(torch.relu, centered=False))
    assert load_sae(tmp_path / "cfg.json").fingerprint == got.fingerprint, "a file in the folder will do"


@pytest.mark.parametrize("name", ["threshold", "log_threshold", "topk_threshold"])
def test_thresholds_under_their_names(tmp_path, name):
    value = torch.rand(F, generator=torch.Generator().manual_seed(1)) if name != "topk_threshold" else torch.tensor(0.7)
    architecture = "matryoshka_batchtopk" if name == "topk_threshold" else "jumprelu"
    stored = value.log() if name == "log_threshold" else value
    got = load_sae(saelens(tmp_path, weights={name: stored}, architecture=architecture, k=3))
    torch.testing.assert_close(got.encode(HIDDEN), acts(lambda z: torch.where(z > value, z, 0.0).relu()))


def test_a_scale_is_folded_where_it_is_known(tmp_path):
    folder = saelens(tmp_path, normalize_activations="expected_average_only_in")
    with pytest.raises(ModelError, match=r"expected_average_only_in.*norm_scale"):
        load_sae(folder)
    want = ((HIDDEN * 0.25 - B_DEC) @ W_ENC + B_ENC).relu()
    given = load_sae(folder, norm_scale=0.25)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    for got in (given, load_sae(folder)):
        torch.testing.assert_close(got.encode(HIDDEN), want)
        torch.testing.assert_close(got.decode(want), (want @ W_DEC + B_DEC) / 0.25)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": None}))
    with pytest.raises(ModelError, match="lack the scale"):
        load_sae(folder)


def test_a_finetuning_scale_multiplies_before_the_decoder(tmp_path):
    tuned = torch.linspace(0.5, 2, F)
    got = load_sae(saelens(tmp_path, weights={"finetuning_scaling_factor": tuned}, finetuning_scaling_factor=True))
    want = acts(torch.relu)
    torch.testing.assert_close(got.encode(HIDDEN), want)
    torch.testing.assert_close(got.decode(want), (want * tuned) @ W_DEC + B_DEC)
    assert load_sae(saelens(tmp_path / "ones", weights={"scaling_factor": torch.ones(F)})).kind == "relu"


@pytest.mark.parametrize(
    ("change", "weights", "message"),
    [
        ({"activation_fn": "tanh-relu"}, {}, "'tanh-relu' is not read"),
        ({"activation_fn_str": "leaky_relu"}, {}, "'leaky_relu' is not read"),
        ({"activation_fn_str": "topk"}, {}, "whole number k"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2, "postact_fn": "identity"}}, {}, "postact_fn"),
        ({"architecture": "topk", "k": 11}, {}, "k is 11, with 10 features"),
        ({"architecture": "topk", "k": "many"}, {}, "whole number k"),
        ({"architecture": "gated"}, {}, "'gated' is not read"),
        ({"architecture": "crosscoder"}, {}, "'crosscoder' is not read"),
        ({"architecture": "temporal"}, {}, "'temporal' is not read"),
        ({"architecture": "jumprelu_transcoder"}, {}, "'jumprelu_transcoder' is not read"),
        ({"architecture": "jumprelu"}, {}, "no tensor 'threshold'"),
        ({"architecture": "batchtopk", "k": 3}, {}, "no tensor 'threshold'"),
        ({"normalize_activations": True}, {}, "expected_average_only_in"),
        ({"normalize_activations": "covariance_whitening"}, {}, "'covariance_whitening' is not read"),
        ({"normalize_activations": "rms"}, {}, "'rms' is not read"),
        ({"reshape_activations": "hook_z"}, {}, "'hook_z' is not read"),
        ({"dtype": "float8_e4m3"}, {}, "'float8_e4m3' is not read"),
        ({"apply_b_dec_to_input": "sometimes"}, {}, "neither true nor false"),
        ({"finetuning_scaling_factor": True}, {}, "no such tensor"),
        ({}, {"scaling_factor": torch.full((F,), 2.0)}, "finetuning scale"),
        ({}, {"W_skip": torch.zeros(D, D)}, "W_skip are not read"),
        ({}, {"W_enc": W_ENC.T}, r"W_enc is \(10, 6\), not \(6, 10\)"),
        ({}, {"W_dec": W_DEC[:9]}, r"W_dec is \(9, 6\)"),
        ({"d_in": 7}, {}, "7 inputs"),
        ({"d_sae": 12}, {}, "12 features"),
        ({}, {"b_enc": B_ENC.clone().index_fill_(0, torch.tensor([2]), float("nan"))}, "b_enc holds NaN"),
        ({}, {"W_dec": W_DEC.to(torch.int8)}, "int8"),
        ({"metadata": {"hook_name": "blocks.3.hook_mlp_out"}}, {}, "blocks.3.hook_mlp_out"),
        ({"metadata": {"hook_name": "blocks.3.attn.hook_z"}}, {}, "attn.hook_z"),
        ({"metadata": {"hook_name": "my.own.module"}}, {}, "pass load_sae"),
        ({"metadata": {"hook_name": "blocks.3.hook_resid_post", "hook_head_index": 2}}, {}, "attention head"),
        ({"metadata": {"hook_name": "blocks.3.hook_resid_post", "hook_layer": 4}}, {}, "block 4"),
        ({"metadata": {"hook_name": "blocks.3.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}}, {}, "no SAE"),
    ],
)
def test_an_unknown_word_is_refused_by_name(tmp_path, change, weights, message):
    with pytest.raises(ModelError, match=message):
        load_sae(saelens(tmp_path, weights=weights, **change))


@pytest.mark.parametrize("layer", [0, 1, 24, None])
def test_a_saved_layer_is_read_again(tmp_path, layer):
    assert load_sae(replace(make_sae(), layer=layer).save(tmp_path)).layer == layer


def test_every_architecture_is_tried_above():
    assert set(ARCHITECTURES) == {"standard", "jumprelu", "jump_relu", "topk", "batchtopk", "matryoshka_batchtopk"}


def test_layers_asked_and_hooks_replaced(tmp_path):
    folder = saelens(tmp_path / "named")
    with pytest.raises(ModelError, match="say layer 4"):
        load_sae(folder, layer=3)
    assert load_sae(folder, layer=4).layer == 4
    odd = saelens(tmp_path / "odd", metadata={"hook_name": "backbone.stage3"})
    assert load_sae(odd, hook="blocks.3.hook_resid_post").layer == 4
    bare = saelens(tmp_path / "bare", metadata={})
    assert (load_sae(bare).layer, load_sae(bare, layer=9).layer) == (None, 9)
    with pytest.raises(InputError, match="device 'banana'"):
        load_sae(folder, device="banana")


THRESHOLD = torch.linspace(0.1, 1, F)


def jump(z):
    return torch.where(z > THRESHOLD, z, 0.0).relu()


@pytest.mark.parametrize(
    ("folders", "want"),
    [
        ("gemma-scope-2b-pt-res/layer_24/width_16k/average_l0_55", (25, "google/gemma-2-2b", 55)),
        ("gemma-scope-9b-it-res-canonical/layer_9/width_16k/canonical", (10, "google/gemma-2-9b-it", None)),
        ("layer_0/width_16k/average_l0_7", (1, "", 7)),
        ("somewhere", (None, "", None)),
        ("gemma-scope-2b-pt-mlp/layer_24/width_16k/average_l0_55", "layers.24.mlp_out"),
        ("gemma-scope-2b-pt-att/layer_2/width_16k/average_l0_55", "layers.2.attn_out"),
        ("gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_5", "transcoders"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embedding"),
    ],
)
def test_gemma_scope_is_named_by_its_folders(tmp_path, folders, want):
    folder = tmp_path / folders
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", threshold=THRESHOLD, **PLAIN)
    for path in (folder, folder / "params.npz"):
        if isinstance(want, str):
            with pytest.raises(ModelError, match=want):
                load_sae(path)
            continue
        got = load_sae(path)
        assert (got.layer, got.model, got.card.get("l0")) == want
        torch.testing.assert_close(got.encode(HIDDEN), acts(jump, centered=False))


@pytest.mark.parametrize(
    ("folders", "config", "want"),
    [
        ("resid_post/layer_12_width_16k_l0_medium", {"l0": 60}, (13, "google/gemma-3-1b-it")),
        ("resid_post/layer_12_width_16k_l0_medium", None, (13, "")),
        ("anywhere", {}, (13, "google/gemma-3-1b-it")),
        ("x", {"hf_hook_point_in": "model.layers.12.post_feedforward_layernorm.output"}, "post_feedforward"),
        ("x", {"hf_hook_point_out": "model.layers.13.output"}, "no SAE"),
        ("x", {"type": "transcoder"}, "transcoder"),
        ("x", {"type": "crosscoder"}, "crosscoder"),
        ("x", {"affine_connection": True}, "affine"),
        ("x", {"architecture": "topk"}, "whole number k"),
        ("x", {"width": 12}, "12 features"),
        ("transcoder_all/layer_12_width_16k_l0_big", None, "transcoder"),
        ("mlp_out/layer_12_width_16k_l0_big", None, "mlp_out"),
    ],
)
def test_gemma_scope_2(tmp_path, folders, config, want):
    folder = tmp_path / folders
    folder.mkdir(parents=True)
    weights = {k.replace("W_", "w_"): v for k, v in PLAIN.items()} | {"threshold": THRESHOLD}
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "params.safetensors")
    if config is not None:
        hook = "model.layers.12.output"
        base = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-it", "hf_hook_point_in": hook,
                "hf_hook_point_out": hook, "width": F, "type": "sae"}  # fmt: skip
        (folder / "config.json").write_text(json.dumps({**base, **config}))
    if isinstance(want, str):
        with pytest.raises(ModelError, match=want):
            load_sae(folder)
        return
    got = load_sae(folder)
    assert (got.layer, got.model) == want
    torch.testing.assert_close(got.encode(HIDDEN), acts(jump, centered=False))


@pytest.mark.parametrize(
    ("name", "change", "want"),
    [
        ("layers.5", {}, 6), ("layers_5", {}, 6), ("copied", {}, None), ("layers.5.mlp", {}, "layers.5.mlp"),
        ("embed_tokens", {}, "embed_tokens"), ("layers.5", {"transcode": True}, "transcode"),
        ("layers.5", {"skip_connection": True}, "skip_connection"), ("layers.5", {"signed": True}, "signed"),
        ("layers.5", {"activation": "groupmax"}, "'groupmax'"), ("layers.5", {"k": None}, "whole number k"),
    ],
)  # fmt: skip
def test_sparsify(tmp_path, name, change, want):
    folder = tmp_path / name
    folder.mkdir()
    weights = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"k": 3, "d_in": D, "num_latents": F, "activation": "topk", **change}))
    if isinstance(want, str):
        with pytest.raises(ModelError, match=want):
            load_sae(folder)
        return
    got = load_sae(folder)
    assert got.layer == want
    torch.testing.assert_close(got.encode(HIDDEN), acts(topk(3)))


def test_pickles_and_other_files_are_refused_with_a_way_out(tmp_path):
    for name in ("ae.pt", "layer0.sae.pt", "sae.pth"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(b"PK")
        for path in (folder, folder / name):
            with pytest.raises(ModelError, match=r"pickle.*SAE\(W_enc"):
                load_sae(path)
    with pytest.raises(ModelError, match="no such file or folder"):
        load_sae(tmp_path / "gemma-scope")
    (tmp_path / "hyperparams.json").write_text("{}")
    with pytest.raises(ModelError, match="Llama Scope"):
        load_sae(tmp_path)
    saelens(tmp_path / "many" / "a")
    with pytest.raises(ModelError, match=r"1 below it, such as .*a: name one"):
        load_sae(tmp_path / "many")
    (tmp_path / "many" / "a" / "cfg.json").write_text("[]")
    with pytest.raises(ModelError, match="not an object"):
        load_sae(tmp_path / "many" / "a")


TEXTS = ["".join(np.random.default_rng(i).choice(list("abcdefgh "), 40)) for i in range(20)]


def fitted(lm, treat) -> SAE:
    """A dictionary of layer 2's states after `treat`, with a threshold that is in their unit."""
    states = torch.cat([s[2] for s in hidden_rows(lm, token_rows(lm.tokenizer, TEXTS), [2])])
    seen = treat(states)
    mean = seen.mean(0)
    axes = torch.linalg.svd(seen - mean, full_matrices=False).Vh[:14].T
    threshold = torch.full((28,), 0.3 * float(((seen - mean) @ axes).abs().mean()))
    return SAE(torch.cat([axes, -axes], 1), torch.zeros(28), torch.cat([axes.T, -axes.T]), mean, "jumprelu",
               threshold_F=threshold, layer=2)  # fmt: skip


def test_an_unfolded_normalisation_is_named(lm):
    def unit(h):
        return h * (32**0.5 / h.norm(dim=-1).mean())

    def layer(h):
        return (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True)

    for treat, name in ((unit, "activations scaled by"), (layer, "normalised by layer_norm")):
        found = check_sae(fitted(lm, treat), lm, TEXTS)
        assert any(name in t and "unfolded" in t for t in (*found.problems, *found.warnings)), name
    right = check_sae(fitted(lm, lambda h: h), lm, TEXTS)
    assert not any("unfolded" in t for t in (*right.problems, *right.warnings))
    told = check_sae(replace(fitted(lm, layer), norm="layer_norm"), lm, TEXTS)
    assert not any("unfolded" in t for t in (*told.problems, *told.warnings))
    assert "FVU if activations scaled by" in str(right)


def test_another_architecture_and_site_are_refused(lm):
    other = replace(make_sae(), model="google/gemma-2-2b")
    assert any("architecture is llama" in p for p in check_sae(other, lm, TEXTS[:2]).problems)
    with pytest.raises(ModelError, match="gemma-2-2b"):
        FeatureLeash(other).on(lm.model)
    for fits in ("meta-llama/Llama-3.1-8B", "google/gemma-2b", "my/own", ""):
        FeatureLeash(replace(make_sae(), model=fits)).on(lm.model)
    with pytest.raises(InputError, match="hook_mlp_out"):
        mean_features(lm, replace(make_sae(), site="blocks.1.hook_mlp_out"), TEXTS[:2])
    with pytest.raises(InputError, match="hook_mlp_out"):
        _ = FeatureLeash(replace(make_sae(), site="blocks.1.hook_mlp_out")).dictionary
    warned = check_sae(replace(make_sae(), card={"model_kwargs": {"center_writing_weights": True}}), lm, TEXTS[:2])
    assert any("center_writing_weights" in w for w in warned.warnings)
