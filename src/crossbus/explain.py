"""`Explanation`: who evaluates what of a subscription's filter, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossbus.adapter import Adapter, Compilation
    from crossbus.filters import Filter
    from crossbus.topology import Subscription

__all__ = ["Explanation", "explain", "explain_subscription"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who evaluates what of a filter. `str` of it is for people."""

    filter: str
    """The filter as text; empty if there is none."""
    native: str
    """What the provider evaluates, as its own documentation writes it; empty if nothing."""
    residual: str | None
    """What is evaluated here, as text; None if the provider's answer is exact."""
    warning: str | None
    """What the residual costs; None if there is none."""
    provider: str = "the provider"
    """How the provider is called in the text."""

    def __str__(self) -> str:
        rows = {
            "filter": self.filter or "none: every event of the topic is delivered",
            f"{self.provider} evaluates": self.native or "nothing",
            "crossbus evaluates": self.residual or "nothing",
            "warning": self.warning,
        }
        width = max(map(len, rows))
        return "\n".join(f"{title:{width}}  {text}" for title, text in rows.items() if text is not None)


def explain(
    filter: Filter | None, compilation: Compilation | None = None, *, provider: str = "the provider"
) -> Explanation:
    """Explain a filter and what an adapter's `compile` made of it.

    Args:
        filter: The subscription's filter, or None.
        compilation: What the adapter made of it; None if it was not asked, so that all is evaluated here.
        provider: How to call the provider: the adapter's name.
    """
    native = "" if compilation is None else _native_text(compilation)
    residual = filter if compilation is None else compilation.residual
    return Explanation(
        filter="" if filter is None else str(filter),
        native=native,
        residual=None if residual is None else str(residual),
        warning=None if residual is None else _warning(provider, bool(native)),
        provider=provider,
    )


def explain_subscription(subscription: Subscription, adapter: Adapter) -> Explanation:
    """Explain the filter of a subscription, and what its adapter gives the provider of it.

    A filter in the provider's own language stands in the place of the compiled one, and so is not known to be exact.
    """
    from crossbus.adapter import Compilation

    filter = subscription.filter
    compiled = None if filter is None else adapter.compile(filter)
    own = subscription.native_filter.get(adapter.name)
    if own is not None:
        compiled = Compilation(None if own == "" else own, str(own), filter)
    return explain(filter, compiled, provider=adapter.name)


def _native_text(compilation: Compilation) -> str:
    if compilation.native is None:
        return ""
    return compilation.text or str(compilation.native)


def _warning(provider: str, narrowed: bool) -> str:
    if narrowed:
        return f"{provider} also delivers events that are dropped here; you pay for the delivery of each"
    return f"{provider} delivers every event; you pay for the delivery of those that are dropped here"
