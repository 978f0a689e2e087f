"use strict";
const pictures = document.getElementById("pictures");
const layers = [...document.querySelectorAll("[data-show]")];

function show(name) {
  pictures.dataset.layer = name;
  for (const button of layers) button.setAttribute("aria-pressed", String(button.dataset.show === name));
}

for (const button of layers) button.addEventListener("click", () => show(button.dataset.show));
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = layers[Number(event.key) - 1];
  if (button) show(button.dataset.show);
});
if (pictures) {
  pictures.addEventListener("click", (event) => {
    if (event.target.tagName !== "IMG") return;
    const names = layers.map((button) => button.dataset.show);
    show(names[(names.indexOf(pictures.dataset.layer) + 1) % names.length]);
  });
  document.getElementById("search").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase();
    for (const figure of pictures.querySelectorAll("figure")) figure.hidden = !figure.dataset.text.includes(words);
  });
}

for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== (column ? "descending" : "ascending");
    const sign = down === Boolean(column) ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (one, other) => sign * (column ? value(one) - value(other) : value(one).localeCompare(value(other)));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
  }));
}
