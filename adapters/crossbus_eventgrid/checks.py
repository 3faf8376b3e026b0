"""What `crossbus doctor` looks at on Event Grid: each check's meaning, and how it is mended. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crossbus.checks import Check

__all__ = ["CHECKS"]

_LOCAL: Final = "local server; recorded answers of Azure's control plane"
_RECORDED: Final = "recorded answers"
_PROVISION: Final = "{provision}"
_MODULE: Final = "module eventgrid, variable topology"

CHECKS: Final[Mapping[str, Check]] = {
    "topic": Check(
        "topic",
        "the topic is there",
        "publishing fails",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "publish-permitted": Check(
        "topic",
        "these credentials may publish to the topic",
        "a program that publishes fails; one that only consumes does not need it",
        "assign the role EventGrid Data Sender on the topic or namespace to the identity that publishes",
        _RECORDED,
        state="warning",
        terraform="module eventgrid, variable access: publish",
        theirs=True,
        by_inspect=False,
    ),
    "subscription": Check(
        "subscription",
        "the event subscription is there",
        "consumers do not start, and events of the topic do not wait for them",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "filter": Check(
        "subscription",
        "the filters are those of the declaration",
        "events that should come do not, or others do, and are paid for",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "lease": Check(
        "subscription",
        "the lock duration is the declared lease",
        "Event Grid gives each delivery its own: a handler loses it earlier than declared, or a crash holds it longer",
        _PROVISION,
        _LOCAL,
        state="warning",
        terraform=_MODULE,
        theirs=True,
    ),
    "backstop": Check(
        "subscription",
        "the largest delivery count is as declared",
        "Event Grid drops an event after so many receives: before its attempts are over, if it is too small",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "retention": Check(
        "subscription",
        "the subscription keeps events as long as declared",
        "what is not handled in this time is dropped",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "dead-letter": Check(
        "subscription",
        "the dead letter's topic is there, with its subscription",
        "an event that is given up has nowhere to go: it is tried again, for ever",
        _PROVISION,
        _LOCAL,
        terraform=_MODULE,
        theirs=True,
    ),
    "consume-permitted": Check(
        "subscription",
        "these credentials may receive from the subscription",
        "consumers start, and then fail",
        "assign the role EventGrid Data Receiver on the topic or namespace to the identity that consumes",
        _RECORDED,
        terraform="module eventgrid, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
    "dead-letter-permitted": Check(
        "subscription",
        "these credentials may publish to the dead letter",
        "an event that is given up cannot be recorded: it is tried again, for ever",
        "assign the role EventGrid Data Sender on the dead letter's topic or the namespace to the identity that "
        "consumes",
        _RECORDED,
        terraform="module eventgrid, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
}
