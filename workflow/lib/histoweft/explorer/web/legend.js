// What the colours mean.
"use strict";

function drawLegend(found, sections) {
  const legend = byId("legend");
  byId("legend-title").textContent =
    found.kind === "genes" ? "Expression (log-normalised)" : page.columnTitle(state.column);
  if (found.kind === "groups") legend.replaceChildren(groupLegend(found, sections));
  else if (found.kind === "number") legend.replaceChildren(rampLegend(found.limits));
  else if (found.kind === "genes") legend.replaceChildren(...geneLegend(found));
  else legend.replaceChildren(make("p", {className: "note"}, "No section shown has this."));
  drawPaintedNote(sections);
}

function groupLegend(found, sections) {
  const scheme = page.palette.schemes.get(found.key);
  const counts = new Map([...scheme.keys()].map((name) => [name, 0]));
  for (const section of sections) {
    const column = found.columns.get(section);
    column?.codes.forEach((code) => {
      const name = column.about.categories[code];
      if (name !== undefined) counts.set(name, counts.get(name) + 1);
    });
  }
  const chosen = state.selection?.groups?.[0] === found.key ? state.selection.groups[1] : [];
  const list = make("ul", {className: "legend"});
  for (const [name, count] of counts) {
    if (!count) continue;
    const button = make(
      "button",
      {type: "button", "aria-pressed": String(chosen.includes(name)), title: `Select ${name}`},
      swatched(name, scheme.get(name)),
      make("span", {className: "count"}, whole(count)),
    );
    button.addEventListener("click", () => toggleGroup(found.key, name));
    list.append(make("li", {}, button));
  }
  return list;
}

function rampLegend([low, high]) {
  const bar = make("div", {
    className: "ramp",
    role: "img",
    "aria-label": `Colours from ${short(low)} to ${short(high)}`,
  });
  bar.style.background = `linear-gradient(90deg, ${page.palette.mapText.join(", ")})`;
  return make(
    "div",
    {},
    bar,
    make("div", {className: "ends"}, make("span", {}, short(low)), make("span", {}, short(high))),
  );
}

function geneLegend(found) {
  const bars = state.genes.map((name, i) => {
    const painted = found.ends[i] ? `; painted ${found.ends[i].map(short).join(" to ")}` : "";
    const ends = `0 to ${short(found.tops[i])}${painted}`;
    const bar = make("div", {className: "ramp", role: "img", "aria-label": `${name}: ${ends}`});
    const colours = state.genes.length === 1 ? page.palette.mapText.join(", ") : `#000, ${page.palette.channels[i]}`;
    bar.style.background = `linear-gradient(90deg, ${colours})`;
    return make("div", {className: "gene"}, make("b", {}, name), bar, make("span", {}, ends));
  });
  if (found.ends.some(Boolean)) {
    const note = "Painted values are predictions from the image, on their own scale.";
    bars.push(make("p", {className: "note"}, note));
  }
  return bars;
}

/** Say why the painted layer is empty, where it is. */
function drawPaintedNote(sections) {
  const note = byId("painted-note");
  const all = [...new Set(sections.flatMap((section) => section.about.painted?.genes || []))];
  const shown = sections.some((section) => section.maps?.length);
  note.hidden = !all.length || shown || !state.layers.painted;
  const some = all.slice(0, 4).join(", ");
  const more = all.length > 4 ? " ..." : "";
  note.textContent = `Painted maps exist for ${all.length} genes: ${some}${more}. Choose one above.`;
}
