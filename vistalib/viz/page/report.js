"use strict";
const classes = JSON.parse(document.getElementById("classes").textContent);
const byColor = new Map(classes.map(([name, r, g, b]) => [(r << 16) | (g << 8) | b, name]));
const wipe = document.getElementById("wipe");
const stage = wipe.querySelector(".stage");
const under = stage.querySelector(".under");
const over = stage.querySelector(".over");
const readout = stage.querySelector(".readout");
const slider = wipe.querySelector("input");
const rows = [...document.querySelectorAll(".row")];
const shown = {}; // truth and prediction as drawn pixels, to be asked for a colour

slider.addEventListener("input", () => stage.style.setProperty("--cut", 100 - slider.value + "%"));

function pixels(source) {
  const canvas = document.createElement("canvas");
  canvas.width = source.naturalWidth;
  canvas.height = source.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context;
}

async function show(row, button) {
  const image = row.querySelector("[data-role=image]");
  const truth = row.querySelector("[data-role=truth]");
  const prediction = row.querySelector(".of-0 [data-role=prediction]");
  under.src = image.src;
  over.src = prediction.src;
  for (const other of wipe.querySelectorAll(".thumbs button")) other.setAttribute("aria-pressed", other === button);
  await Promise.all([truth.decode(), prediction.decode()]);
  shown.truth = pixels(truth);
  shown.prediction = pixels(prediction);
}

function named(context, x, y) {
  const [r, g, b] = context.getImageData(x, y, 1, 1).data;
  const swatch = document.createElement("i");
  swatch.style.background = "rgb(" + [r, g, b] + ")";
  return [swatch, byColor.get((r << 16) | (g << 8) | b) || "ignored"];
}

stage.addEventListener("pointermove", (event) => {
  if (!shown.truth) return;
  const box = stage.getBoundingClientRect();
  const { width, height } = shown.truth.canvas;
  const x = Math.min(width - 1, Math.floor(((event.clientX - box.left) / box.width) * width));
  const y = Math.min(height - 1, Math.floor(((event.clientY - box.top) / box.height) * height));
  readout.replaceChildren("truth: ", ...named(shown.truth, x, y), " · prediction: ", ...named(shown.prediction, x, y));
  readout.hidden = false;
});
stage.addEventListener("pointerleave", () => (readout.hidden = true));

rows.forEach((row, i) => {
  const button = document.createElement("button");
  const image = document.createElement("img");
  image.src = row.querySelector("[data-role=image]").src;
  image.alt = "Show example " + (i + 1);
  button.type = "button";
  button.append(image);
  button.addEventListener("click", () => show(row, button));
  wipe.querySelector(".thumbs").append(button);
  if (i === 0) show(row, button);
});

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard on this page: the command is at least selected
      button.textContent = "selected";
    }
    setTimeout(() => (button.textContent = "copy"), 1600);
  });
}
