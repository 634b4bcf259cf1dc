// Where several sections of a page begin with a table of the machine that was measured, the reader can choose one of them.
function sectionOf(heading) {
  const level = Number(heading.tagName[1]);
  const section = [heading];
  for (let next = heading.nextElementSibling; next; next = next.nextElementSibling) {
    if (/^H\d$/.test(next.tagName) && Number(next.tagName[1]) <= level) break;
    section.push(next);
  }
  return section;
}
function isMachine(section) {
  const inner = section.findIndex((element, k) => k > 0 && /^H\d$/.test(element.tagName));
  const own = inner < 0 ? section : section.slice(0, inner);
  const head = own.map((element) => element.querySelector("th:first-child")).find((th) => th);
  return head && ["processor", "GPU"].includes(head.textContent.trim());
}
function offerMachines() {
  const title = document.querySelector(".md-content__inner h1");
  const machines = [...document.querySelectorAll(".md-content__inner :is(h2, h3)")].map(sectionOf).filter(isMachine);
  if (machines.length < 2) return;
  const select = document.createElement("select");
  for (const text of ["all machines", ...machines.map(([heading]) => heading.firstChild.textContent)]) select.add(new Option(text));
  select.addEventListener("change", () => {
    machines.forEach((section, k) => {
      for (const element of section) element.hidden = select.selectedIndex > 0 && select.selectedIndex !== k + 1;
    });
  });
  const label = document.createElement("label");
  label.className = "gradus-machines";
  label.append("Show ", select);
  title.after(label);
}
window.addEventListener("load", offerMachines);
