"""REWARDS to an object that gives value to tokens, features, completions or models."""

import importlib
from typing import Any

_NAMES = {
    "Both": "model.ngrams",
    "FeatureLeash": "feature.leash",
    "HashedNgrams": "model.ngrams",
    "ImplicitReward": "token.policy",
    "LinearFit": "completion.linear",
    "Lora": "token.trainer",
    "PAIR_LOSSES": "token.losses",
    "PROBE_LOSSES": "completion.probe_losses",
    "PairwiseProbe": "completion.pairwise",
    "PairwiseFit": "completion.west_of_n",
    "Policy": "token.policy",
    "Probe": "completion.probe",
    "ProbeFit": "completion.west_of_n",
    "RewardModelFit": "completion.west_of_n",
    "Reader": "completion.reader",
    "RewardRouter": "model.router",
    "contrast_pairs": "completion.pseudo_pairs",
    "extremes": "completion.tournament",
    "filter_pairs": "completion.pseudo_pairs",
    "SAE": "feature.sae",
    "check_sae": "feature.check",
    "fit_linear": "completion.linear",
    "fit_pairwise": "completion.pairwise",
    "fit_probe": "completion.probe",
    "fit_probe_pairs": "completion.probe",
    "fit_reader": "completion.reader",
    "fit_router": "model.router",
    "load_policy": "token.policy",
    "load_router": "model.router",
    "judged_pairs": "completion.pseudo_pairs",
    "load_sae": "feature.sae",
    "load_sae_release": "feature.sae",
    "merge_adapter": "token.trainer",
    "mix": "completion.pseudo_pairs",
    "online_rounds": "completion.probe_online",
    "plan_memory": "token.plan",
    "select_probe": "completion.probe",
    "pseudo_pairs": "completion.pseudo_pairs",
    "reward_loss": "completion.reward_model",
    "token_credit": "token.credit",
    "train_policy": "token.trainer",
    "train_reward_model": "completion.reward_model",
    "west_of_n": "completion.west_of_n",
    "train_sae": "feature.train",
}

__all__ = [*_NAMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Names load on first use: `import trimtab.learners` imports no torch."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.learners.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab.learners' has no attribute {name!r}")
