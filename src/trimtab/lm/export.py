"""A MODEL by name (a trained folder, an adapter, a catalogue name) to files that other programs load.

A plain folder in Hugging Face's layout, adapters merged: transformers, vLLM and llama.cpp's own converter read it. Or
one GGUF file, which llama.cpp and OpenVINO read: metadata and vocabulary are those of the GGUF file that the model
comes from where there is one, else they are written from its configuration and tokenizer.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, ModelError, unknown
from trimtab.lm import catalog, trained
from trimtab.terminal import markdown

KINDS = {"f32": 0, "f16": 1, "q8_0": 7}
"""Kinds of matrices in a GGUF file, and llama.cpp's number for a file of them."""
OTHERWISE = "take the folder itself (engine hf, vLLM)"
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
_OURS = ("general.file_type", "general.quantization_version")
_SPLITS = {  # what a pre-tokenizer's pattern looks like, and llama.cpp's name for it
    r"\p{N}{1,3}": "llama-bpe", r"|\p{N}|": "qwen2", "'s|'t|'re|'ve|'m|'ll|'d": "gpt-2", "Digits": "smollm",
}  # fmt: skip


def export_model(name: str, out: str | Path, dtype: str = "float32", gguf: str = "") -> Path:
    """Writes a model to a new folder for transformers, vLLM and llama.cpp's converter; with `gguf`, model.gguf too.

    Written beside and renamed when whole. InputError for a folder that is not empty or an unknown kind; ModelError when
    the model cannot be had or written.
    """
    out = Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: name another place, or delete it")
    if gguf and gguf not in KINDS:
        raise unknown("kind of GGUF file", gguf, KINDS)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        whole = write_folder(name, Path(folder) / "model", dtype)
        if gguf:
            write_gguf(name, whole / "model.gguf", gguf)
        (whole / "README.md").write_text(_readme(name, dtype, gguf), encoding="utf-8", errors="backslashreplace")
        if out.exists():
            out.rmdir()
        whole.rename(out)
    return out


def _readme(name: str, dtype: str, gguf: str) -> str:
    path = Path(name).expanduser()
    made = path / "README.md"
    front, text = "", f"# {markdown(name)}\n"
    if made.is_file() and "tags: [trimtab]" in (
        ours := made.read_text(encoding="utf-8", errors="replace")
    ):  # how it was trained
        text = ours.partition("## Load it")[0]
        front, _, text = text.removeprefix("---\n").partition("---\n")
        front = f"---\n{front.replace('library_name: peft', 'library_name: transformers')}---\n"
    lines = [
        f"{front}{text.rstrip()}", "", "## Load it", "",
        f"Exported by trimtab from {markdown(name)}, {catalog.revision(name)}, in {dtype}; adapters are merged.",
        "", "- transformers: `AutoModelForCausalLM.from_pretrained('FOLDER')`", "- vLLM: `vllm serve FOLDER`",
        "- llama.cpp: " + (f"`llama-server -m model.gguf` ({gguf})" if gguf else "its convert_hf_to_gguf.py reads it"),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def write_folder(name: str, out: str | Path, dtype: str = "float32") -> Path:
    """Writes a model with its tokenizer as a plain folder of safetensors; an adapter is merged into its base.

    ModelError when the model cannot be had; InputError for an unknown dtype.
    """
    from trimtab.lm.load import load_classifier, load_lm, only_errors

    classifier = trained.is_adapter(name) and trained.is_classifier(Path(name).expanduser())
    lm = (load_classifier if classifier else load_lm)(name, dtype, "cpu")
    with only_errors():
        lm.model.save_pretrained(out)
        lm.tokenizer.save_pretrained(out)
    return Path(out)


def write_gguf(name: str, target: str | Path, kind: str = "f16") -> Path:
    """Writes a model as one GGUF file, matrices as `kind` (f32, f16 or q8_0), vectors as float32.

    ModelError for an architecture, a rope scaling or a vocabulary that is not written.
    """
    from trimtab.lm.convert import gguf_package
    from trimtab.lm.load import load_lm

    if kind not in KINDS:
        raise unknown("kind of GGUF file", kind, KINDS)
    gguf, lm = gguf_package(), load_lm(name, "float32", "cpu")
    config = lm.model.config.get_text_config()
    if (arch := ARCHITECTURES.get(config.model_type)) is None:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"{name}: {config.model_type} models are not written as GGUF, only {known}; {OTHERWISE}")
    if arch == "llama" and any(key.endswith(".bias") for key in lm.model.state_dict()):
        raise ModelError(f"{name}: a Llama with biases is not written as GGUF, OpenVINO would drop them; {OTHERWISE}")
    if arch.startswith("qwen") and getattr(config, "use_sliding_window", False):
        raise ModelError(f"{name}: a Qwen with a sliding window is not written as GGUF; {OTHERWISE}")
    writer = gguf.GGUFWriter(target, arch)
    try:
        source = _source(name)
        if source is not None:
            _copy_fields(gguf, source, writer)
        else:
            _write_config(writer, arch, config, name)
            _write_vocabulary(gguf, writer, lm.tokenizer, config.vocab_size)
        writer.add_file_type(KINDS[kind])
        writer.add_quantization_version(2)
        _write_tensors(gguf, writer, arch, lm.model, config, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return Path(target)


def _source(name: str) -> Path | None:
    """The GGUF file that a model comes from: of its name, or of the base that it (and so on) was trained on."""
    path = Path(name).expanduser()
    if name in catalog.CATALOG and not path.exists():
        return catalog.locate(name, "gguf")
    if path.suffix == ".gguf":
        return path
    if not (trained.is_adapter(path) or (path / "policy.json").is_file()):
        return None
    try:
        return _source(trained.base_of(path))
    except ModelError:
        if trained.is_adapter(path):
            raise
        return None  # whole weights do not need their base


def _copy_fields(gguf: Any, source: Path, writer: Any) -> None:
    from trimtab.lm.untrusted import check_gguf

    check_gguf(source)
    for key, field in gguf.GGUFReader(source).fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", *_OURS):
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], element)


def _write_config(writer: Any, arch: str, config: Any, name: str) -> None:
    if arch == "gemma3":
        raise ModelError(f"{name}: a Gemma's vocabulary is written only where its base is a GGUF file; {OTHERWISE}")
    rope = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    if (kind := rope.get("rope_type", "default")) != "default":
        raise ModelError(f"{name}: rope scaling {kind!r} is not written as GGUF; {OTHERWISE}")
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(Path(name).name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or getattr(config, "rope_theta", 10_000.0)))
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_vocab_size(config.vocab_size)


def _write_vocabulary(gguf: Any, writer: Any, tokenizer: Any, size: int) -> None:
    """A byte-level BPE vocabulary (GPT-2's kind: Llama 3, Qwen, SmolLM). ModelError for another."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError("only tokenizers with a tokenizer.json are written as GGUF; " + OTHERWISE)
    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    if plain["model"]["type"] != "BPE" or '"ByteLevel"' not in json.dumps(plain.get("pre_tokenizer")):
        raise ModelError(
            f"a {plain['model']['type']} tokenizer is not written as GGUF, only byte-level BPE; {OTHERWISE}"
        )
    kinds = gguf.TokenType
    added = {t["id"]: kinds.CONTROL if t["special"] else kinds.USER_DEFINED for t in plain["added_tokens"]}
    names = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    known = {i: n for i, n in enumerate(names) if n is not None}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre(plain))
    writer.add_token_list([known.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([added.get(i, kinds.NORMAL) if i in known else kinds.UNUSED for i in range(size)])
    merges = [m if isinstance(m, str) else " ".join(m) for m in plain["model"]["merges"]]
    never = next((known[i] for i, k in added.items() if k == kinds.CONTROL and i in known), known[0])
    writer.add_token_merges(merges or [f"{never} {never}"])  # OpenVINO wants one: special tokens are never merged
    for what, token in (
        ("bos", tokenizer.bos_token_id),
        ("eos", tokenizer.eos_token_id),
        ("pad", tokenizer.pad_token_id),
    ):
        if token is not None:
            getattr(writer, f"add_{what}_token_id")(token)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _pre(plain: Mapping[str, Any]) -> str:
    """llama.cpp's name for how text is cut before BPE, told by the pattern; "default" where it is not known."""
    text = json.dumps(plain.get("pre_tokenizer"), ensure_ascii=False).replace("\\\\", "\\")
    return next((name for sign, name in _SPLITS.items() if sign in text), "default")


def _write_tensors(gguf: Any, writer: Any, arch: str, model: Any, config: Any, kind: str) -> None:
    number = next(n for n, label in gguf.MODEL_ARCH_NAMES.items() if label == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and tied:
            continue
        if (name := names.get_name(key, try_suffixes=(".weight", ".bias"))) is None:
            raise ModelError(f"the tensor {key} has no name in GGUF's {arch}")
        data = _as_gguf(key, value.float().numpy(), arch, config)
        quantised = gguf.GGMLQuantizationType[kind.upper()]
        if data.ndim == 1 or (kind == "q8_0" and data.shape[-1] % 32):  # Q8_0 needs rows of whole blocks
            quantised = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(data, quantised), raw_dtype=quantised)


def _as_gguf(key: str, data: npt.NDArray[np.float32], arch: str, config: Any) -> npt.NDArray[np.float32]:
    """llama.cpp turns pairs of neighbours where Hugging Face turns halves; a Gemma's norms are kept without their 1."""
    if arch == "llama" and (".q_proj." in key or ".k_proj." in key):
        heads = config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads
        return data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    return data + 1 if arch == "gemma3" and key.endswith("norm.weight") else data
