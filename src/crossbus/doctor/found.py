"""What an adapter's `inspect` saw, as a result for each check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from crossbus.adapter import Finding
from crossbus.checks import Check, Difference, Result, State, texts
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["USELESS", "of_finding", "of_place", "one_by_one", "unseen"]

USELESS: Final = frozenset({"configuration", "packages", "credentials", "endpoint"})
"""Where one of these is wrong, there is no use in asking on."""


def of_finding(
    checks: Mapping[str, Check], finding: Finding, declared: Topic | Subscription
) -> Iterator[Result]:
    """Give a result for each check that was made of one thing, well or not."""
    name = finding.name
    if finding.state == "unknown":
        yield Result("looked", "unknown", finding.detail, name)
        return
    said: dict[str, list[Difference]] = {}
    for one in finding.differences:
        said.setdefault(one.check if one.check in checks else "declaration", []).append(one)
    if finding.state != "ok" and not said:  # an adapter that does not say by which check
        said["declaration"] = [Difference("", finding.detail or f"{finding.resource} is missing")]
    for check, found in said.items():
        otherwise = checks[check].state if check in checks else "wrong"
        state: State = "wrong" if "wrong" in {one.state or otherwise for one in found} else "warning"
        yield Result(check, state, "; ".join(dict.fromkeys(texts(found))), name)
    if finding.state == "missing":
        return
    for check, about in checks.items():
        looked = about.by_inspect and about.about == finding.kind and (about.theirs or not declared.external)
        if looked and check not in said:
            yield Result(check, "ok", "", name)


def of_place(findings: Sequence[Finding]) -> Iterator[Result]:
    """Say whether anything is there: with a wrong region or project nothing is."""
    if not findings or all(one.state == "unknown" for one in findings):
        return
    if any(one.state != "missing" for one in findings):
        yield Result("place", "ok")
    else:
        yield Result(
            "place", "warning", f"nothing of {len(findings)} declared topics and subscriptions is there"
        )


def one_by_one(topology: Topology) -> Iterator[Topology]:
    """Give each topic and subscription alone, so that one that cannot be looked at does not hide the others."""
    for topic in topology.topics:
        yield Topology((topic,), ())
    for subscription in topology.subscriptions:
        yield Topology((), (subscription,))


def unseen(results: Sequence[Result], declared: int) -> Iterator[Result]:
    """Say that nothing could be looked at, where something else says why."""
    if declared and any(one.check in USELESS and one.state == "wrong" for one in results):
        said = f"{declared} declared topics and subscriptions were not looked at"
        yield Result("looked", "unknown", said, mend="mend what is wrong above, and look again")
