"""What users test their handlers with: a bus on a private broker, what it published and handled, a movable clock."""

from crossbus.testing.bus import TestBus
from crossbus.testing.clock import Clock
from crossbus.testing.sync import SyncTestBus
from crossbus.testing.watching import Handled

__all__ = ["Clock", "Handled", "SyncTestBus", "TestBus"]
