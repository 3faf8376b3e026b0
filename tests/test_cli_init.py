"""`crossbus init`: the project works as it is, and nothing is overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_cli import LIMIT, crossbus, environment, refused, started

from crossbus.cli.init import FILES


def test_it_passes_its_own_test_and_every_check(tmp_path: Path) -> None:
    done = crossbus("init", "shop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cd shop" in done.stdout
    folder = tmp_path / "shop"
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(FILES)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    for tool in (("ruff", "check"), ("ruff", "format", "--check"), ("mypy", "--strict", "shop.py")):
        checked = subprocess.run(
            [sys.executable, "-m", *tool], cwd=folder, capture_output=True, text=True, timeout=LIMIT
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_program_runs(tmp_path: Path) -> None:
    assert crossbus("init", cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "shop.py"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("billed o-1: 12.50")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.communicate()
    with started("run", "shop:bus", cwd=tmp_path) as run:
        assert run.stderr is not None
        assert any("consuming orders/billing" in line for line in iter(run.stderr.readline, ""))
        run.send_signal(signal.SIGTERM)
        assert run.wait(LIMIT) == 0
    words = ("publish", "orders", "--template", "com.acme.order.placed", "--set", "total=99")
    assert crossbus(*words, cwd=tmp_path).stdout.startswith("published ")
    shown = crossbus("config", "show", "shop:bus", cwd=tmp_path)
    assert 'subscriptions."orders/billing".retry.attempts\t5\tcrossbus.toml' in shown.stdout


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten_and_nothing_is_half_made(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    refused(crossbus("init", cwd=tmp_path), f"{name} is in . already", "crossbus init DIR")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "shop.py").symlink_to(tmp_path / "elsewhere")
    refused(crossbus("init", cwd=tmp_path), "shop.py is in . already")
    assert not (tmp_path / "elsewhere").exists()


def test_what_it_cannot_finish_it_takes_back(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("no folder")
    refused(crossbus("init", cwd=tmp_path), "events")
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(crossbus("init", os.path.join("file", "shop"), cwd=tmp_path), "file", "directory")
