// Keys, radiographs, theme. Pages work without it: every key presses something that is on the page.
"use strict";

const typing = (target) => target.closest("input:not([type=range]), textarea, select, [contenteditable]") !== null;

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement instanceof HTMLElement) {
    if (document.activeElement.type === "search") event.preventDefault(); // else the browser empties the field
    document.activeElement.blur();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (target !== null) {
    event.preventDefault();
    if (target.matches("input, textarea")) { target.focus(); target.select(); } else if (!target.disabled) target.click();
    return;
  }
  if (["j", "k", "o", "Enter"].includes(event.key)) chooseRow(event);
});

function chooseRow(event) {
  const rows = [...document.querySelectorAll("tr[data-row]")];
  const chosen = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  if (event.key === "o" || event.key === "Enter") {
    if (chosen >= 0 && (event.key === "o" || document.activeElement === document.body)) rows[chosen].querySelector("a").click();
    return;
  }
  const wanted = event.key === "j" ? chosen + 1 : chosen - 1;
  if (wanted < 0 || wanted >= rows.length) {
    const page = document.querySelector(event.key === "j" ? "a[rel=next]" : "a[rel=prev]");
    if (page !== null && rows.length > 0) page.click();
    return;
  }
  rows.forEach((row, index) => row.setAttribute("aria-selected", String(index === wanted)));
  rows[wanted].scrollIntoView({ block: "nearest" });
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener !== null) document.getElementById(opener.dataset.opens).showModal();
  const summary = event.target.closest("[data-focus]");
  if (summary !== null && !summary.closest("details").open) setTimeout(() => document.getElementById(summary.dataset.focus).focus());
  const source = event.target.closest("[data-uses]");
  if (source !== null) {
    const editor = document.getElementById("edit");
    editor.open = true;
    for (const name of ["findings", "impression"]) {
      const field = document.getElementById(name);
      field.value = source.dataset[name];
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    editor.scrollIntoView();
    document.getElementById("findings").focus();
  }
});

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `unix_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
});

// One radiograph: the picture's grey values through window and level, on a canvas that can be enlarged and moved.
class Viewer {
  constructor(figure) {
    this.figure = figure;
    this.frame = figure.querySelector(".frame");
    this.canvas = figure.querySelector("canvas");
    this.invert = false;
    this.pixels = null;
    this.loading = null;
    this.scale = 1; this.x = 0; this.y = 0;
    figure.querySelectorAll("input").forEach((input) => input.addEventListener("input", () => this.draw()));
    for (const [name, act] of Object.entries({
      in: () => this.zoom(1.4), out: () => this.zoom(1 / 1.4), reset: () => this.reset(),
      invert: () => { this.invert = !this.invert; this.control("invert").setAttribute("aria-pressed", String(this.invert)); this.draw(); },
    })) this.control(name).addEventListener("click", act);
    this.frame.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15); }, { passive: false });
    this.frame.addEventListener("pointerdown", (event) => { event.preventDefault(); this.frame.setPointerCapture(event.pointerId); this.from = [event.clientX - this.x, event.clientY - this.y]; });
    this.frame.addEventListener("pointermove", (event) => { if (this.from && this.scale > 1) { this.x = event.clientX - this.from[0]; this.y = event.clientY - this.from[1]; this.place(); } });
    for (const name of ["pointerup", "pointercancel"]) this.frame.addEventListener(name, () => { this.from = null; });
  }

  control(name) { return this.figure.querySelector(`[data-control="${name}"]`); }

  load() {
    this.loading ??= new Promise((done, failed) => {
      const image = new Image();
      image.onload = () => {
        this.canvas.width = image.naturalWidth; this.canvas.height = image.naturalHeight;
        const context = this.canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        this.pixels = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
        done();
      };
      image.onerror = failed;
      image.src = this.figure.dataset.image;
    });
    return this.loading;
  }

  async draw() {
    await this.load();
    const width = Number(this.control("window").value), level = Number(this.control("level").value);
    const low = level - width / 2;
    const table = new Uint8ClampedArray(256);
    for (let value = 0; value < 256; value++) {
      const shown = ((value - low) / width) * 255;
      table[value] = this.invert ? 255 - Math.min(255, Math.max(0, shown)) : shown;
    }
    const out = new ImageData(this.canvas.width, this.canvas.height);
    const source = this.pixels.data, target = out.data;
    for (let at = 0; at < source.length; at += 4) {
      target[at] = target[at + 1] = target[at + 2] = table[source[at]];
      target[at + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(out, 0, 0);
    this.canvas.hidden = false;
    this.figure.querySelector("img").hidden = true;
  }

  zoom(by) {
    this.scale = Math.min(12, Math.max(1, this.scale * by));
    if (this.scale === 1) { this.x = 0; this.y = 0; }
    this.place();
    if (this.pixels === null) this.draw();
  }

  reset() {
    this.scale = 1; this.x = 0; this.y = 0; this.invert = false;
    this.control("invert").setAttribute("aria-pressed", "false");
    this.control("window").value = 255; this.control("level").value = 128;
    this.place(); this.draw();
  }

  place() {
    for (const layer of this.frame.children) layer.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.frame.classList.toggle("grab", this.scale > 1);
  }
}

document.querySelectorAll(".viewer").forEach((figure) => new Viewer(figure));
