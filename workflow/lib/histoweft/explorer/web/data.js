// Reading what the workflow wrote. A page opened from disk may not fetch files, but it may load scripts: each piece of
// data is a script that calls `explorerData`.
"use strict";

const MISSING = {uint8: 0xff, uint16: 0xffff};
const GENES_KEPT = 96;
const waiting = new Map();

function explorerData(key, value) {
  waiting.get(key)?.resolve(value);
}

/** Load one piece of data: "study" or "<sample>/<piece>". */
function load(key) {
  const known = waiting.get(key);
  if (known) return known.promise;
  const entry = {};
  entry.promise = new Promise((resolve, reject) => {
    entry.resolve = resolve;
    const script = document.createElement("script");
    script.src = `data/${key.split("/").map(encodeURIComponent).join("/")}.js`;
    script.onload = () => {
      script.remove();
      reject(new Error(`${script.src} did not hand over ${key}`)); // without effect when it did
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${script.src} is not there or cannot be read`));
    };
    document.head.append(script);
  });
  waiting.set(key, entry);
  const forget = () => waiting.delete(key);
  entry.promise.then(forget, forget);
  return entry.promise;
}

/** Unpack an array: text to bytes, bytes decompressed, seen as numbers. */
async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const kind = {uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array}[packed.type];
  return new kind(buffer);
}

async function unpackText(packed) {
  return new TextDecoder().decode(await unpack(packed)).split("\n");
}

/** Numbers from their 16 bits; NaN where missing. */
function spread(codes, low, high) {
  const step = (high - low) / 65534;
  return Float32Array.from(codes, (code) => (code === MISSING.uint16 ? NaN : low + code * step));
}

/** Remember what a function returned for a key, the promise too; forget it when it failed. */
function remembered(store, key, make) {
  if (!store.has(key)) {
    const made = make();
    store.set(key, made);
    made.catch(() => store.delete(key));
  }
  return store.get(key);
}

/** One sample: what the study's manifest says of it (`about`), and its data as they are asked for. */
class Section {
  constructor(about) {
    this.about = about;
    this.name = about.name;
    this.n = about.points;
    this.columns = new Map(about.columns.map((column) => [`${column.heading}: ${column.title}`, column]));
    this.kept = new Map();
    this.genesKept = new Map();
    this.tiles = new Map();
    this.places = null; // name -> {x, y}, when loaded
    this.geneAt = null; // gene -> its number, when loaded
    this.colours = null; // 4 bytes a point
    this.selected = null; // 1 for each selected point, or null
  }

  /** Where the points lie, in tissue, umap and joint. */
  points() {
    return remembered(this.kept, "points", async () => {
      const content = await load(`${this.name}/points`);
      const places = {};
      for (const [name, bounds] of Object.entries(this.about.bounds)) {
        if (!bounds) continue;
        const [x, y] = await Promise.all([unpack(content[name].x), unpack(content[name].y)]);
        places[name] = {x: spread(x, bounds[0], bounds[2]), y: spread(y, bounds[1], bounds[3])};
      }
      this.places = places;
      return places;
    });
  }

  /** The index of one place, for finding points. */
  index(place) {
    this.indices ??= {};
    this.indices[place] ??= new Index(this.places[place], this.about.bounds[place]);
    return this.indices[place];
  }

  barcodes() {
    return remembered(this.kept, "barcodes", async () => unpackText(await load(`${this.name}/barcodes`)));
  }

  /** The genes on offer: their names and largest values. */
  geneList() {
    return remembered(this.kept, "genes", async () => {
      const content = await load(`${this.name}/genes`);
      const names = await unpackText(content.names);
      this.geneAt = new Map(names.map((name, number) => [name, number]));
      return {names, tops: await unpack(content.tops)};
    });
  }

  /** A column: {about, codes} for groups, {about, values} for numbers; null where this section has none. */
  async column(key) {
    const about = this.columns.get(key);
    if (!about) return null;
    return remembered(this.kept, about.file, async () => {
      const codes = await unpack((await load(`${this.name}/${about.file}`)).codes);
      return about.kind === "category" ? {about, codes} : {about, values: spread(codes, about.low, about.high)};
    });
  }

  /** A gene: {bytes, step}, expression being bytes x step; null where it was not measured or is not on offer. */
  async gene(name) {
    const {tops} = await this.geneList();
    const number = this.geneAt.get(name);
    if (number === undefined) return null;
    const found = remembered(this.genesKept, name, async () => {
      const each = this.about.genes.per_file;
      const file = await unpack(await load(`${this.name}/genes-${Math.floor(number / each)}`));
      const start = (number % each) * this.n;
      return {bytes: file.slice(start, start + this.n), step: tops[number] / 255};
    });
    // The gene asked for last is the one forgotten last.
    this.genesKept.delete(name);
    this.genesKept.set(name, found);
    if (this.genesKept.size > GENES_KEPT) this.genesKept.delete(this.genesKept.keys().next().value);
    return found;
  }

  /** A painted gene as a picture that graphics can take: {bitmap, ends}; null where it was not painted. */
  async painted(name) {
    const number = this.about.painted ? this.about.painted.genes.indexOf(name) : -1;
    if (number < 0) return null;
    return remembered(this.kept, `painted ${name}`, async () => {
      const {png} = await load(`${this.name}/painted-${number}`);
      const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes], {type: "image/png"}));
      return {bitmap, ends: this.about.painted.ends[number]};
    });
  }

  /** A tile of the H&E, or null until it is there; `ready` is called when it comes. */
  tile(level, row, column, ready) {
    const key = `${level}/${row}_${column}`;
    let image = this.tiles.get(key);
    if (image) {
      this.tiles.delete(key);
    } else {
      image = new Image();
      image.onload = ready;
      image.src = `data/${encodeURIComponent(this.name)}/tiles/${key}.jpg`;
    }
    this.tiles.set(key, image);
    if (this.tiles.size > 400) this.tiles.delete(this.tiles.keys().next().value);
    return image.complete && image.naturalWidth ? image : null;
  }
}
