"""A live pool: four small LLMs that run here, four kinds of task with verifiers, routed end to end.

Pool: SmolLM2-135M-Instruct, Qwen2.5-Coder-0.5B-Instruct, Gemma-3-270M (base: few-shot text prompts) and a LoRA
specialist of SmolLM2 that this script trains on 400 SST-2 sentences (none of those tested). Tasks, 40 prompts each:
MBPP programs (their three tests), reasoning-gym chain_sum, one-sentence instructions with a constraint of IFEval's
kinds (checked by rule), SST-2 sentiment. Greedy, at most 128 tokens. Routers see the prompt alone and are judged in
five folds over all prompts, each with its guard; on the first fold the router really calls the pool (`Routed`), and its
rewards must be those of the matrix. Ranking (RMR) by the longest answer, the shortest, and the mean log-prob: every
model is paid. Everything is kept in `folder`, so a second start resumes. --small: 6 prompts a task, two models, nothing
is trained.
"""

import json
import re
import time
from pathlib import Path

import numpy as np

from benchmarks.data import lines
from benchmarks.run import Run
from trimtab import data, rewards, samplers
from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.decoders.model import Routed
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.evaluation.metrics import paired_bootstrap
from trimtab.evaluation.routing.measures import per_tag, route, routing_table
from trimtab.evaluation.routing.rank import longest, rank_pool, shortest
from trimtab.jobs.pool import Pool, fill_pool
from trimtab.learners.model.router import fit_router
from trimtab.store import Store
from trimtab.types import Completion, Pair, Prompt, SamplingParams

SETTINGS = {"folder": "runs/zooter_live", "each": 40, "folds": 5, "train_specialist": True}
SMALL = {"folder": "runs/zooter_live_small", "each": 6, "folds": 2, "train_specialist": False}
PARAMS = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=128)
ASK = "Is this sentence from a film review positive or negative? Answer with one word.\n\nSentence: {}"


def is_json(text: str) -> bool:
    try:
        return "text" in json.loads(text.removeprefix("```json").removesuffix("```"))
    except (ValueError, TypeError):
        return False


TOPICS = """rivers bread winter bicycles volcanoes libraries cats tea trains clouds music gardens chess honey robots
maps islands clocks mountains kites""".split()  # noqa: SIM905
RULES = {
    "Use no comma.": lambda t: "," not in t,
    "Write in lower case only, without any capital letter.": lambda t: t == t.lower(),
    "WRITE IN CAPITAL LETTERS ONLY.": lambda t: t == t.upper(),
    "Put the whole answer in double quotation marks.": lambda t: len(t) > 1 and t[0] == t[-1] == '"',
    "End with the words: That is all.": lambda t: t.rstrip().endswith("That is all."),
    "Use the word 'blue'.": lambda t: bool(re.search(r"\bblue\b", t, re.I)),
    "Use fewer than ten words.": lambda t: len(t.split()) < 10,
    'Answer as a JSON object with the key "text".': is_json,
}


def ask(id: str, text: str, target: object, source: str) -> Prompt:
    return Prompt(id, ({"role": "user", "content": text},), target, source)


def prompts(each: int) -> list[Prompt]:
    out = data.load("reasoning_gym/chain_sum", size=each, seed=1, min_terms=2, max_terms=3, min_digits=1, max_digits=2)
    out = [ask(p.id, p.messages[0]["content"], p.target, "sums") for p in out]
    for line in lines("mbpp")[10 : 10 + each]:
        r = json.loads(line)
        text = f"{r['text']} Your function should pass this test:\n{r['test_list'][0]}\nReply with the program alone."
        target = {"tests": r["test_list"], "setup": r["test_setup_code"]}
        out.append(ask(f"mbpp-{r['task_id']}", text, target, "code"))
    rng = np.random.default_rng(0)
    pairs = [(t, r) for t in TOPICS for r in RULES]
    for i in rng.permutation(len(pairs))[:each]:
        topic, rule = pairs[i]
        text = f"Write one sentence about {topic}. {rule}"
        out.append(ask(f"rule-{i}", text, {"rule": rule, "topic": topic}, "instructions"))
    for i, line in enumerate(lines("sst2_dev")[:each]):
        sentence, _, label = line.rpartition("\t")
        out.append(ask(f"sst2-{i}", ASK.format(sentence), {"answer": WORD[label]}, "sentiment"))
    return out


WORD = {"0": "negative", "1": "positive"}


def keeps_rule(prompt: Prompt, completion: Completion) -> float:
    """1 when the answer speaks of the topic and keeps the rule, else 0."""
    text = completion.text.strip()
    about = prompt.target["topic"].rstrip("s").casefold()[:-1] in text.casefold()
    return float(about and bool(RULES[prompt.target["rule"]](text)))


def right_word(prompt: Prompt, completion: Completion) -> float:
    """1 when the first of the two words in the answer is the label, else 0."""
    found = re.search(r"positive|negative", completion.text, re.I)
    return float(found is not None and found.group().lower() == prompt.target["answer"])


REWARDS = {
    "sums": rewards.resolve("math_answer"),
    "code": rewards.UnitTests(workers=1),
    "instructions": rewards.lift(keeps_rule),
    "sentiment": rewards.lift(right_word),
}
SHOT = "Question: {}\nAnswer: {}\n\n"
SUM = "State the final answer to the following arithmetic problem: {} =\nReply with the final answer alone."
SHOTS = {
    "sums": [(SUM.format("4 + 15"), "19"), (SUM.format("61 - 8 + 30"), "83"), (SUM.format("7 - 22"), "-15")],
    "code": [("Write a function to double a number. Your function should pass this test:\nassert twice(2) == 4\n"
              "Reply with the program alone.", "def twice(n):\n    return 2 * n")],
    "instructions": [("Write one sentence about boats. Use no comma.", "Boats float on the water."),
                     ("Write one sentence about dogs. WRITE IN CAPITAL LETTERS ONLY.", "DOGS LIKE TO RUN.")],
    "sentiment": [(ASK.format("a warm and funny film"), "positive"), (ASK.format("dull from start to end"), "negative"),
                  (ASK.format("it never finds its feet"), "negative"), (ASK.format("a small gem"), "positive")],
}  # fmt: skip
TEMPLATES = {t: "".join(SHOT.format(*s) for s in shots) + "Question: {prompt}\nAnswer:" for t, shots in SHOTS.items()}


def specialist(home: Path) -> str:
    """The folder of SmolLM2 with its LoRA for sentiment merged in; trained once."""
    from trimtab.learners.run import Lora, Optim
    from trimtab.learners.token.trainer import train_policy
    from trimtab.lm.export import write_folder

    folder = home / "sentiment"
    if not (folder / "done").exists():
        order = np.random.default_rng(0).permutation(6920)[:400]
        rows, pairs = lines("sst2_train"), []
        for i in order:
            sentence, _, label = rows[i].rpartition("\t")
            p = ask(f"train-{i}", ASK.format(sentence), None, "sentiment")
            right, wrong = WORD[label], WORD[str(1 - int(label))]
            pairs.append(Pair(p, Completion(right, "gold@0", 0, 0), Completion(wrong, "gold@0", 0, 1)))
        adapter = train_policy(
            pairs, model="smollm2-135m", out=home / "sentiment-lora", loss="sft", lora=Lora(16, 32),
            optim=Optim(5e-4, batch_size=8),
        ).path  # fmt: skip
        write_folder(str(adapter), folder)
        (folder / "done").touch()
    return str(folder)


def pool(s) -> Pool:
    members = {"smollm2-135m": samplers.OpenVINO("smollm2-135m")}
    if not s.train_specialist:
        return Pool({**members, "smollm2-hf": samplers.HF("smollm2-135m", batch=8)})
    members["qwen2.5-coder-0.5b"] = samplers.OpenVINO("qwen2.5-coder-0.5b")
    members["smollm2-sentiment"] = samplers.HF(specialist(Path(s.folder)), batch=16)
    members["gemma3-270m"] = samplers.AsText(samplers.HF("gemma3-270m", batch=16), TEMPLATES, ("\n\nQuestion:",))
    return Pool(members)


def folds(matrix: ResponseMatrix, count: int) -> np.ndarray:
    """Each prompt's fold, balanced within its task."""
    out, rng = np.zeros(len(matrix), int), np.random.default_rng(0)
    for t in sorted(set(matrix.tags)):
        at = np.flatnonzero([x == t for x in matrix.tags])
        out[rng.permutation(at)] = np.arange(len(at)) % count
    return out


def judge(matrix: ResponseMatrix, logprob: np.ndarray, count: int) -> tuple[dict, list]:
    """Rows over all prompts, each predicted by the router that did not see its fold."""
    embed, fold = HashedNgrams(), folds(matrix, count)
    X, R = embed.embed_prompts(matrix.prompts), matrix.reward_PM
    settings = {"tags": {}, "zooter": {"beta": 0.3}, "zooter beta 0": {"beta": 0.0}, "zooter beta 1": {"beta": 1.0},
                "bce": {}, "knn": {"k": 20}}  # fmt: skip
    value = {name: np.zeros_like(R) for name in [*settings, "guarded", "best model of the known task"]}
    best, guards, routers = np.zeros(len(matrix), int), [], []
    task = np.array([t[0] for t in matrix.tags])
    for f in range(count):
        a, b = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        train = matrix.rows(a)
        best[b] = int(np.nanmean(R[a], 0).argmax())
        for t in set(task):
            value["best model of the known task"][b[task[b] == t]] = np.nanmean(R[a[task[a] == t]], 0)
        for name, options in settings.items():
            method = name.split()[0]
            router = fit_router(train, embed, vectors=X[a], method=method, guard=False, **options)
            value[name][b] = router.reward(X[b])[:, [router.models.index(m) for m in matrix.models]]
        guarded = fit_router(train, embed, vectors=X[a])
        at = [guarded.models.index(m) for m in matrix.models]
        value["guarded"][b] = guarded.reward(X[b])[:, at]
        guards.append(guarded.card["guard"])
        routers.append(fit_router(train, embed, vectors=X[a], guard=False))
    value |= rank_pool(matrix, {"RMR longest": longest, "RMR shortest": shortest}) | {"RMR mean log-prob": logprob}
    table = routing_table(value, matrix, best=best)
    tokens = np.nanmean(matrix.tokens_PM, 0).sum()
    found = {
        "rows": table.plain(rewards=False)["rows"], "guards": guards,
        "best_single": sorted({matrix.models[i] for i in best}),
        "per_tag": [{**r, "gain": list(r["gain"][:3])} for r in per_tag(route(value["tags"], R), R, matrix.tags, best)],
        "models": {m: float(np.nanmean(R[:, i])) for i, m in enumerate(matrix.models)},
        "by_task": {t: dict(zip(matrix.models, np.nanmean(R[task == t], 0).round(3).tolist(), strict=True))
                    for t in sorted(set(task))},
        "tokens_a_prompt_all_models": float(tokens),
        "seconds_a_prompt": dict(zip(matrix.models, np.nanmean(matrix.latency_PM, 0).round(3).tolist(), strict=True)),
    }  # fmt: skip
    return found, [(routers[0], matrix.rows(fold == 0))]


def end_to_end(router, test: ResponseMatrix, members: Pool) -> dict:
    """The router really calls the pool on the test prompts of a fold; its rewards against the matrix's."""
    start = time.perf_counter()
    answers = Routed(router, members.samplers)(test.prompts, PARAMS)
    seconds = time.perf_counter() - start
    groups = [a.group for a in answers]
    got = np.full(len(groups), np.nan)
    for source, reward in REWARDS.items():
        at = [i for i, g in enumerate(groups) if g.prompt.source == source]
        got[at] = [g.rewards[0].value for g in rewards.score([groups[i] for i in at], reward, progress=False)]
    value = np.array([[row[m] for m in test.models] for row in router(test.prompts)])
    expected = route(value, test.reward_PM)
    best = test.models.index(router.card["best_single"])
    gain = paired_bootstrap(got, test.reward_PM[:, best])
    counts = {m: sum(a.note == f"routed to {m}" for a in answers) for m in test.models}
    return {"prompts": len(answers), "reward": float(np.nanmean(got)), "expected": float(expected.mean()),
            "equal": float((got == expected).mean()), "gain": list(gain[:3]), "calls": counts,
            "tokens_a_prompt": float(np.mean([a.tokens for a in answers])), "seconds": seconds}  # fmt: skip


def main(run: Run) -> None:
    s = run.settings
    start, members = time.time(), pool(s)
    store = Store(Path(s.folder) / "run")
    matrix = fill_pool(prompts(s.each), members, REWARDS, store, params=PARAMS)
    matrix.save(store.path / "matrix.parquet")
    groups = {m: {g.prompt.id: g.completions[0] for g in store.groups(m, None)} for m in matrix.models}
    logprob = np.array([[np.mean(groups[m][p.id].logprobs or [np.nan]) for m in matrix.models] for p in matrix.prompts])
    found, ((router, test),) = judge(matrix, logprob, s.folds)
    found["end_to_end"] = end_to_end(router, test, members)
    print(json.dumps(found["by_task"], indent=1), *found["guards"], sep="\n")
    for r in found["rows"]:
        reward, gain, gap = ("{:+.3f} [{:+.3f}, {:+.3f}]".format(*r[k]) for k in ("reward", "gain", "gap"))
        print(f"{r['name']:30} {reward}  {gain}  {gap}")
    rows = [{"table": t, **r} for t, k in (("systems", "rows"), ("tasks", "per_tag")) for r in found.pop(k)]
    run.write({**found, "prompts": len(matrix), "unscored": matrix.missing, "seconds": time.time() - start}, rows)
