// Before and After as plain buttons, beside dragging and the arrow keys; also when the result arrives later.
function ready() {
  for (const button of document.querySelectorAll("[data-compare]")) {
    button.hidden = false;
    button.onclick = () => { document.getElementById("compare").value = button.dataset.compare; };
  }
}
ready();
document.addEventListener("htmx:afterSettle", ready);
