"""A server that falls silent, or says too much, later than its first answer: nothing is lost."""

import pytest
from misbehaving import SILENT
from test_misbehaving import assert_nothing_is_lost, bad, project  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [*SILENT, "gzip bomb"])
def test_later_every_command_ends_and_nothing_is_lost(project, bad, capsys, kind):  # noqa: F811
    assert_nothing_is_lost(project, bad, capsys, kind)
