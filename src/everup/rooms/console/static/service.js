// One service: its instances, what they say, what is in force, what happened.

import { ask } from "/act.js";
import { get } from "/api.js";
import { h, put, replace } from "/dom.js";
import { available, bytes, clock, cpu } from "/format.js";
import { age, chip, doing, item, keepingFocus, strip } from "/services.js";
import { openIncidents, state } from "/store.js";
import { t } from "/words.js";

const OUTPUT_MS = 3000;
const LOOK_MS = 800;

function probes(found) {
  return Object.entries(found).map(([kind, p]) =>
    h("span", { class: p.ok ? "probe" : "probe bad", title: p.detail },
      `${kind}: ${p.ok ? `${t("ok")} ${(1000 * p.latency_s).toFixed(p.latency_s < 0.01 ? 1 : 0)} ms` : `${t("probe_fails", { n: p.failures })} ${p.detail}`}`));
}

function line(i, row, gone) {
  const act = (name) => h("button", { class: "small", onclick: () => ask(name, { row, target: i.slot }), "aria-label": `${t(name)} ${i.slot}` }, t(name));
  return h("tr", { class: i.state },
    h("td", { class: "state" }, chip(i.standby ? "ready" : i.state), i.standby ? h("span", { class: "dim" }, ` ${t("standby")}`) : null),
    h("th", { scope: "row", class: "service" }, i.slot),
    h("td", { "data-label": t("col_pid") }, i.pid ? String(i.pid) : "–"),
    h("td", { "data-label": t("col_restarts") }, String(i.restarts)),
    h("td", { "data-label": t("col_cpu") }, cpu(i.cpu)),
    h("td", { "data-label": t("col_mem") }, bytes(i.mem)),
    h("td", { "data-label": t("col_since") }, age(i.since)),
    h("td", { "data-label": t("col_probes") }, probes(i.probes)),
    h("td", { class: "why", "data-label": t("col_why") }, [i.why, i.status, i.why ? "" : i.last_exit].filter(Boolean).join(" · ")),
    h("td", { class: "act" }, gone ? null : i.want ? [act("restart"), act("stop")] : act("start")));
}

/** The view of a service. */
export function service(name) {
  const top = h("section", { class: "banner" });
  const table = h("tbody");
  const columns = ["state", "instance", "pid", "restarts", "cpu", "mem", "since", "probes", "why"];
  const output = h("pre", { class: "output", tabindex: "0", role: "log", "aria-live": "off", "aria-label": t("output") });
  const sought = h("input", { type: "search", class: "filter small", placeholder: t("filter_output"), "aria-label": t("filter_output"), oninput: () => showOutput() });
  let lines = [];
  const followed = h("input", { type: "checkbox", id: "followed" });
  followed.checked = true;
  const config = h("pre", { class: "config", tabindex: "0", "aria-label": t("config") });
  const setOnly = h("input", { type: "checkbox", id: "set-only", onchange: () => showConfig() });
  setOnly.checked = true;
  const events = h("ol", { class: "entries" });
  const element = h("div", { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/" }, `← ${t("back")}`)),
    top,
    h("section", { "aria-label": t("instances") }, h("h2", {}, t("instances")),
      h("table", { class: "services instances" },
        h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c }, t(`col_${c}`))), h("th", {}))), table)),
    h("section", {}, h("div", { class: "bar" }, h("h2", {}, t("output")), h("span", { class: "dim" }, t("output_hint")), sought,
      h("label", { for: "followed" }, followed, t("follow"))), output),
    h("div", { class: "two" },
      h("section", {}, h("div", { class: "bar" }, h("h2", {}, t("changed_last")), h("a", { href: `#/events?subject=${encodeURIComponent(name)}` }, t("more_events"))), events),
      h("section", {}, h("div", { class: "bar" }, h("h2", {}, t("config")), h("label", { for: "set-only", title: t("config_hint") }, setOnly, t("set_only"))), config)));
  let found = null;
  let asked = 0;
  let last = "";
  let drawn = "";
  let closed = false;

  function showConfig() {
    if (!found) return;
    const lines = setOnly.checked ? found.config.filter((l) => !/ # default$|^# .*: not set/.test(l)) : found.config;
    const kept = lines.filter((l, n) => !(setOnly.checked && (l === "" || (l.startsWith("[") && (lines[n + 1] ?? "") === ""))));
    put(config, kept.map((l, n) => (setOnly.checked && n && l.startsWith("[") ? `\n${l}` : l)).join("\n"));
  }

  function head() {
    const row = state.rows.get(name);
    if (!row) {
      replace(top, h("h1", { tabindex: "-1" }, t("gone", { name })));
      return;
    }
    const incident = openIncidents().find((i) => i.subject === name || i.services.includes(name));
    const stopped = row.state === "stopped" || row.state === "none";
    const key = JSON.stringify([{ ...row, cpu: 0, mem: 0 }, incident && incident.sentence]);
    if (key === drawn) return;
    drawn = key;
    top.className = `banner ${row.level === 2 ? "bad" : row.level === 1 ? "warning" : "good"}`;
    keepingFocus(top, () => replace(top, h("div", {},
      h("h1", { tabindex: "-1" }, name, " ", chip(row.state)),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, t("col_ready")), h("dd", {}, `${row.ready}/${row.wanted}`, " · ", age(row.since))),
        row.addresses.length ? h("div", {}, h("dt", {}, t("addresses")), h("dd", {}, row.addresses.join(", "))) : null,
        row.needs.length ? h("div", {}, h("dt", {}, t("needs")), h("dd", {}, row.needs.map((n, i) => [i ? ", " : "", h("a", { href: `#/service/${encodeURIComponent(n)}` }, n)]))) : null,
        h("div", {}, h("dt", {}, t("availability")), h("dd", { class: "wide-strip" }, strip(row), available(row.down_s, row.valid_s))),
        doing(row) ? h("div", {}, h("dt", {}, t("everup_does")), h("dd", {}, doing(row))) : null,
        incident ? h("div", {}, h("dt", {}, t("incident", { n: incident.number })), h("dd", {}, h("a", { href: `#/incident/${incident.number}` }, incident.sentence))) : null),
      h("p", { class: "acts" },
        stopped ? h("button", { class: "main", onclick: () => ask("start", { row }) }, t("start")) : [
          h("button", { class: "main", onclick: () => ask("restart", { row }) }, t("restart")),
          h("button", { class: "danger", onclick: () => ask("stop", { row }) }, t("stop")),
        ]))));
  }

  async function look() {
    asked = Date.now();
    try {
      found = await get(`/api/service/${encodeURIComponent(name)}`);
    } catch (error) {
      if (error.status === 404) replace(table);
      return;
    }
    if (closed) return;
    const row = state.rows.get(name) || found.row;
    if (!table.contains(document.activeElement)) {
      replace(table, found.instances.map((i) => line(i, row)), found.outgoing.map((i) => line(i, row, true)));
    }
    replace(events, found.events.slice(-25).reverse().map(item));
    showConfig();
  }

  async function listen() {
    try {
      ({ lines } = await get(`/api/output/${encodeURIComponent(name)}`));
    } catch {
      return;
    }
    const key = `${lines.length} ${lines.length ? `${lines.at(-1).at} ${lines.at(-1).text}` : ""}`;
    if (closed || key === last) return;
    last = key;
    showOutput();
  }

  function showOutput() {
    const many = new Set(lines.map((l) => l.slot)).size > 1;
    const wanted = sought.value.trim().toLowerCase();
    const fit = wanted ? lines.filter((l) => `${l.slot} ${l.text}`.toLowerCase().includes(wanted)) : lines;
    replace(output, fit.length ? fit.map((l) => h("span", { class: l.stream === "stderr" ? "err" : l.stream === "everup" ? "own" : "" },
      h("time", {}, clock(l.at)), many ? h("b", {}, ` ${l.slot}`) : "", ` ${l.text}\n`)) : t(lines.length ? "nothing_found" : "no_output"));
    if (followed.checked) output.scrollTop = output.scrollHeight;
  }

  look();
  listen();
  const timer = setInterval(() => !document.hidden && followed.checked && listen(), OUTPUT_MS);
  return {
    element,
    title: name,
    draw() {
      head();
      if (Date.now() - asked > LOOK_MS) look();
      return "";
    },
    close() {
      closed = true;
      clearInterval(timer);
    },
  };
}
