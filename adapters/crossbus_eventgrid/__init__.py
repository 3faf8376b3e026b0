"""The adapter for Azure Event Grid namespaces, by pull delivery. The SDK is imported when it is opened."""

from __future__ import annotations

from crossbus_eventgrid.adapter import EventGridAdapter

__all__ = ["EventGridAdapter"]
