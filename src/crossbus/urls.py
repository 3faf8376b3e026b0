"""The URL of a connection: ``SCHEME:TARGET?NAME=VALUE&...`` into a `Profile`, and the refusal of credentials
in it.

A message shows of a URL only what cannot be a secret: its scheme, and names. Never a target or a value.
"""

from __future__ import annotations

import re
from typing import Final

from crossbus.errors import ConfigurationError
from crossbus.profiles import Profile
from crossbus.registry import FIRST_PARTY

__all__ = ["URL_PROFILE", "is_secret", "is_this_machine", "parse_url", "refuse_secret"]

URL_PROFILE: Final = "<url>"
"""The name of the profile that a URL alone describes. No profile of a file can be called so."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,30}\Z")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_SECRET_PART = re.compile(
    r"secret|passw|token|credential|connectionstring|signature|(access|account|api|auth|private|sas|shared)key"
)
_SECRET_WORDS: Final = frozenset({"key", "keys", "sas", "sig", "pwd", "pw", "auth", "authorization"})
_INNER_NAME = re.compile(r"(?:^|[?&;])([^=?&;]+)=")
_INNER_USER = re.compile(r"//[^/?#]*@")
_CHAIN: Final = (
    "credentials come from the provider's own chain (environment, profile, workload identity; CROSSBUS_KEY for a "
    "server of crossbus), never from crossbus's configuration"
)


def parse_url(url: object, origin: str) -> Profile:
    """Read a URL into a profile called `URL_PROFILE`.

    Target and values are percent-decoded; ``+`` stands for itself. ``SCHEME://TARGET`` and ``SCHEME:TARGET``
    are the same. Whether the adapter knows the parameters is checked by `crossbus.config`.

    Args:
        url: What was configured.
        origin: Where, for messages.

    Raises:
        ConfigurationError: It is no URL, has a fragment, a credential, or a parameter without a value or
        given twice.
    """
    scheme, rest = _split(url, origin)
    if "#" in rest:
        raise ConfigurationError(f"{origin}: the URL has a fragment; write %23 for a # that is meant")
    target, _, query = rest.partition("?")
    target = target[2:].rstrip("/") if target.startswith("//") else target
    target = _decode(target, "target", origin)
    if "@" in target:
        raise ConfigurationError(f"{origin}: the URL holds a user name or a password; {_CHAIN}")
    return Profile(
        name=URL_PROFILE,
        adapter=scheme.partition("+")[0],
        scheme=scheme,
        target=target,
        parameters=_parameters(query, origin),
        origin=origin,
    )


def is_this_machine(host: str) -> bool:
    """True if a host is a loopback address or `localhost`: by what is written alone, no name is looked up."""
    from ipaddress import ip_address  # here: a URL of a cloud needs none

    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_secret(name: str) -> bool:
    """True if a parameter's name says that its value is a credential: `key`, `accessKey`, `sas_token`,
    `password`."""
    lower = name.lower()
    joined = re.sub(r"[^a-z0-9]", "", lower)
    return bool(_SECRET_PART.search(joined)) or lower in _SECRET_WORDS


def refuse_secret(name: str, value: str, origin: str) -> None:
    """Raise `ConfigurationError` if a parameter is a credential, or its value holds one. Prints no value."""
    if is_secret(name):
        raise ConfigurationError(f"{origin}: the parameter {name!r} is refused: {_CHAIN}")
    if _INNER_USER.search(value) or any(is_secret(inner) for inner in _INNER_NAME.findall(value)):
        raise ConfigurationError(f"{origin}: the value of {name!r} holds a credential: {_CHAIN}")


def _split(url: object, origin: str) -> tuple[str, str]:
    if not isinstance(url, str):
        raise ConfigurationError(f"{origin}: a URL is a string such as 'local:', not {type(url).__name__}")
    if not url:
        raise ConfigurationError(f"{origin}: the URL is empty; write local: to try crossbus in memory")
    if _CONTROL.search(url):
        raise ConfigurationError(
            f"{origin}: the URL holds a space or a control character; write %20 for a space"
        )
    match = _SCHEME.match(url)
    if not match:
        shown = f"{url!r} is no URL" if _PLAIN.match(url) and not is_secret(url) else "this is no URL"
        hint = f"; write {url}:" if url in FIRST_PARTY else ""
        raise ConfigurationError(
            f"{origin}: {shown}: it begins with an adapter and a colon, such as local:{hint}"
        )
    return match[1].lower(), match[2]


def _parameters(query: str, origin: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in query.split("&") if query else ():
        raw, _, value = part.partition("=")
        name = _decode(raw, "name of a parameter", origin)
        if not _PLAIN.match(name):
            raise ConfigurationError(
                f"{origin}: a parameter of the URL has no proper name: write ?NAME=VALUE&NAME=VALUE"
            )
        value = _decode(value, f"value of {name!r}", origin)
        refuse_secret(name, value, origin)
        if not value:
            raise ConfigurationError(f"{origin}: the parameter {name!r} has no value: write {name}=VALUE")
        if name in parameters:
            raise ConfigurationError(
                f"{origin}: the parameter {name!r} stands twice in the URL; give it once"
            )
        parameters[name] = value
    return parameters


def _decode(text: str, what: str, origin: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{origin}: the {what} is not UTF-8 when percent-decoded") from None
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in decoded):
        raise ConfigurationError(f"{origin}: the {what} holds a control character")
    return decoded
