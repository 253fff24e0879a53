"""The command line's door: every error of ours becomes one line and its exit status; only bugs print a traceback."""

from __future__ import annotations

import os
import sys

from edgevision.errors import EdgevisionError


def main() -> None:
    """Run the command line and exit with its status."""
    from edgevision.cli import app  # typer is not needed to import edgevision

    try:
        app(prog_name="edgevision")
    except EdgevisionError as failure:
        print(f"edgevision: error: {failure}", file=sys.stderr)
        raise SystemExit(failure.exit_status) from None
    except BrokenPipeError:
        # The reader of our output has gone (`edgevision predict ... | head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
