// Makes pages live: what is still counted is asked for, instants are shown in the reader's zone, forms answer while
// somebody types. Without it every page works by its links and buttons.
"use strict";

const PATIENCE = 250; // milliseconds after the last key before a form is sent
const REFRESH = 5000;

function showInstants(part) {
  for (const time of part.querySelectorAll("time:not([title])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    time.title = time.textContent;
    time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  }
}

function offerCopies(part) {
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}

function prepare(part) {
  showInstants(part);
  offerCopies(part);
}

function announce(text) {
  document.getElementById("announcements").textContent = text;
}

async function pageAt(address, options) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// Puts the parts of another state of the page into this one, by their ids. What somebody opened stays open.
function takeOver(page, selector) {
  for (const old of document.querySelectorAll(selector)) {
    const fresh = page.getElementById(old.id);
    if (!fresh) {
      old.removeAttribute("data-pending");
      continue;
    }
    const open = [...old.querySelectorAll("details[open]")].map((each) => each.id).filter(Boolean);
    prepare(fresh);
    old.replaceWith(fresh);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  }
}

async function awaitCounts() {
  while (document.querySelector("[data-pending]")) {
    const address = new URL(location.href);
    address.searchParams.set("wait", "1");
    try {
      takeOver(await pageAt(address), "[data-pending]");
    } catch {
      await new Promise((done) => setTimeout(done, REFRESH));
    }
  }
}

function keepFresh() {
  if (!document.querySelector("[data-live]")) return;
  setInterval(async () => {
    if (document.hidden || document.querySelector("[data-live]:focus-within")) return;
    try {
      takeOver(await pageAt(location.href), "[data-live]");
    } catch {
      announce("The service does not answer.");
    }
  }, REFRESH);
}

// A form whose answer is shown beside it, while somebody types or moves a threshold.
function answerWhileTyping(form) {
  let waiting, running;

  async function ask({ moved = false, everybody = false } = {}) {
    running?.abort();
    running = new AbortController();
    const fields = new URLSearchParams(new FormData(form));
    if (everybody) fields.set("everybody", "1");
    else document.getElementById("answer").classList.add("is-stale");
    let page;
    try {
      page = await pageAt(form.action, { method: "POST", body: fields, signal: running.signal });
    } catch (error) {
      if (error.name !== "AbortError") announce("The service does not answer.");
      return;
    }
    show(page, moved);
    const more = document.querySelector("#answer [data-more]");
    if (more) ask({ everybody: more.dataset.more === "everybody" });
  }

  function show(page, moved) {
    const fresh = page.querySelector("form[data-live-form]");
    const open = [...document.querySelectorAll("#answer details[open]")].map((each) => each.id);
    const answer = fresh ? page.getElementById("answer") : page.querySelector(".note");
    answer.id = "answer";
    prepare(answer);
    document.getElementById("answer").replaceWith(answer);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (!fresh) return;
    if (moved) {
      form.elements.text.value = fresh.elements.text.value;
      for (const was of form.querySelectorAll("[name^='was.']")) was.value = fresh.elements[was.name]?.value ?? was.value;
    } else if (!form.querySelector("#thresholds :focus")) {
      form.querySelector("#thresholds").replaceWith(page.getElementById("thresholds"));
    }
  }

  form.addEventListener("input", (event) => {
    const field = event.target;
    if (field.dataset.mirror) form.elements[field.dataset.mirror].value = field.value + field.dataset.unit;
    const slider = field.name && form.querySelector(`[data-mirror="${CSS.escape(field.name)}"]`);
    if (slider) slider.value = Number.parseFloat(field.value);
    const moved = Boolean(field.dataset.mirror) || field.name.startsWith("threshold.");
    clearTimeout(waiting);
    waiting = setTimeout(() => ask({ moved }), PATIENCE);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    ask();
  });
  const more = document.querySelector("#answer [data-more]");
  if (more) ask({ everybody: more.dataset.more === "everybody" });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  announce("Copied");
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1500);
});

// A slash goes to the search field, as in many tools.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(input|textarea|select)$/i.test(document.activeElement?.tagName ?? "")) return;
  const field = document.querySelector("[role=search] input");
  if (field) {
    event.preventDefault();
    field.focus();
  }
});

prepare(document);
awaitCounts();
keepFresh();
for (const form of document.querySelectorAll("form[data-live-form]")) answerWhileTyping(form);
