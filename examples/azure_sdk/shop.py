"""A program with nothing but Azure's SDK. `crossbus serve` takes the place of an Event Grid namespace.

pip install azure-eventgrid
crossbus serve            # in another terminal
python shop.py
"""

import os

from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridConsumerClient, EventGridPublisherClient

endpoint = os.environ.get("EVENTGRID_ENDPOINT", "http://127.0.0.1:8787")
key = AzureKeyCredential(os.environ.get("EVENTGRID_KEY", "any key will do"))

publisher = EventGridPublisherClient(endpoint, key, namespace_topic="orders")
billing = EventGridConsumerClient(endpoint, key, namespace_topic="orders", subscription="billing")


def order(number: str, total: float) -> CloudEvent:
    return CloudEvent(source="/shop", type="com.acme.order.placed", data={"order": number, "total": total})


with publisher, billing:
    publisher.send([order("o-1", 12.5), order("o-2", -1), order("o-3", 80.0)])

    done, wrong = [], []
    for received in billing.receive(max_events=10, max_wait_time=10):
        data, token = received.event.data, received.broker_properties.lock_token
        print(f"{data['order']}: {data['total']:.2f}, delivery {received.broker_properties.delivery_count}")
        (done if data["total"] > 0 else wrong).append(token)

    billing.acknowledge(lock_tokens=done)
    billing.reject(lock_tokens=wrong)  # to the dead letter
    print(f"acknowledged {len(done)}, rejected {len(wrong)}")
