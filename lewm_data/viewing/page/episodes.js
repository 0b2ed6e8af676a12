// The list of episodes: filtered, sorted, and shown a page at a time; each row opens.

const ROWS_AT_ONCE = 25;
const FRAMES_IN_ROW = 12;

const FILTERS = {
  all: ["All", () => true],
  odd: ["Stand out", (p) => badges(p).length > 0],
  findings: ["With findings", (p) => findingsOf.has(p)],
  short: ["Too short for a window", (p) => episodes.length[p] < windowSettings.numSteps * windowSettings.frameskip],
  shown: ["With pictures", (p) => p in data.shown],
};

const ORDERS = {
  number: ["Number", (among) => among],
  shortest: ["Shortest first", (among) => sorted(METRICS.shortest, among)],
  longest: ["Longest first", (among) => sorted(METRICS.longest, among)],
  still: ["Most still first", (among) => sorted(METRICS.still, among)],
  extreme: ["Most extreme first", (among) => sorted(METRICS.extreme, among)],
  jump: ["Largest jump first", (among) => sorted(METRICS.jump, among)],
  findings: ["Most findings first", (among) =>
    [...among].sort((a, b) => (findingsOf.get(b)?.length ?? 0) - (findingsOf.get(a)?.length ?? 0) || a - b)],
};

function episodesSection() {
  const list = el("ul", { class: "episodes", onkeydown: walk });
  const status = el("p", { role: "status", class: "quiet", id: "count" });
  const more = el("button", { type: "button", class: "more", onclick: () => {
    const before = list.children.length;
    addRows();
    list.children[before].querySelector("button").focus();
  } });
  const search = el("input", { type: "search", id: "search", placeholder: "number or task",
    "aria-keyshortcuts": "/", oninput: () => refresh() });
  const order = el("select", { id: "order", onchange: () => refresh() },
    Object.entries(ORDERS).map(([key, [label]]) => el("option", { value: key }, label)));
  const counts = {};
  const filters = el("fieldset", { class: "chips" }, el("legend", { class: "hidden" }, "Which episodes"),
    Object.entries(FILTERS).map(([key, [label]]) => {
      counts[key] = el("span", { class: "quiet" });
      return el("label", {}, el("input", { type: "radio", name: "filter", value: key, checked: key === "all",
        onchange: () => refresh() }), el("span", {}, label, " ", counts[key]));
    }));
  let found = [];

  const matches = (p) => {
    const wanted = search.value.trim().toLowerCase();
    if (!wanted) return true;
    return /^\d+$/.test(wanted) ? String(episodes.number[p]) === wanted : taskOf(p).toLowerCase().includes(wanted);
  };
  const addRows = () => {
    const start = list.children.length;
    list.append(...found.slice(start, start + ROWS_AT_ONCE).map((p) => row(p)));
    const rest = found.length - list.children.length;
    more.hidden = rest <= 0;
    more.textContent = `Show ${count(Math.min(rest, ROWS_AT_ONCE))} more of ${count(rest)}`;
  };
  const chosen = () => filters.querySelector("input:checked").value;
  const recount = () => {
    for (const [key, [, belongs]] of Object.entries(FILTERS)) counts[key].textContent = count(positions.filter(belongs).length);
  };
  const refresh = () => {
    const filter = chosen();
    found = ORDERS[order.value][1](positions.filter((p) => FILTERS[filter][1](p) && matches(p)));
    status.textContent = found.length === numEpisodes ? plural(numEpisodes, "episode")
      : `${count(found.length)} of ${plural(numEpisodes, "episode")}`;
    list.replaceChildren();
    addRows();
  };
  const open = (p, step) => {
    search.value = "";
    filters.querySelector("input").checked = true;
    refresh();
    while (!list.querySelector(`#row-${p}`) && list.children.length < found.length) addRows();
    const button = list.querySelector(`#row-${p}`);
    toggle(p, true, step);
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "start" });
  };
  const onSettings = () => {
    recount();
    if (chosen() === "short") refresh();
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=range], [type=radio]), select, textarea");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });
  const numShown = Object.keys(data.shown).length;
  const element = el("section", { id: "episodes", "aria-labelledby": "episodes-title" },
    el("h2", { id: "episodes-title" }, "Episodes"),
    el("div", { class: "tools" },
      el("label", {}, el("span", {}, "Find"), search), el("label", {}, el("span", {}, "Sort"), order), filters),
    numShown < numEpisodes && el("p", { class: "note" }, `This page has pictures and curves for ${count(numShown)} of ${plural(numEpisodes, "episode")}: those with errors `
      + "or odd numbers first, then evenly spread ones. The list has all. Choose others with --max_episodes and --episodes."),
    data.isCutShort && el("p", { class: "note" }, "The pictures reached this page's size limit, so later episodes have none. Choose fewer with --episodes."),
    status, list, more);
  recount();
  refresh();
  return { element, open, onSettings };
}

function row(p) {
  const detail = data.shown[p];
  const task = taskOf(p);
  const flaws = findingsOf.get(p) ?? [];
  const worst = flaws.some((found) => found.severity === "error") ? "error" : "warning";
  const button = el("button", { type: "button", class: "row", id: `row-${p}`, "aria-expanded": "false",
    "aria-controls": `detail-${p}`, onclick: () => toggle(p) },
    el("span", { class: "who" },
      el("b", {}, `Episode ${episodes.number[p]}`),
      el("span", {}, seconds(episodes.length[p])), task && el("span", { class: "task", title: task }, task)),
    el("span", { class: "strips", "aria-hidden": "true" }, detail
      ? detail.strips.map((strip) => filmStrip(strip, detail.steps, flaws))
      : el("span", { class: "quiet" }, "no pictures on this page")),
    el("span", { class: "numbers" },
      badges(p).map((badge) => el("span", { class: "badge odd" }, badge)),
      flaws.length > 0 && el("span", { class: `badge ${worst}` }, plural(flaws.length, "finding")),
      episodes.readable[p] ? metricLine("still", episodes.still[p] === null ? "n/a" : percent(episodes.still[p])) : "no rows",
      episodes.readable[p] && metricLine("extreme", `${short(episodes.extreme[p])}\u202fσ`),
      episodes.readable[p] && metricLine("jump", `${short(episodes.jump[p])}\u202fσ`)));
  return el("li", {}, button, el("div", { class: "detail", id: `detail-${p}`, hidden: true, role: "region",
    "aria-label": `Details of ${nameOf(p)}` }));
}

const metricLine = (name, value) => el("span", { class: "metric" }, el("span", { class: "quiet" }, name), " ", value);

// Twelve of the strip's frames, including those that findings are about.
function filmStrip(strip, steps, flaws) {
  const numFrames = steps.length;
  const picked = new Set();
  const places = Math.min(FRAMES_IN_ROW, numFrames);
  for (let place = 0; place < places; place += 1) {
    picked.add(Math.round((place * (numFrames - 1)) / Math.max(1, places - 1)));
  }
  const marked = new Set(flaws.map((found) => steps.indexOf(found.step)).filter((number) => number >= 0));
  for (const number of marked) {
    if (picked.has(number)) continue;
    const free = [...picked].filter((other) => !marked.has(other));
    const near = free.reduce((best, other) => (Math.abs(other - number) < Math.abs(best - number) ? other : best), free[0]);
    if (near !== undefined) picked.delete(near);
    picked.add(number);
  }
  const frames = [...picked].sort((a, b) => a - b).map((number) => {
    const box = frame(strip, numFrames, number, null);
    box.classList.toggle("marked", marked.has(number));
    return box;
  });
  return sheet(strip, { class: "strip" }, frames);
}

function toggle(p, isOpen, step) {
  const button = document.getElementById(`row-${p}`);
  const place = document.getElementById(`detail-${p}`);
  const opens = isOpen ?? button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(opens));
  place.hidden = !opens;
  if (opens) place.replaceChildren(player(p, step));
  else place.replaceChildren();
}

// Arrow keys move from row to row.
function walk(event) {
  if (!event.target.matches(".row")) return;
  const rows = [...event.currentTarget.querySelectorAll(".row")];
  const at = rows.indexOf(event.target);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (rows[next] === undefined) return;
  event.preventDefault();
  rows[next].focus();
}
