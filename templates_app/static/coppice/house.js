// htmx would write a <style> of its own into the page, which the content security policy refuses.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// What the theme leaves without a name gets one, for those who hear the page.
document.addEventListener("DOMContentLoaded", () => {
  const search = document.getElementById("searchbar");
  if (search && !search.hasAttribute("aria-label")) {
    search.setAttribute("aria-label", search.placeholder || "Search");
  }
  const send = document.getElementById("searchbar-submit");
  if (send) send.setAttribute("aria-label", "Search");
});
