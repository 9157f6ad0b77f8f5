// Passkeys: shown where the browser has them, and a sentence where one was not used. The rest is allauth's.
(() => {
  const able = "PublicKeyCredential" in window;
  for (const form of document.querySelectorAll("[data-passkey]")) form.hidden = !able;

  document.addEventListener("allauth.error", (event) => {
    const sentence = document.querySelector("[data-passkey-error]");
    if (!sentence) return;
    event.preventDefault();
    // Hidden and shown again, so that a second failure is read out as well.
    sentence.hidden = true;
    requestAnimationFrame(() => { sentence.hidden = false; });
  });
})();
