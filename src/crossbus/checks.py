"""What `crossbus doctor` looks at: a `Check` says what and why, a `Difference` what is otherwise, a `Result` what came
of it. Plain data, readable without an SDK; the documentation's table is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

__all__ = ["About", "Check", "Difference", "Result", "State", "clock_result", "texts"]

State = Literal["ok", "warning", "wrong", "unknown"]
"""`warning`: it works, but costs or risks something. `wrong`: events are lost, or do not come. `unknown`: it could not
be looked at."""

About = Literal["program", "profile", "topic", "subscription"]
"""What a check is made of: once for all, or once for each of these."""


SKEW: Final = 120.0
"""Seconds between our clock and the provider's that are too many: AWS refuses a signature that is 300 off."""


class Check(NamedTuple):
    """One thing that can be well or not."""

    about: About
    what: str
    """What is the case if it is well, in a few words: ``the rule is enabled``."""
    why: str
    """What happens if it is not."""
    mend: str
    """How it is mended. ``{provision}`` stands for the command that provisions the program and profile at hand."""
    proved: str = ""
    """What the test that breaks it runs on: ``moto``, ``emulator``, ``local server``, ``recorded answers``."""
    state: Literal["warning", "wrong"] = "wrong"
    """What it is if it is not well."""
    terraform: str = ""
    """What of crossbus's terraform module mends it: the module, and its variable or resource."""
    theirs: bool = False
    """True if it is also looked at where the resource is external: not crossbus's to change, but yours to know."""
    by_inspect: bool = True
    """True if `Adapter.inspect` looks at it; False if `Adapter.diagnose` does, or the portable layer."""


class Difference(NamedTuple):
    """In what something that is there differs from what is declared."""

    check: str
    """The name of the check that is not well, of `Adapter.checks`."""
    text: str
    """What it is, and what is declared, for people."""
    state: Literal["warning", "wrong"] | None = None
    """How bad it is, if not as the check says."""


class Result(NamedTuple):
    """What came of one check."""

    check: str
    """Its name, of `Adapter.checks` or of the portable ones."""
    state: State
    text: str = ""
    """What was seen, for people. Of an unknown one: which permission is lacking, or what else is in the way."""
    name: str = ""
    """The logical name of what it is about: ``orders``, ``orders/billing``; empty for a profile and the program."""
    mend: str | None = None
    """How it is mended, where that is more than the check itself says. ``{provision}`` as in `Check.mend`."""


def texts(differences: Iterable[Difference]) -> list[str]:
    """Return what differs, in words."""
    return [one.text for one in differences]


def clock_result(date: str | None, now: float) -> list[Result]:
    """Compare a provider's clock, as the header ``Date`` of its answer says it, with ours; nothing if it does not."""
    if not date:
        return []
    from email.utils import parsedate_to_datetime

    try:
        ahead = now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return []
    text = (
        f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the provider's"
    )
    return [Result("clock", "wrong" if abs(ahead) > SKEW else "ok", text)]
