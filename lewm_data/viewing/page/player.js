// An open episode: its frames above a slider, and its curves with a cursor at the same step.

function player(p, startStep) {
  const detail = data.shown[p];
  if (!detail) {
    return el("p", { class: "note" }, `This page has pictures and curves for ${count(Object.keys(data.shown).length)} of `
      + `${plural(numEpisodes, "episode")}, but not for this one. To see it: `,
      el("code", {}, `lewm-data preview … --episodes ${episodes.number[p]}`));
  }
  const { steps } = detail;
  const length = episodes.length[p];
  const nearest = startStep === null || startStep === undefined ? 0 : closest(steps, startStep);
  const slider = el("input", { type: "range", min: 0, max: Math.max(0, steps.length - 1), value: nearest,
    id: `slider-${p}`, "aria-label": `Frame of ${nameOf(p)}`, disabled: steps.length < 2 });
  const readout = el("output", { for: `slider-${p}` });
  const boxes = detail.strips.map((strip, camera) => cameraBox(strip, steps.length, data.cameras[camera]));
  const plots = curves(p, detail);
  const show = () => {
    const number = Number(slider.value);
    const step = steps[number] ?? 0;
    for (const box of boxes) box.show(number, step);
    for (const plot of plots) plot.point(step);
    const words = `${seconds(step)}, step ${count(step)} of ${count(length)}`;
    readout.textContent = words;
    slider.setAttribute("aria-valuetext", words);
  };
  slider.addEventListener("input", show);
  const pictures = el("div", { class: "watch" },
    el("div", { class: "cameras" }, boxes.map((box) => box.element)),
    el("div", { class: "scrub" }, playButton(slider, show), slider, readout),
    sourceNote(p) && el("p", { class: "quiet" }, sourceNote(p)),
    (findingsOf.get(p) ?? []).length > 0 && el("ul", { class: "found" }, findingsOf.get(p).map((found) =>
      el("li", {}, el("span", { class: `badge ${found.severity}` }, found.code),
        el("span", {}, `expected ${found.expected}, found ${found.found}. `, el("span", { class: "quiet" }, found.remedy))))));
  const body = el("div", { class: "player" }, pictures,
    el("div", {}, plots.length > 0 && legend(p), el("div", { class: "plots" }, plots.map((plot) => plot.element))));
  show();
  return body;
}

const closest = (steps, step) => steps.reduce((best, other, number) =>
  (Math.abs(other - step) < Math.abs(steps[best] - step) ? number : best), 0);

function cameraBox(strip, numFrames, camera) {
  const picture = frame(strip, numFrames, 0, camera);
  const element = el("figure", {}, sheet(strip, { class: "single large" }, picture), el("figcaption", {}, camera));
  const show = (number, step) => {
    const isAbsent = strip.picture === null || strip.absent.includes(number);
    picture.classList.toggle("absent", isAbsent);
    picture.style.backgroundPosition = `${numFrames > 1 ? (100 * number) / (numFrames - 1) : 0}% 0`;
    picture.setAttribute("aria-label", `${camera} at step ${step}${isAbsent ? ": no picture" : ""}`);
  };
  return { element, show };
}

function playButton(slider, show) {
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
  const button = el("button", { type: "button", onclick: () => {
    if (timer) { stop(); return; }
    button.textContent = "Pause";
    if (Number(slider.value) >= Number(slider.max)) slider.value = -1;
    timer = setInterval(() => {
      if (!slider.isConnected || Number(slider.value) >= Number(slider.max)) { stop(); return; }
      slider.value = Number(slider.value) + 1;
      show();
    }, 200);
  } }, "Play");
  return button;
}

// Dimensions of action and state with the same name share a plot: a command, and the joint's response.
function curves(p, detail) {
  if (!detail.action) return [];
  const names = { action: columns.action.names, state: columns.state?.names ?? [] };
  const unpacked = Object.fromEntries(Object.entries(columns).map(([column, { names: own }]) => [column, unpack(detail[column], own.length)]));
  const line = (column, number) => ({ column, shares: unpacked[column][number], moves: columns[column].moves[number],
    low: columns[column].min[number], high: columns[column].max[number] });
  const plots = [];
  names.action.forEach((name, number) => {
    const twin = names.state.indexOf(name);
    plots.push({ name, lines: [line("action", number), ...(twin >= 0 ? [line("state", twin)] : [])] });
  });
  names.state.forEach((name, number) => {
    if (!names.action.includes(name)) plots.push({ name, lines: [line("state", number)] });
  });
  return plots.map(({ name, lines }) => curvePlot(p, detail, name, lines));
}

function curvePlot(p, detail, name, lines) {
  const height = 64;
  const low = Math.min(...lines.map((line) => line.low));
  const high = Math.max(...lines.map((line) => line.high));
  // Noise that fills the box looks like motion: dimensions that do not move get a tenth of its height.
  const moves = lines.some((line) => line.moves);
  const width = (high > low ? high - low : 1) * (moves ? 1 : 10);
  const bottom = moves ? low : (low + high - width) / 2;
  const last = Math.max(1, episodes.length[p] - 1);
  const value = (line, share) => (share === null ? null : line.low + share * (line.high - line.low));
  const marks = (findingsOf.get(p) ?? []).filter((found) => found.step !== null);
  const cursor = upright(0, height, "cursor");
  const label = lines.map((line) => {
    const known = line.shares.filter((share) => share !== null).map((share) => value(line, share));
    return `${line.column} from ${short(Math.min(...known))} to ${short(Math.max(...known))}`;
  }).join(", ");
  const picture = chart(height, `${name} over time: ${label}${moves ? "" : "; only noise"}`,
    marks.map((found) => upright(found.step / last, height, `flaw ${found.severity}`)),
    detail.done.map((step) => upright(step / last, height, "done")),
    lines.map((line) => path(line.shares.map((share) => (share === null ? null : (value(line, share) - bottom) / width)),
      height, { class: line.column })),
    cursor);
  const now = el("span", { class: "now" });
  const point = (step) => {
    cursor.setAttribute("x1", (WIDTH * step) / last);
    cursor.setAttribute("x2", (WIDTH * step) / last);
    const place = Math.min(detail.numPoints - 1, Math.round((step / last) * (detail.numPoints - 1)));
    now.replaceChildren(...lines.map((line) => el("span", { class: line.column }, within(value(line, line.shares[place]), low, high))));
  };
  const element = el("figure", { class: "small" }, el("figcaption", {}, el("b", {}, breakable(name)),
    !moves && noiseBadge(lines.map((line) => line.column)), now), picture,
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, `${within(low, low, high)} to ${within(high, low, high)}`), el("span", {}, seconds(last))));
  return { element, point };
}

const legend = (p) => el("p", { class: "legend" },
  el("span", { class: "action" }, "action"), columns.state && el("span", { class: "state" }, "state"),
  el("span", { class: "done" }, "done"),
  (findingsOf.get(p) ?? []).some((found) => found.step !== null) && el("span", { class: "flaw" }, "finding"),
  el("span", { class: "quiet" }, "from the smallest to the largest value in the dataset"));
