// From values to colours: one RGBA per point.
"use strict";

// Opacity of points outside a selection, of 255.
const DIMMED = 45;

function rgb(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

/** The study's colours, read once. */
class Palette {
  constructor(study) {
    this.schemes = new Map(Object.entries(study.schemes).map(([key, pairs]) => [key, new Map(pairs)]));
    this.map = study.map.map(rgb);
    this.mapText = study.map;
    this.channels = study.channels;
    this.tints = study.channels.map(rgb);
    this.missing = rgb(study.missing);
  }

  /** The colour of a share of the way from low to high, between the stops of the map. */
  at(share) {
    const place = Math.min(1, Math.max(0, share)) * (this.map.length - 1);
    const low = Math.floor(place);
    const high = Math.min(low + 1, this.map.length - 1);
    return this.map[low].map((part, i) => part + (this.map[high][i] - part) * (place - low));
  }

  /** 256 colours from low to high. */
  get ramp() {
    this.madeRamp ??= Array.from({length: 256}, (_, i) => this.at(i / 255));
    return this.madeRamp;
  }
}

/** Fill the colours of points from a function that writes one colour: `write(point, out, at)`. */
function filled(section, write) {
  const out = new Uint8Array(4 * section.n);
  const {selected} = section;
  for (let i = 0; i < section.n; i++) {
    write(i, out, 4 * i);
    out[4 * i + 3] = selected && !selected[i] ? DIMMED : 255;
  }
  return out;
}

function put(out, at, colour) {
  out[at] = colour[0];
  out[at + 1] = colour[1];
  out[at + 2] = colour[2];
}

function plainColours(section, palette) {
  return filled(section, (_, out, at) => put(out, at, palette.missing));
}

function groupColours(section, column, key, palette) {
  const scheme = palette.schemes.get(key);
  const colours = column.about.categories.map((name) => rgb(scheme.get(name)));
  const {codes} = column;
  return filled(section, (i, out, at) => put(out, at, colours[codes[i]] || palette.missing));
}

function numberColours(section, column, [low, high], palette) {
  const {values} = column;
  const factor = 255 / (high - low || 1);
  return filled(section, (i, out, at) => {
    const share = Math.min(255, Math.max(0, Math.round((values[i] - low) * factor)));
    put(out, at, Number.isNaN(values[i]) ? palette.missing : palette.ramp[share]);
  });
}

/** One gene by the map; several as light added up, black where nothing is expressed. */
function geneColours(section, genes, tops, palette) {
  if (genes.every((gene) => gene === null)) return plainColours(section, palette);
  if (genes.length === 1) {
    const {bytes, step} = genes[0];
    const factor = (255 * step) / tops[0];
    return filled(section, (i, out, at) => put(out, at, palette.ramp[Math.min(255, Math.round(bytes[i] * factor))]));
  }
  return filled(section, (i, out, at) => {
    genes.forEach((gene, channel) => {
      if (!gene) return;
      const share = Math.min(1, (gene.bytes[i] * gene.step) / tops[channel]);
      const tint = palette.tints[channel];
      for (let part = 0; part < 3; part++) out[at + part] = Math.min(255, out[at + part] + tint[part] * share);
    });
  });
}

/** The 99th percentile of a gene over the points, or its largest value where fewer than 1 % express it. */
function geneTop(gene, n) {
  const counts = new Uint32Array(256);
  for (const byte of gene.bytes) counts[byte]++;
  let left = Math.floor(n * 0.01);
  let byte = 255;
  while (byte > 0 && counts[byte] <= left) left -= counts[byte--];
  return (byte || 255) * gene.step;
}
