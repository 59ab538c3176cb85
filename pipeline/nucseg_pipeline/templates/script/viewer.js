/** The viewer: one large image, drawn from the layers of its article in the page. */
const viewer = document.getElementById("viewer");
const SVG = "http://www.w3.org/2000/svg";
const LAYERS = [
  ["differences", "Missed and added"],
  ["guidance", "Where guidance helped"],
  ["truth", "True nuclei"],
  ["found", "Predicted nuclei"],
];
/** Only one of the filled layers is drawn at a time, because they would cover each other. */
const FILLS = ["differences", "guidance"];
const state = { image: null, position: 0, layers: new Set(["differences", "found"]) };

/** Draw layers over the image; outlines are drawn twice, with a rim that is visible on any tissue. */
function draw(svg, picture, names) {
  const { width, height } = data.pictures[picture];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const layer = (name, kind) => {
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#s${picture}-${name}`);
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

/** The chosen layers, without those that a prediction does not have. */
const layersOf = (prediction) => LAYERS.filter(([name]) => state.layers.has(name) && (name !== "guidance" || prediction.guidance));

function layerNames(prediction) {
  const names = layersOf(prediction).flatMap(([name]) => {
    if (name === "truth") return ["truth"];
    const parts = name === "guidance" ? ["guidance", "gained", "lost"] : [name];
    return parts.map((part) => part + state.position);
  });
  return ["image", ...names];
}

const counted = (value) => value.toLocaleString("en");
const nuclei = (n) => `${counted(n)} ${n === 1 ? "nucleus" : "nuclei"}`;

function drawStage(picture, id) {
  const own = data.pictures[picture].predictions[state.position];
  draw(byId("viewer-stage"), picture, layerNames(own));
  const drawn = layersOf(own).map(([, words]) => words.toLowerCase());
  byId("viewer-stage").setAttribute("aria-label", `${id} with ${drawn.join(", ") || "no layers"}: ${own.name}`);
  const caption = [make("b", { textContent: own.name }), own.run === own.name ? "" : ` (${own.run})`,
    `: Dice ${own.dice.toFixed(3)}, AJI ${own.aji.toFixed(3)}, ${nuclei(own.nuclei)}.`];
  const effect = own.guidance;
  if (effect) {
    caption.push(make("span", { className: "effect", textContent:
      ` Against ${effect.against}, right only with guidance: ${counted(effect.helped)} px, ${nuclei(effect.gained)}; ` +
      `only without: ${counted(effect.harmed)} px, ${nuclei(effect.lost)}.` }));
  }
  byId("viewer-caption").replaceChildren(...caption);
  drawEmbedding(picture, id);
}

/** The embedding of the chosen configuration, or of another one if it has none. */
function drawEmbedding(picture, id) {
  const { predictions } = data.pictures[picture];
  const own = predictions[state.position].embedding ? state.position : predictions.findIndex((prediction) => prediction.embedding);
  byId("viewer-embedding-figure").hidden = own < 0;
  if (own < 0) return;
  draw(byId("viewer-embedding"), picture, [`embedding${own}`]);
  byId("viewer-embedding").setAttribute("aria-label", `Embedding of ${id} as colours`);
  const guided = own === state.position ? "guides this prediction" : `guides ${predictions[own].name}`;
  byId("viewer-embedding-caption").textContent = `embedding as colours; ${guided}`;
}

function drawChoices(picture, id) {
  const { predictions } = data.pictures[picture];
  const buttons = predictions.map((prediction, position) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "layers thumb");
    svg.setAttribute("preserveAspectRatio", "xMidYMid slice");
    svg.setAttribute("aria-hidden", "true");
    draw(svg, picture, ["image", `differences${position}`, `found${position}`]);
    const button = make("button", { type: "button", "aria-pressed": String(position === state.position) });
    button.append(svg, make("span", {}, make("b", { textContent: prediction.name }), `Dice ${prediction.dice.toFixed(3)}, AJI ${prediction.aji.toFixed(3)}`));
    button.addEventListener("click", () => {
      state.position = position;
      buttons.forEach((other, which) => other.setAttribute("aria-pressed", String(which === position)));
      drawToggles(picture, id);
      drawStage(picture, id);
    });
    return button;
  });
  byId("viewer-choices").replaceChildren(...buttons);
}

function drawToggles(picture, id) {
  const hasGuidance = Boolean(data.pictures[picture].predictions[state.position].guidance);
  const buttons = new Map();
  for (const [name, words] of LAYERS.filter(([layer]) => layer !== "guidance" || hasGuidance)) {
    const button = make("button", { type: "button", textContent: words, "aria-pressed": String(state.layers.has(name)) });
    button.addEventListener("click", () => {
      if (!state.layers.delete(name)) state.layers.add(name);
      if (FILLS.includes(name)) FILLS.filter((fill) => fill !== name).forEach((fill) => state.layers.delete(fill));
      buttons.forEach((other, layer) => other.setAttribute("aria-pressed", String(state.layers.has(layer))));
      drawStage(picture, id);
    });
    buttons.set(name, button);
  }
  byId("viewer-toggles").replaceChildren(...buttons.values());
}

/** Images with pictures, in the order of the table. */
const pictured = () => view.order.filter((image) => data.pictureOf[image] !== null);

function showImage(image) {
  const picture = data.pictureOf[image];
  const id = data.ids[image];
  const entry = data.pictures[picture];
  state.image = image;
  const order = pictured();
  const place = order.indexOf(image);
  byId("viewer-title").textContent = id;
  const about = [data.strata[image], entry.why, place < 0 ? "" : `${place + 1} of ${order.length} images with pictures`];
  byId("viewer-about").textContent = about.filter(Boolean).join(" \u00b7 ");
  byId("viewer-earlier").disabled = place <= 0;
  byId("viewer-later").disabled = place < 0 || place === order.length - 1;
  drawChoices(picture, id);
  drawToggles(picture, id);
  drawStage(picture, id);
  draw(byId("viewer-truth"), picture, ["image", "truth"]);
  byId("viewer-truth").setAttribute("aria-label", `True nuclei of ${id}, outlined`);
  byId("viewer-truth-caption").textContent = `truth, ${nuclei(data.nuclei[image])}`;
}

function step(by) {
  const order = pictured();
  const next = order[order.indexOf(state.image) + by];
  if (order.includes(state.image) && next !== undefined) showImage(next);
}

function openViewer(image) {
  showImage(image);
  viewer.showModal();
  byId("viewer-title").focus();
}

if (viewer) {
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr.pictured");
    if (!row || (String(getSelection()) && !event.target.closest("button"))) return;
    row.querySelector("button").focus(); // the focus returns here
    openViewer(Number(row.dataset.image));
  });
  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("viewer-earlier").addEventListener("click", () => step(-1));
  byId("viewer-later").addEventListener("click", () => step(1));
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // a click on the backdrop
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  document.querySelectorAll("article.picture").forEach((article, picture) => {
    const image = data.pictureOf.indexOf(picture);
    const button = make("button", { type: "button", className: "button", textContent: "Enlarge", "aria-haspopup": "dialog" });
    button.setAttribute("aria-label", `Enlarge ${data.ids[image]}`);
    button.addEventListener("click", () => openViewer(image));
    article.querySelector(".titled").append(button);
  });
}
