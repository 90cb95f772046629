"""Pairs of a file or a run's store to a trained policy, and a policy to the credit of its tokens.

All that can be wrong is looked at first: settings, pairs that teach nothing, memory, the SAE of a feature leash.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, unknown
from trimtab.jobs import checks
from trimtab.jobs.inputs import Data, examples, pairs
from trimtab.json_file import read_json
from trimtab.types import Group, Pair

if TYPE_CHECKING:
    from trimtab.learners.feature.leash import FeatureLeash
    from trimtab.learners.token.credit import Credit
    from trimtab.learners.token.plan import MemoryPlan
    from trimtab.learners.token.trainer import Lora


@dataclass(frozen=True)
class Trained:
    """What was given and kept, what lint found, the memory plan, and the trained policy with its last log line."""

    given: int
    lint: "Mapping[str, int] | None"
    """Pairs by what is wrong with them; None for scored groups, which are not linted."""
    kept: int
    memory: "MemoryPlan"
    folder: Path | None = None
    """None when it was only planned."""
    last: Mapping[str, float] = field(default_factory=dict)


def train(
    data: Data, *, model: str, out: str | Path, loss: str = "dpo", loss_settings: Mapping[str, float] | None = None,
    lora: "Lora | None" = None, leash: "FeatureLeash | None" = None, reference: str | None = None,
    keep_all: bool = False, unchecked: bool = False, plan: bool = False, say: Callable[[str], None] = lambda line: None,
    dtype=None, device=None, epochs=1.0, batch_size=32, learning_rate=None, micro_tokens=None, max_tokens=None, overlong="refuse", checkpointing=False, **settings,
) -> Trained:  # fmt: skip
    """Trains a policy on preferences, with lint findings and a memory plan first; see `learners.train_policy`.

    keep_all    trains on pairs that lint would drop, too; unchecked: with an SAE that fails its check.
    plan        checks everything, says the memory plan and stops.
    say         hears the findings, the plan and the SAE's check, a text each.
    """
    from trimtab.learners.token.trainer import CARD, train_policy
    from trimtab.lm.load import default_device

    device = device or default_device()  # the plan, the SAE's check and the training are of the same one
    check_settings(
        model, out, lora=lora is not None, dtype=dtype, device=device, overlong=overlong, epochs=epochs,
        batch_size=batch_size, learning_rate=learning_rate, reference=reference, loss=loss, settings=loss_settings,
        leash=leash is not None,
    )  # fmt: skip
    given = examples(data, loss)
    rows, found = _lint(given, model, max_tokens, keep_all, say)
    memory = _plan(rows, model, micro_tokens, dtype, device, lora, checkpointing, loss, leash)
    say(str(memory))
    if plan:
        return Trained(len(given), found, len(rows), memory)
    if leash is not None:
        _check(leash, model, rows, dtype, device, unchecked, say)
    folder = train_policy(
        rows, model=model, out=out, loss=loss, loss_settings=loss_settings, lora=lora, epochs=epochs,
        learning_rate=learning_rate, batch_size=batch_size, micro_tokens=micro_tokens, max_tokens=max_tokens,
        overlong=overlong, dtype=dtype, device=device, checkpointing=checkpointing, reference=reference,
        leash=leash, **settings
    )  # fmt: skip
    last = read_json(folder / CARD, "a policy's card", {"last": dict})["last"]
    return Trained(len(given), found, len(rows), memory, folder, last)


def _lint(
    rows: list[Any], model: str, limit: int | None, keep_all: bool, say: Callable[[str], None]
) -> tuple[list[Any], dict[str, int] | None]:
    """The pairs that can teach something, and how many were found with each fault."""
    from trimtab.data.lint import FATAL, lint_pairs, without
    from trimtab.lm.load import load_tokenizer

    if not rows or not isinstance(rows[0], Pair):
        return rows, None
    findings = lint_pairs(rows, load_tokenizer(model), limit)
    dropped = set() if keep_all else FATAL - {"overlong"}  # over-long pairs are the trainer's to refuse or drop
    for f in findings:
        end = " (dropped)" if f.kind in dropped else ""
        say(f"lint: {len(f.indices)} of {len(rows)} pairs: {f.explanation}{end}")
    return without(rows, findings, dropped), {f.kind: len(f.indices) for f in findings}


def _plan(
    rows: list[Any], model: str, micro: int | None, dtype: str | None, device: str, lora: "Lora | None",
    checkpointing: bool, loss: str, leash: "FeatureLeash | None",
) -> "MemoryPlan":  # fmt: skip
    from trimtab.learners.token.plan import plan_memory
    from trimtab.learners.token.precision import choose_precision
    from trimtab.lm.catalog import described
    from trimtab.lm.chat import encode_completion, encode_prompt
    from trimtab.lm.load import load_tokenizer

    tokenizer = load_tokenizer(model)
    longest = 0
    for row in rows:
        paired = isinstance(row, Pair)
        sizes = [
            len(encode_completion(tokenizer, c, row.prompt))
            for c in ((row.chosen, row.rejected) if paired else row.completions)
        ]
        longest = max(longest, len(encode_prompt(tokenizer, row.prompt)) + (sum(sizes) if paired else max(sizes)))
    return plan_memory(
        described(model), longest_row=longest, device=device, micro_tokens=micro,
        dtype=str(choose_precision(dtype, device, lora=lora is not None)), lora=lora, checkpointing=checkpointing,
        live_reference=loss.startswith("tdpo"), sae_width=leash.dictionary.width if leash else 0,
    )  # fmt: skip


def _check(
    leash: "FeatureLeash", model: str, rows: list[Any], dtype: str | None, device: str, unchecked: bool,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Measures the leash's SAE on the first pairs; refuses one that does not fit unless `unchecked`."""
    from trimtab.learners.feature.check import check_sae
    from trimtab.lm.load import load_lm

    found = check_sae(leash.dictionary, load_lm(model, dtype, device), rows[:50])
    say(f"SAE: {found}")
    if not unchecked:
        found.require()


def check_settings(
    model: str, out: str | Path, *, lora: bool, dtype: str | None, device: str | None, overlong: str, epochs: float,
    batch_size: int, learning_rate: float | None, reference: str | None = None, loss: str = "",
    settings: Mapping[str, float] | None = None, leash: bool = False,
) -> None:  # fmt: skip
    """InputError with all that is wrong with a training's settings; a reward model has no `loss` to name."""
    checks.every((
        lambda: checks.writable(out),
        lambda: checks.local_model(model),
        lambda: checks.local_model(reference) if reference else None,
        lambda: checks.device_and_dtype(device, dtype),
        lambda: _loss(loss, settings or {}, leash) if loss else None,
        lambda: _numbers(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
        lambda: _word("--overlong", overlong, ("refuse", "drop")),
        lambda: checks.need("torch", "transformers", *(["peft"] if lora else [])),
    ))  # fmt: skip


def _loss(loss: str, settings: Mapping[str, float], leash: bool) -> None:
    from trimtab.learners.token.step import resolve_loss

    resolve_loss(loss, settings)
    if loss == "fpo" and not leash:
        raise InputError("the loss fpo needs a feature leash: give --sae")
    if leash and loss in ("orpo", "sft", "kto"):
        raise InputError(f"{loss} has no margin for a feature leash to lie on; fpo, simpo, dpo, ipo and tdpo2 do")


def _numbers(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not value > 0:
            raise InputError(f"{name.replace('_', ' ')} is {value:g}; it must be above 0")


def _word(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(f"value of {flag}", value, known)


@dataclass(frozen=True)
class CreditPage:
    """Credit of each pair's chosen and rejected tokens, by a policy trained with this beta."""

    credits: "list[list[Credit]]"
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
    from trimtab.evaluation.pages.heatmap import heatmap_html
    from trimtab.evaluation.pages.report import prompt_text
    from trimtab.learners.token.credit import token_credit
    from trimtab.learners.token.policy import load_policy
    from trimtab.publish import publish_text

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
