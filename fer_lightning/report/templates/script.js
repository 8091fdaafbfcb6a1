for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "")  // undefined values stay last
    : (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
});
const filter = document.querySelector(".filter");
if (filter) {
  filter.hidden = false;  // it needs this script
  filter.addEventListener("input", () => {
    const words = filter.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = [...document.querySelectorAll("table.filtered")].map(table => {
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) {
        const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
      }
      return `${rows.filter(row => !row.hidden).length} of ${rows.length} ${table.dataset.rows ?? "rows"}`;
    });
    filter.querySelector("output").textContent = words.length ? counts[0] : "";
  });
}
const dialog = document.querySelector("dialog");
dialog.addEventListener("click", () => dialog.close());
for (const button of document.querySelectorAll("figure button")) button.addEventListener("click", () => {
  dialog.lastElementChild.replaceChildren(button.firstElementChild.cloneNode());
  dialog.showModal();
});
