// What the figures share: their theme, elements, clock and random numbers. It is put in front of each figure's own
// source (policyopt.widgets.base.figure_module), so that one file is all a page or a notebook needs.

// Okabe and Ito's palette, as in the printed figures; the blue is lightened on dark pages.
const THEME = `
:host {
  --blue: #0072b2; --orange: #e69f00; --vermilion: #d55e00; --green: #009e73; --purple: #cc79a7; --sky: #56b4e9;
  --grey: #767676;
  --text: var(--pst-color-text-base, var(--jp-ui-font-color1, #222832));
  --muted: var(--pst-color-text-muted, var(--jp-ui-font-color2, #56606e));
  --paper: var(--pst-color-background, var(--jp-layout-color0, #fff));
  --sheet: #f4f6f8; --line: #cfd6de; --control: #7c8795;
  display: block; margin: 1rem 0; color-scheme: light; container-type: inline-size;
}
:host([data-theme="dark"]) {
  --blue: #56b4e9; --orange: #f0ad1e; --vermilion: #ff8b47; --green: #00c08e; --purple: #e39cc4; --sky: #8fd0f5;
  --grey: #a3a9b1;
  --text: var(--pst-color-text-base, var(--jp-ui-font-color1, #dfe5ea));
  --muted: var(--pst-color-text-muted, var(--jp-ui-font-color2, #a3abb5));
  --paper: var(--pst-color-background, var(--jp-layout-color0, #14181e));
  --sheet: #1e242c; --line: #3b4552; --control: #7f8b99;
  color-scheme: dark;
}
* { box-sizing: border-box; }
.figure {
  --mark: var(--blue); outline: none;
  max-width: 46rem; margin: 0 auto; padding: 1rem; color: var(--text); background: var(--paper);
  border: 1px solid var(--line); border-radius: 12px; font: 15px/1.45 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; text-align: left;
}
.bar { display: flex; flex-wrap: wrap; gap: .5rem .9rem; align-items: center; justify-content: space-between; }
.title { margin: 0; font-size: 1.1rem; font-weight: 650; }
.group { display: inline-flex; }
.group button { border-radius: 0; margin-left: -1px; }
.group button:first-child { border-radius: 8px 0 0 8px; margin-left: 0; }
.group button:last-child { border-radius: 0 8px 8px 0; }
button, select {
  font: inherit; font-size: .9rem; color: var(--text); background: var(--paper);
  border: 1px solid var(--control); border-radius: 8px; min-height: 38px;
}
button { padding: .35rem .7rem; cursor: pointer; white-space: nowrap; touch-action: manipulation; }
input[type="range"] { width: 100%; height: 38px; margin: 0; accent-color: var(--blue); touch-action: pan-y; }
button:hover:not([aria-disabled="true"]) { background: var(--sheet); }
button[aria-disabled="true"] { color: var(--muted); border-color: var(--line); cursor: default; }
button[aria-pressed="true"] {
  box-shadow: inset 0 -4px 0 var(--mark); background: var(--sheet); font-weight: 650;
}
:is(button, input, select, .stage, [tabindex="0"]):focus-visible {
  outline: 3px solid var(--blue); outline-offset: 2px; z-index: 1;
}
.stage {
  position: relative; margin: .8rem 0 .5rem; border-radius: 10px; background: var(--sheet); overflow: hidden;
  user-select: none; -webkit-user-select: none; touch-action: pan-y pinch-zoom;
}
canvas { display: block; width: 100%; color: var(--text); transition: color 1ms; }
.label { margin: 0 0 .3rem; font-size: .84rem; font-weight: 650; }
table { width: 100%; border-collapse: collapse; font-size: .86rem; }
th { font-weight: 400; text-align: left; }
td, .number { font-variant-numeric: tabular-nums; text-align: right; }
.meter {
  position: relative; height: 10px; overflow: hidden; border-radius: 3px; background: var(--sheet);
  box-shadow: inset 0 0 0 1px var(--line);
}
.meter > span { position: absolute; inset: 0 auto 0 0; width: 100%; transform-origin: left; background: var(--mark); }
.meter.signed > span { left: 50%; width: 50%; }
.meter.signed::after {
  content: ""; position: absolute; inset: 0 auto 0 calc(50% - .5px); width: 1px; background: var(--muted);
}
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@container (max-width: 560px) { .figure { padding: .7rem; border-radius: 10px; } }
`;

/** An element: h("button", {type: "button", class: "x"}, "text", child). Properties starting with "on" listen. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const button = (label, onclick, properties = {}) =>
  h("button", { type: "button", onclick, ...properties }, label);

/** Buttons side by side, one choice among them. */
export const buttonGroup = (label, buttons, kind = "") =>
  h("div", { class: `group ${kind}`.trim(), role: "group", "aria-label": label }, ...buttons);

/** A bar that its `fill` stretches over by a transform; of the kind "signed" from the middle to both sides. */
export const meter = (fill, kind = "") => h("div", { class: `meter ${kind}`.trim(), "aria-hidden": "true" }, fill);

/** Where a figure says to a screen reader what has happened. */
export const liveRegion = () => h("div", { class: "hidden", role: "status", "aria-live": "polite" });

/** The figure's own element: its title, what stands beside that, and below it the rest. */
export const figureBox = (title, beside, ...rest) =>
  h("div", { class: "figure", role: "group", tabindex: "-1", "aria-label": `Interactive figure: ${title}` },
    h("div", { class: "bar" }, h("p", { class: "title" }, title), beside),
    ...rest);

// Both leave alone what is so already: a screen reader may take a change for news.
export const text = (node, value) => {
  if (node.textContent !== value) node.textContent = value;
};
export const attribute = (node, name, value) => {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
};

/** Marks as pressed that of the buttons whose data-NAME is the value. */
export function press(buttons, name, value) {
  for (const element of buttons) attribute(element, "aria-pressed", element.dataset[name] === String(value));
}

/** Whether a key is part of a browser's or a system's shortcut. */
export const isShortcut = (event) => event.ctrlKey || event.metaKey || event.altKey;

/** The value, if it is among the names. */
export function known(kind, value, names) {
  if (names.includes(value)) return value;
  throw new RangeError(`There is no ${kind} "${value}"; there are: ${names.join(", ")}.`);
}

/**
 * Puts a figure with its style into `el`, behind a shadow root, in the theme of the page. `paint` is called when a
 * stage gets another size or a canvas another colour. Returns a function that lets the page go again.
 */
export function mount(el, css, figure, paint, stages = []) {
  // JupyterLab listens for its own shortcuts first; inside the figure the keys are the figure's
  const host = h("div", { "data-lm-suppress-shortcuts": "true" });
  host.attachShadow({ mode: "open" }).append(h("style", {}, THEME + css), figure);
  el.append(host);
  const unfollow = followTheme(host);
  const resized = new ResizeObserver(paint);
  for (const canvas of figure.querySelectorAll("canvas")) {
    canvas.addEventListener("transitionend", paint); // its text colour has changed: a theme is in place, CSS and all
    resized.observe(canvas.parentElement);
  }
  for (const stage of stages) resized.observe(stage);
  return () => {
    resized.disconnect();
    unfollow();
  };
}

/** Takes steps while `running()`, `rate()` of them a second whatever the screen's refresh rate, then shows them. */
export function ticker({ running, rate, step, show }) {
  let frame = null;
  let clock = null;
  let owed = 0; // steps not yet taken
  function tick(now) {
    frame = null;
    if (!running()) return;
    owed = clock === null ? 1 : owed + Math.min((now - clock) / 1000, 0.1) * rate(); // after a stall no catching up
    clock = now;
    while (owed >= 1 && running()) {
      owed -= 1;
      step();
    }
    show();
    if (running()) frame = requestAnimationFrame(tick);
  }
  return {
    start() {
      if (frame !== null) return;
      clock = null;
      frame = requestAnimationFrame(tick);
    },
    stop() {
      if (frame !== null) cancelAnimationFrame(frame);
    },
    owed: () => owed,
  };
}

/** Marks the host light or dark as the page is: Sphinx themes, JupyterLab, else the system. */
function followTheme(host) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const sphinx = document.documentElement.dataset.theme;
    const lab = document.body.dataset.jpThemeLight;
    const dark = sphinx ? sphinx === "dark" : lab ? lab === "false" : system.matches;
    host.dataset.theme = dark ? "dark" : "light";
  };
  const observer = new MutationObserver(apply);
  const attributeFilter = ["data-theme", "data-jp-theme-light"];
  observer.observe(document.documentElement, { attributes: true, attributeFilter });
  observer.observe(document.body, { attributes: true, attributeFilter });
  system.addEventListener("change", apply);
  apply();
  return () => {
    observer.disconnect();
    system.removeEventListener("change", apply);
  };
}

/** A number with its sign, a true minus where it is below zero as shown. */
export const signed = (value, digits) => {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
};

/** The same without the plus. */
export const plain = (value, digits = 3) => signed(value, digits).replace("+", "");

export function softmax(logits) {
  const largest = Math.max(...logits); // subtracted, so that no exponential overflows
  const exps = logits.map((z) => Math.exp(z - largest));
  const total = exps.reduce((a, b) => a + b);
  return exps.map((e) => e / total);
}

/** Uniform numbers in [0, 1), the same for the same seed (the mulberry32 generator). */
export function randomStream(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Numbers of the standard normal distribution from uniform ones (Box and Muller), two draws each. */
export const normal = (uniform) =>
  Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

/** An index drawn with the given probabilities, by one uniform number. */
export function choose(probabilities, uniform) {
  let left = uniform();
  for (let i = 0; i < probabilities.length - 1; i++) {
    left -= probabilities[i];
    if (left < 0) return i;
  }
  return probabilities.length - 1;
}

/** Makes a canvas as sharp as the screen at the given height, and gives its pen, cleared, in CSS pixels. */
export function sharpPen(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}
