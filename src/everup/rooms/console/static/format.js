// Numbers and times for people, in their language and zone.

import { language, t } from "/words.js";

const formats = new Map();

function format(key, make) {
  const name = `${language()} ${key}`;
  if (!formats.has(name)) formats.set(name, make(language()));
  return formats.get(name);
}

/** Seconds since the epoch as a time of the day; with the date where that is another day. */
export function clock(at, now = Date.now() / 1000) {
  const date = new Date(at * 1000);
  const today = new Date(now * 1000).toDateString() === date.toDateString();
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const day = today ? {} : { month: "short", day: "numeric" };
  return format(today ? "time" : "day", (l) => new Intl.DateTimeFormat(l, { ...day, ...time })).format(date);
}

/** The same, whole: with date and zone. */
export function moment(at) {
  const all = { dateStyle: "medium", timeStyle: "long" };
  return format("moment", (l) => new Intl.DateTimeFormat(l, all)).format(new Date(at * 1000));
}

/** Seconds as a short duration: 42 s, 7 min, 3 h 12 min, 5 d. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return t("n_s", { n: s });
  if (s < 3600) return t("n_min", { n: Math.floor(s / 60) });
  if (s < 86400) {
    const left = Math.floor((s % 3600) / 60);
    return t("n_h", { n: Math.floor(s / 3600) }) + (left && s < 36000 ? ` ${t("n_min", { n: left })}` : "");
  }
  return t("n_d", { n: Math.floor(s / 86400) });
}

/** Bytes: 512 K, 34 M, 1.2 G. */
export function bytes(n) {
  if (!n) return "–";
  const units = ["B", "K", "M", "G", "T"];
  let value = n;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Percent of a CPU. */
export function cpu(n) {
  return n === null || n === undefined ? "–" : `${n < 10 ? n.toFixed(1) : Math.round(n)} %`;
}

/** Availability in percent, never rounded up to a hundred. */
export function available(downS, validS) {
  if (!validS) return "–";
  const value = 100 * (1 - downS / validS);
  if (downS > 0 && value > 99.99) return "99.99 %";
  return downS > 0 ? `${value.toFixed(2)} %` : "100 %";
}
