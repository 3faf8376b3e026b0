"""The local broker."""

from crossbus_local.adapter import LocalAdapter, forget

__all__ = ["LocalAdapter", "forget"]
