/** Compare two values: numbers as numbers, texts in natural order; missing values come last in both directions. */
const letters = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
function compare(a, b, direction) {
  const isMissing = [a, b].map((value) => value === null || value === "" || Number.isNaN(value));
  if (isMissing[0] || isMissing[1]) return isMissing[0] - isMissing[1];
  const order = typeof a === "number" && typeof b === "number" ? a - b : letters.compare(a, b);
  return direction === "descending" ? -order : order;
}

/** Put a button into every heading of a row that calls `sort` with the column and the direction. */
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

/** The sort key of a cell: the number that its first line begins with, else its text. */
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
    rows.sort((a, b) => compare(a[0], b[0], direction));
    body.append(...rows.map(([, row]) => row));
  });
}
