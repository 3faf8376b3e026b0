"""A topology document as text: JSON, which terraform reads, and YAML. The same text for the same document."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from crossbus.errors import ConfigurationError
from crossbus.exporting.making import VERSION, Document

__all__ = ["TFVARS", "as_json", "as_yaml", "read", "schema", "write"]

TFVARS: Final = "crossbus.auto.tfvars.json"
"""How terraform wants a file to be called that it reads by itself."""
_YAML: Final = frozenset({".yaml", ".yml"})


def as_json(document: Document) -> str:
    """Write a document as JSON."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def as_yaml(document: Document) -> str:
    """Write a document as YAML. Raises `ConfigurationError` without PyYAML."""
    text: str = _yaml().safe_dump(document, sort_keys=True, allow_unicode=True, width=1000)
    return text


def schema() -> str:
    """Return the JSON Schema of a document, as text."""
    return resources.files("crossbus.exporting").joinpath("schema.json").read_text("utf-8")


def read(path: Path) -> Document:
    """Read a document, in YAML if the file is called so. Raises `ConfigurationError` for what is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error}") from error
    found = _yaml_of(text, path) if path.suffix in _YAML else _json_of(text, path)
    topology = found.get("topology") if isinstance(found, Mapping) else None
    parts: list[Any] = (
        [topology.get(name) for name in ("topics", "subscriptions")] if isinstance(topology, Mapping) else []
    )
    tables = [part for part in parts if isinstance(part, Mapping)]
    if len(tables) < 2 or not all(isinstance(one, Mapping) for table in tables for one in table.values()):
        raise ConfigurationError(
            f"{str(path)!r} is no topology document; `crossbus topology export` writes one"
        )
    assert isinstance(topology, Mapping)
    if topology.get("version") != VERSION:
        raise ConfigurationError(
            f"{str(path)!r} has version {topology.get('version')} of the topology document; this crossbus knows "
            f"version {VERSION}"
        )
    return dict(found)


def write(path: Path, text: str) -> bool:
    """Write a file whole or not at all; return whether it is another than before."""
    try:
        if path.read_bytes() == text.encode():
            return False
    except FileNotFoundError:
        pass
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8", newline="")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return True


def _json_of(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{str(path)!r} is no JSON: {error}") from None


def _yaml_of(text: str, path: Path) -> Any:
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{str(path)!r} is no YAML: {' '.join(str(error).split())}") from None


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "YAML needs PyYAML: pip install 'crossbus[yaml]'; JSON needs nothing"
        ) from error
    return yaml
