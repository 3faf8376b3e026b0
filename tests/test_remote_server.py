"""The native protocol as any client may speak it: raw requests to a real server, good ones and bad ones."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.server_process import Server

from crossbus.event import new_id
from crossbus_local.protocol import path_of

MSGPACK = "application/vnd.msgpack"
JSON = "application/json"
BASE = "/crossbus/v1"
ORDERS = f"{BASE}/topics/orders"
BILLING = f"{ORDERS}/subscriptions/billing"


class Reply(NamedTuple):
    status: int
    body: bytes

    @property
    def data(self) -> Any:
        return msgspec.msgpack.decode(self.body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and code, of an answer that is an error in one line."""
        error = self.json["error"]
        assert "\n" not in error["message"]
        return self.status, error["code"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


class Asking:
    """Sends requests to a server, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.channel = new_id()

    def __call__(
        self, method: str, path: str, body: Any = None, type: str = MSGPACK, **headers: str
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        if body is not None and not isinstance(body, bytes):
            body = msgspec.msgpack.encode(body) if type == MSGPACK else json.dumps(body).encode()
        more = {"Content-Type": type} if body is not None else {}
        connection.request(method, path, body=body, headers=more | headers)
        response = connection.getresponse()
        reply = Reply(response.status, response.read())
        connection.close()
        return reply


@pytest.fixture
def ask(server: Server) -> Asking:
    """Asks a server that has `orders/billing` with nothing in it."""
    asking = Asking(server.port)
    assert asking("DELETE", ORDERS).status == 200
    assert asking("PUT", ORDERS).status == 200
    assert asking("PUT", BILLING, {}, JSON).status == 200
    return asking


def publish(ask: Asking, *bodies: bytes, **headers: str) -> int:
    reply = ask("POST", f"{ORDERS}/events", {"wires": [[body] for body in bodies]}, **headers)
    assert reply.status == 200, reply
    return int(reply.data["first"])


def receive(ask: Asking, number: int = 1, channel: str = "", **more: Any) -> list[dict[str, Any]]:
    form = {"channel": channel or ask.channel, "number": number, "max": 10, "wait": 0.0, "lease": 60.0} | more
    reply = ask("POST", f"{BILLING}/receive", form)
    assert reply.status == 200, reply
    deliveries: list[dict[str, Any]] = reply.data["deliveries"]
    return deliveries


def settle(ask: Asking, *settlements: list[Any]) -> list[str]:
    reply = ask("POST", f"{BILLING}/settle", {"settlements": list(settlements)})
    assert reply.status == 200, reply
    outcomes: list[str] = reply.data["outcomes"]
    return outcomes


# --- what a client does -------------------------------------------------------------------------------------------


def test_it_says_what_it_is(ask: Asking) -> None:
    found = ask("GET", BASE).json
    assert (found["protocol"], found["storage"], found["history"]) == (1, "memory", 10_000)
    assert found == ask("GET", f"{BASE}/").json


def test_an_event_from_publishing_to_acknowledging(ask: Asking) -> None:
    first = publish(ask, b"one", b"two")
    one, two = receive(ask)
    assert (one["body"], two["body"]) == (b"one", b"two")
    assert one["message_id"] == str(first)
    assert (one["attempt"], one["lease_seconds"], one["key"], one["attributes"]) == (1, 60.0, None, {})
    assert ask("GET", f"{BILLING}/backlog").json["in_hand"] == 2
    assert settle(ask, [one["lease"]], [two["lease"], 0.0]) == ["ok", "ok"]
    (again,) = receive(ask, 2)
    assert (again["body"], again["attempt"]) == (b"two", 2)
    extended = ask("POST", f"{BILLING}/extend", {"leases": [again["lease"], "gone"], "seconds": 5.0})
    assert extended.data["outcomes"] == ["ok", "lost"]
    assert settle(ask, [again["lease"]], ["gone"], [one["lease"]]) == ["ok", "lost", "lost"]


@pytest.mark.parametrize("name", ["a/b", "a b", "..", ".", "%41", "ä", "a?b#c", "x" * 300, "a\\b", "+"])
def test_a_name_may_hold_anything(ask: Asking, name: str) -> None:
    path = path_of("topics", name)
    assert ask("PUT", path).status == 200
    assert ask("PUT", path_of("topics", name, "subscriptions", name), {}, JSON).status == 200
    assert name in ask("GET", f"{BASE}/topics").json["topics"][name]["subscriptions"]
    assert ask("DELETE", path).status == 200
    assert name not in ask("GET", f"{BASE}/topics").json["topics"]


def test_what_is_put_twice_is_there_once_and_what_is_deleted_twice_is_gone(ask: Asking) -> None:
    for path in (ORDERS, f"{BASE}/dead-letters/dead"):
        assert [ask("PUT", path, {}, JSON).status for _ in range(2)] == [200, 200]
    assert ask("PUT", BILLING, {"ordered": True, "lease": 5}, JSON).status == 200
    settings = ask("GET", f"{BASE}/topics").json["topics"]["orders"]["subscriptions"]["billing"]["settings"]
    assert (settings["ordered"], settings["lease"]) == (True, 5)
    for path in (BILLING, ORDERS, f"{BASE}/dead-letters/dead"):
        assert [ask("DELETE", path).status for _ in range(2)] == [200, 200]


# --- what was asked before ----------------------------------------------------------------------------------------


def test_a_request_with_the_same_id_is_answered_as_before_and_not_done_again(ask: Asking) -> None:
    once = {"Idempotency-Key": "publish-1"}
    assert publish(ask, b"x", **once) == publish(ask, b"x", **once)
    assert len(receive(ask)) == 1
    other = ask("POST", f"{ORDERS}/events", {"wires": [[b"another"]]}, **once)
    assert other.error == (400, "invalid_request")
    assert publish(ask, b"x", **{"Idempotency-Key": "publish-2"}) > 0
    assert len(receive(ask, 2)) == 1


def test_the_id_of_a_request_is_not_that_of_another(ask: Asking) -> None:
    id = new_id()
    publish(ask, b"one", **{"Idempotency-Key": id})
    other = ask("POST", f"{ORDERS}/events", {"wires": [[b"two"]]}, **{"Idempotency-Key": id})
    assert other.error == (400, "invalid_request"), "of the same length, and never published"


def test_the_id_of_a_request_is_short(ask: Asking) -> None:
    reply = ask("POST", f"{ORDERS}/events", {"wires": [[b"x"]]}, **{"Idempotency-Key": "x" * 65})
    assert reply.error == (400, "invalid_request")
    assert receive(ask) == []


def test_a_request_that_was_refused_is_tried_again(ask: Asking) -> None:
    once = {"Idempotency-Key": "early"}
    path = f"{BASE}/topics/late/events"
    assert ask("POST", path, {"wires": [[b"x"]]}, **once).error == (404, "not_found")
    ask("PUT", f"{BASE}/topics/late")
    assert ask("POST", path, {"wires": [[b"x"]]}, **once).status == 200
    ask("DELETE", f"{BASE}/topics/late")


def test_settling_again_after_a_lost_answer_is_told_from_a_lost_lease(ask: Asking) -> None:
    publish(ask, b"x", b"y")
    one, two = (each["lease"] for each in receive(ask))
    assert settle(ask, [one], [two, 3600.0]) == ["ok", "ok"]
    assert settle(ask, [one, None, True], [two, 3600.0, True]) == ["ok", "ok"]
    assert settle(ask, [one, 5.0, True], [two, None, True]) == ["lost", "lost"], "it was settled otherwise"
    assert settle(ask, [one]) == ["lost"]


def test_an_answer_that_was_lost_is_given_back_without_an_attempt(ask: Asking) -> None:
    publish(ask, b"x", b"y", b"z")
    first = receive(ask, 1, max=2)
    assert receive(ask, 2, channel="other", max=1)[0]["body"] == b"z"
    again = receive(ask, 2, lost=1)
    assert [(each["body"], each["attempt"]) for each in again] == [(b"x", 1), (b"y", 1)]
    assert settle(ask, [first[0]["lease"]], [again[0]["lease"]]) == ["lost", "ok"]
    assert [each["body"] for each in receive(ask, 2, lost=1)] == [b"y"], (
        "the same number: its answer was lost"
    )
    assert receive(ask, 3, lost=1) == [], "what came with an answer that was not lost stays"


def test_what_arrived_is_not_put_back_with_what_was_lost(ask: Asking) -> None:
    publish(ask, b"x", b"y")
    (first,) = receive(ask, 1, max=1)
    lost = {"channel": ask.channel, "lost": 2, "arrived": 1}
    assert ask("POST", f"{BILLING}/abandon", lost).status == 200, "the second request never came"
    (second,) = receive(ask, 3, max=1, lost=2, arrived=1)
    assert receive(ask, 4, lost=2, arrived=3) == []
    assert settle(ask, [first["lease"]], [second["lease"]]) == ["ok", "ok"]


def test_an_abandoned_receive_that_comes_late_takes_nothing(ask: Asking) -> None:
    publish(ask, b"x")
    assert ask("POST", f"{BILLING}/abandon", {"channel": "late", "lost": 4}).status == 200
    assert receive(ask, 4, channel="late") == []
    assert [each["attempt"] for each in receive(ask, 5, channel="late")] == [1]


def test_an_answer_holds_no_more_bytes_than_a_client_can_take(ask: Asking) -> None:
    for _ in range(5):
        publish(ask, *[b"x" * 1_000_000] * 8)
    sizes = []
    for number in range(1, 10):
        taken = receive(ask, number, max=1000)
        sizes.append(len(taken))
        if not taken:
            break
    assert sizes == [16, 16, 8, 0]


def test_a_temporary_subscription_stays_as_long_as_it_is_used(ask: Asking) -> None:
    path = f"{ORDERS}/subscriptions/tail"
    assert ask("PUT", f"{path}?temporary=0.3", {}, JSON).status == 200
    form = {"channel": "tail", "number": 1, "max": 10, "wait": 1.5, "lease": 60.0}
    assert ask("POST", f"{path}/receive", form).data == {"deliveries": []}
    end = time.monotonic() + 30
    while "tail" in ask("GET", f"{BASE}/topics").json["topics"]["orders"]["subscriptions"]:
        assert time.monotonic() < end, "it stays though nobody uses it"
        time.sleep(0.1)


def test_a_temporary_subscription_is_not_taken_for_a_durable_one(ask: Asking) -> None:
    path = f"{ORDERS}/subscriptions/brief"
    assert ask("PUT", f"{path}?temporary=60", {}, JSON).status == 200
    assert ask("PUT", path, {}, JSON).error == (409, "conflict")
    assert ask("DELETE", path).status == 200
    assert ask("PUT", path, {}, JSON).status == 200


def test_what_the_broker_adds_to_an_event_without_members_is_json_to_event_grid(ask: Asking) -> None:
    assert ask("POST", f"{ORDERS}/events", {"wires": [[b" { } ", None, {"a": "b"}]]}).status == 200
    reply = ask("POST", "/topics/orders/eventsubscriptions/billing:receive?api-version=2024-06-01")
    assert [one["event"] for one in reply.json["value"]] == [{"a": "b"}]


def test_a_durable_subscription_never_ends_by_itself(ask: Asking) -> None:
    assert ask("PUT", f"{BILLING}?temporary=0.1", {}, JSON).error == (409, "conflict")
    path = f"{ORDERS}/subscriptions/tail"
    assert ask("PUT", f"{path}?temporary=0.5", {}, JSON).status == 200
    # Deleted with its topic, and made anew for good under the same name, before its time is over.
    assert ask("DELETE", ORDERS).status == 200
    assert ask("PUT", ORDERS).status == 200
    assert ask("PUT", path, {}, JSON).status == 200
    time.sleep(1)
    assert ask("GET", f"{path}/backlog").status == 200


# --- what is refused ----------------------------------------------------------------------------------------------

RECEIVE = {"channel": "c", "number": 1, "max": 1, "wait": 0.0, "lease": 60.0}


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("events", b""),
        ("events", b"\xff"),
        ("events", b"\x91" * 100_000),
        ("events", {}),
        ("events", {"wires": []}),
        ("events", {"wires": [[b"x"]] * 1001}),
        ("events", {"wires": [[b"x", None, {}, 1]]}),
        ("events", {"wires": [["x"]]}),
        ("events", {"wires": [[b"x", 1]]}),
        ("events", {"wires": [[b"x", None, {"a": [1]}]]}),
        ("events", {"wires": [[b"x", None, {1: "a"}]]}),
        ("events", {"wires": [[b"x" * 1_048_577]]}),
        ("events", {"wires": [[b"x"]], "more": 1}),
        ("subscriptions/billing/receive", RECEIVE | {"max": 0}),
        ("subscriptions/billing/receive", RECEIVE | {"max": 1001}),
        ("subscriptions/billing/receive", RECEIVE | {"max": True}),
        ("subscriptions/billing/receive", RECEIVE | {"wait": -1}),
        ("subscriptions/billing/receive", RECEIVE | {"wait": 61}),
        ("subscriptions/billing/receive", RECEIVE | {"wait": float("nan")}),
        ("subscriptions/billing/receive", RECEIVE | {"lease": 0}),
        ("subscriptions/billing/receive", RECEIVE | {"lease": float("inf")}),
        ("subscriptions/billing/receive", RECEIVE | {"channel": ""}),
        ("subscriptions/billing/receive", RECEIVE | {"number": "1"}),
        ("subscriptions/billing/settle", {"settlements": [["x", float("nan")]]}),
        ("subscriptions/billing/settle", {"settlements": [["x", -1]]}),
        ("subscriptions/billing/settle", {"settlements": [[1]]}),
        ("subscriptions/billing/extend", {"leases": ["x"], "seconds": 0}),
        ("subscriptions/billing/extend", {"leases": ["x"]}),
    ],
)
def test_a_form_that_is_wrong_is_refused(ask: Asking, path: str, form: Any) -> None:
    assert ask("POST", f"{ORDERS}/{path}", form if form else b"").error == (400, "invalid_request")
    backlog = ask("GET", f"{BILLING}/backlog").json
    assert (backlog["waiting"], backlog["in_hand"]) == (0, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("GET", "/crossbus/v2/topics", None, (404, "not_found")),
        ("GET", "/crossbus/", None, (404, "not_found")),
        ("GET", f"{BASE}/nothing", None, (404, "not_found")),
        ("GET", f"{BILLING}/nothing", None, (404, "not_found")),
        ("POST", f"{BASE}/topics", None, (405, "invalid_request")),
        ("PATCH", ORDERS, None, (405, "invalid_request")),
        ("PUT", f"{BASE}/topics/%FF", None, (400, "invalid_request")),
        ("PUT", f"{BASE}/topics//x", None, (400, "invalid_request")),
        ("PUT", ORDERS, b"[", (400, "invalid_request")),
        ("PUT", ORDERS, b"[" * 100_000, (400, "invalid_request")),
        ("PUT", ORDERS, b'{"\xff": 1}', (400, "invalid_request")),
        ("PUT", ORDERS, b"[]", (400, "invalid_request")),
        ("PUT", ORDERS, b'{"more": 1}', (400, "invalid_request")),
        ("PUT", f"{ORDERS}?more=1", None, (400, "invalid_request")),
        ("PUT", BILLING, b'{"ordred": true}', (400, "invalid_request")),
        ("PUT", BILLING, b'{"filter": {"exakt": {"type": "a"}}}', (400, "invalid_request")),
        ("PUT", f"{BILLING}?temporary=nan", None, (400, "invalid_request")),
        ("PUT", f"{BILLING}?temporary=0", None, (400, "invalid_request")),
        ("PUT", f"{BASE}/topics/nobody/subscriptions/x", b"{}", (404, "not_found")),
        ("POST", f"{BILLING}/replay", b"{}", (400, "invalid_request")),
        ("POST", f"{BILLING}/replay", b"", (400, "invalid_request")),
        ("POST", f"{BILLING}/replay", b'{"position": "%s"}' % (b"9" * 5000), (400, "invalid_request")),
        ("POST", f"{BILLING}/replay", b'{"time": 1e300}', (400, "invalid_request")),
        ("POST", f"{BILLING}/replay", b'{"time": 1, "position": "1"}', (400, "invalid_request")),
        ("POST", f"{BILLING}/replay", b'{"position": "1"}', (400, "invalid_request")),
        ("GET", f"{BASE}/topics/orders/subscriptions/nobody/backlog", None, (404, "not_found")),
        ("GET", f"{BASE}/dead-letters/nobody/records", None, (404, "not_found")),
        ("GET", f"{BASE}/dead-letters/nobody/records?limit=0", None, (400, "invalid_request")),
        ("GET", f"{BASE}/dead-letters/nobody/records?after=gone", None, (400, "invalid_request")),
    ],
)
def test_a_request_that_is_wrong_is_refused(
    ask: Asking, method: str, path: str, body: bytes | None, error: tuple[int, str]
) -> None:
    assert ask(method, path, body, JSON).error == error


def test_a_body_must_say_that_it_is_what_is_asked_for(ask: Asking) -> None:
    assert ask("PUT", ORDERS, b"{}", "text/plain").error == (400, "invalid_request")
    assert ask("POST", f"{ORDERS}/events", b'{"wires": []}', JSON).error == (400, "invalid_request")


def test_a_request_that_is_too_large_is_refused(ask: Asking) -> None:
    reply = ask("POST", f"{ORDERS}/events", b"x" * 17_000_000)
    assert reply.error == (413, "invalid_request")


def test_no_web_page_gets_in(ask: Asking) -> None:
    assert ask("GET", BASE, Origin="http://example.com").error == (403, "permission_denied")
    assert ask("GET", BASE, Host="example.com").error == (403, "permission_denied")
