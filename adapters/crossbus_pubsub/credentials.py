"""`Token`: the bearer token of every call, from Google's own chain, renewed while running.

The token is put on each call here, rather than by gRPC's plugin: that one turns every failure into "unavailable, try
again", so that a program without credentials would try for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from crossbus.errors import Unauthenticated

__all__ = ["SCOPES", "Token", "from_chain"]

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
REMEDY: Final = (
    "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS to a file, or give the workload a "
    "service account"
)


def from_chain(impersonate: str | None) -> tuple[Any, str | None]:
    """Return the application default credentials, and the project that comes with them. Blocks: it may ask the network.

    Raises `Unauthenticated` if there are none.
    """
    import google.auth
    from google.auth import impersonated_credentials
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, project = google.auth.default(scopes=SCOPES)
    except (GoogleAuthError, OSError, ValueError) as error:
        raise Unauthenticated(f"pubsub: no usable Google credentials ({_line(error)}): {REMEDY}") from error
    if impersonate is not None:
        credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=credentials, target_principal=impersonate, target_scopes=list(SCOPES)
        )
    return credentials, project


class Token:
    """The headers that authorize a call.

    Args:
        credentials: Of google-auth.
        reload: Returns new ones; called at each renewal, so that a key file that was exchanged is read again. None for
            credentials that the program gave, which renew themselves.
    """

    def __init__(self, credentials: Any, reload: Callable[[], Any] | None = None) -> None:
        self._credentials = credentials
        self._reload = reload
        self._lock = asyncio.Lock()

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return what a call must carry. Renews the token if it ends soon.

        Raises `Unauthenticated` if there is no valid one.
        """
        if not self._credentials.valid and not _is_anonymous(self._credentials):
            async with self._lock:
                if not self._credentials.valid:
                    await self._renew()
        return self._now()

    async def after_refusal(self, refused: tuple[tuple[str, str], ...]) -> bool:
        """Renew a token that the service refused; True if there is another one now."""
        async with self._lock:
            if self._now() == refused and not _is_anonymous(self._credentials):
                await self._renew(refused=True)
        return self._now() != refused

    def _now(self) -> tuple[tuple[str, str], ...]:
        headers: dict[str, str] = {}
        if self._credentials.token:
            self._credentials.apply(headers)
        quota = getattr(self._credentials, "quota_project_id", None)
        if quota:
            headers.setdefault("x-goog-user-project", quota)
        return tuple(headers.items())

    async def _renew(self, refused: bool = False) -> None:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        def renew() -> Any:
            credentials = self._credentials if self._reload is None else self._reload()
            credentials.refresh(Request())
            return credentials

        try:
            self._credentials = await asyncio.to_thread(renew)
        except GoogleAuthError as error:
            # It is renewed some minutes early: until it ends, the old one is as good.
            if refused or _has_ended(self._credentials):
                raise Unauthenticated(
                    f"pubsub: the credentials gave no token ({_line(error)}): {REMEDY}"
                ) from error


def _is_anonymous(credentials: Any) -> bool:
    from google.auth.credentials import AnonymousCredentials

    return isinstance(credentials, AnonymousCredentials)


def _has_ended(credentials: Any) -> bool:
    """True if there is no token that is valid at this moment. google-auth itself calls it expired minutes earlier."""
    if not credentials.token:
        return True
    expiry: datetime | None = credentials.expiry  # naive, and UTC
    return expiry is not None and datetime.now(UTC).replace(tzinfo=None) >= expiry


def _line(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split())[:300]
