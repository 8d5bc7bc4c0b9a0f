"""Errors that are the caller's to mend, and how the command-line programs end."""
import sys
import traceback

__all__ = ["UserError", "TrainingError", "run"]


class UserError(ValueError):
    """A mistake in what was asked for. The message names what was received and what was expected, in one line."""


class TrainingError(RuntimeError):
    """Training cannot go on with these settings, however often it is started again: a loss is not finite."""


def run(main):
    """Run a program's `main()`, which returns an exit code or None, and end the process.

    A `UserError` becomes one line on standard error and exit code 2, without a traceback; a `TrainingError` one line and 65,
    which the launcher does not answer with a restart; Ctrl-C becomes 130. In a distributed worker the process ends so that the
    launcher learns of a failure at once (`distributed.leave`).
    """
    try:
        code = main() or 0
    except (UserError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UserError) else 65
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (| head). Point stdout away, or the interpreter complains at shutdown.
        import os
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    if "gluonzoo.distributed.kvstore" in sys.modules:
        sys.modules["gluonzoo.distributed.kvstore"].leave(code)
    sys.exit(code)
