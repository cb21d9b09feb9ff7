// Sending files: which ones, where to, how far each is, and what became of it. It goes on while other pages are shown.

import { ask, authorization, Problem } from "./server.js";
import { UNFINISHED } from "./state.js";

const ENDPOINT = "/v1/tus/";
const LANES = 3;
// A file of so many bytes goes with the request that announces it.
const SMALL_BYTES = 256 * 1024;
const RETRY_MS = [0, 1000, 3000, 5000, 10000, 20000, 30000, 60000];
// Answers after which it is tried again as it is; with 0 nobody answered.
const PASSES = new Set([0, 408, 409, 423, 429, 500, 502, 503, 504]);
const GOES_ON = new Set(["waiting", "sending"]);
const MOST_PAGES = 10;
const STORED = "incus-courier";

/** The library is fetched when it is needed. It is no module, and puts itself beside what the page has. */
async function library() {
  await import("./vendor/tus.min.js");
  return globalThis.tus;
}

/** Where a file goes: to the path itself if it is the only one and the path does not end in a slash, else below it. */
export function pathOf(to, relative, alone) {
  if (alone && to.path && !to.path.endsWith("/")) return to.path;
  return `${to.path.replace(/\/*$/, "")}/${relative}`;
}

export class Sending {
  /** `changed()` is called with each step, often. */
  constructor(changed) {
    this.changed = changed;
    this.files = [];
    this.skipped = [];
    this.more = false;
    this.number = 0;
    /** Tasks that wait for a path to which something is about to be sent, by path; null: not known. */
    this.waiting = null;
  }

  /** Take what was picked; a file that was chosen again takes the place of the one that is not on its way yet. */
  add({ files, skipped, more }) {
    const again = new Set(files.map((one) => one.relative));
    this.files = this.files.filter((one) => one.state !== "chosen" || !again.has(one.relative));
    for (const { file, relative } of files) {
      this.number += 1;
      this.files.push({ id: this.number, file, relative, size: file.size, sent: 0, state: "chosen" });
    }
    this.skipped.push(...skipped);
    this.more ||= more;
    this.changed();
  }

  of(...states) {
    return this.files.filter((one) => states.includes(one.state));
  }

  get busy() {
    return this.files.some((one) => GOES_ON.has(one.state));
  }

  /** Where each that is not on its way yet will go, by its id. */
  paths(to) {
    const files = this.of("chosen");
    return new Map(files.map((one) => [one.id, pathOf(to, one.relative, files.length === 1)]));
  }

  /** Find what waits for the paths that are about to be sent to. Throws nothing: what is not known is not shown. */
  async look(to, signal) {
    const paths = new Set(this.paths(to).values());
    if (!paths.size || !to.instance) {
      this.waiting = null;
      return;
    }
    const directory = to.path.replace(/\/*$/, "");
    const path = paths.size === 1 ? [...paths][0] : `${directory}/**`;
    const query = { instance: to.instance, ...(to.project && { project: to.project }), path, state: UNFINISHED.join(","), limit: 1000 };
    try {
      const { found, whole } = await pages(query, signal);
      const waiting = new Map();
      for (const task of found) {
        if (paths.has(task.path)) waiting.set(task.path, [...(waiting.get(task.path) ?? []), task]);
      }
      this.waiting = { by: waiting, whole };
    } catch (error) {
      if (error.name === "AbortError") return;
      this.waiting = null;
    }
    this.changed();
  }

  /** Put all that were chosen on their way. `who` tells what this browser keeps of one person from that of others. */
  async start(to, who) {
    const paths = this.paths(to);
    for (const one of this.of("chosen")) {
      Object.assign(one, { state: "waiting", path: paths.get(one.id), to: { ...to }, who, key: random() });
    }
    this.changed();
    this.tus = await library();
    this.next();
  }

  next() {
    if (this.of("sending").length < LANES) {
      const [one] = this.of("waiting");
      if (one) {
        this.send(one);
        this.next();
      }
    }
    this.changed();
  }

  async send(one) {
    one.state = "sending";
    one.problem = null;
    if (!one.upload) {
      one.upload = this.upload(one);
      const [before] = await one.upload.findPreviousUploads();
      if (before) one.upload.resumeFromPreviousUpload(before);
      if (one.state !== "sending") return;
    }
    one.upload.start();
  }

  upload(one) {
    const { instance, project, mode, uid, gid, mkdirs } = one.to;
    const metadata = { instance, path: one.path, filename: one.file.name };
    for (const [key, value] of Object.entries({ project, mode, uid, gid, mkdirs })) {
      if (value) metadata[key] = value;
    }
    return new this.tus.Upload(one.file, {
      endpoint: new URL(ENDPOINT, location.origin).href,
      metadata, retryDelays: RETRY_MS, headers: authorization(),
      uploadDataDuringCreation: one.size <= SMALL_BYTES,
      removeFingerprintOnSuccess: true,
      fingerprint: async () => [STORED, one.who, JSON.stringify(metadata), one.size, one.file.lastModified].join("::"),
      onBeforeRequest: (request) => {
        // What is asked for twice is one upload.
        if (request.getMethod() === "POST") request.setHeader("Idempotency-Key", one.key);
      },
      onShouldRetry: (error) => PASSES.has(error.originalResponse?.getStatus() ?? 0),
      onProgress: (sent) => {
        one.sent = sent;
        this.changed();
      },
      onError: (error) => this.settle(one, "refused", { problem: problemOf(error) }),
      onSuccess: ({ lastResponse }) => this.settle(one, "accepted", { sent: one.size, taskId: lastResponse.getHeader("Task-Id") }),
    });
  }

  settle(one, state, more) {
    Object.assign(one, more, { state, upload: state === "accepted" ? null : one.upload });
    this.next();
  }

  /** Stop one, or let it go on. What came so far is kept. */
  pause(one) {
    if (!GOES_ON.has(one.state)) return;
    one.state = "paused";
    one.upload?.abort();
    this.next();
  }

  resume(one) {
    if (one.state !== "paused" && one.state !== "refused") return;
    one.state = "waiting";
    // After a refusal it is another question: perhaps with other rights by now.
    if (one.problem) Object.assign(one, { upload: null, key: random() });
    this.next();
  }

  /** Take one off the list. What came of it is removed from the service. */
  remove(one) {
    const { upload } = one;
    this.files = this.files.filter((other) => other !== one);
    if (upload?.url && one.state !== "accepted") upload.abort(true).catch(() => {});
    else upload?.abort();
    this.next();
  }

  /** Forget what is decided. */
  clear() {
    this.files = this.files.filter((one) => !isDecided(one));
    this.skipped = [];
    this.more = false;
    this.changed();
  }

  /** Those that were accepted, and of which it is not known yet what became of them. */
  get undecided() {
    return this.of("accepted").filter((one) => one.taskId && !isDecided(one));
  }

  /** Ask how those stand. Throws Problem. */
  async follow(signal) {
    const groups = new Map();
    for (const one of this.undecided) {
      const key = JSON.stringify([one.to.instance, one.to.project]);
      groups.set(key, [...(groups.get(key) ?? []), one]);
    }
    for (const some of groups.values()) {
      const { instance, project } = some[0].to;
      const since = new Date(Math.min(...some.map((one) => timeOf(one.taskId)))).toISOString();
      const { found } = await pages({ instance, ...(project && { project }), since, limit: 1000 }, signal);
      const tasks = new Map(found.map((task) => [task.id, task]));
      for (const one of some) one.task = tasks.get(one.taskId) ?? one.task;
    }
  }

  /** What was begun in this browser by the same person and is not finished: its file has to be chosen again. */
  async unfinished(who) {
    this.tus = await library();
    const stored = await this.tus.defaultOptions.urlStorage.findAllUploads();
    const current = new Set(this.files.map((one) => one.upload?.url).filter(Boolean));
    return stored.filter((one) => one.urlStorageKey.startsWith(`tus::${STORED}::${who}::`) && !current.has(one.uploadUrl));
  }

  /** Give such a one up. */
  async forget({ uploadUrl, urlStorageKey }) {
    await this.tus.Upload.terminate(uploadUrl, { headers: authorization(), retryDelays: null }).catch(() => {});
    await this.tus.defaultOptions.urlStorage.removeUpload(urlStorageKey);
  }
}

/** Whether nothing more becomes of a file by itself. */
export function isDecided(one) {
  return one.state === "accepted" && Boolean(one.task) && !UNFINISHED.includes(one.task.state);
}

async function pages(query, signal) {
  let address = `/v1/tasks?${new URLSearchParams(query)}`;
  const found = [];
  for (let count = 0; address && count < MOST_PAGES; count += 1) {
    const page = await ask(address, { signal });
    found.push(...page.tasks);
    address = page.next;
  }
  return { found, whole: !address };
}

/** An id begins with the milliseconds at which it was made (UUIDv7). */
function timeOf(id) {
  return Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16) || 0;
}

function problemOf(error) {
  const answer = error.originalResponse;
  let said = {};
  try {
    said = JSON.parse(answer.getBody());
  } catch { /* nobody answered, or a proxy did */ }
  return new Problem(answer?.getStatus() ?? 0, said);
}

/** A key that nobody guesses; `crypto.randomUUID` is there over TLS alone. */
function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
