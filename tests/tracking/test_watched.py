"""A command that is watched: it ends with its parent, or by itself, and says nothing of its own."""

import subprocess
import sys

import pytest

from sgdstudy.tracking import watched


@pytest.mark.parametrize(
    ("command", "code", "ends"),
    [
        ("raise SystemExit(3)", 3, False),
        ("pass", 0, False),
        ("import time; time.sleep(60)", 0, True),
    ],
)
def test_it_ends_with_its_command_or_its_parent(command, code, ends):
    """As it was seen: a crash dump of Python where the command ends before the parent."""
    process = subprocess.Popen(
        [sys.executable, watched.__file__, sys.executable, "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ends:
        process.stdin.close()
    found = process.wait(30)
    assert process.stdout.read() == b""
    process.stdout.close()
    if not ends:
        process.stdin.close()
        assert found == code
