// A page as values, and the least changes that make the document look like it. Text from anywhere becomes text nodes and
// attributes, never markup: there is no way to markup in here.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "g", "line", "circle", "rect", "polyline", "text", "title", "marker", "defs"]);
const KEY = Symbol("key");
const PROPS = Symbol("props");
const HANDLERS = Symbol("handlers");
// What is set as a property, as the attribute is only its beginning.
const PROPERTIES = new Set(["value", "checked", "disabled", "indeterminate", "open", "hidden"]);

/** An element: `on...` in `props` are its handlers, `key` tells it from its siblings, `ref` is told its node once. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: flat(children) };
}

/** Make the children of `parent` look like `content`; what can stay does, with its focus and what was typed. */
export function render(parent, content) {
  reconcile(parent, flat([content]));
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => typeof child === "object" ? child : String(child));
}

function reconcile(parent, wanted) {
  const keyed = new Map();
  for (const node of parent.childNodes) {
    if (node[KEY] !== undefined) keyed.set(node[KEY], node);
  }
  let at = parent.firstChild;
  for (const want of wanted) {
    const key = want.props?.key;
    const found = key === undefined ? at : keyed.get(key);
    const node = found && fits(found, want, key) ? updated(found, want) : created(want, parent);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function fits(node, want, key) {
  if (typeof want === "string") return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === want.tag && node[KEY] === key
    // What the page came with makes way.
    && node[PROPS] !== undefined;
}

function created(want, parent) {
  if (typeof want === "string") return document.createTextNode(want);
  const isSvg = SVG_TAGS.has(want.tag) && (want.tag !== "title" || parent.namespaceURI === SVG);
  const node = isSvg ? document.createElementNS(SVG, want.tag) : document.createElement(want.tag);
  node[KEY] = want.props.key;
  node[PROPS] = {};
  node[HANDLERS] = {};
  updated(node, want);
  want.props.ref?.(node);
  return node;
}

function updated(node, want) {
  if (typeof want === "string") {
    if (node.data !== want) node.data = want;
    return node;
  }
  // Its children first: a list has its choices before it is told which one counts.
  reconcile(node, want.children);
  const before = node[PROPS];
  for (const name of Object.keys(before)) {
    if (!(name in want.props)) set(node, name, null);
  }
  for (const [name, value] of Object.entries(want.props)) {
    if (before[name] !== value || PROPERTIES.has(name)) set(node, name, value);
  }
  node[PROPS] = want.props;
  return node;
}

function set(node, name, value) {
  if (name === "key" || name === "ref") return;
  if (name.startsWith("on")) {
    const kind = name.slice(2);
    if (!(kind in node[HANDLERS])) node.addEventListener(kind, (event) => node[HANDLERS][kind]?.(event));
    node[HANDLERS][kind] = value;
  } else if (name === "style") {
    // By way of the object model: the policy of the page lets no style in by an attribute.
    for (const [key, one] of Object.entries(value ?? {})) node.style.setProperty(key, one);
  } else if (PROPERTIES.has(name)) {
    // What somebody is typing is his.
    const typing = name === "value" && document.activeElement === node;
    if (!typing && node[name] !== (value ?? "")) node[name] = value ?? (name === "value" ? "" : false);
  } else if (value === null || value === undefined || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : value);
  }
}

// Control characters, those that turn the direction of writing, those that nobody sees, and halves of pairs.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufeff\ufff0-\ufffb]|\p{Co}|\p{Cs}|[\u{e0000}-\u{e0fff}]/gu;
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escaped(character) {
  const code = character.codePointAt(0).toString(16);
  return SHORT[character] ?? (code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`);
}

/** A text of somebody else's: what nobody would see stands there in signs, and it keeps its direction to itself. */
export function foreign(text, props) {
  const parts = [];
  let end = 0;
  for (const found of String(text).matchAll(UNSEEN)) {
    parts.push(text.slice(end, found.index), h("span", { class: "sign" }, escaped(found[0])));
    end = found.index + found[0].length;
  }
  return h("bdi", props, ...parts.filter((part) => part !== ""), String(text).slice(end));
}

/** The same as plain text, for where there are no elements; the rest of a long one is left out. */
export function plain(text, longest = 300) {
  const whole = String(text).slice(0, longest).replace(UNSEEN, escaped);
  return String(text).length > longest ? `${whole}…` : whole;
}
