"use strict";
// The page reads without this script. It adds: sorting and filtering of tables, keys in the enlarged curve, open details in print.
for (const block of document.querySelectorAll(".table-block")) {
  const table = block.querySelector("table[data-sorts]");
  if (!table) continue;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const controls = block.querySelector(".controls");
  const text = controls.querySelector("input");
  const status = controls.querySelector("select");

  function compare(a, b, direction) {
    if (a === "" || b === "") return (a === "") - (b === ""); // empty ones stay last, whichever way
    const difference = Number(a) - Number(b);
    return direction * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
  }

  function sort(column) {
    const head = heads[column];
    const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    const key = (row) => row.cells[column].dataset.v;
    const direction = next === "descending" ? -1 : 1;
    const order = next === "none" ? rows : [...rows].sort((a, b) => compare(key(a), key(b), direction));
    body.append(...order);
  }

  function filter() {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const named = row.cells[0].textContent.toLowerCase().includes(wanted);
      row.hidden = !(named && (!status || !status.value || row.dataset.status === status.value));
      shown += !row.hidden;
    }
    controls.querySelector("output").textContent = `${shown} of ${rows.length} ${block.dataset.noun}`;
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  text.addEventListener("input", filter);
  if (status) status.addEventListener("change", filter);
  controls.hidden = false;
  filter();
}

addEventListener("keydown", (event) => {
  const open = document.querySelector(".curve:target");
  if (!open || event.altKey || event.ctrlKey || event.metaKey) return;
  const link = { Escape: "a.close", ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]" }[event.key];
  const target = link && open.querySelector(link);
  if (target) {
    event.preventDefault();
    location.replace(target.hash);
    if (event.key !== "Escape") document.querySelector(".curve:target .close").focus();
  }
});

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
