"""The command line in this process: what takes a second as a process of its own takes a few hundredths here."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.test_cli import environment

from crossbus.cli import exits
from crossbus.cli.app import app

__all__ = ["here"]


def here(*words: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Do what `crossbus` does with these words, in a folder whose modules are read anew, with nobody to ask."""
    out, err = io.StringIO(), io.StringIO()
    with _in_folder(cwd, changes), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        stdin, sys.stdin = sys.stdin, io.StringIO()
        try:
            code = exits.guarded(app, words)
        finally:
            sys.stdin = stdin
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _in_folder(folder: Path, changes: dict[str, str]) -> Iterator[None]:
    before, path, modules = dict(os.environ), list(sys.path), set(sys.modules)
    cwd, wrote = Path.cwd(), sys.dont_write_bytecode
    os.environ.clear()
    os.environ.update(environment(**changes))
    os.chdir(folder)
    sys.dont_write_bytecode = True  # a file that is rewritten within a second would be taken for what it was
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).parent == folder:
                del sys.modules[name]
        os.chdir(cwd)
        sys.path[:], sys.dont_write_bytecode = path, wrote
        os.environ.clear()
        os.environ.update(before)
