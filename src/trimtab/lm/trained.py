"""FOLDERS that a training left to the model they mean: whole weights, or an adapter and the base that it lies on.

A folder travels: its base is looked for by name, as it is written and then beside the folder, and must have the
revision that was trained on. Runs that are not finished are refused with the checkpoint to take instead. It loads no
weights; `load` merges and `catalog` converts.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError, TrimtabError
from trimtab.json_file import Kinds, read_json

ADAPTER = "adapter_config.json"
CARDS = ("policy.json", "reward_model.json")
KINDS: Kinds = {
    "settings?": dict, "settings.model?": str, "settings.dtype?": (str, type(None)), "finished?": bool,
    "devices?": list, "model?": str, "sha256?": dict, "base_model_name_or_path?": (str, type(None)),
    "revision?": (str, type(None)),
}  # fmt: skip
"""What is read of the cards and of an adapter's configuration."""
SUMS = "sha256"
"""A finished run's card holds the hash of each of its weight files under this key (since November 2026)."""
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_UNMERGEABLE = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT")


def is_adapter(name: str | PathLike[str]) -> bool:
    """Whether a name is a folder with an adapter (peft's, or that of `train_policy` with LoRA)."""
    return (Path(name).expanduser() / ADAPTER).is_file()


def check_name(name: str | PathLike[str]) -> None:
    """ModelError for what no file system takes for a path: a part of over 255 bytes, or a NUL."""
    parts = str(name).split("/")
    if "\0" in str(name) or any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts):
        raise ModelError(f"{str(name)[:60]!r}... ({len(str(name))} characters) is no model's name or path")


def is_classifier(folder: Path) -> bool:
    """Whether an adapter is one of a sequence classifier (a reward model)."""
    return _json(folder / ADAPTER).get("task_type") == "SEQ_CLS"


def check_whole(folder: Path) -> None:
    """ModelError for a folder that is no whole model: a run that is not finished, the folder above checkpoints, an
    adapter that cannot be merged."""
    for name in CARDS:
        card = _json(folder / name)
        if "settings" in card and not card.get("finished"):  # without settings it is a card written by hand
            there = _checkpoints(folder / "checkpoints")
            hint = f", or name its last checkpoint: {there[-1]}" if there else ""
            raise ModelError(
                f"{folder}: its training is not finished; run the same training again to continue it{hint}"
            )
        for file, wanted in card.get(SUMS, {}).items():
            _check_sum(folder / file, wanted)
    if not (folder / "config.json").is_file() and not is_adapter(folder) and (there := _checkpoints(folder)):
        raise ModelError(f"{folder} holds checkpoints: name one, such as {there[-1]}")
    if not is_adapter(folder):
        return
    kind = str(_json(folder / ADAPTER).get("peft_type", "LORA")).upper()
    if kind in _UNMERGEABLE:
        raise ModelError(f"{folder}: a {kind} adapter adds tokens and cannot be merged into weights; LoRA's can")
    if not (folder / "adapter_model.safetensors").is_file():
        pickled = (
            " (adapter_model.bin is a pickle, which is not read)" if (folder / "adapter_model.bin").exists() else ""
        )
        raise ModelError(f"{folder} has no adapter_model.safetensors{pickled}: save it again with safetensors")


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file of a folder: what a run's card holds, and loading compares."""
    return {f.name: _sum_of(f) for f in sorted(folder.glob("*.safetensors"))}


def _check_sum(file: Path, wanted: object) -> None:
    try:
        found = _sum_of(file)
    except OSError as e:
        raise ModelError(f"{file} cannot be read ({e.strerror or e}); restore it, or train again") from e
    if found != wanted:
        raise ModelError(f"{file} is not the one that was trained (damaged, or replaced); restore it, or train again")


def _sum_of(file: Path) -> str:
    stat = file.stat()
    return _sum(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sum(file: Path, size: int, changed_ns: int) -> str:
    """`size` and `changed_ns` say whether a file is still the one that was read before."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def base_of(folder: Path) -> str:
    """The name by which the base of an adapter (or of a run's weights) is found here, at the revision trained on.

    ModelError when it is not to be had, or is another one by now.
    """
    card, config = _json(folder / "policy.json"), _json(folder / ADAPTER)
    named = [str(n) for n in (card.get("settings", {}).get("model"), config.get("base_model_name_or_path")) if n]
    if not named:
        raise ModelError(f"{folder} does not say what model it lies on (base_model_name_or_path in {ADAPTER})")
    wanted = str(card.get("model", "")).rpartition("@")[2] or str(config.get("revision") or "")
    found = list(dict.fromkeys(c for n in named for c in _candidates(n, folder)))
    if not found:
        raise ModelError(
            f"{folder} lies on the model {named[0]}, which is not here: put its folder beside this one, or write where "
            f"it is into base_model_name_or_path of {ADAPTER}"
        )
    others = []
    for name in found:
        if (rev := _mismatch(name, wanted)) is None:
            return name
        others.append(f"{name} is now {rev}")
    raise ModelError(f"{folder} was trained on {named[0]}@{wanted}, but {'; '.join(others)}")


def tokenizer_folder(folder: Path) -> Path | str:
    """Where a folder's tokenizer is: there, in the run that a checkpoint is of, or with its base (then its name)."""
    if any((folder / f).is_file() for f in TOKENIZERS):
        return folder
    run = folder.parent.parent if folder.name.startswith("checkpoint-") else folder
    if run != folder and any((run / f).is_file() for f in TOKENIZERS):
        return run
    if is_adapter(folder) or (run / "policy.json").is_file():
        return base_of(folder if is_adapter(folder) and not (run / "policy.json").is_file() else run)
    return folder


def portable(name: str, revision: str) -> tuple[str, str]:
    """How an adapter names its base so that its folder travels: the name that was given, and a revision.

    The revision is ours (12 hex digits), or for a hub id the hub's commit, which other tools understand.
    """
    from trimtab.lm import catalog

    if name in catalog.CATALOG or Path(name).expanduser().exists():
        return name, revision
    place = catalog.locate(name)
    return name, place.name if place.parent.name == "snapshots" else revision


def _candidates(name: str, folder: Path) -> Iterator[str]:
    """Names under which the base may be found here: as it is written, beside the folder, in the catalogue."""
    from trimtab.lm.catalog import CATALOG

    check_name(name)
    path = Path(name).expanduser()
    if name in CATALOG or path.exists():
        yield name
    if not path.is_absolute() or not path.exists():
        for above in list(folder.resolve().parents)[:4]:
            for beside in (above / path.name if path.is_absolute() else above / path, above / path.name):
                whole = (beside / "config.json").is_file() or is_adapter(beside) or beside.suffix == ".gguf"
                if whole and beside.exists() and beside.resolve() != folder.resolve():
                    yield str(beside)
    cached = re.search(r"models/([^/]+)-[0-9a-f]{12}/torch/?$", name)  # runs of before name the cache's folder
    if cached and cached[1] in CATALOG:
        yield cached[1]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.exists() and name.partition("/")[0] not in (".", ".."):
        yield name  # a hub id


def _mismatch(name: str, wanted: str) -> str | None:
    """The revision that `name` has here, when it is not the wanted one; "" or a branch is any."""
    from trimtab.lm import catalog

    try:
        if re.fullmatch(r"[0-9a-f]{40}", wanted):
            place = catalog.locate(name)
            return place.name if place.parent.name == "snapshots" and place.name != wanted else None
        found = catalog.revision(name)
    except TrimtabError as e:
        return f"not to be had ({e})"
    return found if re.fullmatch(r"[0-9a-f]{12}", wanted) and found != wanted else None


def _checkpoints(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name.split("-")[-1]))


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, "a trained folder's card", KINDS, error=ModelError) if file.exists() else {}
