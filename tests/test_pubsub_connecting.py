"""Where the adapter connects to, as which project, with what credentials; and what is said where that is wrong."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError

import crossbus_pubsub.connecting
from crossbus import Bus
from crossbus.clock import SystemClock
from crossbus.errors import ConfigurationError, ErrorCode, Unauthenticated
from crossbus.profiles import Profile
from crossbus.topology import Topic
from crossbus_pubsub import PubSubAdapter
from crossbus_pubsub.connecting import endpoint_of
from crossbus_pubsub.credentials import Token, from_chain
from crossbus_pubsub.emulator import Emulator
from crossbus_pubsub.naming import Names
from pubsub_emulator import adapter
from pubsub_guard import IssuedCredentials, Issuer
from support import run


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PUBSUB_EMULATOR_HOST",
        "GOOGLE_CLOUD_PROJECT",
        "PUBSUB_PROJECT_ID",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ):
        monkeypatch.delenv(name, raising=False)


def where(environ: dict[str, str] | None = None, **parameters: str) -> tuple[str, bool]:
    found = endpoint_of(Profile(parameters=parameters, origin="the test"), environ or {})
    return found.target, found.is_emulator


# --- the endpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "parameters", "expected"),
    [
        ({}, {}, ("pubsub.googleapis.com:443", False)),
        (
            {},
            {"endpoint": "us-central1-pubsub.googleapis.com"},
            ("us-central1-pubsub.googleapis.com:443", False),
        ),
        ({}, {"endpoint": "https://eu-pubsub.example:8443/"}, ("eu-pubsub.example:8443", False)),
        ({}, {"endpoint": "127.0.0.1:8085"}, ("127.0.0.1:8085", True)),
        ({}, {"endpoint": "localhost:8085"}, ("localhost:8085", True)),
        ({}, {"endpoint": "[::1]:8085"}, ("[::1]:8085", True)),
        ({"PUBSUB_EMULATOR_HOST": "emulator:8085"}, {}, ("emulator:8085", True)),
        ({"PUBSUB_EMULATOR_HOST": "emulator"}, {"endpoint": "us.example"}, ("emulator:8085", True)),
        ({"PUBSUB_EMULATOR_HOST": ""}, {}, ("pubsub.googleapis.com:443", False)),
    ],
)
def test_endpoint(environ: dict[str, str], parameters: dict[str, str], expected: tuple[str, bool]) -> None:
    assert where(environ, **parameters) == expected


@pytest.mark.parametrize(
    ("environ", "parameters", "said"),
    [
        ({"PUBSUB_EMULATOR_HOST": "http://localhost:8085"}, {}, "PUBSUB_EMULATOR_HOST .*without http://"),
        ({}, {"endpoint": "http://pubsub.example"}, "endpoint .*without http://"),
        ({}, {"endpoint": "pubsub.example:99999"}, "HOST:PORT"),
        ({}, {"endpoint": "https://localhost:8085"}, "without TLS"),
    ],
)
def test_wrong_endpoint(environ: dict[str, str], parameters: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        where(environ, **parameters)


def test_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'endpoint'"):
        Bus("pubsub:my-project?endpont=x")


# --- the project --------------------------------------------------------------------------------------------------


async def project_of(made: PubSubAdapter) -> str:
    await made.open()
    try:
        return made.names.project
    finally:
        await made.close()


def test_project_of_url_environment_and_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"endpoint": "127.0.0.1:1"}

    def found(target: str = "", **more: str) -> str:
        made = PubSubAdapter(Profile(target=target, parameters={**place, **more}), clock=SystemClock())
        return run(project_of(made))

    monkeypatch.setenv("PUBSUB_PROJECT_ID", "emulators")
    assert found() == "emulators"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "environments")
    assert found() == "environments"
    assert found(project="parameters") == "parameters"
    assert found("urls", project="parameters") == "urls"


def test_no_project_says_what_to_set() -> None:
    made = PubSubAdapter(
        Profile(parameters={"endpoint": "127.0.0.1:1"}, origin="CROSSBUS_URL"), clock=SystemClock()
    )
    with pytest.raises(
        ConfigurationError, match=r"^CROSSBUS_URL: no Google Cloud project: .*GOOGLE_CLOUD_PROJECT$"
    ):
        run(made.open())


@pytest.mark.parametrize("project", ["My Project", "a/b", "x"])
def test_no_project_at_all(project: str) -> None:
    with pytest.raises(ConfigurationError, match="is no Google Cloud project"):
        Names(Profile(), project)


@pytest.mark.parametrize("project", ["my-project", "123456789", "example.com:my-project"])
def test_projects(project: str) -> None:
    assert Names(Profile(), project).topic(Topic("orders")) == f"projects/{project}/topics/orders"


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ("goog-orders", "not 'goog'"),
        ("1orders", "a letter first"),
        ("my topic", "3 to 255"),
        ("projects/p/subscriptions/orders", "topics"),
        ("projects/my-project/topics/", "topics"),
    ],
)
def test_name_with_illegal_characters(resource: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"topic 'orders'.*{said}"):
        Names(Profile(), "my-project").topic(Topic("orders", resource=resource))


# --- credentials --------------------------------------------------------------------------------------------------


def test_no_credentials_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: Any) -> Any:
        raise DefaultCredentialsError("Your default credentials were\nnot found.")

    monkeypatch.setattr("google.auth.default", none)
    made = PubSubAdapter(Profile(target="my-project"), clock=SystemClock())
    assert not made.is_local
    with pytest.raises(Unauthenticated) as caught:
        run(made.open())
    assert "gcloud auth application-default login" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caught.value.retryable


def test_a_key_file_that_is_none_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    file = tmp_path / "key.json"
    file.write_text("{not json", encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(Unauthenticated, match="not a valid json file"):
        run(PubSubAdapter(Profile(target="my-project"), clock=SystemClock()).open())


def test_impersonation_acts_as_the_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    own = AnonymousCredentials()
    monkeypatch.setattr("google.auth.default", lambda **_: (own, "their-project"))
    credentials, project = from_chain("robot@my-project.iam.gserviceaccount.com")
    assert project == "their-project"
    assert credentials.service_account_email == "robot@my-project.iam.gserviceaccount.com"
    assert from_chain(None)[0] is own


def test_the_chain_gives_project_and_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer()
    loads: list[str | None] = []

    def chain(impersonate: str | None) -> tuple[Any, str]:
        loads.append(impersonate)
        return IssuedCredentials(issuer), "credentials-project"

    monkeypatch.setattr(crossbus_pubsub.connecting, "from_chain", chain)
    made = PubSubAdapter(Profile(parameters={"impersonate": "robot@x"}), clock=SystemClock())
    assert run(project_of(made)) == "credentials-project"
    assert loads == ["robot@x"] * 2, (
        "credentials that rotate in their file are read again when a token is renewed"
    )


def test_token_is_renewed_before_it_ends_and_kept_while_it_lasts() -> None:
    issuer = Issuer()
    credentials = IssuedCredentials(issuer)

    async def main() -> None:
        token = Token(credentials)
        assert await token.headers() == (("authorization", "Bearer token-1"),)
        assert await token.headers() == (("authorization", "Bearer token-1"),)
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        credentials.expiry = now + datetime.timedelta(seconds=60)  # within the minutes before it ends
        issuer.down = True
        assert await token.headers() == (("authorization", "Bearer token-1"),), "it is valid still"
        credentials.expiry = now - datetime.timedelta(hours=1)
        with pytest.raises(Unauthenticated, match="gave no token"):
            await token.headers()
        issuer.down = False
        credentials.expiry = None
        credentials.token = None
        found = await asyncio.gather(*(token.headers() for _ in range(20)))
        assert set(found) == {(("authorization", "Bearer token-2"),)}, "many calls ask for one token"

    run(main())


def test_refused_token_is_renewed_once() -> None:
    async def main() -> None:
        issuer = Issuer()
        token = Token(IssuedCredentials(issuer))
        old = await token.headers()
        assert await token.after_refusal(old)
        assert await token.headers() == (("authorization", "Bearer token-2"),)
        assert await token.after_refusal(old), "another call has renewed it already"
        assert issuer.count == 2
        issuer.down = True
        with pytest.raises(Unauthenticated):
            await token.after_refusal(await token.headers())

    run(main())


def test_anonymous_credentials_and_quota_project() -> None:
    async def main() -> None:
        anonymous = AnonymousCredentials()
        token = Token(anonymous)
        assert await token.headers() == ()
        assert not await token.after_refusal(())
        billed = IssuedCredentials(Issuer())
        billed._quota_project_id = "billed"
        assert dict(await Token(billed).headers())["x-goog-user-project"] == "billed"

    run(main())


# --- unreachable --------------------------------------------------------------------------------------------------


def test_nobody_there_is_unavailable() -> None:
    async def main() -> None:
        made = PubSubAdapter(
            Profile(target="my-project", parameters={"endpoint": "127.0.0.1:1"}), clock=SystemClock()
        )
        await made.open()
        (outcome,) = await made.send(Topic("orders"), [_wire(made)])
        await made.close()
        assert (outcome.code, outcome.retryable) == (ErrorCode.UNAVAILABLE, True)
        assert "\n" not in outcome.message

    run(main())


def _wire(made: PubSubAdapter) -> Any:
    from crossbus.event import Event

    return made.encode(Topic("orders"), Event(type="t", source="/s"))


def test_reopened_in_another_loop(emulator: Emulator) -> None:
    made = adapter(emulator)
    for _ in range(2):

        async def use() -> None:
            await made.open()
            await made.open()
            (outcome,) = await made.send(Topic("not-there"), [_wire(made)])
            assert outcome.code is ErrorCode.NOT_FOUND
            await made.close()
            await made.close()

        run(use())


def test_errors_of_refresh_are_unauthenticated() -> None:
    made = PubSubAdapter(profile_of_nowhere(), clock=SystemClock())
    assert made.error_code(RefreshError("revoked")) == (ErrorCode.UNAUTHENTICATED, False)
    assert made.error_code(ValueError("x")) is None


def profile_of_nowhere() -> Profile:
    return Profile(target="my-project", parameters={"endpoint": "127.0.0.1:1"})
