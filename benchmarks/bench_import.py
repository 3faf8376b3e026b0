"""How long crossbus takes to import in a new process, alone and with what a program needs, beside its peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.measure import Table, against, in_turn

PEERS = {
    "crossbus": "import crossbus",
    "names": "from crossbus import Bus, Event, exact",
    "asyncio": "import asyncio, msgspec",
    "cloudevents": "import cloudevents.core.v1.event",
    "kombu": "import kombu; kombu.Connection",
    "faststream": "from faststream.nats import NatsBroker",
}
TARGET = 0.1
_TIMED = "import time; start = time.perf_counter()\n{0}\nprint(time.perf_counter() - start)"


def tables() -> list[Table]:
    found = in_turn("bench_import", list(PEERS))
    return [
        Table(
            "Import",
            ("what", "ms"),
            [(f"`{PEERS[peer]}`", f"{figures['seconds'] * 1000:.0f}") for peer, figures in found.items()],
            "In a new process with compiled bytecode on disk, without the start of Python itself. `import crossbus` "
            "alone loads none of its modules: a name is imported when it is asked for. The second line is what "
            "a program that publishes and consumes waits for, and the third the part of it that is not crossbus's "
            "own. Target: 100 ms, for both.",
            against(
                "import under 100 ms, with `Bus`, `Event` and `exact`",
                max(found[peer]["seconds"] for peer in ("crossbus", "names")) < TARGET,
            ),
        )
    ]


def main() -> None:
    if len(sys.argv) > 1:
        program = _TIMED.format(PEERS[sys.argv[1]])
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            for _ in range(2):  # the first compiles
                done = subprocess.run(
                    [sys.executable, "-c", program],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
        print(json.dumps({"seconds": float(done.stdout)}))
    else:
        print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
