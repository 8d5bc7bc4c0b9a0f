"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Light and dark: the system's choice until the button is pressed. A page from a file may have no storage.
  const stored = { get: () => { try { return localStorage.getItem("gluonzoo-theme"); } catch { return null; } },
                   set: value => { try { localStorage.setItem("gluonzoo-theme", value); } catch { /* not kept */ } } };
  const button = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  if (["dark", "light"].includes(stored.get())) root.dataset.theme = stored.get();
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; stored.set(root.dataset.theme); label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();

  // Tables whose headings sort: numbers by value, the rest by text; what is not known stays below.
  const cellValue = (row, column) => {
    const cell = row.cells[column], value = cell.dataset.value ?? cell.textContent.trim();
    return value === "" || value === "\u2014" ? null : value;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows], values = rows.map(row => cellValue(row, column));
      const numeric = values.every(value => value === null || Number.isFinite(Number(value)));
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const order = (a, b) => numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
      rows.map((row, place) => [row, values[place]])
        .sort(([, a], [, b]) => a === null || b === null ? (a === null) - (b === null) : (descending ? -1 : 1) * order(a, b))
        .forEach(([row]) => table.tBodies[0].append(row));
    }));
  }

  // Runs that are switched off.
  const off = new Set();
  for (const control of document.querySelectorAll("[data-switch]")) {
    control.addEventListener("click", () => {
      const run = control.dataset.switch, hide = !off.has(run);
      if (hide) off.add(run); else off.delete(run);
      control.setAttribute("aria-pressed", String(!hide));
      document.querySelectorAll(`.plot [data-run="${run}"]`).forEach(part => part.classList.toggle("off", hide));
    });
  }

  // Charts: the values at the place of the pointer, or of the arrow keys.
  const shortly = value => Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2)
    : String(Number(value.toPrecision(5)));
  for (const plot of document.querySelectorAll(".plot")) {
    const low = Number(plot.dataset.low), high = Number(plot.dataset.high);
    const guide = plot.querySelector(".guide"), readout = plot.parentElement.querySelector(".readout");
    const lines = [...plot.querySelectorAll("[data-points]")].map(path => {
      const name = plot.querySelector(`.end[data-run="${path.dataset.run}"]`);
      return { run: path.dataset.run, colour: [...path.classList].find(c => /^c\d+$/.test(c)), key: name.querySelector("b").textContent,
               name: name.title, points: path.dataset.points.split(" ").map(pair => pair.split(",").map(Number)) };
    });
    const places = [...new Set(lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
    let at = -1;
    const show = place => {
      at = Math.max(0, Math.min(places.length - 1, place));
      const x = places[at], near = (high - low) / 40;
      guide.style.left = `${100 * (x - low) / (high - low)}%`;
      guide.hidden = false;
      const items = [Object.assign(document.createElement("span"), { textContent: `${plot.dataset.x} ${shortly(x)}` })];
      for (const line of lines) {
        if (off.has(line.run)) continue;
        const point = line.points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);
        if (Math.abs(point[0] - x) > near) continue;
        const item = document.createElement("span"), key = document.createElement("span"), value = document.createElement("b");
        key.className = `key ${line.colour}`;
        key.textContent = line.key;
        value.textContent = plot.dataset.digits ? point[1].toFixed(Number(plot.dataset.digits)) : shortly(point[1]);
        item.append(key, " ", value);
        item.title = line.name;
        items.push(item);
      }
      readout.replaceChildren(...items);
    };
    const hide = () => { guide.hidden = true; at = -1; readout.replaceChildren(); };
    plot.addEventListener("pointermove", event => {
      const box = plot.getBoundingClientRect(), x = low + (high - low) * (event.clientX - box.left) / box.width;
      show(places.reduce((best, value, place) => Math.abs(value - x) < Math.abs(places[best] - x) ? place : best, 0));
    });
    plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) hide(); });
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", event => {
      const steps = { ArrowRight: at + 1, ArrowLeft: at < 0 ? places.length - 1 : at - 1, Home: 0, End: places.length - 1 };
      if (event.key in steps) { event.preventDefault(); show(steps[event.key]); }
      if (event.key === "Escape") hide();
    });
  }

  // A link to a run opens it; on paper everything is open.
  const open = () => {
    const aim = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = aim; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    if (aim) aim.scrollIntoView();
  };
  addEventListener("hashchange", open);
  if (location.hash) open();
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach(part => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach(part => { part.open = false; }));
})();
