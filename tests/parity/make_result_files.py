"""Writes tests/parity/result_files/: small results as inspect-ai 0.3.285 and lm-eval 0.4.13 write them themselves.

Run in throw-away environments (neither package is needed by the tests):
    pip install inspect-ai==0.3.285      python tests/parity/make_result_files.py inspect
    pip install "lm-eval[hf]==0.4.13"    python tests/parity/make_result_files.py lm_eval
No model is asked: answers are made by rule. Kept as written, but for the Inspect .json log, whose events, messages and
model outputs are dropped to keep it small. Made on 29 November 2026.
"""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "result_files"
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - {{name: strict, filter: [{{function: take_first}}]}}
  - {{name: digit, filter: [{{function: regex, regex_pattern: "(\\\\d)"}}, {{function: take_first}}]}}
"""


def inspect(fmt, right, name, order):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score, match, mean, scorer
    from inspect_ai.solver import solver

    @scorer(metrics=[mean()])
    def brief():
        async def score(state, target):
            return Score(value=1 / len(state.output.completion))

        return score

    @solver
    def answers():
        async def solve(state, generate):
            i = int(state.sample_id.split("-")[1])
            state.output = ModelOutput.from_content("mockllm/model", str(2 * i + (not right(i, state.epoch))))
            return state

        return solve

    samples = [Sample(id=f"sum-{i}", input=f"{i} + {i} =", target=str(2 * i)) for i in order]
    task = Task(dataset=samples, solver=answers(), scorer=[match(), brief()], name="sums")
    with tempfile.TemporaryDirectory() as folder:
        eval(task, model="mockllm/model", epochs=2, log_dir=folder, log_format=fmt, display="none", max_samples=1)
        data = next(Path(folder).glob(f"*.{fmt}")).read_bytes()
    if fmt == "json":
        log = json.loads(data)
        for sample in log["samples"]:
            for key in ("events", "events_data", "messages", "output", "attachments", "store"):
                sample.pop(key, None)
        data = json.dumps(log).encode()
    (HERE / name).write_bytes(data)


def lm_eval(say, name, order):
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Rule(LM):
        loglikelihood = loglikelihood_rolling = None

        def generate_until(self, requests):
            return [say(int(r.args[0].split()[0])) for r in requests]

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        data.write_text("".join(json.dumps({"q": f"{i} + {i} =", "a": str(2 * i)}) + "\n" for i in order))
        (Path(folder) / "sums.yaml").write_text(TASK.format(data=data))
        manager = TaskManager(include_path=folder)
        out = simple_evaluate(model=Rule(), tasks=["sums"], task_manager=manager, log_samples=True, bootstrap_iters=0)
        samples = out.pop("samples")
        tracker = EvaluationTracker(output_path=folder)
        tracker.save_results_aggregated(results=out, samples=samples)
        tracker.save_results_samples(task_name="sums", samples=samples["sums"])
        (HERE / name).write_bytes(next(Path(folder).rglob("samples_*.jsonl")).read_bytes())


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    if sys.argv[1] == "inspect":
        inspect("eval", lambda i, epoch: i % 2 == 0, "inspect_a.eval", range(3))
        inspect("json", lambda i, epoch: epoch == 1 or i == 2, "inspect_b.json", range(2, -1, -1))
    else:
        lm_eval(lambda i: str(2 * i), "samples_sums_a.jsonl", range(4))
        lm_eval(lambda i: f"it is {2 * i + (i == 3)}", "samples_sums_b.jsonl", range(3, -1, -1))
