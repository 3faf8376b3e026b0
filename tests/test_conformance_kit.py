"""The kit's own parts: what is run, what is skipped and why, and how it is reported."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Iterator

import pytest
from tests.harnesses import LocalHarness
from tests.support import run as run_limited

from crossbus.capabilities import Capabilities
from crossbus.conformance import (
    Case,
    Faults,
    FaultyHarness,
    Harness,
    Report,
    Result,
    Skipped,
    Trial,
    UrlHarness,
    check,
    matrix,
    measure,
    run,
    unproved,
)
from crossbus.conformance import runner as runner_module


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def only(monkeypatch: pytest.MonkeyPatch, *cases: Case) -> None:
    monkeypatch.setattr(runner_module, "all_cases", lambda: cases)


async def passes(t: Trial) -> None:
    t.notes.append("a note")


async def fails(t: Trial) -> None:
    raise AssertionError("what must be so is not")


async def breaks(t: Trial) -> None:
    raise KeyError("lost")


async def hangs(t: Trial) -> None:
    await asyncio.Event().wait()


async def skips(t: Trial) -> None:
    raise Skipped("restarts", "there is no server to restart")


def test_each_end_of_a_case_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    only(
        monkeypatch,
        Case("basic/passes", "it passes", passes),
        Case("basic/fails", "it holds", fails, starred=True),
        Case("basic/breaks", "it works", breaks),
        Case("basic/hangs", "it ends", hangs),
        Case("basic/skips", "it restarts", skips),
        Case("basic/waits", "it will come", passes, waits_for="observability"),
        Case("basic/needs", "it needs", passes, requires=("credentials",)),
    )
    seen: list[Result] = []
    report = run_limited(run(LocalHarness(), timeout=0.2, progress=seen.append))
    assert [(result.case.name.partition("/")[2], result.status) for result in report.results] == [
        ("passes", "passed"),
        ("fails", "failed"),
        ("breaks", "failed"),
        ("hangs", "failed"),
        ("skips", "skipped"),
        ("waits", "skipped"),
        ("needs", "skipped"),
    ]
    details = [result.detail for result in report.results]
    assert details == [
        "",
        "what must be so is not",
        "KeyError: 'lost'",
        "it did not end within 0.2 s",
        "`restarts` (the broker can be restarted, and keeps what it holds): there is no server to restart",
        "waits for a later release: observability",
        "local: has no `credentials` (there are credentials)",
    ]
    assert seen == report.results
    assert not report.ok
    assert "1 passed, 3 failed, 3 skipped" in report.summary
    assert "FAILED basic/fails: it holds\n  what must be so is not" in report.table()
    assert "AssertionError" in report.failed[0].error


def test_report_in_json_and_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    only(
        monkeypatch,
        Case("basic/passes", "it passes", passes),
        Case("basic/needs", "it needs", passes, requires=("credentials",), starred=True),
    )
    report = run_limited(run(LocalHarness(), repeat=2, scale=0.5))
    found = json.loads(report.json())
    assert [(one["case"], one["number"], one["status"]) for one in found["results"]] == [
        ("basic/passes", 1, "passed"),
        ("basic/needs", 1, "skipped"),
        ("basic/passes", 2, "passed"),
        ("basic/needs", 2, "skipped"),
    ]
    assert found["scale"] == 0.5
    assert found["results"][0]["notes"] == ["a note"]
    text = report.markdown()
    assert "last verified on the real service" in text
    assert "| `basic/needs`\\* | it needs | skipped (1) |" in text
    assert "1. local: has no `credentials` (there are credentials)" in text
    other = dataclasses.replace(report, name="other", last_verified="never", results=[])
    assert "| `other` | in process, memory | 0.5 | 0 | 0 | 0 | never |" in matrix([report, other])


def test_emulator_gap_is_told_from_a_limit_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    class Emulated(LocalHarness):
        name = "emulated"

        @property
        def capabilities(self) -> Capabilities:
            return dataclasses.replace(super().capabilities, emulator_gaps={"ordering": "not in version 3"})

    only(monkeypatch, Case("order/x", "it is in order", passes, requires=("ordering",)))
    (result,) = run_limited(run(Emulated())).results
    assert (
        result.detail
        == "the emulator under emulated lacks `ordering`, which the provider has: not in version 3"
    )


@pytest.mark.parametrize("select", ["nothing-such", ["nothing", "either"]])
def test_unknown_selection_names_the_groups(select: str | list[str]) -> None:
    with pytest.raises(ValueError, match="groups: envelope, basic, acknowledgement"):
        run_limited(run(LocalHarness(), select=select))


def test_selection_by_group_pattern_name_and_function() -> None:
    chosen = runner_module.chosen
    assert {case.group for case in chosen("batch")} == {"batch"}
    assert [case.name for case in chosen(["batch/e*", "attempts"])] == [
        "retry/attempts",
        "batch/exact",
        "batch/empty",
    ]
    assert all(case.starred for case in chosen(lambda case: case.starred))


def test_check_raises_the_table() -> None:
    run_limited(check(LocalHarness(), select="basic/send-and-receive"))

    class Deaf(LocalHarness):
        def make_adapter(self, world, clock):  # type: ignore[no-untyped-def]
            raise RuntimeError("no adapter today")

    with pytest.raises(AssertionError, match="no adapter today"):
        run_limited(check(Deaf(), select="basic/send-and-receive"))


def test_url_harness_runs_on_a_url() -> None:
    report = run_limited(run(UrlHarness("local:"), select="basic", parallel=4))
    assert report.ok, report.table()
    assert report.name == "local:"


def test_url_harness_leaves_nothing_behind() -> None:
    from crossbus_local.adapter import _shared

    before = set(_shared)
    run_limited(run(UrlHarness("local:"), select="retry/reject"))
    for name in set(_shared) - before:
        assert not _shared[name].topics(), f"{name} still has topics"
        assert not _shared[name].dead_letters(), f"{name} still has dead letters"


def test_seams_that_a_harness_does_not_give_are_skips() -> None:
    async def provoke() -> None:
        harness: Harness = FaultyHarness(LocalHarness())
        for capability, call in (
            ("processes", lambda: harness.url("w")),
            ("network", lambda: harness.cut("w", "swallowed")),
            ("network", lambda: harness.slow("w", delay=1.0)),
            ("credentials", lambda: harness.broken_credentials("invalid")),
        ):
            with pytest.raises(Skipped) as caught:
                call()
            assert caught.value.missing == capability
        for capability, call in (
            ("restarts", lambda: harness.restart("w", "kill")),
            ("credentials", lambda: harness.expire_credentials("w")),
        ):
            with pytest.raises(Skipped) as caught:
                await call()
            assert caught.value.missing == capability

    run_limited(provoke())


def test_faults_are_the_same_for_the_same_seed() -> None:
    def struck(seed: int) -> list[dict[str, int]]:
        harness = FaultyHarness(LocalHarness(), Faults(seed=seed))

        async def draw() -> None:
            adapter = harness.make_adapter("w", LocalHarness().make_clock())
            for _ in range(200):
                adapter.strikes("partial")  # type: ignore[attr-defined]

        run_limited(draw())
        return [adapter.struck for adapter in harness.adapters]

    assert struck(7) == struck(7)
    assert struck(7) != struck(8)


def test_latency_is_measured() -> None:
    found = run_limited(measure(LocalHarness(), 100))
    assert found.events == 100
    assert 0 < found.publish_p50 <= found.publish_p99
    assert 0 < found.end_to_end_p50 <= found.end_to_end_p99
    assert "ms" in str(found)


def test_no_starred_case_is_unproved() -> None:
    assert not unproved()


def test_report_of_nothing_is_not_ok() -> None:
    assert not Report("x", "", 1.0, "never", []).ok
