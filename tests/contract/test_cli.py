"""Every verb, found by walking the app: help, shared flags, our errors for what is not there, and JSON."""

import json
import re
import typing

import pytest
import typer.main
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.cli.limits import FLAGS
from trimtab.errors import InputError, TrimtabError

ROOT = typer.main.get_command(app)


def walk(command, path=()):
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from walk(child, (*path, name))
    if not children or (path and command.params and getattr(command, "invoke_without_command", False)):
        yield path, command


VERBS = dict(walk(ROOT))
NAMES = [" ".join(path) for path in VERBS]
SHARED = {"out": {"--out", "-o"}, "config": {"--config", "-c"}, "device": {"--device"}, "dtype": {"--dtype"},
          "json": {"--json"}, "sets": {"--set"}}  # fmt: skip


def parameters(command):
    return {p.name: p for p in command.params}


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def arguments(command, word):
    """`word` for every argument and option that must be given; a layer is a number."""
    words: list[str] = []
    for p in command.params:
        if p.required:
            value = "1" if p.name == "layer" else word
            several = [value, f"{value}-too"] if p.nargs == -1 else [value]
            words += several if p.param_type_name == "argument" else [p.opts[0], value]
    return words


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_help_names_every_option_and_what_it_is(path):
    result = run(*path, "--help")
    assert result.exit_code == 0 and "Usage:" in result.output
    assert VERBS[path].help and len(VERBS[path].help) > 20, "a verb says what it does"


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_shared_flags_have_one_spelling(path):
    for name, p in parameters(VERBS[path]).items():
        if name in SHARED:
            assert set(p.opts) >= SHARED[name], f"{path}: {name} is {p.opts}"
        spelled = {o for o in p.opts if o.startswith("-")}
        for shared, opts in SHARED.items():
            assert not (spelled & opts) or name == shared or shared == "sets", f"{path}: {spelled} should be {shared}"


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_every_verb_speaks_json(path):
    assert "json" in parameters(VERBS[path])


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_whatever_loads_a_model_takes_a_device(path):
    given = parameters(VERBS[path])
    local = {"model", "policy", "sae", "dtype"} & given.keys() and path not in NOT_TORCH
    assert not local or "device" in given, f"{path} loads a model and has no --device"


NOT_TORCH = {("router", "eval"), ("fit", "router"), ("export",)}
"""Their --model names columns of a table; export merges where the memory is, on the CPU."""


def test_no_function_has_two_verbs():
    callbacks = [c.callback for c in VERBS.values()]
    assert len(callbacks) == len(set(callbacks))


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_an_unknown_option_is_named_with_exit_code_2(path):
    result = run(*path, *arguments(VERBS[path], "x"), "--no-such-option")
    assert result.exit_code == 2 and "--no-such-option" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("path", VERBS, ids=NAMES)
def test_what_is_not_there_is_our_error(path, tmp_path, monkeypatch):
    """Every required word names nothing that exists: one of our errors, which names it, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    words = arguments(VERBS[path], "nowhere")
    given = parameters(VERBS[path])
    words += ["--out", "nowhere"] if "out" in given and not given["out"].required else []
    if path in FREE:
        pytest.skip(FREE[path])
    result = run(*path, *words)
    assert isinstance(result.exception, TrimtabError), (result.output, result.exception)
    assert any(word in str(result.exception) for word in ("nowhere", "no ", "unknown", "not installed"))
    assert not any(p.name != "nowhere" and not p.name.startswith(".") for p in tmp_path.iterdir())
    assert "Traceback" not in result.output


FREE = {
    ("pool",): "needs several words together: see tests/unit/cli/test_pool.py",
    ("demo",): "needs no word: it begins a run",
    ("models",): "needs no word: it lists",
    ("sandbox", "check"): "needs no word: it tries this machine",
}


@pytest.mark.parametrize("path", [p for p, c in VERBS.items() if "out" in parameters(c) and "where" in parameters(c)])
def test_a_run_directory_is_named_by_itself_or_by_out(path, tmp_path):
    messages = []
    for words in ([tmp_path / "run"], ["--out", tmp_path / "run"]):
        (tmp_path / "run").mkdir(exist_ok=True)
        result = run(*path, *words)
        assert isinstance(result.exception, TrimtabError), result.output
        messages.append(str(result.exception))
    assert messages[0] == messages[1]


def test_models_prints_one_json_object_and_nothing_else():
    result = run("models", "--json")
    assert set(json.loads(result.stdout)) == {"models", "cache"}


def test_the_reference_page_calls_each_verb_once():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
    for name in NAMES:
        assert re.search(rf"^Usage: trimtab {name} \[", page, re.MULTILINE), name
    assert "trimtab trimtab" not in page


def number_options():
    for path, command in VERBS.items():
        hints = typing.get_type_hints(command.callback)
        for p in command.params:
            kinds = {k for k in (int, float) if k in (hints[p.name], *typing.get_args(hints[p.name]))}
            kinds |= {int} if list[int] in typing.get_args(hints[p.name]) else set()
            if kinds and bool not in kinds:
                yield path, p.opts[0], kinds.pop()


NUMBERS = list(number_options())


def test_every_number_has_limits():
    assert len(NUMBERS) > 60
    assert {flag for _, flag, _ in NUMBERS} <= FLAGS.keys()
    flags = {f"{' '.join(path)} {flag}" for path, flag, _ in NUMBERS} | {flag for _, flag, _ in NUMBERS}
    assert flags >= FLAGS.keys()


@pytest.mark.parametrize(("path", "flag", "kind"), NUMBERS, ids=[f"{' '.join(p)} {f}" for p, f, _ in NUMBERS])
def test_a_number_that_no_run_could_honour_is_refused_before_anything_is_done(path, flag, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    limits = FLAGS.get(f"{' '.join(path)} {flag}", FLAGS[flag])
    words = arguments(VERBS[path], "nowhere")
    for value in ("-1", "0", *(("nan", "inf", "-inf") if kind is float else ())):
        if value == "0" and limits.least <= 0 and limits.above < 0:
            continue
        result = run(*path, *words, flag, value)
        assert isinstance(result.exception, InputError), (value, result.output, result.exception)
        assert str(result.exception).startswith(f"{flag} is "), (value, result.exception)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sample", "--set", "eval.draws=0"], "eval.draws is 0"),
        (["sample", "--set", "data.seed=-4"], "data.seed is -4"),
        (["sample", "--set", "model.retries=-1"], "model.retries is -1"),
        (["sample", "--set", "embed.timeout=nan"], "embed.timeout is nan"),
        (["embed", "--layer", "3", "--layer", "-2"], "--layer is -2"),
        (["reward", "judge", "x", "--set", "model.timeout=0"], "model.timeout is 0"),
        (["pool", "--prompts", "p.jsonl", "--model", "m", "--reward", "r", "--max-tokens", "-7"], "--max-tokens is -7"),
    ],
)
def test_numbers_inside_words_are_looked_at_too(words, says):
    result = run(*words)
    assert isinstance(result.exception, InputError) and says in str(result.exception), result.exception


@pytest.mark.parametrize("price", ["a=nan", "a=-2", "a=inf", "a"])
def test_a_price_is_a_finite_number_of_dollars(price):
    from trimtab.cli.router import given_prices

    with pytest.raises(InputError, match="--price"):
        given_prices([price])
