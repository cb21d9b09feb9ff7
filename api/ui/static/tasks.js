// The list of tasks. What is shown stays where it is: rows change in place, newer ones are announced, and a page begins
// after an id, so that what comes meanwhile moves nothing.

import { offer } from "./acting.js";
import { foreign, h, plain } from "./dom.js";
import { ago, bytes, until } from "./format.js";
import { cursor } from "./instances.js";
import { instanceLink, taskLink } from "./parts.js";
import { go, link } from "./router.js";
import { ask, task as taskAddress } from "./server.js";
import { ACTIONS, badge, STATES } from "./state.js";
import { texts } from "./texts.js";

const words = texts.list;
const LIMIT = 50;
const VERBS = Object.keys(ACTIONS);
const FIELDS = ["path", "instance", "project", "client", "error", "since", "until"];
const FINAL = new Set(["delivered", "superseded", "cancelled"]);
const TYPING_MS = 450;
// Rows that left the filter are asked for one by one: so many at once.
const MOST_SINGLE = 8;
const MOST_EMPTY = 20;
/** The page before each page, by where they begin. */
const newer = new Map();

export function tasksPage(app, query, before) {
  const filters = Object.fromEntries([...FIELDS, "state"].filter((key) => query[key]).map((key) => [key, query[key]]));
  const after = query.after ?? "";
  const page = {
    title: words.title, nav: "tasks", key: "tasks", every_ms: 5000,
    // Until the first answer the rows of before are there, and dim.
    rows: before?.rows ?? null, next: null, fresh: false, fetched: false,
    ready: () => page.rows !== null,
    follow() {
      const ids = (page.rows ?? []).filter((row) => !FINAL.has(row.state) && !row.gone).map((row) => row.id);
      return ids.length ? `task=${ids.join(",")}` : null;
    },
    heard(event) {
      // What was missed is asked for, and what happened is known.
      const row = event && page.rows?.find((one) => one.id === event.task_id);
      if (!row) return event === null;
      row.state = event.state;
      row.updated_at = event.at;
      row.error = event.error_code ? { code: event.error_code, message: row.error?.code === event.error_code ? row.error.message : null } : null;
      row.next_attempt_at = null;
      app.draw();
      return event.state === "deferred";
    },
    async load(signal) {
      let found = await ask(`/v1/tasks?${new URLSearchParams({ ...filters, ...(after && { after }), limit: LIMIT })}`, { signal });
      // A page may be empty because others were passed over for long.
      for (let tries = 0; !found.tasks.length && found.next && tries < MOST_EMPTY; tries += 1) found = await ask(found.next, { signal });
      if (!page.fetched || !page.rows.length) {
        page.rows = found.tasks;
        page.next = found.next;
        app.announce(words.shown(page.rows.length));
      } else {
        await page.merge(found, signal);
      }
      page.fetched = true;
    },
    async merge(found, signal) {
      const known = new Map(found.tasks.map((task) => [task.id, task]));
      page.fresh = !after && found.tasks.length > 0 && found.tasks[0].id > page.rows[0].id;
      const left = page.rows.filter((row) => !known.has(row.id) && !row.gone && !FINAL.has(row.state)).slice(0, MOST_SINGLE);
      await Promise.all(left.map(async (row) => {
        try {
          known.set(row.id, await ask(taskAddress(row.id), { signal }));
        } catch (error) {
          if (error.status !== 404) throw error;
          known.set(row.id, { ...row, gone: true });
        }
      }));
      page.rows = page.rows.map((row) => known.get(row.id) ?? row);
      for (const row of page.rows) if (app.marks.has(row.id)) app.marks.set(row.id, row);
    },
    view: () => view(app, page, filters, after),
  };
  return page;
}

function view(app, page, filters, after) {
  const filtered = Object.keys(filters).length > 0;
  const next = page.next && cursor(page.next);
  if (next) newer.set(next, after);
  return [
    h("h1", { tabindex: "-1" }, words.title),
    filterForm(filters),
    h("div", { class: "list-head", key: "head" },
      page.fresh && h("p", { class: "fresh", role: "status" }, words.fresh(true), " ",
        h("button", { type: "button", class: "small", onclick: () => app.show({ stay: true }) }, words.show)),
      page.rows.length ? h("div", { class: "matching" }, h("span", { class: "faint", id: "matching" }, words.matching),
        offer(app, verbsFor(filters.state), { kind: "matching", filter: filters }, { labelledBy: "matching" })) : null),
    page.rows.length ? h("div", { class: page.fetched ? "rows" : "rows dim", key: "rows" }, taskTable(app, page.rows, { caption: words.caption, marks: true }))
      : h("p", { class: "empty", key: "none" }, page.next ? words.looked : filtered || after ? words.none : words.none_yet),
    h("nav", { class: "pager", "aria-label": words.pages, key: "pager" },
      after && h("a", { href: link("tasks", filters), class: "button" }, words.newest),
      after && newer.has(after) && h("a", { href: link("tasks", { ...filters, after: newer.get(after) }), class: "button" }, words.newer),
      next && h("a", { href: link("tasks", { ...filters, after: next }), class: "button" }, words.older)),
    markedBar(app),
  ];
}

/** The actions of which some state among those that are filtered for is one. */
function verbsFor(states) {
  const chosen = states ? states.split(",") : null;
  return VERBS.filter((verb) => !chosen || chosen.some((state) => ACTIONS[verb].states.includes(state)));
}

// --- filters -----------------------------------------------------------------------------------------------

let typing;

function filterForm(filters) {
  const search = (form, options) => {
    clearTimeout(typing);
    const given = new FormData(form);
    const chosen = Object.fromEntries(FIELDS.map((key) => [key, (given.get(key) ?? "").trim()]));
    for (const key of ["since", "until"]) chosen[key] = chosen[key] && new Date(chosen[key]).toISOString();
    chosen.state = given.getAll("state").join(",");
    const address = link("tasks", chosen);
    if (address !== location.pathname + location.search) go(address, { stay: true, ...options });
  };
  const field = (key, props) => h("div", { key, class: "field" }, h("label", { for: `f-${key}` }, words[key]),
    h("input", { id: `f-${key}`, name: key, value: filters[key] ?? "", type: "text", spellcheck: "false", autocapitalize: "off", ...props }));
  const chosen = new Set((filters.state ?? "").split(","));
  const more = ["project", "client", "error", "since", "until"];
  return h("form", {
    key: "filters", class: "filters", role: "search", "aria-label": words.filters,
    onsubmit: (event) => { event.preventDefault(); search(event.currentTarget); },
    onchange: (event) => search(event.currentTarget),
    oninput: (event) => {
      const form = event.currentTarget;
      clearTimeout(typing);
      if (event.target.type === "text") typing = setTimeout(() => search(form, { replace: true }), TYPING_MS);
    },
  },
  h("div", { class: "fields" }, field("path", { placeholder: words.path_hint, type: "text" }), field("instance")),
  h("details", { class: "more", ref: (node) => { node.open = more.some((key) => filters[key]); } },
    h("summary", {}, words.more),
    h("div", { class: "fields" }, field("project"), field("client"), field("error"),
      field("since", { type: "datetime-local", value: local(filters.since) }), field("until", { type: "datetime-local", value: local(filters.until) }))),
  h("fieldset", { class: "chips" }, h("legend", { class: "unseen" }, words.state), STATES.map((state) =>
    h("label", { key: state, class: chosen.has(state) ? "chip on" : "chip" },
      h("input", { type: "checkbox", name: "state", value: state, checked: chosen.has(state) }), badge(state))),
  Object.keys(filters).length ? h("a", { href: link("tasks"), class: "clear" }, words.clear) : null),
  h("button", { type: "submit", class: "unseen" }, words.submit));
}

/** A time as the field for it has them: in the time zone of who looks. */
function local(text) {
  const at = text ? new Date(text) : null;
  if (!at || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

// --- rows --------------------------------------------------------------------------------------------------

export function taskTable(app, rows, { caption, marks = false, place = true }) {
  const marked = rows.filter((row) => app.marks.has(row.id)).length;
  const marking = (chosen, on) => {
    for (const row of chosen) {
      if (on) app.marks.set(row.id, row);
      else app.marks.delete(row.id);
    }
    app.draw();
  };
  return h("table", { class: `tasks${marks ? " with-marks" : ""}` }, h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {},
      marks && h("th", { scope: "col", class: "mark" }, h("label", { class: "hit" }, h("input", {
        type: "checkbox", "aria-label": words.mark_all, checked: marked > 0 && marked === rows.length,
        indeterminate: marked > 0 && marked < rows.length, onchange: (event) => marking(rows, event.target.checked) }))),
      h("th", { scope: "col", class: "state" }, words.state), h("th", { scope: "col", class: "file" }, words.where),
      place && h("th", { scope: "col", class: "place" }, words.instance),
      h("th", { scope: "col", class: "number size" }, words.size), h("th", { scope: "col", class: "number at" }, words.accepted),
      h("th", { scope: "col", class: "client" }, words.who))),
    h("tbody", {}, rows.map((row) => h("tr", { key: row.id, class: row.gone ? "gone" : app.marks.has(row.id) ? "marked" : null },
      marks && h("td", { class: "mark" }, h("label", { class: "hit" }, h("input", { type: "checkbox", checked: app.marks.has(row.id),
        "aria-label": words.mark_one(plain(row.path, 80)), onchange: (event) => marking([row], event.target.checked) }))),
      h("td", { class: "state" }, row.gone ? h("span", { class: "faint" }, words.gone) : badge(row.state)),
      h("td", { class: "file" }, taskLink(row), h("div", { class: "under" }, place ? h("span", { class: "place-under" }, instanceLink(row)) : null, trouble(row))),
      place && h("td", { class: "place" }, instanceLink(row)),
      h("td", { class: "number size" }, bytes(row.size)),
      h("td", { class: "number at" }, ago(row.created_at)),
      h("td", { class: "client" }, row.client ? foreign(plain(row.client, 80)) : h("span", { class: "nil" }, "–"))))));
}

function trouble(row) {
  if (!row.error && !row.next_attempt_at) return null;
  return h("span", { class: "trouble" },
    row.error && h("code", { class: "code", title: plain(row.error.message ?? "") }, foreign(row.error.code)),
    row.state === "deferred" && row.next_attempt_at && h("span", { class: "faint" }, " ", words.next_try, " ", until(row.next_attempt_at)));
}

function markedBar(app) {
  const tasks = [...app.marks.values()];
  if (!tasks.length) return null;
  return h("div", { class: "marked-bar", key: "marked", role: "region", "aria-label": words.marked(tasks.length) },
    h("span", { class: "strong" }, words.marked(tasks.length)),
    offer(app, VERBS, { kind: "marked", tasks }),
    h("button", { type: "button", class: "small plain", onclick: () => { app.marks.clear(); app.draw(); } }, words.unmark));
}
