// A shop: publishes orders' confirmations and says what became of each, by its events.
// node shop.mjs URL COUNT, with an amqp:// or a redis:// URL
import { randomUUID } from "node:crypto";
import { rabbitmq } from "./rabbitmq.mjs";
import { redis } from "./redis.mjs";

const [url, count = "3"] = process.argv.slice(2);
const producer = "shop";
const gateway = await (url.startsWith("amqp") ? rabbitmq : redis)(url, producer);

function confirmation(order) {
  return {
    version: 1,
    producer,
    idempotency_key: `order-${order}`, // published twice, it is still one mail
    to: `buyer+${order}@example.com`,
    template: "notice",
    data: { title: `Order ${order}`, body: "Thank you. It is on its way." },
    metadata: { order },
  };
}

const first = randomUUID().slice(0, 8);
const waiting = new Set();
for (let n = 1; n <= Number(count); n++) {
  const message = confirmation(`${first}-${n}`);
  waiting.add(message.idempotency_key);
  await gateway.publish(message);
  console.log("published", message.idempotency_key);
}

const seen = new Set(); // events come at least once: a repeat has the same id
for await (const event of gateway.events()) {
  const key = event.message?.idempotency_key;
  if (seen.has(event.id) || !waiting.has(key)) continue;
  seen.add(event.id);
  console.log(event.event, key, event.attempt?.relay ?? "");
  if (event.final) waiting.delete(key);
  if (waiting.size === 0) break;
}
await gateway.close();
console.log("done");
