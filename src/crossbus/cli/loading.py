"""Finding the Bus that ``module:name`` means, and saying well why it cannot be found."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from crossbus import running
from crossbus.bus import Bus
from crossbus.cli.exits import UserCodeError
from crossbus.errors import ConfigurationError, CrossbusError, nearest
from crossbus.sync import SyncBus

__all__ = ["load_bus", "raised_by_hook"]


def load_bus(program: str) -> Bus | SyncBus:
    """Import a module and return the Bus in it, or the one that the function named makes.

    Raises:
        ConfigurationError: there is no such module or name, or it is no Bus.
        UserCodeError: the module's own code failed.
    """
    module_name, _, attribute = program.partition(":")
    _check_spelling(program, module_name)
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name)
    found = _attribute(module, attribute) if attribute else _only_bus(module)
    if not isinstance(found, (Bus, SyncBus)) and _can_be_called(found):
        found = _made(found, program)
    if isinstance(found, (Bus, SyncBus)):
        return found
    raise ConfigurationError(
        f"{program!r} is of type {type(found).__name__}, no Bus; name a Bus, or a function without parameters that "
        f"returns one{_buses_hint(module)}"
    )


def raised_by_hook(error: BaseException) -> UserCodeError | None:
    """Return what is said of an error that a start or stop hook of the program raised; None if another did."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not running.call_hook.__code__:
        trace = trace.tb_next
    if trace is None or trace.tb_next is None:
        return None
    frames = _from_user_code(trace.tb_next)
    hook = f" {frames[0].name}()" if frames else ""
    return _with_report(error, frames, f"the program's hook{hook} failed: {_shortly(error)}")


def _check_spelling(program: str, module: str) -> None:
    if module.endswith(".py") or "/" in module or os.sep in module:
        dotted = ".".join(Path(module.removesuffix(".py")).parts)
        raise ConfigurationError(f"{program!r} is a file; name the module: {program.replace(module, dotted)}")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(f"{program!r} names no module; write MODULE:BUS, such as shop:bus")


def _imported(name: str) -> ModuleType:
    running.being_imported = name
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _users(error, f"{name} cannot be imported: {error}") from error
        raise ConfigurationError(
            f"there is no module {name!r} in {os.getcwd()} or installed; {nearest(name, _modules_here())}"
        ) from None
    except (Exception, SystemExit) as error:
        raise _users(error, f"{name} cannot be imported: {_shortly(error)}") from error
    finally:
        running.being_imported = None


def _can_be_called(found: object) -> bool:
    """True for a function without parameters that must be given."""
    if not callable(found) or isinstance(found, type):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _made(factory: Any, what: str) -> object:
    try:
        return factory()
    except Exception as error:
        raise _users(error, f"{what} made no Bus: {_shortly(error)}") from error


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            public = (
                [each for each in vars(found) if not each.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            raise ConfigurationError(
                f"{module.__name__!r} has no {path!r}; {nearest(name, public)}{_buses_hint(module)}"
            )
        found = getattr(found, name)
    return found


def _only_bus(module: ModuleType) -> object:
    names = _buses(module)
    if len(names) == 1:
        return getattr(module, names[0])
    if names:
        raise ConfigurationError(
            f"{module.__name__!r} has several buses; name one: "
            + ", ".join(f"{module.__name__}:{name}" for name in names)
        )
    raise ConfigurationError(f"{module.__name__!r} has no Bus; write MODULE:FUNCTION if a function makes it")


def _buses(module: ModuleType) -> list[str]:
    return sorted(name for name, value in vars(module).items() if isinstance(value, (Bus, SyncBus)))


def _buses_hint(module: ModuleType) -> str:
    names = _buses(module)
    return f" (it has the Bus {module.__name__}:{names[0]})" if len(names) == 1 else ""


def _modules_here() -> list[str]:
    here = Path.cwd()
    return [path.stem for path in here.glob("*.py") if path.stem.isidentifier()] + [
        path.parent.name for path in here.glob("*/__init__.py")
    ]


def _shortly(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _users(error: BaseException, message: str) -> Exception:
    """Make the error of the user's code: with a traceback that begins in it."""
    frames = _from_user_code(error.__traceback__)
    if isinstance(error, CrossbusError):  # crossbus refused it: where it was called says all
        where = next((frame for frame in reversed(frames) if not _ours(frame.filename)), None)
        at = f" ({where.filename}, line {where.lineno})" if where is not None else ""
        return type(error)(f"{error}{at}") if type(error).__init__ is Exception.__init__ else error
    return _with_report(error, frames, message)


def _with_report(error: BaseException, frames: list[traceback.FrameSummary], message: str) -> UserCodeError:
    report = traceback.TracebackException.from_exception(error)
    report.stack = traceback.StackSummary.from_list(frames)
    return UserCodeError(message, "".join(report.format()))


def _from_user_code(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    frames = list(traceback.extract_tb(trace))
    while frames and (_ours(frames[0].filename) or _importing(frames[0].filename)):
        del frames[0]
    return [frame for frame in frames if not _importing(frame.filename)]


def _ours(filename: str) -> bool:
    return filename.startswith(str(Path(__file__).parent.parent))


def _importing(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename == importlib.__file__
