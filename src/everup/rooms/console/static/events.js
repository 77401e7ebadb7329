// The journal: by kind, subject and text.

import { wrong } from "/act.js";
import { get } from "/api.js";
import { h, replace } from "/dom.js";
import { item } from "/services.js";
import { state } from "/store.js";
import { t } from "/words.js";

const MOST = 300;

/** The view of events; `query` is that of the address. */
export function events(query) {
  const field = (name, given = {}) => h("label", {}, t(name), h("input", { name, type: "search", value: query.get(name) || "", autocomplete: "off", ...given }));
  const names = h("datalist", { id: "names" }, state.names.map((name) => h("option", { value: name })));
  const kinds = h("datalist", { id: "kinds" }, ["incidents", "instance", "service", "rollout", "config", "engine", "observer", "console", "detect", "balance", "hook", "slo"].map((kind) => h("option", { value: `${kind}.*` })));
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim()));
    location.hash = `#/events?${wanted}`;
  } }, field("kind", { list: "kinds", placeholder: t("kind_hint") }), field("subject", { list: "names" }), field("text"), h("button", { class: "main" }, t("search")), names, kinds);
  const list = h("ol", { class: "entries" });
  const failed = h("p", { class: "failed", role: "alert", hidden: true });
  const older = h("button", { hidden: true, onclick: () => look(true) }, t("older"));
  const element = h("div", { class: "view" },
    h("h1", { tabindex: "-1" }, t("events")), form, failed,
    h("p", { class: "dim" }, t("events_hint", { n: MOST })), list, h("p", { class: "acts" }, older));
  let before = "";
  let newest = 0;
  let asked = 0;

  async function look(more) {
    asked = Date.now();
    const wanted = new URLSearchParams(query);
    if (more && before) wanted.set("before", before);
    try {
      const { events: found } = await get(`/api/events?${wanted}`);
      failed.hidden = true;
      const items = found.reverse();
      if (more) list.append(...items.map(item));
      else if (!items.length) replace(list, h("li", {}, t("nothing_found")));
      else if (items[0].seq !== newest) {
        newest = items[0].seq;
        replace(list, items.map(item));
      }
      if (items.length) before = String(items.at(-1).at - 0.001);
      older.hidden = items.length < MOST;
    } catch (error) {
      failed.textContent = wrong(error);
      failed.hidden = false;
    }
  }

  look(false);
  return {
    element,
    title: t("events"),
    focus: () => form.querySelector("[name=text]").focus(),
    draw() {
      const last = state.news.at(-1);
      if (list.children.length <= MOST && last && last.seq > newest && Date.now() - asked > 1000) look(false);
      return "";
    },
  };
}
