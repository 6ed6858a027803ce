"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const root = document.documentElement;

  // Colours: the system's until the button is pressed.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  all("#theme").forEach((button) => button.addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  }));

  // Tables: a click on a heading sorts. Numbers first go down, text first goes up; empty cells stay last.
  const valueOf = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
  };
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
  };
  const sort = (head) => {
    const table = head.closest("table"), body = table.tBodies[0];
    const first = head.classList.contains("num") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    all("th", table).forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = all("tr", body).map((row) => [valueOf(row, head.cellIndex), row]);
    keyed.sort(([a], [b]) => (a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
  };
  all(".tool th button").forEach((button) => button.addEventListener("click", () => sort(button.closest("th"))));

  all(".tool").forEach((tool) => {
    const field = tool.querySelector(".filter"), kind = tool.querySelector(".kind");
    const rows = all("tbody tr", tool), count = tool.querySelector(".count");
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = kind ? kind.value : "";
      let shown = 0;
      rows.forEach((row) => {
        const fits = words.every((word) => texts.get(row).includes(word)) && (!wanted || row.dataset.kind === wanted);
        row.hidden = !fits;
        shown += fits;
      });
      count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    field.addEventListener("input", filter);
    if (kind) kind.addEventListener("change", filter);
  });

  // One of several panels, such as the table of each metric.
  all("select.choose").forEach((select) => select.addEventListener("change", () => {
    all(`[data-panel="${select.dataset.for}"]`).forEach((panel, at) => { panel.hidden = at !== select.selectedIndex; });
  }));

  // What a mark is, under the pointer.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(4, event.clientY - 34)}px`;
  });

  all("button.copy").forEach((button) => button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.of).innerText;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch (error) {
      getSelection().selectAllChildren(document.getElementById(button.dataset.of));
      button.textContent = "selected: press Ctrl+C";
    }
  }));

  const opened = [];
  window.addEventListener("beforeprint", () => all("details:not([open])").forEach((part) => {
    part.open = true;
    opened.push(part);
  }));
  window.addEventListener("afterprint", () => opened.splice(0).forEach((part) => { part.open = false; }));
})();
