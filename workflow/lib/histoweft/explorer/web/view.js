// One view: a section's tissue or embedding, with pan, zoom, selection and what lies under the pointer.
"use strict";

const ZOOM_STEP = 1.25;
const MOST_ENLARGED = 400;
// Milliseconds without movement after which a view counts as at rest, and a frame longer than which is slow.
const REST = 120;
const SLOW_FRAME = 30;
// Device pixels drawn beyond the edges: room for half points, and for moving without drawing anew.
const MARGIN = 160;

const PLACES = {tissue: "Tissue", umap: "UMAP", joint: "Joint UMAP"};

/** The 1, 2 or 5 times a power of ten nearest to a length. */
function niceLength(target) {
  const power = 10 ** Math.floor(Math.log10(target));
  const choices = [1, 2, 5, 10].map((factor) => factor * power);
  return choices.reduce((a, b) => (Math.abs(Math.log(a / target)) <= Math.abs(Math.log(b / target)) ? a : b));
}

function sayLength(um) {
  if (um >= 1000) return `${+(um / 1000).toPrecision(3)} mm`;
  return um >= 1 ? `${+um.toPrecision(3)} µm` : `${+(um * 1000).toPrecision(3)} nm`;
}

class View {
  /** `host`: what the page gives all views: graphics, layers(), tool(), and what to do when something happens. */
  constructor(section, place, bounds, host) {
    this.section = section;
    this.place = place;
    this.bounds = bounds;
    this.host = host;
    this.camera = null; // null: the whole section
    this.drag = null;
    this.pointers = new Map();
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute(
      "aria-label",
      `${PLACES[place]} of ${section.name}, ${section.n} points. Arrows move, plus and minus zoom, 0 shows all of it.`,
    );
    this.listen();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.canvas);
  }

  close() {
    this.observer.disconnect();
  }

  resize() {
    this.ratio = window.devicePixelRatio || 1;
    const {clientWidth, clientHeight} = this.canvas;
    const width = Math.max(1, Math.round(clientWidth * this.ratio));
    const height = Math.max(1, Math.round(clientHeight * this.ratio));
    if (width === this.canvas.width && height === this.canvas.height && this.sized) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.sized = true;
    this.ask();
  }

  /** Draw at the next frame; `same` where points and maps have not changed, so that their picture can be used again. */
  ask(same = false) {
    if (!same) this.kept = null;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame((time) => {
      this.asked = false;
      if (this.canvas.isConnected && this.section.places && this.section.colours) this.draw(time);
    });
  }

  /** The camera in use: x, y of the centre and the width shown, all in the section's units. */
  get shown() {
    if (this.camera) return this.camera;
    const [x0, y0, x1, y1] = this.bounds;
    const margin = this.place === "tissue" ? (this.section.about.diameter || 0) / 2 : 0;
    const [wide, high] = [(x1 - x0 + 2 * margin) * 1.06 || 1, (y1 - y0 + 2 * margin) * 1.06 || 1];
    const width = Math.max(wide, (high * this.canvas.width) / this.canvas.height);
    return {x: (x0 + x1) / 2, y: (y0 + y1) / 2, width};
  }

  /** Device pixels a unit. */
  get zoom() {
    return this.canvas.width / this.shown.width;
  }

  toUnits(event) {
    const box = this.canvas.getBoundingClientRect();
    const {x, y} = this.shown;
    return [
      x + ((event.clientX - box.left) * this.ratio - this.canvas.width / 2) / this.zoom,
      y + ((event.clientY - box.top) * this.ratio - this.canvas.height / 2) / this.zoom,
    ];
  }

  toPixels(x, y) {
    const {x: cx, y: cy} = this.shown;
    return [(x - cx) * this.zoom + this.canvas.width / 2, (y - cy) * this.zoom + this.canvas.height / 2];
  }

  look(camera) {
    this.camera = camera;
    this.moving = true;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.moving = false;
      this.ask(true);
    }, REST);
    this.ask(true);
    this.host.onmove(this);
  }

  moveBy(dx, dy) {
    const {x, y, width} = this.shown;
    this.look({x: x - dx / this.zoom, y: y - dy / this.zoom, width});
  }

  /** Zoom by a factor, the point (in units) staying where it is. */
  zoomBy(factor, [px, py]) {
    const {x, y, width} = this.shown;
    const span = Math.max(this.bounds[2] - this.bounds[0], this.bounds[3] - this.bounds[1]) || 1;
    const next = Math.min(span * 20, Math.max(span / MOST_ENLARGED, width / factor));
    const kept = next / width;
    this.look({x: px + (x - px) * kept, y: py + (y - py) * kept, width: next});
  }

  // ---------------------------------------------------------------------------------------------------- drawing

  draw(time) {
    const context = this.canvas.getContext("2d");
    const {width, height} = this.canvas;
    const layers = this.host.layers();
    const ground = layers.composite ? "#000" : getComputedStyle(this.canvas).backgroundColor;
    context.fillStyle = ground;
    context.fillRect(0, 0, width, height);
    if (this.place === "tissue" && this.section.about.image && layers.image > 0) {
      this.drawImage(context);
      // Levels lie over each other, so what fades them lies over all.
      context.globalAlpha = 1 - layers.image;
      context.fillRect(0, 0, width, height);
      context.globalAlpha = 1;
    }
    this.drawGraphics(context, layers, time);
    if (this.drag?.polygon) this.drawShape(context, this.drag.polygon);
    if (this.hover >= 0) this.drawRing(context);
    if (this.place === "tissue" && this.section.about.unit === "um") this.drawScale(context);
    this.host.ondrawn(this);
  }

  /** The coarsest level at once, the level that fits the zoom over it as its tiles come. */
  drawImage(context) {
    const {levels, step} = this.section.about.image;
    const finest = Math.floor(Math.log2(1 / (this.zoom * step)));
    const level = Math.min(levels.length - 1, Math.max(0, finest));
    this.drawLevel(context, levels.length - 1);
    if (level < levels.length - 1) this.drawLevel(context, level);
  }

  drawLevel(context, level) {
    const {levels, tile, step} = this.section.about.image;
    const [wide, high] = levels[level];
    const unit = (levels[0][0] * step) / wide;
    const {x, y} = this.shown;
    const half = [this.canvas.width / this.zoom / 2, this.canvas.height / this.zoom / 2];
    const last = [Math.ceil(wide / tile) - 1, Math.ceil(high / tile) - 1];
    const from = [(x - half[0]) / unit / tile, (y - half[1]) / unit / tile].map((v) => Math.max(0, Math.floor(v)));
    const to = [(x + half[0]) / unit / tile, (y + half[1]) / unit / tile].map((v, i) =>
      Math.min(last[i], Math.floor(v)),
    );
    for (let row = from[1]; row <= to[1]; row++) {
      for (let column = from[0]; column <= to[0]; column++) {
        const image = this.section.tile(level, row, column, () => this.ask(true));
        if (!image) continue;
        const start = this.toPixels(column * tile * unit, row * tile * unit).map(Math.round);
        const end = this.toPixels(
          (column * tile + image.naturalWidth) * unit,
          (row * tile + image.naturalHeight) * unit,
        ).map(Math.round);
        context.drawImage(image, ...start, end[0] - start[0], end[1] - start[1]);
      }
    }
  }

  /** Put points and maps on the canvas: drawn anew, or as they were, moved, while moving where drawing is slow. */
  drawGraphics(context, layers, time) {
    if (!this.reusable()) {
      this.render(layers);
      requestAnimationFrame((next) => (this.slow = next - time > SLOW_FRAME));
    }
    const {canvas, zoom, left, top} = this.kept;
    const scale = this.zoom / zoom;
    context.drawImage(canvas, ...this.toPixels(left, top), canvas.width * scale, canvas.height * scale);
  }

  /** Whether the picture of points and maps can be shown again. */
  reusable() {
    if (!this.kept) return false;
    const {canvas, zoom, left, top} = this.kept;
    const scale = this.zoom / zoom;
    const [x, y] = this.toPixels(left, top);
    const still = scale === 1 && Math.abs(x + MARGIN) < 0.01 && Math.abs(y + MARGIN) < 0.01;
    const covers =
      x <= 0 &&
      y <= 0 &&
      x + canvas.width * scale >= this.canvas.width &&
      y + canvas.height * scale >= this.canvas.height;
    return still || (this.moving && this.slow && covers && scale < 2);
  }

  /** Draw points and maps into a picture of their own, with a margin. */
  render(layers) {
    const {graphics} = this.host;
    const [width, height] = [this.canvas.width + 2 * MARGIN, this.canvas.height + 2 * MARGIN];
    graphics.begin(width, height);
    const maps = this.place === "tissue" && layers.painted > 0 ? this.section.maps || [] : [];
    if (maps.length) {
      const {origin, size, step} = this.section.about.painted;
      const toClip = (x, y) => {
        const [across, down] = this.toPixels(x, y);
        return [(2 * (across + MARGIN)) / width - 1, 1 - (2 * (down + MARGIN)) / height];
      };
      const box = [...toClip(...origin), ...toClip(origin[0] + size[0] * step, origin[1] + size[1] * step)];
      graphics.drawMaps(maps, box, layers.painted);
    }
    // The slider is there to see the tissue under the points; in an embedding there is nothing under them.
    const opacity = this.place === "tissue" ? layers.points : 0.9;
    const {x, y} = this.shown;
    if (opacity > 0) {
      const camera = {x, y, zoom: this.zoom};
      graphics.drawPoints(this.section, this.place, camera, width, height, this.radius(layers.size), opacity);
    }
    const canvas = (this.picture ??= document.createElement("canvas"));
    [canvas.width, canvas.height] = [width, height]; // clears it, too
    canvas.getContext("2d").drawImage(graphics.canvas, 0, height - graphics.canvas.height);
    this.kept = {canvas, zoom: this.zoom, left: x - width / 2 / this.zoom, top: y - height / 2 / this.zoom};
  }

  /** Radius of a point in device pixels: true to size on the tissue if that can be seen; what fits in an embedding. */
  radius(size) {
    const crowd = (Math.sqrt((this.canvas.width * this.canvas.height) / this.section.n) / 5 / this.ratio) * size;
    const least = Math.min(2, Math.max(0.8, crowd)) * this.ratio;
    if (this.place === "tissue") return Math.max(least, (this.section.about.diameter * this.zoom * size) / 2);
    return Math.min(4 * size, Math.max(1.3, crowd)) * this.ratio;
  }

  // Dark on a light rim: seen on any ground.
  outline(context) {
    context.lineWidth = 3 * this.ratio;
    context.strokeStyle = "#fff";
    context.stroke();
    context.lineWidth = 1.5 * this.ratio;
    context.strokeStyle = "#111";
    context.stroke();
  }

  drawShape(context, polygon) {
    context.beginPath();
    for (let i = 0; i < polygon.length; i += 2) context.lineTo(...this.toPixels(polygon[i], polygon[i + 1]));
    context.closePath();
    this.outline(context);
  }

  drawRing(context) {
    const {x, y} = this.section.places[this.place];
    context.beginPath();
    const radius = Math.max(4 * this.ratio, this.radius(this.host.layers().size) + this.ratio);
    context.arc(...this.toPixels(x[this.hover], y[this.hover]), radius, 0, 2 * Math.PI);
    this.outline(context);
  }

  drawScale(context) {
    const um = niceLength(this.shown.width / 6);
    const length = um * this.zoom;
    const unit = this.ratio;
    const [left, bottom] = [12 * unit, this.canvas.height - 12 * unit];
    context.font = `600 ${12 * unit}px system-ui, sans-serif`;
    const text = sayLength(um);
    const wide = Math.max(length, context.measureText(text).width);
    context.fillStyle = "rgb(255 255 255 / 88%)";
    context.fillRect(left - 6 * unit, bottom - 24 * unit, wide + 12 * unit, 31 * unit);
    context.fillStyle = "#111";
    context.fillRect(left, bottom - 2 * unit, length, 4 * unit);
    context.fillText(text, left, bottom - 8 * unit);
  }

  // ------------------------------------------------------------------------------------------------ interaction

  listen() {
    const {canvas} = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.slide(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => this.point(-1));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const lines = event.deltaMode === 1 ? 16 : 1;
        this.zoomBy(Math.exp(-event.deltaY * lines * 0.0015), this.toUnits(event));
      },
      {passive: false},
    );
  }

  press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size > 1) {
      this.drag = null;
      return;
    }
    const tool = event.shiftKey ? "box" : this.host.tool();
    const start = this.toUnits(event);
    this.drag = {tool, start, last: [event.clientX, event.clientY], polygon: tool === "pan" ? null : [...start]};
  }

  slide(event) {
    if (this.pointers.size > 1) return this.pinch(event);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (!this.drag) return this.point(this.under(event), event);
    const {tool, last, start} = this.drag;
    if (tool === "pan") {
      this.moveBy((event.clientX - last[0]) * this.ratio, (event.clientY - last[1]) * this.ratio);
    } else {
      const [x, y] = this.toUnits(event);
      if (tool === "lasso") this.drag.polygon.push(x, y);
      else this.drag.polygon = [start[0], start[1], x, start[1], x, y, start[0], y];
      this.ask(true);
    }
    this.drag.last = [event.clientX, event.clientY];
  }

  pinch(event) {
    const before = [...this.pointers.values()];
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = [...this.pointers.values()];
    const middle = (pair) => [(pair[0][0] + pair[1][0]) / 2, (pair[0][1] + pair[1][1]) / 2];
    const apart = (pair) => Math.hypot(pair[0][0] - pair[1][0], pair[0][1] - pair[1][1]) || 1;
    const [from, to] = [middle(before), middle(after)];
    this.moveBy((to[0] - from[0]) * this.ratio, (to[1] - from[1]) * this.ratio);
    this.zoomBy(apart(after) / apart(before), this.toUnits({clientX: to[0], clientY: to[1]}));
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    const {drag} = this;
    this.drag = null;
    if (!drag?.polygon) return;
    this.ask(true);
    if (event.type === "pointercancel") return;
    // A click is not a shape.
    if (drag.polygon.length >= 6) this.host.onselect(this, thinned(drag.polygon, 120));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = 0.1 * this.canvas.width;
    const {x, y} = this.shown;
    const actions = {
      ArrowLeft: () => this.moveBy(far, 0),
      ArrowRight: () => this.moveBy(-far, 0),
      ArrowUp: () => this.moveBy(0, far),
      ArrowDown: () => this.moveBy(0, -far),
      "+": () => this.zoomBy(ZOOM_STEP, [x, y]),
      "=": () => this.zoomBy(ZOOM_STEP, [x, y]),
      "-": () => this.zoomBy(1 / ZOOM_STEP, [x, y]),
      0: () => this.look(null),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** The point under the pointer, or -1. */
  under(event) {
    if (!this.section.places) return -1;
    const reach = Math.max(6 * this.ratio, this.radius(this.host.layers().size)) / this.zoom;
    return this.section.index(this.place).nearest(...this.toUnits(event), reach);
  }

  point(number, event) {
    this.host.onhover(this, number, event);
  }

  /** Show a ring around a point, -1 for none. */
  ring(number) {
    if ((this.hover ?? -1) === number) return;
    this.hover = number;
    this.ask(true);
  }
}

/** A polygon of at most so many corners. */
function thinned(polygon, most) {
  const corners = polygon.length / 2;
  const every = Math.ceil(corners / most);
  return polygon.filter((_, i) => Math.floor(i / 2) % every === 0);
}
