// The studio: show the photo that was chosen, dropped or pasted, sketch every look of it, and keep it until it is sent.
const form = document.getElementById("studio");
const file = document.getElementById("file");
const drop = document.getElementById("drop");
const chosen = document.getElementById("chosen");
const invite = document.getElementById("invite");
const error = document.getElementById("error");
const cards = document.getElementById("cards");
const sources = [...form.querySelectorAll("[name=sample], [name=photo_id]")];
const SKETCHED_SIDE = 480;

// -- The photo ---------------------------------------------------------------------------------------------

function refuse(sentence) {
  const line = document.createElement("p");
  line.className = "message error";
  line.textContent = sentence;
  error.replaceChildren(line);
}

function show(source) {
  if (chosen.src.startsWith("blob:")) URL.revokeObjectURL(chosen.src);
  chosen.removeAttribute("width");
  chosen.removeAttribute("height");
  chosen.src = source;
  chosen.hidden = false;
  invite.hidden = true;
  document.getElementById("another").hidden = false;
  error.replaceChildren();
}

function take() {
  const photo = file.files[0];
  if (!photo) return;
  if (photo.size > Number(file.dataset.maxBytes)) {
    file.value = "";
    return refuse(form.dataset.tooLarge);
  }
  for (const source of sources) source.checked = false;
  show(URL.createObjectURL(photo));
  keep(photo);
  sketchFile(photo);
}

function give(files) {
  const photo = [...files].find((one) => one.type.startsWith("image/") || /\.hei[cf]$/i.test(one.name));
  if (!photo) return files.length && refuse(form.dataset.noPicture);
  const list = new DataTransfer();
  list.items.add(photo);
  file.files = list.files;
  take();
}

function choose(source) {
  for (const other of sources) other.checked = other === source;
  file.value = "";
  show(source.dataset.picture);
  const body = new FormData();
  body.append(source.name, source.value);
  sketch(body);
  forget();
}

file.addEventListener("change", take);
for (const source of sources) source.addEventListener("change", () => choose(source));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") give(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && give(event.clipboardData.files));
const camera = document.getElementById("camera");
camera.addEventListener("change", () => give(camera.files));
camera.parentElement.hidden = !matchMedia("(pointer: coarse)").matches;

// A picture that this browser cannot show (HEIC in most) may be sent all the same.
chosen.addEventListener("error", () => {
  chosen.hidden = true;
  invite.hidden = false;
  if (file.files[0]) invite.querySelector("strong").textContent = file.files[0].name;
});

// -- A photo outlives a reload, and signing in; it is forgotten when it was sent ---------------------------

const shelf = (keeper) => `/chosen-photo-of-${keeper}`;
const { keeper } = form.dataset;

async function keep(photo) {
  if (!window.caches) return;
  const headers = { "Content-Type": photo.type, "X-Name": encodeURIComponent(photo.name), "X-Kept": Date.now() };
  await (await caches.open("studio")).put(shelf(keeper), new Response(photo, { headers }));
}

async function forget() {
  if (window.caches) await caches.delete("studio");
}

async function restore() {
  if (!window.caches || new URLSearchParams(location.search).has("photo_id")) return;
  const kept = (await caches.match(shelf(keeper))) ?? (await caches.match(shelf("visitor")));
  if (!kept || file.files.length || sources.some((one) => one.checked)) return;
  if (Date.now() - kept.headers.get("X-Kept") > 3600e3) return forget();
  const blob = await kept.blob();
  give([new File([blob], decodeURIComponent(kept.headers.get("X-Name")), { type: kept.headers.get("Content-Type") })]);
}

// -- Sketches ----------------------------------------------------------------------------------------------

let asked = new AbortController();

async function sketchFile(photo) {
  const body = new FormData();
  try {
    // Small is enough for cards, and quickly sent; what the browser cannot read the server may.
    const bitmap = await createImageBitmap(photo);
    const scale = Math.min(1, SKETCHED_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width * scale;
    canvas.height = bitmap.height * scale;
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    body.append("photo", await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9)), "small.jpg");
  } catch {
    body.append("photo", photo);
  }
  sketch(body);
}

async function sketch(body) {
  asked.abort();
  asked = new AbortController();
  const headers = { "X-CSRFToken": form.elements.csrfmiddlewaretoken.value };
  try {
    const answer = await fetch(form.dataset.sketches, { method: "POST", body, headers, signal: asked.signal });
    if (!answer.ok) return;
    for (const before of cards.querySelectorAll(".before")) before.src = chosen.src;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      lines.forEach((line) => put(JSON.parse(line)));
    }
  } catch {
    // Without sketches the cards go on showing what they do to a sample.
  }
}

function put({ look, picture }) {
  const layer = cards.querySelector(`[data-look="${look}"]`);
  if (!layer) return;
  const image = new Image(160, 160);
  image.alt = "";
  image.dataset.look = look;
  image.className = layer.getAttribute("class");
  image.src = picture;
  layer.replaceWith(image);
  image.closest(".picture").querySelector(".badge").hidden = false;
}

// -- Looks -------------------------------------------------------------------------------------------------

const search = document.getElementById("search");
const several = document.getElementById("several");
const categories = document.getElementById("categories");
const strength = document.getElementById("strength");
const prompt = document.getElementById("prompt");
const looks = [...form.querySelectorAll("[name=look]")];
strength.disabled = false;

function filter() {
  const category = categories.querySelector("[aria-pressed=true]").dataset.category;
  const words = search.value.toLowerCase().split(/\s+/);
  let left = 0;
  for (const card of cards.querySelectorAll(".card")) {
    const fits = !category || card.dataset.category === category;
    card.hidden = !fits || !words.every((word) => card.dataset.text.toLowerCase().includes(word));
    left += !card.hidden;
  }
  document.getElementById("nothing").hidden = left > 0;
}

function label() {
  const picked = looks.filter((look) => look.checked);
  const names = picked.length > 1 ? `${picked.length} ${form.dataset.looks}` : (picked[0]?.dataset.name ?? "");
  document.getElementById("look-name").textContent = prompt?.value.trim() ? `“${prompt.value.trim().slice(0, 24)}”` : names;
  if (!strength.name && picked[0]?.dataset.strength) strength.value = picked[0].dataset.strength;
}

search.addEventListener("input", filter);
search.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
categories.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const one of categories.children) one.setAttribute("aria-pressed", one === button);
  filter();
});
several.addEventListener("change", () => {
  const first = looks.find((look) => look.checked && !("mode" in look.dataset));
  for (const look of looks) {
    look.type = several.checked ? "checkbox" : "radio";
    if ("mode" in look.dataset) {
      look.disabled = several.checked;
      look.closest(".card").classList.toggle("off", several.checked);
    }
    look.checked = look === first;
  }
  label();
});
// Sent only when it was moved: else every look keeps the strength that it is meant to have.
strength.addEventListener("input", () => {
  strength.name = "strength";
  const words = form.dataset.words.split("|");
  document.getElementById("strength-word").textContent = words[Math.min(words.length - 1, Math.floor(strength.value * words.length))];
});
form.addEventListener("input", label);
form.addEventListener("change", (event) => {
  const full = looks.filter((look) => look.checked).length > Number(form.dataset.mostLooks);
  if (full) event.target.checked = false;
  label();
});

// -- Sending -----------------------------------------------------------------------------------------------

const sending = document.getElementById("sending");
form.addEventListener("htmx:xhr:progress", (event) => {
  sending.hidden = !event.detail.lengthComputable || event.detail.loaded === event.detail.total;
  sending.value = event.detail.loaded / event.detail.total || 0;
});
form.addEventListener("htmx:afterRequest", (event) => {
  sending.hidden = true;
  const next = event.detail.xhr?.getResponseHeader("HX-Redirect");
  if (next && !next.startsWith("/account/")) forget();
});
form.addEventListener("htmx:sendError", () => refuse(form.dataset.offline));

several.checked = false;
label();
const source = sources.find((one) => one.checked && one.dataset.picture);
if (source) choose(source);
else if (form.querySelector("[name=photo_id]:checked")) sketch(new FormData(form));
else restore();
