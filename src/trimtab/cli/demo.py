"""`trimtab demo`: the main job on an embedded model and a task with an exact verifier."""

from pathlib import Path

from trimtab.cli.options import Device, Json, Out, Sets
from trimtab.cli.run import run


def demo(out: Out = None, device: Device = None, sets: Sets = None, json: Json = False) -> None:
    """The main job in minutes: sums by a 0.5B model, every strategy compared, a report in runs/demo."""
    run(str(Path(__file__).with_name("demo.toml")), device, False, out, sets, json)
