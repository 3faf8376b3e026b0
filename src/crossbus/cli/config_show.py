"""`crossbus config show`: what is in force, and where each value came from."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode
from crossbus.cli.showing import form_of, print_line, print_table
from crossbus.config import Configuration, load
from crossbus.config_file import Document
from crossbus.errors import ConfigurationError
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.settings import Place, SubscriptionSettings, TopicSettings
from crossbus.topology import Subscription, Topic
from crossbus.urls import URL_PROFILE, is_secret, refuse_secret

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["Row", "rows_of", "show"]

HIDDEN: Final = "(hidden)"
DEFAULT: Final = "default"
PROGRAM: Final = "the program"

CLOUDS: Final[Mapping[str, tuple[str, ...]]] = {
    "eventbridge": ("AWS_",),
    "pubsub": ("GOOGLE_", "PUBSUB_", "CLOUDSDK_"),
    "eventgrid": ("AZURE_",),
}
"""By adapter, how the variables begin that its SDK reads."""
BUS_OPTIONS: Final = ("source", "validate", "drain_limit", "publish_timeout")


class Row(NamedTuple):
    """One value in force."""

    key: str
    """As the file writes it, where it can stand there."""
    value: str
    origin: str


def show(
    program: str | None,
    *,
    url: str | None,
    profile: str | None,
    config: str | None,
    output: OutputChoice | None,
) -> ExitCode:
    """Print what is in force for a program, or without one. Raises what `load` raises, and `load_bus`."""
    if program is None:
        configuration, bus = load(url, profile=profile, config=config), None
    else:
        from crossbus.cli.loading import load_bus
        from crossbus.cli.run import choose, inner

        choose(url, profile, config)
        bus = inner(load_bus(program))
        if bus._configuration is None:
            raise ConfigurationError(
                f"{program} was made with an adapter of its own: nothing of it is configured"
            )
        configuration = bus._configuration
    arguments = {"--url": url, "--profile": profile, "--config": config}
    given = {name for name, value in arguments.items() if value is not None}
    rows = list(rows_of(configuration, bus, given))
    form = form_of(output)
    if form == "json":
        print(
            json.dumps([{"key": row.key, "value": row.value, "from": row.origin} for row in rows], indent=2)
        )
    elif form == "table":
        print_table(("key", "value", "from"), rows)
    else:
        for row in rows:
            print_line(*row)
    return ExitCode.OK


def rows_of(
    configuration: Configuration,
    bus: Bus | None,
    given: set[str],
    environ: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Give what is in force: the file, the connections, the variables, the bus, its topics and subscriptions.

    `given` are the options of the command line that say which configuration this is.
    """
    environ = os.environ if environ is None else environ
    document = configuration.document
    assert document is not None
    yield _file(configuration, given, environ)
    for name in document.source.content.get("include", ()):
        assert configuration.path is not None
        file = configuration.path.parent / name
        yield Row("included file", str(file.absolute()), f"{configuration.label}: include")
    yield Row("profile", _profile_name(configuration.default), _option(configuration.chosen_by, given))
    yield from _profiles(configuration, document, bus)
    yield from _variables(configuration, given, environ)
    if bus is None:
        for name, topic in configuration.topics.items():
            yield from _said(topic, _Places(document, configuration.default, "topics", name))
        for key, subscription in configuration.subscriptions.items():
            yield from _said(
                subscription, _Places(document, configuration.default, "subscriptions", "/".join(key))
            )
        return
    yield from _bus(bus)
    for declared in bus.topology.topics:
        places = _Places(document, configuration.default, "topics", declared.name)
        yield from _declared(declared, Topic(declared.name), TopicSettings, places)
    for each in bus.topology.subscriptions:
        plain = Subscription(topic=each.topic, name=each.name)
        places = _Places(document, configuration.default, "subscriptions", str(each))
        yield from _declared(each, plain, SubscriptionSettings, places)


# --- the connection ---------------------------------------------------------------------------------------------------


def _file(configuration: Configuration, given: set[str], environ: Mapping[str, str]) -> Row:
    if configuration.path is None:
        assert configuration.document is not None
        missing = configuration.document.source.missing
        return Row("file", "(none)", f"there is no {missing}" if missing else configuration.label)
    if "--config" in given:
        origin = "--config"
    elif environ.get("CROSSBUS_CONFIG", "").strip() == configuration.label:
        origin = "CROSSBUS_CONFIG"
    else:
        origin = "the current directory" if configuration.path.parent == Path(".") else PROGRAM
    return Row("file", str(configuration.path.absolute()), origin)


def _option(chosen_by: str, given: set[str]) -> str:
    """Say what chose the profile as who typed the command knows it."""
    for option, names in {
        "--url": ("the argument url", "CROSSBUS_URL"),
        "--profile": ("the argument profile", "CROSSBUS_PROFILE"),
    }.items():
        if chosen_by in names and option in given:
            return option
    return chosen_by.replace("the argument", "the program's argument")


def _profile_name(profile: Profile) -> str:
    return "(a URL)" if profile.name == URL_PROFILE else profile.name


def _profiles(configuration: Configuration, document: Document, bus: Bus | None) -> Iterator[Row]:
    """Give the connections in use: the default one, and those of topics that live elsewhere."""
    topics = [Topic(name) for name in configuration.topics] if bus is None else list(bus.topology.topics)
    used = {configuration.default.name: configuration.default}
    for topic in topics:
        profile = configuration.profile_for(topic)
        used[profile.name] = profile
    for profile in used.values():
        alone = profile.name == URL_PROFILE
        place = document.source.place.at("profiles").at(profile.name)
        table: Mapping[str, Any] = {} if alone else document.source.content["profiles"][profile.name]
        said = place.at("url" if "url" in table else "adapter")
        origin = "the URL" if alone else f"{said.where}: {place.key}"
        key = "connection" if alone else place.key
        yield Row(f"{key}.adapter", profile.scheme, origin)
        if profile.target:
            yield Row(f"{key}.target", _shown("target", profile.target), origin)
        for name, value in profile.parameters.items():
            where = place.at(name).said if name in table else f"{origin} (its url)"
            yield Row(f"{key}.{name}", _shown(name, value), "the URL" if alone else where)
        names = place.at("names").said if "names" in table else DEFAULT
        yield Row(f"{key}.names", profile.names, names)
        for name, value in profile.variables.items():
            variable = place.at("variables").at(name)
            yield Row(variable.key, _shown(name, value), variable.said)


def _variables(configuration: Configuration, given: set[str], environ: Mapping[str, str]) -> Iterator[Row]:
    """Give the variables that count, and say of those that do not what overrules them."""
    for name, option, in_force in (
        ("CROSSBUS_URL", "--url", configuration.chosen_by == "CROSSBUS_URL"),
        ("CROSSBUS_PROFILE", "--profile", configuration.chosen_by == "CROSSBUS_PROFILE"),
    ):
        if environ.get(name) and option not in given:
            value = "(as connection)" if name == "CROSSBUS_URL" and in_force else HIDDEN
            if name == "CROSSBUS_PROFILE":
                value = environ[name]
            by = _option(configuration.chosen_by, given)
            yield Row(name, value, "environment" if in_force else f"environment; overruled by {by}")
    if environ.get("CROSSBUS_KEY"):
        yield Row("CROSSBUS_KEY", HIDDEN, "environment")
    begins = tuple(
        {start for each in configuration.profiles.values() for start in CLOUDS.get(each.adapter, ())}
    )
    for name in sorted(environ):
        if begins and name.startswith(begins) and environ[name]:
            yield Row(name, _shown(name, environ[name]), "environment")


# --- what is declared -------------------------------------------------------------------------------------------------


class _Places:
    """Where the file may say something of a topic or a subscription: in the profile taken, or at top level."""

    def __init__(self, document: Document, profile: Profile, kind: str, name: str) -> None:
        content = document.source.content
        within = content.get("profiles", {}).get(profile.name, {})
        top = document.source.place
        self.key = top.at(kind).at(name).key
        self._tables = [
            (top.at("profiles").at(profile.name).at(kind).at(name), within.get(kind, {}).get(name, {})),
            (top.at(kind).at(name), content.get(kind, {}).get(name, {})),
        ]

    def of(self, *path: str) -> str | None:
        """Return where a key stands; None if the file does not say it. The profile's own word counts first."""
        for place, table in self._tables:
            found: Any = table
            for part in path:
                if isinstance(found, (list, tuple)):
                    found = found[int(part)] if part.isdecimal() and int(part) < len(found) else None
                else:
                    found = found.get(part) if isinstance(found, Mapping) else None
            if found is not None:
                for part in path:
                    place = place.at(part)
                return place.said
        return None


def _said(settings: TopicSettings | SubscriptionSettings, places: _Places) -> Iterator[Row]:
    """Give what the file says, without a program."""
    empty = True
    for path, value in _leaves(settings):
        origin = places.of(*path)
        if origin is not None:
            empty = False
            yield Row(Place("", path).key.join((f"{places.key}.", "")), _shown(path, value), origin)
    if empty:
        yield Row(places.key, "(listed)", "the file")


def _declared(
    declared: Topic | Subscription,
    plain: Topic | Subscription,
    settings: type[TopicSettings] | type[SubscriptionSettings],
    places: _Places,
) -> Iterator[Row]:
    """Give what holds for something that a program declares: what the file says, else the program, else the default."""
    defaults = dict(_leaves(plain))
    names = {each.name for each in dataclasses.fields(settings)}
    for path, value in _leaves(declared):
        if path[0] not in names or (value is None and defaults.get(path) is None):
            continue
        ours = places.of("wire") if path == ("options", "wire") else places.of(*path)
        if ours is None:
            ours = DEFAULT if defaults.get(path) == value else PROGRAM
        yield Row(f"{places.key}.{Place('', path).key}", _shown(path, value), ours)


def _bus(bus: Bus) -> Iterator[Row]:
    defaults = inspect.signature(Bus.__init__).parameters
    values = {
        "source": bus.source,
        "validate": bus._validate,
        "drain_limit": bus.drain_limit,
        "publish_timeout": bus._publish_timeout,
    }
    for name in BUS_OPTIONS:
        value = values[name]
        if value is not None:
            yield Row(f"bus.{name}", _text(value), DEFAULT if value == defaults[name].default else PROGRAM)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give the single values in something, each with the path to it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, (Filter, Topic if path else ())):
        for each in dataclasses.fields(value):
            yield from _leaves(getattr(value, each.name), (*path, each.name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    elif isinstance(value, (list, tuple)) and value and path[0] in ("options", "native_filter"):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, str(number)))
    else:
        yield path, value


def _shown(path: str | tuple[str, ...], value: Any) -> str:
    """Write a value, unless it may be a credential: by its name, or that of a table around it, or by what it holds."""
    text = _text(value)
    names = (path,) if isinstance(path, str) else path
    if any(map(is_secret, names)):
        return HIDDEN
    try:
        refuse_secret(names[-1], text, "")
    except ConfigurationError:
        return HIDDEN
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())
