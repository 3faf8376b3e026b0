"""`crossbus topology export`: what a program declares, written for each cloud."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from crossbus.bus import Bus
from crossbus.cli.exits import ExitCode, fail, note
from crossbus.cli.loading import load_bus
from crossbus.cli.run import check_chosen, choose, inner
from crossbus.errors import ConfigurationError, nearest
from crossbus.exporting import Document, Export, export
from crossbus.exporting.files import TFVARS, as_json, as_yaml, read, write
from crossbus.exporting.generated import keep_generations
from crossbus.profiles import Profile
from crossbus.topology import Topic, Topology

__all__ = ["export_topology", "exported", "loaded", "part_of"]

_STANDARD = Path("-")


def export_topology(
    program: str,
    *,
    file: Path | None,
    form: str,
    check: bool,
    of: str | None,
    previous: Path | None,
    prune: bool,
    url: str | None,
    profile: str | None,
    config: str | None,
) -> ExitCode:
    """Write the topology document of a program; with `check` only say what the profile's provider cannot hold.

    Raises what `load_bus` raises, and `ConfigurationError` for a file that cannot be read or written.
    """
    bus = loaded(program, url, profile, config)
    if file is None:
        file = Path(TFVARS) if form == "tfvars" else _STANDARD
    before = None if prune or check or form == "mermaid" else _before(file, previous)
    found = exported(bus, of, before)
    if check:
        for sentence in _sentences(found):
            fail(sentence)
        return ExitCode.FAILED if found.refused else ExitCode.OK
    text = _text(found, form)
    if file == _STANDARD:
        sys.stdout.write(text)
    else:
        changed = write(file, text)
        note(f"{file} {'is written' if changed else 'is as it was'}: {_counts(found.document)}")
        was, now = (_profile_of(one) for one in (before or found.document, found.document))
        if previous is None and was != now:
            note(f"{file} was of {was}, and is of {now} now: names of resources may be others")
        for line in keep_generations(bus._configuration, _generations(found)):
            note(line)
    for sentence in _sentences(found):
        note(f"cannot be created as it is: {sentence}")
    return ExitCode.OK


def loaded(program: str, url: str | None, profile: str | None, config: str | None) -> Bus:
    """Import a program, and return its bus, with the connection that the options say."""
    choose(url, profile, config)
    bus = inner(load_bus(program))
    check_chosen(bus, program, url, profile)
    return bus


def exported(bus: Bus, of: str | None, previous: Document | None) -> Export:
    """Return the document of what a bus declares in the profile taken, or in another that its topics name."""
    profile, topology, others = part_of(bus, of)
    for name, topics in others.items():
        note(f"not among it, as it lives in profile {name} (--of {name}): {', '.join(topics)}")
    return export(topology, profile, previous)


def part_of(bus: Bus, of: str | None = None) -> tuple[Profile, Topology, dict[str, list[str]]]:
    """Return a profile, what of a bus lives in it, and by the name of each other profile the topics that live there."""
    homes: dict[str, Profile] = {}
    topics = {topic.name: topic for topic in bus.topology.topics}
    for name, topic in topics.items():
        homes[name] = bus._connections.profile_of(topic)
    chosen = bus._connections.profile_of(None)
    if of is not None:
        known = {chosen.name: chosen, **{one.name: one for one in homes.values()}}
        if of not in known:
            raise ConfigurationError(f"--of {of}: no topic of the program lives there; {nearest(of, known)}")
        chosen = known[of]

    def here(topic: Topic) -> bool:
        return homes[topic.name].name == chosen.name

    others: dict[str, list[str]] = {}
    for name, home in homes.items():
        if home.name != chosen.name:
            others.setdefault(home.name, []).append(name)
    return (
        chosen,
        Topology(
            tuple(topic for topic in topics.values() if here(topic)),
            tuple(one for one in bus.topology.subscriptions if here(one.topic)),
        ),
        {} if of is not None else others,
    )


def _before(file: Path, previous: Path | None) -> Document | None:
    if previous is not None:
        return read(previous)
    return read(file) if file != _STANDARD and file.exists() else None


def _sentences(found: Export) -> list[str]:
    """Return why the profile's provider cannot hold it, each once: a topic's is that of its subscriptions too."""
    return list(dict.fromkeys(refusal.sentence for refusal in found.refused))


def _generations(found: Export) -> dict[str, list[str]]:
    """Return the older generations in a document, of those subscriptions that their own provider holds."""
    subscriptions = found.document["topology"]["subscriptions"]
    parts = {key: one.get(found.provider) for key, one in subscriptions.items()}
    return {key: sorted(part.get("older_generations", ())) for key, part in parts.items() if part}


def _text(found: Export, form: str) -> str:
    if form == "mermaid":
        from crossbus.exporting.graph import as_mermaid

        return as_mermaid(found.document, found.provider)
    return as_yaml(found.document) if form == "yaml" else as_json(found.document)


def _profile_of(document: Document) -> str:
    name = document["topology"].get("profile")
    return f"profile {name}" if name else "a connection by URL"


def _counts(document: Document) -> str:
    topology = document["topology"]
    parts: Sequence[tuple[str, str]] = (("topic", "topics"), ("subscription", "subscriptions"))
    return ", ".join(f"{(n := len(topology[many]))} {one if n == 1 else many}" for one, many in parts)
