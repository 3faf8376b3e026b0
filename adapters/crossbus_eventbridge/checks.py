"""What `crossbus doctor` looks at on AWS: each check's meaning, and how it is mended. Plain data, without the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crossbus.checks import Check

__all__ = ["CLASSIC", "V2"]

_MOTO: Final = "moto"
_RECORDED: Final = "recorded answers"
_MODEL: Final = "the service model"
_PROVISION: Final = "{provision}"
_MODULE: Final = "module eventbridge, variable topology"
_LOST: Final = "events of the topic do not reach the subscription"

_QUEUES: Final[Mapping[str, Check]] = {
    "queue": Check(
        "subscription",
        "the queue is there",
        f"{_LOST}, and its consumers do not start",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
    "dead-letter": Check(
        "subscription",
        "the queue of the dead letter is there",
        "an event that is given up has nowhere to go: it is tried again, for ever",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
    "dead-letter-retention": Check(
        "subscription",
        "the dead letter keeps longer than the queue",
        "SQS counts the age of what the backstop moves from when it was first sent: it may be deleted as it arrives",
        "{provision} (it keeps dead letters for 14 days, the most there is), or declare a shorter retention",
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
    "backstop": Check(
        "subscription",
        "the redrive policy moves to the dead letter after as many receives as declared",
        "an event that kills its consumer is handed out until its retention ends, and is then deleted",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "lease": Check(
        "subscription",
        "the visibility timeout is the declared lease",
        "consumers without crossbus, and backlog graphs, see another one; crossbus sets its own with each receive",
        _PROVISION,
        _MOTO,
        state="warning",
        terraform=_MODULE,
    ),
    "retention": Check(
        "subscription",
        "the queue keeps events as long as declared",
        "what is not handled in this time is deleted",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "message-size": Check(
        "subscription",
        "both queues take messages of the largest size",
        "EventBridge drops an event that is too large for the queue, and says so in a metric only; from 262,144 bytes "
        "on, which few events have, it is a warning",
        _PROVISION,
        _MOTO,
        terraform="module eventbridge, variable max_message_bytes",
        theirs=True,
    ),
    "encryption": Check(
        "subscription",
        "both queues are encrypted as declared, with a key that EventBridge may use",
        "with a key that EventBridge may not use it drops every event; without one, events lie there in the clear",
        "{provision}; a key of KMS that is not declared is first taken off by hand: aws sqs set-queue-attributes "
        "--queue-url URL --attributes KmsMasterKeyId=",
        _MOTO,
        terraform="module eventbridge, variable kms_key",
        theirs=True,
    ),
    "consume-permitted": Check(
        "subscription",
        "these credentials may receive, delete and change messages of the queue",
        "consumers start, and then fail with AccessDenied",
        "attach a policy with sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and sqs:GetQueueUrl "
        "on the queue to the role that consumes",
        _RECORDED,
        terraform="module eventbridge, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
    "dead-letter-permitted": Check(
        "subscription",
        "these credentials may send to the dead letter",
        "an event that is given up cannot be recorded: it is tried again, for ever",
        "attach a policy with sqs:SendMessage and sqs:GetQueueUrl on the queue of the dead letter to the role that "
        "consumes",
        _RECORDED,
        terraform="module eventbridge, variable access: consume",
        theirs=True,
        by_inspect=False,
    ),
}

_BUS: Final[Mapping[str, Check]] = {
    "bus": Check(
        "topic",
        "the bus is there",
        "EventBridge takes what is put on a bus that is not there, and drops it",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
    "publish-permitted": Check(
        "topic",
        "these credentials may put events on the bus",
        "a program that publishes fails; one that only consumes does not need it",
        "attach a policy with events:PutEvents on the bus to the role that publishes",
        _RECORDED,
        state="warning",
        terraform="module eventbridge, variable access: publish",
        theirs=True,
        by_inspect=False,
    ),
}

CLASSIC: Final[Mapping[str, Check]] = {
    **_BUS,
    "archive": Check(
        "topic",
        "the bus has an archive, where the profile says archive",
        "nothing can be replayed",
        _PROVISION,
        _MOTO,
        terraform="module eventbridge, variable archive_days",
    ),
    "rules-limit": Check(
        "topic",
        "the bus has room for more rules",
        "the next subscription cannot be made: a bus has 300 rules (in some regions 100), unless AWS raised it",
        "raise the quota of rules per event bus in Service Quotas, or divide the topics over several buses",
        _MOTO,
        state="warning",
        theirs=True,
        by_inspect=False,
    ),
    **_QUEUES,
    "rule": Check(
        "subscription",
        "the rule is there",
        _LOST,
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
    "rule-enabled": Check(
        "subscription",
        "the rule is enabled",
        _LOST,
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "pattern": Check(
        "subscription",
        "the rule has the pattern of the declared filter",
        "events that should come do not, or others do, and are paid for",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "target": Check(
        "subscription",
        "the queue is a target of the rule",
        _LOST,
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "target-dead-letter": Check(
        "subscription",
        "the target has a dead letter of its own",
        "what EventBridge cannot deliver within a day is dropped, and said in a metric only",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
    ),
    "targets-limit": Check(
        "subscription",
        "the rule has room for its target",
        "a rule has at most five targets: the queue cannot be added",
        "take other targets off the rule, and give them rules of their own; then {provision}",
        _MOTO,
    ),
    "pattern-size": Check(
        "subscription",
        "the pattern is far from the largest size",
        "EventBridge refuses a pattern of more than 2,048 characters, and the next value of the filter may be one",
        "make the filter shorter: a prefix instead of many values; or raise the quota 'Event pattern size'",
        _MOTO,
        state="warning",
        by_inspect=False,
    ),
    "queue-policy": Check(
        "subscription",
        "the policies of both queues let the rule send",
        "EventBridge drops the events, and says so in a metric only",
        _PROVISION,
        _MOTO,
        terraform=_MODULE,
        theirs=True,
    ),
}
"""The checks with api=classic."""

V2: Final[Mapping[str, Check]] = {
    **{name: check for name, check in _BUS.items() if name != "publish-permitted"},
    "bus-active": Check(
        "topic",
        "the bus is active",
        "it takes no events",
        "wait until AWS is done, or look at the reason that it gives",
        _MODEL,
        theirs=True,
    ),
    **_QUEUES,
    "subscriber": Check("subscription", "the subscriber is there", _LOST, _PROVISION, _MODEL, theirs=True),
    "subscriber-delivers": Check(
        "subscription",
        "the subscriber is active and delivers raw events to the queue",
        _LOST,
        _PROVISION,
        _MODEL,
        theirs=True,
    ),
    "subscriber-settings": Check(
        "subscription",
        "the subscriber is as declared",
        "events that should come do not, or others do",
        _PROVISION,
        _MODEL,
    ),
}
"""The checks with api=v2."""
