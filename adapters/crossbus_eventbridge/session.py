"""Sessions and clients of boto3: from the default chain, from a profile, in a role, or from a Session of the program's.

Clients may be used from many threads; making one may not be done in two at once. Making one costs milliseconds, for
what botocore knows of the services is read once per process.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final, NamedTuple

from crossbus.errors import ConfigurationError, Unauthenticated
from crossbus_eventbridge.errors import portable
from crossbus_eventbridge.limits import MAX_WAIT
from crossbus_eventbridge.options import Options

__all__ = ["CALLS", "Clients", "Identity"]

CALLS: Final = 32
"""The most calls of one adapter under way at once, long polls apart."""
CONNECT_TIMEOUT: Final = 5
READ_TIMEOUT: Final = 30
"""Seconds that an answer may take, but for a long poll's."""
POLL_MARGIN: Final = 15
"""Seconds that the answer of a long poll may take beyond its wait."""

_lock = threading.Lock()
_loader: Any = None


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


class Identity(NamedTuple):
    """Whose the credentials are."""

    account: str
    arn: str
    date: str | None
    """AWS's clock at that, as HTTP writes it."""


class Clients:
    """The clients of one session. Making it reads files and may ask the instance's metadata, so it blocks.

    Raises:
        ConfigurationError: No region, or a profile that is not there.
        Unauthenticated: No credentials.
    """

    def __init__(self, options: Options, given: Any | None = None) -> None:
        self._options = options
        with _lock:
            self.session = given or _session(options)
            self._check()
            if options.role_arn is not None:
                self.session = _in_role(self.session, options)
            self.events = self._client("events", CALLS, 1)
            self.sqs = self._client("sqs", CALLS, 1)
            self.polls = self._client("sqs", 64, 1, MAX_WAIT + POLL_MARGIN)
            # Nobody tries these again for them: botocore does, in the user's way (AWS_RETRY_MODE, AWS_MAX_ATTEMPTS).
            self.events_control = self._client("events", CALLS, None)
            self.sqs_control = self._client("sqs", CALLS, None)
            if options.api == "v2":
                self._check_v2()
                self.events_v2 = self._client("eventbridgev2", CALLS, 1)
                self.events_v2_control = self._client("eventbridgev2", CALLS, None)

    def _check(self) -> None:
        options = self._options
        if not (options.region or self.session.region_name):
            raise ConfigurationError(
                f"{options.origin}: no AWS region: write it in the URL, eventbridge:?region=eu-west-1, or set "
                "AWS_REGION"
            )
        try:
            found = self.session.get_credentials()
        except Exception as error:
            raise portable(error, "loading credentials") or error from error
        if found is None:
            raise Unauthenticated(
                "eventbridge: no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run "
                "`aws sso login`, or give the workload a role"
            )

    def _check_v2(self) -> None:
        if "eventbridgev2" not in self.session.get_available_services():
            import botocore

            raise ConfigurationError(
                f"{self._options.origin}: api=v2 needs a boto3 that knows eventbridgev2; the one that is installed, "
                f"with botocore {botocore.__version__}, does not: update boto3, or leave api=v2 out"
            )

    def _client(self, service: str, connections: int, attempts: int | None, read: int = READ_TIMEOUT) -> Any:
        from botocore.config import Config

        retries = (
            {} if attempts is None else {"retries": {"total_max_attempts": attempts, "mode": "standard"}}
        )
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read,
            max_pool_connections=connections,
            tcp_keepalive=True,
            user_agent_extra="crossbus",
            **retries,
        )
        return self.session.client(
            service,
            region_name=self._options.region or self.session.region_name,
            endpoint_url=self._options.endpoint,
            config=config,
        )

    def endpoints(self) -> tuple[str, str]:
        """Return the URLs of EventBridge and SQS."""
        events = self.events_v2 if self._options.api == "v2" else self.events
        return events.meta.endpoint_url, self.sqs.meta.endpoint_url

    @property
    def region(self) -> str:
        """The region in use."""
        return str(self.events.meta.region_name)

    def identity(self) -> Identity:
        """Ask AWS whose the credentials are. Needs no permission."""
        client = self.other("sts")
        try:
            found = client.get_caller_identity()
        finally:
            client.close()
        headers = found.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return Identity(str(found["Account"]), str(found["Arn"]), headers.get("date"))

    def other(self, service: str) -> Any:
        """Make a client of another service, for who closes it."""
        options = self._options
        region = options.region or self.session.region_name
        return self.session.client(service, region_name=region, endpoint_url=options.endpoint)

    def credentials_key(self) -> str:
        """Return the id of the access key in use: not a secret, and another one after a rotation."""
        found = self.session.get_credentials()
        return "" if found is None else str(found.get_frozen_credentials().access_key)

    def close(self, *, polls: bool = True) -> None:
        """Close the connections; those of the polls only if none is under way."""
        clients = [self.events, self.sqs, self.events_control, self.sqs_control]
        if self._options.api == "v2":
            clients += [self.events_v2, self.events_v2_control]
        for client in clients:
            client.close()
        if polls:
            self.polls.close()


def _session(options: Options) -> Any:
    global _loader
    import boto3
    import botocore.loaders
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    core = botocore.session.Session()
    if _loader is None:
        _loader = core.get_component("data_loader")
    else:
        core.register_component("data_loader", _loader)
    try:
        if options.profile is not None:
            core.set_config_variable("profile", options.profile)
        core.get_scoped_config()
        return boto3.Session(botocore_session=core, region_name=options.region)
    except ProfileNotFound as error:
        raise ConfigurationError(
            f"{options.origin}: {error}; the profiles are those of ~/.aws/config and ~/.aws/credentials"
        ) from error


def _in_role(session: Any, options: Options) -> Any:
    """Return a session whose credentials are those of a role, renewed as they end."""
    import boto3
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    def client(service: str, **more: Any) -> Any:
        return session.client(
            service, **{"region_name": options.region, "endpoint_url": options.endpoint, **more}
        )

    extra = {"RoleSessionName": "crossbus"}
    if options.external_id is not None:
        extra["ExternalId"] = options.external_id
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=client,
        source_credentials=session.get_credentials(),
        role_arn=options.role_arn,
        extra_args=extra,
    )
    core = botocore.session.Session()
    core.register_component("data_loader", _loader or session._session.get_component("data_loader"))
    core._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    return boto3.Session(botocore_session=core, region_name=options.region or session.region_name)
