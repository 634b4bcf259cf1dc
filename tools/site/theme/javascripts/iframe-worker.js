// Browsers start no worker for a page that was opened as a file, and the search is one. There it runs in a hidden frame, on
// the page's own thread. (Material's "offline" plugin would load such a script from another server.)
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "Search";
      document.body.appendChild(frame);
      const inner = (this.inner = frame.contentWindow);
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = inner.document.createElement("script");
          script.src = source;
          script.onload = resolve;
          script.onerror = () => reject(new Error("cannot load " + source));
          inner.document.body.appendChild(script);
        });
      inner.importScripts = async (...sources) => {
        for (const source of sources) await load(source);
      };
      // What the worker posts is an event of this object, and the other way round.
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      load(String(url)).then(() => {
        this.ready = true;
        for (const data of this.waiting.splice(0)) this.postMessage(data);
      });
    }
    postMessage(data) {
      if (!this.ready) this.waiting.push(data);
      else setTimeout(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inner.frameElement.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
