// Questions to the service, and its answers. A refusal is a Problem, as RFC 9457 has them.

import { tellTime } from "./format.js";
import { texts } from "./texts.js";

export class Problem extends Error {
  constructor(status, { code, title, detail, hint } = {}) {
    super(detail || title || texts.no_answer);
    Object.assign(this, { status, code: code ?? "", title: title ?? "", hint: hint ?? "" });
  }
}

// The token of the link that the page was opened by. It is kept here alone: a reload needs the link again.
let bearer = null;
const LINK = "#token=";

/** Take the token of a link out of the address, before anything else sees it there. True if there was one. */
export function takeToken() {
  if (!location.hash.startsWith(LINK)) return false;
  bearer = location.hash.slice(LINK.length);
  history.replaceState({ ...history.state, link: true }, "", location.pathname + location.search);
  return true;
}

export function dropToken() {
  bearer = null;
}

/** The headers that say who asks; none where a cookie or the connection does. */
export function authorization() {
  return bearer === null ? {} : { Authorization: `Bearer ${bearer}` };
}

/** Ask, and return what is answered in JSON, with its `status`. Throws Problem, with status 0 when nobody answers. */
export async function ask(address, { method = "GET", body, signal } = {}) {
  let response, found;
  try {
    const headers = { ...authorization(), ...(body !== undefined && { "Content-Type": "application/json" }) };
    response = await fetch(address, {
      method, headers, signal, cache: "no-store", credentials: bearer === null ? "same-origin" : "omit",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    found = response.status === 204 ? {} : await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(response?.status ?? 0);
  }
  tellTime(response.headers.get("Date"));
  if (!response.ok) throw new Problem(response.status, found);
  return { ...found, status: response.status };
}

export const task = (id) => `/v1/tasks/${encodeURIComponent(id)}`;

/** The name of an instance as addresses have it, and as people say it. */
export function instanceName({ remote, instance }) {
  return !remote || remote === "local" ? instance : `${remote}:${instance}`;
}

export function instanceAddress(name, project) {
  const query = project ? `?${new URLSearchParams({ project })}` : "";
  return `/v1/instances/${encodeURIComponent(name).replaceAll("%3A", ":")}${query}`;
}
