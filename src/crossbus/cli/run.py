"""`crossbus run`: the consumers of a user's program, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from crossbus.bus import Bus
from crossbus.cli.control import Steering, beside
from crossbus.cli.exits import ExitCode, note
from crossbus.cli.loading import load_bus, raised_by_hook
from crossbus.cli.logs import show_log
from crossbus.cli.notices import only_here
from crossbus.cli.options import one_place
from crossbus.errors import ConfigurationError, CrossbusError, DeclarationError
from crossbus.probes import listening, parse_address
from crossbus.sync import SyncBus
from crossbus.telemetry.setting_up import set_up

if TYPE_CHECKING:
    from crossbus.telemetry.tree import TreePrinter

__all__ = ["Chosen", "check_chosen", "consume", "load_program", "run_program"]

Chosen = tuple[str | None, str | None]
"""What `--url` and `--profile` said."""


def run_program(
    program: str,
    *,
    url: str | None = None,
    profile: str | None = None,
    config: str | None = None,
    workers: int | None = None,
    health: str | None = None,
    reload: bool = False,
    trace: bool = False,
) -> ExitCode:
    """Import ``module:bus`` and handle events until SIGINT or SIGTERM; then drain.

    Without `workers` and `reload` in this process; else in processes of their own, which are watched. OpenTelemetry is
    set up as its variables say, unless the program does it. With `trace` traces are printed as trees. Raises what
    `load_bus` raises, and the fatal error of a consumer.
    """
    choose(url, profile, config)
    address = None if health is None else parse_address(health, "--health")
    if workers is not None or reload:
        from crossbus.cli.supervisor import supervise

        return supervise(
            program, (url, profile), workers=workers or 1, health=address, reload=reload, trace=trace
        )
    running = _Running()
    with nullcontext() if address is None else listening(*address, running.ask) as bound:
        if bound is not None:
            note(health_line(*bound))
        running.bus = inner(bus := load_program(program, (url, profile)))
        greet(running.bus)
        steering = Steering(running.bus)

        async def answer(question: dict[str, Any]) -> dict[str, Any]:
            found = await asyncio.to_thread(steering.do, question)
            return {"program": program, "pid": os.getpid(), "processes": [found] if found else []}

        with beside(answer):
            consume(program, bus, trace=trace)
    note("stopped; what was in hand is done or given back")
    return ExitCode.OK


class _Running:
    """Answers probes, from before the program is imported."""

    bus: Bus | None = None

    def ask(self) -> tuple[bool, bool]:
        """Say whether it is alive, and whether its consumers are there and well."""
        if self.bus is None:
            return True, False
        health = self.bus.health()
        return health.alive, health.ready and bool(health.subscriptions)


def health_line(host: str, port: int) -> str:
    """What `run` says of its probes."""
    shown = f"[{host}]" if ":" in host else host
    return f"health on http://{shown}:{port}/livez and /readyz"


def load_program(program: str, chosen: Chosen) -> Bus | SyncBus:
    """Import a program, and check that its bus consumes something, and where it was told to."""
    bus = load_bus(program)
    if not logging.getLogger().handlers:  # else the program says itself how it logs
        show_log()
    check_chosen(inner(bus), program, *chosen)
    if not consumed(inner(bus)):
        raise DeclarationError(
            f"{program} has no subscription with a handler: decorate a function with @bus.subscribe(topic, name)"
        )
    return bus


def inner(bus: Bus | SyncBus) -> Bus:
    """Return the `Bus` of either."""
    return bus.bus if isinstance(bus, SyncBus) else bus


def consume(program: str, bus: Bus | SyncBus, *, trace: bool) -> None:
    """Handle events until a signal, with OpenTelemetry set up; with `trace` traces are printed as trees."""
    end_telemetry = set_up(program.partition(":")[0], note=note, processor=_tree if trace else None)
    try:
        if isinstance(bus, SyncBus):
            bus.run()
        else:
            asyncio.run(bus.run())
    except CrossbusError:  # says what is wrong by itself
        raise
    except Exception as error:
        raise raised_by_hook(error) or error from error
    finally:
        end_telemetry()


def _tree() -> TreePrinter:
    from crossbus.telemetry.tree import TreePrinter

    return TreePrinter()


def consumed(bus: Bus) -> list[str]:
    """The subscriptions that have a handler."""
    return [str(handle.declaration) for handle in bus.subscriptions if handle.handlers]


def greet(bus: Bus) -> None:
    """Have the bus say what it consumes, once it is open."""

    @bus.on_start
    def greet(bus: Bus) -> None:
        for text in notices(bus):
            note(text)
        note(f"consuming {', '.join(consumed(bus))}; Ctrl-C finishes what is in hand and stops")


def notices(bus: Bus) -> list[str]:
    """What the user should know of an open bus before he relies on it."""
    topics = [handle.declaration.topic.name for handle in bus.subscriptions if handle.handlers]
    return list(dict.fromkeys(filter(None, (only_here(bus.adapter_for(topic)) for topic in topics))))


def choose(url: str | None, profile: str | None, config: str | None) -> None:
    """Say in the environment what `Bus()` shall use: the program makes it, when it is imported."""
    one_place(url, profile)
    if url is not None:
        os.environ["CROSSBUS_URL"] = url
    if profile is not None:
        os.environ["CROSSBUS_PROFILE"] = profile
        if url is None:
            os.environ.pop("CROSSBUS_URL", None)
    if config is not None:
        os.environ["CROSSBUS_CONFIG"] = config


def check_chosen(bus: Bus, program: str, url: str | None, profile: str | None) -> None:
    """Refuse an option that the program overrules: events would go where nobody expects them."""
    used = None if bus._configuration is None else bus._configuration.default
    for option, given, taken in (
        ("--url", url, used is not None and used.origin == "CROSSBUS_URL"),
        ("--profile", profile, used is not None and used.name == profile),
    ):
        if given is not None and not taken:
            raise ConfigurationError(
                f"{option} {given} does not reach {program}, which says itself which bus to use; make it with Bus(), "
                f"or leave {option} out"
            )
