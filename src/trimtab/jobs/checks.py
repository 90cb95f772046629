"""What can be known before the first request or forward pass: packages, places to write, devices, models, columns.

Nothing is sampled, loaded or written here. Models that are not cached yet are not fetched to be looked at.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, ModelError, TrimtabError, unknown
from trimtab.json_file import read_json
from trimtab.types import Completion, Group, Prompt, RewardFn, SamplingParams

EXTRAS = {
    "torch": "torch", "transformers": "torch", "gguf": "torch", "accelerate": "torch",
    "openvino_genai": "openvino", "peft": "train", "sentence_transformers": "encoders", "reasoning_gym": "tasks",
    "math_verify": "tasks", "sae_lens": "sae", "lm_eval": "ifeval", "langdetect": "ifeval", "plotly": "report",
}  # fmt: skip
"""Packages that are not always installed, and the extra of ours that brings each."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
_OF_ENGINE = {"openvino": ("openvino_genai", "transformers"), "hf": ("torch", "transformers")}


def every(checks: Iterable[Callable[[], Any]]) -> None:
    """Makes all these checks, in order. InputError with the problems of all, one a line, each said once."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except TrimtabError as e:
            if str(e) not in problems:
                problems.append(str(e))
    if len(problems) > 1:
        raise InputError(f"{len(problems)} faults, found before anything was run:\n  " + "\n  ".join(problems))
    if problems:
        raise InputError(problems[0])


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


def sampler(name: str, engine: str = "", *, device: str = "", dtype: str = "", **server: Any) -> None:
    """InputError for an engine that is unknown, not installed, or lacks what it needs to begin; as `make.sampler`."""
    from trimtab.jobs import make

    engine, name = make.engine_of(name, engine, server.get("base_url", ""))
    device_and_dtype(device, dtype)
    need(*_OF_ENGINE.get(engine, ()))
    if engine == "openai" and not (url := server.get("base_url", "")):
        raise InputError(
            f"model.base_url is {url!r}: engine openai needs the server's address, such as http://host:8000/v1"
        )
    make.sampler(name, engine, device=device, dtype=dtype, **server)
    if engine in ("openvino", "hf"):
        local_model(name)


def columns(reward: RewardFn, prompts: Sequence[Prompt]) -> None:
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


def context(name: str, engine: str, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """InputError when a prompt with `max_tokens` of answer exceeds the context of a local model that is here."""
    if engine not in ("openvino", "hf") or not (config := config_of(name)):
        return
    length = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
    if length and max_tokens >= length:
        raise InputError(f"sample.max_tokens is {max_tokens}, but {name} has a context of {length} tokens")
    if length:
        from trimtab.lm.load import resident_tokenizer
        from trimtab.samplers.requests import encode

        params = SamplingParams(max_tokens=max_tokens)
        encode(resident_tokenizer(name), prompts, params, length, name)
