// What pages do beyond links and forms, which work without it: drop files, slide over versions.
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

// The slider asks for the view of another version, and shows its content in place of this one's.
let asking = null;

listen("#version", ["input"], (slider) => {
  const name = slider.dataset.versions.split(" ")[slider.value];
  document.getElementById("version-name").textContent = name;
  slider.setAttribute("aria-valuetext", name);
});

listen("#version", ["change"], async (slider) => {
  const address = slider.dataset.addresses.split(" ")[slider.value];
  const main = document.querySelector("main");
  if (asking) asking.abort();
  asking = new AbortController();
  main.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" }, signal: asking.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    main.replaceChildren(...page.querySelector("main").childNodes);
    document.title = page.title;
    history.replaceState(null, "", address);
    main.removeAttribute("aria-busy");
    document.getElementById("version")?.focus();
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  }
});
