"""The task file: strict keys, strict types, flags over it, and errors that name the place."""

import pytest

from trimtab.cli.config import load_task
from trimtab.cli.sections import Task
from trimtab.errors import InputError


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "task.toml"
        path.write_text(text)
        return path

    return _write


def test_defaults_and_sections(write, tmp_path):
    task = load_task(write('out = "x"\n[data]\nprompts = "p.jsonl"\ntest = 1\n[embed]\nlayers = [3, 5]\n'))
    assert task.out == "x" and task.embed.layers == [3, 5] and task.probe == Task().probe
    assert task.data.prompts == str(tmp_path / "p.jsonl") and task.data.test == 1.0


def test_flags_lie_over_the_file(write):
    path = write("[sample]\ntrain_n = 4\nseed = 3\n")
    task = load_task(path, {"sample.train_n": 9, "out": None}, ["embed.layers=[1]", "model.name=tiny", "eval.beta=1"])
    assert (task.sample.train_n, task.sample.seed, task.embed.layers) == (9, 3, [1])
    assert task.model.name == "tiny" and task.eval.beta == 1.0 and task.out == Task().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sample]\ntran_n = 4\n", r"task.toml: unknown key 'sample.tran_n'; did you mean 'sample.train_n'\?"),
        ("[smaple]\nn = 4\n", r"unknown key 'smaple'; did you mean 'sample'\?"),
        ('[sample]\ntrain_n = "4"\n', r"sample.train_n must be int, not '4'"),
        ("[sample]\ntrain_n = true\n", r"sample.train_n must be int"),
        ("[embed]\nlayers = [1, 2.5]\n", r"embed.layers\[1\] must be int, not 2.5"),
        ("sample = 3\n", r"\[sample\] is a section"),
        ("[sample\n", "not valid TOML"),
    ],
)
def test_bad_files(write, text, message):
    with pytest.raises(InputError, match=message):
        load_task(write(text))


def test_missing_file_and_bad_set(tmp_path):
    with pytest.raises(InputError, match="no such task file"):
        load_task(tmp_path / "none.toml")
    with pytest.raises(InputError, match="write section.key=value"):
        load_task(None, {}, ["embed.layers"])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("eval.draws", "0", "1 or more"),
        ("reward.workers", "-1", "0 or more"),
        ("reward.timeout_s", "0.0", "more than 0"),
        ("reward.timeout_s", "nan", "a finite number"),
        ("model.timeout", "inf", "a finite number"),
        ("sample.train_n", "0", "1 or more"),
        ("sample.temperature", "-0.1", "0 or more"),
        ("sample.temperature", "nan", "a finite number"),
        ("sample.top_p", "1.5", "at most 1"),
        ("sample.top_p", "0.0", "more than 0"),
        ("sample.max_tokens", "0", "1 or more"),
        ("probe.folds", "1", "2 or more"),
        ("probe.l2", "[0.1, -1.0]", "0 or more"),
        ("embed.layers", "[-1]", "0 or more"),
        ("data.test", "-0.2", "0 or more"),
    ],
)
def test_numbers_that_no_run_could_honour_are_refused(key, value, wanted):
    with pytest.raises(InputError, match=rf"^{key} is .*must be {wanted}"):
        load_task(None, sets=[f"{key}={value}"])


def test_every_limit_is_of_a_key_that_exists():
    import dataclasses

    from trimtab.cli import limits
    from trimtab.cli.sections import Task

    keys = {
        f"{s.name}.{f.name}"
        for s in dataclasses.fields(Task)
        if dataclasses.is_dataclass(s.type)
        for f in dataclasses.fields(s.type)
    }
    from trimtab.cli.sections import Member, PoolTask

    keys |= {f.name for f in dataclasses.fields(PoolTask)} | {f"models.{f.name}" for f in dataclasses.fields(Member)}
    assert limits.KEYS.keys() <= keys
