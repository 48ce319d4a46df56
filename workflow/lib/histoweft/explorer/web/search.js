// Searching genes, and the genes chosen.
"use strict";

/** Names that begin with the text, then names that hold it; painted ones first where nothing is typed. */
function suggestions(text) {
  const wanted = text.trim().toLowerCase();
  const names = [...page.genes.keys()];
  if (!wanted) return names.filter((name) => page.genes.get(name)).slice(0, SUGGESTIONS);
  const found = {0: [], 1: [], 2: []};
  for (const name of names) {
    const at = name.toLowerCase().indexOf(wanted);
    if (at >= 0) found[at > 0 ? 2 : name.length === wanted.length ? 0 : 1].push(name);
  }
  const shortFirst = (names) => names.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  return [found[0], found[1], found[2]].flatMap(shortFirst).slice(0, SUGGESTIONS);
}

/** Gather the genes of the sections shown: name -> whether it is painted. */
async function readGenes() {
  const sections = shownSections();
  const of = String(sections.map((section) => section.name));
  if (page.genesOf === of) return;
  const genes = new Map();
  for (const section of sections) {
    const painted = new Set(section.about.painted?.genes);
    for (const name of (await section.geneList()).names) genes.set(name, genes.get(name) || painted.has(name));
  }
  page.genes = genes;
  page.genesOf = of;
}

function buildSearch() {
  const input = byId("search");
  const list = byId("suggestions");
  let active = -1;
  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (next) => {
    const items = [...list.children];
    active = items.length ? (next + items.length) % items.length : -1;
    items.forEach((item, i) => item.setAttribute("aria-selected", String(i === active)));
    if (active >= 0) {
      input.setAttribute("aria-activedescendant", items[active].id);
      items[active].scrollIntoView({block: "nearest"});
    }
  };
  const choose = (name) => {
    input.value = "";
    close();
    addGene(name);
  };
  const open = async () => {
    await readGenes();
    const names = suggestions(input.value);
    list.replaceChildren(
      ...names.map((name, i) => {
        const note = page.genes.get(name) ? [make("small", {}, "painted")] : [];
        const item = make(
          "li",
          {id: `gene-${i}`, role: "option", "aria-selected": "false"},
          make("span", {}, name),
          ...note,
        );
        item.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          choose(name);
        });
        return item;
      }),
    );
    active = -1;
    list.hidden = !names.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    tell(input.value.trim() && !names.length ? `No gene on offer is called ${input.value.trim()}.` : "");
  };
  input.addEventListener("input", open);
  input.addEventListener("focus", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      mark(event.key === "ArrowDown" ? active + 1 : Math.max(active, 0) - 1);
    } else if (event.key === "Escape") {
      close();
    } else if (event.key === "Enter" && input.value.trim()) {
      await readGenes();
      const name = list.children[active]?.firstChild.textContent ?? suggestions(input.value)[0];
      if (name) choose(name);
    }
  });
}

function addGene(name) {
  const others = byId("overlay").checked ? state.genes.filter((other) => other !== name) : [];
  state.genes = [...others, name].slice(-MOST_GENES);
  apply();
}

function drawChips() {
  byId("genes").replaceChildren(
    ...state.genes.map((name, i) => {
      const button = make("button", {type: "button", "aria-label": `Remove ${name}`}, "×");
      button.addEventListener("click", () => {
        state.genes = state.genes.filter((other) => other !== name);
        apply();
        byId("search").focus();
      });
      const chip = make("li", {}, make("span", {}, name), button);
      if (state.genes.length > 1) chip.style.borderColor = page.palette.channels[i];
      return chip;
    }),
  );
}
