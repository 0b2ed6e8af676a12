// Charts as inline SVG. They stretch to the available width; strokes keep their thickness.

const WIDTH = 300;

function chart(height, label, ...children) {
  const box = { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none" };
  return svg("svg", { ...box, role: "img", "aria-label": label }, ...children);
}

// A path through values in [0, 1]; null leaves a gap.
function path(shares, height, attributes) {
  let pen = "M";
  const parts = [];
  shares.forEach((share, number) => {
    if (share === null) { pen = "M"; return; }
    const x = shares.length > 1 ? (WIDTH * number) / (shares.length - 1) : WIDTH / 2;
    parts.push(`${pen}${x.toFixed(1)} ${(2 + (height - 4) * (1 - share)).toFixed(1)}`);
    pen = "L";
  });
  return svg("path", { d: parts.join(""), fill: "none", "vector-effect": "non-scaling-stroke", ...attributes });
}

const upright = (share, height, kind) => svg("line", {
  x1: WIDTH * share, x2: WIDTH * share, y1: 0, y2: height, class: kind, "vector-effect": "non-scaling-stroke",
});

function bars(counts, height, kind) {
  const most = Math.max(...counts, 1);
  const step = WIDTH / counts.length;
  return counts.map((number, place) => {
    const tall = number ? Math.max(1, (number / most) * (height - 2)) : 0;
    return svg("rect", { x: place * step + 0.3, width: step - 0.6, y: height - tall, height: tall, class: kind });
  });
}

// A histogram with its limits below; `name` is the heading.
function histogram({ name, counts, low, high, note, kind, unit = "", moves = true }) {
  const most = counts.indexOf(Math.max(...counts));
  const at = low + ((high - low) * (most + 0.5)) / counts.length;
  const label = `Histogram of ${name}, from ${short(low)} to ${short(high)}${unit}, most values near ${short(at)}. ${note}`;
  return el("figure", { class: "small" },
    el("figcaption", {}, el("b", {}, breakable(name)), !moves && low !== high && noiseBadge([kind]), el("span", {}, note)),
    low === high ? el("p", { class: "quiet" }, `always ${short(low)}${unit}`) : chart(56, label, bars(counts, 56, kind)),
    low === high ? null : el("div", { class: "axis", "aria-hidden": "true" },
      el("span", {}, `${within(low, low, high)}${unit}`), el("span", {}, `${within(high, low, high)}${unit}`)));
}

// Counts values in equal bins from the smallest to the largest.
function binned(values, numBins) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const counts = new Array(numBins).fill(0);
  for (const value of values) {
    counts[high > low ? Math.min(numBins - 1, Math.floor(((value - low) / (high - low)) * numBins)) : 0] += 1;
  }
  return { low, high, counts };
}
