// Training windows with the chosen settings: an example, the batch, and how often each step is drawn.

const windowSettings = { numSteps: data.numSteps, frameskip: data.frameskip };

function windowsSection(onSettings) {
  const run = { now: data.runs[0] };
  const number = (label, key) => {
    const input = el("input", { type: "number", min: 1, max: 1000, value: windowSettings[key], id: `set-${key}`, oninput: () => {
      const value = Math.floor(Number(input.value));
      if (!(value >= 1 && value <= 1000)) return;
      windowSettings[key] = value;
      draw();
      onSettings();
    } });
    return el("label", {}, el("span", {}, label), input);
  };
  const start = el("input", { type: "range", min: 0, value: 0, id: "set-start", autocomplete: "off", oninput: () => draw() });
  const readout = el("p", { class: "quiet readout", "aria-hidden": "true" });
  const example = el("select", { id: "set-example", onchange: () => {
    run.now = data.runs[Number(example.value)];
    start.value = 0;
    draw();
  } }, data.runs.map(({ position }, place) => el("option", { value: place }, nameOf(position))));
  const view = el("div", {});
  const facts = el("div", { class: "coverage", "aria-live": "polite" });
  const draw = () => {
    if (run.now) {
      const last = lastStart(run.now);
      start.max = Math.max(0, last);
      start.disabled = last <= 0;
      start.value = Math.min(Number(start.value), Math.max(0, last));
      const step = (offset) => count(run.now.first + offset);
      start.setAttribute("aria-valuetext", `step ${step(Number(start.value))} of ${nameOf(run.now.position)}`);
      readout.textContent = last <= 0 ? "" : `step ${step(Number(start.value))} (this page has ${step(0)} to ${step(last)})`;
      view.replaceChildren(last < 0 ? unavailable() : windowView(run.now, Number(start.value)));
    } else {
      view.replaceChildren(el("p", { class: "note" }, "Every episode with pictures is shorter than a window with these settings."));
    }
    facts.replaceChildren(...coverage(run.now));
  };
  const element = el("section", { id: "windows", "aria-labelledby": "windows-title" },
    el("h2", { id: "windows-title" }, "A training window"),
    el("p", {}, "A window is num_steps × frameskip consecutive steps of one episode: one frame every frameskip steps, and with it ",
      "all actions up to the next frame, stacked. Try other settings here."),
    el("div", { class: "tools" }, number("num_steps", "numSteps"), number("frameskip", "frameskip"),
      data.runs.length > 0 && el("label", {}, el("span", {}, "Example"), example),
      data.runs.length > 0 && el("label", { class: "wide" }, el("span", {}, "First step (drag to move the window)"), start)),
    readout, view, el("h3", {}, "What training draws from"), facts);
  draw();
  return element;
}

// The last start for which this page has every frame of the window; negative if there is none.
function lastStart(run) {
  const { numSteps, frameskip } = windowSettings;
  const held = new Set(run.steps);
  let start = 0;
  for (; start + numSteps * frameskip <= run.length; start += 1) {
    for (let k = 0; k < numSteps; k += 1) if (!held.has(start + k * frameskip)) return start - 1;
  }
  return start - 1;
}

const unavailable = () => el("p", { class: "note" }, "This page does not have the frames of such a long window. Make one that does: ",
  el("code", {}, `lewm-data preview … --num_steps ${windowSettings.numSteps} --frameskip ${windowSettings.frameskip}`));

function windowView(run, start) {
  const { numSteps, frameskip } = windowSettings;
  const kept = Array.from({ length: numSteps }, (_, k) => start + k * frameskip);
  const { names, mean, std, min, max, moves } = columns.action;
  const action = unpack(run.action, names.length).map((shares, d) =>
    shares.map((share) => (share === null ? null : min[d] + share * (max[d] - min[d]))));
  const cells = [];
  run.strips.forEach((strip, camera) => {
    cells.push(el("div", { class: "head" }, el("span", {}, camera === 0 && run.strips.length === 1 ? "pixels" : data.cameras[camera])));
    kept.forEach((step) => cells.push(sheet(strip, { class: "single" },
      frame(strip, run.steps.length, run.steps.indexOf(step), `${data.cameras[camera]} at step ${run.first + step}`))));
  });
  cells.push(el("div", { class: "head quiet" }, "step"));
  kept.forEach((step) => cells.push(el("div", { class: "step" }, `${count(run.first + step)}`,
    run.done.some((end) => end >= step && end < step + frameskip) && el("span", { class: "badge" }, "done"))));
  cells.push(el("div", { class: "head names" }, names.map((name) => el("span", { title: name }, name))));
  kept.forEach((step) => cells.push(heat(action, step, frameskip, mean, std.map((value, d) => (moves[d] ? value : 0)), names, run.first)));
  return el("div", {},
    el("div", { class: "scroller", tabindex: "0", role: "group", "aria-label": "The window's frames and actions" },
      el("div", { class: "window", style: { "--columns": numSteps } }, cells)),
    el("p", { class: "legend" }, el("span", { class: "scale" }, "−2.5 σ to +2.5 σ of each action"),
      el("span", { class: "quiet" }, `one column per step, ${frameskip} below each frame`)),
    batchTable());
}

// The actions from one kept frame up to the next: a row per dimension, a column per step, colored by distance from the mean.
function heat(action, step, frameskip, mean, std, names, first) {
  const cell = 10;
  const label = `Actions of steps ${first + step} to ${first + step + frameskip - 1}: ` + names.map((name, d) =>
    `${name} ${action[d].slice(step, step + frameskip).map(short).join(" ")}`).slice(0, 12).join("; ");
  const boxes = action.flatMap((values, d) => values.slice(step, step + frameskip).map((value, k) => {
    const z = value === null || !std[d] ? 0 : Math.max(-1, Math.min(1, (value - mean[d]) / std[d] / 2.5));
    return svg("rect", { x: k * cell, y: d * cell, width: cell - 0.6, height: cell - 0.6,
      class: z < 0 ? "low" : "high", "fill-opacity": Math.abs(z).toFixed(3) },
      svg("title", {}, `${names[d]}, step ${first + step + k}: ${short(value)}`));
  }));
  return svg("svg", { class: "heat", viewBox: `0 0 ${frameskip * cell} ${names.length * cell}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label, style: { "--rows": names.length } }, boxes);
}

function batchTable() {
  const { numSteps, frameskip } = windowSettings;
  const [height, width] = data.frameSize ?? ["H", "W"];
  const rows = [
    ...data.frameColumns.map((column) => [column, "uint8", `(B, ${numSteps}, 3, ${height}, ${width})`]),
    ["action", "float32", `(B, ${numSteps}, ${frameskip * columns.action.width})`],
    ...(columns.state ? [["state", "float32", `(B, ${numSteps}, ${columns.state.width})`]] : []),
    ["done", "bool", `(B, ${numSteps})`],
  ];
  return el("table", { class: "batch" }, el("caption", {}, "A training batch of B windows"),
    el("thead", {}, el("tr", {}, ["key", "dtype", "shape"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows.map(([key, dtype, shape]) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, key)),
      el("td", {}, dtype), el("td", {}, el("code", {}, shape))))));
}

// Number of an episode's frames that some window keeps: the last frameskip - 1 steps never start a stretch of actions.
function framesSeen(length, numSteps, frameskip) {
  const starts = length - numSteps * frameskip + 1;
  if (starts <= 0) return 0;
  return starts >= frameskip ? length - frameskip + 1 : numSteps * starts;
}

function coverage(run) {
  const { numSteps, frameskip } = windowSettings;
  const span = numSteps * frameskip;
  let [windows, usable, frames, drawn, steps] = [0, 0, 0, 0, 0];
  for (const length of episodes.length) {
    steps += length;
    if (length < span) continue;
    usable += 1;
    windows += length - span + 1;
    frames += framesSeen(length, numSteps, frameskip);
    drawn += length;
  }
  const short = numEpisodes - usable;
  return [
    el("ul", { class: "tiles" },
      el("li", {}, el("b", { id: "num-windows" }, count(windows)), el("span", {}, windows === 1 ? "window" : "windows"),
        el("small", {}, "each drawn once per epoch")),
      el("li", {}, el("b", {}, `${count(usable)} of ${count(numEpisodes)}`), el("span", {}, "episodes used"),
        el("small", {}, short > 0 ? `${plural(short, "episode")} shorter than ${plural(span, "step")}` : "none is too short")),
      el("li", {}, el("b", { id: "frames-seen" }, steps ? percent(frames / steps) : "none"), el("span", {}, "of frames used"),
        el("small", {}, `${count(steps - frames)} never used`)),
      el("li", {}, el("b", {}, steps ? percent(drawn / steps) : "none"), el("span", {}, "of actions used"),
        el("small", {}, `${count(steps - drawn)} never used`))),
    splitTable(span),
    run && coverageChart(run.position),
  ].filter(Boolean);
}

// Which episodes train, which validate, and which are for the test, with the data module's settings.
function splitTable(span) {
  const { rule, names, sides } = data.split;
  const rows = names.map((side, number) => {
    const lengths = episodes.length.filter((length, p) => sides[p] === number && length >= span);
    const windows = lengths.reduce((sum, length) => sum + length - span + 1, 0);
    return [side, count(lengths.length), count(windows), data.split.episodes[number] || "none"];
  });
  return el("div", { class: "scroller" }, el("table", { class: "split", id: "split" },
    el("caption", {}, `The split by ${rule}`),
    el("thead", {}, el("tr", {}, ["side", "episodes", "windows", "their numbers in the source"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows.map(([side, ...cells]) => el("tr", {}, el("th", { scope: "row" }, side), cells.map((cell) => el("td", {}, cell)))))));
}

// How often each step of one episode is drawn, relative to the maximum.
function coverageChart(p) {
  const { numSteps, frameskip } = windowSettings;
  const length = episodes.length[p];
  const last = length - numSteps * frameskip;
  if (last < 0) return null;
  const asFrame = new Array(length).fill(0);
  const asAction = new Array(length + 1).fill(0);
  for (let start = 0; start <= last; start += 1) {
    for (let k = 0; k < numSteps; k += 1) asFrame[start + k * frameskip] += 1;
    asAction[start] += 1;
    asAction[start + numSteps * frameskip] -= 1;
  }
  for (let step = 1; step < length; step += 1) asAction[step] += asAction[step - 1];
  const height = 72;
  const label = `How often each step of ${nameOf(p)} is drawn: as a frame up to ${numSteps} times, as an action up to `
    + `${numSteps * frameskip} times, less often near the episode's ends.`;
  return el("figure", { class: "small" },
    el("figcaption", {}, el("b", {}, `How often an epoch draws each step of ${nameOf(p)}`)),
    chart(height, label,
      path(asFrame.map((times) => times / numSteps), height, { class: "action" }),
      path(asAction.slice(0, length).map((times) => times / (numSteps * frameskip)), height, { class: "state" })),
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, "step 0"), el("span", {}, `step ${count(length - 1)}`)),
    el("p", { class: "legend" }, el("span", { class: "action" }, `as a frame, up to ${count(numSteps)} times`),
      el("span", { class: "state" }, `among the actions, up to ${count(numSteps * frameskip)} times`)));
}
