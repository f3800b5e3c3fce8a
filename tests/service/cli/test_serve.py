"""`proxygrad serve`: which signals stop it, and how it says what keeps it from starting."""

from __future__ import annotations

import signal

import pytest

from service.cli.serve import interruptible


def test_the_second_signal_ends_what_takes_long_but_not_that_of_a_closed_terminal() -> None:
    with interruptible() as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert interrupted.is_set()
        signal.raise_signal(signal.SIGHUP)  # systemd sends it right behind, with SendSIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
