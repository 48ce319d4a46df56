// The controls beside and above the views.
"use strict";

function fillSelect(select, options, value, onchange) {
  let group = null;
  for (const [key, title, under] of options) {
    if (under && group?.label !== under) select.append((group = make("optgroup", {label: under})));
    (under ? group : select).append(make("option", {value: key}, title));
  }
  select.value = value;
  select.addEventListener("change", () => onchange(select.value));
}

function buildControls() {
  const options = page.columns.map((column) => [column.key, column.title, column.heading]);
  fillSelect(byId("column"), [["", "Gene"], ...options], state.column, (key) => {
    if (!key) return byId("search").focus();
    state.genes = [];
    state.column = key;
    if (page.columns.find((column) => column.key === key).kind === "category") state.by = key;
    apply();
  });
  const groups = page.columns.filter((column) => column.kind === "category");
  fillSelect(
    byId("by"),
    groups.map((column) => [column.key, column.title, column.heading]),
    state.by,
    (key) => {
      state.by = key;
      refresh();
    },
  );
  const offered = (places) => places.every((place) => page.sections.some((section) => section.about.bounds[place]));
  const layouts = Object.entries(LAYOUTS).filter(([, layout]) => offered(layout.places));
  fillSelect(
    byId("layout"),
    layouts.map(([key, layout]) => [key, layout.title]),
    state.layout,
    (key) => {
      state.layout = key;
      apply(true);
    },
  );
  const across = ["auto", "1", "2", "3", "4", "6"];
  fillSelect(
    byId("across"),
    across.map((key) => [key, key === "auto" ? "automatic" : key]),
    "auto",
    (key) => {
      state.across = key;
      apply(true);
    },
  );
  buildSections();
  buildLayers();
  buildSearch();
  buildTools();
}

function buildSections() {
  for (const section of page.sections) {
    const box = make("input", {type: "checkbox", value: section.name});
    box.addEventListener("change", () => {
      const boxes = [...byId("sections").querySelectorAll("input")];
      state.sections = boxes.filter((other) => other.checked).map((other) => other.value);
      apply(true);
    });
    byId("sections").append(make("label", {className: "check"}, box, make("span", {}, section.name)));
  }
}

function buildLayers() {
  const has = {
    image: page.sections.some((section) => section.about.image),
    painted: page.sections.some((section) => section.about.painted),
    points: true,
    size: true,
  };
  for (const [name, layer] of Object.entries(LAYERS)) {
    if (!has[name]) continue;
    const range = make("input", {type: "range", min: layer.least, max: layer.most, id: `layer-${name}`});
    const value = make("output", {for: range.id});
    range.addEventListener("input", () => {
      state.layers[name] = Number(range.value);
      value.textContent = `${range.value} %`;
      page.views.forEach((view) => view.ask());
      drawPaintedNote(shownSections());
      remember();
    });
    byId("layers").append(
      make("div", {className: "slider"}, make("label", {for: range.id}, layer.title), range, value),
    );
  }
}

function buildTools() {
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => useTool(button.dataset.tool));
  }
  byId("fit").addEventListener("click", () => page.views.forEach((view) => view.look(null)));
  byId("share").addEventListener("click", share);
  byId("clear").addEventListener("click", clearSelection);
  byId("save").addEventListener("click", saveBarcodes);
  byId("overlay").addEventListener("change", () => {
    if (byId("overlay").checked) return;
    state.genes = state.genes.slice(0, 1);
    apply();
  });
  byId("help").addEventListener("click", () => {
    byId("keys").hidden = !byId("keys").hidden;
    byId("help").setAttribute("aria-expanded", String(!byId("keys").hidden));
  });
  buildTheme();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], select")) return;
    const tools = {1: "pan", 2: "box", 3: "lasso"};
    if (tools[event.key]) useTool(tools[event.key]);
    else if (event.key === "Escape" && state.selection) clearSelection();
    else if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
    }
  });
}

function useTool(name) {
  page.tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  byId("views").dataset.tool = name;
}

function buildTheme() {
  const themes = ["system", "light", "dark"];
  let at = 0;
  try {
    at = Math.max(0, themes.indexOf(localStorage.getItem("explorer-theme")));
  } catch {
    // No storage for pages from disk here: the theme lasts as long as the page.
  }
  const use = () => {
    document.documentElement.dataset.theme = themes[at];
    byId("theme").textContent = `Theme: ${themes[at]}`;
    byId("theme").setAttribute("aria-label", `Theme: ${themes[at]}`);
    page.views.forEach((view) => view.ask());
  };
  byId("theme").addEventListener("click", () => {
    at = (at + 1) % themes.length;
    try {
      localStorage.setItem("explorer-theme", themes[at]);
    } catch {
      // As above.
    }
    use();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", use);
  use();
}

async function share() {
  written = address();
  const link = new URL(`#${written}`, location.href).href;
  location.replace(link);
  try {
    await navigator.clipboard.writeText(link);
    tell("The address of this view is copied.");
  } catch {
    tell("The address bar holds the address of this view: copy it from there.");
  }
}
