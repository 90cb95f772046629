"""SAEs checked, trained, and used to say what a training changed; how various a policy's samples are.

Texts are pairs, groups, rows with `text` or lines of a file, as `inputs.texts` reads them.
"""

from pathlib import Path
from typing import Any, NamedTuple

from trimtab.errors import InputError
from trimtab.evaluation.diversity import diversity as measure
from trimtab.evaluation.metrics import Interval, mean_interval
from trimtab.evaluation.pages.features import Changes, feature_changes, features_html
from trimtab.jobs import checks
from trimtab.jobs.inputs import Data, groups, texts
from trimtab.learners.feature.check import SAECheck, check_sae
from trimtab.learners.feature.sae import load_sae
from trimtab.learners.feature.train import check_of, read_card, train_sae
from trimtab.learners.token.policy import Policy
from trimtab.lm.load import load_lm
from trimtab.publish import publish_text


class TrainedSAE(NamedTuple):
    """The folder, its card (settings, states, check) and the check on texts that were held out."""

    folder: Path
    card: dict[str, Any]
    check: SAECheck


def check(
    sae: str, data: Data, *, model: str, layer: int | None = None, max_fvu: float = 0.5, limit: int | None = 200,
    dtype: str | None = None, device: str | None = None,
) -> SAECheck:  # fmt: skip
    """Measures an SAE on the first `limit` texts at its layer and at every other; its `problems` forbid its use."""
    rows = texts(data)[:limit]
    return check_sae(load_sae(sae), load_lm(model, dtype, device), rows, layer=layer, max_fvu=max_fvu)


def train(
    data: Data, *, model: str, layer: int, out: str | Path, width: int | None = None, k: int = 32,
    samples: int | None = None, batch_size: int = 1024, learning_rate: float = 5e-4, seed: int = 0,
    dtype: str | None = None, device: str | None = None,
) -> TrainedSAE:  # fmt: skip
    """Trains a TopK SAE on a layer's hidden states (needs sae-lens) and checks it on texts held out."""
    checks.need("sae_lens")
    checks.writable(out)
    checks.device_and_dtype(device, dtype)
    train_sae(
        texts(data), load_lm(model, dtype, device), layer=layer, out=out, width=width, k=k, samples=samples,
        batch_size=batch_size, learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    return TrainedSAE(Path(out), read_card(out), check_of(out))


def diff(
    a: str, b: str, data: Data, *, sae: str, out: str | Path = "", layer: int | None = None, top: int = 20,
    limit: int | None = 200, dtype: str | None = None, device: str | None = None,
) -> Changes:  # fmt: skip
    """The SAE features whose mean activation moved most from model `a` to `b`; `out` also gets them as a page."""
    checks.device_and_dtype(device, dtype)
    if out:
        checks.writable_file(out)
    rows = texts(data)[:limit]
    first, second = (load_lm(name, dtype, device) for name in (a, b))
    found = feature_changes(first, second, load_sae(sae, layer=layer), rows, top=top, names=(a, b))
    if out:
        Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
        publish_text(Path(out), features_html(found))
    return found


def diversity(
    data: Data, *, policy: str = "", reference: str = "", top: int = 0, dtype: str | None = None,
    device: str | None = None,
) -> tuple[int, dict[str, Interval]]:  # fmt: skip
    """How various a policy's samples are, and how far it is from its reference: prompts, and each measure's mean.

    `policy` adds the next token's entropy (of the `top` likeliest, 0 of all) and `reference` KL(policy || reference).
    """
    if reference and not policy:
        raise InputError("--reference needs --policy: KL is between the two")
    samples = groups(data, prefer="test")
    ours, theirs = (Policy(load_lm(n, dtype, device)) if n else None for n in (policy, reference))
    found = {k: mean_interval(v) for k, v in vars(measure(samples, ours, theirs, top=top)).items()}
    return len(samples), {k: v for k, v in found.items() if v.n}
