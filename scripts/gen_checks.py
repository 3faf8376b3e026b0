"""Write docs/reference/checks.md from the checks in crossbus.doctor and in the adapters.

python scripts/gen_checks.py           writes the page
python scripts/gen_checks.py --check   exits with 1 if the committed page is not current
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from crossbus.checks import Check
from crossbus.doctor import PORTABLE
from crossbus_eventbridge import checks as eventbridge
from crossbus_eventgrid import checks as eventgrid
from crossbus_local import provisioning as local
from crossbus_pubsub import checks as pubsub

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "checks.md"

HEAD = """\
# Checks of the doctor

<!-- Made by scripts/gen_checks.py from src/crossbus/doctor/catalog.py and the adapters' checks: change them there. -->

All that [`crossbus doctor`](../how-to/doctor.md) looks at. `-o json` and the report call a check by its name.

*Proved on* says on what the test runs that breaks exactly this and sees it found: moto's server for AWS, Google's
emulator of Pub/Sub, `crossbus serve`. **Recorded answers** are written after the providers' documentation, because
neither emulator nor server knows permissions: what they say was never seen on a real cloud. A check marked `*` is also
made of resources that are `external`.
"""

SECTIONS: Mapping[str, tuple[str, Mapping[str, Check]]] = {
    "Everywhere": ("The program, its configuration and its declarations.", PORTABLE),
    "AWS EventBridge": ("Rules, targets and SQS queues.", eventbridge.CLASSIC),
    "AWS EventBridge, api=v2": (
        "Beside the checks of queues and dead letters above, which are the same.",
        {name: check for name, check in eventbridge.V2.items() if name not in eventbridge.CLASSIC},
    ),
    "Google Cloud Pub/Sub": ("Topics, subscriptions and their roles.", pubsub.CHECKS),
    "Azure Event Grid": ("Topics and event subscriptions of a namespace.", eventgrid.CHECKS),
    "The local broker": ("`local+http:` and files. In memory there is nothing to look at.", local.CHECKS),
}

COMMAND = "`crossbus provision MODULE:BUS`"


def page() -> str:
    """Return the page's text."""
    parts = [HEAD]
    for title, (text, checks) in SECTIONS.items():
        parts.append(f"\n## {title}\n\n{text}\n\n")
        parts += [_row(["check", "what is well", "else", "mend", "proved on"]), _row(["---"] * 5)]
        parts += [_row(_cells(name, check)) for name, check in checks.items()]
    return "".join(parts)


def _cells(name: str, check: Check) -> list[str]:
    mend = check.mend.replace("{provision} --prune", "`crossbus provision MODULE:BUS --prune`")
    mend = mend.replace("{provision}", COMMAND).replace("{extra}", "EXTRA")
    if check.terraform:
        mend += f"; terraform: {check.terraform}"
    theirs = " \\*" if check.theirs and check.about != "profile" else ""
    state = "" if check.state == "wrong" else " (a warning)"
    return [f"`{name}`{theirs}", check.what, f"{check.why}{state}", mend.replace("|", "\\|"), check.proved]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    """Write the page, or check it."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text("utf-8") == page():
            return 0
        print(f"{PAGE} is not current: run python scripts/gen_checks.py", file=sys.stderr)
        return 1
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
