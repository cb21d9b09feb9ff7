// One instance: why it is stuck, what is pushed now, and what waits.

import { offer } from "./acting.js";
import { foreign, h } from "./dom.js";
import { age, number } from "./format.js";
import { ageHeads, cells } from "./heat.js";
import { explanation, facts, scrolling } from "./parts.js";
import { link } from "./router.js";
import { ask, instanceAddress } from "./server.js";
import { UNFINISHED } from "./state.js";
import { taskTable } from "./tasks.js";
import { texts } from "./texts.js";

const words = texts.instance;
const SHOWN = 20;
// As `GET /v1/instances` has them.
const BOUNDS_S = [300, 900, 3600, 14400, 43200, 86400, 259200];
const MOST = 1000;

export function instancePage(app, name, { project = "" }) {
  let found, lane, dead;
  const place = project ? { instance: name, project } : { instance: name };
  const list = (state) => `/v1/tasks?${new URLSearchParams({ ...place, state, limit: SHOWN })}`;
  return {
    title: name, nav: "instances", key: `instance ${project} ${name}`, every_ms: 2000,
    heading: () => foreign(name),
    follow: () => String(new URLSearchParams(place)),
    async load(signal) {
      [found, lane, dead] = await Promise.all([ask(instanceAddress(name, project), { signal }),
        ask(list(UNFINISHED.join(",")), { signal }), ask(list("failed"), { signal })]);
    },
    view() {
      const count = (state) => found.counts[state]?.tasks ?? 0;
      return [
        h("p", { class: "above" }, h("a", { href: link("instances") }, texts.instances.title)),
        h("div", { class: "title-row" },
          h("h1", { tabindex: "-1" }, foreign(found.instance)),
          h("p", { class: "faint" }, [found.remote && words.remote(found.remote), found.project && words.project(found.project)]
            .filter(Boolean).map((text, index) => [index ? " · " : "", foreign(text)]))),
        found.explanation && explanation(found.explanation),
        facts([[words.waiting, number(found.waiting)], [words.oldest, !found.waiting || found.oldest_age_s === null ? "–" : age(found.oldest_age_s)],
          [words.held, number(count("held"))], [words.dead_count, number(count("failed"))], [words.delivered, number(count("delivered"))]],
        { class: "facts strip" }),
        found.waiting ? scrolling(words.ages, h("table", { class: "heat-table" }, h("caption", {}, words.ages),
          h("thead", {}, h("tr", {}, ageHeads(found.bounds_s ?? BOUNDS_S))),
          h("tbody", {}, h("tr", {}, cells(found.ages, found.most ?? MOST))))) : null,
        part(app, "lane", words.lane, lane.tasks, ["hold", "release", "cancel"], { ...place }, words.nothing),
        dead.tasks.length ? part(app, "dead", words.dead, dead.tasks, ["retry", "delete"], { ...place, state: "failed" }) : null,
        h("p", {}, h("a", { href: link("tasks", place) }, words.all)),
      ];
    },
  };
}

function part(app, id, title, tasks, verbs, filter, nothing) {
  return h("section", { key: id, "aria-labelledby": id },
    h("div", { class: "section-head" }, h("h2", { id }, title),
      tasks.length ? offer(app, verbs, { kind: "matching", filter }, { labelledBy: id }) : null),
    tasks.length ? taskTable(app, tasks, { caption: title, place: false }) : h("p", { class: "faint" }, nothing));
}
