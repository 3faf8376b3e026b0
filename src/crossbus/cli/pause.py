"""`crossbus pause` and `crossbus resume`: of a subscription, for all its consumers or for those of this machine."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal

from crossbus.adapter import PausesForAll
from crossbus.asking import guarded
from crossbus.bus import Bus
from crossbus.cli.control import ask_all, identity
from crossbus.cli.exits import ExitCode, fail
from crossbus.cli.logs import show_log
from crossbus.cli.showing import form_of
from crossbus.config import Configuration
from crossbus.errors import DeclarationError
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.topology import Subscription, Topic, check_name

if TYPE_CHECKING:
    from crossbus.cli.options import OutputChoice

__all__ = ["change"]

What = Literal["pause", "resume"]


def change(
    what: What,
    address: str,
    *,
    url: str | None = None,
    profile: str | None = None,
    config: str | None = None,
    output: OutputChoice | None = None,
) -> ExitCode:
    """Pause or resume ``TOPIC/NAME``, and say for whom.

    Raises what `load` raises, `NotFound` if a server has no such subscription, and `DeclarationError` if the address
    is none.
    """
    show_log()
    subscription = _read(address)
    bus = Bus(url, profile=profile, config=config, provision="never")
    configuration = bus._configuration
    assert configuration is not None
    configuration.check_topic(subscription.topic.name)
    subscription = configuration.apply_subscription(subscription)
    where = configuration.profile_for(subscription.topic)
    for_all = issubclass(adapter_class(where.scheme, where.origin), PausesForAll)
    changed = asyncio.run(_at_the_provider(bus, subscription, what)) if for_all else False
    runs: list[dict[str, Any]] = []
    if not for_all or what == "resume":  # a breaker pauses in the process
        runs = ask_all({"do": what, "subscription": str(subscription), "bus": identity(where)})
    if form_of(output) == "json":
        print(
            json.dumps(
                {
                    "subscription": str(subscription),
                    "paused": what == "pause",
                    "for_all": for_all,
                    "changed": changed,
                    "runs": runs,
                }
            )
        )
    else:
        for text in _lines(what, subscription, where, for_all, changed, runs):
            print(text)
    if not for_all and not runs:
        fail(_nobody(what, subscription, where, configuration))
        return ExitCode.USAGE
    return ExitCode.FAILED if any(None in run["processes"] for run in runs) else ExitCode.OK


def _read(address: str) -> Subscription:
    topic, slash, name = address.partition("/")
    if not slash:
        raise DeclarationError(f"{address!r} is no subscription: write TOPIC/NAME, such as orders/billing")
    check_name("topic", topic)
    check_name("subscription", name)
    return Subscription(topic=Topic(topic), name=name)


async def _at_the_provider(bus: Bus, subscription: Subscription, what: What) -> bool:
    async with bus:
        adapter = await bus._connections.adapter_of(subscription.topic)
        assert isinstance(adapter, PausesForAll)
        return bool(await guarded(adapter, adapter.pause_for_all(subscription, what == "pause")))


def _lines(
    what: What,
    subscription: Subscription,
    where: Profile,
    for_all: bool,
    changed: bool,
    runs: list[dict[str, Any]],
) -> list[str]:
    done = f"{what}d"
    lines = []
    if for_all:
        again = "" if changed else f" (it was {'paused' if what == 'pause' else 'not paused'} there before)"
        lines.append(f"{done} {subscription} for all its consumers, on the server {where.target}{again}")
    for run in runs:
        processes = [each for each in run["processes"] if each is not None]
        count = len(processes)
        lines.append(
            f"{done} {subscription} in crossbus run {run['program']} (process {run['pid']}, "
            f"{count} consumer{'s' if count != 1 else ''}), and nowhere else"
            if not for_all
            else f"{done} {subscription} in crossbus run {run['program']} (process {run['pid']}) as well"
        )
        reasons = {each["was"]["why"] for each in processes if each["was"]["why"]}
        lines.extend(f"  it was {why}" for why in sorted(reasons))
        if count < len(run["processes"]):
            lines.append(f"  {len(run['processes']) - count} of its processes did not answer")
    return lines


def _nobody(what: What, subscription: Subscription, where: Profile, configuration: Configuration) -> str:
    return (
        f"no crossbus run of this user on this machine consumes {subscription} on {where.scheme}: "
        f"(chosen by {configuration.chosen_by}). On {where.scheme}: a subscription is {what}d in the processes that "
        "consume it: do it where they run, as the user they run as, with the same configuration"
    )
