// Sending files: also the page that an upload link opens, where it is all that there is.

import { foreign, h, plain } from "./dom.js";
import { bytes, clock, number, until } from "./format.js";
import { handOn } from "./hand_on.js";
import { facts, pathLine, scrolling, taskLink } from "./parts.js";
import { isDecided, pathOf, Sending } from "./sending.js";
import { chosen, dropped } from "./picked.js";
import { badge } from "./state.js";
import { texts } from "./texts.js";

const words = texts.send;
const DRAW_MS = 150;
const LOOK_MS = 400;
// More rows than these help nobody; those that need somebody stand first.
const ROWS = 200;
const ORDER = ["refused", "sending", "paused", "waiting", "chosen", "accepted"];
const GLOB = /[*?]/;

let app;
let drawing = null;
const sending = new Sending(() => {
  drawing ??= setTimeout(() => {
    drawing = null;
    told();
    app.draw();
  }, DRAW_MS);
});
const to = { instance: "", project: "", path: "", mode: "", uid: "", gid: "", mkdirs: "" };
const page = { before: [], over: false, looking: null, ended: true };

/** Whether the page is the one that is shown: the window takes what is dropped anywhere on it. */
let shown = false;

addEventListener("beforeunload", (event) => sending.busy && event.preventDefault());
for (const kind of ["dragover", "dragleave", "drop"]) addEventListener(kind, drag);

export function sendPage(given, query) {
  app = given;
  prefill(query);
  return {
    title: words.title, nav: "send", key: "send", ready: () => true,
    get every_ms() {
      return sending.undecided.length ? 1500 : 60000;
    },
    follow: () => app.may("read") && sending.undecided.length ? query_of(sending.undecided[0].to) : null,
    async load(signal) {
      if (app.may("read") && sending.undecided.length) await sending.follow(signal);
      if (app.me) page.before = await sending.unfinished(who());
      told();
    },
    show: (is) => {
      shown = is;
    },
    view,
  };
}

function who() {
  return app.me.name ?? "";
}

function query_of({ instance, project }) {
  return new URLSearchParams({ instance, ...(project && { project }) }).toString();
}

/** What is known without asking: the address says it, or there is no choice. */
function prefill({ instance = "", path = "" }) {
  const only = (globs, fit) => globs?.length === 1 ? fit(globs[0]) : "";
  to.instance ||= instance || only(app.me.instances, (glob) => GLOB.test(glob) ? "" : glob);
  to.path ||= path || only(app.me.paths, (glob) => GLOB.test(glob) ? directoryOf(glob) : glob);
}

/** The directory below which all that a glob allows is: `/srv/in/**` is `/srv/in/`. */
function directoryOf(glob) {
  return glob.slice(0, glob.slice(0, glob.search(GLOB)).lastIndexOf("/") + 1);
}

/** Say it once when all is decided. */
function told() {
  const ended = sending.files.length > 0 && !sending.busy && !sending.of("chosen", "paused").length
    && (!app.may("read") || !sending.undecided.length);
  if (ended && !page.ended) app.announce(receiptText());
  page.ended = ended;
}

// --- picking --------------------------------------------------------------------------------------------------

function take(found) {
  sending.add(found);
  app.announce(words.added(found.files.length));
  lookSoon();
}

function drag(event) {
  if (!shown || ![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  const over = event.type === "dragover" || (event.type === "dragleave" && event.relatedTarget !== null);
  if (event.type === "drop") dropped(event.dataTransfer).then(take);
  if (over === page.over) return;
  page.over = over;
  app.draw();
}

function lookSoon() {
  clearTimeout(page.timer);
  page.timer = setTimeout(lookNow, LOOK_MS);
}

/** See what would be superseded. */
async function lookNow() {
  clearTimeout(page.timer);
  page.looking?.abort();
  if (!app.may("read")) return;
  page.looking = new AbortController();
  await sending.look(to, page.looking.signal);
  app.draw();
}

/** Uploads that wait for the path of a file that is about to be sent. */
function before(paths, one) {
  return sending.waiting?.by.get(paths.get(one.id)) ?? [];
}

function replaced() {
  const paths = sending.paths(to);
  return sending.of("chosen").reduce((count, one) => count + before(paths, one).length, 0);
}

async function submit(event) {
  event.preventDefault();
  const seen = replaced();
  await lookNow();
  // What nobody has seen is not replaced.
  if (replaced() > seen) {
    app.announce(words.more_waiting);
    return;
  }
  page.ended = false;
  await sending.start(to, who());
}

// --- the page -------------------------------------------------------------------------------------------------

function view() {
  return [
    h("h1", { tabindex: "-1" }, app.guest ? words.title_link : words.title),
    h("p", { class: "lead" }, app.guest ? words.lead_link : words.lead),
    bounds(),
    h("form", { class: "send", onsubmit: submit, "aria-label": words.title }, destination(), picking(), ready()),
    left(),
    unfinished(),
    sending.files.length ? [progress(), list()] : null,
    !app.guest && app.may("delegate") && !app.me.anonymous && handOn(app),
  ];
}

function bounds() {
  const { me } = app;
  const globs = (some) => some?.map((glob, at) => [at ? ", " : "", h("code", {}, foreign(plain(glob, 200)))]);
  return facts([
    me.instances && [words.may.instances, globs(me.instances)],
    me.paths && [words.may.paths, globs(me.paths)],
    (me.max_file_bytes ?? null) !== null && [words.may.file, bytes(me.max_file_bytes)],
    (me.max_uploads ?? null) !== null && [words.may.uploads, texts.files(me.max_uploads)],
    (me.max_total_bytes ?? null) !== null && [words.may.total, bytes(me.max_total_bytes)],
    me.expires_at && [words.may.until, [clock(me.expires_at), " (", until(me.expires_at), ")"]],
  ]);
}

function field(name, props = {}) {
  const id = `send-${name}`;
  return h("div", { class: "field", key: name }, h("label", { for: id }, words[name]),
    h("input", { id, type: "text", spellcheck: "false", autocapitalize: "off", autocomplete: "off", value: to[name],
                 "aria-describedby": words.help[name] ? `${id}-help` : null,
                 oninput: (event) => {
                   to[name] = event.target.value.trim();
                   lookSoon();
                   app.draw();
                 }, ...props }),
    words.help[name] && h("p", { id: `${id}-help`, class: "faint help" }, words.help[name]));
}

function destination() {
  return h("fieldset", { class: "where" }, h("legend", { class: "unseen" }, words.where),
    h("div", { class: "fields" }, field("instance", { required: true, placeholder: "web1" }),
      field("path", { required: true, placeholder: "/srv/media/", pattern: "/.*", title: words.help.path })),
    h("details", { class: "more" }, h("summary", {}, words.options),
      h("div", { class: "fields" },
        field("mode", { pattern: "[0-7]{3,5}", placeholder: "0644" }), field("uid", { pattern: "[0-9]{1,10}", inputmode: "numeric" }),
        field("gid", { pattern: "[0-9]{1,10}", inputmode: "numeric" }), field("project"),
        h("div", { class: "field", key: "mkdirs" }, h("label", { for: "send-mkdirs" }, words.mkdirs),
          h("select", { id: "send-mkdirs", value: to.mkdirs, onchange: (event) => { to.mkdirs = event.target.value; app.draw(); } },
            ["", "true", "false"].map((value) => h("option", { key: value, value }, words.mkdirs_as[value || "default"])))))));
}

function picker(name, props) {
  return h("label", { class: "button" },
    h("input", { type: "file", multiple: true, class: "unseen", ...props, onchange: (event) => {
      take(chosen(event.target));
      // So that the same may be chosen again.
      event.target.value = "";
    } }), name);
}

function picking() {
  return h("div", { class: `drop${page.over ? " over" : ""}` },
    h("p", {}, page.over ? words.drop_now : words.drop),
    h("div", { class: "buttons" }, picker(words.files, {}), picker(words.folder, { webkitdirectory: true, "aria-describedby": "folder-help" })),
    h("p", { class: "faint help", id: "folder-help" }, words.folder_help));
}

function ready() {
  const some = sending.of("chosen");
  const count = replaced();
  return h("div", { class: "ready" },
    count > 0 && h("p", { class: "replaces", role: "status" }, words.replaces(count)),
    sending.waiting && !sending.waiting.whole && h("p", { class: "faint" }, words.not_whole),
    h("button", { type: "submit", class: "main", disabled: !some.length },
      some.length ? words.go(texts.files(some.length), bytes(sum(some, "size"))) : words.go_none));
}

function left() {
  if (!sending.skipped.length && !sending.more) return null;
  return h("section", { class: "notice", key: "skipped", role: "status" }, h("h2", {}, words.skipped(sending.skipped.length)),
    sending.more && h("p", {}, words.too_many),
    h("ul", {}, sending.skipped.slice(0, ROWS).map((one) => h("li", {}, foreign(plain(one.path)), " ",
      h("span", { class: "faint" }, words.why_skipped[one.why])))));
}

function unfinished() {
  if (!page.before.length) return null;
  return h("section", { class: "notice", key: "unfinished", "aria-labelledby": "unfinished" }, h("h2", { id: "unfinished" }, words.unfinished),
    h("p", {}, words.unfinished_text),
    h("ul", { class: "unfinished" }, page.before.slice(0, ROWS).map((one) => h("li", { key: one.urlStorageKey },
      pathLine(one.metadata.path ?? ""), h("span", { class: "faint" }, foreign(one.metadata.instance ?? ""), ", ", bytes(one.size)),
      h("button", { type: "button", class: "small", "aria-label": words.forget_of(plain(one.metadata.path ?? "", 80)), onclick: async () => {
        await sending.forget(one);
        page.before = page.before.filter((other) => other !== one);
        app.draw();
      } }, words.forget)))));
}

function sum(files, key) {
  return files.reduce((all, one) => all + one[key], 0);
}

function counted() {
  const counts = {};
  for (const one of sending.files) {
    const state = one.task?.state ?? one.state;
    counts[state] = (counts[state] ?? 0) + 1;
  }
  return counts;
}

function receiptText() {
  return Object.entries(counted()).map(([state, count]) => words.count(count, words.states[state] ?? state)).join(", ");
}

/** All together: how far, what became of them, and what can be done with all of them. */
function progress() {
  const files = sending.files.filter((one) => one.state !== "chosen");
  const [sent, size] = [sum(files, "sent"), sum(files, "size")];
  const act = (name, on, states) => sending.of(...states).length > 0 && h("button", { key: name, type: "button", onclick: on }, words[name]);
  return h("section", { class: "all", key: "all", "aria-label": words.all },
    files.length > 0 && h("progress", { max: Math.max(1, size), value: size ? sent : 1, "aria-label": words.all }),
    h("p", { class: "receipt" }, files.length > 0 && h("span", { class: "strong" }, words.sent(bytes(sent), bytes(size))), files.length > 0 && " ",
      receiptText()),
    page.ended && !app.may("read") && h("p", { class: "faint" }, words.not_followed),
    h("div", { class: "buttons" },
      act("pause_all", () => sending.of("sending", "waiting").reverse().forEach((one) => sending.pause(one)), ["sending", "waiting"]),
      act("resume_all", () => sending.of("paused").forEach((one) => sending.resume(one)), ["paused"]),
      act("retry_all", () => sending.of("refused").forEach((one) => sending.resume(one)), ["refused"]),
      sending.files.some(isDecided) && h("button", { key: "clear", type: "button", class: "plain", onclick: () => sending.clear() }, words.clear)));
}

function list() {
  const paths = sending.paths(to);
  const files = [...sending.files].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.id - b.id);
  return h("section", { key: "list" }, scrolling(words.caption, h("table", { class: "sending" }, h("caption", { class: "unseen" }, words.caption),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, words.file), h("th", { scope: "col", class: "number" }, words.size),
      h("th", { scope: "col", class: "how" }, words.how), h("th", { scope: "col" }, h("span", { class: "unseen" }, words.actions)))),
    h("tbody", {}, files.slice(0, ROWS).map((one) => row(one, paths))))),
  files.length > ROWS && h("p", { class: "faint" }, words.further(number(files.length - ROWS))));
}

function row(one, paths) {
  const path = one.path ?? paths.get(one.id) ?? pathOf(to, one.relative, false);
  const may = !app.guest && app.may("read") && one.taskId;
  return h("tr", { key: one.id },
    h("td", { class: "file" }, may ? taskLink({ id: one.taskId, path }) : pathLine(path),
      one.to && h("span", { class: "under" }, foreign(one.to.instance)),
      one.state === "chosen" && before(paths, one).map((task) => h("span", { key: task.id, class: "under replaces" },
        task.state === "pushing" ? words.follows : words.replaces_one(task.state), " ",
        app.guest ? null : h("a", { href: `/ui/tasks/${task.id}` }, words.which)))),
    h("td", { class: "number" }, bytes(one.size)),
    h("td", { class: "how" }, standing(one, path)),
    h("td", { class: "number" }, controls(one, path)));
}

function standing(one, path) {
  if (one.task) {
    return [badge(one.task.state), one.task.error && h("p", { class: "faint" }, foreign(plain(one.task.error.message ?? one.task.error.code)))];
  }
  return [
    ["sending", "paused"].includes(one.state) && h("progress", { max: Math.max(1, one.size), value: one.sent, "aria-label": words.progress_of(plain(path, 80)) }),
    h("span", { class: one.state === "refused" ? "bad" : "" }, words.states[one.state], ["sending", "paused"].includes(one.state) && ` ${words.sent(bytes(one.sent), bytes(one.size))}`),
    one.problem && h("p", {}, foreign(one.problem.message), one.problem.hint && [" ", h("span", { class: "faint" }, foreign(one.problem.hint))]),
    one.state === "accepted" && !app.may("read") && h("p", { class: "faint hash" }, foreign(one.taskId ?? "")),
  ];
}

function controls(one, path) {
  const button = (name, on) => h("button", { key: name, type: "button", class: "small", "aria-label": `${words[name]}: ${plain(path, 80)}`, onclick: () => on.call(sending, one) },
    words[name]);
  return h("div", { class: "buttons end" },
    ["sending", "waiting"].includes(one.state) && button("pause", sending.pause),
    one.state === "paused" && button("resume", sending.resume),
    one.state === "refused" && button("again", sending.resume),
    one.state !== "accepted" && button("remove", sending.remove));
}

/** What is shown where a link counts no more, or was not brought along. */
export function linkEnded(reloaded) {
  document.title = texts.title(words.title_link);
  return h("main", { key: "link-ended" }, h("div", { class: "page" },
    h("h1", { tabindex: "-1" }, reloaded ? words.link_again : words.link_ended),
    h("p", { class: "lead" }, reloaded ? words.link_again_text : words.link_ended_text)));
}
