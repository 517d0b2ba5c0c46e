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
  const isTrue = {
    "<": (a, b) => a < b,
    "<=": (a, b) => a <= b,
    ">": (a, b) => a > b,
    ">=": (a, b) => a >= b,
    "=": (a, b) => a === b,
  };

  for (const box of document.querySelectorAll(".table")) {
    const body = box.querySelector("tbody");
    const heads = [...box.querySelectorAll("thead th")];
    const search = box.querySelector("input[type=search]");
    const slider = box.querySelector("input[type=range]");
    const count = box.querySelector(".count");
    const unfold = box.querySelector(".unfold");
    const keep = Number(box.dataset.keep);
    const all = [...body.rows];
    let fold = Number(box.dataset.fold);

    // The screen shows the first rows, or all rows if the user asks for them or filters. Paper
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

    const sort = (column, up) => {
      for (const head of heads) head.removeAttribute("aria-sort");
      heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
      const byNumber = "number" in heads[column].dataset;
      const value = (row) => {
        const cell = row.cells[column];
        return byNumber ? cell.dataset.v : cell.textContent.trim();
      };
      const rows = all.map((row) => [value(row), row]);
      rows.sort((a, b) => order(a[0], b[0], up ? 1 : -1, byNumber));
      body.append(...rows.map((pair) => pair[1]));
      mark();
    };
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        sort(column, head.getAttribute("aria-sort") !== "ascending");
      });
    });

    // A condition such as "Cells > 20" compares the first column whose heading has these words;
    // any other text is looked for in the whole row. Several conditions are joined by "and".
    const condition = (wanted) => {
      const [, words, sign, value, percent] = /^(.*[^\s<>=])\s*(<=|>=|<|>|=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(%?)$/.exec(wanted) ?? [];
      const titles = heads.map((head) => ("number" in head.dataset && words ? head.dataset.head.toLowerCase() : ""));
      const column = titles.includes(words) ? titles.indexOf(words) : titles.findIndex((title) => title.includes(words));
      if (column < 0) return (row) => row.textContent.toLowerCase().includes(wanted);
      const limit = Number(value) / (percent ? 100 : 1);
      return (row) => {
        const held = row.cells[column].dataset.v;
        return held !== "" && isTrue[sign](number(held), limit);
      };
    };
    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      const conditions = wanted.split(/\s+and\s+/).map(condition);
      for (const row of all) row.hidden = !conditions.every((holds) => holds(row));
      const shown = all.filter((row) => !row.hidden).length;
      count.textContent = wanted ? `${shown} of ${all.length} rows` : "";
      mark();
    };
    search?.addEventListener("input", filter);

    // The values at each position of a slider are in the page, which computes none of them.
    const slide = () => {
      const [positions, values, texts] = ["positions", "values", "texts"].map((name) => slider.dataset[name].split("|"));
      const position = positions[slider.value];
      const column = Number(slider.dataset.column);
      for (const row of all) {
        const place = row.dataset.places.split(" ")[slider.value];
        row.cells[column].textContent = texts[place];
        row.cells[column].dataset.v = values[place];
      }
      const title = slider.dataset.head.replace("{}", position);
      heads[column].dataset.head = title;
      heads[column].querySelector("button").textContent = title;
      const told = `${position} ${slider.dataset.unit}`;
      slider.setAttribute("aria-valuetext", told);
      slider.parentElement.querySelector("output").textContent = told;
      sort(column, false);
      const frame = box.querySelector(".scroll");
      const end = heads[column].offsetLeft + heads[column].offsetWidth;
      if (end > frame.clientWidth) frame.scrollLeft = end - frame.clientWidth;
      if (search?.value.trim()) filter();
    };
    slider?.addEventListener("input", slide);
    // The mouse shows more digits of a number.
    body.addEventListener("mouseover", (event) => {
      const cell = event.target.closest("[data-v]");
      if (cell?.dataset.v) cell.title = `${heads[cell.cellIndex].dataset.head}: ${cell.dataset.v}`;
    });
    mark();
  }
})();
