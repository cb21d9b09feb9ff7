// The states of a task, drawn: a sign and a word, never a colour alone; and the way from one to the next.

import { h } from "./dom.js";
import { texts } from "./texts.js";

export const STATES = ["queued", "pushing", "deferred", "held", "delivered", "superseded", "cancelled", "failed"];
export const UNFINISHED = ["queued", "pushing", "deferred", "held"];

/** What can be done in which states, and the right that it needs. */
export const ACTIONS = {
  retry: { right: "retry", states: ["failed", "deferred"], forcible: true },
  release: { right: "hold", states: ["held"], forcible: true },
  hold: { right: "hold", states: ["queued", "pushing", "deferred"] },
  cancel: { right: "cancel", states: ["queued", "pushing", "deferred", "held"], grave: true },
  delete: { right: "delete", states: ["failed", "delivered", "superseded", "cancelled"], grave: true },
};

const SIGNS = {
  queued: "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z",
  pushing: "M8 13V3.5M4 7.5l4-4 4 4",
  deferred: "M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM8 5.8V8l1.8 1.2",
  held: "M5.8 4v8M10.2 4v8",
  delivered: "M3.5 8.4l3 3 6-6.8",
  superseded: "M3.5 5h6a3 3 0 0 1 0 6H4M6 8.8L3.8 11 6 13.2",
  cancelled: "M4.4 4.4l7.2 7.2M11.6 4.4l-7.2 7.2",
  failed: "M8 3v6M8 12v.6",
};

export function sign(state) {
  return h("svg", { viewBox: "0 0 16 16", class: `sign-of ${state}`, "aria-hidden": "true", focusable: "false" },
    h("path", { d: SIGNS[state] ?? SIGNS.queued }));
}

export function badge(state) {
  return h("span", { class: `badge ${state}` }, sign(state), h("span", { class: "word" }, state));
}

// Where each state stands, on a wide page and on a narrow one, and the ways between them.
const WIDE = { size: [760, 176], box: [112, 34],
  at: { accepted: [56, 88], held: [206, 26], queued: [206, 88], pushing: [376, 88], deferred: [376, 150],
        delivered: [556, 26], failed: [556, 150], superseded: [704, 26], cancelled: [704, 150] }, aside: [704, 92] };
const NARROW = { size: [330, 316], box: [100, 34],
  at: { accepted: [54, 22], queued: [54, 106], held: [54, 196], pushing: [165, 106], deferred: [165, 196],
        delivered: [276, 22], failed: [276, 106], superseded: [276, 196], cancelled: [276, 280] }, aside: [276, 242] };
const WAYS = [["accepted", "queued"], ["queued", "pushing"], ["queued", "held"], ["pushing", "deferred"],
  ["pushing", "delivered"], ["pushing", "failed"]];

/** The states, with that of the task, and those that it was in. */
export function wayOf(task) {
  const been = new Set(["accepted", task.state]);
  if (task.attempts > 0 || ["delivered", "failed"].includes(task.state)) been.add("queued").add("pushing");
  if (task.state === "deferred" || task.history?.slice(0, -1).some((attempt) => attempt.code)) been.add("deferred");
  return h("figure", { class: "way", role: "img", "aria-label": texts.task.way_text(task.state, texts.states[task.state]) },
    drawn(WIDE, "wide", been, task.state), drawn(NARROW, "narrow", been, task.state));
}

function drawn({ size: [width, height], box: [w, high], at, aside: [ax, ay] }, name, been, current) {
  const edge = ([x, y], [tx, ty]) => {
    // From the side of a box that faces the other one.
    const [dx, dy] = [tx - x, ty - y];
    return Math.abs(dx) > Math.abs(dy) * 0.6 ? [x + Math.sign(dx) * w / 2, y] : [x, y + Math.sign(dy) * high / 2];
  };
  const ways = WAYS.map(([from, to]) => {
    const [[x, y], [tx, ty]] = [edge(at[from], at[to]), edge(at[to], at[from])];
    const middle = (x + tx) / 2;
    const curve = y === ty || x === tx ? `M${x} ${y}L${tx} ${ty}` : `M${x} ${y}C${middle} ${y} ${middle} ${ty} ${tx} ${ty}`;
    return h("path", { d: curve, class: `edge${been.has(from) && been.has(to) ? " been" : ""}` });
  });
  const boxes = Object.entries(at).map(([state, [x, y]]) => h("g", {
    class: `node ${state}${been.has(state) ? " been" : ""}${state === current ? " current" : ""}` },
    h("rect", { x: x - w / 2, y: y - high / 2, width: w, height: high, rx: high / 2 }),
    h("text", { x, y: y + 4.5, "text-anchor": "middle" }, state === "accepted" ? texts.accepted : state)));
  return h("svg", { viewBox: `0 0 ${width} ${height}`, class: name, "aria-hidden": "true", focusable: "false" }, ways, boxes,
    h("text", { x: ax, y: ay, "text-anchor": "middle", class: "aside" }, texts.task.any_time));
}
