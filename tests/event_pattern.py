"""An evaluator of event patterns that follows AWS's documentation, written apart from what makes them.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html and
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns-content-based-filtering.html. Where they are
silent it does as AWS's published matcher (https://github.com/aws/event-ruler) does. What a pattern may not hold raises
`BadPattern`, for AWS refuses the rule.
"""

from __future__ import annotations

import fnmatch
import json
from typing import Any

MAX_PATTERN = 2048
_MISSING = object()


class BadPattern(Exception):
    """AWS would refuse this pattern."""


def matches(pattern: str | dict[str, Any], event: dict[str, Any]) -> bool:
    """Tell whether a pattern matches an event in its envelope."""
    if isinstance(pattern, str):
        if len(pattern) > MAX_PATTERN:
            raise BadPattern(f"{len(pattern)} characters")
        pattern = json.loads(pattern)
    if not isinstance(pattern, dict) or not pattern:
        raise BadPattern("a pattern is an object with a field at least")
    _check(pattern, set())
    return _object(pattern, event)


def _check(pattern: dict[str, Any], outer: set[str], path: str = "") -> None:
    """An *or* has two alternatives at least; a field stands inside or outside of it, for AWS joins the two anyhow."""
    own = {f"{path}{name}" for name, value in pattern.items() if isinstance(value, list) and name != "$or"}
    own |= {
        leaf
        for name, value in pattern.items()
        if isinstance(value, dict)
        for leaf in _paths(value, f"{path}{name}.")
    }
    for name, value in pattern.items():
        if name == "$or":
            if not isinstance(value, list) or len(value) < 2:
                raise BadPattern("$or needs two alternatives")
            for one in value:
                if set(_paths(one, path)) & (own | outer):
                    raise BadPattern("a field stands inside of $or and outside")
                _check(one, own | outer, path)
        elif isinstance(value, dict):
            if not value:
                raise BadPattern("an empty object")
            _check(value, own | outer, f"{path}{name}.")
        elif not isinstance(value, list) or not value:
            raise BadPattern(f"{name} must be an object or an array that is not empty")


def _paths(pattern: dict[str, Any], path: str) -> list[str]:
    found = []
    for name, value in pattern.items():
        if isinstance(value, dict):
            found += _paths(value, f"{path}{name}.")
        elif name != "$or":
            found.append(f"{path}{name}")
    return found


def _object(pattern: dict[str, Any], event: Any) -> bool:
    return all(_field(name, wanted, event) for name, wanted in pattern.items())


def _field(name: str, wanted: Any, event: Any) -> bool:
    if name == "$or":
        return any(_object(one, event) for one in wanted)
    value = event.get(name, _MISSING) if isinstance(event, dict) else _MISSING
    if isinstance(wanted, dict):
        if isinstance(value, list):  # of an array of objects any may match
            return any(_object(wanted, one) for one in value)
        return _object(wanted, value if isinstance(value, dict) else {})
    return any(_any_of(matcher, value) for matcher in wanted)


def _any_of(matcher: Any, value: Any) -> bool:
    if isinstance(matcher, dict) and "exists" in matcher:
        return (value is not _MISSING and not isinstance(value, dict)) is matcher["exists"]
    if value is _MISSING or isinstance(value, dict):
        return False
    values = value if isinstance(value, list) else [value]
    return any(_matches(matcher, one) for one in values)


def _matches(matcher: Any, value: Any) -> bool:
    if not isinstance(matcher, dict):
        # A number matches by what is written, 300 is not 300.0; true is not 1; text compares with its case.
        return type(matcher) is type(value) and json.dumps(matcher) == json.dumps(value)
    if len(matcher) != 1:
        raise BadPattern("one operator in one object")
    ((operator, operand),) = matcher.items()
    if operator == "anything-but":
        return _anything_but(operand, value)
    if operator == "numeric":
        return _numeric(operand, value)
    if not isinstance(value, str):
        return False  # an operator of text matches text only
    if operator in ("prefix", "suffix"):
        test = str.startswith if operator == "prefix" else str.endswith
        if isinstance(operand, dict):
            return test(value.lower(), operand["equals-ignore-case"].lower())
        return test(value, operand)
    if operator == "equals-ignore-case":
        return bool(value.lower() == operand.lower())
    if operator == "wildcard":
        return fnmatch.fnmatchcase(value, operand.replace("[", "[[]"))
    raise BadPattern(f"no operator {operator}")


def _anything_but(operand: Any, value: Any) -> bool:
    """Of a field that is there: one that is missing matches only ``exists: false``."""
    if isinstance(operand, dict):
        ((operator, inner),) = operand.items()
        values = inner if isinstance(inner, list) else [inner]
        return not any(_matches({operator: one}, value) for one in values)
    values = operand if isinstance(operand, list) else [operand]
    if not values or len({type(one) for one in values}) > 1:
        raise BadPattern("anything-but takes texts or numbers")
    return not any(_matches(one, value) for one in values)


def _numeric(operand: list[Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    tests = {
        "=": value.__eq__,
        "<": value.__lt__,
        "<=": value.__le__,
        ">": value.__gt__,
        ">=": value.__ge__,
    }
    return all(tests[operator](bound) for operator, bound in zip(operand[::2], operand[1::2], strict=True))
