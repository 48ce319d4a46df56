// Starting the page, and bringing all parts of it in line with the state.
"use strict";

/** Bring the controls in line with the state, and draw; `anew` where other views are wanted. */
function apply(anew = false) {
  byId("column").value = state.genes.length ? "" : state.column;
  byId("by").value = state.by;
  byId("layout").value = state.layout;
  byId("across").value = state.across;
  if (state.genes.length > 1) byId("overlay").checked = true;
  for (const box of byId("sections").querySelectorAll("input")) box.checked = state.sections.includes(box.value);
  for (const name of Object.keys(LAYERS)) {
    const range = byId(`layer-${name}`);
    if (!range) continue;
    range.value = state.layers[name];
    range.nextElementSibling.textContent = `${state.layers[name]} %`;
  }
  drawChips();
  if (anew) layOut();
  refresh();
}

/** All columns of all sections, in the order of their headings. */
function allColumns() {
  const found = new Map();
  for (const section of page.sections) {
    for (const [key, column] of section.columns) {
      const {kind, title, heading} = column;
      if (!found.has(key)) found.set(key, {key, kind, title, heading});
      // What is a group in one section and a number in another is shown as the first has it.
      else if (found.get(key).kind !== kind) section.columns.delete(key);
    }
  }
  const headings = [...new Set([...found.values()].map((column) => column.heading))];
  return headings.flatMap((heading) => [...found.values()].filter((column) => column.heading === heading));
}

function allBounds(place) {
  const all = page.sections.map((section) => section.about.bounds[place]).filter(Boolean);
  return [0, 1, 2, 3].map((i) => Math[i < 2 ? "min" : "max"](...all.map((bounds) => bounds[i])));
}

async function start() {
  try {
    page.study = await load("study");
    page.palette = new Palette(page.study);
    page.graphics = new Graphics(page.palette.map);
    page.graphics.onrestored = () => page.views.forEach((view) => view.ask());
    page.sections = page.study.samples.map((about) => new Section(about));
    page.columns = allColumns();
    page.columnTitle = (key) => page.columns.find((column) => column.key === key)?.title ?? "";
    page.jointBounds = allBounds("joint");
    byId("title").textContent = page.study.title;
    document.title = `${page.study.title}: explorer`;
    restore();
    buildControls();
    useTool("pan");
    apply(true);
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) === written) return;
      restore();
      apply(true);
    });
  } catch (error) {
    byId("views").dataset.state = "failed";
    byId("views").replaceChildren(make("p", {className: "note"}, `The explorer cannot be shown: ${error.message}`));
  }
}

start();
