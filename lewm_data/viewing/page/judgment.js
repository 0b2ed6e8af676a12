// Will a world model learn from it? The verdict, what to do, what to type, and a card for each question.

function judgmentSection() {
  const judged = data.judgment;
  if (!judged) return null;
  const { numEpisodes: seen, totalEpisodes: total } = judged;
  return el("section", { id: "learn", "aria-labelledby": "learn-title" },
    el("h2", { id: "learn-title" }, "Will a world model learn from it?"),
    el("p", { class: `verdict ${judged.level}` }, mark(judged.level), judged.sentence),
    seen < total && el("p", { class: "note" }, `Judged from ${plural(seen, "evenly chosen episode")} of ${count(total)}. lewm-data assess looks at more of them.`),
    judged.findings.length > 0 && [el("h3", {}, judged.findingsTitle), el("ol", { class: "todo" }, judged.findings.map(todo))],
    judged.nextSteps.length > 0 && [el("h3", {}, judged.commandsTitle),
      el("ul", { class: "commands" }, judged.nextSteps.map(({ line, purpose }) =>
        el("li", {}, el("span", { class: "quiet" }, purpose), el("code", {}, unbroken(line)), copyButton(line))))],
    el("h3", {}, "What was measured"),
    el("div", { class: "cards" }, judged.cards.map(card)));
}

const mark = (level) => el("span", { class: "mark", "aria-hidden": "true" }, { good: "✓", fair: "!", bad: "✕" }[level]);

const todo = ({ code, camera, found, expected, remedy }) => el("li", {},
  el("b", {}, camera && `${camera}: `, `${found}. `), el("code", {}, code),
  el("div", {}, unbroken(remedy)), el("div", { class: "quiet" }, `Expected: ${expected}.`));

function copyButton(line) {
  if (!navigator.clipboard) return null;
  const button = el("button", { type: "button", "aria-label": `Copy ${line}`, onclick: async () => {
    await navigator.clipboard.writeText(line).then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Select it"; });
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } }, "Copy");
  return button;
}

function card({ question, answer, gauges, scale, mark: limit, note, isFlawed }) {
  return el("div", { class: isFlawed ? "card flawed" : "card" },
    el("h4", {}, question), el("p", { class: "answer" }, answer),
    gauges.length > 0 && el("dl", { class: scale ? "gauges drawn" : "gauges" }, gauges.map((one) => gauge(one, scale, limit))),
    note && el("p", { class: "quiet" }, note));
}

// One measured value: its label, its place on a line, and the value in words.
function gauge({ label, text, value, low, high }, scale, limit) {
  const row = [el("dt", {}, breakable(label))];
  if (scale) {
    const place = (number) => 100 * Math.max(0, Math.min(1, (number - scale[0]) / (scale[1] - scale[0])));
    const [from, to] = low === null || high === null ? [place(Math.max(0, scale[0])), place(value ?? 0)] : [place(low), place(high)];
    row.push(el("dd", { class: "rail", "aria-hidden": "true" },
      value !== null && el("i", { class: "range", style: { left: `${Math.min(from, to)}%`, width: `${Math.abs(to - from)}%` } }),
      limit !== null && el("i", { class: "limit", style: { left: `${place(limit)}%` } }),
      value !== null && el("i", { class: "dot", style: { left: `${place(value)}%` } })));
  }
  return el("div", {}, row, el("dd", {}, text));
}
