"""One trace in a real APM tool: two programs on a provider, Arize Phoenix from PyPI, and what its own API then says.

``python -m tests.apm``                       installs Phoenix into an environment of its own, and tries every provider
``python -m tests.apm --on local+http``       tries one; may be said several times
``python -m tests.apm --screenshot FOLDER``   takes pictures of the trace too, if there is a chromium

It exits with 1 if a trace is not whole. Not part of the tests: the environment takes 850 MB, and is kept for the next
time.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.trace_paths import PROVIDERS, ROOT

from crossbus.conformance import Harness

ENVIRONMENT = ROOT / ".venv-phoenix"
LIMIT = 180.0
"""Seconds that a program, or Phoenix, may take to be there."""
WIDTHS = (1500, 820)
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What the trace must have: each span by its name, and by the name of its parent; crossbus's are the ones that count.
WANTED = {
    ("POST /orders", ""),
    ("publish orders", "POST /orders"),
    ("process orders", "publish orders"),
    ("charge card", "process orders"),
    ("retry orders", "process orders"),
    ("ack orders", "process orders"),
    ("publish invoices", "process orders"),
    ("process invoices", "publish invoices"),
    ("send mail", "process invoices"),
    ("ack invoices", "process invoices"),
}


class Phoenix:
    """A server that runs, and what its REST interface tells."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str) -> Any:
        with _NO_PROXY.open(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        try:
            with _NO_PROXY.open(f"{self.url}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def spans(self, project: str, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace; none while the project has not arrived."""
        try:
            found: list[dict[str, Any]] = self.ask(
                f"/v1/projects/{project}/spans?trace_id={trace_id}&limit=500"
            )
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return found

    def page(self, project: str, trace_id: str, span: str) -> str:
        """Return the address of a trace for people, with the last span of a name selected."""
        (found,) = [one["id"] for one in self.ask("/v1/projects?limit=1000") if one["name"] == project]
        named = [one for one in self.spans(project, trace_id) if one["name"] == span]
        selected = max(named, key=lambda one: str(one["start_time"]))["id"]
        return f"{self.url}/projects/{found}/traces/{trace_id}?selectedSpanNodeId={selected}"


@contextmanager
def phoenix(environment: Path) -> Iterator[Phoenix]:
    """Install it, if need be, and run it on free ports."""
    command = environment / "bin" / "phoenix"
    if not command.exists():
        print(f"installing arize-phoenix into {environment} (850 MB)", flush=True)
        venv.create(environment, with_pip=True)
        install = [environment / "bin" / "python", "-m", "pip", "install", "-q", "arize-phoenix"]
        subprocess.run(install, check=True)
    port, grpc_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [command, "serve"],
            env={
                **os.environ,
                "PHOENIX_WORKING_DIR": folder,
                "PHOENIX_HOST": "127.0.0.1",
                "PHOENIX_PORT": str(port),
                "PHOENIX_GRPC_PORT": str(grpc_port),
                "PHOENIX_TELEMETRY_ENABLED": "false",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Phoenix(f"http://127.0.0.1:{port}")
            if not _until(lambda: server.is_up() or process.poll() is not None) or process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"Phoenix did not start:\n{log.read()}")
            yield server
        finally:
            process.terminate()
            process.wait(LIMIT)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _until(true: Callable[[], object], limit: float = LIMIT) -> bool:
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


# --- the two programs ---------------------------------------------------------------------------------------------


def publish(harness: Harness, server: Phoenix, project: str) -> str:
    """Run consumer and publisher until the order was handled; returns the id of the trace."""
    world = f"apm{secrets.token_hex(3)}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CROSSBUS_", "OTEL_"))},
        **harness.environment(world),
        "CROSSBUS_URL": harness.url(world),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "NO_PROXY": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_METRICS_EXPORTER": "none",  # Phoenix takes traces only
        "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={project}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with _consumer(environment):
        done = subprocess.run(
            [sys.executable, "-m", "tests.apm_shop"],
            env={**environment, "OTEL_SERVICE_NAME": "shop"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the publisher failed:\n{done.stderr}")
        trace_id = done.stdout.strip()
        _until(lambda: not missing(server.spans(project, trace_id)), 60)
    return trace_id


@contextmanager
def _consumer(environment: Mapping[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "crossbus", "run", "tests.apm_shop:bus"],
        env={**environment, "OTEL_SERVICE_NAME": "billing"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:  # until it consumes, or ends
            said += line
            if "consuming" in line:
                break
        else:
            raise RuntimeError(f"the consumer did not start:\n{said}")
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait(LIMIT)
        process.stderr.close()


# --- what came of it ----------------------------------------------------------------------------------------------


def edges(spans: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the name of each span with that of its parent: empty for a root, ``?`` for one that is not there."""
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    return {(span["name"], names.get(span["parent_id"], "?") if span["parent_id"] else "") for span in spans}


def missing(spans: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with a trace; nothing if it is whole."""
    found = edges(spans)
    wrong = [f"no span {name!r} below {parent or 'nothing'!r}" for name, parent in sorted(WANTED - found)]
    wrong += [f"{name!r} has lost its parent" for name, parent in sorted(found) if parent == "?"]
    roots = [name for name, parent in found if not parent]
    return wrong + ([] if len(roots) == 1 else [f"there are {len(roots)} roots: {sorted(roots)}"])


def tree(spans: list[dict[str, Any]]) -> str:
    """Return a trace for people, in the order in which its spans began."""
    ordered = sorted(spans, key=lambda span: str(span["start_time"]))

    def below(parent: str | None, depth: int) -> list[str]:
        lines = []
        for span in ordered:
            if (span["parent_id"] or None) == parent:
                lines.append(f"  {'  ' * depth}{span['name']}  {span['status_code']}")
                lines += below(span["context"]["span_id"], depth + 1)
        return lines

    return "\n".join(below(None, 0))


def take_pictures(page: str, folder: Path, name: str) -> None:
    """Take pictures of a page at each width. Nothing if there is no chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no pictures: there is no chromium")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        file = folder / f"{name}-{width}.png"
        with tempfile.TemporaryDirectory() as profile:
            command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            command += ["--no-proxy-server", f"--user-data-dir={profile}", "--virtual-time-budget=15000"]
            command += [f"--window-size={width},960", f"--screenshot={file}", page]
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
        print(f"took {file}")


def main() -> int:
    """Try the providers, and print what Phoenix has of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.apm", description=__doc__.partition("\n")[0])
    parser.add_argument("--on", action="append", choices=tuple(PROVIDERS), help="a provider; default: each")
    parser.add_argument(
        "--phoenix", type=Path, default=ENVIRONMENT, help="the environment that Phoenix is in"
    )
    parser.add_argument("--screenshot", type=Path, metavar="FOLDER", help="takes pictures of each trace")
    arguments = parser.parse_args()
    sys.path.append(str(Path(__file__).parent))  # as under pytest
    failed = False
    with phoenix(arguments.phoenix) as server:
        for provider in arguments.on or PROVIDERS:
            project = f"crossbus-on-{provider.replace('+', '-')}"
            with PROVIDERS[provider]() as harness:
                trace_id = publish(harness, server, project)
                under = harness.what_lies_under
            spans = server.spans(project, trace_id)
            wrong = missing(spans)
            failed = failed or bool(wrong)
            print(f"{provider} ({under}): {len(spans)} spans in trace {trace_id}")
            print(tree(spans))
            print("\n".join(f"  WRONG: {line}" for line in wrong) or "  one connected trace", flush=True)
            if arguments.screenshot is not None:
                page = server.page(project, trace_id, "process orders")
                take_pictures(page, arguments.screenshot, project)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
