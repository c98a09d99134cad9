"use strict";
// Filters the errors by kind and label, and moves between the passages by keyboard. Without it the page shows all errors.
const form = document.getElementById("filter");
const passages = Array.from(document.querySelectorAll("article"));
let pair = null; // gold and predicted label of a number in the confusion matrix

function matches(error, kinds, label) {
  const { kind, gold, predicted } = error.dataset;
  if (pair && pair.gold && pair.predicted) return kind === "type" && pair.gold === gold && pair.predicted === predicted;
  if (pair) { // the matrix compares equal boundaries only: another boundary is missed and spurious
    const label = pair.gold ? pair.gold === gold : pair.predicted === predicted;
    return label && [pair.gold ? "missed" : "spurious", "boundary", "both"].includes(kind);
  }
  return kinds.has(kind) && (!label || gold === label || predicted === label);
}

function update() {
  const kinds = new Set(Array.from(form.elements.kind.length ? form.elements.kind : [form.elements.kind])
    .filter((box) => box.checked).map((box) => box.value));
  let errors = 0;
  let shown = 0;
  for (const passage of passages) {
    const found = Array.from(passage.querySelectorAll("li")).filter((item) => {
      item.hidden = !matches(item, kinds, form.elements.label.value);
      return !item.hidden;
    });
    passage.hidden = !found.length;
    errors += found.length;
    shown += found.length > 0;
  }
  const only = pair ? " (" + (pair.gold || "nothing") + " predicted as " + (pair.predicted || "nothing") + ")" : "";
  form.querySelector("output").textContent = errors + " errors in " + shown + " passages" + only;
}

function move(by) {
  const visible = passages.filter((passage) => !passage.hidden);
  const at = visible.indexOf(document.activeElement.closest("article"));
  const next = visible[at < 0 ? 0 : Math.min(Math.max(at + by, 0), visible.length - 1)];
  if (next) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  }
}

if (form) {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => { pair = null; update(); });
  form.addEventListener("reset", () => { pair = null; setTimeout(update); });
  for (const button of document.querySelectorAll(".confusion button")) {
    button.addEventListener("click", () => {
      pair = { gold: button.dataset.gold, predicted: button.dataset.predicted };
      update();
      form.scrollIntoView();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const boxes = form.querySelectorAll("input[name=kind]");
    const box = boxes[Number(event.key) - 1];
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "Escape") form.reset();
    else if (event.key === "l") { event.preventDefault(); form.elements.label.focus(); }
    else if (box) box.click();
  });
  update();
}
