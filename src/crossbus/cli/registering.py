"""How a function becomes a command: its docstring is the help, and examples stand below; and how they are listed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

__all__ = ["QuickGroup", "examples", "registers"]

_Function = TypeVar("_Function", bound=Callable[..., object])


class QuickGroup(TyperGroup):
    """The list of commands, printed plainly: what draws frames takes as long to import as everything else together."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rich_markup_mode = None
        text = (self.epilog or "").replace("[bold]", "").replace("[/bold]", "")
        self.epilog = "\n\n".join(f"\b\n{paragraph}" for paragraph in text.split("\n\n"))

    def get_help(self, ctx: Any) -> str:
        """Return the text, with the end of its last line, as that with frames has it."""
        return super().get_help(ctx) + "\n"

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with the whole first sentence of its help."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=300))
                    for name, command in named
                    if command is not None
                ]
            )


def examples(*lines: str) -> str:
    """Write examples for the end of a help."""
    return "\n".join(("[bold]Examples[/bold]", *(f"  {line}" for line in lines)))


def registers(app: typer.Typer) -> Callable[..., Callable[[_Function], _Function]]:
    """Return a decorator that makes a function a command of an application.

    Its docstring is the help, each paragraph filled to the width of the terminal. The decorator takes the examples,
    and the command's name if it is not the function's.
    """

    def command(epilog: str, name: str | None = None) -> Callable[[_Function], _Function]:
        def register(function: _Function) -> _Function:
            paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
            text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
            return app.command(name, help=text, epilog=epilog)(function)

        return register

    return command
