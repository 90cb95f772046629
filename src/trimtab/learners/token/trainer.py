"""PAIRS to a trained policy: every preference loss, KTO and SFT, full or LoRA.

What a step computes is `trimtab.learners.token.step`'s, the loop around it `trimtab.learners.loop`'s. It does not
sample, score or judge pairs.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.errors import InputError
from trimtab.learners.loop import fit, save, trainable
from trimtab.learners.run import Checkpoints, Compute, Encoding, Lora, Optim, Run, Trained, one_writer
from trimtab.learners.token.examples import Example, encode_pairs, encode_singles, one_by_one, with_mismatched
from trimtab.learners.token.losses import Loss, bare_loss, fpo, kto, orpo, sft
from trimtab.learners.token.policy import LoadedPolicy, load_policy
from trimtab.learners.token.reference import with_reference
from trimtab.learners.token.run_card import describe_run
from trimtab.learners.token.step import Displacement, PolicyStep, loss_needs, resolve_loss
from trimtab.lm.forward import check_forward
from trimtab.lm.load import LM, load_lm
from trimtab.store import Store
from trimtab.types import Group, Pair, describe

CARD = "policy.json"


@dataclass(frozen=True)
class TrainedPolicy(Trained):
    """A finished policy: its folder, its card (settings and results) and the lines of its log."""

    def load(self, *, dtype: str | None = None, device: str | None = None) -> LoadedPolicy:
        """The policy and its reference in memory; see `load_policy`."""
        return load_policy(self.path, dtype=dtype, device=device)


@one_writer
def train_policy(
    data: Sequence[Pair] | Sequence[Group],
    *,
    model: str,
    out: str | Path,
    loss: str | Loss = "dpo",
    loss_settings: Mapping[str, float] | None = None,
    sft_weight: float = 0.0,
    leash: Any = None,
    reference: str | None = None,
    lora: Lora | None = None,
    optim: Optim = Optim(),
    encoding: Encoding = Encoding(),
    compute: Compute = Compute(),
    checkpoints: Checkpoints = Checkpoints(),
    held_out: Sequence[Pair] | Sequence[Group] = (),
    seed: int = 0,
) -> TrainedPolicy:
    """Trains a policy on preference pairs, or on scored groups (KTO, SFT), and writes it to `out`, ready to load.

    `out` gets the model (or, with `lora`, the adapter) and the tokenizer in Hugging Face's layout, `policy.json`
    (settings and results), `log.jsonl` (TRL's metric names), `checkpoints/` and `store/` (the reference's log-probs).
    Running the same call again continues from the last checkpoint or returns at once; other settings are refused.

    loss            a name of PAIR_LOSSES or SINGLE_LOSSES, or a function like them; `loss_settings` are its keywords.
    sft_weight      adds this times the mean NLL of the chosen completion.
    leash           a FeatureLeash: its penalty lowers the loss's margin (FPO = "fpo" with a leash). The reference's
                    features are cached like its log-probs.
    reference       another model than `model` as it starts.
    optim           `learning_rate` is 1e-6 by default (5e-5 with LoRA; for SFT ten times these).

    InputError for bad settings, over-long examples (counted) or no data; ModelError when the architecture cannot share
    prompts; SettingsChanged when `out` holds a run with other settings.
    """
    fn = resolve_loss(loss, loss_settings)
    needs = loss_needs(fn)
    check_leash(fn, leash)
    defaults = {n: p.default for n, p in inspect.signature(fn).parameters.items() if p.kind is p.KEYWORD_ONLY}
    more = {
        "loss": {"name": describe(bare_loss(fn)), **defaults}, "sft_weight": sft_weight, "reference": reference,
        "desirable_above": encoding.desirable_above, **({} if leash is None else {"leash": leash.card}),
    }  # fmt: skip
    run = Run(Path(out), CARD, model, lora, optim, encoding, compute, checkpoints, seed, more)
    if done := run.begin(data):
        return TrainedPolicy(done.path, done.card, done.log)
    load = partial(load_lm, dtype=run.precision.weights, device=run.device)
    lm = load(model)
    encode = partial(_encode, fn=fn, lm=lm, encoding=encoding, seed=seed)
    (examples, counts), (held, _) = encode(data), encode(held_out) if held_out else ([], {})
    longest = max(examples, key=lambda e: e.longest)
    check_forward(lm.model, longest.prompt, longest.completions, share_prompt=compute.share_prompt)
    step = PolicyStep(fn, needs, sft_weight, run.budget, compute.micro_rows, compute.share_prompt)
    with run.precision.computing(run.device):
        cached = any(n.startswith("ref_") for n in needs)
        source = load(reference) if reference and (cached or leash is not None) else lm
        store = Store(compute.reference_store or run.out / "store")
        how: dict[str, Any] = {"budget": run.budget, "share_prompt": compute.share_prompt}
        if cached:
            examples, held = (with_reference(e, source, store, **how) if e else e for e in (examples, held))
            if step.live and not (lora and source is lm):  # KL needs the reference's whole distribution at every step
                step = replace(step, reference=(source if reference else load(model)).model)
        if leash is not None:
            leash = leash.on(lm.model)
            step = replace(step, leash=leash)
            examples, held = (
                leash.with_features(e, lm=source, store=store, **how) if e else e for e in (examples, held)
            )
        del source  # a reference that is only cached must not stay in memory
    policy = trainable(lm.model, lora, seed, compute.checkpointing)
    rate = optim.learning_rate or (5e-5 if lora else 1e-6) * (10 if bare_loss(fn) is sft else 1)
    loop = fit(
        run, policy, step, examples, held, rate=rate, autocast=run.precision.autocast, callbacks=[Displacement()]
    )
    card = save(run, loop, lm, counts)
    describe_run(run.out, card)
    run.write(card)
    return TrainedPolicy(run.out, card, loop.state.log_history)


def _encode(
    data: Sequence[Any], *, fn: Loss, lm: LM, encoding: Encoding, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """Examples of the shape the loss takes, and how many were given and dropped."""
    if not data:
        raise InputError("no pairs to train on; a group whose rewards are all equal gives none")
    limit, overlong = encoding.limit(lm.context), encoding.overlong
    paired, name = isinstance(data[0], Pair), bare_loss(fn)
    if paired and name is kto:
        raise InputError("KTO learns from single completions: pass scored groups, not pairs")
    if not paired and name not in (kto, sft):
        raise InputError(f"the loss {name.__name__} needs pairs: make them with data.best_vs_worst(groups)")
    if paired:
        examples, given = encode_pairs(data, lm.tokenizer, limit, overlong=overlong), len(data)
        if name is sft:
            examples = [Example(e.prompt, e.completions[:1]) for e in examples]
    else:
        singles = one_by_one(data, encoding.desirable_above, only_desirable=name is sft)
        examples, given = encode_singles(singles, lm.tokenizer, limit, overlong=overlong), len(singles)
        if name is kto:
            examples = with_mismatched(examples, seed)
    return examples, {"given": given, "dropped": given - len(examples)}


def check_leash(fn: Loss, leash: Any) -> None:
    """A leash lies on a margin that is linear in the rejected log-prob: InputError for a loss that has none."""
    if leash is None and bare_loss(fn) is fpo:
        raise InputError("fpo is a loss with a leash: pass leash=FeatureLeash(sae, layer=...), or use ln_dpo without")
    if leash is not None and bare_loss(fn) in (orpo, sft, kto):
        raise InputError(
            f"{bare_loss(fn).__name__} has no margin for a feature leash to lie on; fpo, simpo, dpo, ipo and tdpo2 do"
        )
