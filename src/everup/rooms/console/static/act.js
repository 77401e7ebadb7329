// Asks before something is done: what will happen, why, and the command that does the same.

import { post } from "/api.js";
import { h } from "/dom.js";
import { state } from "/store.js";
import { t } from "/words.js";

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

const SPANS = [["30m", 1800], ["1h", 3600], ["4h", 14400], ["12h", 43200]];

/** The command of a terminal that does the same. */
function command(name, target, why, long) {
  if (name === "silence") return `everup ${state.head ? `-c ${quoted(state.head.config)} ` : ""}silence ${target} --for ${long}${why ? ` --why ${quoted(why)}` : ""}`;
  const config = state.head ? `-c ${quoted(state.head.config)} ` : "";
  const note = ["ack", "approve", "deny"].includes(name) && why ? ` --note ${quoted(why)}` : "";
  return `everup ${config}${name} ${target}${note}`;
}

function told(name, row, target) {
  if (name !== "stop") {
    const listens = name === "restart" && row && row.addresses.length;
    return [t(`will_${name}`), listens ? ` ${t("will_restart_listen")}` : ""];
  }
  const needed = [...state.rows.values()].filter((r) => r.needs.includes(row.name)).map((r) => r.name);
  const all = target === row.name || row.wanted <= 1;
  return [t("will_stop"), needed.length && all ? h("strong", {}, ` ${t("will_stop_needed", { names: needed.join(", ") })}`) : ""];
}

/** Say something to everybody, also to who cannot see. */
export function say(text, tone = "good") {
  const place = document.querySelector(".said");
  const line = h("p", { class: tone }, text);
  place.append(line);
  setTimeout(() => line.remove(), tone === "bad" ? 12000 : 6000);
}

/** Words for what went wrong. */
export function wrong(error) {
  if (error.status === 0) return t("not_reached");
  return [error.message, error.hint].filter(Boolean).join(" – ");
}

/** Ask for a reason, and have it done. `row` and `target` (a service or an instance), or `incident`. */
export function ask(name, { row = null, target = row && row.name, incident = null }) {
  const number = incident && incident.number;
  const given = { name: target, n: number };
  const why = h("input", { id: "why", required: true, maxlength: 500, autocomplete: "off", "aria-describedby": "why-hint" });
  const long = h("select", { id: "long", onchange: () => retell() }, SPANS.map(([text, s]) => h("option", { value: String(s) }, text)));
  long.value = "3600";
  const same = h("code");
  const retell = () => (same.textContent = command(name, incident ? number : target, why.value.trim(), long.selectedOptions[0].textContent));
  const failed = h("p", { class: "failed", role: "alert", hidden: true });
  const go = h("button", { class: name === "stop" ? "main danger" : "main", type: "submit" }, t(name));
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, t("cancel"));
  const copy = h("button", { type: "button", class: "small", onclick: async () => {
    await navigator.clipboard.writeText(same.textContent).catch(() => {});
    copy.textContent = t("copied");
  } }, t("copy"));
  why.addEventListener("input", retell);
  retell();
  const form = h("form", { novalidate: true, onsubmit: submit },
    h("h2", { id: "ask-title" }, t(`do_${name}`, given)),
    h("p", {}, incident ? [h("q", {}, incident.proposal && (name === "approve" || name === "deny") ? incident.proposal : incident.sentence), " ", t(`will_${name}`)] : told(name, row, target)),
    name === "silence" ? [h("label", { for: "long" }, t("how_long")), long] : null,
    h("label", { for: "why" }, t("why")), why, h("p", { class: "dim", id: "why-hint" }, t("why_hint")),
    h("p", { class: "same" }, h("span", { class: "dim" }, t("same")), h("span", { class: "line" }, same, copy)),
    failed,
    h("p", { class: "acts end" }, cancel, go));
  const dialog = h("dialog", { "aria-labelledby": "ask-title", onclose: () => dialog.remove() }, form);

  async function submit(event) {
    event.preventDefault();
    if (!why.value.trim()) {
      why.setAttribute("aria-invalid", "true");
      why.focus();
      return;
    }
    go.disabled = true;
    failed.hidden = true;
    try {
      const body = { command: name, target: incident ? incident.subject : target, why: why.value.trim() };
      if (incident) Object.assign(body, { number, proposal: incident.proposal });
      if (name === "silence") body.for_s = Number(long.value);
      await post("/api/act", body);
      dialog.close();
      say(t(`done_${name}`, given));
    } catch (error) {
      failed.textContent = `${t("refused")}: ${wrong(error)}`;
      failed.hidden = false;
      go.disabled = false;
      go.focus();
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  why.focus();
}
