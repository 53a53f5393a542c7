// The answer panel: streams, stops, cites.

import * as api from "./api.js";
import { answerNodes, make, readable } from "./text.js";

const $ = (id) => document.getElementById(id);

/** The panel; `words()` gives the page's words, `open(hit)` shows a source. */
export function answerView(words, open) {
  let asked = null; // the question shown: the same one is not asked twice
  let running = null;
  let sources = [];
  let text = "";
  let done = null;

  function chip(number) {
    const hit = sources[number - 1];
    if (!hit) return null;
    const button = make("button", { type: "button", className: "chip", ariaLabel: words().openSource(number, hit.title) }, String(number));
    button.dataset.number = number;
    button.addEventListener("click", () => open(hit));
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => showCard(button, hit));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, hideCard);
    return button;
  }

  function showText() {
    $("answer-text").replaceChildren(...answerNodes(text, chip));
  }

  function showSources(cited) {
    const shown = sources.map((hit, at) => ({ hit, number: at + 1 })).filter(({ number }) => !cited || cited.has(number));
    $("answer-sources").replaceChildren(...shown.map(({ hit, number }) => {
      const link = make("button", { type: "button", className: "title" }, hit.title || hit.document_id);
      link.addEventListener("click", () => open(hit));
      const path = hit.headings.filter((heading) => heading !== hit.title).join(" › ");
      return make("li", { value: number }, link, path ? make("span", { className: "path" }, path) : null);
    }));
  }

  function showState() {
    $("answer-state").textContent = done ? (words().status[done.status] ?? "") : running ? (text ? words().writing : words().reading) : "";
    $("answer").setAttribute("aria-busy", String(Boolean(running)));
    $("stop").hidden = !running;
    $("copy").hidden = Boolean(running) || !text;
    $("copy").textContent = words().copy;
    $("answer-text").classList.toggle("writing", Boolean(running));
    $("answer-text").setAttribute("aria-live", done ? "polite" : "off");
    const context = done?.context;
    $("answer-context").hidden = !context?.limit;
    if (context?.limit) $("answer-context").querySelector("div").textContent = `${done.model} · ${words().contextText(context)}`;
  }

  function fail(message) {
    $("answer-error").textContent = words().answerFailed + (message || words().network);
    $("answer-error").hidden = false;
  }

  function take({ event, data }) {
    if (event === "sources") {
      sources = data.sources;
      showSources(null);
    } else if (event === "token") {
      text += data.text;
      showText();
    } else if (event === "done") {
      done = data;
      text = data.answer;
      if (data.citations.length) showSources(new Set(data.citations.map((citation) => citation.number)));
      showText();
    } else if (event === "error") {
      fail(data.detail);
    }
    showState();
  }

  async function ask(question) {
    const key = JSON.stringify(question);
    if (asked === key) return;
    stop();
    asked = key;
    [sources, text, done] = [[], "", null];
    const mine = new AbortController();
    running = mine;
    $("answer").hidden = false;
    $("answer-error").hidden = true;
    showText();
    showSources(null);
    showState();
    try {
      for await (const event of api.answer(question, mine.signal)) {
        if (running !== mine) return;
        take(event);
      }
    } catch (error) {
      if (running === mine && error.name !== "AbortError") fail(error.message);
    } finally {
      if (running === mine) {
        running = null;
        showState();
      }
    }
  }

  /** Stop a running answer, keeping what came; whether there was one. */
  function stop() {
    if (!running) return false;
    running.abort();
    running = null;
    showState();
    $("answer-state").textContent = words().stopped;
    return true;
  }

  function close() {
    stop();
    hideCard();
    asked = null;
    $("answer").hidden = true;
  }

  $("stop").addEventListener("click", stop);
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    $("copy").textContent = words().copied;
  });
  return { ask, stop, close, relabel: showState };
}

function showCard(button, hit) {
  const card = $("card");
  const points = [...hit.text];
  card.replaceChildren(
    make("strong", {}, hit.title || hit.document_id),
    make("span", { className: "path" }, hit.headings.join(" › ")),
    make("p", {}, readable(points.slice(0, 240)).join("") + (points.length > 240 ? " …" : "")),
  );
  card.hidden = false;
  button.setAttribute("aria-describedby", "card");
  const place = button.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - card.offsetWidth - 12);
  const below = place.bottom + 8 + card.offsetHeight < innerHeight;
  card.style.left = `${Math.max(12, left) + scrollX}px`;
  card.style.top = `${(below ? place.bottom + 8 : Math.max(8, place.top - card.offsetHeight - 8)) + scrollY}px`;
}

function hideCard() {
  $("card").hidden = true;
}
