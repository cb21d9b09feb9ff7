// One task: where it stands, why, what was tried, and what became of it.

import { offer } from "./acting.js";
import { foreign, h } from "./dom.js";
import { ago, bytes, clock, number, span, until } from "./format.js";
import { command, errorWords, explanation, facts, instanceLink, scrolling } from "./parts.js";
import { link } from "./router.js";
import { ask, task as address } from "./server.js";
import { ACTIONS, badge, UNFINISHED, wayOf } from "./state.js";
import { texts } from "./texts.js";

const words = texts.task;
const KEPT = ["failed", "held"];

export function taskPage(app, id) {
  let task, why;
  return {
    title: words.title, nav: "tasks", key: `task ${id}`, every_ms: 3000,
    follow: () => `task=${id}`,
    async load(signal) {
      const found = await ask(address(id), { signal });
      // A service may be older than the page of another one.
      const asked = [...UNFINISHED, "failed"].includes(found.state);
      why = asked ? await ask(`${address(id)}/explanation`, { signal }).catch((error) => error.status === 404 ? null : Promise.reject(error)) : null;
      task = found;
    },
    view: () => view(app, task, why),
  };
}

function view(app, task, why) {
  const verbs = Object.keys(ACTIONS).filter((verb) => ACTIONS[verb].states.includes(task.state));
  const cut = task.path.lastIndexOf("/") + 1;
  return [
    h("p", { class: "above" }, h("a", { href: link("tasks") }, texts.list.title)),
    h("div", { class: "title-row" },
      h("h1", { tabindex: "-1", class: "file-name" }, foreign(task.path.slice(cut) || task.path)), badge(task.state)),
    h("p", { class: "whole-path" }, foreign(task.path), h("span", { class: "faint" }, ` ${words.to} `), instanceLink(task)),
    h("div", { class: "buttons" }, offer(app, verbs, { kind: "one", tasks: [task] }),
      KEPT.includes(task.state) && app.may("save") && h("a", { class: "button small", href: `${address(task.id)}/content`, download: "" }, words.save)),
    why ? explanation(why, { ahead: why.waiting }) : task.error && h("div", { class: "notice" }, h("p", {}, errorWords(task.error))),
    h("section", { "aria-labelledby": "way" }, h("h2", { id: "way" }, words.way), wayOf(task),
      h("p", { class: "faint" }, words.way_text(task.state, texts.states[task.state]),
        task.next_attempt_at && task.state === "deferred" ? [` ${words.next}: `, until(task.next_attempt_at), "."] : null)),
    h("div", { class: "columns even" },
      h("section", { "aria-labelledby": "upload" }, h("h2", { id: "upload" }, words.upload), facts([
        [words.size, `${bytes(task.size)} (${number(task.size)})`],
        [words.accepted, [clock(task.created_at), " · ", ago(task.created_at)]],
        [words.client, task.client ? foreign(task.client) : texts.none],
        task.name && [words.name, foreign(task.name)],
        [words.mode, task.mode ?? words.asked],
        [words.owner, task.uid === null && task.gid === null ? words.asked : `${task.uid ?? "–"}:${task.gid ?? "–"}`],
        [words.mkdirs, task.mkdirs ? words.yes : words.no],
        [words.sha256, h("code", { class: "hash" }, task.sha256)],
        [words.id, h("code", { class: "hash" }, task.id)],
      ])),
      task.receipt ? receipt(task.receipt) : null),
    attempts(task.history ?? []),
    h("section", { "aria-labelledby": "log" }, h("h2", { id: "log" }, words.log), h("p", { class: "faint" }, words.log_text),
      command(app, words.command(task.id)), command(app, words.explain(task.id))),
  ];
}

function receipt(found) {
  return h("section", { "aria-labelledby": "receipt" }, h("h2", { id: "receipt" }, words.receipt), facts([
    found.delivered_at && [words.delivered, [clock(found.delivered_at), " · ", ago(found.delivered_at)]],
    found.delivered_at && [words.whole, span(Math.max(0, (Date.parse(found.delivered_at) - Date.parse(found.accepted_at)) / 1000))],
    found.last_attempt_at && [words.last_attempt, clock(found.last_attempt_at)],
    [words.tries, number(found.attempts)],
    found.way && [words.wayed, found.way],
    found.mode && [words.mode, found.mode],
    found.uid !== null && [words.owner, `${found.uid}:${found.gid}`],
  ]));
}

function attempts(history) {
  return h("section", { "aria-labelledby": "attempts" }, h("h2", { id: "attempts" }, words.attempts),
    history.length ? scrolling(words.attempts_caption, h("table", { class: "attempts" },
      h("caption", { class: "unseen" }, words.attempts_caption),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, words.at), h("th", { scope: "col", class: "number" }, words.took),
        h("th", { scope: "col" }, words.outcome), h("th", { scope: "col" }, words.message))),
      h("tbody", {}, history.map((one, index) => h("tr", { key: `${one.at} ${index}` },
        h("td", { class: "nowrap number left" }, clock(one.at)), h("td", { class: "number" }, span(one.duration_s)),
        h("td", {}, one.code ? h("code", { class: "code" }, foreign(one.code)) : h("span", { class: "good" }, words.in_place)),
        h("td", { class: "message" }, one.message ? foreign(one.message) : "")))))) : h("p", { class: "faint" }, words.no_attempts));
}
