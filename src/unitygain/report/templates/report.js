"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // Lists of names that several charts share are written once and named by a number.
  for (const item of Object.values(data.items)) {
    for (const key of ["names", "rows", "columns"]) {
      if (typeof item[key] === "number") item[key] = data.lists[item[key]];
    }
  }
  const tip = document.querySelector(".tip");
  const said = document.querySelector(".said");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const SVG = "http://www.w3.org/2000/svg";

  function say(title, lines, x, y) {
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = title;
    tip.append(head);
    for (const line of lines) {
      const row = document.createElement("span");
      row.textContent = line;
      tip.append(row);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 16 + box.width > innerWidth ? x - box.width - 14 : x + 16;
    tip.style.left = clamp(left, 6, Math.max(6, innerWidth - box.width - 6)) + "px";
    tip.style.top = clamp(y - box.height - 12, 6, innerHeight - box.height - 6) + "px";
  }
  const hush = () => { tip.hidden = true; };

  // A chart: places along x, one step per arrow key; zooming only changes the viewBox of its areas.
  function chart(plot) {
    const info = data.items[plot.dataset.chart];
    const svg = plot.querySelector("svg");
    const cross = svg.querySelector(".cross");
    const drag = svg.querySelector(".drag");
    const areas = svg.querySelectorAll("svg.area");
    const ticks = svg.querySelector("g.ticks");
    const [left, inner, bottom] = ["left", "inner", "bottom"].map((key) => Number(svg.dataset[key]));
    const at = info.at || Array.from({ length: info.n }, (_, index) => index);
    if (!at.length) return;
    const names = Array.isArray(info.names) ? info.names : at.map((index) => info.names + index);
    const whole = document.createElement("button");
    whole.type = "button";
    whole.className = "whole";
    whole.textContent = "Whole range";
    whole.hidden = true;
    whole.addEventListener("click", () => { zoom(0, info.n); plot.focus(); });
    plot.closest("figure").prepend(whole);
    let view = [0, info.n];
    let now = 0;
    let from = null;

    const place = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      return view[0] + clamp((x - left) / inner, 0, 1) * (view[1] - view[0]);
    };
    const pixel = (where) => left + ((where - view[0]) / (view[1] - view[0])) * inner;
    const nearest = (where) => {
      let low = 0;
      let high = at.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (at[middle] + 0.5 < where) low = middle + 1; else high = middle;
      }
      return low > 0 && where - at[low - 1] - 0.5 < at[low] + 0.5 - where ? low - 1 : low;
    };

    function show(index, x, y) {
      now = clamp(index, 0, at.length - 1);
      const lines = info.series.map((series) => series.name + ": " + series.text[now]);
      plot.setAttribute("aria-valuenow", now);
      plot.setAttribute("aria-valuetext", names[now] + ": " + lines.join(", "));
      const middle = pixel(at[now] + 0.5);
      cross.setAttribute("x1", middle);
      cross.setAttribute("x2", middle);
      cross.style.visibility = "visible";
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      say(names[now], lines, x ?? box.left + middle * scale, y ?? box.top + 70);
    }

    function zoom(start, stop) {
      const least = Math.min(5, info.n);
      if (stop - start < least) [start, stop] = [(start + stop - least) / 2, (start + stop + least) / 2];
      view = [clamp(start, 0, info.n - least), clamp(stop, least, info.n)];
      for (const area of areas) {
        area.setAttribute("viewBox", `${view[0]} 0 ${view[1] - view[0]} ${area.viewBox.baseVal.height}`);
      }
      const longest = info.ticks ? Math.max(...info.ticks.map((text) => text.length)) : String(info.n).length;
      const most = Math.max(1, Math.floor(inner / (longest * 6.4 + 14)));
      const first = Math.floor(view[0]);
      const step = Math.max(1, Math.ceil((view[1] - view[0]) / most));
      ticks.replaceChildren();
      for (let index = Math.ceil(first / step) * step; index + 0.5 < view[1]; index += step) {
        if (index + 0.5 < view[0]) continue;
        const text = document.createElementNS(SVG, "text");
        text.setAttribute("class", "x");
        text.setAttribute("x", pixel(index + 0.5));
        text.setAttribute("y", bottom + 16);
        text.textContent = info.ticks ? info.ticks[index] : index;
        ticks.append(text);
      }
      cross.style.visibility = "hidden";
      whole.hidden = view[0] <= 0 && view[1] >= info.n;
    }

    plot.addEventListener("pointermove", (event) => {
      if (from === null) return show(nearest(place(event)), event.clientX, event.clientY);
      hush();
      const [a, b] = [pixel(from), pixel(place(event))].sort((p, q) => p - q);
      drag.setAttribute("x", a);
      drag.setAttribute("width", b - a);
    });
    plot.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && event.pointerType === "mouse") from = place(event);
    });
    addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [start, stop] = [from, place(event)].sort((p, q) => p - q);
      from = null;
      drag.setAttribute("width", 0);
      if (pixel(stop) - pixel(start) > 8) zoom(start, stop);
    });
    plot.addEventListener("dblclick", () => zoom(0, info.n));
    plot.addEventListener("pointerleave", () => { hush(); cross.style.visibility = "hidden"; });
    plot.addEventListener("blur", () => { hush(); cross.style.visibility = "hidden"; });
    plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(now); });
    plot.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.round(at.length / 10));
      const move = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -page, PageUp: page }[event.key];
      const width = view[1] - view[0];
      const middle = at[now] + 0.5;
      if (move) show(now + move);
      else if (event.key === "Home") show(0);
      else if (event.key === "End") show(at.length - 1);
      else if (event.key === "+") { zoom(middle - width / 4, middle + width / 4); show(now); }
      else if (event.key === "-") { zoom(middle - width, middle + width); show(now); }
      else if (event.key === "Escape") { zoom(0, info.n); hush(); }
      else return;
      event.preventDefault();
    });
  }

  // A heatmap: one pixel per cell, scaled up by the style sheet; colour is opacity, so both themes share it.
  function heat(canvas) {
    const info = data.items[canvas.dataset.heat];
    const wide = info.columns.length;
    const high = info.rows.length;
    const cells = Uint8Array.from(atob(info.cells), (char) => char.charCodeAt(0));
    const readout = canvas.closest("figure").querySelector(".readout");
    let now = [0, 0];
    canvas.width = wide;
    canvas.height = high;

    function colour(name) {
      const pen = document.createElement("canvas").getContext("2d");
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      pen.fillRect(0, 0, 1, 1);
      return pen.getImageData(0, 0, 1, 1).data;
    }
    function paint() {
      const [cold, hot, gap] = ["--ahead", "--back", "--error"].map(colour);
      const context = canvas.getContext("2d");
      const image = context.createImageData(wide, high);
      cells.forEach((cell, index) => {
        const share = (cell - 1) / 253;
        const side = info.diverging ? share * 2 - 1 : -share;
        const tone = cell === 255 ? gap : side > 0 ? hot : cold;
        const alpha = cell === 0 ? 0 : cell === 255 ? 1 : info.diverging ? Math.abs(side) : 0.1 + 0.9 * share;
        image.data.set([tone[0], tone[1], tone[2], Math.round(255 * alpha)], 4 * index);
      });
      context.putImageData(image, 0, 0);
    }
    function words(x, y) {
      const cell = cells[y * wide + x];
      const value = info.low + ((cell - 1) / 253) * (info.high - info.low);
      const text = cell === 0 ? "none" : cell === 255 ? "not finite"
        : info.diverging ? "about " + value.toFixed(1) + " dB" : "about " + Number((10 ** value).toPrecision(2)).toLocaleString("en") + " " + info.unit;
      return info.diverging ? [info.columns[x], info.rows[y] + ": " + text] : [info.rows[y], info.columns[x] + ": " + text];
    }
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      now = [
        clamp(Math.floor(((event.clientX - box.left) / box.width) * wide), 0, wide - 1),
        clamp(Math.floor(((event.clientY - box.top) / box.height) * high), 0, high - 1),
      ];
      const [title, line] = words(...now);
      say(title, [line], event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", hush);
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      now = [clamp(now[0] + move[0], 0, wide - 1), clamp(now[1] + move[1], 0, high - 1)];
      readout.textContent = words(...now).join(", ");
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    addEventListener("beforeprint", paint);
    addEventListener("afterprint", paint);
    paint();
  }

  // The rows of all tables are packed; they are unpacked once, when the first table is opened.
  let unpacked = null;
  async function unpack() {
    const bytes = Uint8Array.from(atob(document.getElementById("rows").textContent), (char) => char.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(plain).text());
  }
  async function fill(details) {
    unpacked ??= unpack();
    const [headings, ...rows] = (await unpacked)[details.dataset.table];
    const table = details.querySelector("table");
    if (table.rows.length) return;
    const write = (row, tag, text, scope) => {
      const cell = document.createElement(tag);
      cell.textContent = text;
      if (scope) cell.scope = scope;
      row.append(cell);
    };
    const head = table.createTHead().insertRow();
    for (const heading of headings) write(head, "th", heading, "col");
    const body = table.createTBody();
    for (const [site, ...cells] of rows) {
      const row = body.insertRow();
      write(row, "th", site, "row");
      for (const cell of cells) write(row, "td", cell);
    }
  }

  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    said.textContent = "Code copied";
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 1600);
  }

  document.querySelectorAll(".plot[data-chart]").forEach(chart);
  document.querySelectorAll("canvas[data-heat]").forEach(heat);
  document.querySelectorAll("details[data-table]").forEach((details) => {
    details.addEventListener("toggle", () => fill(details));
  });
  document.querySelectorAll("button.copy").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  });
})();
