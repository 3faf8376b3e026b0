"""Write the files of docs/observability, and the table of docs/runbooks/index.md, from crossbus.telemetry.names.

python scripts/gen_observability.py                    writes them
python scripts/gen_observability.py --check            exits with 1 if what is committed is not current
python scripts/gen_observability.py --site URL FILE    writes the alert rules to FILE, with runbooks below URL
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from observability.alerts import rules, table
from observability.dashboard import dashboard

DOCS = Path(__file__).parent.parent / "docs"
INDEX = DOCS / "runbooks" / "index.md"
_TABLE = re.compile(r"(<!-- alerts: made by scripts/gen_observability\.py -->\n).*?(<!-- end -->)", re.S)


def made() -> dict[Path, str]:
    """Return each file, as it should be."""
    return {
        DOCS / "observability" / "grafana-dashboard.json": dashboard(),
        DOCS / "observability" / "prometheus-rules.yaml": rules(),
        INDEX: _TABLE.sub(lambda match: f"{match[1]}\n{table()}\n\n{match[2]}", INDEX.read_text("utf-8")),
    }


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    if len(arguments) == 3 and arguments[0] == "--site":
        Path(arguments[2]).write_text(rules(arguments[1].rstrip("/")), "utf-8")
        return 0
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = [path for path, text in made().items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments and stale:
        names = ", ".join(path.name for path in stale)
        print(f"{names}: not current; run python scripts/gen_observability.py", file=sys.stderr)
        return 1
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made()[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
