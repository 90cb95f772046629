"""Completions from OpenVINO GenAI: continuous batching over many prompts at once, the fastest engine on a CPU.

A prompt is one request for n sequences, so that it is computed once and its completions share a seed and differ by
index. A request a completion would give each a seed of its own, but recomputes the prompt's last, partial cache block n
times: as fast for answers of 64 tokens, a third of the speed for answers of 8 (23 November 2026). Log-probs are the
model's own: GenAI reads them off before temperature, top-k and top-p (measured against torch; a test repeats it).
Hidden states can be read while it samples, for nothing (`layers`, `keep`; how: `lm.graph`). The weights are the
catalogue's Q8_0 GGUF file, a .gguf file, an OpenVINO IR folder, or a folder of torch weights or an adapter, converted
once to a float16 GGUF file.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from trimtab.errors import EngineError, ModelError
from trimtab.lm import catalog
from trimtab.lm.graph import config_of, context_of, ends_of, tap, taps
from trimtab.progress import working
from trimtab.samplers.requests import check, completion, counted, encode
from trimtab.samplers.states import StateLog, States
from trimtab.types import Completion, Group, Prompt, SamplingParams, completion_seed

MOST_BYTES = 2**30
"""Of states that wait until it is known whose they are."""


@dataclass(frozen=True)
class OpenVINO:
    """Samples from a catalogue model, a .gguf file, an OpenVINO folder, or what a training wrote.

    `max_seqs` completions run at once; `cache_gb` bounds the KV cache (too small only costs time: rows are recomputed);
    `threads` 0 leaves the number to OpenVINO. Same seed, same text; the batch's shape changes the last bits of a logit,
    so a completion may in rare cases differ when its neighbours do.
    """

    name: str
    max_seqs: int = 256
    cache_gb: int = 4
    threads: int = 0
    device: str = "CPU"
    layers: tuple[int, ...] = field(default=(), repr=False)
    """Layers whose states are read: the model is then loaded as a graph that shows them. The texts stay the same."""
    keep: Callable[[Group, States], None] | None = field(default=None, compare=False, repr=False)
    """Receives each group, before it is returned, with {"layer20.text": (N, D), ...}: the states of the last tokens of
    its texts, as `embeddings.GraphStates` has them. Not called where they cannot be told while sampling: with stop
    strings, and where more than 1 GB would wait until they are told apart."""

    @property
    def model(self) -> str:
        return f"{self.name}@{catalog.revision(self.name)}"

    @property
    def context(self) -> int:
        """The most tokens that prompt and completion may have together."""
        return context_of(self.name)

    def lengths(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt, template included."""
        from trimtab.lm.chat import encode_prompt

        tokenizer = _tokenizer(self.name)
        return [len(encode_prompt(tokenizer, p)) for p in prompts]

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Exactly n completions a prompt, in order. InputError for prompts that do not fit the context; EngineError
        when the engine gives a request up."""
        groups = dict(self.stream(prompts, n, params))
        return [groups[p] for p in range(len(prompts))]

    def stream(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams
    ) -> Generator[tuple[int, Group], None, None]:
        """The same groups as they are finished, each with the place of its prompt. Another call to this engine waits
        until the iterator is closed or used up."""
        check(n, params)
        tokenizer, model = _tokenizer(self.name), self.model
        rows = encode(tokenizer, prompts, params, self.context, model)
        stamp = catalog.stamp(self.name)
        engine = _engine(self.name, self.max_seqs, self.cache_gb, self.threads, self.device, stamp, bool(self.layers))
        distinct = 1 if params.temperature == 0 else n  # greedy: one run gives all n
        jobs = [
            _Job(
                p, row, completion_seed(params.seed, prompts[p].id, first), first, min(self.max_seqs, distinct - first)
            )
            for p, row in enumerate(rows)
            for first in range(0, distinct, self.max_seqs)
        ]
        ready: dict[int, list[Completion]] = {p: [] for p in range(len(prompts))}
        seen: dict[int, dict[int, States]] = {p: {} for p in range(len(prompts))}
        run = _Run(engine, jobs, params, self.max_seqs, self._log(engine, tokenizer, params))
        with engine.lock, closing(run.drain()) as finished:
            for job, outputs, states, seconds in finished:
                copies = n // distinct
                if states is not None:  # greedy: one run gives all n
                    seen[job.prompt][job.first] = {k: np.tile(x, (copies, 1)) for k, x in states.items()}
                for i, (tokens, logprobs) in enumerate(outputs * copies):
                    c = completion(
                        tokenizer, engine.ends, model, job.seed, job.first + i, tokens, logprobs, params.stop
                    )
                    ready[job.prompt].append(counted(c, len(job.row), n, seconds / job.n / copies, copies))
                if len(ready[job.prompt]) == n:
                    completions = sorted(ready.pop(job.prompt), key=lambda c: c.index)
                    group = Group(prompts[job.prompt], tuple(completions))
                    self._hand(group, seen.pop(job.prompt))
                    yield job.prompt, group

    def _log(self, engine: "_Engine", tokenizer: Any, params: SamplingParams) -> StateLog | None:
        """What tells whose the states are, where somebody wants them and they can be told."""
        from trimtab.lm.chat import end_length

        width = config_of(self.name).get("hidden_size", 0)
        steps = 2 * params.max_tokens  # a request waits for at most as many as it runs
        if self.keep is None or params.stop or 4 * steps * self.max_seqs * len(self.layers) * width > MOST_BYTES:
            return None

        def text_length(tokens: Sequence[int]) -> int:
            kept = tokens[: params.max_tokens]
            return len(kept) - end_length(tokenizer, kept, engine.ends)

        return StateLog(self.layers, text_length)

    def _hand(self, group: Group, seen: Mapping[int, States]) -> None:
        """Gives the states of a group to `keep`, where those of all its completions are known."""
        parts = [seen[first] for first in sorted(seen)]
        states = {k: np.concatenate([part[k] for part in parts]) for k in (parts[0] if parts else ())}
        if self.keep is not None and states and all(len(x) == len(group.completions) for x in states.values()):
            self.keep(group, states)


@dataclass(frozen=True)
class _Engine:
    """A loaded pipeline, the tokens that end an answer, and the lock that gives it to one caller at a time."""

    pipeline: Any
    ends: frozenset[int]
    thread: ThreadPoolExecutor | None = None
    """Where a graph with taps runs: Python raises Ctrl-C in the main thread, in a tap it would be a RuntimeError."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class _Job:
    """A request: `n` sequences of prompt number `prompt` from index `first` on, at most as many as run at once."""

    prompt: int
    row: list[int]
    seed: int
    first: int
    n: int


Outputs = list[tuple[list[int], list[float]]]
"""(tokens, log-probs) of each sequence."""


@dataclass
class _Run:
    """One call's requests on their way through the engine, and the log of their states where they are wanted."""

    engine: _Engine
    jobs: list[_Job]
    params: SamplingParams
    max_seqs: int
    log: StateLog | None = None

    def drain(self) -> Generator[tuple[_Job, Outputs, States | None, float], None, None]:
        """Each job when it is finished: its n sequences, their states where these are read, its share of seconds."""
        import openvino_genai as genai

        pipeline = self.engine.pipeline
        running = genai.GenerationStatus.RUNNING
        waiting, active, unsettled = deque(range(len(self.jobs))), {}, {}
        seconds = dict.fromkeys(waiting, 0.0)
        try:
            while waiting or active:
                # as many again stand ready in the engine
                while waiting and sum(self.jobs[j].n for j in active) < 2 * self.max_seqs:
                    active[waiting[0]] = self._request(waiting[0])
                    waiting.popleft()
                began = time.perf_counter()
                seen = self._step()
                if self.log is not None:
                    self.log.step(seen)
                took = (time.perf_counter() - began) / sum(self.jobs[j].n for j in active)
                for j in active:
                    seconds[j] += took * self.jobs[j].n
                for j in [j for j, handle in active.items() if handle.get_status() != running]:
                    outputs = self._finished(self.jobs[j], active.pop(j))
                    if self.log is not None:
                        self.log.finished(j, [tokens for tokens, _ in outputs])
                    most = self.params.max_tokens
                    unsettled[j] = [(tokens[:most], logprobs[:most]) for tokens, logprobs in outputs]
                for j in [j for j in unsettled if self.log is None or self.log.settled(j)]:
                    states = None if self.log is None else self.log.states(j)
                    yield self.jobs[j], unsettled.pop(j), states, seconds[j]
        except BaseException:  # an error, or the caller stopped early: leave no request behind for the next one
            for handle in active.values():
                handle.cancel()
            while pipeline.has_non_finished_requests():
                self._step()
            raise

    def _step(self) -> list[Any]:
        """One step of the engine; what its taps saw."""
        if self.engine.thread is None:
            self.engine.pipeline.step()
            return []
        with taps() as seen:
            try:
                self.engine.thread.submit(self.engine.pipeline.step).result()
            except BaseException:
                self.engine.thread.submit(int).result()  # a step that still runs ends first
                raise
        return seen

    def _request(self, number: int) -> Any:
        import openvino as ov
        import openvino_genai as genai

        p, job = self.params, self.jobs[number]
        most = p.max_tokens + (self.log is not None)  # one more, or the last token's state would never be computed
        config = genai.GenerationConfig(max_new_tokens=most, logprobs=1, num_return_sequences=job.n)
        config.stop_token_ids = set(self.engine.ends)
        if self.engine.ends:
            config.set_eos_token_id(min(self.engine.ends))
        else:  # a model without an end token
            config.ignore_eos = True
        if p.temperature > 0:
            config.do_sample, config.temperature, config.top_p = True, p.temperature, p.top_p
            config.top_k = p.top_k or 2**31 - 1
            config.rng_seed = job.seed
        config.stop_strings, config.include_stop_str_in_output = set(p.stop), True
        ids = ov.Tensor(np.array([job.row], dtype=np.int64))
        if self.log is not None:
            self.log.asked(job.row)
        return self.engine.pipeline.add_request(number, ids, config)

    def _finished(self, job: _Job, handle: Any) -> Outputs:
        import openvino_genai as genai

        by_sequence: dict[int, tuple[list[int], list[float]]] = {}
        while handle.can_read():  # pieces, by the number of the sequence; read_all would give them in a hash's order
            for number, piece in handle.read().items():
                tokens, logprobs = by_sequence.setdefault(number, ([], []))
                tokens += piece.generated_ids
                logprobs += [min(x, 0.0) for x in piece.generated_log_probs]
        outputs = [by_sequence[number] for number in sorted(by_sequence)]
        if handle.get_status() != genai.GenerationStatus.FINISHED or len(outputs) != job.n:
            raise EngineError(
                f"openvino gave up a prompt of {len(job.row)} tokens ({handle.get_status().name}, "
                f"{len(outputs)} of {job.n} completions): its KV cache is full; raise cache_gb or lower max_tokens"
            )
        return outputs


@lru_cache(maxsize=1)
def _engine(
    name: str, max_seqs: int, cache_gb: int, threads: int, device: str, stamp: str = "", shown: bool = False
) -> _Engine:
    """Loads the pipeline; the latest one stays in memory. ModelError when OpenVINO cannot read the model."""
    try:
        import openvino_genai as genai
    except ImportError as e:
        raise EngineError("the OpenVINO sampler needs its extra: pip install 'trimtab[openvino]'") from e
    path = source = catalog.locate(name, "openvino")
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = max_seqs
    scheduler.max_num_batched_tokens = 2048
    scheduler.cache_size = cache_gb
    scheduler.enable_prefix_caching = False  # a prompt is run once anyway, and what is cached would depend on the past
    scheduler.dynamic_split_fuse = True
    # The default 8-bit KV cache moves a logit by 3e-3 when the batch's shape changes, enough to change four of five
    # texts of twelve tokens; in float32 it is 1e-5 (SmolLM2-135M, 23 November 2026). A CPU with bfloat16 instructions
    # would compute in bfloat16 and then refuse this cache, so the arithmetic is named too.
    properties: dict[str, Any] = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    properties |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    try:
        if shown:
            path = catalog.graph(name)
        with working(f"loading {name}"):
            if shown:
                properties["extensions"] = [tap()]
                tokenizer = genai.Tokenizer(str(source))
                pipeline = genai.ContinuousBatchingPipeline(str(path), tokenizer, scheduler, device, **properties)
            else:
                pipeline = genai.ContinuousBatchingPipeline(str(path), scheduler, device, properties)
    except (RuntimeError, LookupError) as e:
        raise ModelError(f"OpenVINO cannot load {path} ({(str(e).strip() or repr(e)).splitlines()[-1][:300]})") from e
    return _Engine(pipeline, ends_of(name), ThreadPoolExecutor(1) if shown else None)


def _tokenizer(name: str) -> Any:
    from trimtab.lm.load import resident_tokenizer

    return resident_tokenizer(name)
