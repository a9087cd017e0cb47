"use strict";
// Pairs of points on a slide and in a CT: set, moved, named, undone, jumped to; the server fits, cuts, warps and saves.
const byId = (id) => document.getElementById(id);
const COLOUR = "#ffd23d", OFF = "#ff5a45", MARK_PX = 7;
let facts, pairs = [], half = null, past = [], fit = null, chosen = -1, saved = true, number = 1;

// ---- talking to the server
async function ask(name, body) {
  const reply = await fetch(name, body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  const value = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
  if (!reply.ok) throw new Error(value.error || `the server answered ${reply.status}`);
  return value;
}

async function picture(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

function say(text, fault = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("fault", fault);
}

// ---- a view: pictures placed in coordinates of the image, (x, y) px, turned, zoomed and moved
class View {
  constructor(canvas, setPoint) {
    Object.assign(this, { canvas, setPoint, layers: [], zoom: 1, centre: [0, 0], turns: 0, mirrored: false, size: [1, 1] });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const before = this.toImage(this.where(event));
      this.zoom *= Math.exp(-event.deltaY * 0.0015);
      const after = this.toImage(this.where(event));
      this.centre = this.centre.map((c, i) => c + before[i] - after[i]);
      this.moved();
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  matrix() {
    const turn = (this.turns * Math.PI) / 2, flip = this.mirrored ? -1 : 1;
    const [a, b] = [Math.cos(turn) * this.zoom, Math.sin(turn) * this.zoom];
    const [m, n, o, p] = [a * flip, b * flip, -b, a];
    const [w, h] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2], [x, y] = this.centre;
    return new DOMMatrix([m, n, o, p, w - m * x - o * y, h - n * x - p * y]);
  }

  toScreen([x, y]) {
    const at = this.matrix().transformPoint({ x, y });
    return [at.x, at.y];
  }

  toImage([x, y]) {
    const at = this.matrix().inverse().transformPoint({ x, y });
    return [at.x, at.y];
  }

  whole() {
    const [w, h] = this.turns % 2 ? [...this.size].reverse() : this.size;
    this.zoom = 0.96 * Math.min(this.canvas.clientWidth / w, this.canvas.clientHeight / h);
    this.centre = this.size.map((n) => n / 2 - 0.5);
    this.moved();
  }

  moved() {
    this.draw();
    if (this.onMoved) this.onMoved();
  }

  // A press that does not move sets a point; one on a point drags it; any other moves the picture.
  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    const start = this.where(event), centre = this.centre, from = this.toImage(start);
    const held = pairs.findIndex((pair) => this.marked(pair) && Math.hypot(...this.toScreen(this.marked(pair)).map((v, i) => v - start[i])) < MARK_PX + 3);
    let far = false;
    const move = (next) => {
      const at = this.where(next);
      far ||= Math.hypot(at[0] - start[0], at[1] - start[1]) > 4;
      if (!far) return;
      if (held >= 0) {
        if (!this.dragging) remember();
        this.dragging = true;
        this.setPoint(this.toImage(at), held);
      } else {
        const now = this.toImage(at), was = from;
        this.centre = this.centre.map((c, i) => c + was[i] - now[i]);
        this.draw();
      }
    };
    const up = (last) => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", up);
      this.canvas.removeEventListener("pointercancel", up);
      if (this.dragging) changed();
      else if (far) this.moved();
      else if (last.type === "pointerup" && held >= 0) choose(held);
      else if (last.type === "pointerup") this.setPoint(from, -1);
      else this.centre = centre;
      this.dragging = false;
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, g = this.canvas.getContext("2d");
    this.canvas.width = this.canvas.clientWidth * ratio;
    this.canvas.height = this.canvas.clientHeight * ratio;
    const base = new DOMMatrix([ratio, 0, 0, ratio, 0, 0]);
    g.setTransform(base.multiply(this.matrix()));
    for (const layer of this.layers) {
      if (!layer || !layer.image) continue;
      g.globalAlpha = layer.alpha ?? 1;
      g.imageSmoothingEnabled = this.zoom * layer.pixel < 3;
      g.drawImage(layer.image, layer.box[0], layer.box[1], layer.box[2] - layer.box[0], layer.box[3] - layer.box[1]);
    }
    g.globalAlpha = 1;
    g.setTransform(base);
    g.font = "12px system-ui, sans-serif";
    pairs.forEach((pair, i) => this.mark(g, this.marked(pair), pair.name, fit && fit.outliers.includes(pair.name) ? OFF : COLOUR, i === chosen, this.faint && this.faint(pair)));
    if (half) this.mark(g, this.marked(half), "?", "#fff", true, false);
  }

  mark(g, at, name, colour, strong, faint) {
    if (!at) return;
    const [x, y] = this.toScreen(at);
    g.globalAlpha = faint ? 0.4 : 1;
    for (const [style, width] of [["#000", strong ? 5 : 4], [colour, strong ? 3 : 1.6]]) {
      g.strokeStyle = style;
      g.lineWidth = width;
      g.beginPath();
      g.arc(x, y, MARK_PX, 0, 2 * Math.PI);
      g.moveTo(x - 3, y); g.lineTo(x + 3, y);
      g.moveTo(x, y - 3); g.lineTo(x, y + 3);
      g.stroke();
    }
    g.lineWidth = 3;
    g.strokeStyle = "#000";
    g.strokeText(name, x + 10, y - 8);
    g.fillStyle = colour;
    g.fillText(name, x + 10, y - 8);
    g.globalAlpha = 1;
  }
}

// ---- the two views
const slide = new View(byId("slide"), ([x, y], index) => set("slide_px", [y, x], index));
const ct = new View(byId("ct"), ([x, y], index) => set("volume_um", toUm(x, y), index));
let plane = null, detailAsked = 0, cutAsked = 0, overAsked = 0, detailTimer = 0;
slide.marked = (pair) => pair.slide_px && [pair.slide_px[1], pair.slide_px[0]];
ct.marked = (pair) => plane && pair.volume_um && toPlane(pair.volume_um).slice(0, 2);
ct.faint = (pair) => Math.abs(toPlane(pair.volume_um)[2]) > plane.spacing_um;

function toUm(x, y) {
  return plane.corner_um.map((c, i) => c + plane.spacing_um * (y * plane.down[i] + x * plane.right[i]));
}

// Where a point (z, y, x um) lies on the plane that is shown: x, y in its pixels, and um across it.
function toPlane(um) {
  const off = um.map((v, i) => v - plane.corner_um[i]), dot = (axis) => off.reduce((sum, v, i) => sum + v * axis[i], 0);
  const d = plane.down, r = plane.right;
  const across = [d[1] * r[2] - d[2] * r[1], d[2] * r[0] - d[0] * r[2], d[0] * r[1] - d[1] * r[0]];
  return [dot(r) / plane.spacing_um, dot(d) / plane.spacing_um, dot(across)];
}

async function slidePart(query) {
  const part = await ask(`slide?${new URLSearchParams(query)}`);
  const [[top, bottom], [left, right]] = part.box, image = await picture(part.picture);
  return { image, box: [left - 0.5, top - 0.5, right - 0.5, bottom - 0.5], pixel: (right - left) / image.naturalWidth };
}

// Detail of the slide where the whole picture is too coarse for the zoom.
slide.onMoved = () => {
  clearTimeout(detailTimer);
  const whole = slide.layers[0];
  if (!whole || whole.pixel * slide.zoom < 1.3 || whole.pixel <= 1) { slide.layers[1] = null; return; }
  detailTimer = setTimeout(async () => {
    const { clientWidth: w, clientHeight: h } = slide.canvas;
    const corners = [[0, 0], [w, 0], [0, h], [w, h]].map((c) => slide.toImage(c));
    const range = (i) => [Math.min(...corners.map((c) => c[i])), Math.max(...corners.map((c) => c[i])) + 1].map(Math.round);
    const [[left, right], [top, bottom]] = [range(0), range(1)], mine = ++detailAsked;
    try {
      const part = await slidePart({ top: Math.max(top, 0), bottom: Math.max(bottom, 1), left: Math.max(left, 0), right: Math.max(right, 1) });
      if (mine === detailAsked) { slide.layers[1] = part; slide.draw(); }
    } catch (error) { say(error.message, true); }
  }, 200);
};

async function cut(keep = true) {
  const mine = ++cutAsked, depth = facts.ct.depths_um[byId("depth").value];
  byId("depth-um").value = `${Math.round(depth * 10) / 10} um`;
  byId("depth").disabled = byId("fitted").checked;
  try {
    const found = await ask("cut", byId("fitted").checked ? { points: pairs } : { z_um: depth });
    const image = await picture(found.picture);
    if (mine !== cutAsked) return;
    const middle = keep && plane ? toUm(...ct.centre) : null, before = plane && plane.spacing_um;
    plane = found.plane;
    ct.size = [plane.shape[1], plane.shape[0]];
    ct.layers = [{ image, box: [-0.5, -0.5, plane.shape[1] - 0.5, plane.shape[0] - 0.5], pixel: 1 }];
    if (middle) { ct.centre = toPlane(middle).slice(0, 2); ct.zoom *= plane.spacing_um / before; }
    if (middle) ct.draw(); else ct.whole();
    await overlay();
  } catch (error) { say(error.message, true); }
}

async function overlay() {
  const alpha = byId("over").value / 100, mine = ++overAsked;
  if (!fit || !alpha || !plane) { ct.layers[1] = null; ct.draw(); return; }
  try {
    const found = await ask("overlay", { points: pairs, plane, bend: byId("bend").checked }), image = await picture(found.picture);
    if (mine !== overAsked) return;
    ct.layers[1] = { image, box: ct.layers[0].box, alpha: byId("over").value / 100, pixel: 1 };
    ct.draw();
  } catch (error) { say(error.message, true); }
}

// ---- pairs
function remember() {
  past.push(JSON.stringify({ pairs, half }));
  byId("undo").disabled = false;
}

function set(side, value, index) {
  if (index >= 0) { pairs[index][side] = value; show(); return; }
  remember();
  if (half && !half[side]) {
    pairs.push({ ...half, [side]: value, name: newName() });
    half = null;
    chosen = pairs.length - 1;
    changed();
  } else {
    half = { [side]: value };
    say(side === "slide_px" ? "Now the same place on the CT." : "Now the same place on the slide.");
    draw();
  }
}

function newName() {
  while (pairs.some((pair) => pair.name === `L${number}`)) number++;
  return `L${number}`;
}

async function changed() {
  saved = false;
  fit = null;
  if (pairs.length >= facts.enough) {
    try {
      fit = await ask("fit", { points: pairs });
    } catch (error) { say(error.message, true); }
  }
  for (const id of ["fitted", "over"]) byId(id).disabled = !fit;
  if (!fit && byId("fitted").checked) byId("fitted").checked = false;
  byId("save").disabled = !pairs.length;
  if (fit) {
    const mirrored = fit.mirrored ? "mirrored" : "not mirrored", off = fit.outliers.length ? `; does not agree: ${fit.outliers.join(", ")}` : "";
    byId("fit").textContent = `Fitted plane: depth ${fit.depth_um.toFixed(0)} um, tilt ${fit.tilt_deg.toFixed(1)} degrees, ${mirrored}, scale ${fit.scale.toFixed(3)}${off}`;
    const more = facts.register - pairs.length;
    say(more > 0 ? `${pairs.length} pairs; register needs ${facts.register}.` : `${pairs.length} pairs, not saved yet.`);
  } else if (!half) say(`${pairs.length} of ${facts.enough} pairs that a plane needs.`);
  show();
  if (byId("fitted").checked) await cut(); else await overlay();
}

function draw() { slide.draw(); ct.draw(); }

function show() {
  const rows = pairs.map((pair, i) => {
    const row = document.createElement("tr"), cell = (text, className = "") => {
      const td = row.insertCell();
      td.className = className;
      td.append(text);
    };
    row.className = i === chosen ? "chosen" : "";
    const name = Object.assign(document.createElement("input"), { value: pair.name, maxLength: 80 });
    name.setAttribute("aria-label", "Name of the landmark");
    name.addEventListener("change", () => { remember(); pair.name = name.value.trim() || newName(); changed(); });
    cell(name);
    cell(pair.slide_px.map((v) => v.toFixed(1)).join(", "), "n");
    cell(pair.volume_um.map((v) => v.toFixed(1)).join(", "), "n");
    const off = fit && fit.distance_um[i];
    cell(fit && off !== undefined ? off.toFixed(1) : "", fit && fit.outliers.includes(pair.name) ? "n off" : "n");
    const button = (text, action) => {
      const made = Object.assign(document.createElement("button"), { textContent: text });
      made.setAttribute("aria-label", `${text} ${pair.name}`);
      made.addEventListener("click", action);
      return made;
    };
    const actions = document.createElement("span");
    actions.append(button("Jump", () => jump(i)), " ", button("Remove", () => { remember(); pairs.splice(i, 1); chosen = -1; changed(); }));
    cell(actions);
    return row;
  });
  byId("pairs").replaceChildren(...rows);
  draw();
}

function choose(index) { chosen = index; show(); }

async function jump(index) {
  chosen = index;
  const { slide_px: px, volume_um: um } = pairs[index];
  slide.centre = [px[1], px[0]];
  if (!byId("fitted").checked) {
    const depths = facts.ct.depths_um, off = depths.map((z) => Math.abs(z - um[0]));
    byId("depth").value = off.indexOf(Math.min(...off));
    await cut();
  }
  ct.centre = toPlane(um).slice(0, 2);
  slide.moved();
  show();
}

function undo() {
  if (!past.length) return;
  ({ pairs, half } = JSON.parse(past.pop()));
  half ??= null;
  chosen = -1;
  byId("undo").disabled = !past.length;
  changed();
}

async function save() {
  try {
    const done = await ask("save", { points: pairs });
    saved = true;
    say(`${done.saved} landmarks saved to ${done.file}`);
  } catch (error) { say(error.message, true); }
}

// ---- start
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
byId("depth").addEventListener("input", () => cut());
byId("fitted").addEventListener("change", () => cut(false));
byId("over").addEventListener("input", overlay);
byId("bend").addEventListener("change", overlay);
byId("turn").addEventListener("click", () => { slide.turns = (slide.turns + 1) % 4; slide.whole(); });
byId("mirror").addEventListener("click", (event) => {
  slide.mirrored = !slide.mirrored;
  event.target.setAttribute("aria-pressed", String(slide.mirrored));
  slide.moved();
});
for (const button of document.querySelectorAll("[data-whole]")) {
  button.addEventListener("click", () => (button.dataset.whole === "ct" ? ct : slide).whole());
}
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=range]):not([type=checkbox])")) return;
  const step = { PageDown: 1, PageUp: -1 }[event.key];
  if (step && !byId("depth").disabled) { byId("depth").value = Number(byId("depth").value) + step; cut(); event.preventDefault(); }
  if (event.key === "Escape" && half) { half = null; say("The half pair was dropped."); draw(); }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); }
});
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

(async () => {
  try {
    facts = await ask("facts");
    pairs = facts.points;
    byId("title").textContent = `Landmarks: ${facts.file}`;
    byId("slide-name").textContent = facts.slide.name;
    byId("ct-name").textContent = facts.ct.name;
    byId("depth").max = facts.ct.depths_um.length - 1;
    byId("depth").value = Math.floor(facts.ct.depths_um.length / 2);
    slide.size = [facts.slide.shape[1], facts.slide.shape[0]];
    slide.layers = [await slidePart({})];
    slide.whole();
    await cut(false);
    if (pairs.length) { await changed(); saved = true; say(`${pairs.length} landmarks loaded from ${facts.file}`); }
    document.body.dataset.ready = "yes";
  } catch (error) { say(error.message, true); }
})();
