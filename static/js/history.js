// The history: the bar for what is ticked shows only when something is, and a look that is picked is shown at once.
const selection = document.getElementById("selection");
const filters = document.getElementById("filters");
filters.querySelector("button").hidden = true;
filters.addEventListener("change", () => filters.submit());

if (selection) {
  const bar = document.getElementById("selected");
  const count = document.getElementById("count");
  const update = () => {
    const ticked = selection.querySelectorAll("[name=run]:checked").length;
    bar.hidden = !ticked;
    count.textContent = `${ticked} ${count.dataset.words}`;
  };
  bar.querySelector("[type=reset]").hidden = false;
  selection.addEventListener("change", update);
  selection.addEventListener("reset", () => setTimeout(update));
  update();
}
