"""Read events from RabbitMQ: python rabbitmq.py localhost:5672 user password vhost shop"""

import json
import sys

import amqp  # the plain client below kombu; with pika the steps are the same

host, user, password, vhost, producer = sys.argv[1:]
queue = f"{producer}.events"
with amqp.Connection(host, userid=user, password=password, virtual_host=vhost) as connection:
    channel = connection.channel()
    channel.queue_declare(
        queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_bind(queue, "mailgate.events", f"{producer}.#")
    channel.basic_qos(0, 100, False)

    def on_message(message: amqp.Message) -> None:
        event = json.loads(message.body)
        who = event.get("recipient", {}).get("email", "")
        print(event["event"], event["message"]["identity"], who, flush=True)
        channel.basic_ack(message.delivery_tag)  # after your own work is done

    channel.basic_consume(queue, callback=on_message)
    while True:
        connection.drain_events()
