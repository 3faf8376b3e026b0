"""Packages with adapters, laid out on disk as pip lays them out: what the tests of finding and configuring need."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from sys import modules

import pytest

ADAPTERS = """
from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities, LeaseLimits


class Local(Adapter):
    name = "local"
    parameters = {"history": "how many events are kept for replay", "path": "a file"}
    capabilities = Capabilities(
        names=frozenset({"attempts"}), publish_batch=7, publish_batch_bytes=1, event_bytes=1, receive_batch=1,
        lease=LeaseLimits(),
    )


class Cloud(Local):
    name = "eventbridge"
    parameters = {"region": "the region", "endpoint": "another endpoint"}


nothing = object()
"""


class Packages:
    """A folder on the path in which packages can be installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules = ["adapters_for_tests"]
        self.module("adapters_for_tests", ADAPTERS)

    def module(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        self._modules.append(name)
        invalidate_caches()

    def install(self, distribution: str, version: str = "9.9", **adapters: str) -> None:
        """Make the metadata of a distribution; `adapters` by scheme, ``_http`` standing for ``+http``."""
        place = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
        )
        lines = [f"{scheme.replace('_http', '+http')} = {value}" for scheme, value in adapters.items()]
        (place / "entry_points.txt").write_text(
            "\n".join(
                [
                    "[console_scripts]",
                    "x = y:z",
                    "",
                    "[crossbus.adapters]",
                    "# ours",
                    *lines,
                    "",
                    "[other]",
                    "a = b:c",
                ]
            ),
            encoding="utf-8",
        )
        invalidate_caches()

    def forget(self) -> None:
        for name in self._modules:
            modules.pop(name, None)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    """Packages that come first on the path; crossbus's own adapters are then those that the test installs."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = Packages(folder)
    yield made
    made.forget()


@pytest.fixture
def adapters(packages: Packages) -> Packages:
    """The packages, with a crossbus that has a local and an EventBridge adapter."""
    packages.install(
        "crossbus", local="adapters_for_tests:Local", eventbridge="adapters_for_tests:Cloud [aws]"
    )
    return packages
