// Puts jobs on the peer's queue: a command a line on standard input, "ok" for each.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");
const from = createRequire(path.join(process.env.PEER_MODULES, "x.js"));
const { Queue } = from("bullmq");

const queue = new Queue("mail", { connection: { path: process.env.PEER_REDIS, db: 2 } });
const job = (line) => ({ name: "send", data: JSON.parse(line) });
const acts = {
  pause: () => queue.pause(),
  resume: () => queue.resume(),
  add: (line) => queue.add("send", JSON.parse(line)),
  load: async (file) => {
    const lines = fs.readFileSync(file, "utf8").split("\n").filter(Boolean);
    for (let at = 0; at < lines.length; at += 500)
      await queue.addBulk(lines.slice(at, at + 500).map(job));
  },
  left: async () => {
    const counts = await queue.getJobCounts("wait", "paused", "active", "delayed", "failed");
    return Object.values(counts).reduce((a, b) => a + b, 0);
  },
};
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const cut = line.indexOf(" ");
    const [verb, rest] = cut < 0 ? [line, ""] : [line.slice(0, cut), line.slice(cut + 1)];
    const said = await acts[verb](rest);
    process.stdout.write(`ok ${verb === "left" ? said : ""}\n`);
  }
  await queue.close();
  process.exit(0);
})();
