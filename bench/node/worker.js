// What a team on Node writes: BullMQ, a template that was inlined once, a pooled nodemailer.
// It has what its authors would give it, and none of what mailgate adds.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");
const from = createRequire(path.join(process.env.PEER_MODULES, "x.js"));
const { Worker } = from("bullmq");
const juice = from("juice");
const nodemailer = from("nodemailer");
const nunjucks = from("nunjucks");

const templates = new nunjucks.Environment(null, { autoescape: true });
templates.addFilter("url", (value) => value);
const plain = new nunjucks.Environment(null, { autoescape: false });
const folder = path.join(process.env.PEER_TEMPLATES, "orders");
const read = (name) => fs.readFileSync(path.join(folder, name), "utf8");
const html = nunjucks.compile(juice(read("en.html")), templates);
const subject = nunjucks.compile(read("en.subject").trim(), plain);
const text = nunjucks.compile(
  "Thank you, {{ name }}\n\nWe have your order {{ order }} and are packing it.\n\n" +
    "{% for item in items %}{{ item.title }} ({{ item.url }})\n{{ item.detail }}\n" +
    "{{ item.count }}  {{ item.price }}\n\n{% endfor %}Total {{ total }}\n\n" +
    "See your order: {{ url }}\n",
  plain,
);
const relay = nodemailer.createTransport({
  host: "127.0.0.1",
  port: Number(process.env.PEER_RELAY),
  ignoreTLS: true,
  pool: true,
  maxConnections: 8,
  maxMessages: Infinity,
});

const worker = new Worker(
  "mail",
  async (job) => {
    const { to, data } = job.data;
    await relay.sendMail({
      from: process.env.PEER_SENDER,
      to,
      subject: subject.render(data),
      text: text.render(data),
      html: html.render(data),
    });
  },
  {
    connection: { path: process.env.PEER_REDIS, db: 2, maxRetriesPerRequest: null },
    concurrency: 16,
    removeOnComplete: { count: 0 },
  },
);
process.on("SIGTERM", async () => {
  await worker.close();
  relay.close();
  process.exit(0);
});
