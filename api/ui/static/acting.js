// Acting on tasks: nothing is offered that somebody may not do, and nothing is done before it was shown what it would be.
// All that match, and marked ones, are frozen by the service.

import { h, render } from "./dom.js";
import { bytes } from "./format.js";
import { instanceLabel, pathLine } from "./parts.js";
import { ask, task as address } from "./server.js";
import { ACTIONS, badge } from "./state.js";
import { texts } from "./texts.js";

const words = texts.act;
const AGAIN_MS = 400;
// As many as a preview takes by their ids.
const MOST_MARKED = 400;

/** The buttons of those `verbs` that whoever looks may use; null where there are none. */
export function offer(app, verbs, target, { labelledBy } = {}) {
  const offered = verbs.filter((verb) => app.may(ACTIONS[verb].right)
    && (target.kind === "matching" || target.tasks.some((task) => ACTIONS[verb].states.includes(task.state))));
  if (!offered.length) return null;
  return h("div", { class: "acts", role: "group", "aria-labelledby": labelledBy, "aria-label": labelledBy ? null : words.label },
    offered.map((verb) => h("button", { type: "button", key: verb, class: ACTIONS[verb].grave ? "small grave" : "small",
      onclick: () => new Acting(app, verb, target).open() }, words.verbs[verb])));
}

class Acting {
  constructor(app, verb, target) {
    Object.assign(this, { app, verb, target, force: false, step: "counting", problem: null });
    this.name = words.verbs[verb];
    this.made = 0;
  }

  open() {
    this.dialog = document.createElement("dialog");
    this.dialog.className = "acting";
    this.dialog.setAttribute("aria-labelledby", "acting");
    this.dialog.addEventListener("close", () => {
      this.closed = true;
      this.dialog.remove();
      this.app.refresh();
    });
    document.body.append(this.dialog);
    this.draw();
    this.dialog.showModal();
    this.preview();
  }

  /** Find out what it would be. */
  async preview() {
    const { target, verb } = this;
    this.step = "counting";
    this.problem = null;
    if (target.kind === "one") {
      const [task] = target.tasks;
      this.chosen = { count: 1, bytes: task.size, samples: [task] };
      this.step = "preview";
    } else {
      const mine = ++this.made;
      const ids = this.marked = target.kind === "marked" ? target.tasks.map((task) => task.id).sort().reverse().slice(0, MOST_MARKED) : null;
      await this.attempt(async () => {
        const found = await ask("/v1/tasks:preview", { method: "POST", body: {
          action: verb, filter: ids ? { ids, state: ACTIONS[verb].states } : wanted(target.filter), ...(this.force && { force: true }) } });
        if (mine !== this.made) return;
        this.chosen = ids ? { ...found, cut: ids.length < target.tasks.length, left_out: ids.length - found.count } : found;
        this.step = "preview";
      });
    }
    this.draw();
    this.dialog.querySelector("[data-first]")?.focus();
  }

  async attempt(something) {
    try {
      await something();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.problem = error;
      if (this.step === "counting") this.step = "failed";
    }
  }

  async apply() {
    this.step = "working";
    this.problem = null;
    this.draw();
    await this.attempt(() => this.target.kind === "one" ? this.applyOne() : this.applySelection());
    if (this.problem) this.step = "preview";
    this.draw();
    this.dialog.querySelector("[data-first]")?.focus();
    if (this.step === "done") {
      for (const id of this.marked ?? []) this.app.marks.delete(id);
      this.app.announce(words.done);
    }
    this.app.refresh();
  }

  async applySelection() {
    const { selection } = this.chosen;
    this.applied = await ask("/v1/tasks:apply", { method: "POST", body: { selection } });
    while (this.applied.state === "applying") {
      this.draw();
      await new Promise((done) => setTimeout(done, AGAIN_MS));
      if (this.closed) return;
      this.applied = await ask(`/v1/selections/${selection}`);
    }
    this.step = this.applied.state === "applied" ? "done" : "interrupted";
  }

  async applyOne() {
    const [task] = this.target.tasks;
    const applied = this.applied = { changed: 0, skipped: 0, refused: 0, left: 1, later: 0 };
    try {
      applied[await this.send(task) === 202 ? "later" : "changed"] += 1;
    } catch (error) {
      if (![403, 404, 409].includes(error.status)) throw error;
      applied[error.status === 404 || error.code === "wrong_state" ? "skipped" : "refused"] += 1;
      this.reason = error;
    }
    applied.left = 0;
    this.step = "done";
  }

  async send(task) {
    if (this.verb === "delete") return (await ask(address(task.id), { method: "DELETE" })).status;
    const force = this.force && ACTIONS[this.verb].forcible ? "?force=true" : "";
    return (await ask(`${address(task.id)}/${this.verb}${force}`, { method: "POST" })).status;
  }

  // --- what is seen ------------------------------------------------------------------------------------

  draw() {
    render(this.dialog, h("form", { method: "dialog", onsubmit: (event) => this.submitted(event) },
      h("h2", { id: "acting" }, this.heading()),
      h("p", { class: "faint" }, words.does[this.verb]),
      h("div", { "aria-live": "polite", class: "stage" }, this.content()),
      this.problem && h("p", { class: "problem", role: "alert" }, this.problem.message, " ", h("span", { class: "faint" }, this.problem.hint)),
      h("div", { class: "buttons end" }, this.buttons())));
  }

  submitted(event) {
    if (event.submitter?.value !== "go") return;
    event.preventDefault();
    this.apply();
  }

  heading() {
    if (this.target.kind === "one") return words.one(this.name);
    return words.title(this.name, this.chosen?.count ?? null);
  }

  content() {
    const { step, chosen, applied } = this;
    if (step === "counting") return h("p", { class: "loading" }, words.counting, "…");
    if (step === "failed") return null;
    if (step === "preview") {
      if (!chosen.count) return h("p", {}, words.nothing);
      return [
        h("p", {}, h("span", { class: "strong" }, words.sum(texts.tasks(chosen.count), bytes(chosen.bytes))), " ", words.frozen),
        chosen.left_out ? h("p", { class: "faint" }, words.left_out(chosen.left_out)) : null,
        chosen.cut && h("p", { class: "bad" }, words.cut),
        chosen.count > chosen.samples.length && h("h3", {}, words.samples),
        h("ul", { class: "samples" }, chosen.samples.map((task) => h("li", { key: task.id }, badge(task.state), pathLine(task.path),
          h("span", { class: "faint" }, instanceLabel(task))))),
        ACTIONS[this.verb].forcible && h("label", { class: "check" }, h("input", { type: "checkbox", checked: this.force, onchange: (event) => {
          this.force = event.target.checked;
          this.preview();
        } }), h("span", {}, words.force, h("span", { class: "faint block" }, words.force_text))),
      ];
    }
    const count = chosen.count;
    const done = count - (applied?.left ?? count);
    return [
      h("progress", { max: Math.max(1, count), value: done, "aria-label": words.progress }),
      step === "working" ? h("p", { class: "faint" }, words.working(done, count), this.target.kind === "one" ? null : ` · ${words.further}`)
        : h("ul", { class: "results" }, words.result(applied.changed, applied.skipped, applied.refused).map((text) => h("li", {}, text)),
          applied.later ? h("li", {}, words.later) : null,
          this.reason && h("li", { class: "faint" }, this.reason.message),
          step === "interrupted" ? h("li", { class: "bad" }, applied.detail ?? words.interrupted) : null),
    ];
  }

  buttons() {
    const close = (text, props) => h("button", { key: "close", value: "close", type: "submit", ...props }, text);
    const going = (text) => h("button", { key: "go", value: "go", type: "submit", "data-first": true,
      class: ACTIONS[this.verb].grave ? "main grave" : "main" }, text);
    if (this.step === "preview" && this.chosen.count) return [close(words.back), going(words.go(this.name, this.chosen.count))];
    if (this.step === "interrupted") return [close(texts.close), going(words.go_on)];
    return close(texts.close, this.step === "working" ? {} : { "data-first": true });
  }
}

/** The filter of a list, as previews take it. */
function wanted(filter) {
  const { state, ...others } = filter;
  return { ...others, ...(state && { state: state.split(",") }) };
}
