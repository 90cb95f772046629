"""Fit of a linear Q-probe with each loss: our solver against an AdamW loop that follows the paper's protocol.

Data: 464 training prompts x 200 completions x 4096 float32 (--small: 232 x 100 x 1024), 200 held-out prompts. A column
is a mix of 256 latent directions with a falling spectrum, scaled and shifted as hidden states are, plus noise of its
own. A latent is a prompt's part, shared by its completions, plus a completion's part. The chance of reward 1 depends on
one planted direction of the completion's part and on the prompt's difficulty, which the features show in part; 5 % of
the training rewards are flipped.
Peer (Q-Probe, arXiv 2402.14688, and its code): raw rows in memory, AdamW 5e-5, weight decay 0.01, 150 epochs, batches
of 1000 rows (PG: 100 chunks of 10, one permutation of the completions shared by all prompts an epoch), beta = 1 in PG:
13,800 steps at full size. It is written here, apart from the package, without the original's extra copies.
Ours: `fit_linear` at one fixed l2 a loss (choosing l2 by cross-validation is timed apart). Both sides take turns: three
runs of ours before, between and after halves of the peer's; median reported. `ratio` is of wall-clock times;
`cpu_ratio`, of processor times, is the steadier one on a busy machine (set threads=1 there: waiting threads burn it).
Peak memory: a fresh process, peak resident size minus that before the features were read, over the feature bytes.
Reward: held-out expected reward over disjoint chunks of 48, argmax (`reward` and `reward_paper`, of the loss where ours
stands worst against the peer) and softmax at beta 0.1 (`reward_softmax`...). `seconds_a_loss` limits the peer; a
peer that was cut is extrapolated linearly in steps and `peer_fraction` says so.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.run import Run
from trimtab.learners.completion.probe.linear import fit_linear

SETTINGS = {
    "prompts": 464, "completions": 200, "dim": 4096, "held_completions": 192, "seconds_a_loss": float("inf"),
    "threads": min(2, os.cpu_count() or 1), "extras": True,
}  # fmt: skip
SMALL = {
    "prompts": 232, "completions": 100, "dim": 1024, "held_completions": 48, "seconds_a_loss": 7.0, "extras": False,
}  # fmt: skip
HELD_PROMPTS, K, LATENTS = 200, 48, 256
L2 = {"mse": 0.1, "ce": 0.1, "pg": 0.01}  # PG's gradient is ten times smaller; what cross-validation picks here
LOSSES = ("mse", "ce", "pg")


def make_data(folder: Path, name: str, prompts: int, completions: int, dim: int, seed: int) -> float:
    """Writes features and clean and noisy rewards; returns the mean clean reward."""
    world = torch.Generator().manual_seed(0)
    mix = torch.randn(LATENTS, dim, generator=world) * torch.arange(1, LATENTS + 1).float()[:, None] ** -0.5
    scale, shift = torch.exp(0.5 * torch.randn(dim, generator=world)), torch.randn(dim, generator=world)
    planted, difficulty = (torch.nn.functional.normalize(torch.randn(2, LATENTS, generator=world), dim=1)).unbind()
    rng = torch.Generator().manual_seed(seed)
    X = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (prompts * completions, dim))
    rewards = torch.empty(2, prompts, completions)
    for p in range(prompts):
        own = 0.7 * torch.randn(completions, LATENTS, generator=rng)
        latent = torch.randn(LATENTS, generator=rng)
        noise = 0.5 * torch.randn(completions, dim, generator=rng)
        X[p * completions : (p + 1) * completions] = (((latent + own) @ mix + noise) * scale + shift).numpy()
        level = 1.5 * (latent @ difficulty) + torch.randn((), generator=rng) - 1
        clean = (torch.rand(completions, generator=rng) < torch.sigmoid(2 / 0.7 * (own @ planted) + level)).float()
        flip = torch.rand(completions, generator=rng) < 0.05
        rewards[:, p] = torch.stack([clean, torch.where(flip, 1 - clean, clean)])
    X.flush()
    np.save(folder / f"{name}_rewards.npy", rewards.view(2, -1).numpy())
    return rewards[0].mean().item()


def held_out(weight: torch.Tensor, X: torch.Tensor, clean: torch.Tensor) -> tuple[float, float]:
    """Expected reward of the argmax (ties averaged) and of softmax at beta 0.1, over disjoint chunks of K."""
    per_prompt = len(clean) // HELD_PROMPTS // K * K
    value = (X @ weight).double().view(HELD_PROMPTS, -1)[:, :per_prompt].reshape(-1, K)
    reward = clean.double().view(HELD_PROMPTS, -1)[:, :per_prompt].reshape(-1, K)
    top = (value == value.amax(1, keepdim=True)).double()
    best = (top * reward).sum(1) / top.sum(1)
    return best.mean().item(), (torch.softmax(value / 0.1, 1) * reward).sum(1).mean().item()


class Paper:
    """The paper's loop for one loss; `run` continues it until a share of its epochs is done."""

    def __init__(self, loss: str, X: torch.Tensor, reward: torch.Tensor, completions: int):
        torch.manual_seed(0)
        self.loss, self.X, self.reward, self.completions = loss, X, reward, completions
        self.probe = torch.nn.Linear(X.shape[1], 1)
        self.optimiser = torch.optim.AdamW(self.probe.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
        self.rng = torch.Generator().manual_seed(0)
        self.batch = torch.empty(1000, X.shape[1])
        self.steps, self.seconds, self.cpu, self.epoch = 0, 0.0, 0.0, 0
        self.steps_in_all = 150 * (len(reward) // 1000)

    def batches(self):
        rows = torch.arange(len(self.reward))
        if self.loss == "pg":
            order = torch.randperm(self.completions, generator=self.rng)
            chunks = rows.view(-1, self.completions)[:, order].reshape(-1, 10)
            chunks = chunks[torch.randperm(len(chunks), generator=self.rng)]
            return [b.reshape(-1) for b in chunks.split(100) if len(b) == 100]
        return [b for b in rows[torch.randperm(len(rows), generator=self.rng)].split(1000) if len(b) == 1000]

    def run(self, share: float, seconds: float) -> None:
        begun, cpu = time.perf_counter(), time.process_time()
        while self.epoch < round(150 * share) and self.seconds + time.perf_counter() - begun < seconds:
            for index in self.batches():
                torch.index_select(self.X, 0, index, out=self.batch)
                value, reward = self.probe(self.batch)[:, 0], self.reward[index]
                if self.loss == "mse":
                    loss = ((value - reward) ** 2).mean()
                elif self.loss == "ce":
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(value, reward)
                else:
                    loss = -(torch.softmax(value.view(-1, 10), 1) * reward.view(-1, 10)).sum(1).mean()
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                self.steps += 1
            self.epoch += 1
        self.seconds += time.perf_counter() - begun
        self.cpu += time.process_time() - cpu


def resident(field: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def worker(run: Run, folder: str, losses: str, form: str) -> dict:
    """In a process of its own: (peak while fitting - before the features were read) / feature bytes, and seconds."""
    torch.set_num_threads(run.settings.threads)
    noisy = np.load(Path(folder) / "train_rewards.npy")[1]
    prompt_R = np.arange(len(noisy)) // run.settings.completions
    tiny = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    fit_linear(tiny, np.arange(64) % 2, np.arange(64) // 4)  # loads what a first fit loads
    before = resident("VmRSS")
    file = Path(folder) / ("train.npy" if form == "float32" else "half.npy")
    X = np.load(file) if form == "float32" else np.load(file, mmap_mode="r")
    begun = time.perf_counter()
    fits = [fit_linear(X, noisy, prompt_R, loss=loss, l2=L2[loss]) for loss in losses.split(",")]
    seconds = time.perf_counter() - begun
    ratio = (resident("VmHWM") - before) / X.nbytes  # the peak of the greediest loss
    return {"memory_ratio": ratio, "s": seconds, "weight": fits[-1].weight_D.tolist()}


def compare(loss: str, X: torch.Tensor, rewards: np.ndarray, held: tuple[torch.Tensor, torch.Tensor], s) -> dict:
    prompt_R = np.arange(len(X)) // s.completions
    paper, ours, cpus, fit = Paper(loss, X, torch.from_numpy(rewards), s.completions), [], [], None
    for share in (0.0, 0.5, 1.0):
        paper.run(share, s.seconds_a_loss)
        begun, cpu = time.perf_counter(), time.process_time()
        fit = fit_linear(X.numpy(), rewards, prompt_R, loss=loss, l2=L2[loss])
        ours.append(time.perf_counter() - begun)
        cpus.append(time.process_time() - cpu)
    assert fit is not None
    fraction = paper.steps / paper.steps_in_all
    peer_s, ours_s = paper.seconds / fraction, statistics.median(ours)
    best, soft = held_out(torch.from_numpy(fit.weight_D), *held)
    paper_best, paper_soft = held_out(paper.probe.weight[0].detach(), *held)
    begun = time.perf_counter()
    torch.mv(X, torch.from_numpy(fit.weight_D))
    one_pass = time.perf_counter() - begun
    return {
        "ratio": peer_s / ours_s, "cpu_ratio": paper.cpu / fraction / statistics.median(cpus), "ours_s": ours_s,
        "ours_runs_s": ours, "ours_cpu_s": cpus, "peer_s": peer_s, "peer_cpu_s": paper.cpu / fraction,
        "peer_steps": paper.steps, "peer_steps_in_all": paper.steps_in_all, "peer_fraction": fraction,
        "reward": best, "reward_paper": paper_best, "reward_softmax": soft, "reward_softmax_paper": paper_soft,
        "iterations": fit.iterations, "passes": fit.passes, "one_pass_s": one_pass, "floor_s": fit.passes * one_pass,
    }  # fmt: skip


def main(run: Run) -> None:
    s = run.settings
    torch.set_num_threads(s.threads)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        pass1 = make_data(folder, "train", s.prompts, s.completions, s.dim, 1)
        held_pass1 = make_data(folder, "held", HELD_PROMPTS, s.held_completions, s.dim, 2)
        memory_ratio = run.worker(tmp, ",".join(LOSSES), "float32")["memory_ratio"]
        X = torch.from_numpy(np.load(folder / "train.npy"))
        rewards = np.load(folder / "train_rewards.npy")[1]
        held = torch.from_numpy(np.load(folder / "held.npy")), torch.from_numpy(np.load(folder / "held_rewards.npy")[0])
        oracle = held_out(torch.zeros(s.dim), *held)[0]
        results = {}
        for loss in LOSSES:
            results[loss] = compare(loss, X, rewards, held, s)
            print(loss, json.dumps(results[loss]), flush=True)
        extra = extras(run, folder, X, rewards, held) if s.extras else {}
    worst = min(results.values(), key=lambda r: r["reward"] - r["reward_paper"])
    soft = min(results.values(), key=lambda r: r["reward_softmax"] - r["reward_softmax_paper"])
    figures = {
        "ratio": min(r["ratio"] for r in results.values()),
        "cpu_ratio": min(r["cpu_ratio"] for r in results.values()), "reward": worst["reward"],
        "reward_paper": worst["reward_paper"], "memory_ratio": memory_ratio,
        "reward_softmax": soft["reward_softmax"], "reward_softmax_paper": soft["reward_softmax_paper"],
        "peer_fraction": min(r["peer_fraction"] for r in results.values()),
        "pass1_train": pass1, "pass1_held": held_pass1, "random_held": oracle, **extra,
    }  # fmt: skip
    run.write(figures, [{"loss": k, "l2": L2[k], **v} for k, v in results.items()])


def extras(
    run: Run, folder: Path, X: torch.Tensor, rewards: np.ndarray, held: tuple[torch.Tensor, torch.Tensor]
) -> dict:
    """Full size only: the cost of choosing l2, and float16 rows mapped from disk."""
    begun = time.perf_counter()
    fit = fit_linear(X.numpy(), rewards, np.arange(len(X)) // run.settings.completions, loss="ce", l2=None)
    chosen = {"ce_cv_s": time.perf_counter() - begun, "ce_cv_l2": fit.l2}
    chosen["ce_cv_reward"] = held_out(torch.from_numpy(fit.weight_D), *held)[0]
    half = np.lib.format.open_memmap(folder / "half.npy", "w+", np.float16, tuple(X.shape))
    for i in range(0, len(X), 4096):
        half[i : i + 4096] = X[i : i + 4096].half().numpy()
    half.flush()
    del half
    child = run.worker(str(folder), "ce", "float16")
    return {
        **chosen, "half_mapped_s": child["s"], "half_mapped_memory_over_float32": child["memory_ratio"] / 2,
        "half_mapped_reward": held_out(torch.tensor(child["weight"]), *held)[0],
    }  # fmt: skip
