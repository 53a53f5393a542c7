// The answer panel: streams, stops, cites.

import * as api from "./api.js";
import { answerNodes, make, readable, settle } from "./text.js";
import { explain } from "./texts.js";

const $ = (id) => document.getElementById(id);
const CARD_CHARS = 240;

/** What the panel shows; `done` is the whole answer, `failure` an error with code and message. */
const empty = () => ({ sources: [], text: "", done: null, failure: null, stopped: false });

/** The panel; `words()` gives the page's words, `open(hit)` shows a source. */
export function answerView(words, open) {
  let asked = null; // the question shown: the same one is not asked twice, unless its answer broke off
  let running = null;
  let state = empty();

  /** Numbers that a marker may name: all sources while the text grows, then those that are cited. */
  function isCited(number) {
    if (state.done) return state.done.citations.some((citation) => citation.number === number);
    return number >= 1 && number <= state.sources.length;
  }

  function chip(number) {
    if (!isCited(number)) return null;
    const hit = state.sources[number - 1];
    const button = make("button", { type: "button", className: "chip", ariaLabel: words().openSource(number, hit.title || hit.document_id) }, String(number));
    button.setAttribute("aria-describedby", "card");
    button.addEventListener("click", () => open(hit));
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => showCard(button, hit));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, hideCard);
    return button;
  }

  function sourceView(hit, number) {
    const link = make("button", { type: "button", className: "title" }, hit.title || hit.document_id);
    link.addEventListener("click", () => open(hit));
    const path = hit.headings.filter((heading) => heading !== hit.title).join(" › ");
    return make("li", { value: number }, link, path ? make("span", { className: "path" }, path) : null);
  }

  function phase() {
    if (state.stopped) return words().stopped;
    if (state.done) return words().status[state.done.status] ?? "";
    if (running) return state.text ? words().writing : words().reading;
    return "";
  }

  function show() {
    const { sources, text, done, failure } = state;
    settle($("answer-text"), answerNodes(text, chip));
    if (!$("answer-text").contains(document.activeElement) && !$("answer-text").querySelector(".chip:hover")) hideCard();
    const cited = sources.flatMap((hit, at) => (!done?.citations.length || isCited(at + 1) ? [[hit, at + 1]] : []));
    settle($("answer-sources"), cited.map(([hit, number]) => sourceView(hit, number)));
    $("answer-state").textContent = phase();
    $("answer").setAttribute("aria-busy", String(Boolean(running)));
    $("stop").hidden = !running;
    $("copy").hidden = Boolean(running) || !text;
    $("copy").textContent = words().copy;
    $("answer-text").classList.toggle("writing", Boolean(running));
    $("answer-text").setAttribute("aria-live", done ? "polite" : "off");
    $("answer-reason").hidden = !done?.reason;
    $("answer-reason").textContent = done?.reason ?? "";
    $("answer-error").hidden = !failure;
    $("answer-error").textContent = failure ? words().answerFailed + explain(failure, words()) : "";
    $("answer-context").hidden = !done?.context.limit;
    if (done?.context.limit) $("answer-context").querySelector("div").textContent = `${done.model} · ${words().contextText(done.context)}`;
  }

  function take({ event, data }) {
    if (event === "sources") state.sources = data.sources;
    else if (event === "token") state.text += data.text;
    else if (event === "done") [state.done, state.text] = [data, data.answer];
    else if (event === "error") state.failure = { code: data.code, message: data.detail };
    show();
  }

  async function ask(question) {
    const key = JSON.stringify(question);
    $("answer").hidden = false;
    if (asked === key) return;
    stop();
    asked = key;
    state = empty();
    const mine = new AbortController();
    running = mine;
    show();
    try {
      for await (const event of api.answer(question, mine.signal)) {
        if (running !== mine) return;
        take(event);
      }
      if (!state.done && !state.failure) state.failure = { code: "network", message: "" };
    } catch (error) {
      if (running !== mine) return;
      state.failure = error;
    }
    finish();
  }

  function finish() {
    running = null;
    if (!state.done) asked = null;
    show();
  }

  /** Stop a running answer, keeping what came. */
  function stop() {
    hideCard();
    if (!running) return;
    running.abort();
    state.stopped = true;
    finish();
  }

  function close() {
    stop();
    $("answer").hidden = true;
  }

  $("stop").addEventListener("click", stop);
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(state.text);
      $("copy").textContent = words().copied;
    } catch {
      // No clipboard without HTTPS, or not allowed: what to copy is at least selected.
      getSelection().selectAllChildren($("answer-text"));
    }
  });
  return { ask, stop, close, relabel: show };
}

function showCard(button, hit) {
  const card = $("card");
  const points = [...hit.text];
  card.replaceChildren(
    make("strong", {}, hit.title || hit.document_id),
    make("span", { className: "path" }, hit.headings.join(" › ")),
    make("p", {}, readable(points.slice(0, CARD_CHARS)).join("") + (points.length > CARD_CHARS ? " …" : "")),
  );
  card.hidden = false;
  const place = button.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - card.offsetWidth - 12);
  const below = place.bottom + 8 + card.offsetHeight < innerHeight;
  card.style.left = `${Math.max(12, left) + scrollX}px`;
  card.style.top = `${(below ? place.bottom + 8 : Math.max(8, place.top - card.offsetHeight - 8)) + scrollY}px`;
}

function hideCard() {
  $("card").hidden = true;
}
