"""ARM for Event Grid namespaces, as far as provisioning uses it: on the state of the strict server, for tests.

Bodies are read with the models of azure-mgmt-eventgrid, and what those do not know is refused. So what is recorded here
is the contract of the SDK, not of the service.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from azure.mgmt.eventgrid import models

from strict_eventgrid import Namespace, Queue

PERMISSIONS = "/providers/Microsoft.Authorization/permissions"
OWNER: dict[str, Any] = {"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}
SENDER: dict[str, Any] = {
    "actions": ["Microsoft.EventGrid/topics/read"],
    "notActions": [],
    "dataActions": ["Microsoft.EventGrid/events/send/action"],
    "notDataActions": [],
}
"""What Azure answers for the built-in roles Owner and EventGrid Data Sender."""
API_VERSION = "2025-02-15"
_BASE = (
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.EventGrid/namespaces/([^/]+)/topics"
    r"(?:/([^/]+)(/eventSubscriptions(?:/([^/]+))?)?)?"
)


class Arm:
    """One namespace in ARM: `subscription-1`, `group-1`, `shop`."""

    def __init__(self, namespace: Namespace, shortest_lock: int = 60) -> None:
        self.namespace = namespace
        self.shortest_lock = shortest_lock
        self.requests: list[tuple[str, str]] = []
        self.forbidden: set[str] = set()
        """Methods that are answered with 403."""
        self.roles: dict[str, list[dict[str, Any]]] = {"*": [OWNER, SENDER]}
        """By topic, what Azure answers of the roles that the caller has on it; ``*`` for all others."""
        self.bodies: dict[str, dict[str, Any]] = {}
        """The last body that was put to each path."""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") != "Bearer a-token":
            return _error(401, "InvalidAuthenticationToken", "no token")
        if request.method in self.forbidden:
            return _error(403, "AuthorizationFailed", "The client does not have authorization")
        if request.path.endswith(PERMISSIONS):
            assert dict(request.query) == {"api-version": "2022-04-01"}, request.query_string
            topic = request.path.removesuffix(PERMISSIONS).rpartition("/")[2]
            return web.json_response({"value": self.roles.get(topic, self.roles["*"])})
        match = re.fullmatch(_BASE, request.path)
        if match is None or match.groups()[:3] != ("subscription-1", "group-1", "shop"):
            return _error(404, "ResourceNotFound", request.path)
        assert dict(request.query) == {"api-version": API_VERSION}, request.query_string
        _, _, _, topic, listing, name = match.groups()
        text = await request.text()
        return self._act(
            request.method, request.path, topic, listing, name, json.loads(text) if text else None
        )

    def _act(self, method: str, path: str, topic: Any, listing: Any, name: Any, body: Any) -> web.Response:
        topics = self.namespace.topics
        if topic is None:
            return web.json_response({"value": [_topic(path, each) for each in topics]})
        if listing is None:
            if method == "PUT":
                _read(models.NamespaceTopic, body)
                assert body["properties"]["inputSchema"] == "CloudEventSchemaV1_0"
                self.bodies[path] = body
                topics.setdefault(topic, {})
                return web.json_response(_topic(path, topic), status=201)
            topics.pop(topic, None)
            return web.Response(status=204)
        if topic not in topics:
            return _error(404, "ResourceNotFound", path)
        queues = topics[topic]
        if name is None:
            return web.json_response(
                {"value": [_subscription(f"{path}/{n}", n, q) for n, q in queues.items()]}
            )
        if method == "DELETE":
            queues.pop(name, None)
            return web.Response(status=204)
        if method == "GET":
            if name not in queues:
                return _error(404, "ResourceNotFound", path)
            return web.json_response(_subscription(path, name, queues[name]))
        self._put(queues, name, _read(models.Subscription, body))
        self.bodies[path] = body
        return web.json_response(_subscription(path, name, queues[name]), status=201)

    def _put(self, queues: dict[str, Queue], name: str, wanted: Any) -> None:
        delivery, filters = wanted.delivery_configuration, wanted.filters_configuration
        assert (delivery.delivery_mode, wanted.event_delivery_schema) == ("Queue", "CloudEventSchemaV1_0")
        lock, most = delivery.queue.receive_lock_duration_in_seconds, delivery.queue.max_delivery_count
        assert self.shortest_lock <= lock <= 300, lock
        assert 1 <= most <= 10, most
        found = [each.serialize() for each in filters.filters]
        values = sum(len(each["values"]) for each in found) + len(filters.included_event_types or ())
        assert len(found) <= 25, found
        assert values <= 25, found
        if wanted.expiration_time_utc is not None:
            assert wanted.expiration_time_utc > datetime.now(UTC)
        queue = queues.setdefault(name, Queue())
        queue.lock, queue.most = lock, most
        queue.retention = delivery.queue.event_time_to_live
        queue.blob = delivery.queue.dead_letter_destination_with_resource_identity
        queue.expires = wanted.expiration_time_utc
        queue.native = {"filters": found, "includedEventTypes": filters.included_event_types}


def _read(kind: Any, body: Any) -> Any:
    model = kind.deserialize(body)
    assert model.serialize(keep_readonly=False) == body, f"{kind.__name__} does not know all of {body}"
    return model


def _topic(path: str, name: str) -> dict[str, Any]:
    properties = {
        "provisioningState": "Succeeded",
        "publisherType": "Custom",
        "inputSchema": "CloudEventSchemaV1_0",
    }
    return {"id": f"{path}/{name}", "name": name, "type": "namespaces/topics", "properties": properties}


def _subscription(path: str, name: str, queue: Queue) -> dict[str, Any]:
    native = queue.native or {}
    model = models.Subscription(
        delivery_configuration=models.DeliveryConfiguration(
            delivery_mode=queue.mode,
            queue=models.QueueInfo(
                receive_lock_duration_in_seconds=int(queue.lock),
                max_delivery_count=queue.most,
                event_time_to_live=queue.retention,
                dead_letter_destination_with_resource_identity=queue.blob,
            ),
        ),
        filters_configuration=models.FiltersConfiguration(
            included_event_types=native.get("includedEventTypes"),
            filters=[models.Filter.from_dict(each) for each in native.get("filters") or ()],
        ),
        expiration_time_utc=queue.expires,
    )
    properties = model.serialize()["properties"] | {"provisioningState": "Succeeded"}
    return {"id": path, "name": name, "type": "eventSubscriptions", "properties": properties}


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
