"""A whole night on call, on each provider's stand-in: see `tests.night`, which plays it at any size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.night import Night, play
from tests.worlds import WORLDS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no unix sockets")


@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind != "memory"])
def test_each_event_is_handled_in_the_end(kind: str, tmp_path: Path) -> None:
    night = Night(events=16, rate=3.0, workers=1)
    with WORLDS[kind](tmp_path) as world:
        play(night, world, tmp_path, print)
    assert night.dead == 6
    assert night.published == 20
    assert night.lost == 0
    assert night.again <= night.announced
