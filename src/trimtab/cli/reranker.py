"""The reranker as a stage: stored rewards and vectors to `rerankers/reranker` of a run, and its values elsewhere."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trimtab import embeddings, learners
from trimtab.errors import InputError
from trimtab.store import Store
from trimtab.types import Group

FOLDER = "rerankers/reranker"


def fit(
    store: Store, groups: Sequence[Group], same: Callable[[str], Any], *, states: bool, folds: int, seed: int
) -> dict[str, Any]:
    """Fits a reranker to the scored groups of "train" and saves it; every stored layer and pooling is tried."""
    views = {}
    if states:
        if "embeddings/train" not in store.tables("embeddings"):
            raise InputError(f"{store.path} holds no vectors; run `trimtab embed` first, or fit with --no-states")
        keys = store.settings("embeddings/train")["keys"]
        views = {key: embeddings.Stored(None, store, "train", keys=(key,)) for key in keys}
    reranker = learners.fit_reranker(groups, views, same=same, folds=folds, seed=seed)
    reranker.save(store.path / FOLDER)
    form, metrics = reranker.form, reranker.card["metrics"]
    return {
        "cues": "+".join(form.cues) or "none", "states": form.states or "none", "l2": form.l2, "pool": form.pool,
        "held_out_reward": round(metrics["held_out_reward"], 4), "held_out_null": round(metrics["held_out_null"], 4),
        "null": metrics["null"],
        "forms_tried": len(reranker.card["selection"]), "learnable_prompts": reranker.card["learnable_prompts"],
    }  # fmt: skip


def values(store: Store, name: str, groups: Sequence[Group], same: Callable[[str], Any]) -> dict[str, Any]:
    """{"reranker": its value for every completion of the stored set `name`}, {} when the run has no reranker."""
    folder = Path(store.path) / FOLDER
    if not (folder / "card.json").exists():
        return {}
    reranker = learners.Reranker.load(folder, same=same)
    if reranker.form.states is not None:
        embed = embeddings.Stored(None, store, name, keys=(reranker.form.states,))
        reranker = learners.Reranker.load(folder, embed, same)
    return {"reranker": [[r.value for r in row] for row in reranker(groups)]}
