// One hit of the list.

import { excerpt, make, marked, readable } from "./text.js";

/** A list item; `open` shows the passage in its document. */
export function hitView(hit, words, open) {
  const item = make("li", { className: "hit" });
  const title = make("button", { type: "button", className: "title" }, ...marked([...(hit.title || words.untitled)], hit.title ? hit.title_highlights : []));
  title.addEventListener("click", open);
  const path = hit.headings.filter((heading) => heading !== hit.title).join(" › ");
  item.append(
    make("h3", {}, title),
    make("p", { className: "path" }, ...[path, hit.source || hit.document_id].filter(Boolean).map((part) => make("span", {}, part))),
    text(hit, words),
  );
  item.append(make("div", { className: "foot" }, why(hit, words), hit.more ? make("span", { className: "more" }, words.more(hit.more)) : null));
  return item;
}

function text(hit, words) {
  const points = [...hit.text];
  const part = excerpt(points, hit.highlights);
  const plain = readable(points);
  const shown = make("p", { className: "text" });
  const cut = part.start > 0 || part.end < points.length;
  const fill = (whole) => {
    const { start, end } = whole ? { start: 0, end: points.length } : part;
    shown.replaceChildren(start > 0 ? "… " : "", ...marked(plain, hit.highlights, start, end), end < points.length ? " …" : "");
    shown.classList.toggle("whole", whole);
  };
  fill(false);
  if (!cut) return shown;
  const toggle = make("button", { type: "button", className: "quiet small", ariaExpanded: "false" }, words.whole);
  toggle.addEventListener("click", () => {
    const whole = toggle.ariaExpanded !== "true";
    toggle.ariaExpanded = String(whole);
    toggle.textContent = whole ? words.shorter : words.whole;
    fill(whole);
  });
  return make("div", {}, shown, toggle);
}

/** Rank and score in each list: scores of different scales stand apart. */
function why(hit, words) {
  const rows = ["bm25", "vector", "sparse", "fused", "rerank"]
    .filter((name) => name in hit.ranks)
    .map((name) => make("tr", {}, make("th", { scope: "row" }, words.rankers[name]), make("td", {}, `#${hit.ranks[name]}`), make("td", {}, hit.scores[name].toFixed(4))));
  const metadata = Object.entries(hit.metadata).map(([key, value]) => make("tr", {}, make("th", { scope: "row" }, key), make("td", { colSpan: 2 }, [value].flat().join(", "))));
  return make("details", { className: "why" }, make("summary", {}, words.why),
    make("table", {},
      make("thead", {}, make("tr", {}, ...[words.ranker, words.rank, words.score].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows, ...metadata)));
}
