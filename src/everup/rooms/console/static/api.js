// Speaks with the console. Each request carries the page's half of the session; the cookie is the other.

const STORE = "everup.token";
const LINK = /^#([A-Za-z0-9_-]{43})$/;

/** An answer that is none; `status` 0: nobody answers. */
export class Refused extends Error {
  constructor(status, text, hint) {
    super(text);
    this.status = status;
    this.hint = hint || "";
  }
}

function token() {
  try {
    return localStorage.getItem(STORE) || "";
  } catch {
    return "";
  }
}

async function fetched(path, given = {}) {
  try {
    return await fetch(path, {
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      ...given,
      headers: { "Everup-Token": token(), ...(given.headers || {}) },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "");
  }
}

async function taken(answer) {
  let found = {};
  try {
    found = await answer.json();
  } catch {
    throw new Refused(answer.ok ? 0 : answer.status, "");
  }
  if (!answer.ok) throw new Refused(answer.status, found.error || "", found.hint);
  return found;
}

/** Ask for something. Throws `Refused`. */
export async function get(path) {
  return taken(await fetched(path));
}

/** Have something done. Throws `Refused`. */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return taken(await fetched(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/** Begin a session, if the address bar holds a link that is good once. */
export async function signIn(hash = location.hash) {
  const found = LINK.exec(hash);
  if (!found) return false;
  history.replaceState(null, "", "/#/"); // the secret is not to stay in the bar, nor in the history
  const answer = await post("/api/login", { ticket: found[1] });
  localStorage.setItem(STORE, answer.token);
  return true;
}

/** End the session. */
export async function signOut() {
  try {
    await post("/api/logout", {});
  } finally {
    localStorage.removeItem(STORE);
  }
}

/** Tell each thing that is new to `take`, until it breaks or `signal` aborts. Throws `Refused`. */
export async function follow(take, signal) {
  const answer = await fetched("/api/stream", { signal });
  if (!answer.ok) await taken(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const late = setTimeout(() => reader.cancel(), 25000); // a sign of life comes every ten seconds
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    clearTimeout(late);
    if (done) throw new Refused(0, "");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) take(part.startsWith("data: ") ? JSON.parse(part.slice(6)) : null);
  }
}
