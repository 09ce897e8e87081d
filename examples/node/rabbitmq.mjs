// mailgate on RabbitMQ: confirmed publishing, and a durable queue of our own events.
import { once, EventEmitter } from "node:events";
import amqplib from "amqplib";

export async function rabbitmq(url, producer) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.checkQueue("mailgate.inbox"); // fails here if mailgate never ran
  // Bound before anything is published: what no queue is bound for is gone.
  const { queue } = await channel.assertQueue(`${producer}.events`, {
    durable: true,
    arguments: { "x-queue-type": "quorum" },
  });
  await channel.bindQueue(queue, "mailgate.events", `${producer}.#`);

  return {
    async publish(message) {
      channel.sendToQueue("mailgate.inbox", Buffer.from(JSON.stringify(message)), {
        contentType: "application/json",
        persistent: true,
        messageId: message.idempotency_key,
      });
      await channel.waitForConfirms();
    },

    async *events() {
      const inbox = [];
      const bell = new EventEmitter();
      await channel.prefetch(100);
      await channel.consume(queue, (delivery) => {
        inbox.push(delivery);
        bell.emit("come");
      });
      for (;;) {
        if (inbox.length === 0) await once(bell, "come");
        const delivery = inbox.shift();
        yield JSON.parse(delivery.content.toString());
        channel.ack(delivery); // it has been dealt with
      }
    },

    close: () => connection.close(),
  };
}
