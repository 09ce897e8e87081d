// What every local page does alike. Everything is built with textContent: what a
// mail or a file says is never markup here.

export const by = (id) => document.getElementById(id);

export function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const kb = bytes / 1000;
  return kb < 1000 ? `${kb.toFixed(kb < 10 ? 1 : 0)} kB` : `${(kb / 1000).toFixed(1)} MB`;
}

export function plural(count, one) {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

/** A sandboxed frame for a mail's HTML. */
export function framed(address) {
  const box = make("iframe");
  box.title = "The mail as HTML";
  box.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
  box.referrerPolicy = "no-referrer";
  box.src = address;
  return box;
}

/** Tabs `tab-NAME` over panels `panel-NAME`; returns what shows one without choosing it. */
export function tabbed(names, choose) {
  for (const name of names) by(`tab-${name}`).addEventListener("click", () => choose(name));
  by(`tab-${names[0]}`).parentElement.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const possible = names.filter((name) => !by(`tab-${name}`).disabled);
    const at = possible.findIndex((name) => by(`tab-${name}`) === document.activeElement);
    const next = possible[(at + step + possible.length) % possible.length];
    choose(next);
    by(`tab-${next}`).focus();
    event.preventDefault();
  });
  return (shown) => {
    for (const name of names) {
      by(`tab-${name}`).setAttribute("aria-selected", String(name === shown));
      by(`tab-${name}`).tabIndex = name === shown ? 0 : -1;
      by(`panel-${name}`).hidden = name !== shown;
    }
  };
}

/** Buttons with `data-KIND`, one of them pressed; `change` is told the new one and the others. */
export function switches(kind, change) {
  const buttons = [...document.querySelectorAll(`button[data-${kind}]`)];
  const press = (value) => {
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset[kind] === value));
    }
    change(value, buttons.map((one) => one.dataset[kind]).filter((one) => one !== value));
  };
  for (const button of buttons) button.addEventListener("click", () => press(button.dataset[kind]));
  return press;
}

/** Up and down move along the links of a list. */
export function follows(list) {
  by(list).addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const links = [...by(list).querySelectorAll("a")];
    links[links.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  });
}

/** "/" goes to the search field, Escape clears and leaves it. */
export function searches() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, dialog");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      by("search").focus();
      event.preventDefault();
    } else if (event.key === "Escape" && event.target === by("search")) {
      by("search").value = "";
      by("search").dispatchEvent(new Event("input"));
      by("search").blur();
    }
  });
}
