/** The table of images: one page of rows at a time, sorted and filtered. */
const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("table");
const view = { metric: "dice", column: null, direction: "ascending", order: [], start: 0 };
const byId = (id) => document.getElementById(id);
const others = data.configurations.map((_, position) => position).filter((position) => position !== data.baseline);
const compared = data.baseline === null ? [] : others;
const metricNamed = (key) => data.metrics.find((metric) => metric.key === key);

function written(value, sign = false) {
  if (value === null || Number.isNaN(value)) return "\u2013";
  const metric = metricNamed(view.metric);
  const decimals = metric.decimals || (Number.isInteger(value) ? 0 : 1);
  const text = Math.abs(value).toFixed(decimals);
  if (value < 0) return Number(text) || sign ? "\u2212" + text : text;
  return (sign ? "+" : "") + text;
}

/** The sort key of image number `image` in a column. */
function valueAt(column, image) {
  if (column === 0) return data.ids[image];
  if (column === 1) return data.strata[image];
  if (column === 2) return data.nuclei[image];
  const values = data.values[view.metric];
  const position = column - 3;
  if (position < values.length) return values[position][image];
  const [own, base] = [compared[position - values.length], data.baseline].map((which) => values[which][image]);
  return own === null || base === null ? null : own - base;
}

/** A name that may be broken after a slash or an underscore. */
function breakable(name) {
  return name.split(/(?<=[/_])/).flatMap((part, position) => (position ? [make("wbr"), part] : [part]));
}

function rowOf(image) {
  const row = make("tr");
  const picture = data.pictureOf[image];
  const name = make("th", { scope: "row" });
  if (picture === null) {
    name.append(...breakable(data.ids[image]));
    if (data.pictures.length) name.append(" ", make("span", { className: "none", textContent: "no pictures" }));
  } else {
    row.className = "pictured";
    name.append(make("button", { type: "button", className: "open", "aria-haspopup": "dialog" }, ...breakable(data.ids[image])));
  }
  row.dataset.image = image;
  row.append(name, make("td", { className: "words", textContent: data.strata[image] }), make("td", { textContent: data.nuclei[image] }));
  const n = data.configurations.length;
  for (let column = 3; column < 3 + n + compared.length; column++) {
    const value = valueAt(column, image);
    const cell = make("td", { textContent: written(value, column >= 3 + n) });
    if (column >= 3 + n && value && view.metric !== "n_predicted") {
      cell.className = value > 0 === !metricNamed(view.metric).less ? "up" : "down";
    }
    row.append(cell);
  }
  return row;
}

function show() {
  const shown = view.order.slice(view.start, view.start + data.pageRows);
  table.tBodies[0].replaceChildren(...shown.map(rowOf));
  const total = data.ids.length;
  const found = view.order.length === total ? `${total} images` : `${view.order.length} of ${total} images`;
  byId("count").textContent = shown.length
    ? `Showing ${view.start + 1} to ${view.start + shown.length} of ${found}.`
    : "No image matches the filter.";
  byId("earlier").disabled = view.start === 0;
  byId("later").disabled = view.start + data.pageRows >= view.order.length;
  byId("earlier").hidden = byId("later").hidden = view.order.length <= data.pageRows;
}

/** Apply the filter and the order, and go to the first page. */
function arrange() {
  const part = byId("find").value.trim().toLowerCase();
  const stratum = byId("stratum").value;
  const onlyPictured = byId("pictured")?.checked;
  const fits = (image) =>
    data.ids[image].toLowerCase().includes(part) &&
    (stratum === "" || "=" + data.strata[image] === stratum) &&
    (!onlyPictured || data.pictureOf[image] !== null);
  view.order = data.ids.map((_, image) => image).filter(fits);
  if (view.column !== null) {
    const keys = data.ids.map((_, image) => valueAt(view.column, image));
    view.order.sort((a, b) => compare(keys[a], keys[b], view.direction));
  }
  view.start = 0;
  show();
}

function chooseMetric(key) {
  view.metric = key;
  const metric = metricNamed(key);
  const than = compared.length ? ` Columns with \u0394 are differences from ${data.configurations[data.baseline]}.` : "";
  table.caption.firstChild.textContent = `${metric.name} per image: ${metric.meaning}.${than}`;
  arrange();
}

for (const metric of data.metrics) byId("metric").append(make("option", { value: metric.key, textContent: metric.name }));
const strata = [...new Set(data.strata)].sort(letters.compare);
for (const name of strata) byId("stratum").append(make("option", { value: "=" + name, textContent: name || "(none)" }));
byId("by-stratum").hidden = strata.length < 2;
byId("metric").addEventListener("change", (event) => chooseMetric(event.target.value));
byId("find").addEventListener("input", arrange);
byId("stratum").addEventListener("change", arrange);
byId("pictured")?.addEventListener("change", arrange);
for (const [id, step] of [["earlier", -data.pageRows], ["later", data.pageRows]]) {
  byId(id).addEventListener("click", () => {
    view.start += step;
    show();
  });
}
addSortButtons([...table.tHead.rows[0].cells], (column, direction) => {
  Object.assign(view, { column, direction });
  arrange();
});
byId("controls").hidden = byId("turn").hidden = false;
arrange();
