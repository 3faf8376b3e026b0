"""A program with a topology of its own, in a world where nobody else has anything that could be pruned."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli_here import here
from tests.test_cli_dlq import WORLDS, World

from crossbus.event import new_id

__all__ = ["PROGRAM", "alone", "in_world", "write"]

PROGRAM = """
from crossbus import Bus, exact, prefix
bus = Bus()
TOPIC = {topic!r}
bus.topic(TOPIC + "-more")
bus.subscribe(TOPIC, "billing", filter={filter}, lease={lease})
bus.subscribe(TOPIC, "audit", lease={lease})
"""
REGIONS = iter(
    [f"ap-{place}-{number}" for place in ("northeast", "southeast") for number in (1, 2)]
    + [
        "us-west-1",
        "us-west-2",
        "eu-north-1",
        "ap-south-1",
        "sa-east-1",
        "ca-central-1",
        "eu-west-2",
        "eu-west-3",
    ]
)
"""One for each test: no other makes anything there."""
FILTER = 'exact(type="com.acme.a")'


def write(folder: Path, world: World, text: str = PROGRAM, filter: str = FILTER) -> None:
    made = text.format(topic=world.topic, filter=filter, lease=world.lease)
    (folder / "shop.py").write_text(made)


@contextmanager
def alone(kind: str, folder: Path) -> Iterator[World]:
    """A world in which nobody else has anything that could be pruned, and the program in the folder."""
    with WORLDS[kind](folder) as made:
        made.url = re.sub(r"^pubsub:[^?]+", f"pubsub:alone-{new_id()[:8].lower()}", made.url)
        if kind == "eventbridge":
            made.url = re.sub(r"region=[^&]+", f"region={next(REGIONS)}", made.url)
        write(folder, made)
        yield made


def in_world(world: World, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `World.crossbus`, without a process of its own."""
    return here(*words, cwd=cwd, CROSSBUS_URL=world.url, **world.environment)
