"""`trimtab sample --check-gold`: solutions that fail their own tests are named before anything is sampled."""

import json

from typer.testing import CliRunner

from trimtab.cli.app import app


def test_failing_gold_is_named_and_the_exit_code_says_so(tmp_path):
    rows = [
        {
            "id": f"p{i}",
            "prompt": f"Add {i}.",
            "tests": f"assert add(1) == {i + 1}",
            "code": f"def add(x): return x + {i % 3}",
        }
        for i in range(8)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    args = [
        "sample",
        "--check-gold",
        "--json",
        "--set",
        "data.test=0.5",
        "--prompts",
        str(tmp_path / "p.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(app, args)
    facts = json.loads(result.output.splitlines()[-1])
    assert (facts["prompts"], facts["with_gold"], sorted(facts["failed"])) == (8, 8, ["p3", "p4", "p5", "p6", "p7"])
    assert result.exit_code == 1
