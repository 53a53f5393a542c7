// The search page: what is shown follows from the address; every change goes through it.

import * as api from "./api.js";
import { answerView } from "./answer.js";
import { openPassage } from "./passage.js";
import { hitView } from "./results.js";
import { suggestBox } from "./suggest.js";
import { TEXTS, explain, fillTexts, firstLanguage } from "./texts.js";
import { make } from "./text.js";

const SIZE = 10;
const DEEPEST = 10_000;
const $ = (id) => document.getElementById(id);

let language = firstLanguage();
let words = TEXTS[language];
let running = null; // AbortController of the search under way: only the newest may show anything
const answer = answerView(() => words, openSource);
const suggestions = suggestBox({
  box: $("q"), list: $("suggestions"), status: $("suggested"),
  words: () => words, collection: chosenCollection, choose: (how) => submit(how),
});

// The address ------------------------------------------------------------------------------------

function readAddress() {
  const parameters = new URLSearchParams(location.search);
  const mode = parameters.get("mode");
  const page = Number.parseInt(parameters.get("page") ?? "1", 10);
  return {
    q: parameters.get("q") ?? "",
    collection: parameters.get("collection") ?? "default",
    mode: ["hybrid", "bm25", "vector"].includes(mode) ? mode : "hybrid",
    page: page >= 1 && page * SIZE <= DEEPEST ? page : 1,
    ask: parameters.get("ask") === "1",
  };
}

function address(state) {
  const parameters = new URLSearchParams();
  if (state.q) parameters.set("q", state.q);
  if (state.collection !== "default") parameters.set("collection", state.collection);
  if (state.mode !== "hybrid") parameters.set("mode", state.mode);
  if (state.page > 1) parameters.set("page", state.page);
  if (state.ask) parameters.set("ask", "1");
  return `/${parameters.size ? `?${parameters}` : ""}`;
}

/** Go to a state: a new entry of the history, unless it is the one shown. */
function go(changes) {
  const state = { ...readAddress(), ...changes };
  if (address(state) !== location.pathname + location.search) history.pushState(null, "", address(state));
  show();
}

// Showing ----------------------------------------------------------------------------------------

function showTitle() {
  const { q } = readAddress();
  document.title = q ? `${q} – ${words.brand}` : words.brand;
}

async function show() {
  declined = false;
  const state = readAddress();
  suggestions.close();
  $("q").value = state.q;
  document.querySelector(`input[name=mode][value=${state.mode}]`).checked = true;
  if ([...$("collection").options].some((option) => option.value === state.collection)) $("collection").value = state.collection;
  showTitle();
  running?.abort();
  $("error").hidden = true;
  $("welcome").hidden = Boolean(state.q);
  if (!state.q.trim()) {
    running = null;
    clear();
    answer.close();
    return;
  }
  if (state.ask && state.page === 1) answer.ask({ question: state.q, collection: state.collection, mode: state.mode });
  else answer.close();
  await runSearch(state);
}

async function runSearch(state) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  $("error").hidden = true;
  $("status").textContent = words.searching;
  $("results").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const found = await api.search(
      { query: state.q, collection: state.collection, mode: state.mode, size: SIZE, from: (state.page - 1) * SIZE, group: true },
      mine.signal,
    );
    if (running === mine) showHits(state, found, Math.round(performance.now() - began));
  } catch (error) {
    if (running === mine && error.name !== "AbortError") showError(error);
  } finally {
    if (running === mine) $("results").removeAttribute("aria-busy");
  }
}

function clear() {
  $("status").textContent = "";
  $("hits").replaceChildren();
  for (const id of ["meant", "degraded", "pages", "stages"]) $(id).hidden = true;
}

function showHits(state, found, ms) {
  clear();
  $("hits").start = (state.page - 1) * SIZE + 1;
  // By meaning every passage is near or far, so only a search by words has a count worth telling.
  const summary = state.mode === "bm25" ? words.found(found.total, ms) : words.best(ms);
  const none = state.page > 1 ? words.noMore : words.nothing(state.q);
  $("status").textContent = found.hits.length ? summary : none;
  if (!found.hits.length && state.page === 1) $("hits").append(make("li", { className: "hint" }, words.nothingHint));
  $("hits").append(...found.hits.map((hit) => hitView(hit, words, () => openHit(state.collection, hit))));
  showMeant(state, found.did_you_mean);
  showDegraded(found.degraded);
  const last = found.hits.length < SIZE || (state.page + 1) * SIZE > DEEPEST;
  $("pages").hidden = state.page === 1 && last;
  $("previous").disabled = state.page === 1;
  $("next").disabled = last;
  $("page").textContent = words.page(state.page);
  $("stages").hidden = false;
  $("stages").querySelector("tbody").replaceChildren(
    ...found.stages.map((stage) => make("tr", {}, make("th", { scope: "row" }, words.stageNames[stage.name] ?? stage.name), make("td", {}, `${stage.took_ms.toFixed(1)} ms`))),
  );
}

function showMeant(state, meant) {
  $("meant").hidden = !meant;
  if (!meant) return;
  const better = { q: meant.query, page: 1 };
  const link = make("a", { href: address({ ...state, ...better }) }, meant.query);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(better);
  });
  $("meant").replaceChildren(words.meant, link);
}

function showDegraded(degraded) {
  $("degraded").hidden = !degraded.length;
  const names = degraded.map((part) => words.stageNames[part.stage] ?? part.stage);
  $("degraded").querySelector("summary").textContent = words.degraded + [...new Set(names)].join(words.comma);
  $("degraded").querySelector("ul").replaceChildren(...degraded.map((part) => make("li", {}, part.reason)));
}

function showError(error) {
  clear();
  $("error").textContent = words.failed + explain(error, words);
  $("error").hidden = false;
  askForKey(error);
}

// Passages ---------------------------------------------------------------------------------------

function openHit(collection, hit) {
  openPassage(collection, hit, words);
}

function openSource(hit) {
  openPassage(readAddress().collection, hit, words);
}

// What runs here, collections, key ---------------------------------------------------------------

async function showAbout() {
  try {
    const ready = await api.readiness();
    $("about").querySelector("dl").replaceChildren(
      ...Object.entries(ready.components ?? {}).flatMap(([name, part]) => [
        make("dt", {}, words.components[name] ?? name),
        make("dd", { className: part.ready ? "on" : "off" }, `${part.name ? `${part.name} · ` : ""}${part.ready ? words.ready : words.notReady}`, make("small", {}, part.detail)),
      ]),
    );
  } catch {
    $("about").querySelector("dl").replaceChildren(make("dd", { className: "off" }, words.network));
  }
}

async function showCollections() {
  const current = readAddress().collection;
  let names = [];
  try {
    names = (await api.collections()).collections.map((collection) => collection.name);
  } catch (error) {
    askForKey(error);
  }
  if (!names.includes(current)) names.push(current);
  $("collection").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  $("collection").value = current;
}

let declined = false; // the key dialog was closed: only what its user does next opens it again

/** Ask where the key in use was refused; several calls may be refused at once, and some come late. */
function askForKey(error) {
  if (error.status !== 401 || error.key !== api.currentKey() || declined) return;
  $("key-wrong").hidden = !error.key;
  if (!$("key").open) $("key").showModal();
}

$("key").addEventListener("cancel", () => { declined = true; });

$("key").querySelector("form").addEventListener("submit", () => {
  sessionStorage.setItem("key", $("key-value").value.trim());
  $("key-value").value = "";
  showCollections();
  show();
});

// What people do ---------------------------------------------------------------------------------

let composing = false; // an input method is composing: its Enter must not submit
$("q").addEventListener("compositionstart", () => { composing = true; });
$("q").addEventListener("compositionend", () => { setTimeout(() => { composing = false; }); });

function chosenCollection() {
  return $("collection").value || readAddress().collection;
}

function submit({ ask = false, newTab = false } = {}) {
  const q = $("q").value.trim();
  if (composing || !q) return;
  suggestions.close();
  const state = { q, ask, page: 1, mode: document.querySelector("input[name=mode]:checked").value, collection: chosenCollection() };
  if (newTab) open(address(state), "_blank", "noopener");
  else go(state);
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("ask").addEventListener("click", () => submit({ ask: true }));
$("q").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  if (event.isComposing || composing || event.keyCode === 229) event.preventDefault();
  else if (event.altKey || event.ctrlKey || event.metaKey) {
    event.preventDefault();
    submit({ ask: event.altKey, newTab: event.ctrlKey || event.metaKey });
  }
});
for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => { if (readAddress().q) go({ mode: radio.value, page: 1 }); });
}
$("collection").addEventListener("change", () => go({ collection: $("collection").value, page: 1 }));
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
function turn(by) {
  go({ page: readAddress().page + by, ask: false });
  $("results").focus();
  $("results").scrollIntoView();
}
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  words = TEXTS[language];
  fillTexts(words);
  showTitle();
  showAbout();
  answer.relabel();
  if (readAddress().q.trim()) runSearch(readAddress());
});

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const inField = event.target.closest?.("input:not([type=radio]), textarea, select");
  if (event.key === "/" && !inField && !event.altKey) {
    event.preventDefault();
    $("q").focus();
    $("q").select();
  } else if (event.key === "Escape") {
    if (inField) event.preventDefault(); // a search field would lose its text
    answer.stop();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (!inField || event.target === $("q"))) {
    move(event);
  }
});

/** Arrows go from the box through the results and back. */
function move(event) {
  const links = [...document.querySelectorAll("#hits .title")];
  const at = links.indexOf(document.activeElement);
  if (at < 0 && event.target !== $("q")) return;
  const to = at + (event.key === "ArrowDown" ? 1 : -1);
  if (to >= links.length) return;
  event.preventDefault();
  if (to < 0) {
    if (at === 0) $("q").focus();
  } else {
    links[to].focus();
    links[to].scrollIntoView({ block: "nearest" });
  }
}

window.addEventListener("popstate", () => {
  $("passage").close();
  show();
});
$("about").addEventListener("toggle", () => { if ($("about").open) showAbout(); });

fillTexts(words);
show();
showCollections();
