// The try-out: what the form holds right now, on a sample photo, with what is wrong said where it is asked for.
const panel = document.getElementById("try-out");

if (panel) {
  const form = panel.closest("form");
  const errors = document.getElementById("try-out-errors");
  const label = (name) => form.querySelector(`label[for=id_${name}]`)?.textContent.replace(/:$/, "") ?? name;

  const complain = (sentences) => {
    errors.replaceChildren(...sentences.map((sentence) => {
      const line = document.createElement("li");
      line.textContent = sentence;
      return line;
    }));
    errors.hidden = !sentences.length;
    if (sentences.length) errors.scrollIntoView({ block: "nearest" });
  };

  async function ask(sample) {
    const body = new FormData(form);
    body.set("sample", sample);
    const answer = await fetch(panel.dataset.address, { method: "POST", body });
    if (answer.headers.get("Content-Type") === "image/webp") return URL.createObjectURL(await answer.blob());
    const said = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : {};
    const wrong = Object.entries(said.errors ?? {}).map(([name, found]) => `${label(name)}: ${found.join(" ")}`);
    throw wrong.length ? wrong : [said.message ?? `${answer.status} ${answer.statusText}`];
  }

  panel.addEventListener("click", async ({ target }) => {
    const sample = target.dataset.sample;
    if (!sample) return;
    const pair = target.closest(".desk-pair");
    const after = pair.querySelector(".desk-empty img");
    const status = pair.querySelector("[role=status]");
    target.disabled = true;
    status.textContent = panel.dataset.working;
    complain([]);
    const started = Date.now();
    try {
      const picture = await ask(sample);
      URL.revokeObjectURL(after.src);
      after.src = picture;
      after.hidden = false;
      status.textContent = `After, ${((Date.now() - started) / 1000).toFixed(1)} s`;
    } catch (trouble) {
      complain(Array.isArray(trouble) ? trouble : [panel.dataset.offline]);
      status.textContent = "After";
    }
    target.disabled = false;
  });
}
