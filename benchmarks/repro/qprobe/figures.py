"""Q-Probe's table and figures (arXiv 2402.14688) on what is stored here: one command each.

    python -m benchmarks qprobe_figures figures="table1 fig2" [run=runs/demo]

`figures`: table1 fig2 fig3 fig4 beta layers pairs, or all. `run`: a finished `trimtab demo` or `trimtab run`, its own
train and test prompts. mbpp=true: the MBPP samples and states that `qprobe_mbpp` keeps (MBPP's own train and test ids).
Table 1 has the paper's baselines: greedy, the prompt RM, pass@k and, with `few` (a run of the same task with
`data.shots`), k-shot on own successes, alone and with a probe; LoRA SFT on successes is sft_on_successes.py. Probes are
linear, on one layer (`view`), l2 chosen by cross-validation on the training prompts. "pairs" is the preference part:
Bradley-Terry and appendix B's ratio loss on fractions of the better-against-worse pairs. A row a task and figure is
kept: a further run adds to the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repro.qprobe import mbpp
from benchmarks.repro.qprobe.reading import View, nulls, table, taken
from benchmarks.repro.qprobe.reranker_tasks import read_run, split
from benchmarks.run import Run
from trimtab import evaluation
from trimtab.data import all_pairs
from trimtab.evaluation.table import plain
from trimtab.learners import fit_probe, fit_probe_pairs
from trimtab.rewards import PromptReward, extractor
from trimtab.types import Group

LOSSES = ("mse", "ce", "pg")
SETTINGS = {
    **mbpp.SETTINGS, "figures": ("all",), "run": "runs/demo", "mbpp": False, "few": "", "view": "",
    "extract": "last_number",
}  # fmt: skip
SMALL = {"figures": ("fig3", "fig4")}


@dataclass(frozen=True)
class Given:
    """What the figures are made of; `greedy` is the reward of the greedy answer of each test prompt."""

    name: str
    train: list[Group]
    test: list[Group]
    views: dict[str, View]
    view: str
    greedy: np.ndarray
    same: Any = None
    prompt_rm: list[Any] | None = None
    few: "Given | None" = None

    def values(self, train: list[Group], loss: str, view: str = "") -> list[list[float]]:
        """A probe of these training groups on the test groups."""
        probe = fit_probe(train, self.views[view or self.view], loss=loss, l2=(1.0, 0.1, 0.01))
        return [[r.value for r in row] for row in probe(self.test)]

    def rankers(self) -> dict[str, Any]:
        """The three losses' values, fitted once."""
        if not RANKERS:
            RANKERS.update({f"probe {loss}": self.values(self.train, loss) for loss in LOSSES})
        return RANKERS


RANKERS: dict[str, Any] = {}


@dataclass(frozen=True)
class Picked:
    """A view of whole groups, asked for some completions of them: pairs name a few."""

    view: View
    whole: dict[str, Group]

    @property
    def card(self) -> dict[str, Any]:
        return self.view.card

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        rows = []
        for g in groups:
            every = self.whole[g.prompt.id].completions
            rows.append(self.view([g])[0][[every.index(c) for c in g.completions]])
        return rows


def table1(g: Given) -> Any:
    """Table 1: every probe beside its nulls, minus greedy and minus the highest mean log-prob."""
    chosen = strategies(g, g.rankers())
    if g.few is not None:
        few = strategies(g.few, {f"probe {loss}": g.few.values(g.few.train, loss) for loss in LOSSES})
        chosen |= {f"k-shot, {name}": reward for name, reward in few.items()}
    chosen |= {"pass@k skyline": chosen.pop("oracle")}
    text, rows = table(chosen, ["greedy", "mean log-prob"], len(g.test))
    print(text)
    return rows


def strategies(g: Given, rankers: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every strategy to its reward on the test prompts."""
    chosen = {"greedy": g.greedy, **nulls(g.test, g.same)}
    oracle = chosen.pop("oracle")
    if g.prompt_rm is not None:
        chosen["prompt RM"] = taken(g.prompt_rm, g.test)
    return chosen | {name: taken(v, g.test) for name, v in rankers.items()} | {"oracle": oracle}


def fig2(g: Given) -> Any:
    """Fig. 2: expected reward against the number of training prompts, three draws of them each."""

    def fit_on(index: np.ndarray) -> dict[str, Any]:
        some = [g.train[i] for i in index]
        return {f"probe {loss}": g.values(some, loss) for loss in LOSSES}

    sizes = sorted({max(5, len(g.train) // d) for d in (8, 4, 2, 1)})
    return evaluation.reward_against_prompts(g.test, fit_on, sizes, len(g.train), beta=0.0, draws=2000)


def fig3(g: Given) -> Any:
    """Fig. 3: expected reward against k."""
    return evaluation.reward_against_k(g.test, g.rankers(), draws=2000)


def fig4(g: Given) -> Any:
    """Fig. 4: what a probe's value says about the prompt rather than the completion."""
    return evaluation.value_against_pass_rate(g.test, g.rankers(), draws=2000)


def beta(g: Given) -> Any:
    """The sweep of the softmax policy's beta, values in units of their spread within a prompt."""
    scaled = {}
    for name, values in g.rankers().items():
        spread = np.std(np.concatenate([np.asarray(v) - np.mean(v) for v in values])) or 1.0
        scaled[name] = [np.asarray(v) / spread for v in values]
    return evaluation.reward_against_beta(g.test, scaled, draws=2000)


def layers(g: Given) -> Any:
    """The sweep of layers, at the pooling of --view."""
    pooling = g.view.split(".")[1]
    found = sorted((int(k[5:].split(".")[0]), k) for k in g.views if k.endswith("." + pooling))
    by_layer = {n: {f"probe {loss}": g.values(g.train, loss, k) for loss in ("mse", "pg")} for n, k in found}
    return evaluation.reward_against_layer(g.test, by_layer, draws=2000)


def pairs(g: Given) -> Any:
    """Preference probes on fractions of the pairs (Fig. 6's data fractions), as chosen reward on the test prompts."""
    every = all_pairs(g.train)
    order = np.random.default_rng(0).permutation(len(every))
    chosen = {"mean log-prob": nulls(g.test, None)["mean log-prob"]}
    view = Picked(g.views[g.view], {x.prompt.id: x for x in [*g.train, *g.test]})
    for loss in ("bt", "ratio"):
        for fraction in (0.05, 0.2, 1.0):
            some = [every[i] for i in order[: max(int(fraction * len(every)), 2)]]
            probe = fit_probe_pairs(some, view, loss=loss, l2=(1.0, 0.1))
            values = [[r.value for r in row] for row in probe(g.test)]
            chosen[f"{loss}, {fraction:.0%} of {len(every)} pairs"] = taken(values, g.test)
    text, rows = table(chosen, ["mean log-prob"], len(g.test))
    print(text)
    return rows


FIGURES: dict[str, Callable[[Given], Any]] = {
    "table1": table1, "fig2": fig2, "fig3": fig3, "fig4": fig4, "beta": beta, "layers": layers, "pairs": pairs,
}  # fmt: skip


def given(s: Any) -> Given:
    """The task's groups, split and views."""
    if not s.mbpp:
        g = of_run(s.run, s)
        if "table1" not in s.figures and "all" not in s.figures:
            return g
        model = PromptReward(g.train[0].completions[0].model.partition("@")[0], dtype="bfloat16")
        return replace(
            g,
            prompt_rm=[[r.value for r in row] for row in model(g.test)],
            few=matched(of_run(s.few, s), g.test) if s.few else None,
        )
    rows, folder = mbpp.samples(), Path(s.folder)
    rewards = mbpp.scored(rows, folder)
    groups, vectors, asked = mbpp.read_states(rows, rewards, s.completions, mbpp.states_folder(s))
    greedy = dict(zip([g.prompt.id for g in groups], mbpp.greedy_rewards(groups, s), strict=True))
    train = [g for g in groups if int(g.prompt.id.split("/")[1]) > 510]
    test = [g for g in groups if int(g.prompt.id.split("/")[1]) <= 510]
    return Given(
        "mbpp", train, test, {k: View(k, v) for k, v in vectors.items()}, s.view or "layer20.last",
        np.array([greedy[g.prompt.id] for g in test]), None, [asked[g.prompt.id] for g in test],
    )  # fmt: skip


def of_run(run: str, s: Any) -> Given:
    """A finished run's groups; prompts with a greedy answer are its test prompts."""
    name, groups, views, rewards = read_run(run)
    train, test, greedy_P = split(groups, rewards)
    return Given(name, train, test, views, s.view or "layer20.text", greedy_P, extractor(s.extract))


def matched(g: Given, test: list[Group]) -> Given:
    """`g` with its test prompts in the order of `test`, so that differences are paired."""
    place = {x.prompt.id: i for i, x in enumerate(g.test)}
    order = [place[x.prompt.id] for x in test]
    return replace(g, test=[g.test[i] for i in order], greedy=g.greedy[order])


def main(run: Run) -> None:
    """Some figures, or all of them."""
    s = run.settings
    if not s.mbpp:
        run.need(s.run, "a finished `trimtab run` or `trimtab demo`")
    g = given(s)
    print(f"{g.name}: {len(g.train)} training and {len(g.test)} test prompts, {g.view}", flush=True)
    for figure in FIGURES if "all" in s.figures else s.figures:
        found = plain(FIGURES[figure](g))
        for curve in found.get("curves", []) if isinstance(found, dict) else []:
            points = "  ".join(f"{x:g}: {y['mean']:.3f}" for x, y in zip(curve["x"], curve["y"], strict=True))
            print(f"{figure} {curve['name']}: {points}", flush=True)
        if figure == "fig4":
            for p in found:
                print(f"fig4 {p['name']}: slope {p['slope']:.2f}, pairs ordered rightly {p['accuracy']['mean']:.3f}")
        row = {"task": g.name, "figure": figure, "train": len(g.train), "test": len(g.test), "view": g.view}
        run.write({}, [{**row, "data": found}], keep=("task", "figure"))
