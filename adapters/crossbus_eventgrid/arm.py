"""The control plane on Azure: ARM, through azure-mgmt-eventgrid. Needs Microsoft Entra; a key opens no ARM."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crossbus.errors import InvalidRequest
from crossbus.profiles import Profile
from crossbus.registry import not_installed
from crossbus_eventgrid.compiling import native_text
from crossbus_eventgrid.control import Control, Granted, NoControl, Standing
from crossbus_eventgrid.credentials import default_credential
from crossbus_eventgrid.endpoint import Endpoint
from crossbus_eventgrid.limits import MAX_RECEIVES
from crossbus_eventgrid.rest import CONNECT_TIMEOUT, READ_TIMEOUT
from crossbus_eventgrid.settings import Owned, QueueSettings

if TYPE_CHECKING:
    from azure.mgmt.eventgrid.aio import EventGridManagementClient

__all__ = ["ArmControl", "ArmPlace"]

RETENTION_DAYS: Final = 7
"""How long a topic that crossbus makes keeps events: as long as Event Grid can."""
_READ: Final = "Microsoft.EventGrid/namespaces/topics/read"
_WRITE: Final = "Microsoft.EventGrid/namespaces/topics/write"
_PERMISSIONS_VERSION: Final = "2022-04-01"
_DEFAULT_LOCK: Final = 60
POLLING_INTERVAL: Final = 3
"""Seconds between looks whether Azure has made something, where its answer does not say; the SDK's default is 30."""


class ArmPlace(NamedTuple):
    """Where a namespace is in ARM, and where its backstop writes to."""

    subscription_id: str
    resource_group: str
    namespace: str
    storage: str = ""
    """The resource id of a storage account; empty for no backstop."""
    container: str = ""

    @classmethod
    def of(cls, profile: Profile, endpoint: Endpoint) -> ArmPlace:
        """Read it from a profile and the environment. Raises `NoControl` if something is missing."""
        given = profile.parameters
        subscription_id = given.get("subscription_id") or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
        group = given.get("resource_group", "")
        missing = [] if subscription_id else ["subscription_id (or AZURE_SUBSCRIPTION_ID)"]
        missing += [] if group else ["resource_group"]
        if missing:
            raise NoControl(
                f"set {' and '.join(missing)} in the profile or URL to have topics looked for and made"
            )
        return cls(
            subscription_id,
            group,
            endpoint.namespace,
            given.get("backstop_storage", ""),
            given.get("backstop_container", ""),
        )


class ArmControl(Control):
    """Topics and subscriptions through ARM. `client` is for tests; by default it is made when first needed."""

    def __init__(self, place: ArmPlace, client: EventGridManagementClient | None = None) -> None:
        self._place = place
        self._client = client
        self._credential: Any = None

    async def topics(self) -> Mapping[str, Mapping[str, Standing]]:
        """Return all topics with their queue subscriptions: one request for the topics, and one for each."""
        found: dict[str, dict[str, Standing]] = {}
        async with self._asked(_READ) as client:
            async for topic in client.namespace_topics.list_by_namespace(*self._namespace):
                found[str(topic.name)] = {}
            for name, subscriptions in found.items():
                listing = client.namespace_topic_event_subscriptions.list_by_namespace_topic(
                    *self._namespace, name
                )
                async for one in listing:
                    subscriptions[str(one.name)] = _standing(one)
        return found

    async def granted(self, topic: str) -> list[Granted]:
        """Return the data actions that this identity has on a topic, by inheritance too.

        Source: https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource
        """
        from azure.core.rest import HttpRequest

        group, namespace = self._namespace
        url: str | None = (
            f"/subscriptions/{self._place.subscription_id}/resourceGroups/{group}/providers/Microsoft.EventGrid/"
            f"namespaces/{namespace}/topics/{topic}/providers/Microsoft.Authorization/permissions"
            f"?api-version={_PERMISSIONS_VERSION}"
        )
        found: list[Granted] = []
        async with self._asked("Microsoft.Authorization/permissions/read") as client:
            while url:
                answer = await client._send_request(HttpRequest("GET", url))
                answer.raise_for_status()
                body = answer.json()
                found += [
                    Granted(one.get("dataActions") or (), one.get("notDataActions") or ())
                    for one in body["value"]
                ]
                url = body.get("nextLink")
        return found

    async def create_topic(self, name: str) -> None:
        """Make a topic of custom CloudEvents."""
        from azure.mgmt.eventgrid.models import NamespaceTopic

        topic = NamespaceTopic(
            publisher_type="Custom",
            input_schema="CloudEventSchemaV1_0",
            event_retention_in_days=RETENTION_DAYS,
        )
        async with self._asked(_WRITE) as client:
            poller = await client.namespace_topics.begin_create_or_update(*self._namespace, name, topic)
            await poller.result()

    async def put_subscription(
        self,
        topic: str,
        name: str,
        settings: QueueSettings,
        owned: Owned = Owned.YES,
        expires: datetime | None = None,
    ) -> None:
        """Make a queue subscription, or change it: what crossbus does not set stays as it is.

        Raises `InvalidRequest` if there is one that pushes.
        """
        wanted = _model(settings, self._place, owned, expires)
        async with self._asked("Microsoft.EventGrid/namespaces/topics/eventSubscriptions/write") as client:
            subscriptions = client.namespace_topic_event_subscriptions
            standing = await _found(subscriptions.get(*self._namespace, topic, name))
            if standing is not None:
                _keep(wanted, standing, f"{topic}/{name}")
            poller = await subscriptions.begin_create_or_update(*self._namespace, topic, name, wanted)
            await poller.result()

    async def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        async with self._asked("Microsoft.EventGrid/namespaces/topics/delete") as client:
            await (await client.namespace_topics.begin_delete(*self._namespace, name)).result()

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a subscription."""
        async with self._asked("Microsoft.EventGrid/namespaces/topics/eventSubscriptions/delete") as client:
            poller = await client.namespace_topic_event_subscriptions.begin_delete(
                *self._namespace, topic, name
            )
            await poller.result()

    async def close(self) -> None:
        """End the connections."""
        client, self._client = self._client, None
        credential, self._credential = self._credential, None
        if client is not None:
            await client.close()
        if credential is not None:
            await credential.close()

    @property
    def _namespace(self) -> tuple[str, str]:
        return self._place.resource_group, self._place.namespace

    @asynccontextmanager
    async def _asked(self, permission: str) -> AsyncIterator[EventGridManagementClient]:
        """Give the client; what forbids asking becomes `NoControl`, naming the permission."""
        client = self._client or self._make_client()
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        group, name = self._namespace
        try:
            yield client
        except ClientAuthenticationError as error:
            first = str(error).partition("\n")[0].strip()
            raise NoControl(
                f"sign in with Microsoft Entra (az login, a managed identity) to reach the control plane: {first}"
            ) from error
        except HttpResponseError as error:
            if error.status_code == 404:
                raise NoControl(
                    f"namespace {name} is not in resource group {group} of subscription {self._place.subscription_id}; "
                    "set subscription_id and resource_group to where it is"
                ) from error
            if error.status_code != 403:
                raise
            raise NoControl(
                f"the permission {permission} on namespace {name} in resource group {group} is missing; the role "
                "EventGrid Contributor has it"
            ) from error
        except AzureError as error:
            problem = " ".join(str(error).split())[:300]
            raise NoControl(f"Azure Resource Manager cannot be reached: {problem}") from error

    def _make_client(self) -> EventGridManagementClient:
        try:
            from azure.mgmt.eventgrid.aio import EventGridManagementClient
        except ModuleNotFoundError as error:
            raise not_installed("eventgrid", error) from error
        self._credential = default_credential()
        self._client = EventGridManagementClient(
            self._credential,
            self._place.subscription_id,
            # Where a firewall drops what goes to ARM, opening must not wait for minutes.
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retry_total=1,
            polling_interval=POLLING_INTERVAL,
        )
        return self._client


# --- models -----------------------------------------------------------------------------------------------------


def _model(settings: QueueSettings, place: ArmPlace, owned: Owned, expires: datetime | None) -> Any:
    from azure.mgmt.eventgrid import models

    native = msgspec.json.decode(settings.native) if settings.native else {}
    retention = None if settings.retention is None else timedelta(seconds=settings.retention)
    return models.Subscription(
        delivery_configuration=models.DeliveryConfiguration(
            delivery_mode="Queue",
            queue=models.QueueInfo(
                receive_lock_duration_in_seconds=settings.lease,
                max_delivery_count=settings.receives,
                event_time_to_live=retention,
                dead_letter_destination_with_resource_identity=_backstop(place),
            ),
        ),
        event_delivery_schema="CloudEventSchemaV1_0",
        filters_configuration=models.FiltersConfiguration(
            included_event_types=native.get("includedEventTypes"),
            filters=[models.Filter.from_dict(one) for one in (*native.get("filters", ()), *owned.mark())],
        ),
        expiration_time_utc=expires,
    )


async def _found(asked: Awaitable[Any]) -> Any:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return await asked
    except ResourceNotFoundError:
        return None


def _keep(wanted: Any, standing: Any, what: str) -> None:
    """Take over what is not ours to set: ARM's PUT replaces a resource as a whole."""
    delivery = standing.delivery_configuration
    if delivery is not None and delivery.delivery_mode not in (None, "Queue"):
        raise InvalidRequest(
            f"event subscription {what} is there and delivers by {delivery.delivery_mode}, which crossbus would end; "
            "declare the subscription under another name"
        )
    queue = wanted.delivery_configuration.queue
    if delivery is not None and delivery.queue is not None:
        kept = delivery.queue.dead_letter_destination_with_resource_identity
        queue.dead_letter_destination_with_resource_identity = (
            queue.dead_letter_destination_with_resource_identity or kept
        )
    wanted.expiration_time_utc = wanted.expiration_time_utc or standing.expiration_time_utc


def _backstop(place: ArmPlace) -> Any:
    """The container into which Event Grid writes what was received too often, or got too old: not proved on Azure."""
    if not place.storage:
        return None
    from azure.mgmt.eventgrid import models

    return models.DeadLetterWithResourceIdentity(
        identity=models.EventSubscriptionIdentity(type="SystemAssigned"),
        dead_letter_destination=models.StorageBlobDeadLetterDestination(
            resource_id=place.storage, blob_container_name=place.container
        ),
    )


def _standing(one: Any) -> Standing:
    delivery = one.delivery_configuration
    queue = None if delivery is None else delivery.queue
    native, owned = _native_of(one.filters_configuration)
    retention = None if queue is None else queue.event_time_to_live
    settings = QueueSettings(
        lease=(queue and queue.receive_lock_duration_in_seconds) or _DEFAULT_LOCK,
        receives=(queue and queue.max_delivery_count) or MAX_RECEIVES,
        retention=None if retention is None else int(retention.total_seconds()),
        native=native,
    )
    return Standing(settings, owned, one.expiration_time_utc is not None)


def _native_of(configuration: Any) -> tuple[str, Owned]:
    """Return the filters without our mark, as text; and what the mark says."""
    if configuration is None:
        return "", Owned.NO
    native: dict[str, Any] = {}
    if configuration.included_event_types:
        native["includedEventTypes"] = configuration.included_event_types
    owned = Owned.NO
    for one in configuration.filters or ():
        written = one.serialize()
        if (found := Owned.of(written)) is Owned.NO:
            native.setdefault("filters", []).append(written)
        else:
            owned = found
    return native_text(native or None), owned
