// Publish on RabbitMQ: npm install amqplib
// node rabbitmq.mjs amqp://user:password@localhost/vhost < message.json
import { text } from "node:stream/consumers";
import amqplib from "amqplib";

const message = JSON.parse(await text(process.stdin));
const connection = await amqplib.connect(process.argv[2]);
const channel = await connection.createConfirmChannel();
await channel.checkQueue("mailgate.inbox"); // fails here if mailgate never ran
channel.sendToQueue("mailgate.inbox", Buffer.from(JSON.stringify(message)), {
  contentType: "application/json",
  persistent: true,
  messageId: message.idempotency_key,
});
await channel.waitForConfirms();
console.log("confirmed by RabbitMQ");
await connection.close();
