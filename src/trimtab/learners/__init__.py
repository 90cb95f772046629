"""REWARDS to an object that gives value to tokens, features, completions or models."""

import importlib
from typing import Any

_NAMES = {
    "FeatureLeash": "feature.leash",
    "ImplicitReward": "token.policy",
    "LinearFit": "completion.probe.linear",
    "Lora": "token.trainer",
    "PAIR_LOSSES": "token.losses",
    "PROBE_LOSSES": "completion.probe.losses",
    "PairwiseProbe": "completion.probe.pairwise",
    "PairwiseFit": "completion.west_of_n.west_of_n",
    "Policy": "token.policy",
    "Probe": "completion.probe.probe",
    "ProbeFit": "completion.west_of_n.west_of_n",
    "RewardModelFit": "completion.west_of_n.west_of_n",
    "Reranker": "completion.reranker.reranker",
    "RewardRouter": "model.router",
    "contrast_pairs": "completion.west_of_n.pseudo_pairs",
    "extremes": "completion.west_of_n.tournament",
    "filter_pairs": "completion.west_of_n.pseudo_pairs",
    "SAE": "feature.sae",
    "check_sae": "feature.check",
    "fit_linear": "completion.probe.linear",
    "fit_pairwise": "completion.probe.pairwise",
    "fit_probe": "completion.probe.probe",
    "fit_probe_pairs": "completion.probe.probe",
    "fit_reranker": "completion.reranker.reranker",
    "fit_router": "model.router",
    "load_policy": "token.policy",
    "load_router": "model.router",
    "judged_pairs": "completion.west_of_n.pseudo_pairs",
    "load_sae": "feature.sae",
    "load_sae_release": "feature.sae",
    "merge_adapter": "token.trainer",
    "mix": "completion.west_of_n.pseudo_pairs",
    "online_rounds": "completion.probe.online",
    "plan_memory": "token.plan",
    "select_probe": "completion.probe.probe",
    "pseudo_pairs": "completion.west_of_n.pseudo_pairs",
    "reward_loss": "completion.reward_model",
    "token_credit": "token.credit",
    "train_policy": "token.trainer",
    "train_reward_model": "completion.reward_model",
    "west_of_n": "completion.west_of_n.west_of_n",
    "train_sae": "feature.train",
}

__all__ = [*_NAMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Names load on first use: `import trimtab.learners` imports no torch."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.learners.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab.learners' has no attribute {name!r}")
