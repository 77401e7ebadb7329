// Builds elements. Text is text: nothing here, and nothing elsewhere, makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, given) {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

/** Make an element with attributes, listeners (onclick) and children: elements, texts, lists. */
export function h(name, given = {}, ...children) {
  const element = fill(document.createElement(name), given);
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** The same for SVG. */
export function svg(name, given = {}, ...children) {
  const element = fill(document.createElementNS(SVG, name), given);
  element.append(...children);
  return element;
}

/** Set the text of an element, if it is another one. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Put these children in the place of those that are there. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
}

const SHAPES = {
  up: [["path", { d: "M3.5 8.5 6.8 12 12.5 4.5" }]],
  done: [["path", { d: "M3.5 8.5 6.8 12 12.5 4.5" }]],
  down: [["path", { d: "M4 4l8 8M12 4l-8 8" }]],
  degraded: [["path", { d: "M8 2.2 14.4 13.5H1.6Z" }], ["path", { d: "M8 6.4v3.4M8 11.6v.2" }]],
  starting: [["path", { d: "M8 3v5l3 2" }], ["circle", { cx: 8, cy: 8, r: 6 }]],
  running: [["path", { d: "M5.5 3.5 12 8l-6.5 4.5Z" }]],
  stopped: [["path", { d: "M4.5 4.5h7v7h-7Z" }]],
  none: [["path", { d: "M3.5 8h9" }]],
};
Object.assign(SHAPES, {
  ready: SHAPES.up, backoff: SHAPES.down, parked: SHAPES.down, failed: SHAPES.down,
  waiting: SHAPES.starting, draining: SHAPES.starting, stopping: SHAPES.stopped,
});

/** A small picture of a state: its shape says the same as its colour. */
export function mark(state) {
  const shapes = (SHAPES[state] || SHAPES.none).map(([name, given]) => svg(name, given));
  return svg("svg", { viewBox: "0 0 16 16", class: "mark", "aria-hidden": "true" }, ...shapes);
}
