// What pages do beyond links and forms, which work without it: drop files, slide over versions,
// point at marks, and stay when the service does not answer.
"use strict";

function listen(selector, kinds, handle) {
  for (const kind of kinds) {
    document.addEventListener(kind, (event) => {
      const found = event.target instanceof Element && event.target.closest(selector);
      if (found) handle(found, event);
    });
  }
}

listen(".drop", ["dragenter", "dragover"], (zone, event) => {
  event.preventDefault();
  zone.classList.add("over");
});

listen(".drop", ["dragleave"], (zone) => zone.classList.remove("over"));

listen(".drop", ["drop"], (zone, event) => {
  event.preventDefault();
  zone.classList.remove("over");
  const input = zone.querySelector("input");
  input.files = event.dataTransfer.files;
  tellChosen(input);
});

listen(".drop input", ["change"], tellChosen);

function tellChosen(input) {
  const files = Array.from(input.files), most = Number(input.dataset.most);
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  let fault = "";
  if (files.length > most) fault = `${files.length} pictures are too many: choose at most ${most}.`;
  else if (bytes > input.dataset.bytes - 65536) // what else the form sends
    fault = `${(bytes / 1e6).toFixed(0)} MB are too much: choose at most ${Math.floor(input.dataset.bytes / 1e6)} MB.`;
  input.setCustomValidity(fault);
  document.getElementById("chosen").textContent = fault || files.map((file) => file.name).join(", ");
}

// A line above the page, which stays as it is.
function tell(text) {
  const line = document.getElementById("told-last");
  line.textContent = text;
  line.hidden = !text;
}

const SILENT = "The service does not answer. Nothing was sent: try again.";

async function isAnswering() {
  try {
    return (await fetch("/health")).ok;
  } catch {
    return false;
  }
}

// A form is sent once the service is known to answer; the browser's own error would take the page away.
document.addEventListener("submit", async (event) => {
  const form = event.target, button = event.submitter;
  if (form.dataset.sent) return delete form.dataset.sent;
  event.preventDefault();
  const ticks = form.querySelector("input[type=checkbox][name=without]");
  if (ticks && !form.querySelector("[name=without]:checked, [name=without][type=hidden]") && !button?.dataset.all)
    return tell("No pair is chosen: tick some first.");
  if (!(await isAnswering())) return tell(SILENT);
  tell("");
  form.dataset.sent = "yes";
  form.requestSubmit(button);
});

// The slider asks for the view of another version at once. What a version answers is marked
// `data-live` and takes the place of what was there; the slider itself stays in the hand.
let asking = null;

listen("#version", ["input"], async (slider) => {
  const address = slider.dataset.addresses.split(" ")[slider.value];
  nameVersion(slider);
  if (asking) asking.abort();
  asking = new AbortController();
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" }, signal: asking.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok || !showVersion(page, slider)) return location.assign(address);
    history.replaceState(null, "", address);
    slider.dataset.place = slider.value;
    main.removeAttribute("aria-busy");
    tell("");
  } catch (error) {
    if (error.name === "AbortError") return;
    main.removeAttribute("aria-busy");
    slider.value = slider.dataset.place;
    nameVersion(slider);
    tell(SILENT);
  }
});

function nameVersion(slider) {
  const name = slider.dataset.versions.split(" ")[slider.value];
  document.getElementById("version-name").textContent = name;
  slider.setAttribute("aria-valuetext", name);
}

function showVersion(page, slider) {
  const other = page.getElementById("version");
  if (!other) return false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = page.getElementById(part.id);
    if (now) part.replaceWith(now);
  }
  slider.dataset.addresses = other.dataset.addresses;
  document.title = page.title;
  return true;
}

// A mark of the scatter shows its pair when it is pointed at, reached by keyboard, or tapped; in the
// other half of the plot, so that it does not cover the mark.
function peek(mark) {
  const shown = document.getElementById("peek");
  const circle = mark.querySelector("circle");
  shown.classList.toggle("above", circle.cy.baseVal.value > 120);
  const picture = shown.querySelector("img");
  if (picture.getAttribute("src") !== mark.dataset.picture) picture.src = mark.dataset.picture;
  shown.querySelector("p").textContent = mark.dataset.told;
  shown.querySelector("a").href = mark.getAttribute("href");
  shown.hidden = false;
}

listen(".mark", ["pointerover", "focusin"], peek);

listen(".mark", ["click"], (mark, event) => {
  event.preventDefault();
  peek(mark);
});

document.addEventListener("keydown", (event) => {
  const shown = document.getElementById("peek");
  if (event.key === "Escape" && shown) shown.hidden = true;
});
