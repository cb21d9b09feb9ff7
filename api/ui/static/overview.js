// How the service is: in one look whether anything is stuck, and why.

import { sparkline } from "./chart.js";
import { foreign, h } from "./dom.js";
import { age, bytes, number, rate, short, until } from "./format.js";
import { heatTable } from "./heat.js";
import { instanceLink, scrolling, sinceText, toInstance } from "./parts.js";
import { link } from "./router.js";
import { ask } from "./server.js";
import { badge, STATES, UNFINISHED } from "./state.js";
import { texts } from "./texts.js";

const words = texts.overview;
const POINTS = 360;
const SHOWN_INSTANCES = 12;
// The problem that leads to the list of them.
const DEAD = "dead_letters";

export function overviewPage(app) {
  let found, instances;
  return {
    title: words.title, nav: "overview", key: "overview", every_ms: 2000,
    follow: () => "state=failed,held,deferred",
    async load(signal) {
      const [whole, list] = await Promise.all([
        app.me.sees_all ? ask("/v1/overview", { signal }) : null,
        ask("/v1/instances?limit=50", { signal })]);
      [found, instances] = [whole, list];
    },
    view: () => found ? view(found, instances) : bounded(instances),
  };
}

function bounded(instances) {
  const stuck = instances.instances.filter((row) => row.stuck);
  return [h("h1", { tabindex: "-1" }, headline(stuck.length)), h("p", { class: "lead" }, words.bounded),
    needs([], stuck), holdups(instances)];
}

function view(found, instances) {
  const stuck = instances.instances.filter((row) => row.stuck);
  const failed = found.counts.failed?.tasks ?? 0;
  // What is said of an instance stands once.
  const said = new Set(found.problems.map((problem) => problem.instance));
  const unsaid = stuck.filter((row) => !said.has(row.name));
  const waiting = UNFINISHED.reduce((sum, state) => sum + (found.counts[state]?.tasks ?? 0), 0);
  const matters = found.problems.length + unsaid.length;
  return [
    h("h1", { tabindex: "-1", class: matters ? "alarm" : "calm" }, headline(matters)),
    h("p", { class: "lead" }, waiting ? words.waiting(texts.tasks(waiting), age(found.oldest_age_s ?? 0)) : words.quiet),
    needs(found.problems, unsaid),
    tiles(found, waiting, failed),
    holdups(instances),
    h("div", { class: "columns" }, states(found), h("div", {}, disk(found), shards(found), remotes(found))),
  ];
}

function headline(count) {
  return count ? words.stuck(count) : words.nothing_stuck;
}

function needs(problems, stuck) {
  if (!problems.length && !stuck.length) return null;
  return h("ul", { class: "needs", key: "needs" },
    problems.map((one) => h("li", { key: `${one.code} ${one.instance}` },
      h("p", {}, one.instance ? h("a", { href: toInstance(named(one.instance)), class: "strong" }, foreign(one.instance)) : null,
        one.instance ? " " : null,
        one.code === DEAD ? h("a", { href: link("tasks", { state: "failed" }), class: "strong" }, foreign(one.message)) : foreign(one.message),
        " ", h("code", { class: "code" }, foreign(one.code))),
      one.hint && h("p", { class: "faint" }, foreign(one.hint)))),
    stuck.map((row) => h("li", { key: `stuck ${row.name} ${row.project}` },
      h("p", {}, h("span", { class: "strong" }, instanceLink(row)), " ", foreign(row.why ?? "")))));
}

/** The parts of `[remote:][project/]instance`. */
function named(text) {
  const [, remote, project, instance] = /^(?:([^:/]*):)?(?:([^/]*)\/)?(.*)$/.exec(text);
  return { remote, project, instance };
}

function tiles(found, waiting, failed) {
  const { rates, history, counts } = found;
  const tile = (key, name, value, unit, below, values, kind, to) => h("li", { key, class: `tile ${kind}` },
    h("a", { href: to },
      h("span", { class: "tile-name" }, name),
      h("span", { class: "tile-value number" }, value, unit && h("small", {}, unit)),
      h("span", { class: "tile-below faint number" }, below)),
    sparkline(values, POINTS, words.chart(name, `${value}${unit ?? ""}`, short(Math.max(0, ...values.filter((one) => one !== null)))), kind),
    h("span", { class: "tile-axis faint number", "aria-hidden": "true" }, h("span", {}, words.last_hour),
      h("span", {}, words.highest(top(values, unit)))));
  return h("ul", { class: "tiles", key: "tiles" },
    tile("in", words.uploads, perSecond(rates.uploads_s), words.per_s, bytesPerSecond(rates.upload_bytes_s), history.uploads, "in", link("tasks")),
    tile("out", words.deliveries, perSecond(rates.deliveries_s), words.per_s, bytesPerSecond(rates.delivery_bytes_s), history.deliveries, "out",
      link("tasks", { state: "delivered" })),
    tile("waiting", words.waiting_label, short(waiting), null,
      !waiting || found.oldest_age_s === null ? words.nobody_waits : words.oldest(age(found.oldest_age_s)), history.waiting, "wait",
      link("tasks", { state: UNFINISHED.join(",") })),
    tile("failed", words.failed_label, short(failed), null, bytes(counts.failed?.bytes ?? 0), history.failed, "dead", link("tasks", { state: "failed" })));
}

// Nothing is known of a rate right after a start.
const perSecond = (value) => value === null ? "–" : rate(value);
const bytesPerSecond = (value) => value === null ? "" : words.bytes_s(bytes(value));

function top(values, unit) {
  const highest = Math.max(0, ...values.filter((one) => one !== null));
  return unit ? `${rate(highest)}${unit}` : short(highest);
}

function holdups(instances) {
  if (!instances.instances.length) return null;
  return h("section", { key: "holdups", "aria-labelledby": "holdups" },
    h("div", { class: "section-head" }, h("h2", { id: "holdups" }, words.instances),
      h("a", { href: link("instances") }, words.all_instances)),
    scrolling(words.instances, heatTable({ ...instances, instances: instances.instances.slice(0, SHOWN_INSTANCES) })));
}

function states(found) {
  return h("section", { key: "states", "aria-labelledby": "states" }, h("h2", { id: "states" }, words.states),
    h("table", { class: "states" }, h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, words.state), h("th", { scope: "col", class: "number" }, words.tasks),
      h("th", { scope: "col", class: "number" }, words.size))),
    h("tbody", {}, STATES.map((state) => {
      const { tasks = 0, bytes: size = 0 } = found.counts[state] ?? {};
      return h("tr", { key: state, class: tasks ? null : "nil" },
        h("th", { scope: "row" }, h("a", { href: link("tasks", { state }), title: texts.states[state] }, badge(state))),
        h("td", { class: "number" }, number(tasks)), h("td", { class: "number faint" }, tasks ? bytes(size) : "–"));
    }))));
}

function disk({ disk: room, partials }) {
  const used = Math.max(0, room.total_bytes - room.free_bytes);
  const low = room.free_bytes < 2 * room.min_free_bytes;
  return h("section", { key: "disk", "aria-labelledby": "disk" }, h("h2", { id: "disk" }, words.machine),
    h("meter", { class: low ? "low" : null, min: "0", max: room.total_bytes || 1, value: used, "aria-label": words.disk_label }),
    h("p", { class: low ? "bad" : null }, words.disk(bytes(room.free_bytes), bytes(room.total_bytes))),
    h("p", { class: "faint" }, `${words.spool} ${bytes(room.spool_bytes)} · ${words.least} ${bytes(room.min_free_bytes)}`,
      partials.number ? ` · ${words.partials_value(partials.number, bytes(partials.bytes))}` : null));
}

function shards(found) {
  return h("section", { key: "shards", "aria-labelledby": "shards" }, h("h2", { id: "shards" }, words.shards),
    h("table", {}, h("thead", {}, h("tr", {}, [words.shard, words.worker].map((name) => h("th", { scope: "col" }, name)),
      [words.lanes, words.sessions, words.pushing].map((name) => h("th", { scope: "col", class: "number" }, name)))),
    h("tbody", {}, found.shards.map((shard) => h("tr", { key: shard.shard },
      h("th", { scope: "row", class: "number left" }, shard.shard),
      h("td", {}, shard.worker === null ? h("span", { class: "bad" }, words.no_worker) : words.pid(shard.worker),
        shard.fault && h("span", { class: "bad block" }, foreign(shard.fault))),
      ["lanes", "sessions", "pushing"].map((key) => h("td", { class: shard[key] ? "number" : "number nil" }, number(shard[key] ?? 0))))))));
}

function remotes(found) {
  if (!found.remotes.length) return null;
  return h("section", { key: "remotes", "aria-labelledby": "remotes" }, h("h2", { id: "remotes" }, words.remotes),
    h("table", {}, h("thead", {}, h("tr", {}, [words.remote, words.standing, words.since].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, found.remotes.map((remote) => h("tr", { key: remote.remote },
        h("th", { scope: "row" }, foreign(remote.remote)),
        h("td", {}, remote.up ? h("span", { class: "good" }, words.up) : [h("span", { class: "bad strong" }, words.down),
          remote.error && [" ", foreign(remote.error.message ?? ""), " ", h("code", { class: "code" }, foreign(remote.error.code))],
          remote.next_try_at && h("span", { class: "faint block" }, `${words.next_try} `, until(remote.next_try_at))]),
        h("td", { class: "number left" }, remote.since ? sinceText(remote.since) : "–"))))));
}
