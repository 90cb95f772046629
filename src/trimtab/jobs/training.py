"""Pairs of a file or a run's store to a trained policy, and a policy to the credit of its tokens.

All that can be wrong is looked at first: settings, pairs that teach nothing, memory, the SAE of a feature leash.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.data.lint import FATAL, lint_pairs, without
from trimtab.errors import InputError, unknown
from trimtab.evaluation.pages.heatmap import heatmap_html
from trimtab.evaluation.pages.report import prompt_text
from trimtab.jobs import checks
from trimtab.jobs.inputs import Data, examples, pairs
from trimtab.learners.feature.check import check_sae
from trimtab.learners.feature.leash import FeatureLeash
from trimtab.learners.precision import choose_precision
from trimtab.learners.run import Compute, Encoding, Lora, Optim
from trimtab.learners.token.credit import Credit, token_credit
from trimtab.learners.token.plan import MemoryPlan, plan_memory
from trimtab.learners.token.policy import load_policy
from trimtab.learners.token.step import resolve_loss
from trimtab.learners.token.trainer import TrainedPolicy, check_leash, train_policy
from trimtab.lm.catalog import described
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.load import default_device, load_lm, load_tokenizer
from trimtab.publish import publish_text
from trimtab.types import Group, Pair

Say = Callable[[str], object]
"""Hears what a long job has found or done, a text at a time."""


@dataclass(frozen=True)
class Planned:
    """What a training will learn from and need: its rows, what lint found among those given, and the memory plan."""

    rows: list[Any] = field(repr=False)
    given: int
    lint: Mapping[str, int] | None
    """Pairs by what is wrong with them; None for scored groups, which are not linted."""
    memory: MemoryPlan


def train(
    data: Data, *, model: str, out: str | Path, loss: str = "dpo", loss_settings: Mapping[str, float] | None = None,
    sft_weight: float = 0.0, leash: FeatureLeash | None = None, reference: str | None = None,
    lora: Lora | None = None, optim: Optim = Optim(), encoding: Encoding = Encoding(), compute: Compute = Compute(),
    seed: int = 0, despite: Collection[str] = (), say: Say = lambda line: None,
) -> tuple[Planned, TrainedPolicy]:  # fmt: skip
    """Trains a policy on preferences once all that can be wrong was looked at; settings as `learners.train_policy`.

    despite     "lint" keeps the pairs that lint would drop, "sae" takes an SAE that fails its check on the first pairs.
    say         hears the findings, the memory plan and the SAE's check, a text each.
    """
    compute = _placed(compute)
    planned = plan(
        data, model=model, out=out, loss=loss, loss_settings=loss_settings, leash=leash, reference=reference,
        lora=lora, optim=optim, encoding=encoding, compute=compute, despite=despite, say=say,
    )  # fmt: skip
    if leash is not None:
        lm = load_lm(model, compute.dtype, compute.device)
        found = check_sae(leash.dictionary, lm, planned.rows[:50])
        say(f"SAE: {found}")
        if "sae" not in despite:
            found.require()
    return planned, train_policy(
        planned.rows, model=model, out=out, loss=loss, loss_settings=loss_settings, sft_weight=sft_weight, leash=leash,
        reference=reference, lora=lora, optim=optim, encoding=encoding, compute=compute, seed=seed,
    )  # fmt: skip


def plan(
    data: Data, *, model: str, out: str | Path, loss: str = "dpo", loss_settings: Mapping[str, float] | None = None,
    leash: FeatureLeash | None = None, reference: str | None = None, lora: Lora | None = None,
    optim: Optim = Optim(), encoding: Encoding = Encoding(), compute: Compute = Compute(),
    despite: Collection[str] = (), say: Say = lambda line: None,
) -> Planned:  # fmt: skip
    """Checks a training's settings, reads and lints its pairs and plans its memory; loads and trains nothing."""
    for word in despite:
        _word("despite", word, ("lint", "sae"))
    compute = _placed(compute)
    check_settings(
        model, out, lora=lora, optim=optim, encoding=encoding, compute=compute, reference=reference, loss=loss,
        loss_settings=loss_settings or {}, leash=leash is not None,
    )  # fmt: skip
    given = examples(data, loss)
    rows, found = _lint(given, model, encoding.max_tokens, "lint" in despite, say)
    memory = _memory(rows, model, lora, compute, loss, leash)
    say(str(memory))
    return Planned(rows, len(given), found, memory)


def check_settings(
    model: str, out: str | Path, *, lora: Lora | None, optim: Optim, encoding: Encoding, compute: Compute,
    reference: str | None = None, loss: str = "", loss_settings: Mapping[str, float] | None = None,
    leash: bool = False,
) -> None:  # fmt: skip
    """InputError with all that is wrong with a training's settings; a reward model has no `loss` to name."""
    numbers = {k: getattr(optim, k) for k in ("epochs", "batch_size", "learning_rate")}
    checks.every((
        lambda: checks.writable(out),
        lambda: checks.local_model(model),
        lambda: checks.local_model(reference) if reference else None,
        lambda: checks.device_and_dtype(compute.device, compute.dtype),
        lambda: _loss(loss, loss_settings or {}, leash) if loss else None,
        lambda: _numbers(numbers),
        lambda: _word("--overlong", encoding.overlong, ("refuse", "drop")),
        lambda: checks.need("torch", "transformers", *(["peft"] if lora else [])),
    ))  # fmt: skip


def _loss(loss: str, settings: Mapping[str, float], leash: bool) -> None:
    fn = resolve_loss(loss, settings)
    if loss == "fpo" and not leash:
        raise InputError("the loss fpo needs a feature leash: give --sae")
    check_leash(fn, leash or None)


def _numbers(given: Mapping[str, float | None]) -> None:
    for name, value in given.items():
        if value is not None and not value > 0:
            raise InputError(f"{name.replace('_', ' ')} is {value:g}; it must be above 0")


def _word(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(f"value of {flag}", value, known)


def _placed(compute: Compute) -> Compute:
    """On a named device, so that the plan, the SAE's check and the training are of the same one."""
    return replace(compute, device=compute.device or default_device())


def _lint(
    rows: list[Any], model: str, limit: int | None, keep_all: bool, say: Say
) -> tuple[list[Any], dict[str, int] | None]:
    """The pairs that can teach something, and how many were found with each fault."""
    if not rows or not isinstance(rows[0], Pair):
        return rows, None
    findings = lint_pairs(rows, load_tokenizer(model), limit)
    dropped = set() if keep_all else FATAL - {"overlong"}  # over-long pairs are the trainer's to refuse or drop
    for f in findings:
        end = " (dropped)" if f.kind in dropped else ""
        say(f"lint: {len(f.indices)} of {len(rows)} pairs: {f.explanation}{end}")
    return without(rows, findings, dropped), {f.kind: len(f.indices) for f in findings}


def _memory(
    rows: list[Any], model: str, lora: Lora | None, compute: Compute, loss: str, leash: FeatureLeash | None
) -> MemoryPlan:
    tokenizer, longest = load_tokenizer(model), 0
    for row in rows:
        paired = isinstance(row, Pair)
        completions = (row.chosen, row.rejected) if paired else row.completions
        sizes = [len(encode_completion(tokenizer, c, row.prompt)) for c in completions]
        longest = max(longest, len(encode_prompt(tokenizer, row.prompt)) + (sum(sizes) if paired else max(sizes)))
    return plan_memory(
        described(model), longest_row=longest, device=compute.device, micro_tokens=compute.micro_tokens,
        dtype=str(choose_precision(compute.dtype, str(compute.device), lora=lora is not None)), lora=lora,
        checkpointing=compute.checkpointing, live_reference=loss.startswith("tdpo"),
        sae_width=leash.dictionary.width if leash else 0,
    )  # fmt: skip


@dataclass(frozen=True)
class CreditPage:
    """Credit of each pair's chosen and rejected tokens, by a policy trained with this beta."""

    credits: list[list[Credit]]
    beta: float

    @property
    def right(self) -> int:
        """How many chosen answers earn more than the rejected."""
        return sum(a.reward > b.reward for a, b in self.credits)


def credit(
    policy: str | Path, data: Data, *, out: str | Path | None = None, limit: int | None = 20, dtype: str | None = None,
    device: str | None = None,
) -> CreditPage:  # fmt: skip
    """What each token of the first `limit` pairs is worth, beta (log pi - log pi_ref); `out` gets an offline page."""
    checks.device_and_dtype(device, dtype)
    if out is not None:
        checks.writable_file(out)
    found = pairs(data)[:limit]
    loaded = load_policy(policy, dtype=dtype, device=device)
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in found]
    credits = token_credit(groups, loaded.policy, loaded.reference, beta=loaded.beta)
    if out is not None:
        texts = {p.prompt.id: prompt_text(p.prompt.messages) for p in found}
        Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
        publish_text(Path(out), heatmap_html(credits, texts))
    return CreditPage(credits, loaded.beta)
