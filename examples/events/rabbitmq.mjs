// Read events from RabbitMQ: npm install amqplib
// node rabbitmq.mjs amqp://user:password@localhost/vhost shop
import amqplib from "amqplib";

const [url, producer] = process.argv.slice(2);
const connection = await amqplib.connect(url);
const channel = await connection.createChannel();
const { queue } = await channel.assertQueue(`${producer}.events`, {
  durable: true,
  arguments: { "x-queue-type": "quorum" },
});
await channel.bindQueue(queue, "mailgate.events", `${producer}.#`);
await channel.prefetch(100);
await channel.consume(queue, (message) => {
  const event = JSON.parse(message.content.toString());
  console.log(event.event, event.message.identity, event.recipient?.email ?? "");
  channel.ack(message); // after your own work is done
});
