// One incident, and the list of them.

import { ask, wrong } from "/act.js";
import { get } from "/api.js";
import { h, put, replace } from "/dom.js";
import { clock, moment, span } from "/format.js";
import { age, answers, did, doing, item, keepingFocus, proposal } from "/services.js";
import { state } from "/store.js";
import { t } from "/words.js";

const tone = (i) => (i.resolved !== null ? "good" : i.severity === "critical" && i.state !== "mitigated" ? "bad" : "warning");

function fact(name, ...value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

function whole(i) {
  const row = state.rows.get(i.subject);
  const services = i.services.map((name, n) => [n ? ", " : "", state.rows.has(name) ? h("a", { href: `#/service/${encodeURIComponent(name)}` }, name) : name]);
  return h("div", {},
    h("h1", { tabindex: "-1" }, `${i.sentence}.`),
    h("dl", { class: "facts" },
      fact(t("incident", { n: i.number }), t(`inc_${i.state}`), i.acknowledged_by ? ` · ${t("acknowledged", { who: i.acknowledged_by })}` : ""),
      fact(t("opened_at"), h("time", { title: moment(i.since) }, clock(i.since)), " · ", i.resolved === null ? age(i.since) : ""),
      i.resolved !== null ? fact(t("over_at"), clock(i.resolved), " · ", t("over_after", { took: span(i.resolved - i.since) })) : null,
      fact(t("because"), i.cause ? `${i.cause.says} (${t("sure", { n: Math.round(100 * i.cause.confidence) })})` : t("no_cause")),
      i.cause && i.cause.path.length > 1 ? fact(t("path"), i.cause.path.join(" → ")) : null,
      fact(t("hurt"), services),
      did(i),
      i.resolved === null ? fact(t("everup_does"), doing(row) || t("do_nothing")) : null,
      i.resolved === null ? proposal(i) : null),
    i.occurrences > 1 ? h("p", { class: "dim" }, t("came_back", { n: i.occurrences - 1 })) : null,
    i.resolved === null ? h("p", { class: "acts" },
      answers(i),
      i.acknowledged_by ? null : h("button", { class: i.proposal ? "" : "main", onclick: () => ask("ack", { incident: i }) }, t("ack")),
      row ? h("button", { onclick: () => ask("restart", { row }) }, `${t("restart")} ${row.name}`) : null,
      h("button", { onclick: () => ask("silence", { incident: i }) }, t("silence"))) : null);
}

/** The view of an incident. */
export function incident(number) {
  const top = h("section", { class: "banner" }, h("h1", { tabindex: "-1" }, t("incident", { n: number })));
  const evidence = h("section");
  const can = h("section");
  const symptoms = h("section");
  const timeline = h("ol", { class: "entries" });
  const element = h("div", { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/" }, `← ${t("back")}`), " ", h("a", { href: "#/incidents" }, t("incidents"))),
    top, h("div", { class: "two" }, evidence, can), symptoms,
    h("section", {}, h("h2", {}, t("timeline")), timeline));
  let shown = "";
  let asked = 0;

  function draw() {
    const i = state.incidents.find((x) => String(x.number) === number);
    if (i) {
      const row = state.rows.get(i.subject);
      const key = JSON.stringify([i, row && row.next]);
      if (key !== shown) {
        shown = key;
        top.className = `banner ${tone(i)}`;
        keepingFocus(top, () => replace(top, whole(i)));
        const lines = i.evidence || [];
        replace(evidence, h("h2", {}, t("evidence")),
          lines.length ? h("ul", { class: "evidence" }, lines.map((line) => h("li", {}, line))) : h("p", { class: "dim" }, t("no_cause")),
          i.runner_up ? h("p", {}, h("span", { class: "dim" }, `${t("runner_up")}: `), i.runner_up) : null);
        const then = [...(i.then || []), `everup logs ${i.subject}`, `everup why ${i.subject}`];
        replace(can, h("h2", {}, t("what_you_can")), h("ul", { class: "evidence" }, then.map((line) => h("li", {}, line))));
        replace(symptoms, i.symptoms.length > 1 ? h("details", {}, h("summary", {}, t("symptoms", { n: i.symptoms.length })), h("ul", {}, i.symptoms.map((s) => h("li", {}, s)))) : null);
      }
    }
    if (Date.now() - asked > 1500) look();
    return "";
  }

  async function look() {
    asked = Date.now();
    try {
      const found = await get(`/api/incident/${encodeURIComponent(number)}`);
      replace(timeline, found.timeline.map(item));
    } catch (error) {
      if (error.status === 404) put(top, wrong(error));
    }
  }

  return { element, draw, title: t("incident", { n: number }) };
}

/** All of them. */
export function incidents() {
  const list = h("ul", { class: "incidents" });
  const element = h("div", { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/" }, `← ${t("back")}`)),
    h("h1", { tabindex: "-1" }, t("incidents")), list);
  return {
    element,
    title: t("incidents"),
    draw() {
      const found = [...state.incidents].sort((a, b) => (a.resolved === null ? 0 : 1) - (b.resolved === null ? 0 : 1) || b.since - a.since);
      replace(list, found.length ? found.map((i) => h("li", { class: tone(i) },
        h("a", { href: `#/incident/${i.number}` }, i.sentence),
        h("span", { class: "dim" }, ` ${t(`inc_${i.state}`)} · ${clock(i.since)}${i.resolved === null ? "" : ` · ${t("over_after", { took: span(i.resolved - i.since) })}`}`)))
        : h("li", {}, t("no_incident")));
      return "";
    },
  };
}
