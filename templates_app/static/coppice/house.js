// htmx would write a <style> of its own into the page, which the content security policy refuses.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// The theme leaves some things without a name, or out of the keyboard's reach.
const NAMES = {
  dock_to_right: "Show or hide the list of rooms",
  forest: "Overview",
  search: "Search",
  cancel: "Remove from sorting",
  arrow_back: "Back",
  add: "Add",
};

document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("searchbar");
  if (box) box.setAttribute("aria-label", box.placeholder || "Search");

  for (const icon of document.querySelectorAll(".material-symbols-outlined")) {
    icon.setAttribute("aria-hidden", "true"); // its text is the icon's name, not a word
    const around = icon.closest("a, button, [x-on\\:click]");
    if (around && !around.getAttribute("aria-label") && !around.title) {
      const words = around.textContent.replace(icon.textContent, "").trim();
      const name = NAMES[icon.textContent.trim()];
      if (!words && name) around.setAttribute("aria-label", name);
    }
  }

  for (const one of document.querySelectorAll("a:not([href])[x-on\\:click], span[x-on\\:click]")) {
    one.setAttribute("role", "button");
    one.tabIndex = 0;
    one.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        one.click();
      }
    });
  }
});
