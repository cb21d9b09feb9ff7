// Where in the dashboard somebody is: the address has all of it, so that reloading, going back and passing it on work.

export const BASE = "/ui/";

/** The address of a page; filters without a value are left out. */
export function link(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const text = parameters.toString().replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%3A", ":");
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

/** What the address says: the parts of the path, decoded, and the query. */
export function here() {
  const parts = location.pathname.slice(BASE.length).split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(location.search)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Go there; `replace` leaves no trace of where one was, `stay` keeps the focus. */
export function go(address, { replace = false, stay = false } = {}) {
  if (replace) history.replaceState(history.state, "", address);
  else history.pushState({ depth: (history.state?.depth ?? 0) + 1 }, "", address);
  moved({ stay });
}

let moved = () => {};

/** Call `show` whenever the address changes. Links within the dashboard need no loading. */
export function follow(show) {
  moved = show;
  addEventListener("popstate", () => show({ stay: false }));
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.("a[href]");
    if (!anchor || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey
        || event.altKey || anchor.target || anchor.hasAttribute("download")) return;
    const url = new URL(anchor.href);
    if (url.origin !== location.origin || !url.pathname.startsWith(BASE) || anchor.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    if (url.href !== location.href) go(url.href);
  });
}
