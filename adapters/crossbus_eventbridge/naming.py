"""Names, ARNs and URLs: from what is declared to what AWS calls it.

A topic's `resource` is the name or ARN of a bus. A subscription's is the name, ARN or URL of its queue.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from crossbus.errors import ConfigurationError
from crossbus.names import resource_name, subscription_resource
from crossbus.profiles import Profile
from crossbus.topology import Subscription, Topic
from crossbus_eventbridge.limits import EVENTBRIDGE, RULE_NAME_LENGTH

__all__ = ["FIFO", "Api", "Arn", "Names", "Queue", "bus_name", "is_queue", "queue_of"]

Api = Literal["classic", "v2"]
FIFO: Final = ".fifo"
"""How the name of a FIFO queue ends."""

_ARN = re.compile(r"arn:(aws[a-z-]*):([a-z0-9-]+):([a-z0-9-]*):(\d{12}|):(.+)\Z")
_URL = re.compile(r"https?://[^/]+/(?:queue/)?(\d{12})/([A-Za-z0-9_-]{1,80}(?:\.fifo)?)\Z")
_BUS: Final = {
    "classic": re.compile(r"[/.\-_A-Za-z0-9]{1,256}\Z"),
    "v2": re.compile(r"[A-Za-z0-9][.\-_A-Za-z0-9]{0,255}\Z"),
}
_BUS_ARN: Final = {"classic": "event-bus/", "v2": "event-busv2/"}
_BUS_ARN_FORM: Final = {"classic": "event-bus/NAME", "v2": "event-busv2/NAME/ID"}
_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
SHARED: Final = "shared"
"""The topic's option that says that its bus has other topics too."""


class Arn(NamedTuple):
    """An Amazon Resource Name."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    def __str__(self) -> str:
        return ":".join(("arn", *self))

    @classmethod
    def parse(cls, text: str) -> Arn | None:
        """Read an ARN; None if it is none."""
        match = _ARN.match(text)
        return None if match is None else cls(*match.groups())


class Queue(NamedTuple):
    """What is known of a queue before AWS is asked."""

    name: str
    account: str = ""
    """Empty for our own."""
    url: str = ""
    """Empty until it is looked up."""
    region: str = ""
    """Empty where the name does not tell."""

    @property
    def is_fifo(self) -> bool:
        """True for a queue that keeps the order of each message group."""
        return self.name.endswith(FIFO)


def queue_of(text: str, what: str, api: Api = "classic") -> Queue:
    """Read the name, ARN or URL of a queue. Raises `ConfigurationError`."""
    arn = Arn.parse(text)
    if arn is not None and arn.service == "sqs":
        found = Queue(arn.resource, arn.account, region=arn.region)
    elif (match := _URL.match(text)) is not None:
        found = Queue(match[2], match[1], text)
    elif _QUEUE.match(text.removesuffix(FIFO)) and len(text) <= 80:
        found = Queue(text)
    else:
        raise ConfigurationError(
            f"{what}: resource {text!r} is no queue: write its name, ARN (arn:aws:sqs:REGION:ACCOUNT:NAME) or URL"
        )
    if found.is_fifo and api == "classic":
        raise ConfigurationError(
            f"{what}: {found.name!r} is a FIFO queue; a rule of a classic bus can give it one fixed message group "
            "only, which orders nothing: use a standard queue"
        )
    return found


def is_queue(arn: str) -> bool:
    """True for the ARN of an SQS queue."""
    parsed = Arn.parse(arn)
    return parsed is not None and parsed.service == "sqs"


def _fitting(text: str, what: str, api: Api, ordered: bool) -> Queue:
    found = queue_of(text, what, api)
    if found.is_fifo is not ordered:
        raise ConfigurationError(
            f"{what}: {found.name!r} is {'a FIFO' if found.is_fifo else 'a standard'} queue, and the subscription is "
            f"{'ordered, which only a FIFO queue keeps' if ordered else 'not: declare it with ordered=True'}"
        )
    return found


def bus_name(resource: str) -> str:
    """Return the name of a bus from its name or ARN."""
    arn = Arn.parse(resource)
    if arn is None:
        return resource
    kind, _, name = arn.resource.partition("/")
    return name.rpartition("/")[0] if f"{kind}/" == _BUS_ARN["v2"] else name


class Names:
    """How declared things are called at AWS."""

    def __init__(self, profile: Profile, api: Api = "classic") -> None:
        self._profile = profile
        self._api: Api = api
        self._bus = profile.parameters.get("bus")
        self._buses: dict[tuple[str, str | None], str] = {}

    def bus(self, topic: Topic) -> str:
        """Return the bus of a topic: a name, or an ARN. Raises `ConfigurationError` if it cannot be one."""
        key = topic.name, topic.resource
        found = self._buses.get(key)
        if found is None:
            found = self._buses[key] = self._find_bus(topic)
        return found

    def _find_bus(self, topic: Topic) -> str:
        if topic.resource is None and self._bus is not None:
            name = self._bus
        else:
            name = resource_name(topic, self._profile, EVENTBRIDGE.name_length, rule=EVENTBRIDGE.name_rule)
        arn = Arn.parse(name)
        if arn is None:
            if not _BUS[self._api].match(name):
                raise ConfigurationError(
                    f"topic {topic.name!r}: {name!r} is no event bus: write its name, or its ARN "
                    f"(arn:aws:events:REGION:ACCOUNT:{_BUS_ARN_FORM[self._api]})"
                )
        elif arn.service != "events" or not arn.resource.startswith(_BUS_ARN[self._api]):
            raise ConfigurationError(
                f"topic {topic.name!r}: {name!r} is the ARN of something else than an event bus of api={self._api} "
                f"({_BUS_ARN_FORM[self._api]})"
            )
        return name

    def is_shared(self, topic: Topic) -> bool:
        """True if the bus has other topics too, so that `crossbustopic` tells them apart."""
        shared = topic.options.get(SHARED)
        return bool(shared) if shared is not None else topic.resource is None and self._bus is not None

    def rule(self, subscription: Subscription) -> str:
        """Return the name of a subscription's rule: its option `rule`, or else made as every name."""
        given = subscription.options.get("rule")
        if given is not None:
            return str(given)
        return self._made(subscription, RULE_NAME_LENGTH)

    def subscriber(self, subscription: Subscription) -> str:
        """Return the name of a subscription's subscriber (api=v2): its option `subscriber`, or made as every name."""
        given = subscription.options.get("subscriber")
        if given is not None:
            return str(given)
        return self._made(subscription, EVENTBRIDGE.name_length)

    def queue(self, subscription: Subscription) -> Queue:
        """Return the queue of a subscription: a FIFO queue if that is ordered, since no other keeps order."""
        if subscription.resource is not None:
            return _fitting(
                subscription.resource, f"subscription {subscription}", self._api, subscription.ordered
            )
        end = FIFO if subscription.ordered else ""
        return Queue(self._made(subscription, EVENTBRIDGE.name_length - len(end)) + end)

    def dead_queue(self, topic: Topic) -> Queue:
        """Return the queue of a dead letter: SQS's own dead-lettering moves from a FIFO queue into one only."""
        if topic.resource is not None:
            return _fitting(topic.resource, f"dead letter {topic.name}", self._api, topic.ordered)
        end = FIFO if topic.ordered else ""
        length = EVENTBRIDGE.name_length - len(end)
        return Queue(resource_name(topic, self._profile, length, rule=EVENTBRIDGE.name_rule) + end)

    def archive(self, bus: str) -> str:
        """Return the name of the archive that provisioning makes of a bus: at most 48 characters."""
        from crossbus.names import shorten

        return shorten(bus_name(bus).replace("/", "-"), 48)

    def _made(self, subscription: Subscription, length: int) -> str:
        bare = subscription.replace(resource=None)
        return subscription_resource(bare, self._profile, length, rule=EVENTBRIDGE.name_rule)
