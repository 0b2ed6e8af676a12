// Names of dimensions, and the metrics and findings of episodes.

const { episodes, columns } = data;
const numEpisodes = episodes.number.length;
const positions = Array.from({ length: numEpisodes }, (_, position) => position);

const METRICS = {
  shortest: { title: "Shortest", key: "length", sign: 1, odd: -1, badge: "short", text: (p) => seconds(episodes.length[p]) },
  longest: { title: "Longest", key: "length", sign: -1, odd: 1, badge: "long", text: (p) => seconds(episodes.length[p]) },
  still: { title: "Most still", key: "still", sign: -1, odd: 1, badge: "still",
    text: (p) => `state and action rest ${percent(episodes.still[p])} of the time` },
  extreme: { title: "Most extreme", key: "extreme", sign: -1, odd: 1, badge: "extreme",
    text: (p) => `${short(episodes.extreme[p])}\u202fσ, ${peak("extreme", p)}` },
  jump: { title: "Largest jump", key: "jump", sign: -1, odd: 1, badge: "jumpy",
    text: (p) => `${short(episodes.jump[p])}\u202fσ, ${peak("jump", p)}` },
};

// A command of pure noise may still move a robot; a joint that shows only noise stands still.
const noiseBadge = (columnNames) =>
  el("span", { class: "badge odd" }, columnNames.includes("state") ? "does not move" : "only noise");

const widthOfAction = columns.action?.width ?? 0;

function dimensionName(number) {
  const [column, place] = number < widthOfAction ? ["action", number] : ["state", number - widthOfAction];
  const name = columns[column].names[place] ?? place;
  return String(name).startsWith(column) ? String(name) : `${column} ${name}`;
}

const peak = (key, p) => `${dimensionName(episodes[`${key}Dimension`][p])} at ${seconds(episodes[`${key}Step`][p])}`;

const hasValue = (metric, p) => episodes[metric.key][p] !== null;

function sorted(metric, among) {
  const value = (p) => (hasValue(metric, p) ? metric.sign * episodes[metric.key][p] : Infinity);
  return [...among].sort((a, b) => value(a) - value(b) || a - b);
}

const isOdd = (metric, p) => episodes[`${metric.key}Odd`][p] === metric.odd;
const badges = (p) => Object.values(METRICS).filter((metric) => isOdd(metric, p)).map((metric) => metric.badge);

const findingsOf = new Map();
for (const found of data.findings) {
  if (found.position === null) continue;
  findingsOf.set(found.position, [...(findingsOf.get(found.position) ?? []), found]);
}

const nameOf = (p) => `episode ${episodes.number[p]}`;
const taskOf = (p) => data.tasks[episodes.task[p]] ?? "";
const sourceNote = (p) =>
  episodes.source[p] === episodes.number[p] ? "" : `episode ${episodes.source[p]} of the source`;
