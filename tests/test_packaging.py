"""What holds for the package as a whole: imports, arrows between rooms, documentation, sizes of files."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import crossbus

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "crossbus"
ADAPTER_PACKAGES = {"crossbus_local", "crossbus_eventbridge", "crossbus_pubsub", "crossbus_eventgrid"}
CLOUD_SDKS = {"boto3", "botocore", "aiobotocore", "google", "grpc", "azure"}
SERVER_STACK = {"starlette", "uvicorn", "httptools", "aiohttp"}
LONGEST = 500
LONGEST_TEST = 1000
"""Lines. Tests may be longer: what is about one thing stands together, and none of it calls another."""


PROGRAM = "from crossbus import Bus, Event, exact"
"""The names that a program which publishes and consumes begins with."""
DECLARES = "from crossbus import Event, Reject, Retry, RetryPolicy, Topic, Unavailable, event_type, exact"
"""What the modules of a program that declare and check events need."""


def run(program: str) -> str:
    # A measured process would have imported what coverage needs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@cache
def loaded(statement: str) -> frozenset[str]:
    return frozenset(json.loads(run(f"{statement}\nimport sys, json; print(json.dumps(list(sys.modules)))")))


def loaded_by(statement: str) -> frozenset[str]:
    """The modules that a statement adds to those of a new process."""
    return loaded(statement) - loaded("pass")


def test_import_loads_no_module_of_crossbus() -> None:
    found = loaded_by("import crossbus")
    assert {name for name in found if name.startswith("crossbus")} == {"crossbus"}
    assert not found & {"msgspec", "asyncio", "logging", "dataclasses"}


@pytest.mark.parametrize("statement", [PROGRAM, "from crossbus import *"])
def test_import_loads_no_cloud_sdk_and_no_adapter(statement: str) -> None:
    found = loaded_by(statement)
    assert "crossbus.bus" in found
    assert not {name.partition(".")[0] for name in found} & (
        CLOUD_SDKS | ADAPTER_PACKAGES | SERVER_STACK | {"cloudevents", "pydantic", "pytest"}
    )


@pytest.mark.parametrize("statement", [PROGRAM, "from crossbus import *"])
@pytest.mark.parametrize(
    "package",
    [
        "opentelemetry",
        "sqlite3",
        "typer",
        "rich",
        "tomllib",
        "difflib",
        "importlib.metadata",
        "starlette",
        "uvicorn",
        "aiohttp",
    ],
)
def test_import_loads_nothing_that_can_wait(package: str, statement: str) -> None:
    assert package not in loaded_by(statement)


def test_a_program_loads_only_what_it_names() -> None:
    assert not loaded_by(PROGRAM) & {
        f"crossbus.{module}"
        for module in (
            *("sync", "loop_thread", "deduplicate", "health", "explain", "config_file"),
            *("telemetry.sources", "telemetry.publishing", "telemetry.consuming"),
        )
    }


def test_declaring_needs_no_event_loop() -> None:
    assert not loaded_by(DECLARES) & {"asyncio", "logging", "crossbus.bus"}


def lazy_imports() -> dict[str, str]:
    """The public names by module, as type checkers read them."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_type_checkers_and_programs_see_the_same_names() -> None:
    expected = lazy_imports()
    assert sorted(crossbus.__all__) == sorted([*expected, "__version__"])
    assert sorted(expected) == sorted(crossbus._MODULE_OF)
    for name, module in expected.items():
        assert getattr(crossbus, name) is getattr(importlib.import_module(module), name)


def test_names_are_listed_before_they_are_imported() -> None:
    assert set(crossbus.__all__) <= set(
        json.loads(run("import crossbus, json; print(json.dumps(dir(crossbus)))"))
    )
    assert "class Bus(" in run("import crossbus, pydoc; print(pydoc.plain(pydoc.render_doc(crossbus)))")


def test_modules_are_attributes_of_the_package() -> None:
    assert run("import crossbus; print(crossbus.errors.NotFound.__name__, crossbus.testing)").startswith(
        "NotFound"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'crossbus' has no attribute 'Buss'$") as caught:
        crossbus.Buss  # type: ignore[attr-defined]  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("Buss", crossbus)
    with pytest.raises(ImportError, match="cannot import name 'Buss'"):
        exec("from crossbus import Buss")
    assert not hasattr(crossbus, "__main__")


def test_a_missing_dependency_is_not_taken_for_an_unknown_name() -> None:
    program = """
import sys
sys.modules["msgspec"] = None
import crossbus
for name in ("Event", "event"):
    try:
        getattr(crossbus, name)
    except ModuleNotFoundError as error:
        print(error.name)
"""
    assert run(program).split() == ["msgspec", "msgspec"]


def test_threads_may_ask_for_names_at_once() -> None:
    program = """
import sys, threading
import crossbus
sys.setswitchinterval(1e-5)
names = sorted(crossbus.__all__)
start = threading.Barrier(len(names))
seen = {}
def ask(name):
    start.wait()
    seen[name] = getattr(crossbus, name)
threads = [threading.Thread(target=ask, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(all(seen[name] is getattr(crossbus, name) for name in names))
"""
    assert run(program) == "True"


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_arrows_point_one_way() -> None:
    """Adapters import crossbus; crossbus imports no adapter, and finds them by their entry points."""
    wrong = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in python_files(SOURCE)
        if (found := imported_packages(path) & (ADAPTER_PACKAGES | CLOUD_SDKS))
    }
    assert not wrong


def needed(body: list[ast.stmt]) -> Iterator[str]:
    """What importing a module imports: not what its functions do later, nor what only type checkers read."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.module == "crossbus":
                names = [crossbus._MODULE_OF.get(name, name) for name in names]
            yield from (str(node.module), *(f"{node.module}.{name}" for name in names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Try):
            yield from needed([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from needed([*node.body, *node.orelse])


def test_no_module_needs_itself() -> None:
    """Threads that import one circle of modules from two ends would see half of one."""
    modules = {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in python_files(SOURCE)
    }
    graph = {
        name: {
            found for found in needed(ast.parse(path.read_text(encoding="utf-8")).body) if found in modules
        }
        for name, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def test_portable_layer_needs_no_test_framework() -> None:
    """The kit and the clock are for any framework; only the plugin knows pytest."""
    plugin = SOURCE / "testing" / "pytest_plugin.py"
    wrong = [
        path.name
        for path in python_files(SOURCE)
        if path != plugin and imported_packages(path) & {"pytest", "_pytest"}
    ]
    assert not wrong


def test_no_file_is_too_long() -> None:
    folders = ("src", "local_broker", "adapters", "tests", "benchmarks", "examples", "scripts")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in python_files(ROOT / folder)
    }
    too_long = {
        name: length
        for name, length in lengths.items()
        if length > (LONGEST_TEST if name.startswith("tests") else LONGEST)
    }
    assert not too_long


# --- every public name is documented ------------------------------------------------------------------------------


def public_modules() -> Iterator[ModuleType]:
    yield crossbus
    for found in pkgutil.walk_packages(crossbus.__path__, "crossbus."):
        # The demo's program is a user's, who reads it: importing it needs a bus that is configured.
        if found.name != "crossbus.demo.program" and not found.name.split(".")[-1].startswith("_"):
            yield importlib.import_module(found.name)


def public_objects(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", ()):
        yield f"{module.__name__}.{name}", getattr(module, name)


def documented_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public functions and properties that the class itself defines."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def undocumented(where: str, found: Any) -> Iterator[str]:
    if not inspect.isclass(found):
        if inspect.isroutine(found) and not inspect.getdoc(found):
            yield where
        return
    if not (found.__doc__ or "").strip() or (found.__doc__ or "").startswith(f"{found.__name__}("):
        yield where  # dataclasses invent a docstring: their signature
    for name, member in documented_members(found):
        if not inspect.getdoc(member) and not inspect.getdoc(getattr(found, name)):
            yield f"{where}.{name}"


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip(), f"{module.__name__} has no docstring"
    missing = [name for where, found in public_objects(module) for name in undocumented(where, found)]
    assert not missing


def test_public_names_are_sorted_and_exist() -> None:
    for module in public_modules():
        names = list(getattr(module, "__all__", ()))
        assert len(set(names)) == len(names), module.__name__
        assert not [name for name in names if not hasattr(module, name)], module.__name__


def test_modules_say_where_their_names_come_from() -> None:
    """A name of `crossbus.__all__` is one object, wherever it is imported from."""
    for name in getattr(crossbus, "__all__", ()):
        found = getattr(crossbus, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert getattr(importlib.import_module(found.__module__), name, found) is found
