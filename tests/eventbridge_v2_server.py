"""The newer EventBridge (``eventbridgev2``) on this machine: botocore's own model of it, behind HTTP.

Each request is read by the model's shapes and refused if it breaks one of them: what is required, lengths, ranges,
patterns, choices, members that are none. Each answer is written by the shapes, so that none can be invented. What the
operations do follows AWS's guide (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-custom-bus.html): buses
that take a moment to be made, events that are kept, deduplication, filters, FIFO and other subscribers, which deliver
to SQS: whatever answers under the same address. It stands in front of that as a WSGI application.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize
from tests.event_pattern import BadPattern, matches

SERVICE = "eventbridgev2"
ACCOUNT, REGION = "123456789012", "us-east-1"
MAKING_SECONDS = 0.05
STUCK = "-stuck"
"""How the name of a bus ends that is never made."""
CHANGE_SECONDS = 0.05
WINDOW = 300.0
MAX_REQUEST = 1_048_576
MAX_FILTERS = 4096
CONTENT_TYPES = {"application/json", "application/octet-stream"}
"""Avro and Protobuf would need a registry of schemas."""

_PATH = re.compile(r"/service/AWSEventsV2/operation/([A-Za-z]+)\Z")
_CONDITION = re.compile(r"\$exists\((.+)\) \? (.+) : (.+)\Z")
_FIELD = re.compile(r'\$events\.SystemMetadata\.("[^"]+"|[A-Za-z]+)\Z')

Request = dict[str, Any]


def operation_of(path: str) -> str:
    """Return the operation that a path names; empty if it is none of this service."""
    match = _PATH.match(path)
    return match[1] if match else ""


class Refused(Exception):
    """What AWS would answer with an error of the model."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- the model ----------------------------------------------------------------------------------------------------


class Model:
    """Reads and writes what the model of botocore says, and nothing else."""

    def __init__(self) -> None:
        description = botocore.loaders.Loader().load_service_model(SERVICE, "service-2")
        self.service = botocore.model.ServiceModel(description, SERVICE)
        self._reader = botocore.parsers.RpcV2CBORParser()
        self._writer = botocore.serialize.RpcV2CBORSerializer()

    def read(self, operation: str, body: bytes) -> Request:
        """Return a request. Raises `Refused` if the model does not allow it."""
        shape = self.service.operation_model(operation).input_shape
        found = self._reader.parse_data_item(self._reader.get_peekable_stream_from_bytes(body))
        problems: list[str] = []
        _check(shape, found, "", problems)
        if problems:
            text = "; ".join(problems)
            raise Refused("InvalidInputException", f"{len(problems)} validation errors detected: {text}")
        return found  # type: ignore[no-any-return]

    def write(self, operation: str, answer: dict[str, Any]) -> bytes:
        """Write an answer. Raises `KeyError` for a member that the model has not."""
        body = bytearray()
        shape = self.service.operation_model(operation).output_shape
        self._writer._serialize_data_item(body, answer, shape)
        return bytes(body)

    def refusal(self, code: str, message: str) -> tuple[int, bytes]:
        """Write an error: its HTTP status, and the answer."""
        shape = self.service.shape_for(code) if code in self.service.shape_names else None
        status = shape.metadata["error"]["httpStatusCode"] if shape is not None else 400
        body = bytearray(b"\xa2")  # a map of two
        for text in ("__type", f"aws.events#{code}", "Message", message):
            self._writer._serialize_type_string(body, text, None, None)
        return status, bytes(body)


def _check(shape: Any, value: Any, path: str, problems: list[str]) -> None:
    kind = shape.type_name
    wanted = {
        "structure": dict,
        "map": dict,
        "list": list,
        "string": str,
        "blob": bytes,
        "integer": int,
        "long": int,
        "boolean": bool,
        "timestamp": datetime,
    }[kind]
    if not isinstance(value, wanted):
        problems.append(f"{path or 'the request'} is no {kind}")
        return
    size = value if kind in ("integer", "long") else len(value) if hasattr(value, "__len__") else None
    if size is not None and kind != "structure":
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if (low is not None and size < low) or (high is not None and size > high):
            problems.append(f"{path} has {size}, must be from {low} to {high}")
    if kind == "string":
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            problems.append(f"{path} must satisfy the pattern {pattern}")
        if shape.enum and value not in shape.enum:
            problems.append(f"{path} must be one of {shape.enum}")
    elif kind == "structure":
        problems += [f"{path}.{name} is required" for name in shape.required_members if name not in value]
        for name, one in value.items():
            if name not in shape.members:
                problems.append(f"{path}.{name} is no member of {shape.name}")
            else:
                _check(shape.members[name], one, f"{path}.{name}", problems)
    elif kind == "list":
        for number, one in enumerate(value):
            _check(shape.member, one, f"{path}[{number}]", problems)
    elif kind == "map":
        for name, one in value.items():
            _check(shape.key, name, f"{path} key {name!r}", problems)
            _check(shape.value, one, f"{path}.{name}", problems)


# --- expressions and filters --------------------------------------------------------------------------------------


def evaluated(text: str, system: dict[str, str]) -> str | None:
    """Evaluate a parameter of a target: a literal, or what of JSONata names fields of `SystemMetadata`."""
    if not text.startswith("{%"):
        return text
    if not text.endswith("%}"):
        raise Refused("InvalidInputException", f"{text!r}: an expression ends with %}}")
    return _expression(text[2:-2].strip(), system)


def _expression(text: str, system: dict[str, str]) -> str | None:
    if (condition := _CONDITION.match(text)) is not None:
        there = _expression(condition[1], system) is not None
        return _expression(condition[2] if there else condition[3], system)
    if (field := _FIELD.match(text)) is None or (":" in field[1] and not field[1].startswith('"')):
        raise Refused("InvalidInputException", f"this stand-in does not know the expression {text!r}")
    return system.get(field[1].strip('"'))


def check_filters(configuration: dict[str, Any], *, create: bool) -> None:
    """Refuse filters as AWS does."""
    filters = configuration.get("Filters")
    if not filters:
        if create or configuration:
            raise Refused(
                "InvalidInputException", "FilterConfiguration.Filters must have at least one filter"
            )
        return
    scopes = [one["Scope"] for one in filters]
    if len({*scopes}) < len(scopes):
        raise Refused("InvalidInputException", "two filters of one scope")
    if sum(len(one["Pattern"].encode()) for one in filters) > MAX_FILTERS:
        raise Refused("InvalidInputException", f"the filters have more than {MAX_FILTERS} bytes")
    for one in filters:
        if "wildcard" in one["Pattern"]:
            raise Refused("InvalidInputException", "Filter pattern must not contain wildcard matchers")
        try:
            matches(one["Pattern"], {})
        except (BadPattern, ValueError) as error:
            raise Refused("InvalidInputException", f"pattern {one['Pattern']}: {error}") from error


def passes(configuration: dict[str, Any], event: dict[str, Any]) -> bool:
    """Tell whether an event passes the filters of a subscriber."""
    for one in configuration.get("Filters", ()):
        where = {"DATA": "json", "METADATA": "Metadata", "SYSTEM_METADATA": "SystemMetadata"}[one["Scope"]]
        part = event[where]
        if not isinstance(part, dict) or not matches(one["Pattern"], part):
            return False
    return True


# --- the service --------------------------------------------------------------------------------------------------


class CustomEventBuses:
    """A WSGI application that answers for ``eventbridgev2``, and passes everything else on.

    Args:
        inner: The application that answers for SQS, and all else.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.model = Model()
        self.port = 0
        """Where SQS answers: this very server."""
        self._lock = threading.RLock()
        self._buses: dict[str, dict[str, Any]] = {}
        self._subscribers: dict[str, dict[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}
        """By bus, all that was published."""
        self._seen: dict[tuple[str, str, str], float] = {}
        self._changing: dict[str, threading.Lock] = {}
        self._delivering: dict[str, threading.Lock] = {}
        self._sqs: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        operation = operation_of(environ["PATH_INFO"])
        if not operation:
            return self._inner(environ, start_response)  # type: ignore[no-any-return]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            if environ.get("HTTP_SMITHY_PROTOCOL") != "rpc-v2-cbor":
                raise Refused("InvalidInputException", "the header smithy-protocol is not rpc-v2-cbor")
            request = self.model.read(operation, body)
            answer = self.model.write(operation, getattr(self, f"_{operation}")(request, environ))
            return respond(start_response, 200, answer)
        except Refused as refused:
            return respond(start_response, *self.model.refusal(refused.code, str(refused)))

    # --- buses ----------------------------------------------------------------------------------------------------

    def _CreateEventBus(self, request: Request, _: Any) -> dict[str, Any]:
        with self._lock:
            if any(bus["Name"] == request["Name"] for bus in self._buses.values()):
                raise Refused("ResourceAlreadyExistsException", f"bus {request['Name']} exists")
            arn = f"arn:aws:events:{REGION}:{ACCOUNT}:event-busv2/{request['Name']}/{_made_up()}"
            self._buses[arn] = {
                **request,
                "EventBusArn": arn,
                "CreationTime": datetime.now(UTC),
                "ready": math.inf if request["Name"].endswith(STUCK) else time.monotonic() + MAKING_SECONDS,
            }
            self._events[arn] = []
            self._changing[arn], self._delivering[arn] = threading.Lock(), threading.Lock()
            return self._described(arn, "EventBusArn", "Name", "State", "CreationTime")

    def _described(self, arn: str, *names: str) -> dict[str, Any]:
        bus = self._buses.get(arn)
        if bus is None:
            raise Refused("ResourceNotFoundException", f"there is no bus {arn}")
        state = "ACTIVE" if time.monotonic() >= bus["ready"] else "CREATING"
        whole = {**bus, "State": state, "EventBusAccountId": ACCOUNT}
        return {name: whole[name] for name in names if name in whole}

    def _DescribeEventBus(self, request: Request, _: Any) -> dict[str, Any]:
        return self._described(request["EventBusArn"], "EventBusArn", "Name", "State", "CreationTime")

    def _ListEventBuses(self, request: Request, _: Any) -> dict[str, Any]:
        names = ("EventBusArn", "Name", "State", "CreationTime", "EventBusAccountId")
        with self._lock:
            found = [self._described(arn, *names) for arn in self._buses]
        prefix = request.get("NamePrefix", "")
        return _page([one for one in found if one["Name"].startswith(prefix)], request, "EventBuses")

    def _DeleteEventBus(self, request: Request, _: Any) -> dict[str, Any]:
        arn = request["EventBusArn"]
        with self._lock:
            self._described(arn)
            if any(one["EventBusArn"] == arn for one in self._subscribers.values()):
                raise Refused("ResourceInUseException", "the bus has subscribers")
            del self._buses[arn], self._events[arn]
        return {}

    # --- subscribers ----------------------------------------------------------------------------------------------

    def _CreateSubscriber(self, request: Request, _: Any) -> dict[str, Any]:
        bus = request["EventBusArn"]
        self._must_be_active(bus)
        self._check_subscriber(request, create=True)
        with self._change(bus), self._lock:
            if any(one["Name"] == request["Name"] for one in self._subscribers.values()):
                raise Refused("ResourceAlreadyExistsException", f"subscriber {request['Name']} exists")
            arn = f"arn:aws:events:{REGION}:{ACCOUNT}:subscriber/{request['Name']}/{_made_up()}"
            defaults = {"Type": "UNORDERED", "State": "RUNNING", "StartingPosition": "LATEST"}
            made = {**defaults, **request, "SubscriberArn": arn, "CreationTime": datetime.now(UTC)}
            made.pop("ClientToken", None)
            self._subscribers[arn] = made
        return self._subscriber_answer("CreateSubscriber", made)

    def _subscriber_answer(self, operation: str, subscriber: dict[str, Any]) -> dict[str, Any]:
        members = self.model.service.operation_model(operation).output_shape.members
        return {name: value for name, value in subscriber.items() if name in members}

    def _check_subscriber(self, request: Request, *, create: bool) -> None:
        if "FilterConfiguration" in request:
            check_filters(request["FilterConfiguration"], create=create)
        invoke = request.get("InvokeConfiguration", {})
        target = invoke.get("TargetArn")
        if create and not str(target).startswith(f"arn:aws:sqs:{REGION}:{ACCOUNT}:"):
            raise Refused("InvalidInputException", f"TargetArn {target} is not supported here")
        if any(name.endswith("Parameters") and name != "SqsParameters" for name in invoke):
            raise Refused("InvalidInputException", "Expected SqsParameters")
        for text in invoke.get("SqsParameters", {}).values():
            if isinstance(text, str):
                evaluated(text, {})

    def _UpdateSubscriber(self, request: Request, _: Any) -> dict[str, Any]:
        found = self._subscriber(request["SubscriberArn"])
        self._check_subscriber(request, create=False)
        with self._lock:
            invoke = {**found["InvokeConfiguration"], **request.pop("InvokeConfiguration", {})}
            found |= {**request, "InvokeConfiguration": invoke, "LastModifiedTime": datetime.now(UTC)}
        return self._subscriber_answer("UpdateSubscriber", found)

    def _DescribeSubscriber(self, request: Request, _: Any) -> dict[str, Any]:
        return self._subscriber_answer("DescribeSubscriber", self._subscriber(request["SubscriberArn"]))

    def _ListSubscribers(self, request: Request, _: Any) -> dict[str, Any]:
        with self._lock:
            found = [
                {
                    name: one[name]
                    for name in ("SubscriberArn", "Name", "EventBusArn", "Type", "State", "CreationTime")
                }
                | {"TargetArn": one["InvokeConfiguration"]["TargetArn"]}
                for one in self._subscribers.values()
                if request.get("EventBusArn") in (None, one["EventBusArn"])
                and one["Name"].startswith(request.get("NamePrefix", ""))
            ]
        return _page(found, request, "Subscribers")

    def _DeleteSubscriber(self, request: Request, _: Any) -> dict[str, Any]:
        found = self._subscriber(request["SubscriberArn"])
        with self._change(found["EventBusArn"]), self._lock:
            del self._subscribers[request["SubscriberArn"]]
        return {}

    def _ListTagsForResource(self, request: Request, _: Any) -> dict[str, Any]:
        arn = request["ResourceArn"]
        with self._lock:
            found = self._buses.get(arn) or self._subscriber(arn)
            return {"Tags": found.get("Tags", {})}

    def _subscriber(self, arn: str) -> dict[str, Any]:
        with self._lock:
            if arn not in self._subscribers:
                raise Refused("ResourceNotFoundException", f"there is no subscriber {arn}")
            return self._subscribers[arn]

    def _change(self, bus: str) -> _Change:
        """AWS makes one change of the subscribers of a bus at a time, and refuses another."""
        return _Change(self._changing[bus])

    def _must_be_active(self, arn: str) -> None:
        with self._lock:
            if self._described(arn, "State")["State"] != "ACTIVE":
                raise Refused("InvalidStateException", f"bus {arn} is not ACTIVE")

    # --- events ---------------------------------------------------------------------------------------------------

    def _PutRawEvents(self, request: Request, environ: dict[str, Any]) -> dict[str, Any]:
        bus = request["EventBusArn"]
        self._must_be_active(bus)
        size = sum(len(one["Data"]) for one in request["Entries"])
        size += sum(
            len(key.encode()) + len(value.encode())
            for one in request["Entries"]
            for key, value in one.get("Metadata", {}).items()
        )
        if size > MAX_REQUEST:
            raise Refused("InvalidInputException", f"the entries have {size} bytes, more than {MAX_REQUEST}")
        refused: Any = environ.get("tests.refused", {})
        results: list[dict[str, Any]] = []
        with self._delivering[bus]:
            accepted = []
            for entry in request["Entries"]:
                if code := refused.get(entry["Data"]):
                    results.append({"ErrorCode": code, "ErrorMessage": "put in by the tests"})
                    continue
                result, event = self._accept(bus, entry)
                results.append(result)
                accepted += [event] if event is not None else []
            self._deliver(bus, accepted)
        failed = sum("ErrorCode" in one for one in results)
        return {"FailedEntryCount": failed, "Entries": results}

    def _accept(self, bus: str, entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        system = entry["SystemMetadata"]
        data: bytes = entry["Data"]
        if system["ContentType"] not in CONTENT_TYPES:
            text = f"ContentType {system['ContentType']} is none of {sorted(CONTENT_TYPES)}"
            return {"ErrorCode": "InvalidInputException", "ErrorMessage": text}, None
        try:
            parsed = json.loads(data) if system["ContentType"] == "application/json" else None
        except ValueError as error:
            return {"ErrorCode": "InvalidInputException", "ErrorMessage": f"Data is no JSON: {error}"}, None
        now, id = time.monotonic(), str(uuid.uuid4())
        key = bus, system.get("EventGroupId", ""), system.get("DeduplicationId", id)
        if now - self._seen.get(key, -WINDOW) < WINDOW:
            return {"EventId": id, "SuccessCode": "DEDUPLICATED"}, None
        self._seen[key] = now
        number = f"{len(self._events[bus]):020d}"
        event = {
            "Data": data,
            "json": parsed,
            "Metadata": entry.get("Metadata", {}),
            "SystemMetadata": {
                **system,
                "aws:EventId": id,
                "aws:DeliveryType": "LIVE",
                "aws:SequenceNumber": number,
                "aws:IngestionTime": datetime.now(UTC).isoformat(),
            },
        }
        self._events[bus].append(event)
        return {"EventId": id, "SequenceNumber": number, "SuccessCode": "PUBLISHED"}, event

    def _deliver(self, bus: str, events: list[dict[str, Any]]) -> None:
        """Deliver to each subscriber what passes its filters, ten at once, in order."""
        with self._lock:
            subscribers = [one for one in self._subscribers.values() if one["EventBusArn"] == bus]
        for one in subscribers:
            found = [event for event in events if passes(one.get("FilterConfiguration", {}), event)]
            if one["State"] == "RUNNING":
                for start in range(0, len(found), 10):
                    self._send(one, found[start : start + 10])

    def _send(self, subscriber: dict[str, Any], events: list[dict[str, Any]]) -> None:
        invoke = subscriber["InvokeConfiguration"]
        given = invoke.get("SqsParameters", {})
        entries = []
        for number, event in enumerate(events):
            entry = {"Id": str(number), "MessageBody": event["Data"].decode("utf-8")}
            for name, text in given.items():
                entry[name] = evaluated(text, event["SystemMetadata"])
            entries.append(entry)
        queue = invoke["TargetArn"].rpartition(":")[2]
        try:
            answer = self.sqs.send_message_batch(QueueUrl=self._url(queue), Entries=entries)
            failed = [events[int(one["Id"])] for one in answer.get("Failed", ())]
        except Exception:
            failed = events
        dead = subscriber.get("OnFailureConfiguration", {}).get("Arn")
        for event in failed if dead else ():
            self._dead(dead.rpartition(":")[2], event)

    def _dead(self, queue: str, event: dict[str, Any]) -> None:
        """Write what AWS writes: a record without the event's data."""
        record = json.dumps(
            {"eventId": event["SystemMetadata"]["aws:EventId"], "errorCode": "put in by the tests"}
        )
        fifo = {"MessageGroupId": "failed", "MessageDeduplicationId": str(uuid.uuid4())}
        self.sqs.send_message(
            QueueUrl=self._url(queue), MessageBody=record, **(fifo if queue.endswith(".fifo") else {})
        )

    @property
    def sqs(self) -> Any:
        """The client by which it delivers: with a key of its own."""
        with self._lock:
            if self._sqs is None:
                import boto3

                session = boto3.Session("AKIAEVENTBRIDGE", "secret", region_name=REGION)
                self._sqs = session.client("sqs", endpoint_url=f"http://127.0.0.1:{self.port}")
            return self._sqs

    def _url(self, queue: str) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}/{queue}"


class _Change:
    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise Refused("ConcurrentModificationException", "another change on this bus is in progress")
        time.sleep(CHANGE_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _made_up() -> str:
    return uuid.uuid4().hex[:25]


def _page(found: list[dict[str, Any]], request: Request, name: str) -> dict[str, Any]:
    """Return a page: ten at most, so that whoever forgets the next one is found out."""
    start, most = int(request.get("NextToken", "0")), min(request.get("MaxResults", 10), 10)
    more = {"NextToken": str(start + most)} if start + most < len(found) else {}
    return {name: found[start : start + most], **more}


def respond(start_response: Any, status: int, body: bytes) -> list[bytes]:
    """Answer in the protocol of the service."""
    headers = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
    start_response(
        f"{status} {'OK' if status == 200 else 'Refused'}", [*headers, ("Content-Length", str(len(body)))]
    )
    return [body]
