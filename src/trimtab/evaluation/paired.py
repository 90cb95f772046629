"""Scored groups of several models or runs to one table: what each earns on the prompts all of them answered.

A prompt's number is the mean reward of its completions, so that runs of other n compare. Each is paired with the first
by prompt id; prompts that one of them lacks are left out of all and counted. It samples and scores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.choosing import token_count
from trimtab.evaluation.metrics import mean_known
from trimtab.evaluation.table import Table, row, tabulate
from trimtab.types import Group


def versus(runs: Mapping[str, Sequence[Group]], *, draws: int = 10_000, seed: int = 0) -> Table:
    """Compares scored groups by name, each with the first, with intervals over the common prompts.

    `more["models"]` of a row are the models of its completions. InputError for fewer than two, for prompts that nobody
    shares, for an id under which two runs have other text, and for a run without a reward.
    """
    if len(runs) < 2:
        raise InputError("give two or more runs or models to compare")
    by_id = {name: {g.prompt.id: g for g in groups} for name, groups in runs.items()}
    baseline, first = next(iter(by_id.items()))
    common = [i for i in first if all(i in found for found in by_id.values())]
    if not common:
        raise InputError(f"{' and '.join(by_id)} have no prompt in common: sample them on the same prompts")
    rows = []
    for name, found in by_id.items():
        other = next((i for i in common if found[i].prompt.messages != first[i].prompt.messages), None)
        if other is not None:
            raise InputError(f"prompt {other!r} is another text in {name}: these are not the same prompts")
        groups = [found[i] for i in common]
        rewards = {g.prompt.id: mean_known(g.reward_N) for g in groups}
        if np.isnan(list(rewards.values())).all():
            raise InputError(
                f"{name}: not one completion of the common prompts has a reward; score them first (--reward)"
            )
        tokens = float(np.mean([np.mean([token_count(c) for c in g.completions]) for g in groups]))
        unscored = float(sum(np.isnan(g.reward_N).mean() for g in groups))
        models = ", ".join(sorted({c.model for g in groups for c in g.completions}))
        more = {"models": models}
        rows.append(row(name, rewards, tokens=tokens, unscored=unscored, more=more, draws=draws, seed=seed))
    left = {name: len(found) - len(common) for name, found in by_id.items()}
    notes = [f"{n} prompts of {name} are not in all: left out" for name, n in left.items() if n]
    notes += [f"{len(common)} prompts, answered by all"]
    return replace(tabulate(rows, baseline=baseline, draws=draws, seed=seed), notes=tuple(notes))
