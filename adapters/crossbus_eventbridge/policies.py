"""Queue policies: whether a rule may send into a queue, and the statement that lets it.

Without it EventBridge drops the events, and says so in a metric only.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sqs-permissions
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["allows", "statement", "with_statement", "without_statement"]

SERVICE: Final = "events.amazonaws.com"
ACTION: Final = "sqs:SendMessage"


def statement(queue_arn: str, rule_arn: str) -> dict[str, Any]:
    """Return the statement that lets one rule, and nothing else, send into one queue."""
    return {
        "Sid": _sid(rule_arn),
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": ACTION,
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    }


def _sid(rule_arn: str) -> str:
    return f"crossbus-{hashlib.sha256(rule_arn.encode()).hexdigest()[:16]}"


def with_statement(policy: str | None, queue_arn: str, rule_arn: str) -> str:
    """Return a policy with the rule's statement added, or put right; all others stay as they are."""
    document = _document(policy)
    document["Statement"] = [*_others(document, rule_arn), statement(queue_arn, rule_arn)]
    return json.dumps(document, separators=(",", ":"))


def without_statement(policy: str | None, rule_arn: str) -> str | None:
    """Return a policy without the rule's statement, empty if none is left; None if it had none."""
    document = _document(policy)
    others = _others(document, rule_arn)
    if len(others) == len(document["Statement"]):
        return None
    return json.dumps({**document, "Statement": others}, separators=(",", ":")) if others else ""


def _others(document: Mapping[str, Any], rule_arn: str) -> list[Any]:
    return [one for one in document["Statement"] if one.get("Sid") != _sid(rule_arn)]


def _document(policy: str | None) -> dict[str, Any]:
    if not policy:
        return {"Version": "2012-10-17", "Statement": []}
    document: dict[str, Any] = json.loads(policy)
    found = document.get("Statement", [])
    document["Statement"] = [found] if isinstance(found, dict) else list(found)
    return document


def allows(policy: str | None, queue_arn: str, rule_arn: str) -> bool:
    """Tell whether a policy lets EventBridge send into the queue for the rule, whoever wrote it."""
    statements = _document(policy)["Statement"]
    if any(_applies(one, queue_arn, rule_arn) for one in statements if one.get("Effect") == "Deny"):
        return False
    return any(_applies(one, queue_arn, rule_arn) for one in statements if one.get("Effect") == "Allow")


def _applies(one: Mapping[str, Any], queue_arn: str, rule_arn: str) -> bool:
    principal = one.get("Principal")
    services = (
        _listed(principal.get("Service", principal.get("AWS"))) if isinstance(principal, Mapping) else []
    )
    if principal != "*" and SERVICE not in services and "*" not in services:
        return False
    actions = [action.lower() for action in _listed(one.get("Action"))]
    if not any(fnmatch.fnmatchcase(ACTION.lower(), action) for action in actions):
        return False
    if not any(fnmatch.fnmatchcase(queue_arn, resource) for resource in _listed(one.get("Resource", "*"))):
        return False
    return all(
        _holds(operator, key, _listed(values), rule_arn)
        for operator, keys in (one.get("Condition") or {}).items()
        for key, values in keys.items()
    )


def _holds(operator: str, key: str, values: Sequence[str], rule_arn: str) -> bool:
    given = {"aws:sourcearn": rule_arn, "aws:sourceaccount": rule_arn.split(":")[4]}.get(key.lower())
    if given is None or operator.startswith(("StringNot", "ArnNot")):
        return False  # not known here: whoever wrote it has to look
    if operator in ("ArnEquals", "ArnLike", "StringLike"):
        return any(fnmatch.fnmatchcase(given, value) for value in values)
    return operator.startswith("StringEquals") and given in values


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
