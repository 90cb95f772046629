"""A FOLDER of anything learnt to the object that was saved there, by what its card says it is.

Probe, pairwise probe, reranker, calibration, router, policy, reward model, sparse autoencoder, or the run directory
that holds them. What it reads with (an embedder, a model) is made again from the card and must be the same one.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.json_file import read_json

if TYPE_CHECKING:
    from trimtab.learners import SAE, PairwiseProbe, Probe, Reranker, RewardRouter
    from trimtab.learners.completion.calibrate import Calibrated
    from trimtab.learners.token.policy import LoadedPolicy
    from trimtab.rewards import RewardModel
    from trimtab.store import Store

    Learnt = Probe | PairwiseProbe | Reranker | Calibrated | RewardRouter | LoadedPolicy | RewardModel | SAE | Store

_SAES = ("cfg.json", "params.npz", "params.safetensors")


def load(folder: str | os.PathLike[str], **given: Any) -> "Learnt":
    """Whatever trimtab saved in `folder`, ready to use: the card in it says which kind of object it is.

    `given` goes to the loader of that kind, in the place of what the card would name: `embed=`, `same=` and `signals=`
    (rerankers), `reward=` (calibrations), `device=`, `dtype=`, `layer=` (autoencoders). Without `embed` the card's own
    embedder is made again.
    InputError: nothing of ours in the folder, or a kind that is not known. ModelError: the card and the model differ.
    """
    source = Path(folder).expanduser()
    if not source.is_dir():
        raise InputError(f"{source} is no folder: give the one that a fit, a training or a run wrote")
    for file, loader in _FILES.items():
        if (source / file).is_file():
            return loader(source, given)
    known = "a fitted object, a trained model, an autoencoder or a run"
    raise InputError(f"{source} holds none of {', '.join(_FILES)}, so it is not {known} of trimtab")


def _fitted(folder: Path, given: Mapping[str, Any]) -> Any:
    from trimtab.embeddings import from_card
    from trimtab.learners import PairwiseProbe, Probe, Reranker
    from trimtab.learners.completion.calibrate import REWARD, Calibrated

    kinds = {"q_probe": Probe, "pairwise_probe": PairwiseProbe, "reranker": Reranker, "calibrated": Calibrated}
    card = read_json(folder / "card.json", "a card", {"kind": str, "embedder?": (dict, type(None))})
    if card["kind"] not in kinds:
        raise InputError(f"{folder / 'card.json'} is of the kind {card['kind']!r}; known are {', '.join(kinds)}")
    if card["kind"] == "calibrated":  # what scores lies beside the maps, or comes as `reward=`
        reward = given.get("reward")
        if reward is None and (folder / REWARD).is_dir():
            reward = _fitted(folder / REWARD, given)
        return Calibrated.load(folder, reward)
    embedder = card.get("embedder")
    embed = given.get("embed") or (from_card(embedder) if embedder else None)
    return kinds[card["kind"]].load(folder, **{**given, "embed": embed})


def _router(folder: Path, given: Mapping[str, Any]) -> "RewardRouter":
    from trimtab.embeddings import prompts_from_card
    from trimtab.learners.model.router import load_router

    encoder = read_json(folder / "router.json", "a router's card", {"encoder?": (dict, type(None))}).get("encoder")
    return load_router(folder, **{"embed": prompts_from_card(encoder) if encoder else None, **given})


def _policy(folder: Path, given: Mapping[str, Any]) -> "LoadedPolicy":
    from trimtab.learners import load_policy

    return load_policy(folder, **given)


def _reward_model(folder: Path, given: Mapping[str, Any]) -> "RewardModel":
    from trimtab.rewards import RewardModel

    return RewardModel(str(folder), **given)


def _sae(folder: Path, given: Mapping[str, Any]) -> "SAE":
    from trimtab.learners import load_sae

    return load_sae(folder, **given)


def _store(folder: Path, given: Mapping[str, Any]) -> "Store":
    from trimtab.store import Store

    return Store(folder, **given)


_FILES: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "policy.json": _policy, "reward_model.json": _reward_model, "router.json": _router, "card.json": _fitted,
    **dict.fromkeys(_SAES, _sae), "manifest.json": _store,
}  # fmt: skip
"""The file that only folders of one kind hold, and how such a folder is read."""
