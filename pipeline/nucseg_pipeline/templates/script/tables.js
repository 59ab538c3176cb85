/** Compare two values: numbers as numbers, texts as people order them; what is missing comes last either way. */
const letters = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
function compare(one, other, direction) {
  const isMissing = [one, other].map((value) => value === null || value === "" || Number.isNaN(value));
  if (isMissing[0] || isMissing[1]) return isMissing[0] - isMissing[1];
  const order = typeof one === "number" && typeof other === "number" ? one - other : letters.compare(one, other);
  return direction === "descending" ? -order : order;
}

/** Put a button into every heading of a row; it tells `sort` the column and the direction. */
function addSortButtons(headings, sort) {
  headings.forEach((heading, column) => {
    const button = make("button", { type: "button" }, make("span", {}, ...heading.childNodes));
    heading.append(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      sort(column, direction);
    });
  });
}

/** What a cell is sorted by: the number that its first line begins with, else its text. */
function cellValue(cell) {
  const first = cell?.firstChild?.nodeType === Node.TEXT_NODE ? cell.firstChild.data : cell?.textContent ?? "";
  const text = first.trim();
  const number = /^[+\-\u2212]?\d[\d,]*(\.\d+)?/.exec(text);
  if (!number || cell.tagName === "TH") return text;
  return Number(number[0].replace("\u2212", "-").replaceAll(",", ""));
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  addSortButtons([...table.tHead.rows[0].cells], (column, direction) => {
    const rows = [...body.rows].map((row) => [cellValue(row.cells[column]), row]);
    rows.sort((one, other) => compare(one[0], other[0], direction));
    body.append(...rows.map(([, row]) => row));
  });
}
