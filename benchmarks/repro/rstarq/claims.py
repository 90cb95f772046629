"""Claims of "From r to Q*" (arXiv 2404.12358) on a real model, SmolLM2-135M, with an exact judge: worked sums.

    python -m benchmarks rstarq [stages="train tradeoff"]
    python -m benchmarks rstarq more=true stages="train beams tradeoff curves"

Word problems and worked answers come by rule (problems.py). The stages, each resumable, all by default:
  train    SFT of the base on true answers; samples of the SFT policy on other problems; right-vs-wrong pairs of them;
           DPO from SFT at two betas and two rates, and DPO from the base without SFT on the same pairs
  tradeoff reward and KL(policy || SFT) of samples at temperature 1, greedy reward (base, SFT, DPO)
  curves   chosen and rejected implicit rewards through training, with and without SFT first
  credit   planted errors: AUROC of -credit for the wrong tokens, against log-probs of base, SFT and DPO, and chance
  beams    1, 2, 3, 5, 8, 16 beams on SFT and DPO: reward, tokens and end, by the sum and by the mean of log-probs
The judge is the sum itself; it taught nothing but the labels right and wrong. Intervals: 95 % paired bootstrap over
problems. `more`: twice the samples for pairs, in bfloat16; its result is rstarq_more's. docs/results/rstarq.md quotes
both. Models and samples are kept in runs/NAME. --small: a few problems of each.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repro.rstarq.problems import Planted, plant, problems, reward, true_completion
from benchmarks.results import stacked
from benchmarks.run import Run
from trimtab.data.pairs import right_vs_wrong
from trimtab.decoders import BeamSearch, Plain
from trimtab.evaluation.metrics import mean_interval, paired_bootstrap
from trimtab.learners.run import Checkpoints, Compute, Optim
from trimtab.learners.token.credit import auroc, pieces_of
from trimtab.learners.token.policy import Policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.load import load_lm
from trimtab.samplers.cached import Cached
from trimtab.samplers.hf import HF
from trimtab.store import Store
from trimtab.types import Group, Pair, Reward, SamplingParams

SETTINGS = {
    "model": "smollm2-135m", "more": False, "stages": ("train", "tradeoff", "curves", "credit", "beams"),
    "sft": 480, "pairs": 240, "test": 80, "planted": 300, "prompts_of_beams": 32,
    "beams": ("1", "2", "3", "5", "8", "16"), "every_policy": True, "by_rule": False, "folder": "runs/rstarq",
}  # fmt: skip
SMALL = {
    "sft": 16, "pairs": 8, "test": 6, "planted": 8, "prompts_of_beams": 2, "beams": ("1", "2"), "every_policy": False,
    "by_rule": True, "folder": "runs/rstarq_small",
}  # fmt: skip
POLICIES = {"dpo 0.1": (0.1, 2e-5), "dpo 0.5": (0.5, 2e-5), "dpo 0.1 slow": (0.1, 3e-6)}
"""Name: beta and learning rate of the DPO runs that start at the SFT policy."""
SAMPLES = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=64, seed=0)
MAIN = "dpo 0.1 slow"


def part(start: int, count: int):
    """Problems `start` to `start + count` of one fixed list, so that the parts share none."""
    return problems(start + count, seed=7)[start:]


def planted_tokens(planted: Planted, pieces: Sequence[str]) -> np.ndarray:
    ends = np.cumsum([len(x) for x in pieces])
    starts = ends - [len(x) for x in pieces]
    return (starts < planted.span[1]) & (ends > planted.span[0])


class Repeat:
    """The models and samples of one set of settings, made where they are missing, and the stages over them."""

    def __init__(self, s: Any):
        self.s, self.folder = s, Path(s.folder + "_more" * s.more)
        self.each = 8 if s.more else 4
        """Samples a problem, for the pairs."""
        self.dtype = "bfloat16" if s.more else "float32"
        """Of sampling, log-probs, search. Trained weights are float32; with bfloat16 their step runs under autocast."""
        self.step: dict[str, Any] = {"trainer": {"bf16": True}, "micro_tokens": 1024} if s.more else {}
        self.starts = POLICIES if s.every_policy and not s.more else {MAIN: POLICIES[MAIN]}
        self.without_sft = () if s.more else ("dpo without sft",)

    def sampled(self, name: str, model: str, items, n: int, params: SamplingParams) -> list[Group]:
        sampler = Cached(HF(model, batch=64, dtype=self.dtype), Store(self.folder / "samples"), name, batch=32)
        groups = sampler([p.prompt for p in items], n, params)
        return [
            Group(g.prompt, g.completions, tuple(Reward(reward(c.text, g.prompt.target)) for c in g.completions))
            for g in groups
        ]

    def sft(self) -> str:
        demonstrations = [Group(p.prompt, (true_completion(p),)) for p in part(0, self.s.sft)]
        return str(
            train_policy(
                demonstrations,
                model=self.s.model,
                out=self.folder / "sft",
                loss="sft",
                optim=Optim(1e-4, batch_size=8),
                compute=Compute("float32", **self.step),
                checkpoints=Checkpoints(every=0.2),
            ).path
        )

    def pairs(self) -> list[Pair]:
        """Right against wrong samples of the SFT policy. A --small one gets nothing right: answers by rule."""
        items = part(1000, self.s.pairs)
        found = right_vs_wrong(self.sampled("pairs", self.sft(), items, self.each, SAMPLES))
        if self.s.by_rule and not found:
            rng = np.random.default_rng(0)
            found = [Pair(p.prompt, true_completion(p), plant(p, "step", "carried", rng).completion) for p in items]
        return found

    def dpo(self, name: str, start: str = "", beta: float = 0.1, rate: float = 2e-5) -> str:
        start = start or self.sft()
        return str(
            train_policy(
                self.pairs(),
                model=start,
                out=self.folder / name.replace(" ", "_"),
                loss="dpo",
                loss_settings={"beta": beta},
                optim=Optim(rate, batch_size=4),
                compute=Compute("float32", reference_store=self.folder / f"reference_{Path(start).name}", **self.step),
                checkpoints=Checkpoints(every=0.2),
            ).path
        )

    def policies(self) -> dict[str, str]:
        return {"base": self.s.model, "sft": self.sft()} | {
            k: self.dpo(k, beta=b, rate=r) for k, (b, r) in self.starts.items()
        }

    def train(self) -> dict:
        groups = self.sampled("pairs", self.sft(), part(1000, self.s.pairs), self.each, SAMPLES)
        mean = np.array([g.reward_N.mean() for g in groups])
        self.policies()
        for name in self.without_sft:
            self.dpo(name, self.s.model)
        return {"demonstrations": self.s.sft, "prompts of pairs": self.s.pairs, "samples a prompt": self.each,
                "pairs": len(self.pairs()), "pass@1 of SFT on them": float(mean.mean())}  # fmt: skip

    def sequence_logprobs(self, model: str, groups: Sequence[Group]) -> np.ndarray:
        """Σ log π of each completion, shape (P, N)."""
        rows = Policy(load_lm(model, self.dtype)).logprobs(groups)
        return np.array([[float(np.sum(x, dtype=np.float64)) for x in row] for row in rows])

    def tradeoff(self) -> list[dict]:
        items, rows, kept = part(2000, self.s.test), [], {}
        for name, model in self.policies().items():
            drawn = self.sampled(f"test_{name.replace(' ', '_')}", model, items, 2, SAMPLES)
            greedy = self.sampled(f"greedy_{name.replace(' ', '_')}", model, items, 1,
                             SamplingParams(temperature=0.0, max_tokens=64))  # fmt: skip
            kl = (self.sequence_logprobs(model, drawn) - self.sequence_logprobs(self.sft(), drawn)).mean(1)
            kept[name] = {
                "reward": np.array([g.reward_N.mean() for g in drawn]),
                "greedy": np.array([g.reward_N[0] for g in greedy]), "kl": kl,
                "tokens": np.array([np.mean([len(c.logprobs or ()) for c in g.completions]) for g in drawn]),
            }  # fmt: skip
        for name, found in kept.items():
            row = {"policy": name} | {k: list(mean_interval(v)[:3]) for k, v in found.items()}
            for key in ("reward", "greedy"):
                row[f"{key} minus sft"] = list(paired_bootstrap(found[key], kept["sft"][key])[:3])
            rows.append(row)
            print(
                f"{name:10}", *(f"{k} {v[0]:+.3f} [{v[1]:+.3f}, {v[2]:+.3f}]" for k, v in row.items() if k != "policy")
            )
        return rows

    def curves(self) -> dict[str, list[dict]]:
        """rewards/chosen and rewards/rejected of every step, as train_policy logged them."""
        found = {}
        for name in self.without_sft:
            self.dpo(name, self.s.model)
        for name in (*self.starts, *self.without_sft):
            log = [json.loads(x) for x in (self.folder / name.replace(" ", "_") / "log.jsonl").read_text().splitlines()]
            keys = (
                "step",
                "rewards/chosen",
                "rewards/rejected",
                "rewards/accuracies",
                "logps/chosen",
                "logps/rejected",
            )
            found[name] = [{k: x[k] for k in keys} for x in log if "rewards/chosen" in x]
            last = found[name][-1]
            print(f"{name:16} last step: chosen {last['rewards/chosen']:+.3f} rejected {last['rewards/rejected']:+.3f}")
        return found

    def credit(self) -> list[dict]:
        rng = np.random.default_rng(0)
        items = part(3000, self.s.planted)
        cases = [(kind, way) for kind in ("fact", "step") for way in ("carried", "alone")]
        planted = [plant(p, *cases[i % 4], rng) for i, p in enumerate(items)]
        groups = [Group(x.problem.prompt, (x.completion,)) for x in planted]
        names = self.policies()
        logprobs = {
            k: [x[0] for x in Policy(load_lm(names[k], self.dtype)).logprobs(groups)]
            for k in ("base", "sft", *self.starts)
        }
        lm = Policy(load_lm(names["sft"], self.dtype))
        pieces = [pieces_of(lm.lm.tokenizer, lm.encode(g)[1][0]) for g in groups]

        def minus(a: str, b: str) -> list[np.ndarray]:
            return [y - x for x, y in zip(logprobs[a], logprobs[b], strict=True)]

        signals = {f"credit of {k} (log-ratio to SFT)": minus(k, "sft") for k in self.starts}
        signals |= {"log-ratio SFT to base": minus("sft", "base")}
        signals |= {f"-log π of {k}": [-x for x in v] for k, v in logprobs.items()}
        signals |= {"chance (random)": [rng.random(len(x)) for x in pieces]}
        wrong = [planted_tokens(x, p) for x, p in zip(planted, pieces, strict=True)]
        digit = [np.array([p.strip().isdigit() for p in row]) for row in pieces]
        found, best = [], np.array([auroc(s, w) for s, w in zip(signals["-log π of sft"], wrong, strict=True)])
        for name, values in signals.items():
            area = np.array([auroc(s, w) for s, w in zip(values, wrong, strict=True)])
            digits = np.array([auroc(s[d], w[d]) for s, w, d in zip(values, wrong, digit, strict=True)])
            first = np.array([float(w[int(np.argmax(s))]) for s, w in zip(values, wrong, strict=True)])
            row = {"signal": name} | {
                "auroc": list(mean_interval(area)[:3]), "auroc among digits": list(mean_interval(digits)[:3]),
                "top token is wrong": list(mean_interval(first)[:3]),
                "minus -log π of sft": list(paired_bootstrap(area, best)[:3]),
            }  # fmt: skip
            for i, (kind, way) in enumerate(cases):
                row[f"{kind}, {way}"] = list(mean_interval(area[i::4])[:3])
            found.append(row)
            print(
                f"{name:46}", *(f"{k} {v[0]:+.3f} [{v[1]:+.3f}, {v[2]:+.3f}]" for k, v in row.items() if k != "signal")
            )
        return found

    def beams(self) -> list[dict]:
        prompts, rows = [p.prompt for p in part(2000, self.s.test)][: self.s.prompts_of_beams], []
        names, kept, widths = self.policies(), {}, [int(b) for b in self.s.beams]
        for name in ("sft", MAIN):
            lm = load_lm(names[name], self.dtype)
            for width in widths:
                for penalty in (0.0, 1.0) if width in (5, 16) else (0.0,):
                    file = self.folder / "beams" / f"{name}_{width}_{penalty:g}.json"
                    if not file.is_file():
                        begin = time.perf_counter()
                        beams = Plain(BeamSearch(lm, width, length_penalty=penalty))
                        answers = beams(prompts, SamplingParams(max_tokens=64))
                        seconds = time.perf_counter() - begin
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_text(json.dumps({
                            "reward": [
                                reward(a.completion.text, p.target) for a, p in zip(answers, prompts, strict=True)
                            ],
                            "tokens": [len(a.completion.logprobs or ()) for a in answers], "seconds": seconds,
                            "ended": [a.completion.finish == "stop" for a in answers],
                            "logprob": [sum(a.completion.logprobs or ()) for a in answers]}))  # fmt: skip
                    kept[name, width, penalty] = json.loads(file.read_text())
        for (name, width, penalty), found in kept.items():
            one, five = (kept[name, w, 0.0] for w in (1, min(5, widths[-1])))
            row = {"policy": name, "beams": width, "length_penalty": penalty, "seconds": found["seconds"]}
            row |= {k: list(mean_interval(found[k])[:3]) for k in ("reward", "tokens", "ended", "logprob")}
            row["reward minus 1 beam"] = list(paired_bootstrap(found["reward"], one["reward"])[:3])
            row["reward minus 5 beams"] = list(paired_bootstrap(found["reward"], five["reward"])[:3])
            rows.append(row)
            print(f"{name:8} beams {width:2} penalty {penalty:g} reward {row['reward'][0]:.3f} "
                  "minus 1 beam {:+.3f} [{:+.3f}, {:+.3f}]".format(*row["reward minus 1 beam"]),
                  f"tokens {row['tokens'][0]:.1f} ended {row['ended'][0]:.2f}",
                  f"Σ log π {row['logprob'][0]:.2f}")  # fmt: skip
        return rows


STAGES = ("train", "tradeoff", "curves", "credit", "beams")


def main(run: Run) -> None:
    repeat = Repeat(run.settings)
    unknown = [s for s in run.settings.stages if s not in STAGES]
    if unknown:
        raise SystemExit(f"unknown stage {unknown[0]!r}: one of {', '.join(STAGES)}")
    for stage in run.settings.stages:
        begin = time.time()
        print(f"== {stage}", flush=True)
        found = getattr(repeat, stage)()
        print(f"{stage}: {time.time() - begin:.0f} s", flush=True)
        name = "rstarq_more" if run.settings.more else "rstarq"
        figures = found if stage == "train" else {}
        if stage == "curves":
            found = [{"policy": k, **x} for k, rows in found.items() for x in rows]
        rows = [] if stage == "train" else stacked({stage: found})
        run.write(figures, rows, name=name, keep=("table",), dtype=repeat.dtype)
