// The dialog that shows a passage in its document.

import * as api from "./api.js";
import { make, marked } from "./text.js";
import { explain } from "./texts.js";

const AROUND = 20_000; // characters shown before and after the passage: a whole book would stall the page
const $ = (id) => document.getElementById(id);
let running = null;

/** Open the document at the hit; falls back to the passage alone when the document can't be had. */
export async function openPassage(collection, hit, words) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  $("passage-title").textContent = hit.title || hit.document_id;
  $("passage-path").textContent = [...hit.headings, hit.source || hit.document_id].filter(Boolean).join(" › ");
  $("passage-text").replaceChildren(words.opening);
  if (!$("passage").open) $("passage").showModal();
  const spans = hit.highlights ?? [];
  const passage = [...hit.text];
  try {
    const { text } = await api.getDocument(collection, hit.document_id, mine.signal);
    const points = [...text];
    // A document replaced since the search no longer holds the passage where the hit says.
    const same = points.slice(hit.start, hit.end).join("") === hit.text;
    if (same) show(points, hit, passage, spans, words);
    else $("passage-text").replaceChildren(...marked(passage, spans));
  } catch (error) {
    if (error.name === "AbortError") return;
    $("passage-text").replaceChildren(
      make("p", { className: "error" }, explain(error, words)),
      ...marked(passage, spans),
    );
  }
}

function show(points, hit, passage, spans, words) {
  const from = Math.max(0, hit.start - AROUND);
  const to = Math.min(points.length, hit.end + AROUND);
  const place = make("span", { className: "here", id: "passage-here" }, ...marked(passage, spans));
  $("passage-text").replaceChildren(
    from > 0 ? make("p", { className: "hint" }, words.cut) : "",
    points.slice(from, hit.start).join(""),
    place,
    points.slice(hit.end, to).join(""),
    to < points.length ? make("p", { className: "hint" }, words.cut) : "",
  );
  (place.querySelector("mark") ?? place).scrollIntoView({ block: "center" });
  $("passage-text").focus({ preventScroll: true });
}

$("passage").addEventListener("close", () => running?.abort());
$("passage").addEventListener("click", (event) => {
  if (event.target === $("passage")) $("passage").close(); // the backdrop
});
