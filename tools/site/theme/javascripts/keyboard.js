// What is wider than the page, code or a table, can be scrolled by the keyboard; and the buttons of code have a name.
function makeScrollable() {
  for (const wide of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    else wide.removeAttribute("tabindex");
  }
}
function nameButtons() {
  document.querySelectorAll(".md-code__nav").forEach((nav, k) => nav.setAttribute("aria-label", `Block of code ${k + 1}`));
}
window.addEventListener("load", () => {
  makeScrollable();
  nameButtons();
  // The theme adds the buttons when a block comes into view.
  new MutationObserver(nameButtons).observe(document.querySelector(".md-content"), { childList: true, subtree: true });
});
window.addEventListener("resize", makeScrollable);
