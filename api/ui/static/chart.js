// A line of the last hour, without axes: its last value and its highest one stand beside it as text.

import { h } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;
const LEAST = 0.5;

/** `values` evenly spaced, the newest last, of `most` that there may be; null where nothing is known. */
export function sparkline(values, most, label, kind) {
  const known = values.filter((value) => value !== null);
  const highest = Math.max(LEAST, ...known);
  const step = WIDTH / Math.max(1, most - 1);
  const points = values.map((value, index) => value === null ? null
    : [WIDTH - (values.length - 1 - index) * step, HEIGHT - 2 - Math.max(0, value) / highest * (HEIGHT - 6)]);
  const runs = [[]];
  for (const point of points) {
    if (point) runs.at(-1).push(point);
    else if (runs.at(-1).length) runs.push([]);
  }
  const text = (run) => run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  const whole = runs.filter((run) => run.length);
  return h("svg", { class: `spark ${kind}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
                    "aria-label": label, focusable: "false" },
    whole.map((run) => h("path", {
      class: "area", d: `M${run[0][0].toFixed(1)} ${HEIGHT}L${text(run)}L${run.at(-1)[0].toFixed(1)} ${HEIGHT}Z` })),
    whole.map((run) => h("path", { class: "line", d: `M${text(run)}` })));
}
