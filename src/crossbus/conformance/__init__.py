"""The conformance kit: what every adapter must do. There is no pytest in it.

An adapter's author writes a `Harness`, about twenty lines, and has the kit run on it:

```python
import asyncio
from crossbus.conformance import Harness, check

class MyHarness(Harness):
    name = "mybroker"

    @property
    def capabilities(self):
        return MyAdapter.capabilities

    def make_adapter(self, world, clock):
        return MyAdapter(Profile(adapter="mybroker", target=world), clock=clock)

def test_conformance():
    asyncio.run(check(MyHarness()))
```

`ServerHarness` is for adapters that have a server: it starts, kills and restarts it, behind a network that it can cut.
`run` gives the report instead of raising; `UrlHarness` runs the kit on a URL, as ``crossbus conformance URL`` does.
`FaultyHarness` puts faults under a harness. The list of cases is versioned: `all_cases`, and ``cases.json`` beside
this module.
"""

from crossbus.conformance.cases import GROUPS, VERSION, Case, Skipped, all_cases
from crossbus.conformance.faults import Faults, FaultyAdapter, FaultyHarness
from crossbus.conformance.harness import Harness, Stop
from crossbus.conformance.proxy import Cut, Proxy
from crossbus.conformance.report import Report, Result, matrix, unproved
from crossbus.conformance.runner import check, run
from crossbus.conformance.server import ServerHarness, ServerProcess, answers_http
from crossbus.conformance.stress import Latency, measure
from crossbus.conformance.trial import Trial
from crossbus.conformance.url import UrlHarness
from crossbus.conformance.wrap import Watch, WrappedAdapter, WrappedReceiver

__all__ = [
    "GROUPS",
    "VERSION",
    "Case",
    "Cut",
    "Faults",
    "FaultyAdapter",
    "FaultyHarness",
    "Harness",
    "Latency",
    "Proxy",
    "Report",
    "Result",
    "ServerHarness",
    "ServerProcess",
    "Skipped",
    "Stop",
    "Trial",
    "UrlHarness",
    "Watch",
    "WrappedAdapter",
    "WrappedReceiver",
    "all_cases",
    "answers_http",
    "check",
    "matrix",
    "measure",
    "run",
    "unproved",
]
