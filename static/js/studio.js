// The studio: show the photo that was chosen, dropped or pasted, and refuse what the server would refuse anyway.
const form = document.getElementById("studio");
const file = document.getElementById("file");
const drop = document.getElementById("drop");
const chosen = document.getElementById("chosen");
const invite = document.getElementById("invite");
const error = document.getElementById("error");

function show(source) {
  if (chosen.src.startsWith("blob:")) URL.revokeObjectURL(chosen.src);
  chosen.src = source;
  chosen.hidden = false;
  invite.hidden = true;
  error.replaceChildren();
}

function refuse(sentence) {
  const line = document.createElement("p");
  line.className = "message error";
  line.textContent = sentence;
  error.replaceChildren(line);
}

function take() {
  const photo = file.files[0];
  if (!photo) return;
  const most = Number(file.dataset.maxBytes);
  if (photo.size > most) {
    file.value = "";
    return refuse(`This photo is too large. A photo may have up to ${Math.floor(most / 1e6)} MB.`);
  }
  for (const sample of form.querySelectorAll("[name=sample]")) sample.checked = false;
  show(URL.createObjectURL(photo));
}

function give(files) {
  const photos = [...files].filter((one) => one.type.startsWith("image/"));
  if (!photos.length) return;
  const list = new DataTransfer();
  list.items.add(photos[0]);
  file.files = list.files;
  take();
}

file.addEventListener("change", take);
for (const sample of form.querySelectorAll("[name=sample]")) {
  sample.addEventListener("change", () => {
    file.value = "";
    show(sample.parentElement.querySelector("img").src);
  });
  if (sample.checked) show(sample.parentElement.querySelector("img").src);
}
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") give(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => give(event.clipboardData.files));

// A picture that this browser cannot show (HEIC in most) may be sent all the same.
chosen.addEventListener("error", () => {
  chosen.hidden = true;
  invite.hidden = false;
  if (file.files[0]) invite.querySelector("strong").textContent = file.files[0].name;
});

const name = document.getElementById("look-name");
function label() {
  name.textContent = form.querySelector("[name=look]:checked")?.dataset.name ?? "";
}
form.addEventListener("change", label);
label();

document.addEventListener("htmx:sendError", () => refuse("There is no connection. Your photo is still here: try again in a moment."));
