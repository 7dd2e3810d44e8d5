// The playground: pictures are sent as they are dropped or chosen, and cards change while the model works.
"use strict";

const token = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];
const drop = document.getElementById("drop"), upload = document.getElementById("upload"), fault = document.getElementById("upload-fault");

function say(place, sentence) {
  place.textContent = sentence;
  place.hidden = sentence === "";
}

async function send(file) {
  const preview = document.getElementById("preview");
  say(fault, "");
  upload.value = ""; preview.hidden = true;
  drop.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch("/playground/uploads", {
      method: "POST", body: file, headers: { "content-type": "application/octet-stream", "x-csrf-token": token() },
    });
    const outcome = answer.headers.get("content-type").startsWith("application/json") ? await answer.json() : { fault: await answer.text() };
    if (outcome.fault) { say(fault, outcome.fault); return; }
    upload.value = outcome.upload;
    preview.src = `/playground/uploads/${encodeURIComponent(outcome.upload)}`;
    preview.hidden = false;
    document.querySelectorAll("input[name=case]").forEach((one) => { one.checked = false; });
  } catch { say(fault, "The server cannot be reached, or the file is larger than it takes."); }
  finally { drop.removeAttribute("aria-busy"); }
}

if (drop !== null) {
  document.getElementById("file").addEventListener("change", (event) => { if (event.target.files.length > 0) send(event.target.files[0]); });
  for (const name of ["dragover", "dragleave", "drop"]) drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length > 0) send(event.dataTransfer.files[0]);
  });
  document.querySelectorAll("input[name=case]").forEach((one) => one.addEventListener("change", () => { upload.value = ""; document.getElementById("preview").hidden = true; }));
}

const watched = new Set();

function watch() {
  document.querySelectorAll("[data-live]").forEach((card) => {
    if (watched.has(card.id)) return;
    watched.add(card.id);
    const events = new EventSource(card.dataset.live);
    events.onmessage = (event) => {
      const now = document.getElementById(card.id);
      if (now === null) { events.close(); return; }
      const fresh = new DOMParser().parseFromString(event.data, "text/html").getElementById(card.id);
      if (now.dataset.state === fresh.dataset.state) { // the button under the pointer stays
        now.querySelector(".outcome").replaceWith(fresh.querySelector(".outcome"));
        return;
      }
      now.replaceWith(fresh);
      htmx.process(fresh);
      if (!("live" in fresh.dataset)) events.close();
    };
  });
}

document.addEventListener("htmx:afterSwap", watch);
document.addEventListener("htmx:beforeSwap", (event) => {
  const place = document.getElementById("turn-fault");
  const failed = event.detail.xhr.status >= 400;
  if (failed) {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    say(place, page.querySelector("main p")?.textContent ?? event.detail.xhr.responseText);
    event.detail.shouldSwap = false;
  } else if (event.detail.target.id === "turns") say(place, "");
});
watch();
