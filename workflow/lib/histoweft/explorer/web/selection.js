// Selected points: marked, counted, compared with the others, saved.
"use strict";

/** Mark the selected points: section -> 1 for each selected point, for the sections that the selection concerns. */
async function marked(sections) {
  const {groups, shape} = state.selection || {};
  const marks = new Map();
  for (const section of sections) {
    if (groups) marks.set(section, await inGroups(section, groups));
    // A shape in the joint embedding takes in points of every section.
    if (shape && (section.name === shape[0] || shape[1] === "joint") && section.places[shape[1]]) {
      marks.set(section, new Uint8Array(section.n));
      section.index(shape[1]).inside(shape[2], marks.get(section));
    }
  }
  return marks;
}

async function inGroups(section, [key, names]) {
  const column = await section.column(key);
  if (!column) return new Uint8Array(section.n);
  const wanted = column.about.categories.map((name) => names.includes(name));
  return Uint8Array.from(column.codes, (code) => (wanted[code] ? 1 : 0));
}

function toggleGroup(key, name) {
  const [column, names] = state.selection?.groups || [key, []];
  const kept = column === key ? names : [];
  const next = kept.includes(name) ? kept.filter((other) => other !== name) : [...kept, name];
  state.selection = next.length ? {groups: [key, next]} : null;
  refresh();
}

function clearSelection() {
  state.selection = null;
  refresh();
}

/** Compare the selected with the other points of the sections that the selection concerns: in words, and tables. */
async function summary(sections) {
  const concerned = sections.filter((section) => section.selected);
  const split = concerned.length > 0;
  const counted = split ? concerned : sections;
  const total = counted.reduce((sum, section) => sum + section.n, 0);
  const inside = concerned.reduce((sum, section) => sum + section.selected.reduce((a, b) => a + b, 0), 0);
  const where = concerned.length > 4 ? `${concerned.length} sections` : concerned.map(({name}) => name).join(", ");
  byId("selected").textContent = split
    ? `${whole(inside)} of ${whole(total)} points in ${where}`
    : "Nothing is selected: draw a rectangle or a lasso in any view, or choose groups in the legend.";
  byId("selection-tools").hidden = !split;
  return [await groupTable(counted, split, inside, total), meanTable(counted, split)].filter(Boolean);
}

async function groupTable(sections, split, inside, total) {
  const counts = new Map();
  for (const section of sections) {
    const column = state.by ? await section.column(state.by) : null;
    if (!column) continue;
    column.codes.forEach((code, i) => {
      const name = column.about.categories[code] ?? "none";
      if (!counts.has(name)) counts.set(name, [0, 0]);
      counts.get(name)[section.selected?.[i] ? 0 : 1]++;
    });
  }
  if (!counts.size) return null;
  const first = split ? 0 : 1;
  const rows = [...counts].sort((a, b) => b[1][first] - a[1][first] || b[1][1] - a[1][1]);
  const scheme = page.palette.schemes.get(state.by);
  const heads = split ? ["", "Points", "In, %", "Out, %"] : ["", "Points", "%"];
  const cells = ([name, [into, out]]) =>
    split ? [whole(into), percent(into, inside), percent(out, total - inside)] : [whole(out), percent(out, total)];
  return table(
    page.columnTitle(state.by),
    heads,
    rows.map((row) => [swatched(row[0], scheme.get(row[0])), ...cells(row)]),
  );
}

/** Means of what is shown, for genes and numbers. */
function meanTable(sections, split) {
  const {found} = page;
  if (!["genes", "number"].includes(found.kind)) return null;
  const names = found.kind === "genes" ? state.genes : [page.columnTitle(found.key)];
  const rows = names.map((name, which) => {
    const sums = [0, 0];
    const counts = [0, 0];
    for (const section of sections) {
      const at = reader(found, section, which);
      for (let i = 0; at && i < section.n; i++) {
        const value = at(i);
        if (Number.isNaN(value)) continue;
        const side = section.selected?.[i] ? 0 : 1;
        sums[side] += value;
        counts[side]++;
      }
    }
    const means = sums.map((sum, side) => (counts[side] ? sum / counts[side] : NaN));
    return [make("span", {}, name), ...(split ? [short(means[0]), short(means[1])] : [short(means[1])])];
  });
  const title = found.kind === "genes" ? "Mean expression (log-normalised)" : "Mean";
  return table(title, split ? ["", "Inside", "Outside"] : ["", "All"], rows);
}

/** How to read the shown gene or number of a point; null where the section lacks it. */
function reader(found, section, which) {
  if (found.kind === "genes") {
    const gene = found.genes.get(section)[which];
    return gene && ((i) => gene.bytes[i] * gene.step);
  }
  const column = found.columns.get(section);
  return column && ((i) => column.values[i]);
}

function table(caption, heads, rows) {
  return make(
    "table",
    {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => (head ? make("th", {scope: "col"}, head) : make("td"))))),
    make(
      "tbody",
      {},
      ...rows.map(([name, ...cells]) =>
        make("tr", {}, make("th", {scope: "row"}, name), ...cells.map((cell) => make("td", {}, cell))),
      ),
    ),
  );
}

function swatched(name, colour) {
  const swatch = make("i", {className: "swatch"});
  swatch.style.background = colour || page.study.missing;
  // Long names may break after these letters, and only there.
  const parts = name.split(/(?<=[_/.-])/).flatMap((part) => [part, make("wbr")]);
  return make("span", {className: "named"}, swatch, make("span", {}, ...parts));
}

/** A cell of a table of comma-separated values. */
function quoted(text) {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

async function saveBarcodes() {
  const lines = ["sample,barcode"];
  for (const section of shownSections()) {
    if (!section.selected) continue;
    const barcodes = await section.barcodes();
    section.selected.forEach((mark, i) => mark && lines.push(`${section.name},${quoted(barcodes[i])}`));
  }
  const link = make("a", {
    href: URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], {type: "text/csv"})),
    download: `${page.study.study}_selection.csv`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  tell(`${whole(lines.length - 1)} barcodes saved.`);
}
