// Assembles the page.

function valuesSection() {
  const lengths = binned(episodes.length.map((length) => length / data.fps), 40);
  const groups = Object.entries(columns).map(([column, { names, histogram: counts, min, max, mean, std, width, moves }]) => [
    el("h3", {}, column),
    width > names.length && el("p", { class: "note" }, `These are the first ${names.length} of ${count(width)} dimensions.`),
    el("div", { class: "plots" }, names.map((name, d) => histogram({ name, counts: counts[d], low: min[d], high: max[d],
      note: `mean ${within(mean[d], min[d], max[d])}, σ ${short(std[d])}`, kind: column, moves: moves[d] }))),
  ]);
  return el("section", { id: "values", "aria-labelledby": "values-title" },
    el("h2", { id: "values-title" }, "Values"),
    el("h3", {}, "episodes"),
    el("p", {}, `done is true at ${count(data.numDone)} of ${plural(episodes.length.reduce((sum, length) => sum + length, 0), "step")}.`),
    el("div", { class: "plots" }, histogram({ name: "length", ...lengths, note: plural(numEpisodes, "episode"), kind: "plain", unit: "\u202fs" })),
    groups);
}

function navigation(names) {
  return el("nav", { "aria-label": "Sections" }, el("ul", {}, Object.entries(names).map(([id, name]) =>
    el("li", {}, el("a", { href: `#${id}` }, name)))));
}

const page = document.getElementById("page");
if (numEpisodes === 0) {
  page.replaceChildren(overview(), el("main", {}, findingsSection(() => {}), origin()));
} else {
  const list = episodesSection();
  const hasRows = "action" in columns;
  page.replaceChildren(
    overview(),
    navigation({ findings: `Findings ${count(data.numFindings)}`, ...(data.judgment ? { learn: "Will it learn?" } : {}), episodes: `Episodes ${count(numEpisodes)}`,
      ...(hasRows ? { windows: "Windows", values: "Values" } : {}), origin: "Origin" }),
    el("main", {}, firstLooks(list.open), findingsSection(list.open), judgmentSection(), list.element,
      hasRows && windowsSection(list.onSettings), hasRows && valuesSection(), origin()));
  const first = document.querySelector(".row");
  if (first) toggle(Number(first.id.slice(4)), true);
}
