"use strict";
// The bar above neuroglancer: which panels are shown, the stain's opacity, slides to jump to, values under the pointer.
const study = window.study, viewer = window.viewer;
const byId = (id) => document.getElementById(id);
const grey = Object.keys(study.values).filter((name) => name !== "stain");
let view = "side", slide = null;

function userLayer(name) {
  const managed = viewer.layerManager.getLayerByName(name);
  return managed ? managed.layer : null;
}

function panel(layers, layout) {
  return { type: "viewer", layers: layers.filter((name) => viewer.layerManager.getLayerByName(name)), layout };
}

// neuroglancer drops a layer that no panel names, so every panel layout names all layers; only those shown are visible.
function layoutOf() {
  const plane = byId("plane").value, slides = study.slides.map((one) => one.layer);
  if (view === "side") {
    const names = [...(study.hasCT ? ["CT"] : []), ...(slide ? [slide.layer] : []), "stain", ...study.maps];
    const others = slides.filter((name) => !slide || name !== slide.layer);
    return { type: "row", children: names.map((name) => panel(name === "stain" ? ["stain", ...others] : [name], plane)) };
  }
  const all = [...Object.keys(study.values), ...slides];
  if (view === "blend") return panel(all, plane);
  if (view === "four") return panel(all, "4panel");
  const cut = { width: 520, height: 520, position: { link: "linked" }, orientation: { link: "linked" }, scale: { link: "linked" } };
  return panel(all, { type: "3d", crossSections: { plane: cut } });
}

function isShown(name) {
  if (name === "stain") return true;
  if (slide && name === slide.layer) return true;
  if (name === "CT") return view !== "space";
  return view === "side" && study.maps.includes(name);
}

function show() {
  viewer.layout.restoreState(layoutOf());
  for (const name of [...Object.keys(study.values), ...study.slides.map((one) => one.layer)]) {
    const managed = viewer.layerManager.getLayerByName(name);
    if (managed) managed.setVisible(isShown(name));
  }
  const stain = userLayer("stain"), blended = view === "blend" || view === "four";
  if (stain) {
    stain.volumeRenderingMode.restoreState(view === "space" ? "on" : "off");
    stain.volumeRenderingGain.value = slide ? -4.5 : -1; // a volume that is almost clear lets the slide in it be seen
    stain.opacity.value = blended ? Number(byId("opacity").value) : 1;
  }
  for (const button of byId("views").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  byId("opacity-label").hidden = !blended;
}

function goTo(target) {
  slide = target;
  if (slide) {
    byId("plane").value = "xy";
    viewer.position.restoreState(slide.position);
    viewer.crossSectionOrientation.restoreState(slide.orientation);
    viewer.crossSectionScale.restoreState(slide.scale);
  }
  show();
}

// The values under the pointer, in their units; the colour as it is in the stained volume.
function readout() {
  const output = byId("value"), mouse = viewer.mouseState;
  if (!mouse.active || !mouse.position) return;
  const [x, y, z] = Array.from(mouse.position, (v) => Math.round(v * 10) / 10);
  output.textContent = `z ${z}  y ${y}  x ${x} um`;
  for (const name of [...grey, "stain"]) {
    const layer = userLayer(name), found = layer && viewer.layerSelectedValues.get(layer);
    const value = found && found.value;
    if (value === undefined || value === null) continue;
    if (name !== "stain") {
      const about = study.values[name], number = Number(value) * about.slope + about.intercept;
      output.append(` \u00b7 ${name} ${Number(number.toPrecision(4))} ${about.units}`.trimEnd());
    } else {
      const rgb = Array.from(value, Number), patch = document.createElement("span");
      patch.className = "colour";
      patch.style.background = `rgb(${rgb.join(",")})`;
      output.append(" \u00b7 ", patch, `rgb ${rgb.join(" ")}`);
    }
  }
}

for (const button of byId("views").querySelectorAll("button")) {
  button.addEventListener("click", () => { view = button.dataset.view; show(); });
}
byId("plane").addEventListener("change", show);
byId("opacity").addEventListener("input", (event) => {
  const stain = userLayer("stain");
  if (stain) stain.opacity.value = Number(event.target.value);
});
study.slides.forEach((one, i) => byId("slides").append(new Option(one.text ? `${one.name} (${one.text})` : one.name, String(i))));
byId("slides-label").hidden = !study.slides.length;
byId("slides").addEventListener("change", (event) => goTo(study.slides[event.target.value] ?? null));
byId("straight").addEventListener("click", () => viewer.crossSectionOrientation.restoreState([0, 0, 0, 1]));
let waiting = false;
const later = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; readout(); });
};
viewer.mouseState.changed.add(later);
viewer.layerSelectedValues.changed.add(later);
byId("views").querySelector("button").setAttribute("aria-pressed", "true");
byId("opacity-label").hidden = true;
