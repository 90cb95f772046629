"""REWARDS to an object that gives value to tokens, features, completions or models."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.learners.completion.calibrate import Calibrated, calibrate
    from trimtab.learners.completion.probe.pairwise import PairwiseProbe, fit_pairwise
    from trimtab.learners.completion.probe.probe import Probe, fit_probe, fit_probe_pairs, select_probe
    from trimtab.learners.completion.reranker.reranker import Reranker, fit_reranker
    from trimtab.learners.completion.reward_model import train_reward_model
    from trimtab.learners.completion.west_of_n.pseudo_pairs import pseudo_pairs
    from trimtab.learners.completion.west_of_n.west_of_n import west_of_n
    from trimtab.learners.feature.check import check_sae
    from trimtab.learners.feature.leash import FeatureLeash
    from trimtab.learners.feature.sae import SAE, load_sae
    from trimtab.learners.feature.train import train_sae
    from trimtab.learners.model.router import RewardRouter, fit_router
    from trimtab.learners.run import Checkpoints, Compute, Encoding, Lora, Optim
    from trimtab.learners.token.credit import token_credit
    from trimtab.learners.token.losses import PAIR_LOSSES
    from trimtab.learners.token.policy import Policy, load_policy
    from trimtab.learners.token.trainer import train_policy

__all__ = [
    "PAIR_LOSSES",
    "SAE",
    "Calibrated",
    "Checkpoints",
    "Compute",
    "Encoding",
    "FeatureLeash",
    "Lora",
    "Optim",
    "PairwiseProbe",
    "Policy",
    "Probe",
    "Reranker",
    "RewardRouter",
    "calibrate",
    "check_sae",
    "fit_pairwise",
    "fit_probe",
    "fit_probe_pairs",
    "fit_reranker",
    "fit_router",
    "load_policy",
    "load_sae",
    "pseudo_pairs",
    "select_probe",
    "token_credit",
    "train_policy",
    "train_reward_model",
    "train_sae",
    "west_of_n",
]
_HOMES = {
    "Calibrated": "completion.calibrate",
    "Checkpoints": "run",
    "Compute": "run",
    "Encoding": "run",
    "FeatureLeash": "feature.leash",
    "Lora": "run",
    "Optim": "run",
    "PAIR_LOSSES": "token.losses",
    "PairwiseProbe": "completion.probe.pairwise",
    "Policy": "token.policy",
    "Probe": "completion.probe.probe",
    "Reranker": "completion.reranker.reranker",
    "RewardRouter": "model.router",
    "SAE": "feature.sae",
    "calibrate": "completion.calibrate",
    "check_sae": "feature.check",
    "fit_pairwise": "completion.probe.pairwise",
    "fit_probe": "completion.probe.probe",
    "fit_probe_pairs": "completion.probe.probe",
    "fit_reranker": "completion.reranker.reranker",
    "fit_router": "model.router",
    "load_policy": "token.policy",
    "load_sae": "feature.sae",
    "pseudo_pairs": "completion.west_of_n.pseudo_pairs",
    "select_probe": "completion.probe.probe",
    "token_credit": "token.credit",
    "train_policy": "token.trainer",
    "train_reward_model": "completion.reward_model",
    "train_sae": "feature.train",
    "west_of_n": "completion.west_of_n.west_of_n",
}
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
