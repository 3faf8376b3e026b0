"""Write docs/reference/event-rules.md from the table in crossbus.rules.

python scripts/gen_event_rules.py           writes the page
python scripts/gen_event_rules.py --check   exits with 1 if the committed page is not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from crossbus.rules import RULES, Rule

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "event-rules.md"

HEAD = """\
# Rules for events

<!-- Made by scripts/gen_event_rules.py from src/crossbus/rules.py: change it there. -->

An event meets rules in three places. Making one is strict about CloudEvents; publishing is also strict about
what every provider takes; reading is tolerant, because what arrives was often made by somebody else.
"""

SECTIONS = {
    "event": (
        "What `Event(...)` enforces",
        "The rules of CloudEvents 1.0. Breaking one raises `InvalidEvent`, which names the attribute. "
        "`source` may be any non-empty string: URI syntax is not enforced.",
    ),
    "publish": (
        "What `publish` enforces",
        "The portable profile: the narrowest limits of all providers, so that a program that works on one works "
        "on the next. Breaking a rule raises `InvalidEvent`, or `EventTooLarge` for the size of the event. "
        'With `validate="provider"` the limits are those of the provider in use.',
    ),
    "decode": (
        "What decoding tolerates",
        "An event that was read is kept as it came, and given to the handler. Publishing it again "
        "applies the rules above.",
    ),
}


def page() -> str:
    """Return the page's text."""
    parts = [HEAD]
    for path, (title, text) in SECTIONS.items():
        rules = [rule for rule in RULES if rule.path == path]
        limits = any(rule.limit is not None for rule in rules)
        head = ["rule", "limit", "whose"] if limits else ["rule", "whose"]
        parts += [f"\n## {title}\n\n{text}\n\n", _row(head), _row(["---"] * len(head))]
        parts += [_row(_cells(rule, limits)) for rule in rules]
    return "".join(parts)


def _cells(rule: Rule, limits: bool) -> list[str]:
    whose = f"[{rule.because}]({rule.source})" if rule.source else rule.because
    limit = [f"{rule.limit:,}" if rule.limit is not None else ""] if limits else []
    return [f'<a id="{rule.name}"></a>{rule.text}', *limit, whose]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    """Write the page, or check it."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text("utf-8") == page():
            return 0
        print(f"{PAGE} is not current: run python scripts/gen_event_rules.py", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
