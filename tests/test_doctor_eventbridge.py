"""Doctor on AWS: everything that it claims to find is broken on moto's server, one thing at a time, and found."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from tests.doctoring import Bad, Moved, bad, examined, of, topology_of
from tests.eventbridge_harness import REGION, World, environment, server, world
from tests.eventbridge_v2_server import STUCK
from tests.moto_world import moto_server
from tests.support import run

from crossbus import RetryPolicy, any_, exact
from crossbus.checks import State
from crossbus.config import load
from crossbus.event import new_id
from crossbus.topology import Subscription, Topic
from crossbus_eventbridge import EventBridgeAdapter
from crossbus_eventbridge.checks import CLASSIC, V2

pytestmark = pytest.mark.filterwarnings("error")

ROLE = "arn:aws:sts::123456789012:assumed-role/shop-consumer/session"
READS = ("Describe", "Get", "List", "Simulate")


def simulated(**decisions: str) -> str:
    """IAM's answer for actions: allowed, but for the decisions given by the action's name."""
    actions = [
        *("events:PutEvents", "sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:DeleteMessage"),
        *("sqs:ChangeMessageVisibility", "sqs:SendMessage"),
    ]
    members = "".join(
        f"<member><EvalActionName>{one}</EvalActionName><EvalResourceName>*</EvalResourceName>"
        f"<EvalDecision>{decisions.get(one.partition(':')[2], 'allowed')}</EvalDecision></member>"
        for one in actions
    )
    return (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        f"<EvaluationResults>{members}</EvaluationResults></SimulatePrincipalPolicyResult>"
        "</SimulatePrincipalPolicyResponse>"
    )


def identity(arn: str) -> str:
    """STS's answer to who one is."""
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{arn}</Arn><UserId>U</UserId><Account>123456789012</Account>"
        "</GetCallerIdentityResult></GetCallerIdentityResponse>"
    )


@pytest.fixture(scope="module")
def aws() -> Iterator[World]:
    with world(server()) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"d{new_id()[:10]}"


class Shop:
    """A subscription that is well, and AWS's hand to break it."""

    def __init__(self, aws: World, name: str, **more: Any) -> None:
        self.aws = aws
        self.name = name
        self.subscription = Subscription(
            topic=Topic(name), name="billing", filter=exact(type="com.acme.placed"), **more
        )
        self.rule = self.queue = f"{name}--billing"
        self.dead = f"{name}--billing--dead"
        self.profile = f"p{name}"
        self.answers(SimulatePrincipalPolicy=simulated(), GetCallerIdentity=identity(ROLE))

    def answers(self, **answers: str) -> None:
        self.aws.server.set(self.aws.key(self.profile), answers=answers)

    @functools.cached_property
    def events(self) -> Any:
        return self.aws.client("events")

    @functools.cached_property
    def sqs(self) -> Any:
        return self.aws.client("sqs")

    def url(self, **more: str) -> str:
        return self.aws.url(self.profile, **more)

    def provide(self, **more: Any) -> None:
        async def scenario() -> None:
            adapter = self.aws.adapter(**more)
            await adapter.open()
            await adapter.provision(await adapter.plan(topology_of(self.subscription)))
            await adapter.close()

        run(scenario(), limit=60)

    def bad(self, *but: str, **more: str) -> list[Bad]:
        return bad(examined(self.url(**more), self.subscription), *but)

    def wrong(self, check: str, state: State = "wrong") -> list[Bad]:
        return [Bad(state, f"{self.name}/billing", check)]

    def set(self, queue: str, **attributes: str) -> None:
        url = self.url_of(queue)
        has = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
        # moto forgets the policy with each change, AWS does not.
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": has["Policy"], **attributes})

    def url_of(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def remove_target(self) -> None:
        self.events.remove_targets(Rule=self.rule, EventBusName=self.name, Ids=["crossbus"])

    def put_target(self, id: str, arn: str) -> None:
        self.events.put_targets(
            Rule=self.rule,
            EventBusName=self.name,
            Targets=[{"Id": id, "Arn": f"arn:aws:sqs:{REGION}:1:{arn}"}],
        )

    def delete_rule(self) -> None:
        self.remove_target()
        self.events.delete_rule(Name=self.rule, EventBusName=self.name)

    def pattern(self) -> None:
        self.events.put_rule(Name=self.rule, EventBusName=self.name, EventPattern='{"detail-type":["other"]}')

    def bare_target(self) -> None:
        arn = self.sqs.get_queue_attributes(QueueUrl=self.url_of(self.queue), AttributeNames=["QueueArn"])
        targets = [{"Id": "crossbus", "Arn": arn["Attributes"]["QueueArn"]}]
        self.events.put_targets(Rule=self.rule, EventBusName=self.name, Targets=targets)

    def crowded(self) -> None:
        self.remove_target()
        for number in range(5):
            self.put_target(f"t{number}", f"q{number}")

    def redrive(self, receives: int) -> None:
        policy = {
            "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:123456789012:{self.dead}",
            "maxReceiveCount": receives,
        }
        self.set(self.queue, RedrivePolicy=json.dumps(policy))


BROKEN: dict[str, tuple[str, State, Callable[[Shop], None]]] = {
    "queue": ("queue", "wrong", lambda shop: shop.sqs.delete_queue(QueueUrl=shop.url_of(shop.queue))),
    "rule": ("rule", "wrong", Shop.delete_rule),
    "rule disabled": (
        "rule-enabled",
        "wrong",
        lambda shop: shop.events.disable_rule(Name=shop.rule, EventBusName=shop.name),
    ),
    "another pattern": ("pattern", "wrong", Shop.pattern),
    "no target": ("target", "wrong", Shop.remove_target),
    "five other targets": ("targets-limit", "wrong", Shop.crowded),
    "a target without a dead letter": ("target-dead-letter", "wrong", Shop.bare_target),
    "no policy": ("queue-policy", "wrong", lambda shop: shop.set(shop.queue, Policy="")),
    "no policy of the dead letter": ("queue-policy", "wrong", lambda shop: shop.set(shop.dead, Policy="")),
    "no dead letter": (
        "dead-letter",
        "wrong",
        lambda shop: shop.sqs.delete_queue(QueueUrl=shop.url_of(shop.dead)),
    ),
    "a dead letter that keeps four days": (
        "dead-letter-retention",
        "wrong",
        lambda shop: shop.set(shop.dead, MessageRetentionPeriod="345600"),
    ),
    "no backstop": ("backstop", "wrong", lambda shop: shop.set(shop.queue, RedrivePolicy="")),
    "another backstop": ("backstop", "wrong", lambda shop: shop.redrive(3)),
    "another lease": ("lease", "warning", lambda shop: shop.set(shop.queue, VisibilityTimeout="30")),
    "another retention": (
        "retention",
        "wrong",
        lambda shop: shop.set(shop.queue, MessageRetentionPeriod="60"),
    ),
    "small messages": ("message-size", "wrong", lambda shop: shop.set(shop.queue, MaximumMessageSize="1024")),
    "messages of the size of 2024": (
        "message-size",
        "warning",
        lambda shop: shop.set(shop.queue, MaximumMessageSize="262144"),
    ),
    "small dead messages": (
        "message-size",
        "wrong",
        lambda shop: shop.set(shop.dead, MaximumMessageSize="1024"),
    ),
    "no encryption": ("encryption", "wrong", lambda shop: shop.set(shop.queue, SqsManagedSseEnabled="false")),
    "a key that EventBridge may not use": (
        "encryption",
        "wrong",
        lambda shop: shop.set(shop.dead, KmsMasterKeyId="alias/aws/sqs"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_found_and_nothing_else(aws: World, name: str, case: str) -> None:
    check, state, break_it = BROKEN[case]
    shop = Shop(aws, name, retention=86_400.0)
    shop.provide()
    assert shop.bad() == []
    break_it(shop)
    assert shop.bad() == shop.wrong(check, state)
    if check == "targets-limit" or "key" in case:
        return  # more than provisioning is said to mend it
    for _ in range(2):  # moto forgets a queue's policy when its attributes are mended
        shop.provide()
    assert shop.bad() == []


def test_a_bus_that_is_missing(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()
    shop.delete_rule()
    shop.events.delete_event_bus(Name=name)
    found = examined(shop.url(), shop.subscription)
    assert Bad("wrong", name, "bus") in bad(found)
    line = of(found, "bus")
    assert (line.mend, line.terraform) == (
        "crossbus provision shop:bus",
        "module eventbridge, variable topology",
    )
    assert "drops" in line.why


def test_a_retention_that_no_dead_letter_can_outlive(aws: World, name: str) -> None:
    shop = Shop(aws, name, retention=14 * 86_400.0)
    shop.provide()
    assert shop.bad() == shop.wrong("dead-letter-retention")
    assert (
        "declare a shorter retention"
        in of(examined(shop.url(), shop.subscription), "dead-letter-retention").mend
    )


def test_an_external_subscription_is_only_looked_at_for_what_loses_events(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()
    shop.set(shop.queue, VisibilityTimeout="30")
    shop.pattern()
    theirs = shop.subscription.replace(external=True, on_mismatch="drop")
    found = examined(shop.url(), theirs)
    assert bad(found) == []
    listed = {one.check for one in found}
    assert {"queue", "queue-policy", "message-size"} <= listed
    assert not {"lease", "pattern", "backstop"} & listed, "what was not looked at is not called well"
    shop.set(shop.queue, Policy="")
    found = examined(shop.url(), theirs)
    assert bad(found) == shop.wrong("queue-policy")
    assert of(found, "queue-policy").mend.startswith("it is external")


def test_no_archive_though_replay_is_wanted(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()
    assert shop.bad(archive="7") == [Bad("wrong", name, "archive")]
    shop.provide(archive="7")
    assert shop.bad(archive="7") == []


def test_a_bus_that_is_nearly_full_of_rules(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()

    def put(number: int) -> None:
        shop.events.put_rule(
            Name=f"r{number}", EventBusName=name, EventPattern='{"source":["x"]}', State="DISABLED"
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(268)))
    assert shop.bad() == []
    put(268)
    assert shop.bad() == [Bad("warning", name, "rules-limit")]


def test_a_pattern_that_is_nearly_too_long(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.subscription = shop.subscription.replace(
        filter=any_(*(exact(type=f"com.acme.{'x' * 90}.{n}") for n in range(18)))
    )
    shop.provide()
    assert shop.bad("residual") == shop.wrong("pattern-size", "warning")


# --- permissions: recorded answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "check", "state"),
    [
        ("PutEvents", "publish-permitted", "warning"),
        ("ReceiveMessage", "consume-permitted", "wrong"),
        ("ChangeMessageVisibility", "consume-permitted", "wrong"),
        ("SendMessage", "dead-letter-permitted", "wrong"),
    ],
)
def test_a_permission_that_the_role_lacks(
    aws: World, name: str, action: str, check: str, state: State
) -> None:
    shop = Shop(aws, name)
    shop.provide()
    shop.answers(
        SimulatePrincipalPolicy=simulated(**{action: "implicitDeny"}), GetCallerIdentity=identity(ROLE)
    )
    found = examined(shop.url(), shop.subscription)
    about = name if action == "PutEvents" else f"{name}/billing"
    assert bad(found) == [Bad(state, about, check)]
    # A session's role, and not the session, has policies.
    assert (
        f"arn:aws:iam::123456789012:role/shop-consumer do not allow {'events' if action == 'PutEvents' else 'sqs'}"
        in (of(found, check).text)
    )


def test_what_iam_may_not_be_asked_is_unknown_and_says_what_it_needs(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()
    shop.answers()  # IAM refuses
    found = examined(shop.url(), shop.subscription)
    assert {(one.state, one.check) for one in bad(found)} == {
        ("unknown", "publish-permitted"),
        ("unknown", "consume-permitted"),
        ("unknown", "dead-letter-permitted"),
    }
    line = of(found, "consume-permitted")
    assert line.text.startswith("it needs iam:SimulatePrincipalPolicy")
    assert "run it as somebody who has it" in line.mend
    audits = [Subscription(topic=shop.subscription.topic, name=f"audit-{number}") for number in range(5)]
    examined(shop.url(), shop.subscription, *audits)
    asked = aws.server.counts(aws.key(shop.profile))["SimulatePrincipalPolicy"]
    assert asked <= 3 + 4, "who is refused once does not ask for each of 13"


@pytest.mark.parametrize(
    ("operation", "permission", "seen"),
    [
        ("DescribeEventBus", "events:DescribeEventBus", {("unknown", "looked"), ("unknown", "rules-limit")}),
        ("ListRules", "events:ListRules", {("unknown", "rules-limit")}),
        ("GetQueueAttributes", "sqs:GetQueueAttributes", {("unknown", "looked")}),
        ("DescribeRule", "events:DescribeRule", {("unknown", "looked")}),
    ],
)
def test_what_may_not_be_looked_at_is_unknown_and_names_the_permission(
    aws: World, name: str, operation: str, permission: str, seen: set[tuple[str, str]]
) -> None:
    shop = Shop(aws, name)
    shop.provide()
    answers = {"SimulatePrincipalPolicy": simulated(), "GetCallerIdentity": identity(ROLE)}
    aws.server.set(aws.key(shop.profile), answers=answers, errors=[["AccessDeniedException", operation]])
    found = examined(shop.url(), shop.subscription)
    assert {(one.state, one.check) for one in bad(found)} == seen
    assert all(permission in one.text for one in found if one.state == "unknown")


# --- the connection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_credentials_that_aws_does_not_take(aws: World, name: str, code: str) -> None:
    shop = Shop(aws, name)
    aws.server.set(aws.key(shop.profile), errors=[[code, None]])
    found = examined(shop.url(), shop.subscription)
    assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]
    assert code in of(found, "credentials").text


def test_no_credentials(aws: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    shop = Shop(aws, name)
    url = f"eventbridge:?region={REGION}&endpoint={aws.server.url}"
    found = examined(url, shop.subscription)
    assert bad(found) == [Bad("wrong", "", "credentials"), Bad("unknown", "", "looked")]


def test_no_region(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    found = examined(f"eventbridge:?endpoint={aws.server.url}&profile={shop.profile}", shop.subscription)
    assert bad(found) == [Bad("wrong", "", "configuration"), Bad("unknown", "", "looked")]
    assert "region" in of(found, "configuration").text


def test_the_wrong_region_has_nothing(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    shop.provide()
    found = examined(shop.url(region="eu-west-1"), shop.subscription)
    assert Bad("warning", "", "place") in bad(found)
    assert "region eu-west-1" in of(found, "credentials").text


def test_nothing_answers(aws: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    shop = Shop(aws, name)
    found = examined(shop.url(endpoint="http://127.0.0.1:9"), shop.subscription)
    assert bad(found) == [Bad("wrong", "", "endpoint"), Bad("unknown", "", "looked")]


@pytest.mark.parametrize("seconds", [-600.0, 600.0])
def test_a_clock_that_is_off(aws: World, name: str, seconds: float) -> None:
    shop = Shop(aws, name)
    shop.provide()
    found = examined(shop.url(), shop.subscription, clock=Moved(seconds))
    assert bad(found) == [Bad("wrong", "", "clock")]
    assert ("ahead" if seconds > 0 else "behind") in of(found, "clock").text


# --- it asks only -----------------------------------------------------------------------------------------------------


def test_it_changes_nothing_and_sends_nothing(aws: World, name: str) -> None:
    shop = Shop(aws, name)
    for url in (shop.url(), shop.url(archive="1")):
        examined(url, shop.subscription)
    shop.provide(archive="1")
    shop.pattern()
    for url in (shop.url(), shop.url(archive="1")):
        examined(url, shop.subscription)
    asked = aws.server.counts(aws.key(shop.profile))
    assert len(asked) >= 8, asked
    assert [one for one in asked if not one.startswith(READS)] == []


def test_every_difference_belongs_to_a_check() -> None:
    """So that no check is listed that cannot be found: each of the classic API's is broken above."""
    broken = {check for check, _, _ in BROKEN.values()}
    elsewhere = {"bus", "archive", "rules-limit", "pattern-size"}
    permissions = {"publish-permitted", "consume-permitted", "dead-letter-permitted"}
    assert broken | elsewhere | permissions == set(CLASSIC)


def test_attempts_beyond_the_backstop(aws: World, name: str) -> None:
    shop = Shop(aws, name, backstop=3, retry=RetryPolicy(attempts=5))
    shop.provide()
    assert shop.bad() == shop.wrong("attempts")


def test_the_newer_api_is_examined_by_the_same_frame(aws: World, name: str) -> None:
    role = "arn:aws:iam::123456789012:role/delivery"
    shop = Shop(aws, name)
    url = shop.url(api="v2", delivery_role=role)
    found = examined(url, shop.subscription)
    assert {(one.state, one.check) for one in bad(found)} >= {("wrong", "bus"), ("wrong", "queue")}

    async def provide() -> None:
        adapter = EventBridgeAdapter(load(url).default, clock=Moved(0))
        await adapter.open()
        await adapter.provision(await adapter.plan(topology_of(shop.subscription)))
        await adapter.close()

    run(provide(), limit=60)
    found = examined(url, shop.subscription)
    assert bad(found) == []
    assert {one.check for one in found if one.name} >= set(V2)
    session = boto3.Session("AKIATESTSBYHAND", "secret", region_name=REGION)
    buses = session.client("eventbridgev2", endpoint_url=aws.server.url)
    (subscriber,) = (
        one
        for one in buses.get_paginator("list_subscribers").paginate().search("Subscribers[]")
        if one["Name"] == shop.queue
    )
    arn = subscriber["SubscriberArn"]
    buses.update_subscriber(SubscriberArn=arn, State="STOPPED")
    assert bad(examined(url, shop.subscription)) == shop.wrong("subscriber-delivers")
    buses.update_subscriber(SubscriberArn=arn, State="RUNNING")
    narrowed = shop.subscription.replace(filter=exact(type="another"))
    assert bad(examined(url, narrowed)) == shop.wrong("subscriber-settings")
    buses.delete_subscriber(SubscriberArn=arn)
    assert bad(examined(url, shop.subscription)) == shop.wrong("subscriber")
    stuck = f"{name}{STUCK}"
    buses.create_event_bus(Name=stuck)
    buses.close()
    found = examined(url, Subscription(topic=Topic(stuck), name="billing"))
    assert Bad("wrong", stuck, "bus-active") in bad(found)
    assert "it is CREATING, not ACTIVE" in of(found, "bus-active").text


def test_moto_s_own_iam_refuses_and_the_permission_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a recorded answer: a user whose policy lacks one action of those that looking needs."""
    actions = ["events:Describe*", "events:List*", "sqs:GetQueueUrl", "sqs:ListQueues"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    monkeypatch.setenv(
        "INITIAL_NO_AUTH_ACTION_COUNT", "5"
    )  # so many are answered to anybody, and then IAM is asked
    with moto_server() as guarded:
        session = boto3.Session("AKIAROOT", "secret", region_name=REGION)
        iam, events, sqs = (session.client(one, endpoint_url=guarded.url) for one in ("iam", "events", "sqs"))
        iam.create_user(UserName="shop")
        iam.put_user_policy(UserName="shop", PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="shop")["AccessKey"]
        events.create_event_bus(Name=name)
        sqs.create_queue(QueueName=f"{name}--billing")
        for one in (iam, events, sqs):
            one.close()
        with environment(
            {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        ):
            found = examined(
                f"eventbridge:?region={REGION}&endpoint={guarded.url}",
                Subscription(topic=Topic(name), name="billing"),
            )
    permissions = ("publish-permitted", "consume-permitted", "dead-letter-permitted")
    assert bad(found, *permissions) == [Bad("unknown", f"{name}/billing", "looked")]
    assert "grant sqs:GetQueueAttributes to the identity" in of(found, "looked").text
    assert of(found, "bus").state == "ok"
