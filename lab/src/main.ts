// The shell of the page: the tabs, the language, the theme, the connection's fate. Panels do the rest.
import "./theme.css";
import "./shell.css";
import { Connection } from "./connection";
import { make } from "./element";
import type { Panel } from "./panel";
import { panels } from "./panels";
import { currentLanguage, setLanguage } from "./words";
import { t } from "./words_shell";

const themes = ["auto", "light", "dark"] as const;
type Theme = (typeof themes)[number];

const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
const root = make("main", { id: "panel", tabindex: -1 });
const status = make("div", { class: "status", role: "status", "aria-live": "polite" });
let shown: Panel | null = null;
let header: HTMLElement;

setLanguage(currentLanguage());
setTheme((localStorage.getItem("everloop.theme") as Theme | null) ?? "auto");
draw();
say(t("connecting"));

connection.on("connection", ({ state, fresh, error }) => {
  if (state !== "open") return say(error ?? t("lost"), true);
  if (!shown || fresh) show(chosen());
  if (fresh) say(t("fresh"), false, 4000);
  else if (status.classList.contains("bad")) say(t("back"), false, 2500);
  else say("");
});
addEventListener("hashchange", () => connection.hello.token && show(chosen()));
addEventListener("keydown", shortcut);

function chosen(): Panel {
  return panels.find(({ key }) => location.hash === `#${key}`) ?? panels[0];
}

function show(panel: Panel): void {
  shown?.close();
  shown = panel;
  mark();
  root.replaceChildren();
  const content = make("div", { class: "panel", "data-panel": panel.key });
  root.append(make("header", { class: "about" }, make("h1", {}, panel.title()), make("p", {}, panel.about())), content);
  document.title = `${panel.title()} · Everloop ${t("lab")}`;
  panel.open(content, connection);
}

/** Everything around the panel, anew: at the start and in another language. */
function draw(): void {
  header = make(
    "header",
    { class: "shell" },
    make(
      "a",
      { class: "skip", href: "#panel", onclick: (event: Event) => (event.preventDefault(), root.focus()) },
      t("skip"),
    ),
    make("a", { class: "wordmark", href: `#${panels[0].key}` }, "everloop ", make("span", {}, t("lab"))),
    tabs(),
    make(
      "div",
      { class: "settings" },
      make(
        "button",
        { class: "plain", "data-do": "keys", title: t("keys"), "aria-label": t("keys"), onclick: listKeys },
        "?",
      ),
      make("button", { class: "plain theme", "data-do": "theme", onclick: nextTheme }),
      make(
        "button",
        { class: "plain", "data-do": "language", title: t("languageName"), onclick: otherLanguage },
        t("language"),
      ),
    ),
  );
  document.body.replaceChildren(header, root, status);
  nameTheme();
  mark();
}

function tabs(): HTMLElement {
  const list = make("nav", { class: "tabs", "aria-label": t("panels") });
  for (const { key, title } of panels) list.append(make("a", { href: `#${key}` }, title()));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...list.querySelectorAll("a")];
    const next = all[(all.indexOf(document.activeElement as HTMLAnchorElement) + step + all.length) % all.length];
    next.focus();
    next.click();
    event.preventDefault();
  });
  return list;
}

/** The open panel's tab is the only one that the Tab key stops at; arrows walk along the others. */
function mark(): void {
  const open = shown ?? chosen();
  for (const tab of header.querySelectorAll<HTMLAnchorElement>(".tabs a")) {
    const current = tab.hash === `#${open.key}`;
    tab.tabIndex = current ? 0 : -1;
    if (current) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    if (current) tab.scrollIntoView({ block: "nearest", inline: "center" });
  }
}

function shortcut(event: KeyboardEvent): void {
  const typing = (event.target as HTMLElement).closest("input, textarea, select, dialog, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const panel = panels[Number(event.key) - 1];
  if (panel) location.hash = panel.key;
  else if (event.key === "?") listKeys();
  else if (event.key === "l") otherLanguage();
  else if (event.key === "t") nextTheme();
}

function listKeys(): void {
  const all: [string, string][] = [
    [`1 – ${panels.length}`, t("keyPanels")],
    ["← →", t("keyTabs")],
    ["L", t("keyLanguage")],
    ["T", t("keyTheme")],
    ["?", t("keyList")],
    ...(shown?.keys?.() ?? []),
  ];
  const rows = all.map(([key, does]) => make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, does)));
  const close = make("button", { onclick: () => dialog.close() }, t("close"));
  const dialog = make(
    "dialog",
    { class: "keys", "aria-label": t("keys"), onclose: () => dialog.remove() },
    make("h2", {}, t("keys")),
    make("dl", {}, ...rows),
    close,
  );
  document.body.append(dialog);
  dialog.showModal();
}

function otherLanguage(): void {
  setLanguage(currentLanguage() === "en" ? "zh" : "en");
  draw();
  if (connection.state === "open") show(chosen());
  header.querySelector<HTMLElement>("[data-do=language]")!.focus();
}

function nextTheme(): void {
  setTheme(themes[(themes.indexOf(theme()) + 1) % themes.length]);
  nameTheme();
}

function theme(): Theme {
  return (document.documentElement.dataset.theme as Theme | undefined) ?? "auto";
}

function setTheme(to: Theme): void {
  localStorage.setItem("everloop.theme", to);
  document.documentElement.dataset.theme = to;
  dispatchEvent(new CustomEvent("themechange"));
}

function nameTheme(): void {
  const button = header.querySelector<HTMLElement>("[data-do=theme]")!;
  button.title = button.ariaLabel = `${t("theme")}: ${t(theme())}`;
}

function say(text: string, bad = false, forMilliseconds = 0): void {
  status.textContent = text;
  status.classList.toggle("bad", bad);
  if (forMilliseconds) setTimeout(() => status.textContent === text && say(""), forMilliseconds);
}
