"""Ctrl-C while the imports of a command are under way: exit code 130, not a line."""

import signal
import subprocess
import sys

import pytest

from sgdstudy.cli import start

# Ctrl-C comes when a module is asked for
PROGRAM = """
import importlib.abc, os, runpy, signal, sys, threading

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["sgdstudy", "list"]
{begins}
"""
BEGINS = {
    "python -m sgdstudy": "runpy.run_module('sgdstudy', run_name='__main__')",
    "sgdstudy": "from sgdstudy.cli.start import main; main()",
    "STUDY.main()": "from sgdstudy.studies.study import Study; Study.main(None)",
}
MODULES = ["sgdstudy.cli.main", "sgdstudy.cli.commands", "pyarrow"]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("begins", BEGINS)
def test_an_interrupted_import_ends_the_program_without_a_line(begins, module):
    """As it was seen: a traceback of 30 lines from within pyarrow."""
    program = PROGRAM.format(module=module, begins=BEGINS[begins])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    "handler", [signal.SIG_IGN, signal.default_int_handler, lambda number, frame: None]
)
def test_what_ctrl_c_does_is_as_it_was_afterwards(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with start._importing():
            heard = signal.getsignal(signal.SIGINT)
        assert (heard is handler) == (handler is not signal.default_int_handler)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
