"use strict";
// Picks steps, layers and units. All numbers come from the element #numbers.
(() => {
  const told = JSON.parse(document.getElementById("numbers").textContent);
  const all = (choose, root = document) => [...root.querySelectorAll(choose)];
  const byId = (id) => document.getElementById(id);
  const number = (value) => (Math.abs(value) >= 0.01 && Math.abs(value) < 1e4 ? value.toFixed(2) : value.toPrecision(2));
  const unpacked = new Map();
  let layer = 0;

  // The values [T, F] of a layer, row after row.
  function values(place, name) {
    const key = `${place} ${name}`;
    if (!unpacked.has(key)) {
      const { shape, scale, data } = told.layers[place].values[name];
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      const found = Float32Array.from({ length: shape[0] * shape[1] }, (_, k) => view.getInt16(2 * k, true) * scale);
      unpacked.set(key, { found, units: shape[1] });
    }
    return unpacked.get(key);
  }

  function mean(place, name, step) {
    const { found, units } = values(place, name);
    return found.subarray(step * units, (step + 1) * units).reduce((sum, value) => sum + value, 0) / units;
  }

  function pick(step) {
    for (const lanes of all(".lanes")) {
      const cursor = lanes.querySelector(".cursor");
      cursor.hidden = false;
      lanes.style.setProperty("--at", step);
    }
    all(".here").forEach((piece) => piece.classList.remove("here"));
    all(`[data-step="${step}"]`).forEach((piece) => piece.classList.add("here"));
    const alike = all(".alike");
    if (alike.length) alike.forEach((one) => (one.hidden = one.dataset.step !== String(step)));
    all(".readout").forEach((line) => line.replaceChildren(...readout(step)));
  }

  // The numbers of a step: what each group is called, and its numbers by name.
  function readout(step) {
    const { words, saliency, layers } = told;
    const { gates, norms } = layers[layer];
    const groups = [
      [words.speaks, Object.entries(saliency).map(([name, row]) => [words[name].toLowerCase(), number(row[step])])],
      [words["mean of gates"], gates.map((name) => [name, number(mean(layer, name, step))])],
      [words["length of gradient"], Object.entries(norms).map(([name, row]) => [name, number(row[step])])],
    ].filter(([, row]) => row.length);
    const made = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
    const parts = [made("b", `${step + 1} · ${told.pieces[step]}`)];
    for (const [title, row] of groups) {
      const group = made("span", `${title}: `);
      row.forEach(([name, value], k) => group.append(k ? ", " : "", `${name} `, made("b", value)));
      parts.push(group);
    }
    return parts;
  }

  // Brings the column of a step into view, where it was not picked with the pointer.
  function show(step) {
    for (const lanes of all(".lanes")) {
      const box = lanes.parentElement;
      const track = lanes.querySelector(".track");
      const place = track.offsetLeft + (track.offsetWidth * (step + 0.5)) / told.pieces.length;
      const gutter = track.offsetLeft;
      if (place < box.scrollLeft + gutter || place > box.scrollLeft + box.clientWidth)
        box.scrollLeft = place - (box.clientWidth + gutter) / 2;
    }
  }

  for (const lanes of all(".lanes")) {
    const at = (event) => {
      const track = lanes.querySelector(".track").getBoundingClientRect();
      const step = Math.floor(((event.clientX - track.left) / track.width) * Number(lanes.dataset.steps));
      if (step >= 0 && step < told.pieces.length) pick(step);
    };
    lanes.addEventListener("pointermove", at);
    lanes.addEventListener("pointerdown", at);
    lanes.parentElement.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const now = Number(lanes.style.getPropertyValue("--at") || -1) + way;
      const step = Math.min(Math.max(now, 0), told.pieces.length - 1);
      pick(step);
      show(step);
    });
  }
  for (const text of all(".text")) {
    const at = (event) => {
      const piece = event.target.closest("[data-step]");
      if (!piece) return;
      pick(Number(piece.dataset.step));
      show(Number(piece.dataset.step));
    };
    text.addEventListener("pointerover", at);
    text.addEventListener("pointerdown", at);
  }

  function showLayer() {
    if (byId("which-layer")) layer = Number(byId("which-layer").value);
    all(".layer").forEach((block) => (block.hidden = block.dataset.layer !== String(layer)));
    const known = byId("which-value");
    if (!known) return;
    all("option", known).forEach((option) => (option.disabled = !(option.value in told.layers[layer].values)));
    if (!(known.value in told.layers[layer].values)) known.value = Object.keys(told.layers[layer].values)[0];
    all(".lane.map").forEach((map) => (map.hidden = map.dataset.value !== known.value));
  }
  const method = document.querySelector("[name=method]:checked").value;
  const sizes = Object.values(told.saliency)[Number(method)].map(Math.abs);
  if (sizes.length) {
    const most = sizes.indexOf(Math.max(...sizes));
    pick(most);
    show(most);
  }

  for (const id of ["which-layer", "which-value"]) byId(id)?.addEventListener("change", showLayer);
  showLayer();

  const text = document.querySelector(".picker .text");
  function showUnit(from) {
    const [place, name] = byId("unit-value").value.split(/ (.*)/);
    const { found, units } = values(Number(place), name);
    const unit = Math.min(Math.max(Number(from.value) || 0, 0), units - 1);
    for (const field of [byId("unit-number"), byId("unit-slide")]) {
      field.max = units - 1;
      field.value = unit;
    }
    const row = told.pieces.map((_, step) => found[step * units + unit]);
    const most = Math.max(...row.map(Math.abs)) || 1;
    all("[data-step]", text).forEach((piece, step) => {
      piece.className = row[step] >= 0 ? "up" : "down";
      piece.style.setProperty("--s", Math.abs(row[step]) / most);
      piece.title = number(row[step]);
    });
    byId("unit-range").textContent = `${number(Math.min(...row))} … ${number(Math.max(...row))}`;
  }
  if (text) {
    for (const id of ["unit-number", "unit-slide"]) byId(id).addEventListener("input", (event) => showUnit(event.target));
    byId("unit-value").addEventListener("change", () => showUnit(byId("unit-number")));
    showUnit(byId("unit-number"));
  }
})();
