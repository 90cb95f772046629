"""A LoRA adapter's folder to its base model with the adapter merged in: a plain model, like any other.

So a second LoRA trains beside nothing that could be dropped, and its reference is the model with the first one. An
adapter that does not fit its base model is refused. It trains nothing and writes nothing.
"""

from pathlib import Path
from typing import Any

import torch

from trimtab.errors import ModelError
from trimtab.lm import trained, weights

WEIGHTS = "adapter_model.safetensors"
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


def merged(folder: Path, dtype: torch.dtype, device: str, *, classifier: bool = False) -> Any:
    """The base model with the adapter merged in; the base is found by `trained.base_of`.

    ModelError for an adapter of another base model or kind, one that lacks tensors or has more, and without peft.
    """
    from trimtab.lm.load import load_classifier, load_lm

    trained.check_whole(folder)
    if trained.is_classifier(folder) != classifier:
        raise ModelError(f"{folder} is an adapter of a classifier (task_type SEQ_CLS): take it as a reward model")
    base = trained.base_of(folder)
    lm = load_classifier(base, dtype, device, new_head=True) if classifier else load_lm(base, dtype, device)
    model = on_base(lm.model, folder).merge_and_unload()
    model.name_or_path = str(folder)  # the base that a second adapter names: never the model without this one
    return model.eval().requires_grad_(False)


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
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    held = {k for k in held if k in wanted or not any(part in k for part in EMBEDDINGS)}  # saved when a vocabulary grew
    if wanted != held:
        raise ModelError(
            f"{folder}: the adapter does not fit its base model: it lacks {weights.some(wanted - held) or 'nothing'} "
            f"and has {weights.some(held - wanted) or 'nothing'} too many"
        )
    if bad := weights.not_finite(adapted):
        raise ModelError(f"{folder}: weights are NaN or infinite: {weights.some(bad)}")
    return adapted
