"""`crossbus init`: a small project to start from, that passes its own test."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Final

from crossbus.cli.exits import ExitCode
from crossbus.errors import ConfigurationError

__all__ = ["FILES", "init"]

FILES: Final = ("shop.py", "crossbus.toml", "test_shop.py", "pytest.ini", "events/com.acme.order.placed.json")


def init(folder: Path) -> ExitCode:
    """Write the project into a folder, which is made if it is not there.

    Raises:
        ConfigurationError: one of its files is there; then nothing was written.
    """
    there = [name for name in FILES if os.path.lexists(folder / name)]
    if there:
        raise ConfigurationError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} in {folder} already, and nothing is overwritten; "
            "name another folder: crossbus init DIR"
        )
    folder.mkdir(parents=True, exist_ok=True)
    source = resources.files("crossbus.cli").joinpath("project")
    written: list[Path] = []
    made: list[Path] = []
    try:
        for name in FILES:
            text = source.joinpath(f"{name}.txt").read_text(encoding="utf-8")
            within = (folder / name).parent
            if not within.exists():
                within.mkdir()
                made.append(within)
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(text)
    except OSError:
        for path in written:  # half a project is none
            path.unlink()
        for within in made:
            within.rmdir()
        raise
    print(f"made {', '.join(FILES)} in {folder}")
    if folder.resolve() != Path.cwd():
        print(f"  cd {folder}")
    print("  pytest                   runs its test")
    print("  python shop.py           publishes an order and handles it, until Ctrl-C")
    print("  crossbus run shop:bus    handles what others publish; crossbus.toml says where")
    print("  crossbus publish orders --template com.acme.order.placed --set total=99")
    print("                           publishes an order made of a file in events")
    return ExitCode.OK
