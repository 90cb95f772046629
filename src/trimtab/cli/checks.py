"""What can be known of a task before the first request or forward pass: every fault is found and said at once.

Nothing is sampled, loaded or written here. Models that are not cached yet are not fetched to be looked at.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab.cli.config import Model, Task
from trimtab.errors import InputError, ModelError, TrimtabError, unknown
from trimtab.json_file import read_json
from trimtab.types import Completion, Group, Prompt, SamplingParams

EXTRAS = {
    "torch": "torch", "transformers": "torch", "gguf": "torch", "accelerate": "torch",
    "openvino_genai": "openvino", "peft": "train", "sentence_transformers": "encoders", "reasoning_gym": "tasks",
    "math_verify": "tasks", "sae_lens": "sae", "lm_eval": "ifeval", "langdetect": "ifeval", "plotly": "report",
}  # fmt: skip
"""Packages that are not always installed, and the extra of ours that brings each."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
STAGES = ("sample", "score", "embed", "fit", "eval", "report")
_OF_ENGINE = {"openvino": ("openvino_genai", "transformers"), "hf": ("torch", "transformers")}
_OF_EMBEDDER = {"hidden_states": ("torch", "transformers"), "encoder": ("sentence_transformers",)}


def need(*packages: str) -> None:
    """InputError naming the extra to install when a package is missing."""
    missing = [p for p in packages if not _installed(p)]
    if missing:
        extras = sorted({EXTRAS.get(p, p) for p in missing})
        raise InputError(
            f"{', '.join(missing)} is not installed: pip install 'trimtab[{','.join(extras)}]'"
            if set(missing) <= EXTRAS.keys()
            else f"{', '.join(missing)} is not installed: pip install {' '.join(missing)}"
        )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def writable(out: str | Path) -> None:
    """InputError when the folder `out` cannot be written or made."""
    folder = Path(out).absolute()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir():
        raise InputError(f"{out} cannot be a folder: {there} is a file; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written: no permission in {there}; give another --out")


def writable_file(out: str | Path) -> None:
    """InputError when the file `out` cannot be written: its folder must be there or possible."""
    if Path(out).is_dir():
        raise InputError(f"{out} is a folder; give the file to write")
    writable(Path(out).absolute().parent)


def check_task(task: Task, stages: Sequence[str] = STAGES) -> dict[str, Any]:
    """What a run of these stages would do. InputError with all that stands in its way, one a line."""
    facts: dict[str, Any] = {"out": task.out}
    problems: list[str] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except TrimtabError as e:
            if str(e) not in problems:
                problems.append(str(e))
            return None

    for check in _checks(task, stages, facts, attempt):
        attempt(check)
    refuse(problems)
    return facts


def refuse(problems: Sequence[str]) -> None:
    """InputError with these problems, one a line, if there are any."""
    if len(problems) > 1:
        raise InputError(f"{len(problems)} faults, found before anything was run:\n  " + "\n  ".join(problems))
    if problems:
        raise InputError(problems[0])


def device_and_dtype(device: str | None, dtype: str | None) -> None:
    """InputError for a device that torch does not have here, or a dtype that no model computes in."""
    if dtype and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if not device:
        return
    need("torch")
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as e:
        raise InputError(f"unknown device {device!r}: write cpu, cuda, cuda:1, mps, ...") from e
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: torch sees no CUDA GPU here; leave the device out, or write cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {device!r}: torch has no MPS here; leave the device out, or write cpu")


def _checks(
    task: Task, stages: Sequence[str], facts: dict[str, Any], attempt: Callable[[Callable[[], Any]], Any]
) -> Iterator[Callable[[], Any]]:
    yield lambda: writable(task.out)
    prompts: list[Prompt] = []
    if "sample" in stages:
        yield lambda: prompts.extend(_prompts(task, facts))
        yield lambda: _sampling(task)
        facts |= {"engine": task.model.engine, "model": task.model.name}
        yield lambda: engine(task.model)
    if "score" in stages:
        yield lambda: _reward(task, prompts, facts)
    learns = bool(task.probe.losses)
    if learns and ("embed" in stages or "fit" in stages):
        yield lambda: _losses(task, facts)
    if learns and "embed" in stages:
        yield lambda: _embedder(task, facts)
    if "eval" in stages:
        yield lambda: _comparison(task)
    if "report" in stages:
        yield lambda: need("plotly")
    if "sample" in stages and prompts:  # last: the tokenizer is read
        yield lambda: fit_context(task.model, prompts, task.sample.max_tokens)


def _prompts(task: Task, facts: dict[str, Any]) -> list[Prompt]:
    from trimtab.cli.prompts import read_prompts
    from trimtab.store import Store

    store = Store(task.out)
    if task.data.prompts:
        train, test = read_prompts(task)
    else:
        train, test = (store.prompts(split) for split in ("train", "test"))
        if not train and not test:
            raise InputError(f"{task.out} holds no prompts: give data.prompts (or --prompts), a file or a named task")
    s = task.sample
    facts |= {"train_prompts": len(train), "test_prompts": len(test)}
    facts["completions"] = len(train) * s.train_n + len(test) * (s.test_n + 1)
    return [*train, *test]


def _sampling(task: Task) -> None:
    from trimtab.samplers.requests import check

    s = task.sample
    params = SamplingParams(s.temperature, s.top_p, s.top_k, s.max_tokens, tuple(s.stop), s.seed)
    for key, n in (("sample.train_n", s.train_n), ("sample.test_n", s.test_n)):
        if n < 1:
            raise InputError(f"{key} is {n}; it must be at least 1")
    check(s.train_n, params)


def engine(m: Model) -> None:
    """InputError for an engine that is unknown, not installed, or lacks what it needs to begin."""
    from trimtab.cli import make

    device_and_dtype(m.device, m.dtype)
    need(*_OF_ENGINE.get(m.engine, ()))
    if m.engine == "openai" and not m.base_url:
        raise InputError(
            f"model.base_url is {m.base_url!r}: engine openai needs the server's address, such as http://host:8000/v1"
        )
    make.sampler(m)
    if m.engine in ("openvino", "hf"):
        local_model(m.name)


def _reward(task: Task, prompts: Sequence[Prompt], facts: dict[str, Any]) -> None:
    from trimtab.cli.prompts import reward_of

    facts["reward"], reward = reward_of(task)
    check_columns(reward, prompts)


def check_columns(reward: Any, prompts: Sequence[Prompt]) -> None:
    """InputError when the prompts lack a column that the reward asks for, or a package that it needs is missing.

    Rules of ours read the first prompts beside an empty answer; of the user's functions only the parameters are read.
    """
    from trimtab import rewards

    if isinstance(reward, rewards.Trl):
        for p in prompts:
            reward.check(p)
    if isinstance(reward, rewards.ExactMatch | rewards.MultipleChoice | rewards.MathAnswer):
        for p in prompts:
            if reward.column not in p.columns:
                raise InputError(f"prompt {p.id!r} for the reward: {unknown('column', reward.column, p.columns)}")
    if isinstance(reward, rewards.ReasoningGym | rewards.Instructions | rewards.Regex):
        for p in prompts[:20]:
            reward([Group(p, (Completion("", "", 0, 0),))])
    if isinstance(reward, rewards.UnitTests):
        for p in prompts:
            reward.job(p, Completion("", "", 0, 0))


def _losses(task: Task, facts: dict[str, Any]) -> None:
    from trimtab.learners.completion.probe.losses import LOSS_UNITS, PROBE_LOSSES

    for loss in task.probe.losses:
        if loss not in PROBE_LOSSES:
            raise unknown("probe loss", loss, PROBE_LOSSES)
        if LOSS_UNITS[loss] != "row" and task.sample.train_n < 2:
            raise InputError(
                f"probe loss {loss!r} compares completions of one prompt, and sample.train_n is {task.sample.train_n}: "
                "sample more, or use mse"
            )
    if task.probe.folds < 2:
        raise InputError(f"probe.folds is {task.probe.folds}; cross-validation needs at least 2")
    if any(x <= 0 for x in task.probe.l2):
        raise InputError(f"probe.l2 is {task.probe.l2}; strengths must be above 0")
    facts["probes"] = list(task.probe.losses)


def _embedder(task: Task, facts: dict[str, Any]) -> None:
    from trimtab.cli import make

    e = task.embed
    need(*_OF_EMBEDDER.get(e.kind, ()))
    make.embedder(e, task.model)
    facts["vectors"] = f"{e.kind} {e.model}".strip()
    if e.kind == "endpoint" and not e.model:
        raise InputError("embed.model is empty: name the embedding model that the server at embed.base_url has")
    if e.kind != "hidden_states":
        return
    name = e.model or task.model.name
    if not e.model and task.model.engine not in ("openvino", "hf") and not is_local(name):
        raise InputError(
            f"the probes read hidden states, and there is no local model {name!r} to compute them (it answers by "
            f'{task.model.engine}): name a local one in embed.model, take embed.kind = "encoder" or "endpoint", or '
            "leave the probes out with probe.losses = []"
        )
    local_model(name)
    config = config_of(name)
    layers = int(config.get("num_hidden_layers") or 0) if config else 0
    if layers and max(e.layers) > layers:
        raise InputError(f"{name} has layers 0 to {layers}; layer {max(e.layers)} does not exist (embed.layers)")


def _comparison(task: Task) -> None:
    from trimtab.rewards import extractor

    if task.eval.extract:
        extractor(task.eval.extract)
    if task.eval.beta < 0 or task.eval.draws < 1:
        raise InputError(f"eval.beta is {task.eval.beta:g} (0 or more), eval.draws {task.eval.draws} (1 or more)")


def is_local(name: str) -> bool:
    """Whether a model's files are here or have a name in the catalogue."""
    from trimtab.lm.catalog import CATALOG

    return name in CATALOG or Path(name).expanduser().exists()


def local_model(name: str) -> None:
    """InputError for a name that is neither in the catalogue, nor a folder or file, nor a hub id (org/name)."""
    from trimtab.lm.catalog import CATALOG

    hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not is_local(name) and not hub:
        if "/" in name or name.endswith(".gguf"):
            raise InputError(f"{name}: no such model file or folder, and no name in the catalogue")
        raise unknown("model", name, CATALOG)


def config_of(name: str) -> dict[str, Any]:
    """A model's config.json where its files are here; {} where they would first have to be fetched or converted."""
    from trimtab.lm import catalog

    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name not in catalog.CATALOG or "torch" not in catalog.cached(name):
            return {}
        folder = catalog.locate(name, "torch")
    if not (folder / "config.json").is_file():
        return {}
    config = read_json(folder / "config.json", "a model's configuration", {"text_config?": dict}, error=ModelError)
    return config.get("text_config", config)


def fit_context(m: Model, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """InputError when a prompt with `max_tokens` of answer exceeds the context of a local model that is here."""
    if m.engine not in ("openvino", "hf") or not (config := config_of(m.name)):
        return
    context = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
    if context and max_tokens >= context:
        raise InputError(f"sample.max_tokens is {max_tokens}, but {m.name} has a context of {context} tokens")
    if context:
        from trimtab.lm.load import load_tokenizer
        from trimtab.samplers.requests import encode

        params = SamplingParams(max_tokens=max_tokens)
        encode(load_tokenizer(m.name), prompts, params, context, m.name)
