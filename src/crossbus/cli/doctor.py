"""`crossbus doctor`: what keeps a program from working where it is to run."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

from crossbus.checks import Result
from crossbus.cli.exits import ExitCode, note
from crossbus.cli.logs import show_log
from crossbus.cli.options import one_place
from crossbus.cli.showing import print_json, print_line
from crossbus.config import Configuration, load
from crossbus.doctor import Target, examine
from crossbus.doctor.catalog import check_of_error
from crossbus.doctor.examining import line_of
from crossbus.errors import ConfigurationError
from crossbus.topology import Subscription, Topic, Topology

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["run_doctor"]


def run_doctor(
    program: str | None,
    *,
    url: str | None,
    profile: str | None,
    config: str | None,
    strict: bool,
    output: OutputChoice | None,
) -> ExitCode:
    """Examine, and print what was found. Raises as `load_bus`, but not for what is wrong with the configuration."""
    one_place(url, profile)
    show_log()
    try:
        target = _target(program, url, profile, config)
    except ConfigurationError as error:
        found = [line_of(_misconfigured(error, url, profile, config))]
    else:
        found = asyncio.run(examine(target))
    form = "report" if output is None or output.value == "table" else output.value
    if form == "report":
        from crossbus.cli.doctor_report import report

        report(found)
    else:
        for one in found:
            if form == "json":
                print_json(one._asdict())
            else:
                print_line(one.state, one.profile, one.name, one.check, one.text, one.mend)
    bad = {"wrong", "warning", "unknown"} if strict else {"wrong"}
    return ExitCode.FAILED if any(one.state in bad for one in found) else ExitCode.OK


def _misconfigured(
    error: ConfigurationError, url: str | None, profile: str | None, config: str | None
) -> Result:
    """Tell a configuration that is wrong, which is a finding, from a program that is not there, which is usage."""
    try:
        load(url, profile=profile, config=config)
    except ConfigurationError as found:
        return Result(check_of_error(found), "wrong", str(found))
    raise error


def _target(program: str | None, url: str | None, profile: str | None, config: str | None) -> Target:
    command = ["crossbus", "provision", program or "MODULE:BUS"]
    for option, value in (("--url", url), ("--profile", profile), ("--config", config)):
        command += [] if value is None else [option, value]
    provision = shlex.join(command)
    if program is None:
        configuration = load(url, profile=profile, config=config)
        topology = _of_file(configuration)
        if not topology.topics:
            note(f"{configuration.label} lists no topic and no subscription; name the program: MODULE:BUS")
        return Target(configuration, topology, provision)
    from crossbus.cli.loading import load_bus
    from crossbus.cli.run import choose, inner

    choose(url, profile, config)
    bus = inner(load_bus(program))
    if bus._configuration is None:
        raise ConfigurationError(
            f"{program} was made with an adapter of its own: nothing of it is configured"
        )
    return Target(bus._configuration, bus.topology, provision)


def _of_file(configuration: Configuration) -> Topology:
    """Return what the file says of topics and subscriptions, where there is no program that declares them."""
    topics = [configuration.apply_topic(Topic(name)) for name in configuration.topics]
    subscriptions = [
        configuration.apply_subscription(Subscription(topic=Topic(topic), name=name))
        for topic, name in configuration.subscriptions
    ]
    named = {one.name: one for one in (*topics, *(each.topic for each in subscriptions))}
    return Topology(tuple(named.values()), tuple(subscriptions))
