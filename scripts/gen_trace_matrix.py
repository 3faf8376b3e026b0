"""Write the matrix of docs/reference/trace-continuity.md: publisher and consumers in processes of their own.

python scripts/gen_trace_matrix.py           runs every path on every provider, some minutes, and writes the page
python scripts/gen_trace_matrix.py --check   exits with 1 if the committed page has other paths or providers
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.trace_paths import PATHS, PROVIDERS, traced  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "trace-continuity.md"
BEGIN = "<!-- matrix: made by scripts/gen_trace_matrix.py -->\n"
END = "<!-- end of the matrix -->\n"


def made() -> str:
    """Run all, and return the matrix."""
    found: dict[str, dict[str, str]] = {}
    under: dict[str, str] = {}
    for provider in PROVIDERS:
        with traced(provider) as world:
            under[provider] = world.what_lies_under
            found[provider] = {path: _tried(lambda path=path: PATHS[path][1](world)) for path in PATHS}
        print(provider, found[provider], file=sys.stderr, flush=True)
    lines = [_row("path", "what happens on it", *PROVIDERS), _row(*["---"] * (len(PROVIDERS) + 2))]
    lines += [
        _row(path, what, *(found[provider][path] for provider in PROVIDERS))
        for path, (what, _) in PATHS.items()
    ]
    notes = "; ".join(f"{provider}: {what}" for provider, what in under.items())
    return "\n".join([*lines, "", f"What lies under: {notes}."])


def _tried(check: object) -> str:
    try:
        check()  # type: ignore[operator]
    except Exception:
        traceback.print_exc()
        return "**no**"
    return "yes"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def is_current(page: str) -> bool:
    """True if a page has the paths and the providers of the tests, and no hole."""
    matrix = page.partition(BEGIN)[2].partition(END)[0]
    rows = [line.split(" | ") for line in matrix.splitlines() if line.startswith("| ")]
    head, _, *body = rows or [[], []]
    return [cell.strip("| ") for cell in head[2:]] == [*PROVIDERS] and [
        (row[0].strip("| "), row[1], {cell.strip("| ") for cell in row[2:]}) for row in body
    ] == [(path, what, {"yes"}) for path, (what, _) in PATHS.items()]


def main() -> int:
    """Write the page, or check it."""
    page = PAGE.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        if is_current(page):
            return 0
        print(f"{PAGE} is not current: run python scripts/gen_trace_matrix.py", file=sys.stderr)
        return 1
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{made()}\n\n{END}{tail}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
