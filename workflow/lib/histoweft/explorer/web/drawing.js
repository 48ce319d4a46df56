// Fetching what the state asks for, colouring the points, and laying out the views.
"use strict";

let turn = 0;

/** Fetch what the state asks for, colour the points, and draw. Later calls overtake earlier ones. */
async function refresh() {
  const mine = ++turn;
  const views = byId("views");
  views.dataset.state = "loading";
  try {
    const sections = shownSections();
    await Promise.all(sections.map((section) => section.points()));
    const [found, selected] = [await colouring(sections), await marked(sections)];
    if (mine !== turn) return;
    for (const section of sections) {
      section.selected = selected.get(section) || null;
      section.maps = found.maps?.get(section) || [];
      section.colours = found.colours(section);
    }
    page.found = found;
    page.views.forEach((view) => view.ask());
    drawLegend(found, sections);
    const tables = await summary(sections);
    if (mine !== turn) return;
    byId("summary").replaceChildren(...tables);
    remember();
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        if (mine === turn) views.dataset.state = "drawn";
      }),
    );
  } catch (error) {
    tell(error.message);
    views.dataset.state = "failed";
  }
}

/** What gives the points their colours: {kind, colours(section), maps (painted ones), and what the legend needs}. */
async function colouring(sections) {
  return state.genes.length ? geneColouring(sections) : columnColouring(sections);
}

async function columnColouring(sections) {
  const key = state.column;
  const columns = new Map();
  for (const section of sections) columns.set(section, await section.column(key));
  const there = [...columns.values()].filter(Boolean);
  const plain = (section) => plainColours(section, page.palette);
  if (!there.length) return {kind: "none", key, colours: plain};
  if (there[0].about.kind === "category") {
    const colours = (section) =>
      columns.get(section) ? groupColours(section, columns.get(section), key, page.palette) : plain(section);
    return {kind: "groups", key, columns, colours};
  }
  const limits = [0, 1].map((end) => Math[end ? "max" : "min"](...there.map((column) => column.about.limits[end])));
  const colours = (section) =>
    columns.get(section) ? numberColours(section, columns.get(section), limits, page.palette) : plain(section);
  return {kind: "number", key, columns, limits, colours};
}

async function geneColouring(sections) {
  const genes = new Map();
  const painted = new Map();
  for (const section of sections) {
    genes.set(section, await Promise.all(state.genes.map((name) => section.gene(name))));
    painted.set(section, await Promise.all(state.genes.map((name) => section.painted(name))));
  }
  const ends = paintedEnds([...painted.values()]);
  const maps = new Map(sections.map((section) => [section, alike(painted.get(section), ends)]));
  const tops = state.genes.map((_, i) =>
    Math.max(
      1e-6,
      ...sections.map((section) => (genes.get(section)[i] ? geneTop(genes.get(section)[i], section.n) : 0)),
    ),
  );
  const missing = state.genes.filter((_, i) => sections.every((section) => !genes.get(section)[i]));
  if (missing.length) tell(`No section shown offers ${missing.join(", ")}.`);
  const colours = (section) => geneColours(section, genes.get(section), tops, page.palette);
  return {kind: "genes", genes, tops, ends, maps, colours};
}

/** The ends of each gene's painted maps over all sections; null where it is painted in none. */
function paintedEnds(sections) {
  return state.genes.map((_, i) => {
    const own = sections.map((maps) => maps[i]?.ends).filter(Boolean);
    return own.length ? [Math.min(...own.map(([low]) => low)), Math.max(...own.map(([, high]) => high))] : null;
  });
}

/** Bring the painted maps of a section to the ends of all: share = byte x gain + shift. */
function alike(maps, ends) {
  return maps.flatMap((map, i) => {
    if (!map) return [];
    const [low, high] = ends[i];
    const gain = (map.ends[1] - map.ends[0]) / (high - low);
    return [{bitmap: map.bitmap, gain, shift: (map.ends[0] - low) / (high - low), tint: page.palette.tints[i]}];
  });
}

/** Lay out one view for each section and place. */
function layOut() {
  page.views.forEach((view) => view.close());
  page.views = [];
  const main = byId("views");
  main.replaceChildren();
  for (const section of shownSections()) {
    const places = LAYOUTS[state.layout].places.filter((place) => section.about.bounds[place]);
    const card = make("section", {className: "card"}, heading(section));
    const row = make("div", {className: "row"});
    for (const place of places.length ? places : ["umap"].filter((name) => section.about.bounds[name])) {
      const view = new View(section, place, place === "joint" ? page.jointBounds : section.about.bounds[place], host);
      view.camera = state.cameras.get(`${section.name}~${place}`) || null;
      page.views.push(view);
      row.append(view.canvas);
    }
    card.append(row);
    main.append(card);
  }
  if (!state.sections.length) main.append(make("p", {className: "note"}, "No section is chosen."));
  const count = Math.max(1, main.querySelectorAll(".card").length);
  const wide = LAYOUTS[state.layout].places.length > 1;
  const across = state.across === "auto" ? Math.ceil(Math.sqrt(wide ? count / 2 : count)) : Number(state.across);
  main.style.setProperty("--across", Math.min(across, count));
  main.style.setProperty("--down", Math.ceil(count / Math.min(across, count)));
}

function heading(section) {
  const {patient, condition, platform} = section.about;
  const unit = {visium: "spots", st: "spots", visium_hd: "bins"}[platform] || "cells";
  const facts = [patient === section.name ? "" : patient, condition, `${whole(section.n)} ${unit}`];
  return make("h2", {}, make("b", {}, section.name), ` ${facts.filter(Boolean).join(" · ")}`);
}

// What views ask of the page.
const host = {
  get graphics() {
    return page.graphics;
  },
  tool: () => page.tool,
  layers: () => ({
    image: state.layers.image / 100,
    painted: state.layers.painted / 100,
    points: state.layers.points / 100,
    size: state.layers.size / 100,
    composite: state.genes.length > 1,
  }),
  onmove(view) {
    const key = `${view.section.name}~${view.place}`;
    if (view.camera) state.cameras.set(key, view.camera);
    else state.cameras.delete(key);
    remember();
  },
  onselect(view, polygon) {
    state.selection = {shape: [view.section.name, view.place, polygon.map((v) => +v.toPrecision(6))]};
    refresh();
  },
  onhover(view, number, event) {
    for (const other of page.views) other.ring(other.section === view.section ? number : -1);
    showTip(view.section, number, event);
  },
  ondrawn() {
    page.drawnAt ??= performance.now();
  },
};

let tipFor = 0;

async function showTip(section, number, event) {
  const tip = byId("tip");
  const mine = ++tipFor;
  tip.hidden = number < 0;
  if (number < 0) return;
  const barcodes = await section.barcodes();
  if (mine !== tipFor) return;
  tip.replaceChildren(
    make("b", {}, barcodes[number]),
    ...valuesOf(section, number).map((text) => make("div", {}, text)),
  );
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - box.width - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - box.height - 8)}px`;
}

/** What a point's colour stands for, in words. */
function valuesOf(section, number) {
  const {found} = page;
  if (found.kind === "genes") {
    return state.genes.map((name, i) => {
      const gene = found.genes.get(section)[i];
      return `${name}: ${gene ? short(gene.bytes[number] * gene.step) : "not on offer here"}`;
    });
  }
  const column = found.columns?.get(section);
  if (!column) return [];
  const title = column.about.title;
  if (found.kind === "number") return [`${title}: ${short(column.values[number])}`];
  return [`${title}: ${column.about.categories[column.codes[number]] ?? "none"}`];
}
