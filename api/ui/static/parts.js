// What several pages show: files, errors, explanations, tables that scroll, commands to copy.

import { foreign, h, plain } from "./dom.js";
import { age, ago, bytes, now, until } from "./format.js";
import { link } from "./router.js";
import { instanceName } from "./server.js";
import { texts } from "./texts.js";

// More of a name than fits into a line.
const LINE = 300;

/** The name of an instance, with what tells it from others of that name. */
export function instanceLabel({ remote, project, instance }) {
  const prefix = [remote && remote !== "local" ? `${remote}:` : "", project && project !== "default" ? `${project}/` : ""];
  return [prefix.join("") && h("span", { class: "faint" }, foreign(prefix.join(""))), foreign(instance)];
}

export function instanceLink(place) {
  return h("a", { href: toInstance(place), class: "instance-link" }, instanceLabel(place));
}

export function toInstance(place) {
  const project = place.project && place.project !== "default" ? place.project : "";
  return link(`instances/${encodeURIComponent(instanceName(place)).replaceAll("%3A", ":")}`, { project });
}

/** A path in one line: its end is seen in any case. */
export function pathLine(path) {
  const cut = path.lastIndexOf("/") + 1;
  return h("span", { class: "path", title: plain(path) },
    foreign(path.slice(0, Math.min(cut, LINE)), { class: "dir" }), foreign(path.slice(cut, cut + LINE), { class: "base" }));
}

export function taskLink(task) {
  return h("a", { href: link(`tasks/${task.id}`), class: "task-link" }, pathLine(task.path));
}

/** A table that scrolls by itself where the page is too narrow, also by keys. */
export function scrolling(label, table) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, table);
}

export function facts(pairs, props = {}) {
  return h("dl", { class: "facts", ...props }, pairs.filter(Boolean).map(([name, value]) =>
    h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))));
}

/** An error in words: what it is called, what it said, and what to do. */
export function errorWords(error) {
  return [h("code", { class: "code" }, foreign(error.code)), " ", error.message && foreign(error.message)];
}

/** Why something waits; of a task, how many of its instance come before it. */
export function explanation(found, { ahead = 0 } = {}) {
  const words = texts.why;
  return h("section", { class: `why ${found.stuck ? "stuck" : "fine"}`, "aria-labelledby": "why" },
    h("h2", { id: "why" }, found.stuck ? words.title : words.title_fine),
    h("p", { class: "summary" }, foreign(found.summary)),
    facts([
      found.error && [words.error, errorWords(found.error)],
      found.error?.hint && [words.hint, foreign(found.error.hint)],
      found.unblocks && [words.unblocks, foreign(found.unblocks)],
      found.next_try_at && [words.next_try, until(found.next_try_at)],
      found.since && [words.since, ago(found.since)],
      found.task_id && [words.task, h("a", { href: link(`tasks/${found.task_id}`) }, h("code", {}, found.task_id))],
      ahead > 0 && [words.ahead, texts.tasks(ahead)],
    ]),
    found.pushing?.length ? [h("h3", {}, words.pushing), h("ul", { class: "pushing" }, found.pushing.map((one) =>
      h("li", { key: one.task_id },
        h("a", { href: link(`tasks/${one.task_id}`) }, pathLine(one.path)),
        h("progress", { max: Math.max(1, one.size_bytes), value: one.sent_bytes, "aria-label": words.progress_of(plain(one.path, 80)) }),
        h("span", { class: "faint number" }, words.progress(bytes(one.sent_bytes), bytes(one.size_bytes))))))] : null);
}

/** How long something has been so, in seconds, as text. */
export function sinceText(at) {
  return age(Math.max(0, (now() - Date.parse(at)) / 1000));
}

/** A command to paste. Copying works without TLS, too. */
export function command(app, text) {
  return h("div", { class: "command" }, h("code", {}, text),
    h("button", { type: "button", class: "small", "aria-label": texts.task.copy_of(text),
                  onclick: async (event) => {
                    const button = event.currentTarget;
                    app.announce(await copied(text, button.previousSibling) ? texts.task.copied : texts.task.not_copied);
                    button.classList.add("done");
                    setTimeout(() => button.classList.remove("done"), 1500);
                  } }, texts.task.copy));
}

async function copied(text, shown) {
  try {
    // Only where the page came over TLS or from this machine.
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const selection = getSelection();
    selection.selectAllChildren(shown);
    const done = document.execCommand("copy");
    if (done) selection.removeAllRanges();
    return done;
  }
}
