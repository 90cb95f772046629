"""`trimtab demo`: the main job on an embedded model and a task with an exact verifier."""

from pathlib import Path

from trimtab.cli.options import Device, Json, Out, Sets, emit, progress


def demo(out: Out = None, device: Device = None, sets: Sets = None, json: Json = False) -> None:
    """The main job in minutes: sums by a 0.5B model, every strategy compared, a report in runs/demo."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan

    task = load_task(Path(__file__).with_name("demo.toml"), {"out": out, "model.device": device}, sets or ())
    plan(task)
    table = stages.run_all(task, say=progress(json))
    if json:
        emit(table.to_json(), "", json)
