// The studio's page. Everything is built with textContent; a mail's HTML is shown by
// a sandboxed frame alone. Where one is stands in the address: #/template?fixture=….

import { by, follows, framed, make, plural, searches, size, switches, tabbed } from "/frame/frame.js";

const TYPING = 250; // ms without a key before edited data is rendered
const TABS = ["html", "text", "source", "size"];

const state = {
  items: [],
  version: "",
  template: null, // what the server says about the chosen one
  fixture: "typical",
  locale: "",
  width: "600",
  scheme: "light",
  tab: "html",
  source: "html",
  unsubscribe: false,
  edits: new Map(), // "template/fixture" -> JSON text
  made: null,
  ticket: 0,
};

async function ask(path, posted) {
  const answer = await fetch(path, {
    cache: "no-store",
    ...(posted && { method: "POST", body: JSON.stringify(posted), headers: { "Content-Type": "application/json" } }),
  });
  if (!answer.ok) throw new Error(`the studio answered ${answer.status}`);
  return answer.json();
}

// ── The catalogue ───────────────────────────────────────────────────────────────

async function catalogue() {
  const found = await ask("/api/catalogue");
  state.items = found.items;
  state.version = found.version;
  by("roots").hidden = !found.problem;
  by("roots").textContent = found.problem;
  showCatalogue();
  showWay(found.send);
}

function showCatalogue() {
  const query = by("search").value.trim().toLowerCase();
  const fits = state.items.filter((item) => `${item.name} ${item.about}`.toLowerCase().includes(query));
  const focused = document.activeElement?.closest?.("#templates a")?.dataset.name;
  by("templates").replaceChildren(...fits.map(row));
  if (focused) by("templates").querySelector(`a[data-name="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  const broken = state.items.filter((item) => item.broken).length;
  const all = query ? `${fits.length} of ${plural(state.items.length, "template")}` : plural(state.items.length, "template");
  by("status").textContent = broken ? `${all} · ${broken} broken` : all;
}

function row(item) {
  const link = make("a");
  link.href = `#/${item.name}`;
  link.dataset.name = item.name;
  if (item.name === state.template?.name) link.setAttribute("aria-current", "true");
  link.append(make("span", item.name, "name"));
  if (item.broken) link.append(make("span", "broken", "pill broken"));
  link.append(make("small", item.about));
  const entry = make("li");
  entry.append(link);
  return entry;
}

// ── One template ────────────────────────────────────────────────────────────────

async function open(name) {
  const ticket = ++state.ticket;
  const found = name === null ? null : await ask(`/api/templates/${encodeURIComponent(name)}`).catch(() => undefined);
  if (ticket !== state.ticket) return;
  const other = found?.name !== state.template?.name;
  state.template = found ?? null;
  document.body.dataset.view = found ? "mail" : "list";
  document.title = found ? `${found.name} · Studio · mailgate` : "Studio · mailgate";
  for (const link of by("templates").querySelectorAll("a")) {
    if (link.dataset.name === found?.name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  by("none").hidden = Boolean(found);
  by("none").textContent = found === undefined ? "There is no such template." : "Choose a template to see it.";
  by("mail").hidden = by("side").hidden = !found;
  if (!found) return;
  if (other) {
    state.made = null;
    by("paper").replaceChildren();
    by("outcome").hidden = true;
    by("findings").replaceChildren(make("li", "Checking…", "none"));
    by("templates").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }
  by("title").textContent = found.name;
  by("about").textContent = found.about;
  for (const id of ["choices", "editing", "sending"]) by(id).hidden = found.broken;
  findings(found.name);
  if (found.broken) {
    problem("This template does not serve until it is mended.", found.error);
    if (other) blank();
    return;
  }
  options("fixture", Object.keys(found.fixtures), state.fixture, "typical", (key) => key);
  options("locale", found.locales, state.locale, found.default_locale, language);
  by("schema").replaceChildren(...found.variables.flatMap(variable));
  fill();
  await render();
}

function options(id, values, wanted, fallback, say) {
  by(id).replaceChildren(
    ...values.map((value) => {
      const option = make("option", say(value));
      option.value = value;
      return option;
    }),
  );
  const chosen = [wanted, fallback].find((value) => values.includes(value)) ?? values[0] ?? "";
  by(id).value = chosen;
  by(id).disabled = values.length === 0;
}

function language(tag) {
  try {
    return `${new Intl.DisplayNames(["en"], { type: "language" }).of(tag)} (${tag})`;
  } catch {
    return tag;
  }
}

function variable({ name, type, required, about }) {
  const term = make("dt");
  term.append(make("code", name), make("span", required ? type : `${type}, optional`));
  return about ? [term, make("dd", about)] : [term];
}

// ── Data ────────────────────────────────────────────────────────────────────────

const place = () => `${state.template.name}/${by("fixture").value}`;
const written = () => state.template.fixtures[by("fixture").value] ?? "{}";

function fill() {
  const edit = state.edits.get(place());
  const text = edit ?? written();
  // Somebody may be typing there: what has not changed stays as it is, cursor and all.
  if (by("data").value !== text) by("data").value = text;
  by("edited").hidden = by("reset").hidden = edit === undefined;
}

function edit() {
  if (by("data").value === written()) state.edits.delete(place());
  else state.edits.set(place(), by("data").value);
  by("edited").hidden = by("reset").hidden = !state.edits.has(place());
}

function showFaults(faults) {
  by("data").setAttribute("aria-invalid", String(faults.length > 0));
  by("faults").replaceChildren(
    ...faults.map(({ field, rule }) => {
      const item = make("li");
      item.append(make("code", field || "data"), make("span", rule));
      return item;
    }),
  );
}

// ── The mail ────────────────────────────────────────────────────────────────────

function order() {
  return {
    template: state.template.name,
    data: by("data").value,
    locale: by("locale").value || null,
    unsubscribe: by("unsubscribe").checked,
  };
}

async function render() {
  const ticket = ++state.ticket;
  remember();
  const made = await ask("/api/renderings", order()).catch((error) => ({ faults: [], problem: error.message }));
  if (ticket !== state.ticket) return;
  showFaults(made.faults);
  if (!made.id) {
    if (made.faults.length) problem("The data does not fit the schema: see beside it.", "");
    else problem("This cannot be rendered.", made.problem);
    if (!state.made) blank();
    return;
  }
  const same = state.made?.html === made.html && by("paper").childElementCount > 0;
  state.made = made;
  by("problem").hidden = true;
  by("shown").classList.remove("stale");
  by("download").hidden = by("meta").hidden = by("shown").hidden = false;
  by("download").href = `/api/renderings/${made.id}/source`;
  const header = (name) => made.headers.find(([key]) => key.toLowerCase() === name)?.[1] ?? "";
  by("meta").replaceChildren(
    ...[["Subject", header("subject")], ["From", header("from")]].flatMap(([name, text]) => [make("dt", name), make("dd", text)]),
  );
  by("text").textContent = made.text;
  showSource();
  showSize(made.size);
  // What has not changed stays where it was scrolled to.
  if (!same) frame(`/api/renderings/${made.id}/html`);
}

/** What went wrong, over the last mail that could be made. */
function problem(what, why) {
  by("problem").replaceChildren(make("b", what), why);
  by("problem").hidden = false;
  by("download").hidden = true;
  by("shown").classList.add("stale");
}

function blank() {
  by("meta").hidden = by("shown").hidden = true;
}

/** The new picture takes the place of the old one when it is there, without a flash. */
function frame(address) {
  const box = framed(address);
  box.classList.add("coming");
  box.addEventListener("load", () => {
    if (!box.isConnected) return;
    for (const other of [...by("paper").children]) if (other !== box) other.remove();
    box.classList.remove("coming");
  });
  for (const other of by("paper").querySelectorAll(".coming")) other.remove();
  by("paper").append(box);
  fit();
}

/** Each width is the mail's own: a pane that is narrower shows it smaller. */
function fit() {
  const [wide, high] = [by("paper").clientWidth, by("paper").clientHeight];
  const width = Number(state.width);
  const scale = Math.min(1, wide / width);
  if (!wide) return;
  for (const box of by("paper").children) {
    box.style.width = `${width}px`;
    box.style.height = `${high / scale}px`;
    box.style.left = `${Math.max(0, (wide - width * scale) / 2)}px`;
    box.style.transform = scale < 1 ? `scale(${scale})` : "";
  }
  by("scaled").hidden = scale === 1;
  by("scaled").textContent = `shown at ${Math.round(scale * 100)}%`;
}

function showSource() {
  by("source").textContent = state.made ? (state.source === "html" ? state.made.html : state.made.source) : "";
}

function showSize({ mail, html, text, clip, parts }) {
  const share = html / clip;
  const gauge = make("div", undefined, `gauge${share > 1 ? " over" : share > 0.8 ? " near" : ""}`);
  const bar = make("i");
  bar.style.width = `${Math.min(100, share * 100)}%`;
  gauge.append(bar);
  const verdict =
    share > 1
      ? `Gmail will cut it off: ${size(html - clip)} too much.`
      : `${Math.max(1, Math.round(share * 100))}% of the ${Math.round(clip / 1024)} KB after which Gmail cuts a mail off.`;
  const table = make("table");
  const line = (kind, cells) => {
    const row = make("tr");
    cells.forEach((cell, at) => row.append(make(at === 0 || kind === "th" ? "th" : "td", cell, at > 1 ? "n" : "")));
    return row;
  };
  const [head, body, foot] = ["thead", "tbody", "tfoot"].map((tag) => make(tag));
  head.append(line("th", ["Part", "Encoding", "Bytes", "In the mail"]));
  body.append(
    ...parts.map((part) => line("td", [part.name ? `${part.type} · ${part.name}` : part.type, part.encoding, part.bytes.toLocaleString("en"), part.wire.toLocaleString("en")])),
  );
  foot.append(line("td", ["The whole mail, with its header", "", "", mail.toLocaleString("en")]));
  table.append(head, body, foot);
  by("size").replaceChildren(
    make("h3", `HTML ${size(html)}, text ${size(text)}, mail ${size(mail)}`),
    gauge,
    make("p", verdict),
    table,
  );
}

function choose(tab) {
  state.tab = tab;
  showTab(tab);
  by("preview").hidden = tab !== "html";
  by("sources").hidden = tab !== "source";
  if (tab === "html") fit();
  remember();
}

// ── Checks ──────────────────────────────────────────────────────────────────────

async function findings(name) {
  const version = state.version;
  by("count").hidden = true;
  const found = await ask(`/api/templates/${encodeURIComponent(name)}/findings`).catch(() => null);
  if (!found || state.template?.name !== name || state.version !== version) return;
  const worst = found.items.some((item) => item.level === "error") ? "error" : "warning";
  by("count").hidden = false;
  by("count").className = `pill ${found.items.length ? worst : "good"}`;
  by("count").textContent = found.items.length || "all good";
  by("findings").replaceChildren(...found.items.map(finding));
}

function finding({ file, line, rule, level }) {
  const item = make("li", undefined, level);
  item.append(make("p", rule), make("code", line ? `${file}:${line}` : file));
  return item;
}

// ── Test mail ───────────────────────────────────────────────────────────────────

function showWay(send) {
  by("to").disabled = by("post").disabled = Boolean(send.why_not);
  if (send.why_not) by("rules").textContent = `Not possible: ${send.why_not}.`;
  else if (send.everybody) by("rules").textContent = `To any address: the local inbox (${send.host}) catches it.`;
  else by("rules").textContent = `Through ${send.relay} (${send.host}), from ${send.from}, to ${send.allowed.join(", ")}.`;
}

function outcome(kind, title, ...more) {
  by("outcome").className = `outcome ${kind}`;
  by("outcome").replaceChildren(make("b", title), ...more);
  by("outcome").hidden = false;
  by("outcome").scrollIntoView({ block: "nearest" });
}

async function post(event) {
  event.preventDefault();
  const to = by("to").value.trim();
  if (!to) {
    by("to").focus();
    return;
  }
  by("post").disabled = true;
  outcome("", "Sending…");
  try {
    const said = await ask("/api/send", { ...order(), to });
    if (said.outcome === "refused") {
      outcome("bad", "Not sent", `${said.reason[0].toUpperCase()}${said.reason.slice(1)}.`);
      if (said.faults?.length) showFaults(said.faults);
      return;
    }
    const good = said.outcome === "sent";
    const title = good ? `Sent to ${to}` : `Not sent: ${said.error_class.replaceAll("_", " ")}`;
    const where = `${said.relay} (${said.host}) ${good ? "took it" : `at ${said.phase}`} after ${said.seconds < 1 ? `${Math.ceil(said.seconds * 1000)} ms` : `${said.seconds.toFixed(1)} s`}`;
    outcome(good ? "good" : "bad", said.outcome === "uncertain" ? "Perhaps sent: no answer came" : title, where, make("code", said.reply), said.hint);
    if (good) localStorage.setItem("to", to);
  } catch (error) {
    outcome("bad", "Not sent", error.message);
  } finally {
    by("post").disabled = false;
  }
}

// ── Where one is ────────────────────────────────────────────────────────────────

/** The address says what is shown, so that a reload or a link shows the same. */
function remember() {
  if (!state.template) return;
  const said = new URLSearchParams({ width: state.width, scheme: state.scheme, tab: state.tab });
  if (!state.template.broken) {
    state.fixture = by("fixture").value;
    state.locale = by("locale").value;
    said.set("fixture", state.fixture);
    said.set("locale", state.locale);
  }
  if (by("unsubscribe").checked) said.set("unsubscribe", "1");
  history.replaceState(null, "", `#/${state.template.name}?${said}`);
}

const narrow = window.matchMedia("(max-width: 760px)");

async function follow() {
  const found = /^#\/([a-z0-9_-]+)(?:\?(.*))?$/.exec(location.hash);
  const left = state.template?.name;
  if (found?.[2]) {
    const said = new URLSearchParams(found[2]);
    for (const key of ["fixture", "locale"]) state[key] = said.get(key) ?? state[key];
    by("unsubscribe").checked = said.has("unsubscribe");
    if (["375", "600", "800"].includes(said.get("width"))) pressWidth(said.get("width"));
    if (["light", "dark"].includes(said.get("scheme"))) pressScheme(said.get("scheme"));
    if (TABS.includes(said.get("tab"))) choose(said.get("tab"));
  }
  await open(found ? found[1] : null);
  if (!narrow.matches) return;
  // One column: the keyboard follows what is on show.
  if (found && state.template) by("mail").focus();
  else by("templates").querySelector(`a[data-name="${left}"]`)?.focus();
}

// ── Live ────────────────────────────────────────────────────────────────────────

let stream = null;

function listen() {
  stream?.close();
  stream = new EventSource("/api/changes");
  stream.addEventListener("message", async (event) => {
    by("live").dataset.state = "on";
    if (event.data === state.version) {
      if (!by("live").textContent.startsWith("Read")) by("live").textContent = "Watching the files";
      return;
    }
    await catalogue().catch(() => {});
    if (state.template) await open(state.template.name);
    by("live").textContent = `Read again at ${new Date().toLocaleTimeString()}`;
  });
  stream.addEventListener("error", () => {
    by("live").dataset.state = "off";
    by("live").textContent = "The studio does not answer";
  });
}

// ── What people do ──────────────────────────────────────────────────────────────

const showTab = tabbed(TABS, choose);
const pressWidth = switches("width", (width) => {
  state.width = width;
  fit();
  remember();
});
const pressScheme = switches("scheme", (chosen, others) => {
  state.scheme = chosen;
  by("paper").classList.remove(...others);
  by("paper").classList.add(chosen);
  remember();
});
const pressSource = switches("source", (source) => {
  state.source = source;
  showSource();
});
new ResizeObserver(fit).observe(by("paper"));

by("fixture").addEventListener("change", () => {
  fill();
  render();
});
by("locale").addEventListener("change", render);
by("unsubscribe").addEventListener("change", render);
let typing = 0;
by("data").addEventListener("input", () => {
  edit();
  clearTimeout(typing);
  typing = setTimeout(render, TYPING);
});
by("reset").addEventListener("click", () => {
  state.edits.delete(place());
  fill();
  render();
  by("data").focus();
});
by("send").addEventListener("submit", post);
by("search").addEventListener("input", showCatalogue);
follows("templates");
searches();
window.addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => {
  // A browser has few connections to one place: a page that nobody sees leaves its own.
  if (document.hidden) stream?.close();
  else listen();
});

pressWidth(narrow.matches ? "375" : "600");
pressScheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
pressSource("html");
choose("html");
by("to").value = localStorage.getItem("to") ?? "";
await catalogue();
await follow();
listen();
