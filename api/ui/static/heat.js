// Instances by the ages of what waits there: the older the warmer, the more the deeper. Postfix has its qshape so.

import { foreign, h } from "./dom.js";
import { age, number, span } from "./format.js";
import { instanceLink } from "./parts.js";
import { texts } from "./texts.js";

const words = texts.instances;
const DEPTHS = 5;

/** How deep the colour of so many is: 0 for none, DEPTHS for `most`. */
function depth(count, most) {
  return count === 0 ? 0 : Math.max(1, Math.min(DEPTHS, Math.ceil(Math.log10(count + 1) / Math.log10(most + 1) * DEPTHS)));
}

export function cells(ages, most) {
  return ages.map((count, index) => h("td", { class: `heat number age-${index} deep-${depth(count, most)}` },
    count === 0 ? h("span", { class: "nil" }, "·") : count >= most ? words.at_least(number(most)) : number(count)));
}

export function ageHeads(bounds_s) {
  return [...bounds_s, null].map((bound, index) => h("th", { scope: "col", class: `number age age-${index}`,
    title: words.ages(index ? span(bounds_s[index - 1]) : null, bound === null ? null : span(bound)) },
    bound === null ? words.over(span(bounds_s.at(-1))) : words.under(span(bound))));
}

export function heatTable({ bounds_s, most, instances }) {
  return h("table", { class: "heat-table" }, h("caption", { class: "unseen" }, words.caption),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, words.instance), h("th", { scope: "col", class: "number" }, words.waiting),
      ageHeads(bounds_s), h("th", { scope: "col", class: "number" }, words.oldest),
      h("th", { scope: "col", class: "number" }, words.failed))),
    h("tbody", {}, instances.map((row) => h("tr", { key: row.name + row.project, class: row.stuck ? "is-stuck" : null },
      h("th", { scope: "row" }, instanceLink(row)),
      h("td", { class: "number strong" }, number(row.waiting)),
      cells(row.ages, most),
      h("td", { class: "number" }, !row.waiting || row.oldest_age_s === null ? "–" : age(row.oldest_age_s)),
      h("td", { class: row.counts.failed?.tasks ? "number bad" : "number nil" }, number(row.counts.failed?.tasks ?? 0))))));
}

/** The stuck ones in words. */
export function stuckList(instances) {
  return h("ul", { class: "stuck-list" }, instances.filter((row) => row.stuck).map((row) =>
    h("li", { key: row.name + row.project }, h("span", { class: "strong" }, instanceLink(row)), " ",
      foreign(row.why ?? ""))));
}
