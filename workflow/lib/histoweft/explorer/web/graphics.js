// Drawing points and painted maps with WebGL 2. One context serves all views (browsers allow about sixteen), each view
// copies its part onto its own canvas.
"use strict";

// Small points are drawn as GL points: without a graphics card thirty times faster than squares of two triangles.
// Large ones, of which few are in view, are squares, as browsers differ in how large a GL point may be.
const LARGEST_POINT = 32;

const DOT_VERTEX = `#version 300 es
in vec2 position;
in vec4 colour;
uniform vec2 centre, scale, drawn;
uniform float size;
out vec4 tint;
void main() {
  tint = colour;
  bool wanted = colour.a >= drawn.x && colour.a <= drawn.y;
  gl_Position = wanted ? vec4((position - centre) * scale, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = size;
}`;

const SQUARE_VERTEX = `#version 300 es
in vec2 corner;
in vec2 position;
in vec4 colour;
uniform vec2 centre, scale, drawn, radius;
out vec2 at;
out vec4 tint;
void main() {
  at = corner;
  tint = colour;
  bool wanted = colour.a >= drawn.x && colour.a <= drawn.y;
  gl_Position = wanted ? vec4((position - centre) * scale + corner * radius, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
}`;

const discFragment = (declared, at) => `#version 300 es
precision mediump float;
${declared}
in vec4 tint;
uniform float opacity, edge, rim;
out vec4 result;
void main() {
  float far = length(${at});
  float alpha = tint.a * opacity * (1.0 - smoothstep(1.0 - edge, 1.0, far));
  vec3 colour = far > 1.0 - rim ? vec3(0.05) : tint.rgb;
  result = vec4(colour * alpha, alpha);
}`;

const MAP_VERTEX = `#version 300 es
in vec2 corner;
uniform vec4 place;
out vec2 at;
void main() {
  at = (corner + 1.0) / 2.0;
  gl_Position = vec4(mix(place.xy, place.zw, at), 0.0, 1.0);
}`;

// A map holds 0 off the tissue, 1 at its low end, 255 at its high end.
const MAP_FRAGMENT = `#version 300 es
precision mediump float;
in vec2 at;
uniform sampler2D first, second, third, ramp;
uniform vec3 tints[3];
uniform vec3 gains, shifts;
uniform int count;
uniform float opacity;
out vec4 result;
vec2 read(sampler2D map, float gain, float shift) {
  float value = texture(map, at).r;
  return vec2(clamp((value * 255.0 - 1.0) / 254.0 * gain + shift, 0.0, 1.0), step(0.5 / 255.0, value));
}
void main() {
  vec2 one = read(first, gains.x, shifts.x);
  vec3 colour = texture(ramp, vec2(one.x, 0.5)).rgb;
  if (count > 1) {
    colour = tints[0] * one.x + tints[1] * read(second, gains.y, shifts.y).x;
    if (count > 2) colour += tints[2] * read(third, gains.z, shifts.z).x;
  }
  float alpha = one.y * opacity;
  result = vec4(min(colour, 1.0) * alpha, alpha);
}`;

class Graphics {
  constructor(map) {
    this.canvas = document.createElement("canvas");
    this.map = map;
    this.held = new Map();
    const gl = this.canvas.getContext("webgl2", {premultipliedAlpha: true, antialias: false});
    if (!gl) throw new Error("This browser offers no WebGL 2, which the explorer draws with.");
    this.gl = gl;
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.held.clear();
      this.few = null;
      this.prepare();
      this.onrestored?.();
    });
    this.prepare();
  }

  prepare() {
    const gl = this.gl;
    this.dots = this.program(DOT_VERTEX, discFragment("", "2.0 * gl_PointCoord - 1.0"));
    this.squares = this.program(SQUARE_VERTEX, discFragment("in vec2 at;", "at"));
    this.largest = Math.min(LARGEST_POINT, gl.getParameter(gl.ALIASED_POINT_SIZE_RANGE)[1] / 2);
    this.maps = this.program(MAP_VERTEX, MAP_FRAGMENT);
    this.corners = this.buffer(new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]));
    this.ramp = this.texture(this.map.length, 1, new Uint8Array(this.map.flat()), gl.RGB8, gl.RGB);
    this.square = gl.createVertexArray();
    gl.bindVertexArray(this.square);
    this.attribute(this.maps, "corner", this.corners, 2, gl.FLOAT, 0);
    gl.bindVertexArray(null);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  program(vertex, fragment) {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, vertex],
      [gl.FRAGMENT_SHADER, fragment],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS))
      throw new Error(gl.getProgramInfoLog(program) || "no program");
    const places = new Map();
    return {
      program,
      at(name) {
        if (!places.has(name)) places.set(name, gl.getUniformLocation(program, name));
        return places.get(name);
      },
    };
  }

  buffer(content) {
    const buffer = this.gl.createBuffer();
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, content, this.gl.DYNAMIC_DRAW);
    return buffer;
  }

  texture(width, height, content, stored, given) {
    const gl = this.gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, stored, width, height, 0, given, gl.UNSIGNED_BYTE, content);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  attribute(program, name, buffer, size, type, divisor) {
    const gl = this.gl;
    const at = gl.getAttribLocation(program.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, type === gl.UNSIGNED_BYTE, 0, 0);
    gl.vertexAttribDivisor(at, divisor);
  }

  /** Make the canvas at least this large, and clear the part that a view will use. */
  begin(width, height) {
    const gl = this.gl;
    if (this.canvas.width < width || this.canvas.height < height) {
      this.canvas.width = Math.max(this.canvas.width, width);
      this.canvas.height = Math.max(this.canvas.height, height);
    }
    gl.viewport(0, 0, width, height); // the lower left corner of the canvas
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  /** The array object of a section's points, its colours brought up to date. */
  dotArray(section, place) {
    const gl = this.gl;
    let held = this.held.get(section);
    if (!held) this.held.set(section, (held = {colours: this.buffer(new Uint8Array(4)), arrays: {}, of: null}));
    if (held.of !== section.colours) {
      gl.bindBuffer(gl.ARRAY_BUFFER, held.colours);
      gl.bufferData(gl.ARRAY_BUFFER, section.colours, gl.DYNAMIC_DRAW);
      held.of = section.colours;
    }
    if (!held.arrays[place]) {
      const {x, y} = section.places[place];
      const both = new Float32Array(2 * x.length);
      for (let i = 0; i < x.length; i++) {
        // A point without a place lies far outside every view.
        both[2 * i] = Number.isNaN(x[i]) ? 1e30 : x[i];
        both[2 * i + 1] = Number.isNaN(y[i]) ? 1e30 : y[i];
      }
      held.arrays[place] = gl.createVertexArray();
      gl.bindVertexArray(held.arrays[place]);
      this.attribute(this.dots, "position", this.buffer(both), 2, gl.FLOAT, 0);
      this.attribute(this.dots, "colour", held.colours, 4, gl.UNSIGNED_BYTE, 0);
    }
    return held.arrays[place];
  }

  /** The array object of the few points in view, and how many they are. */
  squareArray(section, place, camera, width, height, radius) {
    const gl = this.gl;
    const [halfWide, halfHigh] = [(width / 2 + radius) / camera.zoom, (height / 2 + radius) / camera.zoom];
    const box = [camera.x - halfWide, camera.y - halfHigh, camera.x + halfWide, camera.y + halfHigh];
    const {x, y} = section.places[place];
    const positions = [];
    const colours = [];
    for (const i of section.index(place).within(...box)) {
      positions.push(x[i], y[i]);
      colours.push(...section.colours.subarray(4 * i, 4 * i + 4));
    }
    if (!this.few) {
      this.few = {positions: this.buffer(new Float32Array(2)), colours: this.buffer(new Uint8Array(4))};
      this.few.array = gl.createVertexArray();
      gl.bindVertexArray(this.few.array);
      this.attribute(this.squares, "corner", this.corners, 2, gl.FLOAT, 0);
      this.attribute(this.squares, "position", this.few.positions, 2, gl.FLOAT, 1);
      this.attribute(this.squares, "colour", this.few.colours, 4, gl.UNSIGNED_BYTE, 1);
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.few.positions);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(positions), gl.DYNAMIC_DRAW);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.few.colours);
    gl.bufferData(gl.ARRAY_BUFFER, new Uint8Array(colours), gl.DYNAMIC_DRAW);
    return [this.few.array, positions.length / 2];
  }

  /** Draw a section's points. `camera`: x, y of the centre, zoom in device pixels a unit; radius in device pixels. */
  drawPoints(section, place, camera, width, height, radius, opacity) {
    const gl = this.gl;
    // Selected points come last, small ones larger than they are, and with a rim: so a few among many are seen.
    const larger = radius + Math.min(0.3 * radius, 3) + 1;
    const passes = section.selected
      ? [
          [0, 0.5, radius, 0],
          [0.5, 1, larger, Math.min(0.25, 3 / larger)],
        ]
      : [[0, 1, radius, 0]];
    const small = passes.at(-1)[2] <= this.largest;
    const {at, program} = small ? this.dots : this.squares;
    const [array, count] = small
      ? [this.dotArray(section, place), section.n]
      : this.squareArray(section, place, camera, width, height, passes.at(-1)[2]);
    gl.useProgram(program);
    gl.bindVertexArray(array);
    gl.uniform2f(at("centre"), camera.x, camera.y);
    gl.uniform2f(at("scale"), (2 * camera.zoom) / width, (-2 * camera.zoom) / height);
    gl.uniform1f(at("opacity"), opacity);
    for (const [least, most, size, rim] of passes) {
      gl.uniform2f(at("drawn"), least, most);
      gl.uniform1f(at("edge"), Math.min(0.5, 1.2 / size));
      gl.uniform1f(at("rim"), rim);
      if (small) {
        gl.uniform1f(at("size"), 2 * size);
        gl.drawArrays(gl.POINTS, 0, count);
      } else {
        gl.uniform2f(at("radius"), (2 * size) / width, (2 * size) / height);
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
      }
    }
    gl.bindVertexArray(null);
  }

  /** Draw up to three painted maps over each other. `box`: their corners in clip coordinates, upper left first. */
  drawMaps(maps, box, opacity) {
    const gl = this.gl;
    const {at, program} = this.maps;
    gl.useProgram(program);
    gl.bindVertexArray(this.square);
    ["first", "second", "third"].forEach((name, index) => {
      gl.activeTexture(gl.TEXTURE0 + index);
      gl.bindTexture(gl.TEXTURE_2D, this.picture((maps[index] || maps[0]).bitmap));
      gl.uniform1i(at(name), index);
    });
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, this.ramp);
    gl.uniform1i(at("ramp"), 3);
    gl.uniform4f(at("place"), ...box);
    gl.uniform3fv(
      at("tints"),
      [0, 1, 2].flatMap((i) => (maps[i] || maps[0]).tint.map((part) => part / 255)),
    );
    gl.uniform3fv(
      at("gains"),
      [0, 1, 2].map((i) => (maps[i] || maps[0]).gain),
    );
    gl.uniform3fv(
      at("shifts"),
      [0, 1, 2].map((i) => (maps[i] || maps[0]).shift),
    );
    gl.uniform1i(at("count"), maps.length);
    gl.uniform1f(at("opacity"), opacity);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.activeTexture(gl.TEXTURE0);
  }

  picture(bitmap) {
    if (!this.held.has(bitmap)) {
      this.held.set(bitmap, this.texture(bitmap.width, bitmap.height, bitmap, this.gl.R8, this.gl.RED));
    }
    return this.held.get(bitmap);
  }
}
