"""Where a run lives, and telling that its process is gone."""

import dataclasses
import os
import subprocess

from sgdstudy.tracking import provenance


def process(number):
    """A process of this machine, by its number."""
    there = provenance.here()
    space = there.pid.partition("@")[2]
    return dataclasses.replace(there, pid=f"{number}@{space}")


def test_a_process_that_runs_is_not_gone():
    assert not provenance.here().is_gone()
    assert not process(os.getppid()).is_gone()
    assert not process(1).is_gone()  # another user's, for most


def test_a_process_that_has_ended_is_gone():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert process(ended.pid).is_gone()


def test_what_cannot_be_seen_from_here_is_not_called_gone():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    here = process(ended.pid)
    assert not dataclasses.replace(here, host="elsewhere").is_gone()
    assert not dataclasses.replace(here, pid=f"{ended.pid}@another space").is_gone()
    assert not dataclasses.replace(here, boot_id="").is_gone()
    if here.boot_id:  # the machine was started again since
        assert dataclasses.replace(provenance.here(), boot_id="an earlier start").is_gone()
