"""`make_app`: the ASGI application, put together."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware

from crossbus_local.engine import Engine
from crossbus_local.http import eventgrid
from crossbus_local.http.errors import HANDLERS
from crossbus_local.http.guard import Guard
from crossbus_local.http.native import Native
from crossbus_local.http.options import ServerOptions
from crossbus_local.http.polls import Polls

__all__ = ["end_waiting", "make_app"]


def make_app(engine: Engine, options: ServerOptions) -> Starlette:
    """Return the server of an engine, as an ASGI application.

    Whoever runs it awaits `end_waiting` before it stops, so that nobody waits for its end.
    """
    polls, native = Polls(engine), Native(engine, options)
    app = Starlette(
        routes=[*eventgrid.routes(engine, options, polls), *native.routes],
        middleware=[Middleware(Guard, options=options)],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.waiting = [polls, native]
    return app


async def end_waiting(app: Starlette) -> None:
    """Have all receives that wait return with nothing, and let none wait any more."""
    for each in app.state.waiting:
        await each.end()
