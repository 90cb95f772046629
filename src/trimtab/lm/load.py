"""Names to models in memory: the only caller of from_pretrained, and the one cache of what a process holds.

A name is one of the catalog's, or a folder in Hugging Face's layout: a model, what a training wrote, or an adapter,
which is merged into its base in memory. Who only reads a model takes `resident` and shares it; who changes one takes
`load_lm`. It never reaches for a hub by itself (the catalog finds the files) and does not sample, embed or train.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trimtab.errors import ModelError, unknown
from trimtab.json_file import read_json
from trimtab.lm import catalog, trained, weights
from trimtab.lm.chat import end_tokens
from trimtab.lm.untrusted import check_template
from trimtab.progress import working

HEADS = ("score.", "classifier.")
"""How the names of a classifier's output layer begin."""
RESIDENT_SHARE = 0.5
"""Of a device's memory: what the resident models on it may fill together."""
log = logging.getLogger("trimtab")


@dataclass(frozen=True)
class LM:
    """A causal language model and its tokenizer, in evaluation mode and without gradients."""

    model: Any
    tokenizer: Any
    name: str
    revision: str

    @property
    def id(self) -> str:
        """The name that completions and cards carry, "name@revision"."""
        return f"{self.name}@{self.revision}"

    @property
    def context(self) -> int:
        """The most tokens prompt and completion may have together (the configuration's max_position_embeddings)."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 2**31)

    @property
    def ends(self) -> frozenset[int]:
        """Token ids that stop a generation; empty where the model has none (`lm.chat.end_tokens`)."""
        return end_tokens(self.tokenizer, self.model.generation_config.eos_token_id)

    @property
    def memory_bytes(self) -> int:
        """What the weights take in memory."""
        return sum(x.nbytes for x in (*self.model.parameters(), *self.model.buffers()))

    def __repr__(self) -> str:
        return f"LM({self.id!r}, {str(self.model.dtype).removeprefix('torch.')})"


_Key = tuple[str, str, str, bool, str]
_RESIDENT: dict[_Key, LM] = {}
"""Place, dtype, device, whether a classifier, and stamp; the one used longest ago comes first."""
_LOCK = threading.RLock()


def resident(
    model: str | LM, dtype: str | torch.dtype | None = None, device: str | None = None, *, classifier: bool = False
) -> LM:
    """The one copy of a model that all who run it in this process share; an LM that is given comes back as it is.

    A name is loaded once for each dtype and device, by `load_lm` or `load_classifier`; a folder whose files changed is
    another model, and the old one goes. When the models on a device fill more than `RESIDENT_SHARE` of its memory,
    those used longest ago are dropped. Nobody may change what this returns. Errors are those of `load_lm`.
    """
    if isinstance(model, LM):
        return model
    device = device or default_device()
    wanted, path = chosen_dtype(model, dtype, device), Path(model).expanduser()
    place = str(path.resolve()) if path.exists() else model
    key: _Key = (place, str(wanted), str(torch.device(device)), classifier, catalog.stamp(model))
    with _LOCK:
        found = _RESIDENT.pop(key, None)
        if new := found is None:
            for old in [k for k in _RESIDENT if k[:-1] == key[:-1]]:
                del _RESIDENT[old]
            found = _loaded(model, wanted, device, classifier)
        _RESIDENT[key] = found  # the youngest
        if new:
            _make_room(key[2])
    return found if found.name == model else replace(found, name=model)


def _make_room(device: str) -> None:
    here = [k for k in _RESIDENT if k[2] == device]
    while len(here) > 1 and sum(_RESIDENT[k].memory_bytes for k in here) > RESIDENT_SHARE * _memory(device):
        del _RESIDENT[here.pop(0)]


def _loaded(name: str, dtype: torch.dtype, device: str, classifier: bool) -> LM:
    load = load_classifier if classifier else load_lm
    try:
        return load(name, dtype, device)
    except ModelError as e:
        if not (_RESIDENT and isinstance(e.__cause__, MemoryError | torch.OutOfMemoryError)):
            raise
    release()
    return load(name, dtype, device)


def release() -> None:
    """Drops every resident model: their memory is free as soon as nobody else holds them."""
    with _LOCK:
        _RESIDENT.clear()
        _tokenizer.cache_clear()


def _memory(device: str) -> int:
    """Bytes that a device has in all; on a CPU no more than the process's control group may use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min(limits)


def resident_tokenizer(model: str | LM) -> Any:
    """The tokenizer of a model, without loading the model; read once for each state of its folder."""
    return model.tokenizer if isinstance(model, LM) else _tokenizer(model, catalog.stamp(model))


@lru_cache(maxsize=8)
def _tokenizer(name: str, stamp: str) -> Any:
    return load_tokenizer(name)


def load_lm(name: str, dtype: str | torch.dtype | None = None, device: str | None = None) -> LM:
    """Loads a catalog model or a local folder for inference, weights memory-mapped: the peak is the model itself.

    A folder with a LoRA adapter gives its base model with the adapter merged in. Files that do not fit each other, a
    tensor that is missing, left over or no number, are refused by name: nothing is drawn at random or dropped.

    `device` None is `default_device()`, `dtype` None is `chosen_dtype`. The LM is the caller's own (never
    shared), so a trainer may change it.
    ModelError says what to do when the files are missing, broken or too big; InputError for an unknown name or dtype.
    """
    from transformers import AutoModelForCausalLM

    device = device or default_device()
    wanted = chosen_dtype(name, dtype, device)
    if trained.is_adapter(name):
        return _merged(name, wanted, device)
    folder, revision = _locate(name)
    model, info = _read(name, folder, AutoModelForCausalLM, wanted, device)
    _sound(name, folder, weights.loading_problems(info))
    return _checked(LM(model, load_tokenizer(name), name, revision), folder, info)


def load_classifier(
    name: str,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    *,
    new_head: bool = False,
    seed: int = 0,
) -> LM:
    """Loads a reward model (sequence classifier with one label), as `load_lm` does.

    `new_head`: a causal language model gets a fresh output layer, drawn by `seed`; without it a model that has none is
    a ModelError, for its rewards would be random. So is one with several labels.
    """
    from transformers import AutoModelForSequenceClassification

    device = device or default_device()
    wanted = chosen_dtype(name, dtype, device)
    if trained.is_adapter(name) and trained.is_classifier(Path(name).expanduser()):
        return _merged(name, wanted, device, classifier=True)
    folder, revision = _locate(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, info = _read(name, folder, AutoModelForSequenceClassification, wanted, device, num_labels=1)
    body = [n for n in info["missing_keys"] if not n.startswith(HEADS)]
    if info["missing_keys"] and not body and not new_head:
        raise ModelError(
            f"{name} has no reward head ({', '.join(sorted(info['missing_keys']))} are missing): its rewards would be "
            "random; train one with train_reward_model"
        )
    _sound(name, folder, weights.loading_problems(info, (*HEADS, "lm_head.")))
    return _checked(LM(model, load_tokenizer(name), name, revision), folder, info)


def _merged(name: str, dtype: torch.dtype, device: str, *, classifier: bool = False) -> LM:
    from trimtab.lm.adapters import merged

    with working(f"loading {name}"):
        model = merged(Path(name).expanduser(), dtype, device, classifier=classifier)
    return LM(model, load_tokenizer(name), name, revision(name))


def _read(
    name: str, folder: Path, auto: Any, dtype: torch.dtype, device: str, **more: Any
) -> tuple[Any, dict[str, Any]]:
    """A model in evaluation mode on its device, and transformers' report of what did not fit. ModelError otherwise."""
    try:
        _sound(name, folder, weights.file_problems(folder))
        with working(f"loading {name}"), only_errors():
            # sizes that differ are refused by name afterwards; transformers' own error names none
            model, info = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **more,
            )
            return model.to(device).eval().requires_grad_(False), info
    except ModelError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as e:
        raise ModelError(f"{name}: not enough memory on {device} ({e}); use a smaller model or dtype bfloat16") from e
    except Exception as e:  # transformers raises anything from KeyError to SafetensorError here
        kind = "sequence classifier with one label" if more else "causal language model"
        raise ModelError(
            f"{name}: cannot load a {kind} from {folder} ({type(e).__name__}: {e}); "
            f"check the folder, or fetch it again with `trimtab models pull {name}`"
        ) from e


def _sound(name: str, folder: Path, problems: Sequence[str]) -> None:
    if problems:
        raise ModelError(
            f"{name}: {'; '.join(problems)}. The folder {folder} is no whole model: copy or save it again, or fetch it "
            f"with `trimtab models pull {name}`"
        )


def _checked(lm: LM, folder: Path, info: Mapping[str, Any]) -> LM:
    """The LM itself. ModelError for weights that are no numbers, or a tokenizer of another model."""
    bad = weights.not_finite(lm.model)
    problems = [f"weights are NaN or infinite: {weights.some(bad)}"] if bad else []
    more, warnings = weights.tokenizer_problems(lm.tokenizer, len(lm.model.get_input_embeddings().weight))
    _sound(lm.name, folder, problems + more)
    aside = [n for n in info["unexpected_keys"] if not n.startswith("lm_head.")]
    warnings += [f"tensors of its files are left aside: {weights.some(aside)}"] if aside else []
    for line in warnings:
        log.warning("%s: %s", lm.name, line)
    return lm


@contextmanager
def only_errors() -> Iterator[None]:
    """transformers draws a bar and reports at length what differs; we check that ourselves."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a catalog model or a local folder. ModelError when it cannot be read."""
    from transformers import AutoTokenizer

    folder = _tokenizer_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as e:
        raise ModelError(
            f"{name}: cannot read a tokenizer from {folder} ({type(e).__name__}: {e}); "
            "it needs tokenizer.json and tokenizer_config.json"
        ) from e
    templates = tokenizer.chat_template or {}  # a text, or several by name
    for template in templates.values() if isinstance(templates, dict) else (templates,):
        check_template(template, name)
    return tokenizer


def revision(name: str) -> str:
    """The revision that `load_lm(name)` would have, without loading or fetching the weights."""
    return catalog.revision(name)


def default_device() -> str:
    """The device to compute on where none is named: cuda where torch has one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str | None = None) -> torch.dtype:
    """bfloat16 on an accelerator or a CPU with bfloat16 instructions (AVX512-BF16 or AMX), else float32: without them
    bfloat16 is emulated and slower than float32."""
    if not str(device or default_device()).startswith("cpu"):
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def chosen_dtype(name: str, dtype: str | torch.dtype | None, device: str | None) -> torch.dtype:
    """The type that weights are loaded in: `dtype`, else that of `default_dtype`, but for a folder that trimtab trained
    in float32: rounded to bfloat16 most of what was learned is lost, for its steps are smaller than a last place."""
    if dtype:
        return _dtype(dtype)
    for file in (Path(name).expanduser() / card for card in trained.CARDS):
        if file.is_file() and not trained.is_adapter(name):
            given = str(
                read_json(file, "a run's card", trained.KINDS, error=ModelError).get("settings", {}).get("dtype")
            )
            return torch.float32 if given.startswith("float32") else default_dtype(device)
    return default_dtype(device)


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise unknown("dtype", dtype, known)
    return known[dtype]


def _tokenizer_folder(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        return catalog.locate(name, "torch")
    found = trained.tokenizer_folder(path)
    return found if isinstance(found, Path) else _tokenizer_folder(found)


def _locate(name: str) -> tuple[Path, str]:
    return catalog.locate(name, "torch"), catalog.revision(name)


__all__ = [
    "LM",
    "chosen_dtype",
    "default_device",
    "default_dtype",
    "load_classifier",
    "load_lm",
    "load_tokenizer",
    "release",
    "resident",
    "resident_tokenizer",
    "revision",
]
