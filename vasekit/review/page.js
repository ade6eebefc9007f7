"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const whole = (number) => number.toLocaleString("en-US");
  const score = (number) => number.toFixed(4);
  // A name's end tells the view; a museum's GUID before it may go.
  const short = (name) => (name.length > 40 ? name.slice(0, 14) + "\u2026" + name.slice(-22) : name);

  // What a person decided: file name -> decision. Those that the run was given are in it from the start.
  const overrides = new Map(data.applied.map((row) => [row.name, row.decision]));
  const applied = new Map(data.applied.map((row) => [row.name, row]));
  const cards = data.pictures.map(() => []);
  let unsaved = false;

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // ---- pictures ----

  /** A picture as a button, or as a plain box where there is nothing to decide. */
  function card(index, press) {
    const picture = data.pictures[index];
    const mat = make("span", { className: "mat" });
    if (picture.jpeg) {
      mat.append(make("img", { src: "data:image/jpeg;base64," + picture.jpeg, alt: "", decoding: "async" }));
    } else {
      mat.append("no picture");
    }
    const badge = make("span", { className: "badge" });
    const state = make("span", { className: "state" });
    const text = make("span", { className: "text" }, state);
    if (picture.score !== null) text.append(make("span", { className: "score", textContent: score(picture.score) }));
    if (picture.view) text.append(make("span", { textContent: "view " + picture.view }));
    const name = picture.verdict === "error" ? picture.name : short(picture.name);
    text.append(make("span", { className: "name", textContent: name }));
    if (picture.reason) text.append(make("span", { className: "reason", textContent: picture.reason }));
    const box = make(press ? "button" : "div", { title: picture.name }, mat, badge, text);
    if (press) {
      box.type = "button";
      box.addEventListener("click", press);
    }
    cards[index].push({ box, badge, state });
    return make("li", {}, box);
  }

  /** Show in all places of a picture what has become of it. */
  function mark(index, { verdict, badge, overruled, moves }) {
    const names = ["picture", verdict, overruled && "overruled", moves && "moves"].filter(Boolean).join(" ");
    for (const own of cards[index]) {
      if (own.box.className !== names) own.box.className = names;
      if (own.badge.textContent !== badge) own.badge.textContent = badge;
      if (own.state.textContent !== verdict) own.state.textContent = verdict;
      if (own.box.type) own.box.setAttribute("aria-pressed", overruled);
    }
  }

  // ---- charts ----

  const SVG = document.createElementNS.bind(document, "http://www.w3.org/2000/svg");

  function draw(parent, tag, attributes, text = "") {
    const element = SVG(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    parent.append(element);
    return element;
  }

  /** Round numbers between low and high, about `count` of them. */
  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
      found.push([k * step, (k * step || 0).toFixed(digits)]);
    }
    return found;
  }

  /** Axes in an emptied svg; returns how values become pixels. */
  function axes(svg, [left, right], [bottom, top], labels = {}) {
    svg.replaceChildren();
    const { width, height } = svg.getBoundingClientRect();
    const area = { left: 44, right: width - 12, top: 12, bottom: height - (labels.x ? 34 : 18) };
    const x = (value) => area.left + ((value - left) / (right - left)) * (area.right - area.left);
    const y = (value) => area.bottom - ((value - bottom) / (top - bottom)) * (area.bottom - area.top);
    for (const [value, text] of ticks(left, right, Math.max(2, width / 80))) {
      draw(svg, "text", { x: x(value), y: area.bottom + 14, "text-anchor": "middle" }, text);
      draw(svg, "path", { class: "axis", d: `M${x(value)},${area.bottom}v4` });
    }
    for (const [value, text] of ticks(bottom, top, height / 45)) {
      draw(svg, "text", { x: area.left - 6, y: y(value) + 4, "text-anchor": "end" }, text);
      draw(svg, "path", { class: "axis", d: `M${area.left},${y(value)}H${area.right}` });
    }
    const middle = (area.left + area.right) / 2;
    if (labels.x) draw(svg, "text", { x: middle, y: height - 4, "text-anchor": "middle" }, labels.x);
    if (labels.y) draw(svg, "text", { x: area.left + 6, y: area.top }, labels.y);
    return { x, y, area };
  }

  function extent(values) {
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const pad = (high - low) * 0.02 || Math.abs(high) * 0.02 || 0.01;
    return [low - pad, high + pad];
  }

  function curve(chart) {
    const svg = SVG("svg");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${chart.title}: ${chart.yLabel} over ${chart.xLabel}`);
    const figure = make("figure", {}, make("figcaption", { textContent: chart.title }));
    if (chart.points.length < 2) {
      figure.append(make("p", { className: "note", textContent: "too few points to draw" }));
      return figure;
    }
    figure.append(svg);
    const xs = chart.points.map(([x]) => x).concat(chart.marked ?? []);
    const ys = chart.points.map(([, y]) => y);
    new ResizeObserver(() => {
      const { x, y, area } = axes(svg, extent(xs), extent(ys), { x: chart.xLabel, y: chart.yLabel });
      draw(svg, "polyline", { class: "line", points: chart.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") });
      if (chart.marked !== null) {
        draw(svg, "path", { class: "marked", d: `M${x(chart.marked)},${area.top}V${area.bottom}` });
      }
    }).observe(svg);
    return figure;
  }

  // ---- quality: threshold and verdicts ----

  function qualityStage() {
    const doubles = (text) => new Float64Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const free = doubles(data.scores);
    const fixed = doubles(data.fixedScores);
    const all = [...free, ...fixed, ...data.applied.map((row) => row.score)];
    const total = all.length;
    if (!total) return;
    const [low, high] = extent([...all, data.threshold]);
    const digits = Math.min(8, Math.max(4, 3 - Math.floor(Math.log10(high - low))));
    const known = new Map(data.pictures.filter((p) => p.verdict !== "error").map((p) => [p.name, p]));
    const [number, range, reset, svg] = ["threshold", "threshold-range", "threshold-reset", "histogram"].map(byId);
    let threshold = data.threshold;

    /** How many of the sorted scores reach `from`. */
    function atLeast(from) {
      let [start, end] = [0, free.length];
      while (start < end) {
        const middle = (start + end) >> 1;
        if (free[middle] < from) start = middle + 1;
        else end = middle;
      }
      return free.length - start;
    }

    const reaches = (value) => (value >= threshold ? "accepted" : "rejected");
    const decided = { accept: "accepted", reject: "rejected" };
    // Of an override that is taken back the score decides again.
    const unruled = (picture) =>
      picture.byScore || applied.has(picture.name) ? reaches(picture.score) : picture.verdict;
    const verdict = (picture) => decided[overrides.get(picture.name)] ?? unruled(picture);

    /** Numbers over all images, of which the page shows a few: those that the score decides are counted, and what
     *  a person decided is put right one by one. */
    function tally() {
      const change = atLeast(threshold) - atLeast(data.threshold);
      const sum = { gained: Math.max(0, change), lost: Math.max(0, -change) };
      sum.accepted = atLeast(threshold) + data.fixedAccepted;
      const add = (now, before, count) => {
        if (now === "accepted") sum.accepted += count;
        if (now !== before) sum[now === "accepted" ? "gained" : "lost"] += count;
      };
      for (const row of data.applied) {
        add(decided[overrides.get(row.name)] ?? reaches(row.score), decided[row.decision], 1);
      }
      for (const name of overrides.keys()) {
        const picture = known.get(name);
        if (applied.has(name)) continue;
        add(unruled(picture), picture.verdict, -1);
        add(verdict(picture), picture.verdict, 1);
      }
      return { ...sum, rejected: total - sum.accepted };
    }

    function update() {
      for (const [key, value] of Object.entries(tally())) byId(key).textContent = whole(value);
      data.pictures.forEach((picture, index) => {
        if (picture.verdict === "error") return mark(index, { verdict: "error", badge: "" });
        const now = verdict(picture);
        const overruled = overrides.has(picture.name);
        const moves = now !== picture.verdict;
        const badge = overruled ? `overruled: ${overrides.get(picture.name)}` : moves ? `now ${now}` : "";
        mark(index, { verdict: now, badge, overruled, moves });
      });
      for (const sheet of data.sheets) {
        const pictures = sheet.pictures.map((k) => data.pictures[k]);
        const moved = pictures.filter((p) => p.verdict !== "error" && verdict(p) !== p.verdict);
        sheet.moved.textContent = moved.length ? `; ${moved.length} of these change` : "";
      }
      number.value = threshold === data.threshold ? threshold.toFixed(digits) : threshold;
      range.value = threshold;
      range.setAttribute("aria-valuetext", threshold.toFixed(digits));
      reset.disabled = threshold === data.threshold;
      showLine();
      showOverrides(["--threshold", threshold]);
    }

    /** Rounded to what a person can set, so that the number shown is the number used. */
    function set(value, typed = false) {
      if (!Number.isFinite(value)) return;
      const inside = Math.min(high, Math.max(low, value));
      threshold = typed ? value : Number(inside.toFixed(digits));
      update();
    }

    // ---- histogram ----

    let scale = null;
    let line = null;

    function histogram() {
      const bins = new Array(Math.round(Math.min(120, Math.max(24, svg.getBoundingClientRect().width / 9)))).fill(0);
      for (const value of all) bins[Math.floor(((value - low) / (high - low)) * bins.length)]++;
      scale = axes(svg, [low, high], [0, Math.max(2, ...bins)]);
      const { x, y, area } = scale;
      const bars = bins.map((count, k) => {
        const from = x(low + ((high - low) * k) / bins.length);
        const to = x(low + ((high - low) * (k + 1)) / bins.length);
        return count ? `M${from},${area.bottom}V${y(count)}H${to - 1}V${area.bottom}z` : "";
      });
      draw(svg, "path", { class: "below", d: bars.join("") });
      draw(svg, "path", { class: "above", d: bars.join(""), "clip-path": "url(#above)" });
      const clip = draw(svg, "clipPath", { id: "above" });
      draw(svg, "path", { class: "run", d: `M${x(data.threshold)},${area.top}V${area.bottom}` });
      line = {
        above: draw(clip, "rect", { y: 0, height: area.bottom }),
        cut: draw(svg, "path", { class: "cut" }),
        grip: draw(svg, "circle", { class: "grip", r: 6, cy: area.top }),
      };
      showLine();
    }

    function showLine() {
      if (!scale) return;
      const { x, area } = scale;
      const at = Math.min(area.right, Math.max(area.left, x(threshold)));
      line.above.setAttribute("x", at);
      line.above.setAttribute("width", area.right - at + 1);
      line.cut.setAttribute("d", `M${at},${area.top}V${area.bottom}`);
      line.grip.setAttribute("cx", at);
    }

    let grasp = null;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const { x, area } = scale;
      const at = event.clientX - svg.getBoundingClientRect().left;
      // Taken hold of near the line, it does not jump under the pointer.
      const offset = Math.abs(at - x(threshold)) < 10 ? x(threshold) - at : 0;
      grasp = (now) => low + ((now + offset - area.left) / (area.right - area.left)) * (high - low);
      svg.setPointerCapture(event.pointerId);
      if (!offset) set(grasp(at));
    });
    svg.addEventListener("pointermove", (event) => {
      if (grasp) set(grasp(event.clientX - svg.getBoundingClientRect().left));
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (grasp = null));
    new ResizeObserver(histogram).observe(svg);

    for (const input of [number, range]) input.step = 10 ** -digits;
    [range.min, range.max] = [low, high].map((value) => value.toFixed(digits)); // on the steps of its values
    range.addEventListener("input", () => set(range.valueAsNumber));
    // While it is typed a number is not finished: "0." must stay as it is.
    number.addEventListener("change", () => set(number.valueAsNumber, true));
    reset.addEventListener("click", () => set(data.threshold, true));
    byId("threshold-panel").hidden = byId("how").hidden = byId("overrides").hidden = false;

    redraw = update;
    return (index) => () => {
      const picture = data.pictures[index];
      toggle(picture.name, unruled(picture) === "accepted" ? "reject" : "accept");
    };
  }

  // ---- views: the best of each vase ----

  function viewsStage() {
    if (!data.vases.length) return;
    byId("vases").hidden = byId("overrides").hidden = false;
    byId("override-words").textContent = "chosen by hand";

    /** The place of the chosen view in a row; without a person's choice it is the one of the highest score. */
    function best(row) {
      const own = row.views.findIndex((k) => overrides.has(data.pictures[k].name));
      if (own >= 0) return own;
      const [first, second] = row.views.map((k) => data.pictures[k].score);
      return applied.has(data.pictures[row.views[0]].name) && second > first ? 1 : 0;
    }

    /** One view of a vase is the best: another choice takes the place of an earlier one, also of one not shown. */
    function choose(row, index) {
      const name = data.pictures[index].name;
      for (const other of row.views) if (other !== index) overrides.delete(data.pictures[other].name);
      for (const [other, { vase }] of applied) if (vase === row.vase && other !== name) overrides.delete(other);
      toggle(name, "best");
    }

    function heading(row) {
      const second = row.views[1] === undefined ? null : data.pictures[row.views[1]];
      const chosen = applied.has(data.pictures[row.views[0]].name);
      const said = second === null ? "only view" : `margin ${score(row.margin)}, runner-up ${second.name}`;
      const more = row.more ? `; ${whole(row.more)} more views not shown` : "";
      return (chosen ? "chosen by hand; " : "") + said + more;
    }

    for (const row of data.vases) {
      const list = make("ul", { className: "pictures" }, ...row.views.map((k) => card(k, () => choose(row, k))));
      const note = make("p", { className: "note", textContent: heading(row) });
      byId("vases").append(make("section", { className: "vase" }, make("h3", { textContent: row.vase }), note, list));
    }
    redraw = () => {
      for (const row of data.vases) {
        const at = best(row);
        row.views.forEach((k, place) => {
          const overruled = overrides.has(data.pictures[k].name);
          const moves = place === 0 && at !== 0;
          const badge = overruled ? "chosen by hand" : moves ? "was best" : "";
          mark(k, { verdict: place === at ? "best" : "", badge, overruled, moves });
        });
      }
      data.pictures.forEach((p, k) => p.verdict === "error" && mark(k, { verdict: "error", badge: "" }));
      showOverrides([]);
    };
  }

  // ---- overrides ----

  let redraw = () => data.pictures.forEach((_, k) => mark(k, { verdict: "error", badge: "" }));

  function toggle(name, decision) {
    if (!overrides.delete(name)) overrides.set(name, decision);
    unsaved = true;
    redraw();
  }

  let listed = "";
  function showOverrides(flags) {
    const rows = [...overrides].sort(([a], [b]) => (a < b ? -1 : 1));
    byId("override-count").textContent = whole(rows.length);
    byId("download").disabled = !rows.length && !unsaved;
    const given = rows.length || applied.size ? [...flags, "--overrides", "overrides.csv"] : flags;
    byId("flags").textContent = given.join(" ");
    byId("flags").parentElement.hidden = !given.length;
    const state = JSON.stringify(rows);
    if (state === listed) return; // it is long, and dragging the line comes here often
    listed = state;
    byId("override-list").replaceChildren(
      ...rows.map(([name, decision]) => {
        const back = make("button", { type: "button", textContent: "take back" });
        back.addEventListener("click", () => toggle(name, decision));
        const label = decision + (applied.get(name)?.decision === decision ? " (in the run)" : "");
        const text = make("span", { className: "name", textContent: name });
        return make("li", {}, make("b", { textContent: label }), text, back);
      }),
    );
  }

  /** As RFC 4180 says: a cell with a comma, a quote or a line break stands in quotes, and quotes in it are doubled. */
  function csv() {
    const cell = (text) => (/[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [["filename", "decision"], ...[...overrides].sort(([a], [b]) => (a < b ? -1 : 1))];
    return rows.map((row) => row.map(cell).join(",") + "\n").join("");
  }

  byId("download").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    make("a", { href: url, download: "overrides.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    unsaved = false;
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });

  // ---- the page ----

  const press = data.stage === "quality" ? qualityStage() : viewsStage();
  for (const sheet of data.sheets) {
    sheet.moved = make("b");
    const decides = press && sheet.key !== "errors";
    const list = make("ul", { className: "pictures" }, ...sheet.pictures.map((k) => card(k, decides && press(k))));
    const note = make("p", { className: "note" }, sheet.note, sheet.moved);
    const heading = make("h2", { textContent: sheet.title });
    byId("sheets").append(make("section", { id: "sheet-" + sheet.key }, heading, note, list));
  }
  if (data.curves.length) {
    const charts = make("div", { className: "charts" }, ...data.curves.map(curve));
    byId("curves").append(make("h2", { textContent: "Curves" }), charts);
    byId("curves").hidden = false;
  }
  redraw();
})();
