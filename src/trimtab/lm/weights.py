"""A model's folder, and what was read from it, to reasons not to use it: what transformers does in silence is checked.

transformers draws tensors that a checkpoint lacks at random, leaves out those it does not know, casts integer codes to
floats, and lets a tokenizer speak of tokens that the model has no row for. Each becomes a line here that names it. It
reads headers and numbers; it loads nothing and mends nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from trimtab.errors import ModelError
from trimtab.json_file import read_json

INDEX = "model.safetensors.index.json"
ASIDE = ("vision", "visual", "audio", "image", "multi_modal", "mm_", "speech", "mtp", "rotary_emb", ".attn.bias")
"""Parts of names of tensors that a language model may leave aside: other senses, drafts of later tokens, constants."""


def file_problems(folder: Path) -> list[str]:
    """What is wrong with the safetensors files of a folder by their headers: shards that the index does not fit, and
    codes of a quantisation that config.json says nothing of."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if (folder / "model.safetensors").is_file():  # what transformers reads when there are both
        files = [folder / "model.safetensors"]
    elif index.is_file():
        return _index_problems(
            folder, read_json(index, "an index of weights", {"weight_map": dict}, error=ModelError)["weight_map"]
        )
    return _coded(folder, {f.name: tensor_types(f) for f in files})


def _index_problems(folder: Path, where: Mapping[str, str]) -> list[str]:
    lost = sorted({str(file) for file in where.values() if not (folder / file).is_file()})
    if lost:
        return [f"the file {some(lost)} named in {INDEX} is missing: the copy was interrupted"]
    held = {file: tensor_types(folder / file) for file in sorted(set(where.values()))}
    absent = [name for name, file in where.items() if name not in held[file]]
    if absent:
        return [f"{INDEX} and its files do not fit each other: {some(absent)} not in the file it names"]
    return _coded(folder, held)


def _coded(folder: Path, held: Mapping[str, Mapping[str, str]]) -> list[str]:
    config = folder / "config.json"
    given = (
        read_json(config, "a model's configuration", {"text_config?": dict}, error=ModelError)
        if config.is_file()
        else {}
    )
    if {"quantization_config", "compression_config"} & {*given, *given.get("text_config", {})}:
        return []
    codes = [n for types in held.values() for n, kind in types.items() if n.endswith("weight") and kind[0] in "IU"]
    codes += [n for types in held.values() for n, kind in types.items() if kind.startswith("F8")]
    why = "quantised, and config.json does not say how (quantization_config)"
    return [f"{some(codes)}: weights are {why}; take the folder whole, or an unquantised copy"] if codes else []


def tensor_types(file: Path) -> dict[str, str]:
    """Names of the tensors of a safetensors file and their types ("F32", "BF16", "I8"), from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as f:
            return {name: f.get_slice(name).get_dtype() for name in f.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as e:
        raise ModelError(f"{file}: is no whole safetensors file ({e}); copy or save it again") from e


def loading_problems(info: Mapping[str, Any], allowed: Collection[str] = ()) -> list[str]:
    """What transformers did in silence, from its loading report; `allowed` begin names of tensors that may be new."""
    problems, new = [], tuple(allowed)  # no name starts with one of none
    missing = [n for n in info["missing_keys"] if not n.startswith(new)]
    if missing:
        problems.append(f"its files lack {some(missing)}: transformers would draw these at random")
    shapes = [
        f"{n} is {list(there)}, the configuration wants {list(here)}" for n, there, here in info["mismatched_keys"]
    ]
    if shapes:
        problems.append(f"weights do not fit config.json: {some(shapes)}")
    strange = foreign(n for n in info["unexpected_keys"] if not n.startswith(new))
    if strange:
        problems.append(
            f"its files hold {some(strange)}, which the configuration has no place for: it would run without them"
        )
    return problems


def foreign(names: Iterable[str]) -> list[str]:
    """The tensors left over that belong to the language model: a block, a bias, an adapter, the scale of a code. A head
    of another task or another sense's tower is left aside."""
    parts = {"layers", "blocks", "h", "block", "lm_head", "norm", "ln_f", "wte", "wpe"}
    own = ("lora_", "base_layer", "scale", "absmax", "zeros", "embed")
    mine = [n for n in names if parts & set(n.split(".")) or any(p in n for p in own)]
    return [n for n in mine if not any(a in n for a in ASIDE)]


def not_finite(model: torch.nn.Module) -> list[str]:
    """Names of the weights that hold NaN or infinity. One sum a tensor: NaN and infinity survive it."""
    suspects = [
        (name, p, p.detach().sum(dtype=torch.float32)) for name, p in model.named_parameters() if p.is_floating_point()
    ]
    if not suspects or bool(torch.stack([total for *_, total in suspects]).isfinite().all()):
        return []
    bad = [(n, p) for n, p, total in suspects if not bool(total.isfinite())]
    return [n for n, p in bad if not bool(p.detach().isfinite().all())]  # a sum alone may overflow


def tokenizer_problems(tokenizer: Any, rows: int) -> tuple[list[str], list[str]]:
    """Problems and warnings of a tokenizer beside an embedding of so many rows. A token that nothing writes (Gemma 3's
    image token in a text model) is a warning; a word of the vocabulary or a special token in use is a problem."""
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not beyond:
        return [], []
    used = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token}
    added, template = tokenizer.added_tokens_decoder, str(tokenizer.chat_template or "")
    needed = [t for t, i in beyond.items() if i not in added or t in used or t in template]
    said = f"the model has {rows} token rows, and its tokenizer tokens beyond them"
    if needed:
        return [f"{said} ({some(needed)}): tokenizer and weights are not of one model"], []
    return [], [f"{said} that texts must not hold: {some(beyond)}"]


def some(names: Iterable[str]) -> str:
    """The first four names in order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
