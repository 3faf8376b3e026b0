"""Google Cloud Pub/Sub as an adapter of crossbus."""

from crossbus_pubsub.adapter import PubSubAdapter

__all__ = ["PubSubAdapter"]
