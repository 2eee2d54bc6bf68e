"use strict";
// A form, its address and its answer are one: what is chosen stands in the address, and is asked at once.
const form = document.querySelector("form");
const answer = document.getElementById("answer");
const page = form.dataset.page;
const sliding = form.hasAttribute("data-sliding");
const cancel = document.getElementById("cancel");
const progress = document.getElementById("progress");
let running = null, timer = 0, asked = 0, events = null;

function values() {
  const found = new Map();
  for (const field of form.elements) {
    if (!field.name) continue;
    let value = field.multiple ? [...field.selectedOptions].map((o) => o.value).join(",") : field.value;
    if (field.type === "range") value = field.dataset.set;
    if (value !== "") found.set(field.name, value);
  }
  return found;
}

function address(found) {
  const query = new URLSearchParams([...found].filter(([name]) => name !== "text"));
  history.replaceState(null, "", `${page}?${query}`);
}

function follow(on) {
  if (!progress) return;
  if (events) events.close();
  events = null;
  progress.hidden = !on;
  if (!on) return;
  const [bar, words] = progress.children;
  bar.removeAttribute("value");
  words.textContent = "begun";
  // The answer's own request is on its way before the first word is asked for.
  events = new EventSource("progress");
  events.onmessage = (event) => {
    const told = JSON.parse(event.data);
    words.textContent = `${told.what}: ${told.words}`;
    if (told.total) { bar.max = told.total; bar.value = told.done; }
  };
  events.addEventListener("over", () => { events.close(); });
}

async function ask(exact) {
  const found = values();
  address(found);
  if (running) running.abort();
  running = new AbortController();
  const mine = ++asked;
  answer.setAttribute("aria-busy", "true");
  if (cancel) cancel.hidden = false;
  try {
    const coming = fetch(`answer/${page}${exact ? "?exact=1" : ""}`, {
      method: "POST", signal: running.signal, headers: { "content-type": "application/json" },
      body: JSON.stringify(Object.fromEntries(found)),
    });
    setTimeout(() => { if (mine === asked && answer.getAttribute("aria-busy") === "true") follow(true); }, 200);
    const reply = await coming;
    const text = await reply.text();
    if (mine !== asked) return;
    answer.innerHTML = reply.ok ? text : `<div class="wrong" role="alert"><p>The request was refused (${reply.status}).</p></div>`;
    answer.dataset.exact = String(exact);
    answer.setAttribute("aria-busy", "false");
    if (cancel) cancel.hidden = true;
    follow(false);
    bind(answer);
    if (!exact) timer = setTimeout(() => ask(true), 350);
  } catch (error) {
    if (error.name === "AbortError" || mine !== asked) return;
    answer.setAttribute("aria-busy", "false");
    follow(false);
    answer.innerHTML = '<div class="wrong" role="alert"><p>No answer: has ersatz serve ended?</p></div>';
  }
}

function changed(event) {
  if (event.target.type === "range") {
    event.target.dataset.set = event.target.value;
    event.target.nextElementSibling.textContent = event.target.value;
  }
  if (document.getElementById("ask")) return address(values());
  clearTimeout(timer);
  timer = setTimeout(() => ask(!sliding), sliding ? 60 : 250);
}

function saved(text, name, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

form.addEventListener("input", changed);
if (cancel) cancel.addEventListener("click", () => fetch("cancel", { method: "POST" }));
form.addEventListener("submit", (event) => { event.preventDefault(); ask(true); });
document.getElementById("save").addEventListener("click", async () => {
  const reply = await fetch(`saved/${page}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(Object.fromEntries(values())),
  });
  if (reply.ok) saved(await reply.text(), `ersatz-${page}.html`, "text/html");
});
answer.addEventListener("click", (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const text = button.nextElementSibling.textContent;
  if (button.dataset.file) saved(text, button.dataset.file, "text/yaml");
  else navigator.clipboard.writeText(text).then(() => { button.textContent = "copied"; });
});
const paste = form.elements.text;
if (paste) {
  paste.addEventListener("dragover", (event) => event.preventDefault());
  paste.addEventListener("drop", async (event) => {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    event.preventDefault();
    paste.value = await file.text();
    form.elements.file.value = file.name;
    ask(true);
  });
}
if (page !== "own" && page !== "plan") ask(!sliding);
