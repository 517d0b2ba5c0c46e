(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  const toggle = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    toggle.textContent = `Switch to ${isDark() ? "light" : "dark"} colours`;
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  system.addEventListener("change", tell);
  tell();

  // Empty values come last whichever way a column is sorted.
  const order = (a, b, sign, byNumber) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (byNumber ? number(a) - number(b) || 0 : a.localeCompare(b, "en", { numeric: true }));
  };
  const number = (text) => (text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text));

  for (const box of document.querySelectorAll(".table")) {
    const body = box.querySelector("tbody");
    const heads = [...box.querySelectorAll("thead th")];
    const search = box.querySelector("input[type=search]");
    const count = box.querySelector(".count");
    const unfold = box.querySelector(".unfold");
    const keep = Number(box.dataset.keep);
    const all = [...body.rows];
    let fold = Number(box.dataset.fold);

    // The screen shows the first rows, or all rows if the user asks for them or searches. Paper
    // shows the first of the rows found.
    const mark = () => {
      let place = 0;
      for (const row of body.rows) {
        row.classList.toggle("over", row.hidden || place >= keep);
        row.classList.toggle("more", place >= fold && !search?.value.trim());
        if (!row.hidden) place += 1;
      }
    };
    unfold?.addEventListener("click", () => {
      fold = all.length;
      unfold.remove();
      mark();
    });
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const byNumber = "number" in head.dataset;
        const value = (row) => {
          const cell = row.cells[column];
          return byNumber ? cell.dataset.v : cell.textContent.trim();
        };
        const rows = all.map((row) => [value(row), row]);
        rows.sort((a, b) => order(a[0], b[0], up ? 1 : -1, byNumber));
        body.append(...rows.map((pair) => pair[1]));
        mark();
      });
    });
    search?.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      for (const row of all) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      const shown = all.filter((row) => !row.hidden).length;
      count.textContent = wanted ? `${shown} of ${all.length} rows` : "";
      mark();
    });
    mark();
  }
})();
