"""`Report`: what a run found, as a table, as JSON, and as a column of the matrix in the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal

from crossbus.capabilities import CAPABILITIES
from crossbus.conformance.cases import VERSION, Case

__all__ = ["Report", "Result", "matrix", "unproved"]

Status = Literal["passed", "failed", "skipped"]
_SIGNS: Final[Mapping[str, str]] = {"passed": "✓", "failed": "✗", "skipped": "–"}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one run of one case."""

    case: Case
    status: Status
    detail: str = ""
    """Why it failed, or was skipped."""
    seconds: float = 0.0
    """Real seconds."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of a run that passed, such as how many duplicates came."""
    number: int = 1
    """Which repetition it was, from 1."""
    error: str = ""
    """The traceback of a failure."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the kit found on one harness."""

    name: str
    """What was tested."""
    what_lies_under: str
    scale: float
    last_verified: str
    """When the kit last passed on the real service; "never" until it has."""
    results: Sequence[Result] = field(default_factory=list)

    def having(self, status: Status) -> list[Result]:
        """Return the results of one status."""
        return [result for result in self.results if result.status == status]

    @property
    def passed(self) -> list[Result]:
        """Those that passed."""
        return self.having("passed")

    @property
    def failed(self) -> list[Result]:
        """Those that failed."""
        return self.having("failed")

    @property
    def skipped(self) -> list[Result]:
        """Those that were skipped, each for a reason that its `detail` names."""
        return self.having("skipped")

    @property
    def ok(self) -> bool:
        """True if nothing failed, and something passed."""
        return bool(self.passed) and not self.failed

    @property
    def summary(self) -> str:
        """One line: how many passed, failed and were skipped, where and at what scale."""
        size = "" if self.scale == 1 else f", at scale {self.scale:g}"
        under = f" ({self.what_lies_under})" if self.what_lies_under else ""
        return (
            f"{self.name}{under}: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.skipped)} skipped{size}; last verified on the real service: {self.last_verified}"
        )

    def table(self) -> str:
        """Return a table for a terminal: a line for each case, then why each failed, then one line for all."""
        width = max((len(result.case.name) for result in self.results), default=0)
        lines = [self._line(result, width) for result in self.results]
        for result in self.failed:
            lines += ["", f"FAILED {result.case.name}: {result.case.title}", f"  {result.detail}"]
        return "\n".join([*lines, "", self.summary])

    @staticmethod
    def _line(result: Result, width: int) -> str:
        head = f"{_SIGNS[result.status]} {result.case.name:{width}}  "
        if result.status == "skipped":
            return f"{head}skipped: {result.detail}"
        notes = f"  ({'; '.join(result.notes)})" if result.notes else ""
        return f"{head}{result.status} in {result.seconds:.2f} s{notes}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as JSON has it."""
        return {
            "kit": VERSION,
            "name": self.name,
            "what_lies_under": self.what_lies_under,
            "scale": self.scale,
            "last_verified": self.last_verified,
            "results": [
                {
                    "case": result.case.name,
                    "title": result.case.title,
                    "starred": result.case.starred,
                    "number": result.number,
                    "status": result.status,
                    "detail": result.detail,
                    "seconds": round(result.seconds, 3),
                    "notes": list(result.notes),
                }
                for result in self.results
            ],
        }

    def json(self) -> str:
        """Return JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def markdown(self) -> str:
        """Return the matrix of this one report, for the documentation."""
        return matrix([self])


def unproved() -> frozenset[str]:
    """Return the names of the starred cases that no deliberately wrong adapter has failed yet, by ``cases.json``."""
    text = resources.files("crossbus.conformance").joinpath("cases.json").read_text("utf-8")
    return frozenset(
        case["name"] for case in json.loads(text)["cases"] if case["starred"] and not case["proved_by"]
    )


def matrix(reports: Sequence[Report]) -> str:
    """Return a Markdown table of several reports: a row for each case, a column for each adapter.

    `*` marks what no other kit tests; `†` a starred case that no deliberately wrong adapter has proved yet.
    """
    heads = [
        "adapter",
        "what lies under",
        "scale",
        "passed",
        "failed",
        "skipped",
        "last verified on the real service",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
    for report in reports:
        counts = (len(report.passed), len(report.failed), len(report.skipped))
        cells = (
            f"`{report.name}`",
            report.what_lies_under,
            f"{report.scale:g}",
            *counts,
            report.last_verified,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"| case | what must be so | {' | '.join(f'`{report.name}`' for report in reports)} |"]
    lines.append(f"|---|---|{'---|' * len(reports)}")
    found = [{result.case.name: result for result in report.results} for report in reports]
    cases = {result.case.name: result.case for report in reports for result in report.results}
    not_proved = unproved()
    reasons: list[str] = []
    for name, case in cases.items():
        mark = ("\\*" if case.starred else "") + ("†" if name in not_proved else "")
        cells_of = [_cell(results.get(name), reasons) for results in found]
        lines.append(f"| `{name}`{mark} | {case.title} | {' | '.join(cells_of)} |")
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    lines += ["", "\\* no other kit tests it · † no deliberately wrong adapter has failed it yet: unproved"]
    return "\n".join(lines) + "\n"


def _cell(result: Result | None, reasons: list[str]) -> str:
    if result is None:
        return ""
    if result.status != "skipped":
        return {"passed": "yes", "failed": "**no**"}[result.status]
    if result.detail not in reasons:
        reasons.append(result.detail)
    return f"skipped ({reasons.index(result.detail) + 1})"


def lacking(name: str, missing: str, emulator: str | None, detail: str = "") -> str:
    """Say why a case is skipped: which capability is missing, of the provider or of its emulator."""
    means = CAPABILITIES.get(missing, missing)
    if emulator is not None:
        return f"the emulator under {name} lacks `{missing}`, which the provider has: {emulator}"
    if detail:
        return f"`{missing}` ({means}): {detail}"
    return f"{name} has no `{missing}` ({means})"
