"""What `crossbus doctor` looks at on Pub/Sub: each check's meaning, and how it is mended. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crossbus.checks import Check

__all__ = ["CHECKS"]

_EMULATOR: Final = "emulator"
_RECORDED: Final = "recorded answers"
_PROVISION: Final = "{provision}"
_MODULE: Final = "module pubsub, variable topology"
_FOR_GOOD: Final = (
    "Pub/Sub cannot change it: take another name, or delete it once it is empty, then {provision}"
)

CHECKS: Final[Mapping[str, Check]] = {
    "topic": Check(
        "topic",
        "the topic is there",
        "publishing fails",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "publish-permitted": Check(
        "topic",
        "these credentials may publish to the topic",
        "a program that publishes fails; one that only consumes does not need it",
        "grant roles/pubsub.publisher on the topic to the account that publishes",
        _RECORDED,
        state="warning",
        terraform="module pubsub, variable access: publish",
        theirs=True,
        by_inspect=False,
    ),
    "subscription": Check(
        "subscription",
        "the subscription is there, with the declared filter",
        "consumers do not start. After a change of the filter this is the new generation, which only gets what is "
        "published after it was made",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "filter": Check(
        "subscription",
        "the filter is the declared one",
        "events that should come do not, or others do, and are paid for",
        _FOR_GOOD,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "ordering": Check(
        "subscription",
        "message ordering is as declared",
        "with it, one event that is tried again holds back all of its key; without it, no order is kept",
        _FOR_GOOD,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "detached": Check(
        "subscription",
        "the subscription is attached to its topic",
        "nothing comes any more, and nobody says so",
        "delete it, then {provision}",
        _RECORDED,
        theirs=True,
    ),
    "lease": Check(
        "subscription",
        "the acknowledgement deadline is the declared lease",
        "consumers without crossbus see another one; crossbus reads the deadline, and keeps to it",
        _PROVISION,
        _EMULATOR,
        state="warning",
        terraform=_MODULE,
        theirs=True,
    ),
    "retention": Check(
        "subscription",
        "the subscription keeps events as long as declared",
        "what is not handled in this time is deleted",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "acknowledged-kept": Check(
        "subscription",
        "acknowledged events are kept, unless declared otherwise",
        "nothing can be replayed; or what nobody wants to replay is paid for",
        _PROVISION,
        _EMULATOR,
        state="warning",
        terraform=_MODULE,
        theirs=True,
    ),
    "exactly-once": Check(
        "subscription",
        "exactly-once delivery is as declared",
        "with it, acknowledging is slower; without it, one consumer may be given an event twice",
        _PROVISION,
        _EMULATOR,
        state="warning",
        terraform=_MODULE,
        theirs=True,
    ),
    "backstop": Check(
        "subscription",
        "the dead-letter policy moves to the dead letter after as many deliveries as declared",
        "an event that kills its consumer is handed out until its retention ends, and is then deleted; without any "
        "policy Pub/Sub counts no attempts",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "expiration": Check(
        "subscription",
        "the subscription is never deleted for want of a consumer",
        "Google deletes it, with all that waits in it, when its consumers stood still for that long",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "dead-letter": Check(
        "subscription",
        "the topic of the dead letter is there",
        "an event that is given up has nowhere to go: it is tried again, for ever",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "dead-letter-subscription": Check(
        "subscription",
        "the dead letter has a subscription that keeps its records",
        "a topic keeps nothing: records of events that were given up are lost",
        _PROVISION,
        _EMULATOR,
        terraform=_MODULE,
        theirs=True,
    ),
    "generations": Check(
        "subscription",
        "no older generation of a changed filter is left",
        "consumers read it too, and what is published goes into both: it is paid for twice",
        "{provision} --prune, once what waits in it was handled",
        _EMULATOR,
        state="warning",
        terraform="module pubsub, variable topology: older_generations",
        by_inspect=False,
    ),
    "generations-listed": Check(
        "subscription",
        "options.generations names every older generation, where it is given",
        "what waits in one that is not named is handled by nobody",
        "add it to options.generations of the subscription, in crossbus.toml or in the program",
        _EMULATOR,
        by_inspect=False,
    ),
    "agent-granted": Check(
        "subscription",
        "Pub/Sub's service agent may publish to the dead letter, and acknowledge on the subscription",
        "the dead-letter policy moves nothing, and says nothing",
        _PROVISION,
        _RECORDED,
        terraform="module pubsub, variable project_number",
        by_inspect=False,
    ),
    "consume-permitted": Check(
        "subscription",
        "these credentials may consume the subscription",
        "consumers start, and then fail",
        "grant roles/pubsub.subscriber on the subscription to the account that consumes",
        _RECORDED,
        terraform="module pubsub, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
    "dead-letter-permitted": Check(
        "subscription",
        "these credentials may publish to the dead letter",
        "an event that is given up cannot be recorded: it is tried again, for ever",
        "grant roles/pubsub.publisher on the topic of the dead letter to the account that consumes",
        _RECORDED,
        terraform="module pubsub, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
}
