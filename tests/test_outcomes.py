"""`Retry` and `Reject`: what a handler decides by raising them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from crossbus import Reject, Retry


@pytest.mark.parametrize(
    ("after", "seconds"), [(None, None), (0, 0.0), (30, 30.0), (timedelta(minutes=2), 120.0)]
)
def test_the_delay_of_a_retry_is_in_seconds(after: Any, seconds: float | None) -> None:
    assert Retry(after).after == seconds


@pytest.mark.parametrize("after", [-1, float("inf"), float("nan"), timedelta(seconds=-1)])
def test_a_delay_that_makes_no_sense_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match=r"^Retry\(after=.*\): it must be 0 seconds or more$"):
        Retry(after)


def test_their_texts_are_their_reasons() -> None:
    assert (str(Retry()), Retry().reason) == ("retry", "")
    assert (str(Retry(reason="busy")), Retry(reason="busy").reason) == ("busy", "busy")
    assert (str(Reject("why")), Reject("why").reason) == ("why", "why")
    assert Reject().reason == "rejected by the handler"
