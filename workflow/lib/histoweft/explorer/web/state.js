// What is shown, and small helpers of all parts of the page.
"use strict";

const LAYOUTS = {
  tissue: {title: "Tissue", places: ["tissue"]},
  both: {title: "Tissue, UMAP", places: ["tissue", "umap"]},
  shared: {title: "Tissue, joint UMAP", places: ["tissue", "joint"]},
  umap: {title: "UMAP of each section", places: ["umap"]},
  joint: {title: "Joint UMAP", places: ["joint"]},
};
const LAYERS = {
  image: {title: "H&E", least: 0, start: 70, most: 100},
  painted: {title: "Painted genes", least: 0, start: 0, most: 100},
  points: {title: "Points", least: 0, start: 85, most: 100},
  size: {title: "Point size", least: 20, start: 100, most: 300},
};
const SHOWN_AT_FIRST = 4;
const MOST_GENES = 3;
const SUGGESTIONS = 12;

const state = {
  sections: [], // names
  layout: "tissue",
  across: "auto",
  column: "", // "" where genes give the colours
  genes: [],
  by: "",
  layers: Object.fromEntries(Object.entries(LAYERS).map(([name, layer]) => [name, layer.start])),
  selection: null, // {groups: [column, [names]]} or {shape: [section, place, [x, y, ...]]}
  cameras: new Map(), // "section~place" -> {x, y, width}
};
const page = {study: null, sections: [], palette: null, graphics: null, views: [], tool: "pan", genes: new Map()};
const byId = (id) => document.getElementById(id);

/** Make an element. Names from data only ever become text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "for" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function tell(text) {
  byId("status").textContent = text;
}

function shownSections() {
  return page.sections.filter((section) => state.sections.includes(section.name));
}

const whole = (number) => number.toLocaleString("en");
const short = (number) => (Number.isFinite(number) ? String(+number.toPrecision(3)) : "–");
const percent = (part, all) => (all ? ((100 * part) / all).toFixed(1) : "–");
