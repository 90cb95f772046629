"""What can be known of a task before the first request or forward pass: every fault is found and said at once.

Nothing is sampled, loaded or written here. Models that are not cached yet are not fetched to be looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trimtab.cli import task as of
from trimtab.cli.sections import Task
from trimtab.errors import InputError, unknown
from trimtab.jobs import checks, main_job, make
from trimtab.store import Store
from trimtab.types import Prompt, SamplingParams

STAGES = ("sample", "score", "embed", "fit", "eval", "report")
_OF_EMBEDDER = {"hidden_states": ("torch", "transformers"), "encoder": ("sentence_transformers",)}


def plan(task: Task, stages: Sequence[str] = STAGES) -> dict[str, Any]:
    """What a run of these stages would do. InputError with all that stands in its way, one a line."""
    facts: dict[str, Any] = {"out": task.out}
    checks.every(_checks(task, stages, facts))
    return facts


def _checks(task: Task, stages: Sequence[str], facts: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    yield lambda: checks.writable(task.out)
    prompts: list[Prompt] = []
    if "sample" in stages:
        yield lambda: prompts.extend(_prompts(task, facts))
        yield lambda: _sampling(task)
        facts |= {"engine": task.model.engine, "model": task.model.name}
        yield lambda: checks.sampler(**vars(task.model))
    if "score" in stages:
        yield lambda: _reward(task, prompts, facts)
    learns = bool(task.probe.losses)
    if learns and ("embed" in stages or "fit" in stages):
        yield lambda: _losses(task, facts)
    if learns and "embed" in stages:
        yield lambda: _embedder(task, facts)
    if "eval" in stages:
        yield lambda: _comparison(task)
    if "report" in stages:
        yield lambda: checks.need("plotly")
    if "sample" in stages and prompts:  # last: the tokenizer is read
        yield lambda: checks.context(task.model.name, task.model.engine, prompts, task.sample.max_tokens)


def _prompts(task: Task, facts: dict[str, Any]) -> list[Prompt]:
    store = Store(task.out)
    if task.data.prompts:
        train, test, _ = of.divided(task)
    else:
        train, test = (store.prompts(split) for split in ("train", "test"))
        if not train and not test:
            raise InputError(f"{task.out} holds no prompts: give data.prompts (or --prompts), a file or a named task")
    s = task.sample
    facts |= {"train_prompts": len(train), "test_prompts": len(test)}
    facts["completions"] = len(train) * s.train_n + len(test) * (s.test_n + 1)
    return [*train, *test]


def _sampling(task: Task) -> None:
    from trimtab.samplers.requests import check

    s = task.sample
    params = SamplingParams(s.temperature, s.top_p, s.top_k, s.max_tokens, tuple(s.stop), s.seed)
    for key, n in (("sample.train_n", s.train_n), ("sample.test_n", s.test_n)):
        if n < 1:
            raise InputError(f"{key} is {n}; it must be at least 1")
    check(s.train_n, params)


def _reward(task: Task, prompts: Sequence[Prompt], facts: dict[str, Any]) -> None:
    facts["reward"] = main_job.reward_name(**of.rewarded(task))
    checks.columns(make.reward(task.reward.name, **task.reward.options), prompts)


def _losses(task: Task, facts: dict[str, Any]) -> None:
    from trimtab.learners.completion.probe.losses import LOSS_UNITS, PROBE_LOSSES

    for loss in task.probe.losses:
        if loss not in PROBE_LOSSES:
            raise unknown("probe loss", loss, PROBE_LOSSES)
        if LOSS_UNITS[loss] != "row" and task.sample.train_n < 2:
            raise InputError(
                f"probe loss {loss!r} compares completions of one prompt, and sample.train_n is {task.sample.train_n}: "
                "sample more, or use mse"
            )
    if task.probe.folds < 2:
        raise InputError(f"probe.folds is {task.probe.folds}; cross-validation needs at least 2")
    if any(x <= 0 for x in task.probe.l2):
        raise InputError(f"probe.l2 is {task.probe.l2}; strengths must be above 0")
    facts["probes"] = list(task.probe.losses)


def _embedder(task: Task, facts: dict[str, Any]) -> None:
    e = task.embed
    checks.need(*_OF_EMBEDDER.get(e.kind, ()))
    of.embedder(task)
    facts["vectors"] = f"{e.kind} {e.model}".strip()
    if e.kind == "endpoint" and not e.model:
        raise InputError("embed.model is empty: name the embedding model that the server at embed.base_url has")
    if e.kind != "hidden_states":
        return
    name = e.model or task.model.name
    if not e.model and task.model.engine not in ("openvino", "hf") and not checks.is_local(name):
        raise InputError(
            f"the probes read hidden states, and there is no local model {name!r} to compute them (it answers by "
            f'{task.model.engine}): name a local one in embed.model, take embed.kind = "encoder" or "endpoint", or '
            "leave the probes out with probe.losses = []"
        )
    checks.local_model(name)
    config = checks.config_of(name)
    layers = int(config.get("num_hidden_layers") or 0) if config else 0
    if layers and max(e.layers) > layers:
        raise InputError(f"{name} has layers 0 to {layers}; layer {max(e.layers)} does not exist (embed.layers)")


def _comparison(task: Task) -> None:
    from trimtab.rewards import extractor

    if task.eval.extract:
        extractor(task.eval.extract)
    if task.eval.beta < 0 or task.eval.draws < 1:
        raise InputError(f"eval.beta is {task.eval.beta:g} (0 or more), eval.draws {task.eval.draws} (1 or more)")
