"""Write the matrix of docs/reference/conformance.md from runs of the conformance kit, a column for each adapter.

python scripts/gen_conformance.py               runs the kit on all, about half an hour, and writes the page
python scripts/gen_conformance.py --scale 0.2   the same with smaller sizes before servers, which the page says
python scripts/gen_conformance.py --check       exits with 1 if the committed page lists other cases than the kit
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.harnesses import LocalHarness, MemoryHarness, SqliteHarness  # noqa: E402

from crossbus.conformance import (  # noqa: E402
    Faults,
    FaultyHarness,
    Harness,
    Report,
    ServerHarness,
    all_cases,
    matrix,
    run,
)

PAGE = ROOT / "docs" / "reference" / "conformance.md"
BEGIN = "<!-- matrix: made by scripts/gen_conformance.py -->\n"
END = "<!-- end of the matrix -->\n"
_ROW = re.compile(r"^\| `([a-z]+/[a-z0-9-]+)`\S* \| (.+?) \| ", re.M)


def _eventgrid(folder: Path) -> Harness:
    from eventgrid_server import EventGridServerHarness

    harness: Harness = EventGridServerHarness(str(folder / "events.db"))
    return harness


def _eventbridge(folder: Path) -> Harness:
    from eventbridge_harness import MotoHarness, World, server

    world = World(server(), folder)
    os.environ.update(world.env)
    harness: Harness = MotoHarness(world)
    return harness


def _pubsub(folder: Path) -> Harness:
    from pubsub_emulator import PubSubHarness, running

    harness: Harness = PubSubHarness(running())
    return harness


COLUMNS: dict[str, Callable[[Path], Harness]] = {
    "local": lambda folder: LocalHarness(),
    "faults": lambda folder: FaultyHarness(LocalHarness(), Faults(seed=1)),
    "memory": lambda folder: MemoryHarness(),
    "sqlite": SqliteHarness,
    "eventgrid": _eventgrid,
    "eventbridge": _eventbridge,
    "pubsub": _pubsub,
}
"""What the kit is run on: a new adapter adds a line here."""


def made(scale: float) -> str:
    """Run the kit on all, and return the matrix."""
    logging.disable(logging.CRITICAL)  # the cases provoke what would be logged
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        harnesses = [make(_folder(folder, name)) for name, make in COLUMNS.items()]
        # Before servers they wait more than they work, so they run beside each other; the others one by one.
        served = {one: pool.submit(_serve, one, scale) for one in harnesses if isinstance(one, ServerHarness)}
        return matrix([served[one].result() if one in served else _tell(_alone(one)) for one in harnesses])


def _alone(harness: Harness) -> Report:
    """Run the kit; in real time cases wait more than they work, and so run beside each other."""
    return asyncio.run(run(harness, parallel=8 if harness.make_clock() is None else 1))


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def _serve(harness: ServerHarness, scale: float) -> Report:
    with harness:
        return _tell(asyncio.run(run(harness, parallel=8, scale=min(1.0, scale / harness.scale))))


def _tell(report: Report) -> Report:
    print(report.table(), file=sys.stderr, flush=True)
    return report


def listed(page: str) -> dict[str, str]:
    """Return the cases that a page lists, with their titles."""
    return dict(_ROW.findall(page))


def main() -> int:
    """Write the page, or check it."""
    page = PAGE.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        if listed(page) == {case.name: case.title for case in all_cases()}:
            return 0
        print(f"{PAGE} is not current: run python scripts/gen_conformance.py", file=sys.stderr)
        return 1
    scale = float(sys.argv[2]) if sys.argv[1:2] == ["--scale"] else 1.0
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{made(scale)}\n{END}{tail}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
