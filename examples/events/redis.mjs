// Read events from Redis: npm install ioredis
// node redis.mjs redis://localhost:6379/0 shop
import Redis from "ioredis";

const [url, producer] = process.argv.slice(2);
const client = new Redis(url);
let position = "0"; // keep it where it survives you, to go on there
for (;;) {
  const found = await client.xread("COUNT", 100, "BLOCK", 5000, "STREAMS", `mailgate:events:${producer}`, position);
  for (const [, entries] of found ?? []) {
    for (const [id, fields] of entries) {
      const event = JSON.parse(fields[1]);
      console.log(event.event, event.message.identity, event.recipient?.email ?? "");
      position = id;
    }
  }
}
