"use strict";
// A kind of work is chosen in the legend: the others pale, and each row says its number alone.
function bind(place) {
 for (const split of place.querySelectorAll(".split")) {
  split.addEventListener("click", (event) => {
    const key = event.target.closest(".key");
    if (!key) return;
    const chosen = key.getAttribute("aria-pressed") === "true" ? "" : key.dataset.kind;
    for (const k of split.querySelectorAll(".key")) k.setAttribute("aria-pressed", String(k.dataset.kind === chosen));
    for (const part of split.querySelectorAll(".stack i")) part.classList.toggle("off", chosen !== "" && part.dataset.kind !== chosen);
    for (const cell of split.querySelectorAll("[data-parts]")) {
      cell.dataset.whole = cell.dataset.whole || cell.textContent;
      const parts = new Map(cell.dataset.parts.split(";").map((p) => [p.slice(0, p.lastIndexOf("=")), p.slice(p.lastIndexOf("=") + 1)]));
      cell.textContent = chosen ? `${parts.get(chosen)} ${split.dataset.unit}` : cell.dataset.whole;
    }
  });
 }
}
bind(document);
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
