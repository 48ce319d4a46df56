// Finding points: the nearest one, and those inside a shape.
"use strict";

/** Buckets of points, so that the nearest one is found without looking at all. */
class Index {
  constructor({x, y}, bounds) {
    this.x = x;
    this.y = y;
    [this.left, this.top] = bounds;
    const width = bounds[2] - bounds[0] || 1;
    const height = bounds[3] - bounds[1] || 1;
    this.side = Math.sqrt((width * height) / Math.max(1, x.length / 4));
    this.columns = Math.floor(width / this.side) + 1;
    this.rows = Math.floor(height / this.side) + 1;
    this.starts = new Uint32Array(this.columns * this.rows + 1);
    const buckets = new Int32Array(x.length);
    for (let i = 0; i < x.length; i++) {
      buckets[i] = Number.isNaN(x[i]) ? -1 : this.bucket(x[i], y[i]);
      if (buckets[i] >= 0) this.starts[buckets[i] + 1]++;
    }
    for (let i = 0; i < this.starts.length - 1; i++) this.starts[i + 1] += this.starts[i];
    const next = this.starts.slice();
    this.points = new Uint32Array(x.length);
    for (let i = 0; i < x.length; i++) if (buckets[i] >= 0) this.points[next[buckets[i]]++] = i;
  }

  cell(value, low, count) {
    return Math.min(count - 1, Math.max(0, Math.floor((value - low) / this.side)));
  }

  bucket(x, y) {
    return this.cell(y, this.top, this.rows) * this.columns + this.cell(x, this.left, this.columns);
  }

  /** Go through the points of all buckets that touch a box. */
  *within(x0, y0, x1, y1) {
    const [c0, c1] = [x0, x1].map((x) => this.cell(x, this.left, this.columns));
    const [r0, r1] = [y0, y1].map((y) => this.cell(y, this.top, this.rows));
    for (let row = r0; row <= r1; row++) {
      const first = this.starts[row * this.columns + c0];
      const last = this.starts[row * this.columns + c1 + 1];
      for (let at = first; at < last; at++) yield this.points[at];
    }
  }

  /** The nearest point within a distance, or -1. */
  nearest(x, y, reach) {
    let best = -1;
    let least = reach * reach;
    for (const i of this.within(x - reach, y - reach, x + reach, y + reach)) {
      const distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      if (distance <= least) [best, least] = [i, distance];
    }
    return best;
  }

  /** Mark the points inside a polygon (x, y, x, y, ...), by the even-odd rule. */
  inside(polygon, marks) {
    const xs = polygon.filter((_, i) => i % 2 === 0);
    const ys = polygon.filter((_, i) => i % 2 === 1);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    for (const i of this.within(...box)) {
      let odd = false;
      for (let a = 0, b = xs.length - 1; a < xs.length; b = a++) {
        if (ys[a] > this.y[i] !== ys[b] > this.y[i]) {
          const crossing = ((xs[b] - xs[a]) * (this.y[i] - ys[a])) / (ys[b] - ys[a]) + xs[a];
          if (this.x[i] < crossing) odd = !odd;
        }
      }
      if (odd) marks[i] = 1;
    }
  }
}
