"""Adapters are found by entry point, and what is missing is said in one line."""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from tests.adapter_packages import Packages, adapters, packages

from crossbus.adapter import Adapter
from crossbus.errors import AdapterNotInstalled, ConfigurationError
from crossbus.registry import adapter_class, capabilities_of, not_installed, schemes

__all__ = ["adapters", "packages"]


def message(scheme: str, origin: str = "") -> str:
    with pytest.raises(ConfigurationError) as caught:
        adapter_class(scheme, origin)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_local_adapter_is_registered_by_the_installed_crossbus() -> None:
    found = adapter_class("local")
    assert issubclass(found, Adapter)
    assert found.name == "local"
    assert capabilities_of("local").has("filter")
    assert "local" in schemes()


def test_own_adapters_are_found_without_importlib_metadata(
    adapters: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("importlib.metadata is slow, and not needed here")

    monkeypatch.setattr(importlib.metadata, "entry_points", refuse)
    assert adapter_class("local").__name__ == "Local"
    assert adapter_class("eventbridge").__name__ == "Cloud"


def test_capabilities_are_read_without_opening(adapters: Packages) -> None:
    assert capabilities_of("local").publish_batch == 7


def test_a_third_party_adapter_is_found_the_same_way(adapters: Packages) -> None:
    adapters.install("acme-bus", acme="adapters_for_tests:Local", acme_http="adapters_for_tests:Cloud")
    assert adapter_class("acme").__name__ == "Local"
    assert adapter_class("acme+http").__name__ == "Cloud"
    assert {"acme", "acme+http", "eventbridge", "local"} <= set(schemes())


def test_own_adapters_are_found_though_the_path_holds_what_is_no_folder(
    adapters: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("module_in_a_zip.py", "")
    (tmp_path / "early" / "crossbus-0.0.dist-info").mkdir(parents=True)  # half an uninstallation
    for place in (archive, tmp_path / "gone", tmp_path / "early"):
        monkeypatch.syspath_prepend(str(place))
    assert adapter_class("local").__name__ == "Local"


def test_an_unknown_scheme_names_the_nearest_and_the_known_ones(adapters: Packages) -> None:
    assert message("locl", "CROSSBUS_URL") == (
        "CROSSBUS_URL: no adapter is called 'locl'; did you mean 'local'? (known: eventbridge, local)"
    )
    assert message("kafka") == "no adapter is called 'kafka'; known: eventbridge, local"


@pytest.mark.parametrize("scheme", ["local+http", "pubsub", "eventgrid"])
def test_an_adapter_that_this_version_lacks_is_said_to_be_lacking(adapters: Packages, scheme: str) -> None:
    assert message(scheme, "CROSSBUS_URL") == (
        f"CROSSBUS_URL: this version of crossbus does not contain the {scheme} adapter; it has: eventbridge, local"
    )
    with pytest.raises(AdapterNotInstalled):
        adapter_class(scheme)


@pytest.mark.parametrize(
    ("scheme", "extra"),
    [("local+http", "server"), ("eventbridge", "aws"), ("pubsub", "gcp"), ("eventgrid", "azure")],
)
def test_a_missing_sdk_says_which_extra_to_install(packages: Packages, scheme: str, extra: str) -> None:
    packages.module("needs_sdk", "import an_sdk_that_is_not_here")
    packages.install("crossbus", **{scheme.replace("+", "_"): "needs_sdk:Anything"})
    with pytest.raises(AdapterNotInstalled) as caught:
        adapter_class(scheme, "crossbus.toml [profiles.production]")
    assert str(caught.value) == (
        f"crossbus.toml [profiles.production]: the {scheme} adapter needs the module 'an_sdk_that_is_not_here', "
        f"which is not installed: pip install 'crossbus[{extra}]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_broken_local_adapter_says_to_reinstall(packages: Packages) -> None:
    packages.install("crossbus", local="a_package_that_is_gone:Local")
    assert message("local").endswith(
        "'a_package_that_is_gone', which is not installed: pip install --force-reinstall crossbus"
    )


def test_a_third_party_adapter_with_a_missing_module_names_it(adapters: Packages) -> None:
    adapters.install("acme-bus", acme="acme_sdk_glue:Adapter")
    assert message("acme") == (
        "the acme adapter needs the module 'acme_sdk_glue', which is not installed: "
        "install the package that has 'acme_sdk_glue'"
    )


def test_an_adapter_can_say_that_its_sdk_is_missing_when_it_opens() -> None:
    error = not_installed(
        "eventbridge", ModuleNotFoundError("No module named 'boto3'", name="boto3"), "CROSSBUS_URL"
    )
    assert str(error) == (
        "CROSSBUS_URL: the eventbridge adapter needs the module 'boto3', which is not installed: "
        "pip install 'crossbus[aws]'"
    )


def test_a_missing_namespace_is_not_called_a_module() -> None:
    error = not_installed("pubsub", ModuleNotFoundError("No module named 'google'", name="google"))
    assert str(error) == (
        "the pubsub adapter needs Google's SDK, which is not installed: pip install 'crossbus[gcp]'"
    )


def test_crossbus_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert message("local") == (
        "the local adapter is not registered, because crossbus runs from a folder and is not installed: "
        "pip install crossbus, or pip install -e . in a clone"
    )
    assert message("pubsub") == "this version of crossbus does not contain the pubsub adapter; it has: none"
    assert message("kafka") == "no adapter is called 'kafka'; none are known"


@pytest.mark.parametrize(
    "value", ["adapters_for_tests:nothing", "adapters_for_tests:gone", "adapters_for_tests"]
)
def test_an_entry_point_that_is_no_adapter_is_refused(adapters: Packages, value: str) -> None:
    adapters.install("acme-bus", acme=value)
    assert message("acme", "CROSSBUS_URL") == (
        f"CROSSBUS_URL: the entry point 'acme' of acme-bus ({value}) is no subclass of crossbus.adapter.Adapter"
    )


def test_an_adapter_that_fails_to_import_is_reported_with_its_package(adapters: Packages) -> None:
    adapters.module("broken_glue", "from adapters_for_tests import Missing")
    adapters.install("acme-bus", acme="broken_glue:Adapter")
    text = message("acme")
    assert text.startswith("the acme adapter of acme-bus cannot be imported: cannot import name 'Missing'")


def test_two_packages_with_one_scheme_are_refused_only_when_it_is_used(adapters: Packages) -> None:
    adapters.install("acme-bus", acme="adapters_for_tests:Local", other="adapters_for_tests:Local")
    adapters.install("rival-bus", acme="adapters_for_tests:Cloud")
    assert adapter_class("other").__name__ == "Local"
    text = message("acme", "CROSSBUS_URL")
    assert text.startswith("CROSSBUS_URL: ")
    assert {"acme-bus", "rival-bus"} <= set(text.replace(":", "").split())
    assert text.endswith("each have an adapter called 'acme': uninstall one")
