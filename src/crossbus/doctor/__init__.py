"""`crossbus doctor`: what keeps a program from working where it is to run, why that matters, and what mends it.

It asks and never does: nothing is created, changed, published or received.
"""

from crossbus.doctor.catalog import PORTABLE, catalog
from crossbus.doctor.examining import Examination, Target, examine

__all__ = ["PORTABLE", "Examination", "Target", "catalog", "examine"]
