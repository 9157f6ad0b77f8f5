// A run's page: seconds that count, Before and After as plain buttons, and what to say while there is no connection.
const offline = document.getElementById("offline");
const compare = () => document.getElementById("compare");

function tick() {
  for (const elapsed of document.querySelectorAll(".elapsed")) {
    const seconds = Math.max(0, Math.round((Date.now() - new Date(elapsed.dataset.since)) / 1000));
    elapsed.textContent = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }
}

document.addEventListener("click", (event) => {
  const to = event.target.closest("[data-compare]")?.dataset.compare;
  if (to) compare().value = to;
});
document.addEventListener("htmx:afterSettle", tick);
document.addEventListener("htmx:sendError", () => { offline.hidden = false; });
document.addEventListener("htmx:afterOnLoad", () => { offline.hidden = true; });
tick();
setInterval(tick, 1000);
