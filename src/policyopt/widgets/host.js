// Mounts the placeholders of a published page. policyopt.widgets.sphinx puts this behind a figure's own source,
// in one inline module (a page opened from disk may not import one), and calls mountAll with its `render`.

function pageModel(data) {
  const listeners = {};
  return {
    get: (name) => data[name],
    set(name, value) {
      data[name] = value;
      for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
    on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
    off: (event, listener) => listeners[event]?.delete(listener),
    save_changes() {}, // there is no kernel to tell
  };
}

function mountAll(kind, render) {
  for (const placeholder of document.querySelectorAll(`.policyopt-widget[data-widget="${kind}"]`)) {
    const data = JSON.parse(placeholder.querySelector('script[type="application/json"]').textContent);
    const el = document.createElement("div");
    render({ model: pageModel(data), el });
    placeholder.policyopt = el.policyopt; // the figure's object for scripts, where a page can find it
    placeholder.replaceChildren(el);
  }
}
