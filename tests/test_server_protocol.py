"""The data plane of Event Grid namespaces, byte by byte: every bound, every status, every error body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import BATCH, JSON, ONE, Client, Server, event, publish, raw, receive, serving, settle

LARGEST = 1_048_576
PUBLISH = "/topics/orders:publish"
BILLING = "/topics/orders/eventsubscriptions/billing"


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    """A server that lets tests wait less than Azure does; nothing else is changed."""
    with serving("--shortest-wait", "0", "--shortest-lock", "60") as server:
        yield server


@pytest.fixture(scope="module")
def exact() -> Iterator[Server]:
    """A server with nothing changed."""
    with serving() as server:
        yield server


@pytest.fixture
def topic(quick: Server, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own, with a subscription called billing."""
    name = f"t-{abs(hash(request.node.nodeid)) % 10**12}"
    receive(quick, name, "billing")
    return name


def received_raw(server: Server, topic: str) -> bytes:
    return server.ask(f"/topics/{topic}/eventsubscriptions/billing:receive?maxEvents=100&maxWaitTime=0").body


# --- publish and receive --------------------------------------------------------------------------------------------

ODD = (
    '{ "type":"com.acme.tested",\t"big": 9007199254740993, "specversion" : "1.0","zeta":"z", "alpha":true,\n'
    '"id":"\\u00e9-1", "source":"/té","data":{"n":18446744073709551615,"f":1.10,"e":1e400,"s":"\\ud83d\\ude00"},'
    '"tenant":"t"}'
).encode()


def test_one_event_arrives_as_it_was_sent(quick: Server, topic: str) -> None:
    done = quick.ask(
        f"/topics/{topic}:publish", b" \n" + ODD + b"\r\n ", content_type=f"{ONE}; charset=utf-8"
    )
    assert (done.status, done.body, done.headers["content-type"]) == (
        200,
        b"{}",
        "application/json; charset=utf-8",
    )
    body = received_raw(quick, topic)
    assert body.endswith(b'"deliveryCount":1},"event":' + ODD + b"}]}")
    assert body.startswith(b'{"value":[{"brokerProperties":{"lockToken":"')


def test_a_batch_arrives_as_it_was_sent(quick: Server, topic: str) -> None:
    other = json.dumps(event("2", data="x"), indent=1).encode()
    done = quick.ask(
        f"/topics/{topic}:publish", b"[ " + ODD + b" ,\n" + other + b" ]", content_type=BATCH.upper()
    )
    assert done.status == 200
    body = received_raw(quick, topic)
    assert ODD in body
    assert other in body
    assert [one["brokerProperties"]["deliveryCount"] for one in json.loads(body)["value"]] == [1, 1]


def test_an_empty_batch_publishes_nothing(quick: Server, topic: str) -> None:
    assert quick.ask(f"/topics/{topic}:publish", b"[]", content_type=BATCH).status == 200
    assert json.loads(received_raw(quick, topic)) == {"value": []}


json_data: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_data, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_whatever_the_data_it_arrives_as_it_was_sent(
    quick: Server, topic: str, data: list[Any], ascii: bool, indent: int | None
) -> None:
    sent = [
        json.dumps(event(str(n), data=one, tenant="t"), ensure_ascii=ascii, indent=indent).encode()
        for n, one in enumerate(data)
    ]
    assert (
        quick.ask(f"/topics/{topic}:publish", b"[" + b",".join(sent) + b"]", content_type=BATCH).status == 200
    )
    body = received_raw(quick, topic)
    places = [body.index(b'"event":' + one + b"}") for one in sent]
    assert places == sorted(places)
    assert len(json.loads(body)["value"]) == len(sent)


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"n":  18446744073709551615}', {"data": {"n": 18446744073709551615}}),
        ("application/vnd.acme+json", b'"x"', {"data": "x"}),
        ("text/plain", "tä".encode(), {"data": "tä"}),
        ("application/xml", b"<a/>", {"data": "<a/>"}),
        ("image/png", b"\x89PNG", {"data_base64": "iVBORw=="}),
        ("application/json", b"", {}),
    ],
)
def test_binary_mode(
    quick: Server, topic: str, content_type: str, body: bytes, expected: dict[str, Any]
) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "e%20%C3%A9",
        "ce-source": "/test",
        "ce-type": "t",
        "CE-Tenant": "a",
    }
    done = quick.ask(f"/topics/{topic}:publish", body, content_type=content_type, **headers)
    assert (done.status, done.body) == (200, b"{}"), done.body
    got = received_raw(quick, topic)
    attributes = {"specversion": "1.0", "id": "e é", "source": "/test", "type": "t", "tenant": "a"}
    assert json.loads(got)["value"][0]["event"] == {**attributes, "datacontenttype": content_type, **expected}
    if content_type == "application/json":
        assert body in got


def test_binary_mode_without_a_content_type(quick: Server, topic: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": "t"}
    assert quick.ask(f"/topics/{topic}:publish", b"x", **headers).status == 200
    assert json.loads(received_raw(quick, topic))["value"][0]["event"]["data_base64"] == "eA=="


def test_one_megabyte_is_allowed_and_a_thousand_events(quick: Server, topic: str) -> None:
    small = json.dumps(event(data="")).encode()
    largest = json.dumps(event(data="x" * (LARGEST - len(small)))).encode()
    assert len(largest) == LARGEST
    assert quick.ask(f"/topics/{topic}:publish", largest, content_type=ONE).status == 200
    assert len(received_raw(quick, topic)) > LARGEST
    publish(quick, topic, *(event(str(n)) for n in range(1000)))
    assert sum(len(receive(quick, topic, "billing")) for _ in range(10)) == 1000


# --- what publish refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (event(id=""), "empty id"),
        (event(source=None), "no source"),
        (event(type=None), "no type"),
        (event(specversion=None), "no specversion"),
        (event(specversion="0.3"), "0.3"),
        (event(type=3), "type is int, not a string"),
        (event(insertId="x"), "'insertId' is not allowed"),
        (event(my_ext="x"), "'my_ext' is not allowed"),
        (event(data=1, data_base64="AA=="), "both data and data_base64"),
        (event(data_base64="%"), "not base64"),
        (event(time="yesterday"), "RFC 3339"),
        (event(subject=""), "subject is empty"),
        (event(tenant={"a": 1}), "tenant is an object or an array"),
        (event(tenant="a\u0001b"), "tenant holds a character"),
        (event(tenant="\ud800"), "tenant holds a lone surrogate"),
        (42, "a JSON number"),
        ([event()], "a JSON array"),
        (None, "a JSON null"),
    ],
)
def test_one_bad_event_refuses_the_batch_and_is_named(quick: Server, topic: str, bad: Any, says: str) -> None:
    path = f"/topics/{topic}:publish"
    done = quick.ask(path, json.dumps([event("1"), event("2"), bad]).encode(), content_type=BATCH)
    assert (done.status, done.code) == (400, "BadRequest")
    assert says.removeprefix("a JSON null") in done.message
    assert done.message.startswith("event 2: ")
    assert receive(quick, topic, "billing") == []
    alone = quick.ask(path, json.dumps(bad).encode(), content_type=ONE)
    assert (alone.status, alone.code) == (400, "BadRequest")
    assert receive(quick, topic, "billing") == []


@pytest.mark.parametrize("media", [ONE, BATCH])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b'{"specversion":"1.0","id":"\xff"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'[{"specversion":"1.0"},]', ""),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b'{"specversion":"1.0","id":"1","source":"/","type":"t","data":NaN}', ""),
        ("[]".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_body_that_is_not_json(quick: Server, topic: str, media: str, body: bytes, says: str) -> None:
    done = quick.ask(f"/topics/{topic}:publish", body, content_type=media)
    assert (done.status, done.code) == (400, "BadRequest")
    assert says in done.message
    assert receive(quick, topic, "billing") == []


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
def test_a_number_beyond_all_bounds_is_refused_as_an_attribute(
    quick: Server, topic: str, number: bytes
) -> None:
    body = json.dumps(event()).encode()[:-1] + b',"tenant":' + number + b"}"
    done = quick.ask(f"/topics/{topic}:publish", body, content_type=ONE)
    assert (done.status, done.code) == (400, "BadRequest")
    assert done.message.startswith("tenant is a number")


def test_more_than_a_thousand_events(quick: Server, topic: str) -> None:
    body = json.dumps([event(str(n)) for n in range(1001)]).encode()
    done = quick.ask(f"/topics/{topic}:publish", body, content_type=BATCH)
    assert (done.status, done.code) == (400, "BadRequest")
    assert "1,001 events" in done.message
    assert receive(quick, topic, "billing") == []


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_one_megabyte_and_one_byte(quick: Server, topic: str, chunked: bool) -> None:
    body = json.dumps(event(data="x" * LARGEST)).encode()[: LARGEST + 1]
    path = f"/topics/{topic}:publish?api-version=2024-06-01"
    with Client(quick) as client:
        client.connection.request(
            "POST", path, iter([body]) if chunked else body, {"content-type": ONE}, encode_chunked=chunked
        )
        done = client.answer()
        assert (done.status, done.code) == (413, "PayloadTooLarge")
        assert client.ask(f"/topics/{topic}:publish", b"[]", content_type=BATCH).status == 200, (
            "it is kept alive"
        )


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "text/plain", "application/cloudevents", "application/cloudevents+xml"],
)
def test_other_content_types(quick: Server, content_type: str) -> None:
    headers = {"content_type": content_type} if content_type else {}
    done = quick.ask(PUBLISH, json.dumps(event()).encode(), **headers)
    assert (done.status, done.code) == (415, "UnsupportedMediaType")
    assert ONE in done.message


def test_another_charset(quick: Server) -> None:
    done = quick.ask(PUBLISH, json.dumps(event()).encode(), content_type=f"{ONE}; charset=iso-8859-1")
    assert (done.status, done.code) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"ce-id": ""}, b"", "empty id"),
        ({"ce-specversion": "2.0"}, b"", "2.0"),
        ({"ce-a-b": "x"}, b"", "a-b"),
        ({"ce-data": "x"}, b"", "named data"),
        ({"ce-tenant": "%FF"}, b"", "ce-tenant is not UTF-8"),
        ({"ce-time": "x"}, b"", "RFC 3339"),
        ({"ce-datacontenttype": "a/b"}, b"", "Content-Type"),
        ({"content-type": "application/json"}, b"{", "not JSON"),
    ],
)
def test_binary_mode_that_is_no_event(quick: Server, headers: dict[str, str], body: bytes, says: str) -> None:
    right = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": "t"}
    done = quick.ask(PUBLISH, body, **(right | headers))
    assert (done.status, done.code) == (400, "BadRequest")
    assert says in done.message


# --- settling -------------------------------------------------------------------------------------------------------


def tokens_of(received: list[dict[str, Any]]) -> list[str]:
    return [one["brokerProperties"]["lockToken"] for one in received]


def test_acknowledge_release_reject_renew(quick: Server, topic: str) -> None:
    publish(quick, topic, *(event(str(n)) for n in range(5)))
    tokens = tokens_of(receive(quick, topic, "billing"))
    assert len(set(tokens)) == 5
    assert settle(quick, topic, "billing", "renewLock", *tokens) == {
        "failedLockTokens": [],
        "succeededLockTokens": tokens,
    }
    for what in ("acknowledge", "reject", "release"):
        done = settle(quick, topic, "billing", what, tokens.pop())
        assert (len(done["succeededLockTokens"]), done["failedLockTokens"]) == (1, [])
    done = settle(quick, topic, "billing", "release", tokens.pop(), query="?releaseDelayInSeconds=60")
    assert len(done["succeededLockTokens"]) == 1
    again = receive(quick, topic, "billing")
    assert [(one["event"]["id"], one["brokerProperties"]["deliveryCount"]) for one in again] == [("2", 2)]


def test_tokens_that_are_lost_or_none_are_named_one_by_one(quick: Server, topic: str) -> None:
    publish(quick, topic, event("1"), event("2"))
    first, second = tokens_of(receive(quick, topic, "billing"))
    settle(quick, topic, "billing", "acknowledge", first)
    for what in ("acknowledge", "release", "reject", "renewLock"):
        done = settle(quick, topic, "billing", what, first, "nonsense", "", "é", first + "0")
        assert done["succeededLockTokens"] == []
        assert [(one["lockToken"], one["error"]["code"]) for one in done["failedLockTokens"]] == [
            (first, "TokenLost"),
            ("nonsense", "BadToken"),
            ("", "BadToken"),
            ("é", "BadToken"),
            (first + "0", "TokenLost"),
        ]
        assert all(one["error"]["message"] for one in done["failedLockTokens"])
    done = settle(quick, topic, "billing", "acknowledge", first, second, second)
    assert done["succeededLockTokens"] == [second]
    assert len(done["failedLockTokens"]) == 1


def test_a_token_of_another_subscription_is_lost(quick: Server, topic: str) -> None:
    receive(quick, topic, "audit")
    publish(quick, topic, event("1"))
    (token,) = tokens_of(receive(quick, topic, "audit"))
    done = settle(quick, topic, "billing", "acknowledge", token)
    assert [one["error"]["code"] for one in done["failedLockTokens"]] == ["TokenLost"]
    assert settle(quick, topic, "audit", "acknowledge", token)["succeededLockTokens"] == [token]


@pytest.mark.parametrize("what", ["acknowledge", "release", "reject", "renewLock"])
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b"{}", JSON, 400),
        (b'{"lockTokens":[]}', JSON, 400),
        (b'{"lockTokens":"a"}', JSON, 400),
        (b'{"lockTokens":[1]}', JSON, 400),
        (b'{"lockTokens":["\xff"]}', JSON, 400),
        (b'{"lockTokens":["a"]}', "text/plain", 415),
        (b'{"lockTokens":["a"]}', "", 415),
    ],
)
def test_a_settling_that_is_none(
    quick: Server, what: str, body: bytes, content_type: str, status: int
) -> None:
    headers = {"content_type": content_type} if content_type else {}
    done = quick.ask(f"{BILLING}:{what}", body, **headers)
    assert (done.status, done.code) == (status, {400: "BadRequest", 415: "UnsupportedMediaType"}[status])


@pytest.mark.parametrize("delay", ["0", "10", "60", "600", "3600"])
def test_release_delays_that_azure_has(quick: Server, delay: str) -> None:
    receive(quick, "orders", "billing")
    done = settle(quick, "orders", "billing", "release", "x", query=f"?releaseDelayInSeconds={delay}")
    assert len(done["failedLockTokens"]) == 1


@pytest.mark.parametrize("delay", ["7", "-1", "3601", "a", "", "1.5", "10,60", "١٠", "9" * 5000])
def test_release_delays_that_it_has_not(quick: Server, delay: str) -> None:
    from urllib.parse import quote

    path = f"{BILLING}:release?releaseDelayInSeconds={quote(delay)}"
    done = quick.ask(path, b'{"lockTokens":["a"]}', content_type=JSON)
    assert (done.status, done.code) == (400, "BadRequest")
    assert "releaseDelayInSeconds" in done.message
    assert len(done.message) < 200


# --- parameters, paths, methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "maxEvents=0",
        "maxEvents=101",
        "maxEvents=x",
        "maxEvents=",
        "maxEvents=1&maxEvents=2",
        "maxWaitTime=9",
        "maxWaitTime=121",
        "maxWaitTime=10.5",
    ],
)
def test_bounds_of_receive(exact: Server, query: str) -> None:
    done = exact.ask(f"{BILLING}:receive?{query}")
    assert (done.status, done.code) == (400, "BadRequest")
    assert query.split("=")[0] in done.message


def test_an_unknown_parameter_is_named_with_the_nearest(exact: Server) -> None:
    done = exact.ask(f"{BILLING}:receive?maxEvent=5")
    assert (done.status, done.code) == (400, "BadRequest")
    assert "did you mean 'maxEvents'?" in done.message
    assert exact.ask(f"{PUBLISH}?maxEvents=5", b"[]", content_type=BATCH).status == 400


@pytest.mark.parametrize(
    "path", [PUBLISH, *(f"{BILLING}:{what}" for what in ("receive", "acknowledge", "renewLock"))]
)
def test_the_api_version(exact: Server, path: str) -> None:
    missing = exact.ask(f"{path}?!", b"[]", content_type=BATCH)
    assert (missing.status, missing.code) == (400, "MissingApiVersionParameter")
    for version in ("2023-11-01", "2024-06-01-preview", ""):
        other = exact.ask(f"{path}?!api-version={version}", b"[]", content_type=BATCH)
        assert (other.status, other.code) == (400, "UnsupportedApiVersion")
        assert "2024-06-01" in other.message


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/topics",
        "/topics/orders",
        "/topics/orders/",
        "/topics/orders:publish/",
        "/topics/orders:Publish",
        "/topics/a/b:publish",
        "/topics/:publish",
        f"{BILLING}:renewlock",
        f"{BILLING}:renewLocks",
        "/topics/orders/eventSubscriptions/billing:receive",
        "/favicon.ico",
        "/api/events",
    ],
)
def test_unknown_paths(exact: Server, path: str) -> None:
    done = exact.ask(path)
    assert (done.status, done.code) == (404, "NotFound")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [PUBLISH, f"{BILLING}:receive"])
def test_other_methods(exact: Server, path: str, method: str) -> None:
    with Client(exact) as client:
        done = client.ask(path, method=method)
    assert (done.status, done.code) == (405, "MethodNotAllowed")
    assert done.headers["allow"] == "POST"
    assert not [name for name in done.headers if name.startswith("access-control")]


def test_settling_makes_nothing(exact: Server) -> None:
    done = exact.ask(
        "/topics/never-made/eventsubscriptions/sub:acknowledge", b'{"lockTokens":["a"]}', content_type=JSON
    )
    assert (done.status, done.code) == (404, "NotFound")


@pytest.mark.parametrize("name", ["ab", "a" * 51, "a_b", "a%20b", "a.b", "%C3%A9%C3%A9%C3%A9"])
def test_names_that_azure_does_not_allow_are_not_made(exact: Server, name: str) -> None:
    done = exact.ask(f"/topics/{name}:publish", b"[]", content_type=BATCH)
    assert (done.status, done.code) == (400, "BadRequest")
    assert "3 to 50" in done.message
    assert exact.ask(f"/topics/orders/eventsubscriptions/{name}:receive").status == 400


def test_strict_makes_nothing() -> None:
    with serving("--strict") as server:
        assert "declared" in " ".join(server.greeting)
        for path, body in ((PUBLISH, b"[]"), (f"{BILLING}:receive", b"")):
            done = server.ask(path, body, content_type=BATCH)
            assert (done.status, done.code) == (404, "NotFound")
            assert "orders" in done.message


def test_what_is_no_http_at_all(exact: Server) -> None:
    assert raw(exact, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(exact, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n").startswith(
        b"HTTP/1.1 400 "
    )


# --- anything at all ------------------------------------------------------------------------------------------------

bodies = (
    st.binary(max_size=200)
    | json_data.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from([*event(), "data", "data_base64", "time", "A"]), json_data, max_size=8
    ).map(lambda value: json.dumps(event() | value).encode())
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies, st.sampled_from([ONE, BATCH, JSON, "text/plain"]), st.booleans())
def test_whatever_is_published_has_an_answer_and_blocks_nobody(
    quick: Server, topic: str, body: bytes, content_type: str, binary: bool
) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"} if binary else {}
    done = quick.ask(f"/topics/{topic}:publish", body, content_type=content_type, **headers)
    received = json.loads(received_raw(quick, topic))["value"]
    if done.status == 200:
        assert done.json == {}
    else:
        assert (done.status, done.code) in {(400, "BadRequest"), (415, "UnsupportedMediaType")}
        assert received == []


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_whatever_is_sent_ends(exact: Server, text: bytes) -> None:
    answer = raw(exact, text, half_close=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies | st.lists(st.text(max_size=30)).map(lambda tokens: json.dumps({"lockTokens": tokens}).encode())
)
def test_whatever_is_settled_has_an_answer(quick: Server, topic: str, body: bytes) -> None:
    for what in ("acknowledge", "release", "reject", "renewLock"):
        done = quick.ask(f"/topics/{topic}/eventsubscriptions/billing:{what}", body, content_type=JSON)
        if done.status == 200:
            assert done.json["succeededLockTokens"] == []
            assert {one["error"]["code"] for one in done.json["failedLockTokens"]} <= {
                "BadToken",
                "TokenLost",
            }
        else:
            assert (done.status, done.code) == (400, "BadRequest")
