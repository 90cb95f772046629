"""A run's probe or reranker to a calibrated one in the run: P(right) of what it selects, for stops and cascades."""

from collections.abc import Mapping
from typing import Any

from trimtab import rewards
from trimtab.errors import InputError, unknown
from trimtab.jobs import inputs, main_job, probes
from trimtab.learners.completion.calibrate import calibrate
from trimtab.progress import working
from trimtab.store import Store
from trimtab.types import RewardFn


def calibrated(
    out: main_job.Out, *, by: str = "probe", split: str = "", reward: str | RewardFn = "",
    options: Mapping[str, Any] | None = None, extract: str | main_job.Extract = "", threshold: float = 0.5,
    folds: int = 5, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Calibrates what a run has fitted on completions that it was not fitted on; saved in the run, `calibrated/<by>`.

    `by`: "probe" (of several the best on training prompts), "probe:mse", or "reranker". `split`: which completions;
    none: "test", or the only ones. `extract`: what a reranker's `same` was made of.
    """
    store = main_job.sampled(out)
    name = inputs.completions(store, split, prefer="test")
    groups = store.groups(name, main_job.reward_name(reward, options, store))
    same = main_job.extractor(extract, reward, options, groups) or rewards.extractor("whole")
    reward = _reward(store, name, by, same)
    with working(f"calibrating {by}"):
        found = calibrate(reward, groups, threshold=threshold, folds=folds, seed=seed)
    folder = found.save(store.path / probes.CALIBRATED / by.replace(":", "-"))
    last, card = found.card["by_k"][-1], found.card
    low, high = last["ece_band"]
    facts = {
        "by": by, "completions": name, "prompts": card["prompts"], "unscored": card["unscored"],
        "no_score": card["no_score"], "method": found.maps[-1].method, "k": last["k"],
        "right": round(last["accuracy"], 3), "said": round(last["mean_value"], 3), "ece": round(last["ece"], 3),
        "perfect_reader": f"{low:.3f} to {high:.3f}", "brier": round(last["brier"]["score"], 3),
        "aurc": round(last["aurc"], 3), "saved": str(folder),
    }  # fmt: skip
    if card["apart_from_training"] == "unknown":
        facts["note"] = "its card does not say what it was fitted on (an older version): fit it again to be sure"
    return facts


def _reward(store: Store, name: str, by: str, same: main_job.Extract) -> RewardFn:
    """The fitted thing that `by` names, to read the completions `name`."""
    kind, _, loss = by.partition(":")
    if kind == "reranker" and not loss:
        return probes.load_reranker(store, name, same)
    if kind != "probe":
        raise unknown("fitted thing", by, ("probe", "probe:LOSS", "reranker"))
    held = sorted(f.parent.name for f in (store.path / "probes").glob("*/card.json"))
    if not held:
        raise InputError(f"{store.path} holds no probe; run `trimtab fit probe --out {store.path}` first")
    fitted, _ = probes.load(store, name, [loss] if loss else held, strict=True)
    return fitted[max(fitted, key=lambda x: probes.held_out(fitted[x].card))]
