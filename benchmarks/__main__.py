"""The command line: `python -m benchmarks NAME [--small] [--device cpu|cuda] [--model NAME] [name=value ...]`.

Without a name it lists them. The last line that a benchmark prints is its result as a JSON object; a full run keeps it
in benchmarks/results, --small only prints it, --out FOLDER keeps either there. Status 77: skipped, the last line of
standard error says why.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks import index, results
from benchmarks.data import Skipped, find
from benchmarks.run import Run, WrongSetting, settings_of

SKIPPED = 77


def main(argv: list[str] | None = None) -> int:
    """Runs one benchmark; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=(__doc__ or "").partition("\n")[2].strip())
    parser.add_argument("name", nargs="?", help="one of the list that no name prints")
    parser.add_argument("words", nargs="*", metavar="name=value", help="settings of this benchmark")
    parser.add_argument("--small", action="store_true", help="a quick one, to see that it runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the same as device=...")
    parser.add_argument("--model", help="the same as model=...")
    parser.add_argument("--out", type=Path, help="folder of the result")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args(argv)
    known = index.benchmarks()
    if args.name not in known:
        if args.name:
            sys.stderr.write(f"there is no benchmark named {args.name!r}; these are:\n")
        print("\n".join(f"{b.name:18} {b.heading}" for b in known.values()))
        return 2 if args.name else 0
    words = [*args.words, *(f"{k}={v}" for k in ("device", "model") if (v := getattr(args, k)))]
    try:
        for name in known[args.name].data:
            find(name)
        module = importlib.import_module(f"benchmarks.{known[args.name].module}")
        given = (*["--small"] * args.small, *words)
        out = args.out or (None if args.small else results.FOLDER)
        run = Run(args.name, settings_of(module, args.small, words), args.small, given, out, os.getloadavg()[0])
        if args.worker is not None:
            print(json.dumps(module.worker(run, *args.worker)))
        else:
            module.main(run)
    except WrongSetting as e:
        parser.error(str(e))
    except Skipped as e:
        return _skipped(args.name, str(e))
    except ModuleNotFoundError as e:
        if not e.name or e.name.partition(".")[0] in ("trimtab", "benchmarks"):
            raise
        return _skipped(args.name, f"it needs the package {e.name}; `make test` installs what the benchmarks need")
    return 0


def _skipped(name: str, why: str) -> int:
    sys.stderr.write(f"{name} is skipped: {why}\n")
    return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
