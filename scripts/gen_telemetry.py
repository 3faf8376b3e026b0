"""Write the tables of docs/reference/telemetry.md from the names in crossbus.telemetry.names.

python scripts/gen_telemetry.py           writes the page
python scripts/gen_telemetry.py --check   exits with 1 if the committed page is not current
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from crossbus.telemetry import names

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "telemetry.md"
_TABLE = re.compile(r"(<!-- (attributes|metrics|fields): .*? -->\n).*?(<!-- end -->)", re.S)
_KINDS = {"updown": "up-down counter"}


def _table(*rows: Iterable[str]) -> str:
    head, *rest = (f"| {' | '.join(row)} |\n" for row in rows)
    columns = head.count("|") - 1
    return f"\n{head}|{'---|' * columns}\n{''.join(rest)}\n"


def tables() -> dict[str, str]:
    """Return each table, with the empty lines around it."""
    return {
        "attributes": _table(
            ("attribute", "what it says"),
            *((f"`{name}`", text) for name, text in names.SPAN_ATTRIBUTES.items()),
        ),
        "metrics": _table(
            ("metric", "instrument", "unit", "what it says", "attributes of its own"),
            *(
                (
                    f"`{one.name}`",
                    _KINDS.get(one.kind, one.kind),
                    f"`{one.unit}`",
                    one.description,
                    ", ".join(f"`{name}`" for name in one.attributes),
                )
                for one in names.METRICS
            ),
        ),
        "fields": _table(
            ("field", "what it says"), *((f"`{name}`", text) for name, text in names.LOG_FIELDS.items())
        ),
    }


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    made = tables()
    return _TABLE.sub(lambda match: f"{match[1]}{made[match[2]]}{match[3]}", text)


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        if text == page(text):
            return 0
        print(f"{PAGE} is not current: run python scripts/gen_telemetry.py", file=sys.stderr)
        return 1
    PAGE.write_text(page(text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
