"""The `pellucid` command: one verb a module, errors on one line, exit codes 0, 1 and 2."""

import os
import sys
from collections.abc import Sequence

import typer

from pellucid.cli.app import build
from pellucid.cli.run import DEBUG_VARIABLE
from pellucid.core.errors import PellucidError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success. 2: bad input, explained on one line of standard error. 1: a failure of ours,
    reported on one line (with the traceback when PELLUCID_DEBUG=1). 130: interrupted.
    """
    try:
        code = build()(arguments, prog_name="pellucid", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except PellucidError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        return _fail(
            f"{type(error).__name__}: {error} (a defect of ours; run again with "
            f"{DEBUG_VARIABLE}=1 to see where, and report it)",
            1,
        )
    if code == INTERRUPTED:
        return _fail("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code
