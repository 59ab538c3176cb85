/** The viewer: one image large, with the layers that its article in the page holds. */
const viewer = document.getElementById("viewer");
const SVG = "http://www.w3.org/2000/svg";
const LAYERS = [
  ["differences", "Missed and added"],
  ["guidance", "Where guidance helped"],
  ["truth", "True nuclei"],
  ["found", "Predicted nuclei"],
];
/** Fills cover each other: only one of them is drawn at a time. */
const FILLS = ["differences", "guidance"];
const look = { image: null, position: 0, layers: new Set(["differences", "found"]) };

/** Lay layers over the image: pixels as they are, outlines twice, with a rim that is seen on any tissue. */
function draw(svg, sheet, names) {
  const { width, height } = data.pictures[sheet];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const layer = (name, kind) => {
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#s${sheet}-${name}`);
    if (kind) use.setAttribute("class", kind);
    return use;
  };
  const rims = { gained: "pale", lost: "pale", truth: "rim", found: "rim" };
  svg.replaceChildren(
    ...names.flatMap((name) => {
      const kind = name.replace(/\d+$/, "");
      return rims[kind] ? [layer(name, rims[kind]), layer(name, kind)] : [layer(name)];
    }),
  );
}

/** The layers that are asked for and that a prediction has. */
const layersOf = (prediction) => LAYERS.filter(([name]) => look.layers.has(name) && (name !== "guidance" || prediction.guidance));

function layerNames(prediction) {
  const names = layersOf(prediction).flatMap(([name]) => {
    if (name === "truth") return ["truth"];
    const parts = name === "guidance" ? ["guidance", "gained", "lost"] : [name];
    return parts.map((part) => part + look.position);
  });
  return ["image", ...names];
}

const counted = (value) => value.toLocaleString("en");

function drawStage(sheet, id) {
  const own = data.pictures[sheet].predictions[look.position];
  draw(byId("viewer-stage"), sheet, layerNames(own));
  const drawn = layersOf(own).map(([, words]) => words.toLowerCase());
  byId("viewer-stage").setAttribute("aria-label", `${id} with ${drawn.join(", ") || "nothing drawn on it"}: ${own.name}`);
  const caption = [make("b", { textContent: own.name }), own.run === own.name ? "" : ` (${own.run})`,
    `: Dice ${own.dice.toFixed(3)}, AJI ${own.aji.toFixed(3)}, ${counted(own.nuclei)} nuclei.`];
  const effect = own.guidance;
  if (effect) {
    caption.push(make("span", { className: "effect", textContent:
      ` Against ${effect.against}, right with guidance alone: ${counted(effect.helped)} px, ${effect.gained} nuclei; ` +
      `without it alone: ${counted(effect.harmed)} px, ${effect.lost} nuclei.` }));
  }
  byId("viewer-caption").replaceChildren(...caption);
  drawEmbedding(sheet, id);
}

/** The embedding of the chosen configuration, or, where it has none, of another one. */
function drawEmbedding(sheet, id) {
  const { predictions } = data.pictures[sheet];
  const own = predictions[look.position].embedding ? look.position : predictions.findIndex((one) => one.embedding);
  byId("viewer-embedding-figure").hidden = own < 0;
  if (own < 0) return;
  draw(byId("viewer-embedding"), sheet, [`embedding${own}`]);
  byId("viewer-embedding").setAttribute("aria-label", `Embedding of ${id} as colours`);
  const whose = own === look.position ? "guides this prediction" : `guides ${predictions[own].name}`;
  byId("viewer-embedding-caption").textContent = `embedding as colours; ${whose}`;
}

function drawChoices(sheet, id) {
  const { predictions } = data.pictures[sheet];
  const buttons = predictions.map((one, position) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "layers thumb");
    svg.setAttribute("preserveAspectRatio", "xMidYMid slice");
    svg.setAttribute("aria-hidden", "true");
    draw(svg, sheet, ["image", `differences${position}`, `found${position}`]);
    const button = make("button", { type: "button", "aria-pressed": String(position === look.position) });
    button.append(svg, make("span", {}, make("b", { textContent: one.name }), `Dice ${one.dice.toFixed(3)}, AJI ${one.aji.toFixed(3)}`));
    button.addEventListener("click", () => {
      look.position = position;
      buttons.forEach((other, which) => other.setAttribute("aria-pressed", String(which === position)));
      drawToggles(sheet, id);
      drawStage(sheet, id);
    });
    return button;
  });
  byId("viewer-choices").replaceChildren(...buttons);
}

function drawToggles(sheet, id) {
  const hasGuidance = Boolean(data.pictures[sheet].predictions[look.position].guidance);
  const buttons = new Map();
  for (const [name, words] of LAYERS.filter(([layer]) => layer !== "guidance" || hasGuidance)) {
    const button = make("button", { type: "button", textContent: words, "aria-pressed": String(look.layers.has(name)) });
    button.addEventListener("click", () => {
      if (!look.layers.delete(name)) look.layers.add(name);
      if (FILLS.includes(name)) FILLS.filter((fill) => fill !== name).forEach((fill) => look.layers.delete(fill));
      buttons.forEach((other, layer) => other.setAttribute("aria-pressed", String(look.layers.has(layer))));
      drawStage(sheet, id);
    });
    buttons.set(name, button);
  }
  byId("viewer-toggles").replaceChildren(...buttons.values());
}

/** Images with pictures, in the order of the table. */
const pictured = () => view.order.filter((image) => data.sheets[image] !== null);

function lookAt(image) {
  const sheet = data.sheets[image];
  const id = data.ids[image];
  const picture = data.pictures[sheet];
  look.image = image;
  const order = pictured();
  const place = order.indexOf(image);
  byId("viewer-title").textContent = id;
  const about = [data.strata[image], picture.why, place < 0 ? "" : `${place + 1} of ${order.length} images with pictures`];
  byId("viewer-about").textContent = about.filter(Boolean).join(" \u00b7 ");
  byId("viewer-earlier").disabled = place <= 0;
  byId("viewer-later").disabled = place < 0 || place === order.length - 1;
  drawChoices(sheet, id);
  drawToggles(sheet, id);
  drawStage(sheet, id);
  draw(byId("viewer-truth"), sheet, ["image", "truth"]);
  byId("viewer-truth").setAttribute("aria-label", `True nuclei of ${id}, outlined`);
  byId("viewer-truth-caption").textContent = `truth, ${counted(data.nuclei[image])} nuclei`;
}

function step(by) {
  const order = pictured();
  const next = order[order.indexOf(look.image) + by];
  if (order.includes(look.image) && next !== undefined) lookAt(next);
}

function openViewer(image) {
  lookAt(image);
  viewer.showModal();
  byId("viewer-title").focus();
}

if (viewer) {
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr.pictured");
    if (!row || (String(getSelection()) && !event.target.closest("button"))) return;
    row.querySelector("button").focus(); // where the focus returns to
    openViewer(Number(row.dataset.image));
  });
  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("viewer-earlier").addEventListener("click", () => step(-1));
  byId("viewer-later").addEventListener("click", () => step(1));
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // beside it
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  document.querySelectorAll("article.shown").forEach((article, sheet) => {
    const image = data.sheets.indexOf(sheet);
    const button = make("button", { type: "button", className: "button", textContent: "Look closer", "aria-haspopup": "dialog" });
    button.setAttribute("aria-label", `Look closer at ${data.ids[image]}`);
    button.addEventListener("click", () => openViewer(image));
    article.querySelector(".titled").append(button);
  });
}
