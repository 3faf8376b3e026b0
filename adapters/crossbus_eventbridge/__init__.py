"""The AWS EventBridge adapter: a topic is an event bus, a subscription is a rule and an SQS queue."""

from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["EventBridgeAdapter"]
