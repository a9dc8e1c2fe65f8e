"""Ctrl-C and SIGTERM as marks: who sees them, when they act at once, what is left afterwards."""

import contextlib
import os
import signal
import threading

import pytest
import torch

from sgdstudy.problems.torch_state import own_state
from sgdstudy.training.interrupts import STOP_SIGNALS, interrupt_flag


def send(number):
    os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_is_a_mark_and_the_second_is_immediate(number):
    with interrupt_flag() as marks:
        assert marks == []
        send(number)
        assert marks == [number]
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_every_flag_around_it_is_marked():
    with interrupt_flag() as outer:
        with interrupt_flag() as inner:
            send(signal.SIGINT)
        assert inner == outer == [signal.SIGINT]
        with interrupt_flag() as later:
            assert later == []


def test_a_flag_that_is_over_hears_of_nothing():
    with interrupt_flag() as outer:
        with interrupt_flag() as inner:
            pass
        send(signal.SIGTERM)
    assert (inner, outer) == ([], [signal.SIGTERM])


def test_the_handlers_of_before_are_back_whatever_happens():
    before = handlers()
    with contextlib.suppress(ZeroDivisionError), interrupt_flag():
        assert handlers() != before
        raise ZeroDivisionError
    assert handlers() == before
    with interrupt_flag() as marks:
        send(signal.SIGINT)
    assert marks == [signal.SIGINT]


def test_another_thread_takes_no_signals():
    before, seen = handlers(), []

    def train():
        with interrupt_flag() as marks:
            seen.append((marks, handlers()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [([], before)]


def test_one_torch_thread_and_then_as_many_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with contextlib.suppress(ZeroDivisionError), own_state():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
