// Publish on a Redis stream: npm install ioredis
// node redis.mjs redis://localhost:6379/0 < message.json
import { text } from "node:stream/consumers";
import Redis from "ioredis";

const message = JSON.parse(await text(process.stdin));
const client = new Redis(process.argv[2]);
const entry = await client.xadd("mailgate:inbox", "*", "message", JSON.stringify(message));
console.log("accepted by Redis as", entry);
await client.quit();
