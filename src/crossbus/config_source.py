"""Which file a configuration is read from, and the files that it includes: one content, and who says what of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from crossbus.errors import ConfigurationError
from crossbus.settings import Place, show

__all__ = ["FILE_NAME", "Source", "find"]

FILE_NAME: Final = "crossbus.toml"
INCLUDE: Final = "include"

_AT = re.compile(r" \(at line (\d+), column (\d+)\)\Z")


class Source(NamedTuple):
    """A configuration before it was checked: what messages call it, its file, its content."""

    label: str
    path: Path | None
    content: Mapping[str, Any]
    """With what the included files say."""
    missing: str = ""
    """Where a file was looked for and not found."""
    parts: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """The label and the content of each file, if there are several: the first one names the others."""

    @property
    def place(self) -> Place:
        """The place of all its keys."""
        return Place(self.label, (), self.parts)


def find(config: object, environ: Mapping[str, str], cwd: Path) -> Source:
    """Find the configuration: the argument, `CROSSBUS_CONFIG`, or the file in `cwd`; it may be that there is none."""
    if isinstance(config, Mapping):
        if INCLUDE in config:
            raise ConfigurationError(
                "the argument config: include names files, which only a file can do; put what they say into the mapping"
            )
        return Source("the argument config", None, config)
    if config is not None and not isinstance(config, (str, os.PathLike)):
        raise ConfigurationError(f"the argument config is a path or a mapping, not {type(config).__name__}")
    if config is not None:
        return _with_included(_open(cwd / config, str(config), "the argument config"))
    if named := environ.get("CROSSBUS_CONFIG", "").strip():
        return _with_included(_open(cwd / named, named, "CROSSBUS_CONFIG"))
    if not (cwd / FILE_NAME).exists():
        return Source(FILE_NAME, None, {}, missing=f"{FILE_NAME} in {cwd.absolute()}")
    return _with_included(_open(cwd / FILE_NAME, FILE_NAME, ""))


# --- one file ---


def _open(path: Path, label: str, origin: str) -> Source:
    prefix = f"{origin}: " if origin else ""
    if path.is_dir():
        raise ConfigurationError(f"{prefix}{label!r} is a directory; name a file, such as {FILE_NAME} in it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{prefix}there is no file {label!r}") from None
    except OSError as error:
        raise ConfigurationError(f"{prefix}{label!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{label}, line {line}: not UTF-8") from None
    return Source(label, path, _parse(text, label))


def _parse(text: str, label: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = _AT.search(message)
        if where is None:  # "(at end of document)"
            raise ConfigurationError(f"{label}, line {text.count(chr(10)) + 1}: {message}") from None
        raise ConfigurationError(
            f"{label}, line {where[1]}, column {where[2]}: {message[: where.start()]}"
        ) from None


# --- several ---


def _with_included(source: Source) -> Source:
    """Return a configuration with what the files say that it includes. They stand relative to its own."""
    if INCLUDE not in source.content:
        return source
    place = source.place.at(INCLUDE)
    names = source.content[INCLUDE]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise place.error(f"must be a list of files, such as ['crossbus.generated.toml'], not {show(names)}")
    content = dict(source.content)
    parts: list[tuple[str, Mapping[str, Any]]] = [(source.label, source.content)]
    for name in names:
        other = _included(source, name, place)
        if other.label in dict(parts):
            raise place.error(f"names {name!r} twice, or the file itself")
        _merge(content, other.content, (), other.label, parts)
        parts.append((other.label, other.content))
    return source._replace(content=content, parts=tuple(parts))


def _included(source: Source, name: str, place: Place) -> Source:
    assert source.path is not None
    path, label = source.path.parent / name, str(Path(source.label).parent / name)
    if not path.exists():
        raise place.error(
            f"names {name!r}, but there is no file {label!r}: make it (an empty file will do), or take the name out"
        )
    other = _open(path, label, f"{place.file}: {place.key}")
    if INCLUDE in other.content:
        raise ConfigurationError(f"{label}: an included file cannot include others; {source.label} does")
    return other


def _merge(
    into: dict[str, Any],
    other: Mapping[str, Any],
    path: tuple[str, ...],
    label: str,
    parts: list[tuple[str, Mapping[str, Any]]],
) -> None:
    """Add what another file says: tables are joined; a value that both say is an error."""
    for key, value in other.items():
        here = (*path, key)
        if key not in into:
            into[key] = value
        elif isinstance(into[key], Mapping) and isinstance(value, Mapping):
            into[key] = dict(into[key])
            _merge(into[key], value, here, label, parts)
        else:
            place = Place(label, here, tuple(parts))
            raise ConfigurationError(f"{place.where} and {label} both say {place.key}: say it in one of them")
