"""Programs run in the tests' own process, which is much faster than one each."""
import importlib.util
import sys
from types import SimpleNamespace

from gluonzoo import errors

import pytest


@pytest.fixture
def in_process(root, tmp_path, monkeypatch, capsys):
    """in_process("tools/predict.py", "a.png", ...) as `run_program` does, in a folder of the test's own."""
    def run(program, *arguments):
        spec = importlib.util.spec_from_file_location("program", str(root / program))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [program] + [str(argument) for argument in arguments])
        capsys.readouterr()
        try:
            code = module.main()
        except errors.UserError as error:  # As `errors.run`, which ends the process.
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except SystemExit as end:  # argparse
            code = end.code
        output = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=output.out, stderr=output.err, module=module)
    return run
