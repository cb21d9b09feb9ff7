// Who is not known signs in with a token; who may see nothing is told so.

import { foreign, h } from "./dom.js";
import { ask } from "./server.js";
import { texts } from "./texts.js";

const words = texts.sign_in;
const state = { problem: null, busy: false };

async function submit(app, event) {
  event.preventDefault();
  const field = event.target.elements.token;
  state.busy = true;
  app.draw();
  try {
    await ask("/ui/session", { method: "POST", body: { token: field.value.trim() } });
    state.problem = null;
    field.value = "";
    await app.signedIn();
  } catch (error) {
    state.problem = error.status === 401 ? words.wrong : error.message;
    field.focus();
    field.select();
  }
  state.busy = false;
  app.draw();
}

export function signIn(app) {
  document.title = texts.title(words.title);
  const unseeing = app.me !== null;
  const problem = state.problem ?? (app.expired ? words.ended : app.problem?.message ?? null);
  return h("main", { class: "sign-in", key: "sign-in" },
    h("form", { onsubmit: (event) => submit(app, event), "aria-labelledby": "sign-in" },
      h("p", { class: "brand" }, texts.product),
      h("h1", { id: "sign-in", tabindex: "-1" }, unseeing ? words.no_right : words.title),
      h("p", { class: "faint" }, unseeing ? words.no_right_text : words.lead),
      unseeing && app.me.name && h("p", {}, foreign(app.me.name)),
      // For who keeps passwords in the browser.
      h("input", { type: "text", name: "username", autocomplete: "username", value: texts.product, hidden: true }),
      h("label", { for: "token" }, unseeing ? words.other : words.token),
      h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true,
                   spellcheck: "false", autocapitalize: "off", "aria-describedby": problem ? "problem" : null,
                   "aria-invalid": state.problem ? "true" : null, ref: (node) => setTimeout(() => node.focus()) }),
      problem && h("p", { id: "problem", class: "problem", role: "alert" }, problem),
      h("button", { type: "submit", class: "main", disabled: state.busy }, words.submit),
      h("p", { class: "faint hint" }, words.hint, h("code", {}, words.command))));
}
