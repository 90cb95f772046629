"""A LoRA adapter's folder to its base model with the adapter merged in: a plain model, like any other.

So a second LoRA trains beside nothing that could be dropped, and its reference is the model with the first one. An
adapter that does not fit its base model is refused. It trains nothing and writes nothing.
"""

import json
from pathlib import Path
from typing import Any

import torch

from trimtab.errors import ModelError
from trimtab.models import weights

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "policy.json"


def base_of(folder: Path) -> tuple[str, str]:
    """The base model that an adapter's files name, and its "name@revision" where `train_policy` wrote it down."""
    if (folder / CARD).is_file():
        card = json.loads((folder / CARD).read_text())
        return card["settings"]["model"], card.get("model", "")
    try:
        config = json.loads((folder / CONFIG).read_text())
        return str(config["base_model_name_or_path"] or ""), ""
    except (ValueError, KeyError) as e:
        raise ModelError(f"{folder / CONFIG} does not name its base model ({type(e).__name__}: {e})") from e


def merged(name: str, folder: Path, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """The base model with the adapter merged in, and the tokenizer (the adapter's own where it has one).

    ModelError for an adapter of another base model, one that lacks tensors or has more, and without peft.
    """
    from trimtab.models.load import load_lm, load_tokenizer

    base_name, base_id = base_of(folder)
    if not base_name:
        raise ModelError(f"{folder / CONFIG} names no base model: set base_model_name_or_path")
    base = load_lm(base_name, dtype, device)
    if base_id and base.id != base_id:
        raise ModelError(f"{name} was trained on {base_id}, but {base_name} is now {base.id}")
    model = on_base(base.model, folder).merge_and_unload()
    own = (folder / "tokenizer_config.json").is_file()
    model.name_or_path = str(folder)  # the base that a second adapter names: never the model without this one
    return model.eval().requires_grad_(False), load_tokenizer(name) if own else base.tokenizer


def on_base(model: Any, folder: Path) -> Any:
    """peft's model of a base model and an adapter. ModelError unless every tensor of the adapter finds its place."""
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as e:
        raise ModelError(f"{folder} is an adapter, which needs peft: pip install 'trimtab[train]' ({e})") from e
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
        held = set(weights.tensor_types(folder / WEIGHTS))
    except Exception as e:  # peft raises anything from ValueError to SafetensorError here
        raise ModelError(f"{folder}: the adapter does not fit its base model ({type(e).__name__}: {e})") from e
    wanted = set(get_peft_model_state_dict(adapted))
    if wanted != held:
        raise ModelError(
            f"{folder}: the adapter does not fit its base model: it lacks {weights.some(wanted - held) or 'nothing'} "
            f"and has {weights.some(held - wanted) or 'nothing'} too many"
        )
    if bad := weights.not_finite(adapted):
        raise ModelError(f"{folder}: weights are NaN or infinite: {weights.some(bad)}")
    return adapted
