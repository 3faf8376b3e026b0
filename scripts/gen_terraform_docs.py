"""Write the tables of terraform/modules/*/README.md: inputs, outputs, and the permissions that programs need.

python scripts/gen_terraform_docs.py           writes them
python scripts/gen_terraform_docs.py --check   exits with 1 if a committed one is not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import hcl2

MODULES: Final = Path(__file__).parent.parent / "terraform" / "modules"
BEGIN: Final = "<!-- made by scripts/gen_terraform_docs.py -->"
END: Final = "<!-- end -->"
WHO: Final = {
    "publish": "publishes to a topic",
    "consume": "consumes a subscription",
    "operate": "lists, redrives and purges dead letters",
    "inspect": "looks whether all is as declared",
    "doctor": "runs `crossbus doctor`, besides",
}
"""How the tables call those whose permissions a module grants."""


def tables(module: Path) -> str:
    """Return the generated part of a module's README."""
    found: dict[str, list[Any]] = {}
    for file in sorted(module.glob("*.tf")):
        for kind, blocks in hcl2.loads(file.read_text("utf-8")).items():
            if isinstance(blocks, list):
                found.setdefault(kind, []).extend(blocks)
    return "\n".join(
        [
            f"{BEGIN}\n",
            _requirements(found["terraform"][0]),
            "### Inputs\n",
            *_inputs(found["variable"]),
            "\n### Outputs\n",
            *_outputs(found["output"]),
            "\n### Permissions of programs\n",
            *_permissions(found["locals"]),
            f"\n{END}\n",
        ]
    )


def _requirements(block: dict[str, Any]) -> str:
    providers = block["required_providers"][0]
    named = [
        f"{plain(one['source'])} `{plain(one['version'])}`"
        for one in providers.values()
        if isinstance(one, dict)
    ]
    return f"terraform `{plain(block['required_version'])}`; {', '.join(named)}.\n"


def _inputs(variables: list[Any]) -> list[str]:
    lines = ["| name | type | default | |", "|---|---|---|---|"]
    rows = [(plain(name), about) for block in variables for name, about in block.items()]
    for name, about in sorted(rows, key=lambda row: ("default" in row[1], row[0])):
        type_ = (
            "object" if name == "topology" else str(plain(about["type"])).removeprefix("${").removesuffix("}")
        )
        default = _code(json.dumps(plain(about["default"]))) if "default" in about else "required"
        lines.append(f"| `{name}` | {_code(type_)} | {default} | {plain(about['description'])} |")
    return lines


def _outputs(outputs: list[Any]) -> list[str]:
    lines = ["| name | |", "|---|---|"]
    rows = [(plain(name), plain(about["description"])) for block in outputs for name, about in block.items()]
    return [*lines, *(f"| `{name}` | {description} |" for name, description in sorted(rows))]


def _permissions(blocks: list[Any]) -> list[str]:
    lines = ["| who | on | |", "|---|---|---|"]
    table = plain(next(one["permissions"] for one in blocks if "permissions" in one))
    for who, title in WHO.items():
        for on, what in table.get(who, {}).items():
            listed = what if isinstance(what, list) else [what]
            lines.append(f"| {title} | {on.replace('_', ' ')} | {', '.join(map(_code, listed))} |")
    return lines


def plain(value: Any) -> Any:
    """Return what the parser found without its quotes and marks."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value[1:-1] if isinstance(value, str) and value.startswith('"') else value


def _code(text: str) -> str:
    return f"`{text}`"


def page(module: Path) -> str:
    """Return a README with its generated part made anew; what people wrote around it stays."""
    text = (module / "README.md").read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + tables(module) + rest.partition(f"{END}\n")[2]


def main() -> int:
    """Write the READMEs, or check them."""
    stale = []
    for module in sorted(path for path in MODULES.iterdir() if path.is_dir()):
        made = page(module)
        if made == (module / "README.md").read_text("utf-8"):
            continue
        if "--check" in sys.argv[1:]:
            stale.append(module.name)
        else:
            (module / "README.md").write_text(made, "utf-8")
    if stale:
        print(f"not current: {', '.join(stale)}; run python scripts/gen_terraform_docs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
