// What the page knows, and who wants to hear of it.

import { follow } from "/api.js";

/** Everything of now. `link`: live, lost, or out (not signed in). `heard`: when, in milliseconds. */
export const state = {
  names: [],
  rows: new Map(),
  head: null,
  incidents: [],
  news: [],
  link: "lost",
  heard: 0,
  user: "",
};

const listeners = new Set();

/** Call `listener` at each change. Gives what ends that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(what) {
  for (const listener of [...listeners]) listener(what);
}

function take(found) {
  state.heard = Date.now();
  const before = state.link;
  state.link = "live";
  if (found) {
    for (const row of found.rows || []) state.rows.set(row.name, row);
    for (const part of ["names", "head", "incidents", "news"]) {
      if (found[part] !== undefined) state[part] = found[part];
    }
    const there = new Set(state.names);
    for (const name of state.rows.keys()) if (!there.has(name)) state.rows.delete(name);
  }
  if (found || before !== "live") tell("look");
}

const HIDDEN_MS = 30000;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Follow for ever, over losses; a page that nobody sees costs nothing after half a minute. */
export async function run() {
  let pause = 500;
  for (;;) {
    const stop = new AbortController();
    let timer = 0;
    const watch = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => stop.abort(), HIDDEN_MS);
    };
    document.addEventListener("visibilitychange", watch);
    watch();
    try {
      await follow((found) => {
        pause = 500;
        take(found);
      }, stop.signal);
    } catch (error) {
      if (error.status === 401) {
        state.link = "out";
        tell("out");
        return;
      }
      if (state.link === "live") {
        state.link = "lost";
        tell("lost");
      }
    } finally {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", watch);
    }
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
      pause = 0;
    }
    await wait(pause);
    pause = Math.min(5000, Math.max(500, pause * 1.6));
  }
}

/** The incidents that are not over, the gravest first. */
export function openIncidents() {
  const gravity = { critical: 0, warning: 1, note: 2 };
  return state.incidents
    .filter((i) => i.resolved === null)
    .sort((a, b) => (a.state === "mitigated") - (b.state === "mitigated") || (gravity[a.severity] ?? 3) - (gravity[b.severity] ?? 3) || b.since - a.since);
}
