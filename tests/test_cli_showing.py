"""Tables at every width of a terminal: what must stay whole does, and no cell is cut off."""

from __future__ import annotations

import pytest

from crossbus.cli.showing import print_table

TIMES = ("2026-11-26 15:59:50Z", "2026-11-26 15:59:51Z")
ROW = ("orders/billing", 1, "order o-1 costs less than nothing", "com.acme.order.placed", "bill", *TIMES)
COLUMNS = ("subscription", "count", "reason", "type", "handler", "first", "last")


@pytest.mark.parametrize("first", [0, 1])
def test_no_time_is_cut_or_broken(
    first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in range(60, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(COLUMNS[first:], [ROW[first:]], right=(1 - first,))
        out = capsys.readouterr().out
        for time in TIMES:
            assert (time if width >= 100 else time[5:-1]) in out, f"{width} columns:\n{out}"
        assert ("(UTC)" in out) == (width < 100), "the zone stands somewhere"
        assert all(len(line) <= width for line in out.splitlines())
