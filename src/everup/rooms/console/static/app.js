// Begins: signs in, follows, and shows the view that the address names.

import { say, wrong } from "/act.js";
import { get, signIn, signOut } from "/api.js";
import { h, put, replace } from "/dom.js";
import { events } from "/events.js";
import { bytes, clock, span } from "/format.js";
import { incident, incidents } from "/incident.js";
import { service } from "/service.js";
import { services } from "/services.js";
import { listen, run, state } from "/store.js";
import { language, switchLanguage, t } from "/words.js";

const main = document.querySelector("main");
const header = document.querySelector("header.top");
const lost = document.querySelector(".link-lost");
const THEMES = ["auto", "dark", "light"];
let view = null;
let parts = {};

function theme(next) {
  let chosen = "auto";
  try {
    if (next) localStorage.setItem("everup.theme", next);
    chosen = localStorage.getItem("everup.theme") || "auto";
  } catch {
    chosen = next || "auto";
  }
  document.documentElement.dataset.theme = chosen;
  return chosen;
}

// -- the frame

function frame() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  put(document.querySelector(".skip"), language() === "zh" ? "跳到内容" : "Skip to the content");
  const nav = ["services", "events"].map((name) => h("a", { href: name === "services" ? "#/" : `#/${name}`, "data-view": name }, t(name)));
  parts = { nav, link: h("span", { class: "link" }), node: h("span", { class: "node" }), machine: h("span", { class: "dim machine" }) };
  const chosen = theme();
  replace(header,
    h("a", { class: "brand", href: "#/", "aria-label": "everup" }, h("img", { src: "/icon.svg", alt: "", width: 22, height: 22 }), h("b", {}, "everup")),
    parts.node,
    h("nav", { "aria-label": "everup" }, nav),
    parts.link, parts.machine,
    h("span", { class: "tools" },
      h("button", { class: "small", title: t("theme"), onclick: () => {
        theme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
        frame();
        status();
      } }, `${t("theme")}: ${t(`theme_${chosen}`)}`),
      h("button", { class: "small", lang: language() === "zh" ? "en" : "zh-CN", title: t("language_hint"), onclick: () => {
        switchLanguage();
        frame();
        show();
      } }, t("language")),
      state.user ? h("button", { class: "small", title: t("user", { user: state.user }), onclick: leave }, t("sign_out")) : null));
}

async function leave() {
  await signOut().catch((error) => say(wrong(error), "bad"));
  location.reload();
}

let lostSince = 0;
function status() {
  const { head } = state;
  const live = state.link === "live";
  const answers = !head || head.answers;
  if (live && answers) lostSince = 0;
  else if (!lostSince) lostSince = state.heard || Date.now();
  parts.link.className = `link ${live ? (answers ? "live" : "away") : "lost"}`;
  put(parts.link, live ? t("live") : state.heard ? t("lost") : t("connecting"));
  if (head) {
    put(parts.node, head.node);
    const m = head.machine;
    if (m.load && m.memory_available_bytes) put(parts.machine, t("machine", { cpus: m.cpus, cpu: `${Math.round(m.cpu_percent ?? 0)} %`, load: (m.load || [])[0] ?? "–", mem: bytes(m.memory_available_bytes) }));
  }
  const at = clock(lostSince / 1000);
  let text = "";
  if (!live && state.heard && Date.now() - state.heard > 1500) text = t("lost_long", { for: span((Date.now() - state.heard) / 1000), at: clock(state.heard / 1000) });
  else if (live && !answers) text = t("away", { at });
  else if (head && head.stopping) text = t("stopping");
  else if (head && head.journal) text = t("journal", { why: head.journal });
  put(lost, text);
  lost.hidden = !text;
  main.classList.toggle("stale", !live && state.heard > 0);
}

// -- views

function made() {
  const [path, search = ""] = location.hash.slice(1).split("?");
  const [, name = "", what = ""] = path.split("/").map(decoded);
  if (name === "") return services();
  if (name === "service" && what) return service(what);
  if (name === "incident" && what) return incident(what);
  if (name === "incidents") return incidents();
  if (name === "events") return events(new URLSearchParams(search));
  return { element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, t("not_there")), h("a", { href: "#/" }, t("back"))), draw: () => "", title: "" };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show(moved = false) {
  if (state.link === "out") return;
  view?.close?.();
  view = made();
  replace(main, view.element);
  document.title = view.title ? `${view.title} · everup` : "everup";
  const place = location.hash.startsWith("#/events") ? "events" : "services";
  for (const a of parts.nav) {
    if (a.dataset.view === place) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  draw();
  if (moved) {
    scrollTo(0, 0);
    (main.querySelector("h1") || main).focus({ preventScroll: true });
  }
}

function draw() {
  status();
  if (!state.head || !view) return;
  const news = view.draw();
  if (news) say(news, "quiet");
}

function out(text) {
  state.link = "out";
  view?.close?.();
  view = null;
  status();
  lost.hidden = true;
  put(parts.link, "");
  const failed = h("p", { class: "failed", role: "alert", hidden: !text }, text || "");
  const link = h("input", { id: "link", required: true, autocomplete: "off", spellcheck: "false" });
  replace(main, h("div", { class: "view out" },
    h("h1", { tabindex: "-1" }, t("signed_out")),
    h("p", {}, t("signed_out_long")), h("pre", {}, "everup console"),
    h("form", { onsubmit: async (event) => {
      event.preventDefault();
      try {
        if (await signIn(link.value.trim().replace(/^[^#]*/, ""))) await enter();
        else throw Object.assign(new Error(t("not_a_link")), { status: 400 });
      } catch (error) {
        failed.textContent = wrong(error);
        failed.hidden = false;
      }
    } }, h("label", { for: "link" }, t("paste")), link, h("button", { class: "main" }, t("open"))),
    failed));
  document.title = `${t("signed_out")} · everup`;
}

async function enter() {
  state.user = (await get("/api/me")).user;
  state.link = "lost";
  frame();
  show();
  run();
}

// -- begin

theme();
frame();
listen((what) => (what === "out" ? out("") : draw()));
addEventListener("hashchange", async () => {
  if (/^#[\w-]{43}$/.test(location.hash)) {
    await signIn().catch((error) => out(wrong(error)));
    location.reload();
    return;
  }
  if (location.hash === "#main") {
    history.replaceState(null, "", "#/");
    main.focus();
    return;
  }
  show(true);
});
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName || "");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !document.querySelector("dialog[open]")) {
    if (view?.focus) {
      event.preventDefault();
      view.focus();
    }
  }
});
setInterval(() => {
  const at = Date.now() / 1000;
  for (const element of document.querySelectorAll("time[data-since]")) put(element, span(at - Number(element.dataset.since)));
  for (const element of document.querySelectorAll("time[data-until]")) put(element, span(Number(element.dataset.until) - at));
  status();
}, 1000);

try {
  await signIn();
  await enter();
} catch (error) {
  if (error.status === 401 || error.status === 403) out(error.status === 403 ? wrong(error) : "");
  else {
    // Nobody answers, or not yet: the page is here, so it comes.
    frame();
    show();
    run();
  }
}
