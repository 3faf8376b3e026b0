"""Who we are: a key of the namespace, or what azure-identity's default chain finds. Never from a URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from crossbus.errors import ConfigurationError, Unauthenticated
from crossbus_eventgrid.endpoint import Endpoint

__all__ = ["KEY_VARIABLE", "Credentials"]

KEY_VARIABLE: Final = "AZURE_EVENTGRID_KEY"
"""The environment variable that holds a key of the namespace."""
_ANY_KEY: Final = "local"
"""What a server on loopback is given that asks for no key of its own."""


class Credentials:
    """The credential of one adapter, and how it is renewed.

    A key wins over the default chain. On loopback any key will do if the server wants none, and a token is
    never sent without TLS. Tokens are renewed by the SDK; a key is read again when the namespace refuses it.
    """

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str] = os.environ) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._key: Any = None
        self._token: Any = None

    @property
    def has_key(self) -> bool:
        """True if a key is used, and no token."""
        return self._key is not None

    def open(self) -> Any:
        """Return the credential for the SDK's clients. Asks nobody for a token yet.

        Raises `ConfigurationError` for a key that no header can carry.
        """
        from azure.core.credentials import AzureKeyCredential

        key = _read_key(self._environ)
        if key is None and self._endpoint.is_loopback:
            key = _ANY_KEY
        if key is not None:
            self._key = AzureKeyCredential(key)
            return self._key
        self._token = default_credential()
        return self._token

    @property
    def key(self) -> str | None:
        """The key in use; None for a token."""
        return None if self._key is None else str(self._key.key)

    def reread(self, refused: str | None) -> bool:
        """Read the key again, after one was refused. True if it is another one now, or was renewed meanwhile."""
        if self._key is None or refused is None:
            return False
        key = _read_key(self._environ)
        if key is not None:
            self._key.update(key)
        return self.key != refused

    async def close(self) -> None:
        """Let go of the chain's own connections."""
        token, self._token, self._key = self._token, None, None
        if token is not None:
            await token.close()

    def refused(self, about: str) -> Unauthenticated:
        """Make the error of a credential that the namespace does not accept: one line that says what to do."""
        host = self._endpoint.host
        if self._endpoint.is_loopback:
            given = "refused the key" if KEY_VARIABLE in self._environ else "wants a key"
            return Unauthenticated(
                f"{self._endpoint.url} {given} {about}: set {KEY_VARIABLE} to the key that the server was started with"
            )
        if self.has_key:
            remedy = (
                f"set {KEY_VARIABLE} to one of its access keys; or unset it to sign in with Microsoft Entra, "
                "where keys are disabled"
            )
            return Unauthenticated(f"{host} refused the key of {KEY_VARIABLE} {about}: {remedy}")
        return Unauthenticated(
            f"{host} refused the token {about}: sign in to the tenant of the namespace (az login, a managed "
            f"identity, AZURE_CLIENT_ID with AZURE_TENANT_ID), or set {KEY_VARIABLE}"
        )

    def unavailable(self, error: BaseException) -> Unauthenticated:
        """Make the error of a chain that finds nothing."""
        first = str(error).partition("\n")[0].strip().rstrip(".")
        return Unauthenticated(
            f"there are no credentials for {self._endpoint.host}: set {KEY_VARIABLE} to an access key of the "
            "namespace, or sign in so that azure-identity's default chain finds you (az login, a managed identity, "
            f"AZURE_CLIENT_ID with AZURE_TENANT_ID): {first}"
        )


def default_credential() -> Any:
    """Return azure-identity's default chain, for asyncio."""
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential()


def _read_key(environ: Mapping[str, str]) -> str | None:
    key = environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            f"{KEY_VARIABLE} holds characters that no key has: copy it again from the portal"
        )
    return key
