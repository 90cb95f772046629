import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from trimtab.cli.features import features
from trimtab.cli.train import train
from trimtab.errors import InputError, ModelError
from trimtab.jobs.inputs import texts
from trimtab.learners.feature.sae import SAE
from trimtab.learners.feature.states import hidden_rows, token_rows
from trimtab.lm.load import load_lm
from trimtab.store import Store
from trimtab.testing import prompt, tiny_lm, write_jsonl
from trimtab.types import Completion, Group

app = typer.Typer()
app.command()(train)
app.add_typer(features, name="features")

ROWS = [{"prompt": f"q{i} ", "chosen": f"a{i}aab", "rejected": f"h{i}hgh"} for i in range(8)]


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("cli") / "lm"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    return str(write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", ROWS))


@pytest.fixture(scope="module")
def sae(tmp_path_factory, lm, pairs) -> str:
    """The principal directions of layer 2, both ways round, as a SAELens folder."""
    loaded = load_lm(lm, "float32")
    rows = token_rows(loaded.tokenizer, texts(pairs))
    states = torch.cat([s[2] for s in hidden_rows(loaded, rows, [2])])
    basis = torch.linalg.svd(states - states.mean(0), full_matrices=False).Vh[:16].T
    two = SAE(torch.cat([basis, -basis], 1), torch.zeros(32), torch.cat([basis.T, -basis.T]), states.mean(0), layer=2)
    return str(two.save(tmp_path_factory.mktemp("sae")))


def invoke(*words: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_check_passes_the_right_layer_and_exits_1_on_another(sae, lm, pairs):
    right = invoke("features", "check", sae, "--model", lm, "--data", pairs)
    assert right["problems"] == [] and right["layer"] == 2 and right["fvu"] < 0.5
    wrong = invoke("features", "check", sae, "--model", lm, "--data", pairs, "--layer", 1, code=1)
    assert "say layer 2, not 1" in wrong["problems"][0]


def test_fpo_is_trained_and_what_it_changed_is_shown(sae, lm, pairs, tmp_path):
    options = ["--model", lm, "--lr", 0.01, "--epochs", 3, "--batch-size", 4, "--dtype", "float32"]
    leash = ["--loss", "fpo", "--sae", sae, "--alpha", 2, "--top-k", 5, "--free", 3]
    facts = invoke("train", pairs, *options, *leash, "--out", tmp_path / "run")
    assert facts["last"]["feature/drift_rejected"] > 0
    settings = json.loads((tmp_path / "run" / "policy.json").read_text())["settings"]["leash"]
    assert (settings["alpha"], settings["k"], settings["layer"], settings["free"]) == (2.0, 5, 2, [3])
    page = tmp_path / "f.html"
    found = invoke("features", "diff", lm, tmp_path / "run", "--sae", sae, "--data", pairs, "--out", page, "--top", 4)
    assert len(found["changes"]) == 4 and found["distance"]["mean"] > 0
    assert f"<td>{found['changes'][0]['feature']}</td>" in page.read_text()


def test_a_plan_has_the_sae_and_no_reference(sae, lm, pairs, tmp_path):
    words = ["train", pairs, "--model", lm, "--out", tmp_path / "run", "--loss", "fpo", "--plan"]
    with_sae = CliRunner().invoke(app, [*map(str, words), "--sae", sae]).output
    lines = {line.split()[0]: line.split()[1] for line in with_sae.splitlines() if line.endswith(" MB")}
    assert lines["reference"] == "0" and int(lines["leash"]) > 0
    without = ["ln_dpo" if w == "fpo" else w for w in words]
    assert invoke(*words, "--sae", sae)["plan_bytes"] > invoke(*without)["plan_bytes"]
    with pytest.raises(InputError, match="fpo needs a feature leash"):
        invoke(*words)


def test_an_sae_that_does_not_fit_is_refused_unless_unchecked(lm, pairs, tmp_path):
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(*s, generator=rng) for s in ((32, 20), (20,), (20, 32), (32,))]
    bad = SAE(*noise, layer=2).save(tmp_path / "sae")
    words = ["train", pairs, "--model", lm, "--out", tmp_path / "run", "--loss", "fpo", "--sae", bad, "--lr", 1e-4]
    with pytest.raises(ModelError, match="unexplained"):
        invoke(*words)
    assert invoke(*words, "--unchecked", "--dtype", "float32")["last"]["loss"] > 0


def test_diversity_of_a_run(lm, tmp_path):
    store = Store(tmp_path)
    groups = [
        Group(prompt(f"q{i}"), tuple(Completion(t, "m", j, j) for j, t in enumerate(("a b", "a c")))) for i in range(3)
    ]
    store.add_prompts([g.prompt for g in groups], "test")
    with store.writer("completions/test", {}) as w:
        w.append_groups(groups)
    found = invoke("features", "diversity", tmp_path, "--policy", lm, "--reference", lm, "--dtype", "float32")
    assert found["prompts"] == 3 and found["distinct_1"]["mean"] == 0.75 and found["distinct_2"]["mean"] == 1.0
    assert found["kl"]["mean"] == pytest.approx(0, abs=1e-6) and found["entropy"]["mean"] > 0
    assert "entropy" not in invoke("features", "diversity", tmp_path)
    with pytest.raises(InputError, match="needs --policy"):
        invoke("features", "diversity", tmp_path, "--reference", lm)
    with pytest.raises(InputError, match="unknown completions .other.. Known: test"):
        invoke("features", "diversity", tmp_path, "--split", "other")
