// Hears of what happens, over the stream of events. Only while somebody looks: a browser has six connections to one
// service, for all of its tabs.

const EVENTS = "/v1/events";
const AGAIN_MS = 5000;

export class Live {
  /** `tell(event)` is called with each event, null for that something was missed; `changed()` when `open` changes. */
  constructor(tell, changed) {
    this.open = false;
    this.tell = tell;
    this.changed = changed;
    this.query = null;
    this.lastId = "";
    document.addEventListener("visibilitychange", () => this.restart());
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (event) => event.persisted && this.restart());
  }

  /** Hear of what these parameters are about; of nothing with null. */
  follow(query) {
    if (query === this.query) return;
    this.query = query;
    this.lastId = "";
    this.restart();
  }

  restart() {
    this.stop();
    if (this.query === null || document.hidden) return;
    const parameters = new URLSearchParams(this.query);
    if (this.lastId) parameters.set("last_event_id", this.lastId);
    const source = new EventSource(`${EVENTS}?${parameters}`);
    this.source = source;
    source.onopen = () => this.is(true);
    source.onerror = () => {
      this.is(false);
      // A refusal ends it for good; what else goes wrong it tries again by itself.
      if (source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.restart(), AGAIN_MS);
    };
    source.addEventListener("task", (event) => {
      this.lastId = event.lastEventId;
      this.tell(JSON.parse(event.data));
    });
    source.addEventListener("reset", (event) => {
      this.lastId = event.lastEventId;
      this.tell(null);
    });
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.is(false);
  }

  is(open) {
    if (open === this.open) return;
    this.open = open;
    this.changed();
  }
}
