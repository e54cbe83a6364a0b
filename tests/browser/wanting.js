// What a reader without eyes, without a mouse or with weak eyes needs: a list of what is missing.
() => {
  const wrong = [], seen = (e) => e.checkVisibility() && e.getClientRects().length;
  const words = (e) => {
    const copy = e.cloneNode(true);
    for (const icon of copy.querySelectorAll(".material-symbols-outlined")) icon.remove();
    return copy.textContent.trim();
  };
  const say = (what, e) => wrong.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (seen(e) && !e.labels?.length && !e.getAttribute("aria-label")) say("no label", e);
  for (const e of document.querySelectorAll("a[href], button"))
    if (seen(e) && !words(e) && !e.getAttribute("aria-label") && !e.title) say("no name", e);
  for (const e of document.querySelectorAll("[x-on\\:click]:not(a[href], button, div, td, input)"))
    if (seen(e) && e.tabIndex < 0) say("not for the keyboard", e);
  for (const e of document.querySelectorAll("main table, .cp-page table"))
    if (!e.querySelector("thead th[scope=col]")) say("no headers", e);
  let level = 0;
  for (const e of document.querySelectorAll("#main h1, #main h2, #main h3, #main h4")) {
    if (!seen(e)) continue;
    const now = Number(e.tagName[1]);
    if (now > level + 1) say(`from h${level} to`, e);
    level = now;
  }
  if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const over = (colors) => {
    canvas.fillStyle = "white"; canvas.fillRect(0, 0, 1, 1);
    for (const one of colors) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const bright = (rgb) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const e of document.querySelectorAll(".cp-page *, #result_list *")) {
    if (!seen(e) || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const behind = [];
    for (let one = e; one; one = one.parentElement)
      behind.unshift(getComputedStyle(one).backgroundColor);
    const ground = bright(over(behind));
    const ink = bright(over([...behind, getComputedStyle(e).color]));
    const ratio = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
    if (ratio < (e.matches(".material-symbols-outlined") ? 3 : 4.5)) say(`contrast ${ratio.toFixed(1)}`, e);
  }
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) wrong.push(`${wide} wide on ${innerWidth}`);
  return wrong;
}
