"""What can be said of declarations before any provider is asked: what is refused at start, and what costs."""

from __future__ import annotations

from collections.abc import Iterator

from crossbus.adapter import Adapter
from crossbus.checks import Result
from crossbus.connections import problems
from crossbus.errors import CrossbusError, UnsupportedError
from crossbus.explain import explain_subscription
from crossbus.topology import Subscription, Topology

__all__ = ["declared"]


def declared(adapter: Adapter, topology: Topology) -> Iterator[Result]:
    """Check every subscription's declaration against an adapter that is open."""
    for one in topology.subscriptions:
        yield from _refused(adapter, one)
        yield _attempts(one)
        if one.filter is not None:
            yield _residual(adapter, one)


def _refused(adapter: Adapter, one: Subscription) -> Iterator[Result]:
    """Give what opening refuses, in its own words."""
    found = list(problems(adapter, one))
    unsupported = [str(error) for error in found if isinstance(error, UnsupportedError)]
    others = [str(error) for error in found if not isinstance(error, UnsupportedError)]
    yield Result("capability", "wrong" if unsupported else "ok", "; ".join(unsupported), str(one))
    if one.external and one.filter is not None:
        yield Result("mismatch", "wrong" if others else "ok", "; ".join(others), str(one))


def _attempts(one: Subscription) -> Result:
    attempts, backstop = one.retry.attempts, one.backstop
    if backstop is None or attempts == "unlimited" or backstop >= attempts:
        return Result("attempts", "ok", "", str(one))
    said = f"the backstop moves an event after {backstop} receives, and it has {attempts} attempts"
    return Result("attempts", "wrong", said, str(one))


def _residual(adapter: Adapter, one: Subscription) -> Result:
    try:
        explained = explain_subscription(one, adapter)
        native = None if one.filter is None else adapter.compile(one.filter).native
    except CrossbusError as error:
        return Result("declaration", "wrong", str(error), str(one))
    # What the provider was given whole may be evaluated again for exactness: Google's emulator may ignore filters, and
    # Event Grid ignores case, so that all is.
    whole = native == one.filter or (native is not None and not adapter.capabilities.filters.case_sensitive)
    if explained.residual is None or whole:
        return Result("residual", "ok", "", str(one))
    said = f"crossbus evaluates {explained.residual}: {explained.warning}"
    return Result("residual", "warning", said, str(one))
