"""The command line: one verb a file, in pipeline order. Nothing heavy is imported before a verb runs.

Every verb reads the same task file (`--config task.toml`), flags lie over it, and stages talk through the store, so
each verb can be run alone, again, or replaced by a foreign tool.
"""

import sys


def main() -> None:
    """Entry point: errors of ours are one line and exit code 1, Ctrl-C says that the store can be continued (130)."""
    from trimtab.errors import TrimtabError
    from trimtab.progress import quiet_libraries

    quiet_libraries()
    from trimtab.cli.app import app

    try:
        app()
    except TrimtabError as e:
        print(f"trimtab: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ntrimtab: interrupted; what was finished is stored, run the same command to continue", file=sys.stderr)
        sys.exit(130)
