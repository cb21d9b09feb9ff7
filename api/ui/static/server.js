// Questions to the service, and its answers. A refusal is a Problem, as RFC 9457 has them.

import { tellTime } from "./format.js";
import { texts } from "./texts.js";

export class Problem extends Error {
  constructor(status, { code, title, detail, hint } = {}) {
    super(detail || title || texts.no_answer);
    Object.assign(this, { status, code: code ?? "", title: title ?? "", hint: hint ?? "" });
  }
}

/** Ask, and return what is answered in JSON, with its `status`. Throws Problem, with status 0 when nobody answers. */
export async function ask(address, { method = "GET", body, signal } = {}) {
  let response, found;
  try {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    response = await fetch(address, {
      method, headers, signal, cache: "no-store", credentials: "same-origin",
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
