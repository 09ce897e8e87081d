// The page of the local inbox. It builds everything with textContent: what a mail
// says is never markup here. A mail's HTML is shown by a sandboxed frame alone.

import { by, follows, framed, make, plural, searches, size, switches, tabbed } from "/frame/frame.js";

const EVERY = 1500; // ms between two looks for new mail
const PAGE = 100;
const SHOWN = 512 * 1024; // most of a source that is put on the page

const tabs = ["html", "text", "headers", "source"];
const state = { query: "", limit: PAGE, etag: "", items: [], known: null, fresh: new Set(), chosen: null, tab: "html", source: null };

function when(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}

// ── The list ────────────────────────────────────────────────────────────────────

async function refresh() {
  const asked = new URLSearchParams({ q: state.query, limit: state.limit });
  const answer = await fetch(`/api/mails?${asked}`, {
    cache: "no-store",
    headers: state.etag ? { "If-None-Match": state.etag } : {},
  });
  if (answer.status === 304) return;
  if (!answer.ok) throw new Error(`the inbox answered ${answer.status}`);
  const found = await answer.json();
  if (asked.get("q") !== state.query) return; // an older question
  state.etag = answer.headers.get("etag") || "";
  state.items = found.items;
  showList(found);
}

function showList(found) {
  const list = by("mails");
  const focused = document.activeElement?.closest?.("#mails a")?.dataset.number;
  const newest = Math.max(0, ...found.items.map((mail) => mail.id));
  for (const { id } of found.items) if (state.known !== null && id > state.known) state.fresh.add(id);
  state.known = Math.max(state.known ?? 0, newest);
  list.replaceChildren(...found.items.map(row));
  if (focused) list.querySelector(`a[data-number="${focused}"]`)?.focus({ preventScroll: true });
  by("empty").hidden = found.total > 0;
  document.body.classList.toggle("nothing", found.total === 0);
  by("smtp").textContent = found.smtp;
  by("clear").disabled = found.total === 0;
  by("more").hidden = found.items.length >= found.matching;
  const status = state.query
    ? `${found.matching} of ${plural(found.total, "mail")}`
    : plural(found.total, "mail");
  if (by("status").textContent !== status) by("status").textContent = status;
  by("status").hidden = found.total === 0;
  document.title = found.total ? `Inbox (${found.total}) · mailgate` : "Inbox · mailgate";
}

function row(mail) {
  const item = make("li");
  const link = make("a");
  link.href = `#/${mail.id}`;
  link.dataset.number = mail.id;
  if (mail.id === state.chosen) link.setAttribute("aria-current", "true");
  if (state.fresh.has(mail.id)) link.classList.add("fresh");
  const time = make("time", when(mail.received_at));
  time.dateTime = new Date(mail.received_at).toISOString();
  link.append(
    make("span", mail.subject || "(no subject)", "subject"),
    make("span", `To ${mail.rcpt_to.join(", ")}`, "to"),
    time,
  );
  item.append(link);
  return item;
}

async function watch() {
  try {
    if (!document.hidden) await refresh();
  } catch (error) {
    by("status").hidden = false;
    by("status").textContent = "The inbox does not answer; trying again…";
    state.etag = "";
  }
  setTimeout(watch, EVERY);
}

// ── One mail ────────────────────────────────────────────────────────────────────

async function open(number) {
  state.chosen = number;
  state.source = null;
  state.fresh.delete(number);
  for (const link of by("mails").querySelectorAll("a")) {
    const chosen = Number(link.dataset.number) === number;
    if (chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    if (chosen) link.classList.remove("fresh");
  }
  document.body.dataset.view = number === null ? "list" : "mail";
  by("mail").hidden = true;
  by("none").hidden = false;
  by("none").textContent = "Choose a mail to read it.";
  by("paper").replaceChildren();
  if (number === null) return;
  const answer = await fetch(`/api/mails/${number}`, { cache: "no-store" });
  if (state.chosen !== number) return;
  if (!answer.ok) {
    by("none").textContent = "That mail is no longer here.";
    document.body.dataset.view = "list";
    return;
  }
  show(await answer.json());
}

function show(mail) {
  const path = `/api/mails/${mail.id}`;
  by("none").hidden = true;
  by("mail").hidden = false;
  by("title").textContent = mail.subject || "(no subject)";
  by("download").href = `${path}/source?download`;
  const envelope = `${mail.mail_from || "<>"} → ${mail.rcpt_to.join(", ")}`;
  const said = [
    ["From", mail.from || "(none)"],
    ["To", mail.to || "(none)"],
    ["Envelope", envelope],
    ["Received", `${new Date(mail.received_at).toLocaleString()} · ${size(mail.size)}`],
  ];
  by("meta").replaceChildren(...said.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  by("attachments").hidden = mail.attachments.length === 0;
  by("attachments").replaceChildren(...mail.attachments.map((file) => attachment(path, file)));
  by("fault").hidden = mail.fault === null;
  by("fault").textContent = mail.fault ?? "";

  by("text").textContent = mail.text ?? "";
  by("headers").replaceChildren(
    ...mail.headers.flatMap(([name, text]) => [make("dt", name), make("dd", text)]),
  );
  by("source").textContent = "";
  by("tab-html").disabled = !mail.html;
  by("tab-text").disabled = mail.text === null;
  by("tab-headers").disabled = mail.headers.length === 0;
  if (mail.html) by("paper").replaceChildren(framed(`${path}/html`));
  const possible = tabs.filter((name) => !by(`tab-${name}`).disabled);
  choose(possible.includes(state.tab) ? state.tab : possible[0], false);
  by("mail").scrollTop = 0;
}

function attachment(path, file) {
  const item = make("li");
  const link = make("a");
  link.href = `${path}/attachments/${file.number}`;
  link.download = file.filename;
  link.title = `${file.filename} · ${file.content_type}`;
  link.append(make("b", file.filename), make("small", `${size(file.size)}${file.inline ? " · inline" : ""}`));
  item.append(link);
  return item;
}

function choose(name, remember = true) {
  if (remember) state.tab = name;
  showTab(name);
  by("preview").hidden = name !== "html";
  if (name === "source") source();
}

async function source() {
  const number = state.chosen;
  if (state.source === number) return;
  state.source = number;
  const answer = await fetch(`/api/mails/${number}/source`, { cache: "no-store" });
  const text = await answer.text();
  if (state.chosen !== number) return;
  by("source").textContent =
    text.length > SHOWN ? `${text.slice(0, SHOWN)}\n… (${size(text.length)} in all: download it)` : text;
}

async function remove(number) {
  const at = state.items.findIndex((mail) => mail.id === number);
  const next = state.items[at + 1] ?? state.items[at - 1];
  await fetch(`/api/mails/${number}`, { method: "DELETE" });
  location.hash = next && !narrow.matches ? `#/${next.id}` : "#/";
  await refresh();
}

// ── What people do ──────────────────────────────────────────────────────────────

const narrow = window.matchMedia("(max-width: 760px)");

async function follow() {
  const found = /^#\/(\d+)$/.exec(location.hash);
  const left = state.chosen;
  await open(found ? Number(found[1]) : null);
  if (!narrow.matches) return;
  // One column: the keyboard follows what is on show.
  if (found) by("mail").focus();
  else by("mails").querySelector(`a[data-number="${left}"]`)?.focus();
}

by("search").addEventListener("input", () => {
  state.query = by("search").value.trim();
  state.limit = PAGE;
  state.etag = "";
  refresh().catch(() => {});
});
by("more").addEventListener("click", () => {
  state.limit = Math.min(state.limit + PAGE * 2, 1000);
  state.etag = "";
  refresh().catch(() => {});
});
by("delete").addEventListener("click", () => remove(state.chosen));
by("clear").addEventListener("click", () => {
  by("confirm-text").textContent = "Every mail in this inbox will be gone for good.";
  by("confirm").returnValue = "no";
  by("confirm").showModal();
});
by("confirm").addEventListener("close", async () => {
  if (by("confirm").returnValue !== "yes") return;
  await fetch("/api/mails", { method: "DELETE" });
  location.hash = "#/";
  await refresh();
});

const showTab = tabbed(tabs, choose);
for (const kind of ["width", "scheme"]) {
  switches(kind, (chosen, others) => {
    by("paper").classList.remove(...others);
    by("paper").classList.add(chosen);
  });
}
follows("mails");
searches();

window.addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh().catch(() => {});
});
follow();
watch();
