"use strict";

/** Make an element with properties and children; strings are never parsed as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Open all details for printing, and restore them afterwards. */
const openedForPaper = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open]):not(.screen)")) {
    details.open = true;
    openedForPaper.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of openedForPaper.splice(0)) details.open = false;
});

/** A button that copies a command, or selects it where the page may not use the clipboard. */
for (const command of document.querySelectorAll(".command")) {
  const button = make("button", { type: "button", textContent: "Copy command" });
  const status = make("span", { role: "status", className: "soft" });
  button.addEventListener("click", async () => {
    const text = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(text.textContent);
      status.textContent = " copied";
    } catch {
      getSelection().selectAllChildren(text);
      status.textContent = " selected: copy it with your keyboard";
    }
  });
  command.append(button, status);
}
