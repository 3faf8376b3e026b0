"""The checks that are the same for every adapter; with those of the adapters they are the documentation's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crossbus.checks import Check
from crossbus.errors import (
    AdapterNotInstalled,
    ConfigurationError,
    CrossbusError,
    DeadlineExceeded,
    Unauthenticated,
    Unavailable,
)

__all__ = ["PORTABLE", "catalog", "check_of_error"]

_SERVERS: Final = "moto, emulator, local server"

PORTABLE: Final[Mapping[str, Check]] = {
    "python": Check(
        "program",
        "Python is one that crossbus supports",
        "crossbus does not run on another",
        "run it with Python 3.11 or newer",
        "a version put in by the test",
        by_inspect=False,
    ),
    "configuration": Check(
        "profile",
        "a profile is chosen, and its adapter takes all that it says",
        "the program does not start",
        "mend what the line names, in crossbus.toml or in the variable; crossbus config show tells what is in force",
        "the configuration itself",
        by_inspect=False,
    ),
    "packages": Check(
        "profile",
        "the packages that the adapter needs are installed, in versions that it knows",
        "the program does not start, or fails where it meets the older package",
        "pip install --upgrade 'crossbus[{extra}]'",
        "a package that the test hides",
        by_inspect=False,
    ),
    "credentials": Check(
        "profile",
        "there are credentials, and the provider knows them",
        "every request is refused",
        "do what the line says",
        _SERVERS,
        by_inspect=False,
    ),
    "endpoint": Check(
        "profile",
        "the provider answers",
        "nothing is published, and nothing comes",
        "see that the address is right, and that a proxy or firewall lets the program out",
        _SERVERS,
        by_inspect=False,
    ),
    "clock": Check(
        "profile",
        "this machine's clock agrees with the provider's",
        "AWS refuses signatures that are five minutes off, and tokens seem to have ended or not to have begun",
        "set the clock: timedatectl set-ntp true",
        "moto, local server, with another clock",
        by_inspect=False,
    ),
    "place": Check(
        "profile",
        "something of what is declared is there",
        "a wrong region, project, namespace or account has none of it, and looks like one that was never provisioned",
        "see that the profile names the right one; if it does: {provision}",
        _SERVERS,
        state="warning",
        by_inspect=False,
    ),
    "looked": Check(
        "profile",
        "all that is declared could be looked at",
        "what could not be looked at may be wrong",
        "grant the permission to whoever runs crossbus doctor, or run it as somebody who has it; the program itself "
        "does not need it",
        _SERVERS,
        state="warning",
        by_inspect=False,
    ),
    "capability": Check(
        "subscription",
        "the adapter can do what is declared",
        "the program does not start",
        "declare it otherwise, or put the topic on a profile that can",
        "declarations",
        theirs=True,
        by_inspect=False,
    ),
    "declaration": Check(
        "subscription",
        "the provider can hold it as it is declared, and what is there can be used so",
        "the program does not start",
        "do what the line says",
        _SERVERS,
        theirs=True,
        by_inspect=False,
    ),
    "mismatch": Check(
        "subscription",
        "an external subscription with a filter says what becomes of the events that it does not match",
        "the program does not start: they are somebody's, and crossbus does not guess",
        'set on_mismatch = "release", "dead_letter" or "drop" on the subscription',
        "declarations",
        theirs=True,
        by_inspect=False,
    ),
    "residual": Check(
        "subscription",
        "the provider evaluates the whole filter",
        "you pay for the delivery of what is dropped here",
        "make the filter one that the provider can hold: `crossbus topology export` shows what it is given; or keep "
        "it, if little is dropped",
        "declarations",
        state="warning",
        theirs=True,
        by_inspect=False,
    ),
    "attempts": Check(
        "subscription",
        "the backstop steps in after the last attempt",
        "the provider moves an event to the dead letter before its attempts are over, without a record of why",
        "set backstop to more than retry.attempts, or leave it out (100, or the provider's most)",
        "declarations",
        theirs=True,
        by_inspect=False,
    ),
}
"""By name, what is checked of every adapter."""


def catalog(checks: Mapping[str, Check]) -> Mapping[str, Check]:
    """Return the portable checks with those of an adapter."""
    return {**PORTABLE, **checks}


def check_of_error(error: CrossbusError) -> str:
    """Return the portable check that an error, raised by connecting or asking, belongs to."""
    if isinstance(error, AdapterNotInstalled):
        return "packages"
    if isinstance(error, ConfigurationError):
        return "configuration"
    if isinstance(error, Unauthenticated):
        return "credentials"
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        return "endpoint"
    return "looked"
