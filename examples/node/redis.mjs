// mailgate on Redis or Valkey: a stream to publish on, and a stream of our own events.
import Redis from "ioredis";

export async function redis(url, producer) {
  // redis+socket:///path is how mailgate writes a Unix socket.
  const client = new Redis(url.replace(/^redis\+socket:\/\//, ""));
  const stream = `mailgate:events:${producer}`;
  // From now on; keep the id of the last entry where it survives you, to go on there.
  const [newest] = await client.xrevrange(stream, "+", "-", "COUNT", 1);
  let position = newest ? newest[0] : "0";

  return {
    async publish(message) {
      await client.xadd("mailgate:inbox", "*", "message", JSON.stringify(message));
    },

    async *events() {
      for (;;) {
        const found = await client.xread("COUNT", 100, "BLOCK", 5000, "STREAMS", stream, position);
        for (const [, entries] of found ?? []) {
          for (const [id, fields] of entries) {
            yield JSON.parse(fields[fields.indexOf("event") + 1]);
            position = id; // it has been dealt with
          }
        }
      }
    },

    close: () => client.quit(),
  };
}
