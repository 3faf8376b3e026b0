"""`crossbus serve` for tests: with shorter locks than its command line allows, and with a fault if one is named.

``python -m tests.served '{"port": 8787, "shortest_lock": 2}' [FAULT]``
"""

from __future__ import annotations

import json
import sys

from crossbus_local.http.options import ServerOptions
from crossbus_local.http.serve import serve


def main(options: str, *faults: str) -> None:
    """Serve with these options, JSON of what `ServerOptions` takes."""
    for fault in faults:
        from tests import wrong_servers

        getattr(wrong_servers, fault).spoil()
    serve(ServerOptions(**json.loads(options)))


if __name__ == "__main__":
    main(*sys.argv[1:])
