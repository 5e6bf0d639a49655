"use strict";
// Tables can be put in order by a click on a heading: ascending, descending, as they were. Without scripts they stand
// as they are, and no button is shown. Parts of a table, each a <tbody>, stay apart.
const alphabet = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  const [one, other] = [a.dataset.key, b.dataset.key];
  return one && other ? one - other : alphabet.compare(a.textContent, b.textContent);
}

function sort(table, column, way) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
    if (way !== "none") {
      const sign = way === "ascending" ? 1 : -1;
      const empty = (row) => row.cells[column].dataset.key === ""; // nothing measured: last either way
      rows.sort((a, b) => empty(a) - empty(b) || sign * compare(a.cells[column], b.cells[column]));
    }
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.sheet")) {
  for (const body of table.tBodies) [...body.rows].forEach((row, place) => (row.dataset.place = place));
  if (table.querySelectorAll("tbody tr").length < 2) continue;
  const heads = table.querySelectorAll("thead th[data-column]");
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] ?? "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      if (way !== "none") head.setAttribute("aria-sort", way);
      sort(table, Number(head.dataset.column), way);
    });
  }
}

// A claim that is folded away is shown to whoever follows a link to it.
function reveal() {
  const row = document.getElementById(location.hash.slice(1));
  const folded = row?.closest("details:not([open])");
  if (!folded) return;
  folded.open = true;
  row.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
