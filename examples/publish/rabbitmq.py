"""Publish on RabbitMQ: python rabbitmq.py localhost:5672 user password vhost < message.json"""

import json
import sys

import amqp  # the plain client below kombu; with pika the steps are the same

host, user, password, vhost = sys.argv[1:]
message = json.load(sys.stdin)
with amqp.Connection(host, userid=user, password=password, virtual_host=vhost) as connection:
    channel = connection.channel()
    channel.queue_declare("mailgate.inbox", passive=True)  # fails here if mailgate never ran
    channel.basic_publish_confirm(
        amqp.Message(
            json.dumps(message),
            content_type="application/json",
            delivery_mode=2,
            message_id=message["idempotency_key"],
        ),
        routing_key="mailgate.inbox",
    )
print("confirmed by RabbitMQ")
