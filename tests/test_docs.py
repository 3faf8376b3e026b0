"""Everything that the documentation shows works: snippets run, commands print what stands there, links resolve."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest
from tests.docs_blocks import Block, Reader, blocks, transcript

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHOWING = [page for page in PAGES if any(block.language in {"python", "console"} for block in blocks(page))]
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", SHOWING, ids=name)
def test_page_does_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CROSSBUS_URL", "CROSSBUS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    Reader(page, tmp_path).follow()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_files_resolve(page: Path) -> None:
    missing = [
        link
        for link, _ in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert not missing


def test_readme_has_exactly_two_set_up_commands() -> None:
    """`.ci/run` takes these two lines from the README and runs them as they stand."""
    lines = [
        line
        for block in blocks(ROOT / "README.md")
        if block.language == "shell"
        for line in block.text.splitlines()
    ]
    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv ") for line in lines)
    assert lines[0].endswith("crossbus demo")
    assert lines[1].endswith("pytest")


def test_the_matrix_lists_every_case_of_the_kit() -> None:
    """The cases of the versioned list, with their titles; each passed, or was skipped for a reason given below."""
    page = (ROOT / "docs" / "reference" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+/[a-z0-9-]+)`\S* \| (.+?) \| (.+) \|$", page, re.M)
    text = resources.files("crossbus.conformance").joinpath("cases.json").read_text("utf-8")
    cases = json.loads(text)["cases"]
    assert [row[:2] for row in rows] == [(case["name"], case["title"]) for case in cases], (
        "run python scripts/gen_conformance.py"
    )
    for row in rows:
        for cell in row[2].split(" | "):
            skipped = re.fullmatch(r"skipped \((\d+)\)", cell)
            assert cell == "yes" or (skipped and f"\n{skipped[1]}. " in page), row


# --- the reader itself: it must notice what is wrong --------------------------------------------------------------


def page_with(folder: Path, text: str) -> Reader:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return Reader(page, folder)


def test_blocks_are_found_with_their_titles_and_lines(tmp_path: Path) -> None:
    reader = page_with(
        tmp_path,
        'x\n\n```python title="a.py"\n1\n```\n\n- in a list:\n\n    ```console\n    $ true\n    ```\n',
    )
    assert blocks(reader.page) == [Block("python", "a.py", "1\n", 3), Block("console", "", "$ true\n", 9)]


def test_commands_are_told_from_output() -> None:
    assert transcript("$ one \\\n> two\nout\n$ three\n") == [("one \\\ntwo", "out\n"), ("three", "")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("```python\nassert 1 > 2, 'no'\n```\n", "no"),
        ("```console\n$ echo a\nb\n```\n", "--- wanted\nb"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```console\n$ trap '' INT; echo a; exit 3\na\n^C\n```\n", "ended with 3"),
    ],
)
def test_a_wrong_page_is_noticed(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(what)):
        page_with(tmp_path, text).follow()


def test_a_command_is_interrupted_where_the_page_says(tmp_path: Path) -> None:
    program = "import time\ntry:\n    print('on')\n    time.sleep(50)\nexcept KeyboardInterrupt:\n    print('off')\n"
    text = f'```python title="on.py"\n{program}```\n```console\n$ python on.py\non\n^C\n```\n'
    with pytest.raises(AssertionError, match="off"):
        page_with(tmp_path, text).follow()
    page_with(tmp_path, text.replace("\n    print('off')", "\n    pass")).follow()
