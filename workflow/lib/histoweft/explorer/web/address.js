// The address of what is shown: written as things change, read at the start and when it is changed by hand.
"use strict";

/** The address of what is shown; only what differs from the start. */
function address() {
  const query = new URLSearchParams();
  const first = defaults();
  if (String(state.sections) !== String(first.sections)) state.sections.forEach((name) => query.append("s", name));
  if (state.layout !== first.layout) query.set("show", state.layout);
  if (state.across !== "auto") query.set("across", state.across);
  if (state.genes.length) state.genes.forEach((name) => query.append("gene", name));
  if (!state.genes.length && state.column !== first.column) query.set("colour", state.column);
  if (state.by !== first.by) query.set("by", state.by);
  for (const [name, layer] of Object.entries(LAYERS)) {
    if (state.layers[name] !== layer.start) query.set(name, state.layers[name]);
  }
  if (state.selection) query.set("selection", JSON.stringify(state.selection));
  for (const [key, {x, y, width}] of state.cameras) {
    query.append("at", [key, ...[x, y, width].map((v) => +v.toPrecision(6))].join("~"));
  }
  return query.toString();
}

/** What is shown when the address says nothing. */
function defaults() {
  const placed = page.sections.some((section) => section.about.bounds.tissue);
  const columns = page.columns;
  const groups = columns.filter((column) => column.kind === "category");
  const first = groups[0] || columns[0];
  return {
    sections: page.sections.slice(0, SHOWN_AT_FIRST).map((section) => section.name),
    layout: placed ? "tissue" : "umap",
    column: first ? first.key : "",
    by: groups.length ? groups[0].key : "",
  };
}

/** Take the state from the address; what it names and the study lacks is left out, and said. */
function restore() {
  const query = new URLSearchParams(location.hash.slice(1));
  const names = page.sections.map((section) => section.name);
  const unknown = [];
  const known = (values, all) => {
    unknown.push(...values.filter((value) => !all.includes(value)));
    return values.filter((value) => all.includes(value));
  };
  const columns = page.columns.map((column) => column.key);
  const groups = page.columns.filter((column) => column.kind === "category").map((column) => column.key);
  Object.assign(state, defaults());
  const sections = known(query.getAll("s"), names);
  if (sections.length) state.sections = names.filter((name) => sections.includes(name));
  if (Object.hasOwn(LAYOUTS, query.get("show"))) state.layout = query.get("show");
  state.across = ["1", "2", "3", "4", "6"].includes(query.get("across")) ? query.get("across") : "auto";
  state.genes = query.getAll("gene").slice(0, MOST_GENES);
  [state.column] = [...known(query.getAll("colour"), columns), state.column];
  [state.by] = [...known(query.getAll("by"), groups), state.by];
  for (const [name, layer] of Object.entries(LAYERS)) {
    const value = Number(query.get(name) ?? layer.start);
    state.layers[name] = Number.isFinite(value) ? Math.min(layer.most, Math.max(layer.least, value)) : layer.start;
  }
  state.selection = readSelection(query.get("selection"), names, groups);
  state.cameras.clear();
  for (const text of query.getAll("at")) {
    const [name, place, ...numbers] = text.split("~");
    const [x, y, width] = numbers.map(Number);
    if ([x, y, width].every(Number.isFinite) && width > 0) state.cameras.set(`${name}~${place}`, {x, y, width});
  }
  if (unknown.length) tell(`This study has no ${unknown.join(", ")}.`);
}

function readSelection(text, names, columns) {
  const places = Object.keys(PLACES);
  try {
    const {groups, shape} = JSON.parse(text) || {};
    if (groups && columns.includes(groups[0]) && Array.isArray(groups[1])) return {groups};
    const known = shape && names.includes(shape[0]) && places.includes(shape[1]);
    if (known && shape[2].length >= 6 && shape[2].every(Number.isFinite)) return {shape};
  } catch {
    tell("The selection in the address cannot be read.");
  }
  return null;
}

let written = null;
let writing = 0;

/** Put the state into the address, once things have settled; the history does not grow. */
function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    written = address();
    if (location.hash.slice(1) !== written) location.replace(`#${written}`);
  }, 150);
}
