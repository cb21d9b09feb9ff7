// A link by which somebody without an account sends files: a token for a part of one's own rights, behind a "#".

import { h } from "./dom.js";
import { until } from "./format.js";
import { command } from "./parts.js";
import { ask } from "./server.js";
import { texts } from "./texts.js";

const words = texts.hand_on;
const HOUR_S = 3600;
const SPANS_S = [HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S, 30 * 24 * HOUR_S];
const MIB = 2 ** 20;
const wish = { instance: "", path: "", uploads: "1", total_mib: "100", expires_s: String(24 * HOUR_S), label: "", see: true };
const made = { link: null, until: null, problem: null, busy: false };

/** The body of the question for a token. A directory means all below it. */
export function tokenWish({ instance, path, uploads, total_mib, expires_s, label, see }, maySee) {
  const wanted = {
    may: see && maySee ? ["upload", "read"] : ["upload"], own: true,
    instances: [instance], paths: [path.endsWith("/") ? `${path}**` : path], expires_s: Number(expires_s),
  };
  if (uploads) wanted.max_uploads = Number(uploads);
  if (total_mib) wanted.max_total_bytes = Math.floor(Number(total_mib) * MIB);
  if (label) wanted.label = label;
  return wanted;
}

async function submit(app, event) {
  event.preventDefault();
  Object.assign(made, { link: null, problem: null, busy: true });
  app.draw();
  try {
    const { token, expires_at } = await ask("/v1/tokens", { method: "POST", body: tokenWish(wish, app.may("read")) });
    Object.assign(made, { link: `${location.origin}/ui/send#token=${token}`, until: expires_at });
    app.announce(words.made);
  } catch (error) {
    made.problem = error;
  }
  made.busy = false;
  app.draw();
}

export function handOn(app) {
  const field = (name, props) => h("div", { class: "field", key: name }, h("label", { for: `link-${name}` }, words[name]),
    h("input", { id: `link-${name}`, type: "text", autocomplete: "off", spellcheck: "false", value: wish[name],
                 oninput: (event) => { wish[name] = event.target.value.trim(); }, ...props }));
  return h("details", { class: "hand-on", key: "hand-on" }, h("summary", {}, h("h2", {}, words.title)),
    h("p", { class: "faint" }, words.lead),
    h("form", { onsubmit: (event) => submit(app, event), "aria-label": words.title },
      h("div", { class: "fields" }, field("instance", { required: true }), field("path", { required: true, pattern: "/.*", placeholder: "/srv/inbox/" }),
        field("uploads", { inputmode: "numeric", pattern: "[1-9][0-9]{0,8}" }), field("total_mib", { inputmode: "numeric", pattern: "[1-9][0-9]{0,8}" }),
        h("div", { class: "field", key: "expires" }, h("label", { for: "link-expires" }, words.expires),
          h("select", { id: "link-expires", value: wish.expires_s, onchange: (event) => { wish.expires_s = event.target.value; } },
            SPANS_S.map((seconds, at) => h("option", { key: seconds, value: String(seconds) }, words.spans[at])))),
        field("label", { maxlength: "200" })),
      app.may("read") && h("label", { class: "check" },
        h("input", { type: "checkbox", checked: wish.see, onchange: (event) => { wish.see = event.target.checked; } }), h("span", {}, words.see)),
      made.problem && h("p", { class: "problem", role: "alert" }, made.problem.message),
      h("div", { class: "buttons" }, h("button", { type: "submit", disabled: made.busy }, words.submit))),
    made.link && h("div", { class: "made", key: "made" }, h("p", {}, words.once, " ", until(made.until), "."), command(app, made.link)));
}
