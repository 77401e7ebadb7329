// The first screen: one sentence, the services, what changed last.

import { ask } from "/act.js";
import { h, mark, put, replace, svg } from "/dom.js";
import { available, bytes, clock, cpu, moment, span } from "/format.js";
import { openIncidents, state } from "/store.js";
import { kindWords, t } from "/words.js";

const BAD = { down: 0, degraded: 1, starting: 2, stopped: 3 };
const LEGEND = { u: "up", g: "degraded", d: "down", D: "down", p: "planned", x: "unknown" };
const SHOWN = 14;

export function now() {
  return Date.now() / 1000;
}

/** A time that goes by: `data-since` is read again each second. */
export function age(at) {
  if (!at) return h("span", {}, "–");
  return h("time", { "data-since": at, title: moment(at), datetime: new Date(at * 1000).toISOString() }, span(now() - at));
}

/** A state as a word with its picture. */
export function chip(name) {
  return h("span", { class: `chip ${name}` }, mark(name), h("span", {}, t(`state_${name}`)));
}

/** 24 hours, a run of the same for each rectangle. */
export function strip(row) {
  const bins = row.strip;
  const parts = [];
  for (let from = 0; from < bins.length; ) {
    let to = from + 1;
    while (to < bins.length && bins[to] === bins[from]) to += 1;
    const low = bins[from] === "x" ? 9 : bins[from] === "d" ? 3 : 0;
    parts.push(svg("rect", { x: from, y: low, width: to - from, height: 12 - low, class: `s-${LEGEND[bins[from]]}` }));
    from = to;
  }
  const says = row.valid_s
    ? t("strip_says", { p: available(row.down_s, row.valid_s), down: span(row.down_s) })
    : t("strip_none");
  const image = svg("svg", { viewBox: `0 0 ${bins.length} 12`, preserveAspectRatio: "none", class: "strip", role: "img", "aria-label": says });
  image.append(svg("title", {}, says), ...parts);
  return image;
}

/** What everup does about a row that is not as it should be: texts and times, or nothing. */
export function doing(row) {
  const next = row && row.next;
  if (!next) return null;
  const left = next.at ? next.at - now() : 0;
  const key = next.what === "backoff" && left < 1 ? "do_backoff_now" : `do_${next.what}`;
  const [before, after] = t(key, { slot: next.slot || "", in: "\u0000" }).split("\u0000");
  return after === undefined ? [before] : [before, h("time", { "data-until": next.at, title: moment(next.at) }, span(left)), after];
}

/** Draw anew inside of an element; who was on a link or a button in it is so afterwards. */
export function keepingFocus(element, draw) {
  const focused = element.contains(document.activeElement) ? document.activeElement.textContent : null;
  draw();
  if (focused !== null) [...element.querySelectorAll("a, button, h1")].find((e) => e.textContent === focused)?.focus();
}

// -- the sentence

function sentence() {
  const rows = state.names.map((name) => state.rows.get(name)).filter(Boolean);
  const [first, ...others] = openIncidents();
  if (first && first.state !== "mitigated") return ofIncident(first, others.length);
  const wanted = rows.filter((r) => r.state !== "stopped" && r.state !== "none");
  const stopped = rows.filter((r) => r.state === "stopped").map((r) => r.name);
  const unwell = wanted.filter((r) => r.level > 0);
  let tone = "good";
  let text;
  if (!rows.length) text = t("none_there");
  else if (unwell.length) {
    const names = unwell.slice(0, 4).map((r) => t("is_state", { name: r.name, state: t(`word_${r.state}`) }));
    tone = unwell.some((r) => r.level === 2) ? "bad" : "warning";
    text = t("some_up", { up: wanted.length - unwell.length, n: wanted.length, names: names.join(", ") });
  } else if (stopped.length) text = t("all_up_but", { n: wanted.length, names: stopped.join(", ") });
  else text = rows.length === 1 ? t("one_up") : t("all_up", { n: rows.length });
  const over = state.incidents.filter((i) => i.resolved !== null).sort((a, b) => b.resolved - a.resolved)[0];
  const last = () => {
    if (first) return h("p", { class: "second" }, t("watched", { n: first.number }), " ", h("a", { href: `#/incident/${first.number}` }, first.sentence));
    if (!over) return h("p", { class: "second" }, t("no_incident"));
    const [before, after] = t("last_incident", { ago: "\u0000", took: span(over.resolved - over.since) }).split("\u0000");
    return h("p", { class: "second" }, before, age(over.resolved), after, " ", h("a", { href: `#/incident/${over.number}` }, over.sentence));
  };
  if (first && tone === "good") tone = "warning";
  const whole = JSON.stringify([tone, text, over && over.number, first && first.sentence]);
  return { tone, text, key: text, whole, body: () => [h("h1", { tabindex: "-1" }, text), last()] };
}

function ofIncident(incident, others) {
  const row = state.rows.get(incident.subject);
  const tone = incident.state === "mitigated" || incident.severity !== "critical" ? "warning" : "bad";
  const cause = incident.cause
    ? [incident.cause.says, " ", h("span", { class: "dim" }, `(${t("sure", { n: Math.round(100 * incident.cause.confidence) })})`)]
    : [t("no_cause")];
  const can = (incident.then || []).slice(0, 2).join("; ");
  const acknowledged = incident.acknowledged_by;
  return {
    tone,
    text: incident.sentence,
    key: `${incident.number} ${incident.sentence}`,
    whole: JSON.stringify([incident, row && row.next, others, state.names.length]),
    body: () => [
      h("h1", { tabindex: "-1" }, h("a", { href: `#/incident/${incident.number}` }, `${incident.sentence}.`)),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, t("incident", { n: incident.number })),
          h("dd", {}, clock(incident.since), " · ", age(incident.since), " · ", t(`inc_${incident.state}`))),
        h("div", {}, h("dt", {}, t("because")), h("dd", {}, cause)),
        did(incident),
        h("div", {}, h("dt", {}, t("everup_does")), h("dd", {}, doing(row) || t("do_nothing"))),
        proposal(incident),
        can ? h("div", {}, h("dt", {}, t("you_can")), h("dd", {}, can)) : null,
        h("div", {}, h("dt", {}, t("hurt")), h("dd", {}, incident.services.map((name, i) => [i ? ", " : "", link(name)])))),
      h("p", { class: "acts" },
        acknowledged
          ? h("span", { class: "dim" }, t("acknowledged", { who: acknowledged }))
          : h("button", { class: incident.proposal ? "" : "main", onclick: () => ask("ack", { incident }) }, t("ack")),
        answers(incident),
        row ? h("button", { onclick: () => ask("restart", { row }) }, `${t("restart")} ${row.name}`) : null,
        others ? h("a", { href: "#/incidents" }, t("more_incidents", { n: others })) : null),
    ],
  };
}

/** What everup has done about an incident; nothing where it has not. */
export function did(incident) {
  return incident.did.length ? h("div", {}, h("dt", {}, t("everup_did")), h("dd", {}, incident.did.join("; "))) : null;
}

/** What everup would do, and may not by itself. */
export function proposal(incident) {
  return incident.proposal ? h("div", {}, h("dt", {}, t("everup_would")), h("dd", {}, h("strong", {}, incident.proposal))) : null;
}

/** The buttons that answer that. */
export function answers(incident) {
  if (!incident.proposal) return null;
  return [
    h("button", { class: "main", onclick: () => ask("approve", { incident }) }, t("approve")),
    h("button", { onclick: () => ask("deny", { incident }) }, t("deny")),
  ];
}

function link(name) {
  return state.rows.has(name) ? h("a", { href: `#/service/${encodeURIComponent(name)}` }, name) : name;
}

// -- the table

const COLUMNS = ["state", "service", "ready", "restarts", "cpu", "mem", "since", "strip", "why"];

function newRow(name) {
  const cells = Object.fromEntries(COLUMNS.map((c) => [c, h(c === "service" ? "th" : "td", { class: c, "data-label": t(`col_${c}`), scope: c === "service" ? "row" : undefined })]));
  cells.service.append(h("a", { href: `#/service/${encodeURIComponent(name)}` }, name));
  return { element: h("tr", {}, COLUMNS.map((c) => cells[c])), cells, shown: null };
}

function update(line, row) {
  const old = line.shown;
  if (old === row) return;
  const { cells } = line;
  line.element.className = row.state;
  if (!old || old.state !== row.state) replace(cells.state, chip(row.state));
  put(cells.ready, row.state === "done" || row.state === "none" ? "–" : `${row.ready}/${row.wanted}`);
  put(cells.restarts, String(row.restarts));
  cells.restarts.classList.toggle("some", row.restarts > 0);
  put(cells.cpu, cpu(row.cpu));
  put(cells.mem, bytes(row.mem));
  if (!old || old.since !== row.since) replace(cells.since, age(row.since));
  if (!old || old.strip !== row.strip || old.down_s !== row.down_s) {
    replace(cells.strip, strip(row), h("span", { class: "percent" }, available(row.down_s, row.valid_s)));
  }
  if (row.why !== (old && old.why)) {
    put(cells.why, row.why);
    cells.why.title = row.why;
  }
  line.shown = row;
}

/** An entry of the journal as an item of a list. */
export function item(entry) {
  return h("li", { class: entry.tone },
    h("time", { title: moment(entry.at), datetime: new Date(entry.at * 1000).toISOString() }, clock(entry.at)),
    h("span", { class: "subject" }, entry.subject),
    h("span", { class: "kind", title: entry.kind }, kindWords(entry.kind)),
    h("span", { class: "words" }, entry.words));
}

/** The first screen. */
export function services() {
  const banner = h("section", { class: "banner", "aria-label": t("incidents") });
  const filter = h("input", { type: "search", placeholder: t("filter"), "aria-label": t("filter"), title: t("filter_hint"), class: "filter", oninput: () => draw() });
  const count = h("span", { class: "dim" });
  const body = h("tbody");
  const nothing = h("p", { class: "dim", hidden: true }, t("nothing_found"));
  const head = h("tr", {}, COLUMNS.map((c) => h("th", { scope: "col", class: c }, t(`col_${c}`))));
  const news = h("ol", { class: "entries", reversed: true });
  const legend = h("p", { class: "legend", "aria-hidden": "true" },
    ["u", "g", "d", "p", "x"].map((l) => h("span", {}, h("i", { class: `s-${LEGEND[l]}` }), t(`legend_${l}`))));
  const element = h("div", { class: "view" },
    banner,
    h("section", { "aria-label": t("services") },
      h("div", { class: "bar" }, h("h2", {}, t("services")), count, filter),
      h("table", { class: "services" }, h("thead", {}, head), body), nothing, legend),
    h("section", { "aria-label": t("changed_last") },
      h("div", { class: "bar" }, h("h2", {}, t("changed_last")), h("a", { href: "#/events" }, t("more_events"))), news));
  const lines = new Map();
  let told = "";
  let drawn = "";
  let newest = 0;

  function draw() {
    const { tone, key, whole, body: parts, text } = sentence();
    // Only where it says something else: a button must not go away under a finger.
    if (whole !== drawn) {
      drawn = whole;
      banner.className = `banner ${tone}`;
      keepingFocus(banner, () => replace(banner, mark(tone === "bad" ? "down" : tone === "warning" ? "degraded" : "up"), h("div", {}, parts())));
    }
    document.title = `${tone === "good" ? "" : "● "}everup · ${text}`;
    const changed = told && told !== key ? text : "";
    told = key;
    table();
    if (state.news.length && state.news.at(-1).seq !== newest) {
      newest = state.news.at(-1).seq;
      replace(news, state.news.slice(-SHOWN).reverse().map(item));
    } else if (!state.news.length) replace(news, h("li", {}, t("nothing_yet")));
    return changed;
  }

  function table() {
    const wanted = filter.value.trim().toLowerCase();
    const rows = state.names.map((name) => state.rows.get(name)).filter((r) => r && (!wanted || `${r.name} ${r.state} ${t(`state_${r.state}`)}`.toLowerCase().includes(wanted)));
    rows.sort((a, b) => (BAD[a.state] ?? 9) - (BAD[b.state] ?? 9)); // stable: else as in the config
    const elements = rows.map((row) => {
      if (!lines.has(row.name)) lines.set(row.name, newRow(row.name));
      const line = lines.get(row.name);
      update(line, row);
      return line.element;
    });
    for (const name of lines.keys()) if (!state.rows.has(name)) lines.delete(name);
    const same = elements.length === body.children.length && elements.every((e, i) => body.children[i] === e);
    if (!same) {
      const focused = document.activeElement;
      body.replaceChildren(...elements);
      if (body.contains(focused)) focused.focus();
    }
    nothing.hidden = elements.length > 0;
    put(count, wanted ? `${rows.length} / ${state.names.length}` : String(state.names.length));
  }

  return { element, draw, title: t("services"), focus: () => filter.focus() };
}
