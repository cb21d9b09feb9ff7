// What people asked of tasks.

import { foreign, h, plain } from "./dom.js";
import { clock, number, span } from "./format.js";
import { cursor } from "./instances.js";
import { scrolling } from "./parts.js";
import { link } from "./router.js";
import { ask } from "./server.js";
import { texts } from "./texts.js";

const words = texts.actions;
const LIMIT = 50;

export function actionsPage(app, { after = "" }) {
  let found;
  const query = new URLSearchParams({ limit: LIMIT, ...(after && { after }) });
  return {
    title: words.title, nav: "actions", key: `actions ${after}`, every_ms: 5000,
    follow: () => "state=held,cancelled",
    async load(signal) {
      found = await ask(`/v1/actions?${query}`, { signal });
    },
    view: () => [
      h("h1", { tabindex: "-1" }, words.title),
      h("p", { class: "lead" }, app.me.sees_all ? words.lead : words.lead_own),
      found.actions.length ? scrolling(words.caption, table(found.actions)) : h("p", { class: "empty" }, words.none),
      h("nav", { class: "pager", "aria-label": texts.list.pages },
        after && h("a", { href: link("actions"), class: "button" }, words.newest),
        found.next && h("a", { href: link("actions", { after: cursor(found.next) }), class: "button" }, words.older)),
    ],
  };
}

function table(actions) {
  return h("table", { class: "actions" }, h("caption", { class: "unseen" }, words.caption),
    h("thead", {}, h("tr", {}, [words.when, words.who, words.what, words.of].map((name) => h("th", { scope: "col" }, name)),
      h("th", { scope: "col", class: "number" }, words.tasks), h("th", { scope: "col" }, words.result))),
    h("tbody", {}, actions.map((one) => h("tr", { key: one.action_id },
      h("td", { class: "nowrap number left" }, clock(one.at)),
      h("td", {}, one.by ? foreign(plain(one.by, 80)) : h("span", { class: "faint" }, words.local)),
      h("td", { class: "strong" }, texts.act.verbs[one.verb] ?? foreign(one.verb)),
      h("td", { class: "of" }, subject(one.what)),
      h("td", { class: "number" }, number(one.tasks)),
      h("td", {}, result(one))))));
}

function subject(what) {
  if (what?.task_id) return h("a", { href: link(`tasks/${what.task_id}`) }, h("code", {}, what.task_id));
  const filter = what?.filter;
  if (!filter) return h("span", { class: "faint" }, words.chosen);
  const entries = Object.entries(filter);
  if (!entries.length) return words.all;
  return entries.map(([key, value]) => h("span", { key, class: "filter" }, h("span", { class: "faint" }, `${words.filter[key] ?? key} `),
    foreign(plain([value].flat().join(", "), 120))));
}

function result(one) {
  if (one.done_at === null && one.changed === null) return h("span", { class: "faint" }, words.pending);
  return [words.changed(one.changed ?? 0), one.refused ? [", ", h("span", { class: "bad" }, words.refused(one.refused))] : null,
    one.done_at ? h("span", { class: "faint" }, ` ${words.took(span(Math.max(0, (Date.parse(one.done_at) - Date.parse(one.at)) / 1000)))}`) : null];
}
