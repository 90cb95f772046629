"""States are the blocks' own outputs, the same as one plain forward pass a completion gives, at the right token."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from trimtab.embeddings.hidden_states import HiddenStates
from trimtab.errors import InputError, ModelError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.forward import blocks_of, forest_states
from trimtab.lm.load import LM, load_lm
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_lm(str(tiny_lm(tmp_path_factory.mktemp("lm"), context=256)), "float32")


def completions(*texts, finish="stop"):
    return tuple(Completion(t, "m@0", i, i, finish) for i, t in enumerate(texts))


GROUPS = [
    Group(prompt("1 + 1 ="), completions("2", "two", "2", "It is 2.", "")),
    Group(prompt("A much longer question about nothing?"), completions("yes", "no, never")),
    Group(prompt("3"), completions("3 3 3")),
]


def plain(lm, group, completion):
    """Every hidden state of one plain forward pass, and how many of its tokens are the prompt."""
    start = encode_prompt(lm.tokenizer, group.prompt)
    ids = start + encode_completion(lm.tokenizer, completion)
    with torch.no_grad():
        out = lm.model(torch.tensor([ids]), output_hidden_states=True)
    return [h[0].numpy() for h in out.hidden_states], len(start)


def test_same_vectors_as_a_plain_pass(lm):
    states = HiddenStates(lm, layers=(0, 1, 2)).states(GROUPS)
    for group, got in zip(GROUPS, states, strict=True):
        for n, c in enumerate(group.completions):
            hidden, start = plain(lm, group, c)
            for layer in (0, 1, 2):  # of three blocks: below the top, hidden_states[L] is the block's output
                np.testing.assert_allclose(got[f"layer{layer}.last"][n], hidden[layer][-1], rtol=1e-4, atol=1e-4)
                mean = hidden[layer][start:].mean(0)
                np.testing.assert_allclose(got[f"layer{layer}.mean"][n], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"batch_tokens": 1}, {"batch_tokens": 40}, {"shared": False}])
def test_packing_changes_nothing(lm, options):
    want = HiddenStates(lm, layers=(1, 3)).states(GROUPS)
    got = HiddenStates(lm, layers=(1, 3), **options).states(GROUPS)
    for a, b in zip(want, got, strict=True):
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-4)


def test_layer_is_the_block_output_and_not_the_normed_state(lm):
    group = GROUPS[2]
    seen = []
    hook = blocks_of(lm.model)[2].register_forward_hook(
        lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    hidden, _ = plain(lm, group, group.completions[0])
    hook.remove()
    (got,) = HiddenStates(lm, layers=(3,))([group])
    np.testing.assert_allclose(got[0], seen[0][0, -1].numpy(), rtol=1e-4, atol=1e-4)
    assert np.abs(got[0] - hidden[-1][-1]).max() > 0.1  # hidden_states[-1] is after the final norm


def test_nothing_above_the_highest_layer_runs(lm):
    HiddenStates(lm, layers=(2, 1))(GROUPS)  # transformers installs hooks of its own on the first pass
    ran = []
    before = [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in blocks_of(lm.model)]
    parts = [*blocks_of(lm.model), lm.model.model.norm, lm.model.lm_head]
    hooks = [m.register_forward_hook(lambda m, a, o, i=i: ran.append(i)) for i, m in enumerate(parts)]
    HiddenStates(lm, layers=(2, 1))(GROUPS)
    for hook in hooks:
        hook.remove()
    assert set(ran) == {0, 1}
    assert [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in blocks_of(lm.model)] == before  # ours are gone


def test_end_token_and_empty_completion(lm):
    tok = lm.tokenizer
    ids = tuple(encode_completion(tok, Completion("2", "m", 0, 0, "length")))
    tokens = [ids, (*ids, tok.eos_token_id), ()]
    given = tuple(Completion("2" if t else "", "m", i, i, tokens=t) for i, t in enumerate(tokens))
    (cut, ended, empty), (as_text_cut,), (as_text,) = HiddenStates(lm, layers=(2,))(
        [Group(GROUPS[0].prompt, given), Group(GROUPS[0].prompt, completions("2", finish="length")),
         Group(GROUPS[0].prompt, completions("2"))]
    )  # fmt: skip
    np.testing.assert_allclose(cut, as_text_cut, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ended, as_text, rtol=1e-4, atol=1e-4)
    assert np.abs(cut - ended).max() > 0.1
    both = HiddenStates(lm, layers=(2,)).states([Group(GROUPS[0].prompt, given[2:])])[0]
    hidden, start = plain(lm, GROUPS[0], given[2])
    for pooling in ("last", "text", "mean"):
        np.testing.assert_allclose(both[f"layer2.{pooling}"][0], hidden[2][start - 1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both["layer2.last"][0], empty, rtol=1e-4, atol=1e-4)


def test_text_pooling_is_the_token_before_the_end_token(lm):
    tok, (group,) = lm.tokenizer, GROUPS[2:]
    ids = tuple(encode_completion(tok, Completion("3 3", "m", 0, 0, "length")))
    given = [(*ids, tok.eos_token_id), ids, (tok.eos_token_id,)]
    cs = tuple(Completion("", "m", i, i, tokens=t) for i, t in enumerate(given))
    (got,) = HiddenStates(lm, layers=(2,), pooling="text")([Group(group.prompt, cs)])
    hidden, start = plain(lm, group, cs[1])
    np.testing.assert_allclose(got[0], hidden[2][-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1], hidden[2][-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[2], hidden[2][start - 1], rtol=1e-4, atol=1e-4)  # nothing but the end token


def test_concatenation_in_the_order_given_and_card(lm):
    embed = HiddenStates(lm, layers=(3, 1), pooling="mean")
    assert embed.keys == ("layer3.mean", "layer1.mean")
    states = embed.states(GROUPS)
    for s, v in zip(states, embed(GROUPS), strict=True):
        assert v.dtype == np.float32
        np.testing.assert_array_equal(v, np.concatenate([s["layer3.mean"], s["layer1.mean"]], axis=1))
    assert embed([]) == []
    by_name = HiddenStates(lm.name, layers=(3, 1), pooling="mean", dtype="float32")
    assert by_name.card == embed.card
    assert {k: embed.card[k] for k in ("layers", "pooling", "dtype")} == {
        "layers": [3, 1], "pooling": "mean", "dtype": "float32",
    }  # fmt: skip
    np.testing.assert_array_equal(by_name(GROUPS)[0], embed(GROUPS)[0])


def test_too_long_is_refused_and_counted(lm):
    long = Group(prompt("q"), completions("x" * 300, "short", "y" * 299))
    with pytest.raises(InputError, match=r"2 of 4 completions exceed .* 256 tokens .* prompt 'q' completion 0 \(305"):
        HiddenStates(lm, layers=(1,))([GROUPS[2], long])


def test_bad_layers_and_pooling(lm):
    for layers in ((), (1, 1), (-1,)):
        with pytest.raises(InputError, match="different numbers from 0"):
            HiddenStates(lm, layers=layers)
    with pytest.raises(InputError, match="layers 0 to 3; layer 4"):
        HiddenStates(lm, layers=(4,))(GROUPS)
    with pytest.raises(InputError, match="did you mean 'last'"):
        HiddenStates(lm, pooling="lst")


def other(config_class, model_class, lm, **changes):
    sizes = {
        "vocab_size": len(lm.tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, **changes,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config_class(**sizes)).eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return LM(model, lm.tokenizer, "other", "0")


def architectures(lm):
    import transformers as t

    yield other(t.Qwen2Config, t.Qwen2ForCausalLM, lm)
    yield other(t.MistralConfig, t.MistralForCausalLM, lm, sliding_window=8)
    yield other(t.Gemma3TextConfig, t.Gemma3ForCausalLM, lm, sliding_window=8, head_dim=8,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"])  # fmt: skip
    yield other(t.GPT2Config, t.GPT2LMHeadModel, lm, n_embd=32, n_layer=3, n_head=4, n_positions=256)


def test_other_architectures_match_their_plain_pass(lm):
    """Sliding windows (shorter than the sequences), learned positions and scaled embeddings included."""
    for model in architectures(lm):
        states = HiddenStates(model, layers=(0, 2)).states(GROUPS)
        for group, got in zip(GROUPS, states, strict=True):
            for n, c in enumerate(group.completions):
                hidden, _ = plain(model, group, c)
                for layer in (0, 2):
                    np.testing.assert_allclose(
                        got[f"layer{layer}.last"][n], hidden[layer][-1], rtol=1e-3, atol=1e-3,
                        err_msg=type(model.model).__name__,
                    )  # fmt: skip


def test_a_model_that_ignores_the_tree_is_refused_and_works_unshared(lm):
    import transformers as t

    config = t.BloomConfig(vocab_size=len(lm.tokenizer), hidden_size=32, n_layer=3, n_head=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bloom = t.BloomForCausalLM(config).eval()
    model = LM(bloom, lm.tokenizer, "bloom", "0")
    with pytest.raises(ModelError, match="pass shared=False"):
        HiddenStates(model, layers=(2,))(GROUPS)
    (got, *_) = HiddenStates(model, layers=(2,), shared=False)(GROUPS)
    hidden, _ = plain(model, GROUPS[0], GROUPS[0].completions[1])
    np.testing.assert_allclose(got[1], hidden[2][-1], rtol=1e-4, atol=1e-4)


def test_forest_states_shapes(lm):
    from trimtab.lm.tree import forests

    (forest,) = forests([[1, 2, 3], [1, 2, 4]], 10)
    states = forest_states(lm, forest, (0, 3))
    assert {k: tuple(v.shape) for k, v in states.items()} == {0: (4, 32), 3: (4, 32)}


def test_importing_embeddings_imports_no_torch():
    code = "import sys, trimtab.embeddings; print('torch' in sys.modules, 'transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
