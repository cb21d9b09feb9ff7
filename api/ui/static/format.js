// Numbers and times for people. A time that the two clocks disagree about is now, never negative.

import { h } from "./dom.js";
import { texts } from "./texts.js";

let ahead_ms = 0;

/** Take the server's clock for the time: how far it is from this one. */
export function tellTime(server) {
  const at = Date.parse(server);
  // Full seconds, and the way: smaller differences are none.
  if (Number.isFinite(at) && Math.abs(at - Date.now() - ahead_ms) > 1500) ahead_ms = at - Date.now();
}

export function now() {
  return Date.now() + ahead_ms;
}

export function number(value) {
  return Number(value).toLocaleString("en");
}

/** About so many, in five characters. */
export function short(value) {
  if (value < 10000) return number(Math.round(value));
  const units = ["", "k", "M", "G", "T"];
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${value.toPrecision(3)}${units[step]}`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let step = 0;
  while (value >= 1023.5 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${step && value < 99.95 ? value.toFixed(1) : number(Math.round(value))} ${units[step]}`;
}

export function rate(value) {
  return value === 0 ? "0" : value < 9.95 ? value.toFixed(1) : short(value);
}

/** A span of time in its two largest units. */
export function span(seconds) {
  const whole = Math.max(0, seconds);
  if (whole < 1) return texts.ms(Math.round(whole * 1000));
  if (whole < 10) return texts.s(Math.round(whole * 10) / 10);
  const parts = [[86400, texts.d], [3600, texts.h], [60, texts.min], [1, texts.s]];
  const first = parts.findIndex(([size]) => whole >= size);
  const shown = [];
  let left = Math.round(whole);
  for (const [size, say] of parts.slice(first, first + 2)) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count || !shown.length) shown.push(say(count));
  }
  return shown.join(" ");
}

/** The same in whole units, for what changes all the time. */
export function age(seconds) {
  return seconds < 1 ? texts.s(0) : seconds < 60 ? texts.s(Math.floor(seconds)) : span(seconds);
}

function element(at, said) {
  return h("time", { datetime: at, title: new Date(at).toLocaleString("en-GB", { timeZoneName: "short" }) }, said);
}

/** How long ago that was. */
export function ago(at) {
  return at ? element(at, texts.ago(age(Math.max(0, (now() - Date.parse(at)) / 1000)))) : "–";
}

/** How long it is until then. */
export function until(at) {
  const left = (Date.parse(at) - now()) / 1000;
  return element(at, left < 1 ? texts.any_moment : texts.in_time(age(left)));
}

/** The time of the day, and the day if it is another one. */
export function clock(at) {
  const when = new Date(at);
  const today = new Date(now()).toDateString() === when.toDateString();
  const time = when.toLocaleTimeString("en-GB");
  return element(at, today ? time : `${when.toLocaleDateString("en-CA")} ${time}`);
}
