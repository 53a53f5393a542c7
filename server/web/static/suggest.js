// The suggestions under the search box: a combobox with a listbox (ARIA's pattern). The focus and the
// caret stay in the box; the list only tells which option Enter would take.

import * as api from "./api.js";
import { make } from "./text.js";

const PAUSE = 150; // ms without a key until the server is asked
const LONGEST = 60; // characters; nothing longer is completed

/** Make it of the page's elements; `words` gives the texts, `collection` the one that is searched,
 * `choose` searches for what the box holds. Make it before other listeners to the box's keys. */
export function suggestBox({ box, list, status, words, collection, choose }) {
  let timer = null;
  let running = null; // AbortController of the request under way: only the newest may show anything
  let active = -1;
  let composing = false;

  const options = () => [...list.children];

  function close() {
    clearTimeout(timer);
    running?.abort();
    running = null;
    active = -1;
    list.hidden = true;
    list.replaceChildren();
    status.textContent = "";
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  }

  function later() {
    clearTimeout(timer);
    running?.abort();
    running = null;
    if (!box.value.trim() || [...box.value].length > LONGEST) close();
    else timer = setTimeout(ask, PAUSE);
  }

  async function ask() {
    const mine = new AbortController();
    running = mine;
    const typed = box.value;
    try {
      const found = await api.suggest(typed, collection(), mine.signal);
      if (running === mine && box.value === typed && document.activeElement === box) open(typed, found.suggestions);
    } catch {
      if (running === mine) close(); // a search says what is wrong
    }
  }

  function open(typed, suggestions) {
    close();
    if (!suggestions.length) return;
    list.replaceChildren(...suggestions.map((suggestion, at) => optionView(suggestion, at, typed.trim())));
    list.hidden = false;
    list.scrollTop = 0;
    status.textContent = words().suggested(suggestions.length);
    box.setAttribute("aria-expanded", "true");
  }

  function optionView({ text, kind }, at, typed) {
    const option = make("li", { id: `suggestion-${at}`, role: "option", ariaSelected: "false" }, make("span", {}, ...completed(text, typed)));
    const from = words().suggestionKinds[kind];
    if (from) option.append(make("small", {}, from));
    option.dataset.text = text;
    option.addEventListener("click", (event) => {
      take(option);
      choose({ newTab: event.ctrlKey || event.metaKey });
    });
    return option;
  }

  function move(by) {
    const all = options();
    active = (active + 1 + by + all.length + 1) % (all.length + 1) - 1; // -1: the box itself
    all.forEach((option, at) => { option.ariaSelected = String(at === active); });
    if (active < 0) {
      box.removeAttribute("aria-activedescendant");
    } else {
      box.setAttribute("aria-activedescendant", all[active].id);
      all[active].scrollIntoView({ block: "nearest" });
    }
  }

  function take(option) {
    box.value = option.dataset.text;
    close();
  }

  box.addEventListener("compositionstart", () => {
    composing = true;
    close();
  });
  box.addEventListener("compositionend", () => {
    composing = false;
    later();
  });
  box.addEventListener("input", (event) => { if (!event.isComposing && !composing) later(); });
  box.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the box
  box.addEventListener("keydown", (event) => {
    if (event.isComposing || composing || event.keyCode === 229) return;
    if (event.key === "Enter") {
      if (active >= 0) take(options()[active]);
      else close();
    } else if (event.key === "Tab") {
      close();
    } else if (!list.hidden && event.key === "Escape") {
      close();
      event.preventDefault();
      event.stopImmediatePropagation();
    } else if (!list.hidden && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      move(event.key === "ArrowDown" ? 1 : -1);
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  });
  return { close };
}

/** The text with what is added to what was typed set off. */
function completed(text, typed) {
  if (!text.toLowerCase().startsWith(typed.toLowerCase())) return [text];
  return [text.slice(0, typed.length), make("b", {}, text.slice(typed.length))];
}
