// Text with marks as DOM nodes. Text from documents only ever becomes text nodes, never markup.
// The server counts offsets in code points, JavaScript strings in UTF-16 units.

/** Element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Nodes of the code points [start, end) of a text with its spans marked. */
export function marked(points, spans, start = 0, end = points.length) {
  const nodes = [];
  let at = start;
  for (const span of spans) {
    const from = Math.max(span.start, at);
    const to = Math.min(span.end, end);
    if (from >= to) continue;
    if (from > at) nodes.push(points.slice(at, from).join(""));
    nodes.push(make("mark", {}, points.slice(from, to).join("")));
    at = to;
  }
  if (at < end) nodes.push(points.slice(at, end).join(""));
  return nodes;
}

/**
 * The code points as they read best: Markdown's own signs are left out or made plain ones. Each keeps
 * its place (a sign left out is an empty string), so that spans still fit.
 */
export function readable(points) {
  const shown = [...points];
  const text = points.join("");
  let at = 0; // in code points, of the line's start
  for (const line of text.split("\n")) {
    const length = [...line].length;
    const hide = (from, to) => shown.fill("", at + from, at + to);
    if (/^\s*\|?(\s*:?-{3,}:?\s*\|)+\s*(:?-{3,}:?)?\s*$/u.test(line)) hide(0, length + 1);
    else if (/^\s*\|.*\|\s*$/u.test(line)) {
      const pipes = [...line].flatMap((point, place) => (point === "|" ? [place] : []));
      for (const place of pipes) shown[at + place] = "·";
      hide(pipes[0], pipes[0] + 2);
      hide(pipes.at(-1) - 1, pipes.at(-1) + 1);
    } else {
      const heading = /^#{1,6}\s+/u.exec(line);
      if (heading) hide(0, heading[0].length);
    }
    at += length + 1;
  }
  for (let place = 0; place + 1 < points.length; place += 1) {
    if (points[place] === "*" && points[place + 1] === "*") shown.fill("", place, place + 2);
    if (points[place] === "\n" && points[place + 1] === "\n") shown[place] = "";
  }
  return shown;
}

/**
 * Give an element these children (nodes or strings), keeping those at its front that are the same
 * already: while an answer grows, a focused chip and a selection in it stay.
 */
export function settle(element, children) {
  const nodes = children.map((child) => (typeof child === "string" ? document.createTextNode(child) : child));
  let same = 0;
  while (same < nodes.length && element.childNodes[same]?.isEqualNode(nodes[same])) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...nodes.slice(same));
}

/** The window of a text of some length that holds the most marked characters, from a clause's start. */
export function excerpt(points, spans, length = 220) {
  if (points.length <= length * 1.3) return { start: 0, end: points.length };
  let best = { start: 0, weight: 0 };
  for (const first of spans) {
    const end = first.start + length - 30;
    let weight = 0;
    for (const span of spans) if (span.start >= first.start && span.end <= end) weight += span.end - span.start;
    if (weight > best.weight) best = { start: first.start, weight };
  }
  let start = best.start;
  for (let back = 0; back < 40 && start > 0 && !/[\n。！？；.!?]/u.test(points[start - 1]); back += 1) start -= 1;
  while (start < points.length && /\s/u.test(points[start])) start += 1;
  return { start, end: Math.min(points.length, start + length) };
}

const MARKER = /[[［【]\s*(\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)\s*[\]］】]/gu;

/** Nodes of an answer: bold, and a chip by `chip(number)` for each marker that it knows. */
export function answerNodes(text, chip) {
  const nodes = [];
  const plain = (part) => {
    part.split(/(\*\*[^*\n]+\*\*)/u).forEach((piece) => {
      if (/^\*\*[^*\n]+\*\*$/u.test(piece)) nodes.push(make("strong", {}, piece.slice(2, -2)));
      else if (piece) nodes.push(piece);
    });
  };
  let at = 0;
  for (const match of text.matchAll(MARKER)) {
    const chips = match[1].split(/\D+/u).map((number) => chip(Number(number)));
    if (chips.some((node) => node === null)) continue;
    plain(text.slice(at, match.index));
    nodes.push(...chips);
    at = match.index + match[0].length;
  }
  plain(text.slice(at));
  return nodes;
}
