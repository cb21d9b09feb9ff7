// Which instance holds things up: the heat table of all, and the stuck ones in words.

import { h } from "./dom.js";
import { heatTable, stuckList } from "./heat.js";
import { scrolling } from "./parts.js";
import { link } from "./router.js";
import { ask } from "./server.js";
import { texts } from "./texts.js";

const words = texts.instances;
const SHOWN = 50;

export function instancesPage(app, { after = "" }) {
  let found;
  const query = new URLSearchParams({ limit: SHOWN, ...(after && { after }) });
  return {
    title: words.title, nav: "instances", key: `instances ${after}`, every_ms: 2000,
    follow: () => "state=failed,held,deferred",
    async load(signal) {
      found = await ask(`/v1/instances?${query}`, { signal });
    },
    view() {
      const stuck = found.instances.filter((row) => row.stuck);
      return [
        h("h1", { tabindex: "-1" }, words.title),
        h("p", { class: "lead" }, words.lead),
        stuck.length ? h("section", { class: "notice bad", key: "stuck", "aria-labelledby": "stuck" },
          h("h2", { id: "stuck" }, words.stuck(stuck.length)), stuckList(found.instances))
          : h("p", { class: "faint", key: "fine" }, found.instances.length ? words.none_stuck : words.none),
        found.instances.length ? scrolling(words.caption, heatTable(found)) : null,
        h("p", { class: "pager", key: "pager" }, found.more ? h("span", { class: "faint" }, words.more(found.more)) : null,
          after && h("a", { href: link("instances"), class: "button" }, words.first),
          found.next && h("a", { href: link("instances", { after: cursor(found.next) }), class: "button" }, words.next)),
      ];
    },
  };
}

/** Where the next page begins, whether it is told as an address or by itself. */
export function cursor(next) {
  return next.includes("?") ? new URLSearchParams(next.slice(next.indexOf("?"))).get("after") : next;
}
