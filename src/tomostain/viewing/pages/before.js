"use strict";
// neuroglancer's client, as Python's wheel brings it, asks a server for its state. This page has it in its address.
window.EventSource = class {
  constructor() { setTimeout(() => this.onopen && this.onopen(), 0); }
  close() {}
};
window.study = JSON.parse(document.getElementById("study").textContent);
if (!location.hash) {
  const here = new URL(".", location.href).href;
  const state = JSON.stringify(window.study.state).replaceAll("here:/", here);
  history.replaceState(null, "", "#!" + encodeURIComponent(state));
}
