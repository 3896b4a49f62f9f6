// What pages do beyond links and forms, which work without it: drop files, slide over versions,
// point at marks.
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
  const names = Array.from(input.files, (file) => file.name);
  document.getElementById("chosen").textContent = names.join(", ");
}

// The slider asks for the view of another version at once. What a version answers is marked
// `data-live` and takes the place of what was there; the slider itself stays in the hand.
let asking = null;

listen("#version", ["input"], async (slider) => {
  const name = slider.dataset.versions.split(" ")[slider.value];
  const address = slider.dataset.addresses.split(" ")[slider.value];
  document.getElementById("version-name").textContent = name;
  slider.setAttribute("aria-valuetext", name);
  if (asking) asking.abort();
  asking = new AbortController();
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" }, signal: asking.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok || !showVersion(page, slider)) return location.assign(address);
    history.replaceState(null, "", address);
    main.removeAttribute("aria-busy");
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  }
});

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
