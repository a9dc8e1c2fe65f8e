"""Ctrl-C and SIGTERM as marks: who sees them, when they act at once, what is left afterwards."""

import contextlib
import os
import signal
import threading

import pytest
import torch

from sgdstudy.errors import Ended, Interrupted
from sgdstudy.problems.torch_state import own_state
from sgdstudy.training import interrupts
from sgdstudy.training.interrupts import STOP_SIGNALS, called, interrupt_flag, stopping


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
        with interrupt_flag() as later:  # an arm that was being prepared
            assert later == [signal.SIGINT]
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)


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


def test_whether_the_outermost_is_marked():
    assert not stopping()
    with interrupt_flag() as outer:
        assert not stopping()
        with interrupt_flag():
            send(signal.SIGTERM)
        assert outer
        assert stopping()
    assert not stopping()


def test_a_worker_hears_of_its_parent_alone_whenever_that_is(monkeypatch):
    before = handlers()
    monkeypatch.setattr(interrupts, "_heard", [*STOP_SIGNALS])
    monkeypatch.setattr(interrupts, "_early", [])
    try:
        interrupts.heed_parent()
        with interrupt_flag() as outer, interrupt_flag() as inner:
            send(signal.SIGINT)
            assert outer == inner == []
        send(signal.SIGTERM)  # between two tasks
        with interrupt_flag() as outer, interrupt_flag() as inner:
            assert outer == inner == [signal.SIGTERM]
            send(signal.SIGTERM)  # of a service's end, to all its processes
    finally:
        for number, handler in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def raising(error):
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), SystemExit(3), GeneratorExit()])
def test_what_would_end_the_program_is_an_error_of_the_function(error):
    before = handlers()
    with pytest.raises(Ended, match=type(error).__name__) as found:
        called(lambda: raising(error))
    assert found.value.raised is error
    assert handlers() == before


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration(1), Interrupted("x")])
def test_other_errors_and_what_is_returned_pass(error):
    assert called(lambda: 3) == 3
    with pytest.raises(type(error)) as found:
        called(lambda: raising(error))
    assert found.value is error


def test_ctrl_c_passes_and_is_handed_on():
    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        called(lambda: send(signal.SIGINT))
    assert handlers() == before
    with interrupt_flag() as marks:
        called(lambda: send(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):  # it was pressed before, and is noticed there
            called(lambda: send(signal.SIGTERM))
    assert marks == [signal.SIGINT]
    assert handlers() == before


def test_a_handler_that_the_function_sets_stays():
    mine = handlers()[0]

    def set_handler():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        called(set_handler)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with pytest.raises(Ended):  # nobody can press it: it is the function's own
            called(lambda: raising(KeyboardInterrupt()))
    finally:
        signal.signal(signal.SIGINT, mine)


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
