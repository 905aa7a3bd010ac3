"use strict";
// Draws the charts, switches between light and dark, sorts and filters the tables.
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const root = document.documentElement;

  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");

  // On a narrow page a legend beside a chart would take most of its width.
  function themeConfig() {
    const config = themes[theme()];
    if (!narrow.matches) return config;
    return {
      ...config,
      axis: { ...config.axis, labelLimit: 110, labelFontSize: 11, titleFontSize: 11, titleLimit: 300 },
      legend: { ...config.legend, orient: "bottom", columns: 2, gradientLength: 160, labelLimit: 120 },
    };
  }

  class Drawing {
    constructor(element) {
      this.charts = figures[element.dataset.figure];
      this.canvas = element.querySelector(".canvas");
      this.spoken = element.querySelector(".spoken");
      this.files = [...element.querySelectorAll(".files")];
      this.shown = 0;
      this.at = -1;
      const choice = element.querySelector("select");
      if (choice) {
        choice.addEventListener("change", () => this.show(Number(choice.value)));
        // A browser may bring back what was chosen before the page was loaded again.
        this.shown = Number(choice.value);
      }
      this.canvas.addEventListener("keydown", (event) => this.step(event));
      this.canvas.addEventListener("blur", () => this.leave());
    }

    show(index) {
      this.shown = index;
      return this.draw();
    }

    async draw() {
      for (const each of this.files) each.hidden = Number(each.dataset.chart) !== this.shown;
      const spec = { ...this.charts[this.shown], width: "container" };
      this.result?.finalize();
      this.at = -1;
      this.result = await vegaEmbed(this.canvas, spec, {
        actions: false,
        ast: true, // expressions are interpreted: the page's policy allows no eval
        config: themeConfig(),
        defaultStyle: false,
        renderer: "svg",
        tooltip: { disableDefaultStyle: true, theme: "custom" },
      });
    }

    points() {
      const symbols = this.canvas.querySelectorAll(
        ".mark-symbol.role-mark path[aria-label], .mark-rect.role-mark path[aria-label]");
      const left = (each) => each.getBoundingClientRect();
      return [...symbols].sort((a, b) => left(a).left - left(b).left || left(a).top - left(b).top);
    }

    // Arrow keys go from point to point, with the tooltip that a pointer would bring.
    step(event) {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") this.leave();
      const points = this.points();
      if (!move || !points.length) return;
      event.preventDefault();
      this.leave();
      this.at = this.at < 0 ? (move > 0 ? 0 : points.length - 1)
        : (this.at + move + points.length) % points.length;
      points[this.at].scrollIntoView({ block: "center", behavior: "instant" });
      this.send(points[this.at], "pointerover", "pointermove");
      this.spoken.textContent = document.getElementById("vg-tooltip-element")?.innerText
        || points[this.at].getAttribute("aria-label");
    }

    leave() {
      const point = this.points()[this.at];
      if (point) this.send(point, "pointerout", "mouseout"); // Vega's tooltip heeds the second
    }

    send(point, ...kinds) {
      const box = point.getBoundingClientRect();
      const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
      for (const kind of kinds) point.dispatchEvent(new PointerEvent(kind, { bubbles: true, ...at }));
    }
  }

  const drawings = [...document.querySelectorAll("figure[data-figure]")].map((e) => new Drawing(e));

  async function drawAll() {
    for (const drawing of drawings) await drawing.draw();
    root.dataset.drawn = theme();
  }

  function remembered() {
    try { return localStorage.getItem("loratlas-theme"); } catch { return null; }
  }

  function remember(name) {
    try { localStorage.setItem("loratlas-theme", name); } catch { /* a page from a file may not */ }
  }

  function themeSwitch() {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = theme() === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${theme() === "dark" ? "light" : "dark"} theme`);
      button.removeAttribute("aria-pressed");
    };
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      root.dataset.theme = theme() === "dark" ? "light" : "dark";
      remember(root.dataset.theme);
      label();
      drawAll();
    });
    dark.addEventListener("change", () => { label(); drawAll(); });
    narrow.addEventListener("change", drawAll);
  }

  const cellText = (row, at) => row.cells[at].innerText.trim();

  function compare(at, down) {
    return (a, b) => {
      const [x, y] = [a, b].map((row) => row.cells[at].dataset.value);
      if (x !== undefined || y !== undefined) {
        if (x === undefined) return 1; // what is not known stands last, either way
        if (y === undefined) return -1;
        return down * (Number(x) - Number(y));
      }
      return down * cellText(a, at).localeCompare(cellText(b, at), undefined, { numeric: true });
    };
  }

  function sortable(table) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const up = header.getAttribute("aria-sort") !== "ascending";
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].sort(compare(at, up ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    });
  }

  function filterable(box) {
    const label = box.querySelector(".filter");
    if (!label) return;
    const rows = [...box.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    label.hidden = false;
    label.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      let kept = 0;
      rows.forEach((row, at) => {
        row.hidden = !words.every((word) => texts[at].includes(word));
        kept += row.hidden ? 0 : 1;
      });
      box.querySelector(".count").textContent = words.length ? `${kept} of ${rows.length}` : "";
    });
  }

  const kept = remembered();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  themeSwitch();
  document.querySelectorAll(".table").forEach((box) => {
    sortable(box.querySelector("table"));
    filterable(box);
  });
  drawAll();
})();
