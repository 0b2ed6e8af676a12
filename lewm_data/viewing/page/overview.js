// The top of the page: the verdict, the size of the dataset, and where to look first.

function overview() {
  const steps = episodes.length.reduce((sum, length) => sum + length, 0);
  const tiles = [
    [count(numEpisodes), numEpisodes === 1 ? "episode" : "episodes"],
    [count(steps), steps === 1 ? "step" : "steps"],
    [duration(steps / data.fps), `at ${short(data.fps)} fps`],
    [String(data.cameras.length), data.cameras.length === 1 ? "camera" : "cameras", data.cameras.join(", ")],
  ];
  if (columns.action && columns.state) tiles.push([`${columns.action.width} + ${columns.state.width}`, "action + state"]);
  else if (columns.action) tiles.push([String(columns.action.width), "action, no state"]);
  if (data.frameSize) tiles.push([data.frameSize.join("\u202f×\u202f"), "pixels per frame in training"]);
  return el("header", { class: "top" },
    el("p", { class: "kind" }, data.isConverted ? "Converted file" : "LeRobot dataset, before its conversion"),
    el("h1", {}, data.name),
    el("p", { class: `verdict ${data.verdict.level}`, id: "verdict" },
      mark(data.verdict.level), data.verdict.sentence),
    data.judgment && el("p", {}, el("a", { class: `verdict ${data.judgment.level}`, href: "#learn" },
      mark(data.judgment.level), `Will a world model learn from it? ${data.judgment.short}.`)),
    el("ul", { class: "tiles" }, tiles.map(([number, what, more]) =>
      el("li", {}, el("b", {}, number), el("span", {}, what), more && el("small", {}, more)))),
    data.judgment?.level === "bad" && data.verdict.level !== "bad"
      ? el("p", { class: "next" }, "Next: ", el("a", { href: "#learn" }, "see what to record differently"))
      : el("p", { class: "next" }, "Next: ", el("code", {}, unbroken(data.verdict.next))));
}

function duration(length) {
  if (length < 60) return `${short(length)}\u202fs`;
  return length < 5400 ? `${(length / 60).toFixed(1)}\u202fmin` : `${(length / 3600).toFixed(1)}\u202fh`;
}

function firstLooks(open) {
  const looks = Object.values(METRICS).map((metric) => {
    const [first] = sorted(metric, positions.filter((p) => hasValue(metric, p) && episodes.length[p] > 0));
    return first === undefined || (metric.key === "still" && episodes.still[first] === 0) ? null : { metric, first };
  }).filter(Boolean);
  if (numEpisodes < 2 || looks.length === 0) return null;
  return el("section", { id: "look", "aria-labelledby": "look-title" },
    el("h2", { id: "look-title" }, "Look here first"),
    el("ul", { class: "looks" }, looks.map(({ metric, first }) => el("li", {},
      el("button", { type: "button", class: isOdd(metric, first) ? "look odd" : "look", onclick: () => open(first) },
        el("span", { class: "quiet" }, metric.title, isOdd(metric, first) ? " (stands out)" : ""),
        el("b", {}, nameOf(first)),
        el("span", {}, metric.text(first)))))));
}

function origin() {
  return el("section", { id: "origin", "aria-labelledby": "origin-title" },
    el("h2", { id: "origin-title" }, "Origin"),
    el("dl", { class: "facts" }, data.facts.map(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])),
    el("h3", {}, "How the numbers are computed"),
    el("p", {}, "σ is a dimension's standard deviation over the whole dataset. ",
      el("b", {}, "Still"), " is the share of the steps at which state and action rest for half a second or more, by the rule of ",
      el("code", {}, "lewm-data assess"), ". ",
      el("b", {}, "Extreme"), " is the value farthest from its mean, and ",
      el("b", {}, "jump"), " is the largest change from one step to the next, over action and state. ",
      "These numbers leave out dimensions that show only noise: their range is at most 8 times their noise. ",
      `An episode stands out if the modified z-score of a number (Iglewicz and Hoaglin) exceeds ${data.oddScore}, in datasets of 8 or more episodes.`),
    el("p", { class: "quiet" }, `Made by lewm_data ${data.version}. This page contains everything it shows and makes no network connection.`));
}
