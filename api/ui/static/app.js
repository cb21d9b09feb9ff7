// The dashboard put together: who looks, the page that the address says, and what keeps it up to date.

import { foreign, h, render } from "./dom.js";
import { ago, now } from "./format.js";
import { Live } from "./live.js";
import { actionsPage } from "./actions.js";
import { instancePage } from "./instance.js";
import { instancesPage } from "./instances.js";
import { overviewPage } from "./overview.js";
import { follow, go, here, link } from "./router.js";
import { linkEnded, sendPage } from "./send.js";
import { ask, dropToken, Problem, takeToken } from "./server.js";
import { signIn } from "./sign_in.js";
import { taskPage } from "./task.js";
import { tasksPage } from "./tasks.js";
import { texts } from "./texts.js";

const SESSION = "/ui/session";
const THEME = "incus-courier-theme";
// Between two questions that events bring about.
const GATHER_MS = 700;
const TICK_MS = 1000;

class App {
  constructor(root) {
    this.root = root;
    this.me = null;
    this.signedOut = false;
    /** Marked tasks by their ids: they stay marked from page to page. */
    this.marks = new Map();
    this.page = null;
    this.others = new BroadcastChannel("incus-courier");
    this.others.onmessage = () => {
      // Somebody signed in or out in another window: that is no surprise.
      this.knew = false;
      this.expired = false;
      this.start();
    };
    this.live = new Live((event) => this.heard(event), () => this.draw());
  }

  async start() {
    await this.recognize();
    this.show({ stay: true });
  }

  /** Find out who looks. */
  async recognize() {
    try {
      this.me = await ask("/v1/me");
    } catch (error) {
      this.me = error.status === 403 ? { may: [], name: null } : null;
      this.problem = error.status === 401 || error.status === 403 ? null : error;
      // Whichever window is the first to notice takes the cookie away from all.
      if (error.status === 401 && this.knew) this.expired = true;
      if (error.code === "bad_credential" && !this.guest) {
        // A cookie that counts no more; without it, others may be known by what they show besides.
        await ask(SESSION, { method: "DELETE" }).catch(() => {});
        this.me = await ask("/v1/me").catch(() => null);
      }
    }
    this.knew = this.me !== null;
  }

  /** Whether there is anything here for who looks; who may only send gets the page for that alone. */
  get mayLook() {
    return Boolean(this.me) && (this.may("read") && !this.guest || this.may("upload") && isSending());
  }

  /** Whether no task of an instance that he reaches is hidden: how instances stand is told to nobody else. */
  get seesInstances() {
    return this.may("read") && !this.me.own && this.me.paths === null;
  }

  may(right) {
    return this.me?.may.includes(right) ?? false;
  }

  announce(text) {
    document.getElementById("announcer").textContent = text;
  }

  async signOut() {
    await ask(SESSION, { method: "DELETE" }).catch(() => {});
    this.knew = false;
    this.expired = false;
    this.marks.clear();
    this.others.postMessage("changed");
    await this.start();
  }

  async signedIn() {
    this.expired = false;
    this.others.postMessage("changed");
    await this.start();
    this.focusHeading();
  }

  /** Show the page that the address names. */
  show({ stay } = {}) {
    if (isSending() && takeToken()) {
      // Whoever opened a link is its holder, and nobody else, until he leaves its page.
      this.guest = true;
      this.me = null;
      this.page = null;
      this.start();
      return;
    }
    if (this.guest && !isSending()) {
      dropToken();
      this.guest = false;
      this.start();
      return;
    }
    if (this.me && !this.guest && !this.may("read") && this.may("upload") && !isSending()) {
      go(link("send"), { replace: true, stay });
      return;
    }
    const { parts: [name, id], query: { project } } = here();
    if (this.me && !this.guest && this.may("read") && !this.seesInstances && (name === undefined || name === "instances")) {
      go(link("tasks", { instance: id, project: id && project }), { replace: true, stay });
      return;
    }
    this.asking?.abort();
    this.asking = new AbortController();
    this.loading = false;
    this.failed = null;
    this.loadedAt = null;
    this.page?.show?.(false);
    if (!this.mayLook) {
      this.page = null;
      this.live.follow(null);
      this.draw();
      return;
    }
    this.page = pageFor(this, here(), this.page);
    document.title = texts.title(this.page.title);
    this.page.show?.(true);
    this.live.follow(this.guest ? null : this.page.follow?.() ?? null);
    this.draw();
    this.refresh();
    if (!stay) {
      scrollTo(0, 0);
      this.focusHeading();
    }
  }

  focusHeading() {
    this.root.querySelector("h1")?.focus({ preventScroll: true });
  }

  heard(event) {
    if (this.page?.heard?.(event) === false) return;
    this.soon ??= setTimeout(() => {
      this.soon = null;
      this.refresh();
    }, GATHER_MS);
  }

  /** Ask for what the page shows, and show it. */
  async refresh() {
    const { page, asking } = this;
    if (!page || this.loading) return;
    this.loading = true;
    clearTimeout(this.next);
    try {
      await page.load?.(asking.signal);
      if (asking.signal.aborted) return;
      this.failed = null;
      this.loadedAt = new Date(now()).toISOString();
      this.live.follow(this.guest ? null : page.follow?.() ?? null);
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.failed = error;
      if (error.status === 401) {
        this.loading = false;
        await this.start();
        return;
      }
    } finally {
      if (!asking.signal.aborted) this.loading = false;
    }
    this.draw();
    this.plan();
  }

  plan() {
    clearTimeout(this.next);
    const every = this.page?.every_ms ?? 5000;
    this.next = setTimeout(() => document.hidden ? this.plan() : this.refresh(), this.live.open ? every : Math.min(every, 3000));
  }

  draw() {
    render(this.root, this.mayLook ? this.frame() : this.stranger());
    // Rows and addresses that were given up are gone from the page; so is the place of the focus.
  }

  /** For who has no page here. */
  stranger() {
    if (this.guest) return linkEnded(false);
    // A link that was opened here is not kept.
    return isSending() && history.state?.link ? linkEnded(true) : signIn(this);
  }

  frame() {
    const { page } = this;
    return [
      h("a", { href: "#page", class: "skip", onclick: (event) => { event.preventDefault(); this.focusHeading(); } }, texts.skip),
      this.header(),
      h("main", { id: "page", key: "main" }, this.trouble(), h("div", { key: page.key, class: `page ${page.nav ?? ""}` }, this.body())),
      this.footer(),
    ];
  }

  body() {
    const { page, failed } = this;
    if (this.loadedAt || page.ready?.()) return page.view();
    const heading = h("h1", { tabindex: "-1" }, page.heading?.() ?? page.title);
    if (!failed) return [heading, h("p", { class: "faint loading" }, texts.loading, "…")];
    return [heading, h("div", { class: "notice bad" }, h("p", {}, failed.message), failed.hint && h("p", { class: "faint" }, foreign(failed.hint)),
      h("p", {}, h("button", { type: "button", onclick: () => this.refresh() }, texts.try_again)))];
  }

  /** What stands above a page that cannot be kept up to date. */
  trouble() {
    if (!this.failed || !(this.loadedAt || this.page.ready?.())) return null;
    const gone = this.failed.status === 0;
    return h("div", { key: "trouble", class: "notice bad", role: "alert" },
      h("p", {}, gone && this.loadedAt ? texts.stale(ago(this.loadedAt)) : foreign(this.failed.message), " ",
        h("button", { type: "button", class: "small", onclick: () => this.refresh() }, texts.try_again)));
  }

  header() {
    const { nav } = texts;
    if (this.guest) return h("header", { key: "header", class: "top" }, h("span", { class: "brand" }, mark(), texts.product));
    const pages = [
      ...this.seesInstances ? [["", nav.overview, "overview"], ["instances", nav.instances, "instances"]] : [],
      ...this.may("read") ? [["tasks", nav.tasks, "tasks"], ["actions", nav.actions, "actions"]] : [],
      ...this.may("upload") ? [["send", nav.send, "send"]] : []];
    const standing = this.failed?.status === 0 ? "away" : this.live.open ? "live" : "polling";
    const { me } = this;
    return h("header", { key: "header", class: "top" },
      h("a", { href: link(""), class: "brand" }, mark(), texts.product),
      h("nav", { "aria-label": nav.label }, h("ul", {}, pages.map(([path, name, key]) => h("li", { key },
        h("a", { href: link(path), "aria-current": this.page.nav === key ? "page" : null }, name))))),
      h("div", { class: "who" },
        h("span", { class: `link ${standing}`, title: `${texts.link.of}: ${texts.link[standing]}` },
          h("span", { class: "lamp", "aria-hidden": "true" }), texts.link[standing]),
        me.anonymous ? h("span", { class: "faint me", title: texts.anonymous }, texts.anonymous_short)
          : h("span", { class: "me" }, foreign(me.name ?? "")),
        me.kind === "token" && h("button", { type: "button", class: "small", onclick: () => this.signOut() }, texts.sign_out)));
  }

  footer() {
    const { theme } = texts;
    const chosen = document.documentElement.dataset.theme ?? "auto";
    return h("footer", { key: "footer" }, h("label", {}, theme.label, " ",
      h("select", { value: chosen, onchange: (event) => { setTheme(event.target.value); this.draw(); } },
        ["auto", "light", "dark"].map((name) => h("option", { key: name, value: name }, theme[name])))));
  }
}

function isSending() {
  return here().parts.join("/") === "send";
}

function mark() {
  return h("svg", { viewBox: "0 0 32 32", class: "mark", "aria-hidden": "true", focusable: "false" },
    h("rect", { width: "32", height: "32", rx: "7" }), h("path", { d: "M7 9.5h18L16 18z" }),
    h("path", { class: "low", d: "M7 13v10h18V13l-9 8.4z" }));
}

function pageFor(app, { parts, query }, before) {
  const [name = "", id, ...more] = parts;
  const known = !more.length && {
    "": () => id === undefined && overviewPage(app),
    instances: () => id === undefined ? instancesPage(app, query) : instancePage(app, id, query),
    tasks: () => id === undefined ? tasksPage(app, query, before) : taskPage(app, id),
    actions: () => id === undefined && actionsPage(app, query),
    send: () => id === undefined && app.may("upload") && sendPage(app, query),
  }[name]?.();
  return known || { title: texts.not_here_title, key: "none", every_ms: 60000, ready: () => true, view: () => [
    h("h1", { tabindex: "-1" }, texts.not_here_title), h("p", {}, texts.not_here),
    h("p", {}, h("a", { href: link("") }, texts.to_overview))] };
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  // Where a browser keeps nothing, it holds for this page.
  try {
    localStorage.setItem(THEME, name);
  } catch { /* as it is */ }
}

function savedTheme() {
  try {
    return localStorage.getItem(THEME) ?? "auto";
  } catch {
    return "auto";
  }
}

setTheme(savedTheme());
const app = new App(document.getElementById("app"));
follow((how) => app.show(how));
document.addEventListener("visibilitychange", () => !document.hidden && app.refresh());
setInterval(() => !document.hidden && app.page && app.draw(), TICK_MS);
// Before anything is asked or shown: a token in the address leaves it at once.
if (isSending() && takeToken()) app.guest = true;
app.start();
